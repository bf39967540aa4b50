"""The truth and everything that is measured with it: closed forms, calibration, the evaluation and its record."""

import json
import math
from dataclasses import replace

import pytest
import torch
from tests.conftest import tiny_classifier
from torch import Tensor, nn

from lightleak.attacks import Guess, Oracle
from lightleak.attacks.reconstruction import Reconstruction, merge
from lightleak.data import faces
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.metrics import attribute_regressor, evaluate, truth
from lightleak.metrics.evaluate import METRICS, Evaluation
from lightleak.metrics.evaluation import UNANSWERED
from lightleak.models.classifier import Classifier
from lightleak.priors.gan64 import Critic, GanPrior, Generator
from lightleak.priors.pixels import PixelsPrior
from lightleak.priors.rendered import RenderedPrior


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def people(count: int, seed: int) -> Tensor:
    return faces.sample_factors(count, rng(seed))


def factor(name: str) -> int:
    return [f.name for f in faces.FACTORS].index(name)


# --- distances and verification


def test_the_person_is_at_distance_zero() -> None:
    private = people(12, 1)
    told = truth.compare(private, torch.arange(12), private)
    assert (told.distance == 0).all()
    assert (told.error == 0).all()
    assert told.verified.all()
    assert (told.rank == 0).all()
    assert (told.rank_among_strangers == 0).all()


def test_random_people_score_like_random_people() -> None:
    private, strangers = people(400, 2), people(400, 3)
    told = truth.compare(strangers, torch.arange(400), private)
    assert float(told.error.mean()) == pytest.approx(1, abs=0.05)
    assert float(told.verified.double().mean()) < 0.01
    assert float((told.rank == 0).double().mean()) < 0.02
    # Ranks among C private people are spread evenly.
    assert float(told.rank.double().mean()) / 399 == pytest.approx(0.5, abs=0.06)
    assert float(told.rank_among_strangers.double().mean()) / 1000 == pytest.approx(0.5, abs=0.06)


def test_the_average_face_is_no_random_person() -> None:
    told = truth.compare(torch.zeros(100, len(faces.FACTORS)), torch.arange(100), people(100, 4))
    assert 0.55 < float(told.error.mean()) < 0.85
    assert float(told.verified.double().mean()) < 0.05


def test_the_threshold_keeps_its_false_match_rate_on_other_people() -> None:
    scale = truth.yardstick()
    portraits = truth.portraits(people(300, 5))
    row, column = torch.triu_indices(300, 300, 1)
    share = (truth.distance_table(portraits, portraits)[row, column] <= scale.threshold).double().mean()
    assert 0.4e-3 < float(share) < 2.2e-3
    assert scale.pairs == 499_500
    assert truth.yardstick() is scale
    assert truth.yardstick(1e-2).threshold > scale.threshold


def test_a_rate_that_the_pairs_cannot_show_is_refused() -> None:
    for rate, count in [(1e-3, 100), (0.0, 1000), (1.0, 1000)]:
        with pytest.raises(UserError, match="false match rate"):
            truth.yardstick(rate, count)


def test_distances_agree_with_a_plain_loop() -> None:
    a, b = truth.portraits(people(5, 6)), truth.portraits(people(7, 7))
    table = truth.distance_table(a, b)
    for i in range(5):
        for j in range(7):
            assert float(table[i, j]) == pytest.approx(float((a[i] - b[j]).double().square().mean().sqrt()), rel=1e-6)


def test_a_factor_counts_by_what_it_shows() -> None:
    """Red in black hair hardly shows; the raw factors of both pairs differ by the same."""
    distances = {}
    for lightness in (-1.0, 0.6):
        first = torch.zeros(1, len(faces.FACTORS))
        first[0, factor("hair_lightness")] = lightness
        first[0, factor("hair_grey")] = -1
        first[0, factor("hair_redness")] = -1
        second = first.clone()
        second[0, factor("hair_redness")] = 1
        distances[lightness] = float(truth.compare(second, torch.zeros(1, dtype=torch.long), first).distance)
    assert distances[0.6] > 1.5 * distances[-1.0]


def test_twins_are_not_told_apart() -> None:
    private = people(3, 8)[torch.tensor([0, 1, 1])]
    told = truth.compare(private, torch.arange(3), private)
    assert told.rank.tolist() == [0, 1, 1]
    assert told.verified.all()


