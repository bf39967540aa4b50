"""Training: defences act, resume is exact, the test images have no part in it."""

import dataclasses
import shutil

import pytest
import torch
from torch import nn

from conftest import TINY, TinyNet, tiny_classifier
from lightleak import defences
from lightleak.data.views import View
from lightleak.defences import (
    ATAT,
    DEFENCES,
    DPSGD,
    MID,
    MIDRE,
    SSF,
    TLDMI,
    TTS,
    BiDO,
    CALoR,
    LoFt,
    NegLS,
    RoLSS,
    RoLSSPlus,
    TrapMID,
)
from lightleak.defences.mid import averaged
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier, load, save
from lightleak.surgery import find_skips
from lightleak.training import (
    CheckpointCriterion as At,
)
from lightleak.training import (
    Plan,
    Recipe,
    accuracy_and_loss,
    combine,
    cross_entropy,
    predict,
    train,
)
from lightleak.training.loop import layout_of

SHORT = dataclasses.replace(TINY, epochs=4, milestones=())
# How many of TinyNet's two skips each defence leaves, and whether it cuts at all; a new defence adds its row.
ROWS = {
    "rolss": (RoLSS(), 1, True),
    "rolss+": (RoLSSPlus(keep=0.0), 0, True),
    "ssf": (SSF(), 2, True),
    "tts": (TTS(), 1, True),
    "bido": (BiDO(), 2, False),
    "mid": (MID(), 2, False),
    "negls": (NegLS(), 2, False),
    "tldmi": (TLDMI(), 2, False),
    "dp": (DPSGD(epsilon=None, noise=0.3), 2, False),
    "atat": (ATAT(), 2, False),
    "midre": (MIDRE(), 2, False),
    "loft": (LoFt(), 2, False),
    "calor": (CALoR(), 2, False),
    "trapmid": (TrapMID(augment=False), 2, False),
}


def trained(population, recipe=SHORT, plan=None, **kwargs):
    return train(tiny_classifier(), population.train, population.validation, recipe, plan or Plan(), **kwargs)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_every_defence_has_a_row():
    assert set(ROWS) == set(DEFENCES)


SEVERAL_PASSES = ("atat", "trapmid")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SEVERAL_PASSES else name for name in ROWS]
)
def test_a_defence_changes_the_network_and_still_learns(name, tiny_population):
    defence, left, cuts = ROWS[name]
    plan = defences.plan((defence,), TINY)
    result = trained(tiny_population, TINY, plan)
    assert len(find_skips(result.net, result.example)) == left
    assert bool(result.recipe["surgery"]) == cuts
    accuracy, _ = accuracy_and_loss(result, tiny_population.test)
    assert accuracy > 0.6
    missing = [n for n, p in result.net.named_parameters() if not p.isfinite().all()]
    assert not missing


def test_it_learns(tiny_target, tiny_population):
    assert accuracy_and_loss(tiny_target, tiny_population.test)[0] > 0.9
    history = tiny_target.record["history"]
    assert history[-1]["loss"] < history[0]["loss"] / 3


def test_the_best_epoch_is_kept(tiny_population):
    result = trained(tiny_population)
    history = result.record["history"]
    best = max(range(len(history)), key=lambda i: (history[i]["validation"], -history[i]["validation_loss"]))
    assert result.record["best_epoch"] == best + 1
    assert accuracy_and_loss(result, tiny_population.validation)[0] == history[best]["validation"]


@pytest.mark.parametrize("name", ["none", "tts", "ssf"])
def test_a_stopped_run_continues_to_the_same_result(name, tiny_population, tmp_path):
    plan = defences.plan(defences.parse(name), SHORT)
    whole = trained(tiny_population, plan=plan)

    class Stop(Exception):
        pass

    for stop in (1, 2, 3):  # before, at and after the change of TTS

        def watch(step, _total, stop=stop, **_):
            if step == stop + 1:
                raise Stop

        folder = tmp_path / str(stop)
        with pytest.raises(Stop):
            trained(tiny_population, plan=plan, folder=folder, watch=watch)
        assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".safetensors"]
        resumed = trained(tiny_population, plan=plan, folder=folder)
        assert same(whole, resumed)
        assert resumed.record["history"] == whole.record["history"]


def test_damaged_state_says_so(tiny_population, tmp_path):
    trained(tiny_population, folder=tmp_path)
    (weights,) = tmp_path.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="delete that folder"):
        trained(tiny_population, folder=tmp_path)
    shutil.rmtree(tmp_path)


def test_more_people_than_classes_is_said(tiny_population):
    few = Classifier(TinyNet(4), size=32, classes=4)
    with pytest.raises(UserError, match="classes 0 to 3, and the images show 0 to 5; build it for 6"):
        train(few, tiny_population.train, tiny_population.validation, TINY)


def test_seeds_decide(tiny_population):
    assert same(trained(tiny_population), trained(tiny_population))
    assert not same(trained(tiny_population), trained(tiny_population, seed=1))


