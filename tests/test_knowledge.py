"""What a student knows after seeing reconstructions alone, and evaluations with every network that they may have."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from lightleak.attacks import Guess, Reconstruction
from lightleak.data.images import eight_bit
from lightleak.data.population import as_bytes
from lightleak.data.views import View
from lightleak.errors import UserError
from lightleak.metrics import knowledge
from lightleak.metrics.evaluate import Reference, evaluate, reference
from lightleak.models import facenet, inception
from lightleak.models.weight_files import Weights
from lightleak.study import Store
from lightleak.study import run as run_study
from lightleak.study.tasks import Evaluate, Invert, MeasurePrivate, Rendered, Student, TrainJudge, TrainTarget, source
from lightleak.training import RECIPES, Recipe

LESSON = Recipe(
    epochs=30, batch=24, rate=2e-3, milestones=(), keep="last", view=View(scale=(0.9, 1.0)), precision="float32"
)


def images_as_found(images: Tensor, labels: Tensor) -> Reconstruction:
    return Reconstruction(images, labels, torch.zeros(len(images), 3), torch.ones(len(images)))


@pytest.fixture(scope="module")
def photographs(tiny_population) -> Reconstruction:
    """A perfect attack: other photographs of the right people."""
    return images_as_found(tiny_population.judge.floats(), tiny_population.judge.labels)


@pytest.fixture(scope="module")
def noise() -> Reconstruction:
    rng = torch.Generator().manual_seed(0)
    return images_as_found(torch.rand(72, 3, 32, 32, generator=rng), torch.arange(6).repeat(12))


@pytest.mark.slow
def test_photographs_teach_and_noise_does_not(photographs, noise, tiny_population, tiny_judge):
    everyone = torch.arange(6)
    good = knowledge.teach(photographs, 6, "timm:resnet10t", LESSON)
    bad = knowledge.teach(noise, 6, "timm:resnet10t", replace(LESSON, epochs=8))
    assert knowledge.extracted(good, tiny_population, everyone).mean() > 0.7
    assert knowledge.extracted(bad, tiny_population, everyone).mean() < 0.5
    result = evaluate(
        photographs,
        tiny_judge,
        tiny_population,
        student=good,
        nulls={"noise": noise, "untaught": noise},
        null_students={"noise": bad},
    )
    assert result.measures["knowledge"] is not None
    assert result.measures["knowledge"].value == pytest.approx(sum(result.per_class["knowledge"]) / 6)
    assert result.chance["knowledge"] == pytest.approx(1 / 6)
    null = result.nulls["noise"].measures["knowledge"]
    assert null is not None
    assert null.value < 0.5
    assert "no student" in result.nulls["untaught"].missing["knowledge"]


def test_only_the_attacked_count_and_the_untested_are_missing(photographs, tiny_population):
    student = knowledge.teach(photographs, 6, "timm:resnet10t", replace(LESSON, epochs=1))
    all_of_them = knowledge.extracted(student, tiny_population, torch.arange(6))
    assert torch.equal(knowledge.extracted(student, tiny_population, torch.tensor([4, 1])), all_of_them[[4, 1]])
    without = replace(tiny_population, test=tiny_population.test.at(tiny_population.test.labels != 2))
    assert knowledge.extracted(student, without, torch.tensor([1, 2])).isnan().tolist() == [False, True]
    assert knowledge.extracted(student, without, torch.tensor([2])).isnan().all()


def test_the_students_recipe_is_the_published_one():
    recipe = RECIPES["student"]
    assert (recipe.epochs, recipe.batch, recipe.optimiser, recipe.momentum) == (75, 32, "sgd", 0.9)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=75, eta_min=1e-4)
    for epoch in range(75):
        assert recipe.rate_at(epoch) == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        cosine.step()
    with pytest.raises(UserError, match="a cosine falls from the rate"):
        Recipe(cosine_to=0.2)


def test_the_last_epoch_counts_where_the_recipe_says_so(photographs):
    by_the_last = knowledge.teach(photographs, 6, "timm:resnet10t", replace(LESSON, epochs=3, rate=0.05))
    assert by_the_last.record["best_epoch"] == 3
    assert by_the_last.record["validation_accuracy"] == by_the_last.record["history"][-1]["validation"]


# What the judge is fed


def test_eight_bits_are_cut_and_resized_as_pillow_does():
    images = torch.rand(3, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    got = eight_bit(images, 35)
    for image, one in zip(images, got):
        pixels = (image.permute(1, 2, 0).numpy() * 255).astype("uint8")
        expected = Image.fromarray(pixels).resize((35, 35), Image.Resampling.BILINEAR)
        assert torch.equal(
            as_bytes(one).permute(1, 2, 0), torch.tensor(list(expected.tobytes())).view(35, 35, 3).byte()
        )
    same = eight_bit(images, 20)  # nothing but the levels changes
    assert (images - same).min() >= 0
    assert (images - same).max() < 1 / 255 + 1e-6
    assert ((images - same).mean() - 0.5 / 255).abs() < 1e-4  # truncation darkens by half a level


def test_eight_bits_reach_the_judge_only(tiny_population, tiny_judge, photographs):
    shifted = replace(photographs, images=(photographs.images * 0.9 + 0.03))
    exact = evaluate(shifted, tiny_judge, tiny_population)
    through_files = evaluate(shifted, tiny_judge, tiny_population, fed_8_bit=True)
    cut = replace(shifted, images=(shifted.images * 255).floor() / 255)
    assert through_files.per_class["delta_eval"] == pytest.approx(
        evaluate(cut, tiny_judge, tiny_population).per_class["delta_eval"]
    )
    assert through_files.per_class["delta_eval"] != exact.per_class["delta_eval"]


# Realism


def test_the_judges_features_are_never_called_fid(photographs, tiny_judge, tiny_population):
    result = evaluate(photographs, tiny_judge, tiny_population)
    assert result.measures["fid"] is None
    assert "no feature network" in result.missing["fid"]
    for name in ("fid", "precision", "recall", "density", "coverage"):
        measure = result.measures[f"judge_{name}"]
        assert measure is not None
        assert math.isfinite(measure.value)
    few = images_as_found(photographs.images[:1], photographs.classes[:1])
    lone = evaluate(few, tiny_judge, tiny_population)
    assert "give more images" in lone.missing["judge_fid"]


def test_published_realism_is_a_mean_over_people(photographs, tiny_judge, tiny_population):
    from lightleak.metrics import realism

    known = reference(tiny_judge, tiny_population)
    result = evaluate(photographs, tiny_judge, tiny_population, known=known, published=True)
    with torch.no_grad():
        fake = tiny_judge.features(photographs.images)
    each = [
        realism.manifold(known.features[known.labels == c], fake[photographs.classes == c], published=True)
        for c in range(6)
    ]
    assert result.measures["judge_density"] is not None
    assert result.measures["judge_density"].value == pytest.approx(sum(one.density for one in each) / 6)


def test_a_reference_survives_the_disk(tmp_path, tiny_judge, tiny_population):
    known = reference(tiny_judge, tiny_population)
    again = Reference.load(known.save(tmp_path / "reference.safetensors"))
    assert torch.equal(again.features, known.features)
    assert (again.judge_accuracy, again.networks, again.faces) == (known.judge_accuracy, known.networks, None)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="holds no features"):
        Reference.load(tmp_path / "broken.safetensors")


@pytest.mark.slow
def test_a_study_measures_with_every_network(tmp_path: Path):
    torch.manual_seed(0)
    torch.save(inception.InceptionFeatures().net.state_dict(), tmp_path / "inception.pth")
    torch.save(facenet.FaceEmbedding(5).state_dict(), tmp_path / "facenet.pt")
    quick = Recipe(epochs=2, batch=16, milestones=(), precision="float32")
    people = source("faces", people=4, images=6, size=32, public_people=4, public_images=6, judge_images=6)
    target = TrainTarget(people, "timm:resnet10t", quick)
    prior = Rendered(people)
    task = Evaluate(
        Invert(target, prior, Guess(2)),
        TrainJudge(people, "timm:resnet10t", quick),
        {"other images": Invert(target, prior, Guess(2), seed=5)},
        inception=Weights.of(tmp_path / "inception.pth"),
        face=Weights.of(tmp_path / "facenet.pt"),
        student=Student("timm:resnet10t", replace(LESSON, epochs=2)),
    )
    store = Store(tmp_path / "runs")
    assert not run_study([task], store, workers=1)
    told = store.result(task)["evaluation"]
    for name in ("fid", "density", "delta_face", "knowledge", "judge_fid"):
        assert told["measures"][name] is not None, told["missing"].get(name)
    assert told["nulls"]["other images"]["measures"]["knowledge"] is not None
    assert told["networks"]["fid"].startswith("Inception-v3 of inception.pth (sha256 ")
    assert len(store.keys(MeasurePrivate.__name__)) == 1
    # A file that moves is the same file; another one is another study.
    (tmp_path / "moved.pth").write_bytes((tmp_path / "inception.pth").read_bytes())
    assert replace(task, inception=Weights.of(tmp_path / "moved.pth")).key == task.key
    assert replace(task, inception=None).key != task.key


def test_a_report_says_whose_features_it_speaks_of(photographs, tiny_judge, tiny_population):
    from lightleak.report.collect import _networks

    one = evaluate(photographs, tiny_judge, tiny_population)
    assert _networks([one]) == []  # the judge is named elsewhere
    first, second = (replace(one, networks={"fid": name, "judge": "x"}) for name in ("A", "B"))
    assert _networks([first, one]) == ["FID: features of A"]
    assert _networks([first, second]) == [
        "FID: features of A and of B; numbers of different networks do not compare",
    ]