def test_truth_does_not_depend_on_company() -> None:
    private, found = people(20, 9), people(300, 10)
    classes = torch.arange(300) % 20
    whole = truth.compare(found, classes, private)
    some = torch.tensor([0, 100, 255, 256, 299])
    part = truth.compare(found[some], classes[some], private)
    assert torch.equal(whole.distance[some], part.distance)
    assert torch.equal(whole.rank[some], part.rank)
    assert torch.equal(whole.rank_among_strangers[some], part.rank_among_strangers)


def test_truth_refuses_what_is_no_person() -> None:
    private = people(3, 11)
    with pytest.raises(UserError, match="finite factors"):
        truth.compare(private * math.nan, torch.arange(3), private)
    with pytest.raises(UserError, match="finite factors"):
        truth.compare(private[:, :5], torch.arange(3), private)
    with pytest.raises(UserError, match="classes from 0 to 2"):
        truth.compare(private, torch.tensor([0, 1, 3]), private)
    with pytest.raises(UserError, match="one class per row"):
        truth.compare(private, torch.arange(2), private)


# --- the attribute regressor

QUICK = attribute_regressor.Fit(steps=30, batch=16, width=8, images=32)


@pytest.fixture(scope="module")
def quick() -> attribute_regressor.AttributeRegressor:
    return attribute_regressor.fit_attribute_regressor(QUICK)


def test_fitting_learns_and_reports(quick: attribute_regressor.AttributeRegressor) -> None:
    losses: list[float] = []
    before = torch.random.get_rng_state()

    def watch(step: int, total: int, **numbers: float) -> None:
        assert (step, total) == (len(losses) + 1, QUICK.steps)
        losses.append(numbers["loss"])

    again = attribute_regressor.fit_attribute_regressor(QUICK, watch)
    assert torch.equal(before, torch.random.get_rng_state())
    assert len(losses) == QUICK.steps
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert quick.quality is not None
    assert quick.quality == again.quality
    assert 0 < quick.quality.error < 0.9
    assert not quick.training
    for name, value in quick.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


@pytest.mark.slow
def test_a_short_fit_beats_the_average_face() -> None:
    fitted = attribute_regressor.fit_attribute_regressor(attribute_regressor.Fit(steps=200, images=256))
    assert fitted.quality is not None
    assert fitted.quality.error < 0.42
    assert fitted.quality.verified > 0.3


def test_quality_of_a_perfect_and_of_a_blind_regressor() -> None:
    factors = people(50, 12)
    assert attribute_regressor.quality(factors, factors) == attribute_regressor.Quality(0.0, 1.0, 1.0, 50)
    assert attribute_regressor.quality(factors.flip(0), factors).error == pytest.approx(1, abs=0.1)


def test_appraisal_does_not_depend_on_batches_or_size(quick: attribute_regressor.AttributeRegressor) -> None:
    images = faces.canonical(people(5, 13), 64)
    whole = attribute_regressor.estimate(quick, images)
    assert whole.shape == (5, len(faces.FACTORS))
    assert torch.allclose(attribute_regressor.estimate(quick, images, 2), whole, atol=1e-5)
    assert float(whole.abs().max()) <= 1
    small = attribute_regressor.estimate(quick, nn.functional.interpolate(images, (128, 128), mode="bilinear"))
    assert torch.allclose(small, whole, atol=0.2)


def test_the_training_metric_predicts_small_changes() -> None:
    metric = attribute_regressor._portrait_metric(rng(0))
    assert torch.allclose(metric, metric.T, atol=1e-6)
    assert float(torch.linalg.eigvalsh(metric).min()) > -1e-6
    start, change = 0.5 * people(200, 14), 0.1 * torch.randn(200, len(faces.FACTORS), generator=rng(15))
    seen = (faces.canonical(start + change, 32) - faces.canonical(start, 32)).square().flatten(1).mean(1)
    told = ((change @ metric) * change).sum(1)
    assert float(torch.corrcoef(torch.stack([seen, told]))[0, 1]) > 0.7