def test_two_stage_starts_where_the_first_ended(tiny_population):
    """The weights that survive the cut at T1 are those of plain training up to there, to the last bit."""
    plan = TTS(first=0.5).plan(SHORT)
    (epoch, change), *_ = plan.changes
    assert epoch == 2
    seen = {}

    def spy(classifier):
        seen.update({name: value.clone() for name, value in classifier.net.state_dict().items()})
        return change(classifier)

    trained(tiny_population, plan=Plan(((epoch, spy),)))
    first = {}

    def keep(classifier):
        first.update({name: value.clone() for name, value in classifier.net.state_dict().items()})
        return classifier

    trained(tiny_population, plan=Plan(((epoch, keep),)))
    assert seen
    assert all(torch.equal(seen[name], first[name]) for name in seen)


def test_a_change_that_changes_nothing_leaves_the_run_alone(tiny_population):
    """One optimiser runs through: an empty change in the middle is no change, but for which epoch may be best."""
    plain = trained(tiny_population)
    interrupted = trained(tiny_population, plan=Plan(((2, lambda classifier: classifier),)))
    assert [h["loss"] for h in plain.record["history"]] == [h["loss"] for h in interrupted.record["history"]]


# Checkpoints on the way


def left_behind(population, moments, **kwargs):
    kept = {}
    result = trained(population, moments=moments, keep=lambda place, copy: kept.update({place: copy}), **kwargs)
    return result, kept


def test_copies_are_kept_at_epochs_and_accuracies(tiny_population):
    result, kept = left_behind(
        tiny_population,
        (At(epoch=2), At(accuracy=0.01), At(accuracy=1.0)),
    )
    history = [entry["validation"] for entry in result.record["history"]]
    assert [kept[place].record["epoch"] for place in range(3)] == [
        2,
        1 + min(range(4), key=lambda i: abs(history[i] - 0.01)),
        1 + min(range(4), key=lambda i: abs(history[i] - 1.0)),
    ]
    for copy in kept.values():
        epoch = copy.record["epoch"]
        assert len(copy.record["history"]) == epoch
        assert copy.record["validation_accuracy"] == history[epoch - 1]
        assert accuracy_and_loss(copy, tiny_population.validation)[0] == history[epoch - 1]
        assert not copy.training
    shorter = trained(tiny_population, recipe=dataclasses.replace(SHORT, epochs=2))
    assert shorter.record["history"] == kept[0].record["history"]  # a copy is the run as it was then
    assert same(result, trained(tiny_population))  # and leaves the run alone


def test_copies_of_two_stages_are_of_the_second(tiny_population):
    plan = TTS().plan(SHORT)
    _, kept = left_behind(tiny_population, (At(accuracy=0.01), At(epoch=3)), plan=plan)
    assert all(copy.record["epoch"] > 2 and copy.recipe["surgery"] for copy in kept.values())
    with pytest.raises(UserError, match="after epochs 3 to 4, not 2"):
        left_behind(tiny_population, (At(epoch=2),), plan=plan)
    with pytest.raises(UserError, match="after epochs 1 to 4, not 5"):
        left_behind(tiny_population, (At(epoch=5),))


def test_plans_combine():
    both = combine({"a": Plan(((3, RoLSS().apply),)), "b": Plan(((0, SSF().apply),), cross_entropy)})
    assert [epoch for epoch, _ in both.changes] == [0, 3]
    assert both.loss is cross_entropy
    with pytest.raises(UserError, match=r"a and b .* cannot be combined"):
        combine({"a": Plan(loss=cross_entropy), "b": Plan(loss=cross_entropy)})


def test_what_comes_after_training_is_delivered_and_measured(tiny_population, tmp_path):
    """The last moment of a plan: on the network that is returned and on every copy, in order, and reloaded so."""
    seen = []

    def spy(classifier):
        seen.append([change["kind"] for change in classifier.changes])
        return classifier

    silent = Plan(after=(spy, lambda classifier: averaged(classifier, 0), spy))
    plan = combine({"a": defences.plan((MID(), RoLSS()), SHORT), "b": silent})
    result, kept = left_behind(tiny_population, (At(epoch=2),), plan=plan)
    assert seen == 2 * [["bottleneck", "surgery"], ["bottleneck", "surgery", "draws"]]
    for each in (result, kept[0]):
        assert torch.equal(*(each(tiny_population.test.floats(slice(0, 4))) for _ in range(2)))  # no noise is left
        assert each.record["validation_accuracy"] == accuracy_and_loss(each, tiny_population.validation)[0]
    loaded = load(save(result, tmp_path / "after.safetensors"), net=TinyNet())
    torch.testing.assert_close(
        predict(loaded, tiny_population.test), predict(result, tiny_population.test), rtol=1e-4, atol=1e-4
    )
    plain = trained(tiny_population, plan=defences.plan((MID(), RoLSS()), SHORT))
    assert plain.record["history"] == result.record["history"]  # and had no part in the training