def test_a_regressor_survives_the_disk(quick: attribute_regressor.AttributeRegressor, tmp_path) -> None:
    path = attribute_regressor.save(quick, tmp_path / "deep" / "appraiser.safetensors")
    again = attribute_regressor.load(path)
    images = faces.canonical(people(3, 16), 64)
    assert torch.equal(attribute_regressor.estimate(again, images), attribute_regressor.estimate(quick, images))
    assert again.quality == quick.quality
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_broken_regressor_is_named(quick: attribute_regressor.AttributeRegressor, tmp_path) -> None:
    path = attribute_regressor.save(quick, tmp_path / "appraiser.safetensors")
    whole = path.read_bytes()
    for content in (
        b"",
        whole[:100],
        whole[:-10],
        b"\x80\x04pickle",
        whole.replace(b'\\"width\\": 8', b'\\"width\\": 9'),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match="holds no attribute regressor"):
            attribute_regressor.load(path)
    with pytest.raises(UserError, match="there is no attribute regressor"):
        attribute_regressor.load(tmp_path / "nothing")


# --- the evaluation

PRIOR = RenderedPrior(size=32)


def painted(factors: Tensor, classes: Tensor, confidence: float = 0.9) -> Reconstruction:
    """Portraits of given people, handed in as reconstructions of `classes`."""
    latents = torch.cat([factors, torch.zeros(len(factors), len(faces.CIRCUMSTANCES))], 1)
    return Reconstruction(PRIOR.decode(latents), classes, latents, torch.full((len(classes),), confidence), 7, 0.5)


@pytest.fixture(scope="module")
def stolen(tiny_population) -> Reconstruction:
    """The private people themselves, twice each."""
    classes = torch.arange(6).repeat_interleave(2)
    return painted(tiny_population.factors[classes], classes)


@pytest.fixture(scope="module")
def chance() -> Reconstruction:
    """Random people."""
    return painted(people(12, 20), torch.arange(6).repeat_interleave(2), 0.1)


@pytest.fixture(scope="module")
def result(stolen, chance, tiny_judge, tiny_population) -> Evaluation:
    nulls = {"prior": chance, "itself": stolen}
    return evaluate.evaluate(stolen, tiny_judge, tiny_population, factors=PRIOR.factors_of, nulls=nulls)


def test_a_stolen_population_is_a_full_leak(result: Evaluation) -> None:
    for name in ("verified", "true@1", "true@5", "stranger@1", "stranger@5"):
        measure = result.measures[name]
        assert measure is not None
        assert measure.value == 1
        assert measure.low is not None
        assert measure.low < 0.8  # six people prove little
    assert result.measures["error"] is not None
    assert result.measures["error"].value == 0
    assert result.classes == (0, 1, 2, 3, 4, 5)
    assert (result.images, result.queries, result.seconds) == (12, 7, 0.5)
    assert result.truth_from == "latents"
    assert result.threshold == truth.yardstick().threshold
    assert result.per_class["confidence"] == pytest.approx((0.9,) * 6)


def test_every_metric_is_there_or_explained(result: Evaluation) -> None:
    assert set(result.measures) == set(METRICS)
    assert {name for name, measure in result.measures.items() if measure is None} == set(result.missing)
    realism, alike = {"fid", "precision", "recall", "density", "coverage"}, {"family@1", "member@1"}
    assert set(result.missing) == {"knowledge", "delta_face", "judge_recall", *realism, *alike}
    assert result.networks == {"judge": "TinyNet"}
    assert all(len(values) == 6 for values in result.per_class.values())
    for name, values in result.per_class.items():
        measure = result.measures[name]
        assert measure is not None
        assert measure.value == pytest.approx(sum(values) / 6)
    assert result.chance["hits@1"] == pytest.approx(1 / 6)
    assert result.chance["verified"] == 1e-3
    assert result.chance["stranger@1"] == pytest.approx(1 / 1001)


def test_nulls_are_scored_the_same_way(result: Evaluation) -> None:
    null = result.nulls["prior"]
    assert null.measures["error"] is not None
    assert 0.7 < null.measures["error"].value < 1.3
    assert null.measures["verified"] is not None
    assert null.measures["verified"].value < 0.2
    gap = evaluate.difference(result, null, "error")
    assert gap is not None
    assert gap.value == pytest.approx(-null.measures["error"].value)
    assert gap.high is not None
    assert gap.high < 0
    assert gap.p < 0.01
    assert not any("not shown" in w for w in result.warnings)
    assert any("6 people" in w for w in result.warnings)


def test_hits_agree_with_the_judge(result: Evaluation, stolen, tiny_judge) -> None:
    with torch.no_grad():
        right = (tiny_judge(stolen.images).argmax(1) == stolen.classes).double()
    assert result.per_class["hits@1"] == pytest.approx(right.view(6, 2).mean(1).tolist())


def test_order_of_images_does_not_matter(result: Evaluation, stolen, tiny_judge, tiny_population) -> None:
    order = torch.randperm(12, generator=rng(1))
    mixed = Reconstruction(stolen.images[order], stolen.classes[order], stolen.latents[order], stolen.confidence[order])
    again = evaluate.evaluate(mixed, tiny_judge, tiny_population, factors=PRIOR.factors_of)
    for name, values in result.per_class.items():
        assert again.per_class[name] == pytest.approx(values, abs=1e-4), name


def test_the_record_survives_the_disk(result: Evaluation, tmp_path) -> None:
    path = result.save(tmp_path / "evaluation.json")
    assert Evaluation.load(path) == result
    assert Evaluation.from_json(json.loads(json.dumps(result.to_json()))) == result
    for content in ("", "[]", "{}", '{"classes": 3}', path.read_text()[:-20]):
        path.write_text(content)
        with pytest.raises(UserError, match="no evaluation"):
            Evaluation.load(path)


def test_of_whom_nothing_came_back_is_said_and_counted(tiny_judge, tiny_population, stolen):
    """The numbers are of those who were found; beside them stands what that is of everybody."""
    missing = int(stolen.classes.max())
    some = stolen.classes != missing
    fewer = replace(
        stolen, images=stolen.images[some], classes=stolen.classes[some], latents=stolen.latents[some],
        confidence=stolen.confidence[some], failures={missing: "no sample was named so"},
    )  # fmt: skip
    whole = evaluate.evaluate(stolen, tiny_judge, tiny_population, factors=PRIOR.factors_of)
    got = evaluate.evaluate(fewer, tiny_judge, tiny_population, factors=PRIOR.factors_of)
    assert not any(text.startswith(UNANSWERED) for text in whole.warnings)
    people = len(whole.classes)
    share = sum(got.per_class["hits@1"]) / people
    assert any(
        text.startswith(f"{UNANSWERED} 1 of {people} people") and f"AttAcc@1 {share:.1%}" in text
        for text in got.warnings
    )


def test_the_judge_is_left_alone_and_its_accuracy_told(stolen, tiny_population) -> None:
    judge = tiny_classifier(seed=3).train()
    weights = {name: value.clone() for name, value in judge.state_dict().items()}
    before = torch.random.get_rng_state()
    got = evaluate.evaluate(stolen, judge, tiny_population)
    assert torch.equal(before, torch.random.get_rng_state())
    assert judge.training
    assert all(torch.equal(value, weights[name]) for name, value in judge.state_dict().items())
    assert got.judge_accuracy.value < 0.6
    assert any("the judge is right on only" in w and "of a person's test images on average" in w for w in got.warnings)


def test_the_target_is_no_judge_of_itself(tiny_target, tiny_judge, tiny_population, tmp_path) -> None:
    attack = Guess(keep=2)
    found = attack.run(Oracle(tiny_target), PRIOR, torch.arange(6), rng())
    found = Reconstruction.load(found.save(tmp_path / "found.safetensors"))
    copy = tiny_classifier(seed=9)
    copy.load_state_dict(tiny_target.state_dict())
    wrapped = Classifier(nn.Sequential(copy.net), size=32, classes=6, record=tiny_target.record)  # under other names
    for judge in (tiny_target, copy, wrapped):
        assert sum("attacked model itself" in w for w in evaluate.evaluate(found, judge, tiny_population).warnings) == 1
    moved = tiny_classifier(seed=9)
    moved.load_state_dict(tiny_target.state_dict())
    with torch.no_grad():
        next(moved.parameters()).view(-1)[0] += 1e-3
    older = replace(found, target="")
    for images, judge in ((found, tiny_judge), (found, moved), (older, tiny_target)):
        assert not any("model itself" in w for w in evaluate.evaluate(images, judge, tiny_population).warnings)
    whole = merge([found.at(found.classes < 3), found.at(found.classes >= 3)])
    assert whole.target == found.target
    assert not merge([found, replace(found, target="another")]).target


def test_truth_is_missing_where_nobody_knows_it(stolen, tiny_judge, tiny_population) -> None:
    blind = evaluate.evaluate(stolen, tiny_judge, tiny_population)
    assert blind.measures["verified"] is None
    assert "neither factors=" in blind.missing["verified"]
    assert blind.truth_from is None
    real = replace(tiny_population, factors=None)
    got = evaluate.evaluate(stolen, tiny_judge, real, factors=PRIOR.factors_of)
    assert got.measures["error"] is None
    assert "nobody knows" in got.missing["error"]
    assert "error" not in got.chance
    assert evaluate.difference(got, blind, "error") is None