def test_predict_restores_the_mode(tiny_target, tiny_population):
    tiny_target.train()
    small = predict(tiny_target, tiny_population.test, batch=7)
    assert tiny_target.training
    tiny_target.eval()
    assert torch.allclose(small, predict(tiny_target, tiny_population.test), atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(epochs=0), "epochs"),
        (lambda: Recipe(batch=1), "batch"),
        (lambda: Recipe(rate=-1.0), "rate"),
        (lambda: Recipe(milestones=(75.0,)), "shares"),
        (lambda: Recipe(gamma=-1.0), "gamma must lie in"),
        (lambda: Recipe(momentum=-1.0), "momentum must lie in"),
        (lambda: Recipe(weight_decay=float("nan")), "weight_decay must be at least 0"),
        (lambda: Recipe(least_steps=-5), "least_steps must be at least 0"),
        (lambda: View(scale=(0.5, 0.2)), "scale is from"),
        (lambda: View(ratio=(0.0, 1.0)), "ratio is from"),
        (lambda: View(flip=2.0, hue=-1.0), "flip is a probability, not 2.0; hue must be at least 0"),
        (lambda: SSF(factor=1.0), "change nothing"),
        (lambda: TTS(first=0.0), "share"),
        (lambda: RoLSSPlus(keep=1.5), "share"),
        (lambda: At(), "one of the two"),
        (lambda: At(epoch=1, accuracy=0.5), "one of the two"),
        (lambda: At(accuracy=90.0), "share in"),
        (lambda: At(epoch=0), "from 1"),
        (lambda: TTS(first=0.1).plan(Recipe(epochs=2)), "too few"),
        (lambda: defences.parse("rolss,magic"), "choose from none, rolss"),
        (lambda: defences.plan((object(),), Recipe()), "the defence object lacks title and plan"),  # type: ignore[arg-type]
    ],
)
def test_bad_settings_are_one_clear_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_the_rate_falls_at_its_milestones():
    recipe = Recipe(epochs=100)
    assert [recipe.rate_at(e) for e in (0, 74, 75, 89, 90)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5])
    assert Recipe(epochs=2, milestones=(0.1,)).rate_at(0) == 1e-3  # never before the first epoch


def test_what_a_record_says_of_the_weights_that_a_run_begins_with_stays_said(tiny_population):
    start = tiny_classifier()
    said = {"start": {"weights": "w.pth"}, "overlap": "not known", "pretraining": {"images": 3}}
    start.record = {**said, "history": [], "privacy": {"epsilon": 8.0}}
    trained = train(start, tiny_population.train, tiny_population.validation, Recipe(epochs=1, batch=8))
    assert said.items() <= trained.record.items()
    assert "privacy" not in trained.record


def test_few_images_are_seen_often_enough():
    recipe = Recipe(epochs=10, batch=32, least_steps=250)
    assert recipe.passes(1000) == 1
    assert recipe.passes(320) == 3
    assert recipe.passes(10) == 25
    assert Recipe().passes(1) == 1


def test_passes_make_longer_epochs(tiny_population):
    few = tiny_population.train.at(torch.arange(0, 72, 4))
    recipe = dataclasses.replace(SHORT, least_steps=60)
    once = train(tiny_classifier(), few, tiny_population.validation, SHORT)
    often = train(tiny_classifier(), few, tiny_population.validation, recipe)
    fewer = train(tiny_classifier(), few.at(torch.arange(5)), tiny_population.validation, recipe)  # less than a batch
    assert fewer.record["history"][-1]["loss"] < 1
    with pytest.raises(UserError, match="two images"):
        train(tiny_classifier(), few.at(torch.arange(1)), tiny_population.validation, recipe)
    assert often.record["history"][-1]["loss"] < 0.5 * once.record["history"][-1]["loss"]


def test_layout_of_a_network():
    """Channels last, but on a processor where a strided pointwise convolution of few channels is met: RepVGG's stem."""
    stem = nn.Sequential(nn.Conv2d(3, 8, 1, stride=2), nn.Flatten())
    narrow = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 1, stride=2))
    usual = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.Conv2d(16, 16, 1, stride=2), nn.Conv2d(3, 8, 1))
    cpu, card = torch.device("cpu"), torch.device("cuda")
    assert layout_of(stem, cpu) == layout_of(narrow, cpu) == torch.contiguous_format
    assert layout_of(stem, card) == torch.channels_last
    assert layout_of(usual, cpu) == layout_of(usual, card) == torch.channels_last


@pytest.mark.parametrize("rate", [1e25, 1e30])
def test_a_training_that_diverged_is_no_result(rate, tiny_population, tmp_path):
    """Nothing recovers from a weight that is no number, whatever the validation images say."""
    recipe = dataclasses.replace(TINY, rate=rate)
    for _ in range(2):  # and what it left is nothing that a second call goes on from
        with pytest.raises(UserError, match="training diverged in epoch 1: no finite number any more"):
            train(tiny_classifier(), tiny_population.train, tiny_population.validation, recipe, folder=tmp_path)


def test_one_weight_that_is_no_number_is_a_training_that_diverged(tiny_population):
    """It may never be read: the loss and the accuracy are numbers."""
    classifier = tiny_classifier()
    classifier.net.register_parameter("idle", torch.nn.Parameter(torch.tensor([float("nan")])))
    with pytest.raises(UserError, match="no finite number any more in weights idle"):
        train(classifier, tiny_population.train, tiny_population.validation, TINY)