def test_five_people_have_no_accuracy_at_five(tiny_population) -> None:
    def cut(images):
        return images.at(images.labels < 5)

    five = replace(
        tiny_population,
        class_names=tiny_population.class_names[:5],
        factors=tiny_population.factors[:5],
        **{name: cut(getattr(tiny_population, name)) for name in ("train", "validation", "test", "judge")},
    )
    got = evaluate.evaluate(painted(five.factors, torch.arange(5)), tiny_classifier(5), five, factors=PRIOR.factors_of)
    assert got.measures["hits@5"] is None
    assert got.measures["true@5"] is None
    assert "5 guesses among 5 people" in got.missing["true@5"]
    assert got.measures["true@1"] is not None
    assert got.measures["stranger@5"] is not None


def test_estimated_truth_says_so(
    stolen, tiny_judge, tiny_population, quick: attribute_regressor.AttributeRegressor
) -> None:
    got = evaluate.evaluate(stolen, tiny_judge, tiny_population, attribute_regressor=quick)
    assert got.truth_from == "images"
    assert got.appraiser == quick.quality
    with pytest.warns(DeprecationWarning, match=r"is now evaluate\(attribute_regressor=\)") as told:
        assert evaluate.evaluate(stolen, tiny_judge, tiny_population, appraiser=quick) == got
    assert told[0].filename == __file__
    assert any("estimated from images" in w for w in got.warnings)
    assert got.measures["error"] is not None
    assert 0 < got.measures["error"].value < 1.2
    assert Evaluation.from_json(json.loads(json.dumps(got.to_json()))) == got


def test_embeddings_fill_what_is_missing(stolen, tiny_judge, tiny_population) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 6), nn.Dropout(0.5))
    known = evaluate.reference(tiny_judge, tiny_population, face_embedding=network, inception=network)
    both = {"face_embedding": network, "inception": network}
    got = evaluate.evaluate(stolen, tiny_judge, tiny_population, **both, known=known)
    assert got == evaluate.evaluate(stolen, tiny_judge, tiny_population, **both)
    for name in ("delta_face", "fid", "precision", "coverage"):
        measure = got.measures[name]
        assert measure is not None
        assert math.isfinite(measure.value)
    assert got.measures["fid"] is not None
    assert got.measures["fid"].low is not None  # people are drawn again
    assert got.measures["recall"] is None  # two images of a person
    assert "fewer than 10 images a person" in got.missing["recall"]
    assert {"fid", "coverage", "judge_fid"} <= set(got.ceiling)
    assert "recall" not in got.ceiling


def spoilt(values: Tensor) -> Tensor:
    """The same with NaN in the fourth row."""
    return values.index_fill(0, torch.tensor([3]), math.nan)


class Spoilt(nn.Module):
    """A network that answers NaN wherever an image's first pixel is black."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        black = (images[:, 0, 0, 0] == -1)[:, None]
        return self.net(images).masked_fill(black, math.nan)


def test_nan_names_nobody_and_is_said(stolen, tiny_judge, tiny_population, result) -> None:
    assert not any("NaN" in w for w in result.warnings)
    blind = replace(stolen, confidence=spoilt(stolen.confidence))
    got = evaluate.evaluate(blind, tiny_judge, tiny_population)
    assert got.measures["confidence"] is None
    assert [w for w in got.warnings if "NaN" in w] == [
        "the attacked model answers 1 of 12 images with NaN or infinity: their mean says nothing"
    ]
    judge = Classifier(Spoilt(tiny_judge.net), size=32, classes=6, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = stolen.floats().clamp(0.02, 1)
    right = evaluate.evaluate(replace(stolen, images=images), judge, tiny_population).per_class["hits@1"]
    images[3, :, 0, 0] = 0
    got = evaluate.evaluate(replace(stolen, images=images), judge, tiny_population)
    assert right[1] == 1
    assert got.per_class["hits@1"][1] == 0.5  # one of the person's two images
    assert [w for w in got.warnings if "NaN" in w] == [
        "the judge answers 1 of 12 images with NaN or infinity: such an image is taken for nobody"
    ]


def test_bad_reconstructions_are_refused_in_one_line(stolen, tiny_judge, tiny_population) -> None:
    cases = {
        "some images are not finite": replace(stolen, images=stolen.images * math.nan),
        "latents of 1 of 12 images are not finite": replace(stolen, latents=spoilt(stolen.latents)),
        r"in \[0, 1\]": replace(stolen, images=stolen.images * 2 - 1),
        "classes must be 0 to 5": replace(stolen, classes=stolen.classes + 1),
        "nothing to evaluate": stolen.at(torch.arange(0)),
    }
    for message, bad in cases.items():
        with pytest.raises(UserError, match=message) as error:
            evaluate.evaluate(bad, tiny_judge, tiny_population)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="the judge knows 9 classes, the population has 6"):
        evaluate.evaluate(stolen, tiny_classifier(9), tiny_population)


def test_reading_in_batches_changes_nothing_and_restores_the_mode() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Dropout(0.5))
    network[2].eval()
    pixels = torch.randint(256, (7, 3, 2, 2), generator=rng(), dtype=torch.uint8)
    images = Images(pixels, torch.zeros(7, dtype=torch.int64))
    whole = evaluate._read(network, images)
    assert torch.allclose(evaluate._read(network, images, batch=2), whole, atol=1e-6)
    assert not whole.requires_grad
    assert [module.training for module in network] == [True, True, False]


def test_differences_pair_people_by_class(result: Evaluation) -> None:
    def record(classes: tuple[int, ...], values: tuple[float, ...]) -> Evaluation:
        return replace(result, classes=classes, per_class={"error": values})

    first, second = record((1, 2, 5), (0.1, 0.2, 0.5)), record((0, 1, 5), (9.0, 0.3, 0.6))
    gap = evaluate.difference(first, second, "error")
    assert gap is not None
    assert gap.value == pytest.approx(-0.15)
    assert evaluate.difference(first, record((7,), (1.0,)), "error") is None
    seeds = evaluate.difference([first, first], [second, second], "error")
    assert seeds is not None
    assert seeds.value == pytest.approx(-0.15)
    with pytest.raises(UserError, match="same seeds"):
        evaluate.difference([first], [second, second], "error")
    with pytest.raises(UserError, match="no metric 'accuracy'"):
        evaluate.difference(first, second, "accuracy")


def test_whoever_was_asked_for_and_is_not_there_is_counted_without_a_reason(tiny_judge, tiny_population, stolen):
    missing = int(stolen.classes.max())
    fewer = stolen.at((stolen.classes != missing).nonzero().flatten()).with_fields(asked=stolen.classes.unique())
    for failures in ({}, {missing: "no sample was named so"}, {0: "one of two searches"}):  # class 0 has an image
        got = evaluate.evaluate(fewer.with_fields(failures=failures), tiny_judge, tiny_population)
        people = len(got.classes) + 1
        assert any(text.startswith(f"{UNANSWERED} 1 of {people} people") for text in got.warnings)


def test_images_are_drawn_again_by_the_prior_that_drew_them(tiny_target, tiny_judge, tiny_population):
    """Another generator of as many latents draws other people; a judge was shown those, without a word."""
    priors = []
    for seed in range(2):
        torch.manual_seed(seed)
        generator = Generator(64, 4, 6)
        generator.l2_5[-2].weight.data.mul_(300)  # so that images differ
        priors.append(GanPrior(generator, Critic(64, 4)))
    own, other = priors
    found = Guess(1).run(Oracle(tiny_target, "scores"), own, torch.arange(6), torch.Generator().manual_seed(0))
    assert evaluate.evaluate(found, tiny_judge, tiny_population, prior=own.lowered("bfloat16")).images == 6
    for null in (None, {"null": found}):
        with pytest.raises(UserError, match="draws other images of these latents"):
            evaluate.evaluate(found, tiny_judge, tiny_population, prior=other, nulls=null)


def test_a_judge_that_sees_less_than_the_prior_draws_is_told_of(tiny_target, tiny_judge, tiny_population, tmp_path):
    prior = RenderedPrior(size=48)
    found = Guess(1).run(Oracle(tiny_target, "scores"), prior, torch.arange(6), torch.Generator().manual_seed(0))
    found = Reconstruction.load(found.save(tmp_path / "found.safetensors"))
    for given, told in ((None, True), (PixelsPrior(32), True), (prior, False)):
        got = evaluate.evaluate(found, tiny_judge, tiny_population, prior=given)
        assert any("judged at the 32 pixels" in one and "draws 48" in one for one in got.warnings) == told
