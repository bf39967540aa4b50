"""A stopped training goes on only as itself; long work says before it begins that it could not be kept."""

import dataclasses
import functools
import json
import os

import pytest
import torch
from torch import nn

from conftest import TINY, TinyNet, tiny_classifier
from lightleak import randomness
from lightleak.attacks import PPA, Alignment
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.data.population import Images
from lightleak.defences import MID, SSF, TLDMI, TTS, NegLS, RoLSS, plan, pretrain
from lightleak.errors import UserError
from lightleak.fingerprint import deciding, fingerprint, versioned
from lightleak.metrics.knowledge import teach
from lightleak.models.classifier import Classifier
from lightleak.priors.fit import fit
from lightleak.priors.fit.wgan import WganGp
from lightleak.training import CheckpointCriterion as At
from lightleak.training import Plan, Recipe, predict, train

SHORT = dataclasses.replace(TINY, epochs=3, milestones=())
QUICK_GAN = WganGp(width=4, critic_width=4, latents=4, steps=4, critic_steps=1, batch=4, checkpoint_every=1)


class Stop(Exception):
    pass


def stopping(step, *_, **__):
    if step == 2:
        raise Stop


def wider():
    torch.manual_seed(0)
    return Classifier(TinyNet(6, width=8), size=32, classes=6)


def strided():
    """The same weights in another network."""
    classifier = tiny_classifier()
    classifier.net.get_submodule("stem").padding_mode = "circular"
    return classifier


def frozen():
    classifier = tiny_classifier()
    classifier.net.get_submodule("stem").requires_grad_(False)
    return classifier


def shifted(images):
    return Images(images.pixels, (images.labels + 1) % 6)


def changed(images):
    pixels = images.pixels.clone()
    pixels[-1, 0, 0, 0] ^= 1
    return Images(pixels, images.labels)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("seed", {"seed": 7}),
        ("recipe", {"recipe": dataclasses.replace(SHORT, rate=1e-2)}),
        ("recipe", {"recipe": dataclasses.replace(SHORT, optimiser="sgd")}),
        ("recipe", {"recipe": dataclasses.replace(SHORT, view=dataclasses.replace(SHORT.view, flip=0.5))}),
        ("network", {"classifier": wider}),
        ("network", {"classifier": strided}),
        ("weights", {"classifier": functools.partial(tiny_classifier, seed=3)}),
        ("weights", {"classifier": frozen}),
        ("images", {"images": changed}),
        ("labels", {"images": shifted}),
        ("validation images", {"validation": shifted}),
        ("defences", {"plan": plan((RoLSS(),), SHORT)}),
        ("defences", {"plan": plan((NegLS(),), SHORT)}),
        ("defences", {"plan": Plan(((2, lambda classifier: classifier),))}),
        ("checkpoints", {"moments": (At(epoch=3),)}),
    ],
)
def test_a_stopped_training_refuses_other_arguments_and_says_which(what, other, tiny_population, tmp_path):
    def go(watch=None, classifier=tiny_classifier, images=None, validation=None, recipe=SHORT, **more):
        seen, aside = tiny_population.train, tiny_population.validation
        seen = images(seen) if images else seen
        aside = validation(aside) if validation else aside
        return train(classifier(), seen, aside, recipe, folder=tmp_path, watch=watch, **more)

    with pytest.raises(Stop):
        go(watch=stopping)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=rf"what differs: .*{what}.*another folder or delete") as error:
        go(**other)
    assert "\n" not in str(error.value)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}  # nothing is lost
    assert len(go().record["history"]) == 3  # and with the same arguments it goes on


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (NegLS(alpha=-0.05), NegLS(alpha=-0.5)),
        (MID(beta=0.003), MID(beta=0.01)),
        (SSF(factor=0.1), SSF(factor=0.2)),
        (TTS(first=0.4), TTS(first=0.7)),
        (TLDMI(until="first"), TLDMI(until="second")),
    ],
)
def test_another_strength_is_another_defence(first, second, tiny_population, tmp_path):
    data = (tiny_population.train, tiny_population.validation, SHORT)
    with pytest.raises(Stop):
        train(tiny_classifier(), *data, plan((first,), SHORT), folder=tmp_path, watch=stopping)
    with pytest.raises(UserError, match="defences"):
        train(tiny_classifier(), *data, plan((second,), SHORT), folder=tmp_path)


def test_pretraining_and_teaching_are_bound_as_well(tiny_population, tmp_path):
    public = tiny_population.public
    with pytest.raises(Stop):
        pretrain(tiny_classifier(), public, SHORT, folder=tmp_path / "a", watch=stopping)
    other = Images(public.pixels, public.labels.flip(0))
    with pytest.raises(UserError, match=r"what differs: .*labels"):
        pretrain(tiny_classifier(), other, SHORT, folder=tmp_path / "a")

    def found_of(images):
        classes = tiny_population.train.labels[:8]
        return Reconstruction(images, classes, torch.zeros(8, 1), torch.ones(8))

    images = tiny_population.train.floats(slice(0, 8))
    recipe = Recipe(epochs=3, batch=4, keep="last")
    options = {"architecture": "timm:test_resnet", "recipe": recipe, "folder": tmp_path / "b"}
    with pytest.raises(Stop):
        teach(found_of(images), 6, **options, watch=stopping)
    with pytest.raises(UserError, match=r"what differs: .*images"):
        teach(found_of(1 - images), 6, **options)


def test_fit_is_bound_by_the_same_rule(tiny_population, tmp_path):
    fit(tiny_population.public, QUICK_GAN, folder=tmp_path)
    with pytest.raises(UserError, match=r"what differs: seed\)"):
        fit(tiny_population.public, QUICK_GAN, seed=1, folder=tmp_path)
    with pytest.raises(UserError, match=r"what differs: rate, images\)"):
        fit(changed(tiny_population.public), dataclasses.replace(QUICK_GAN, rate=1e-3), folder=tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: None,
        lambda _: [],
        lambda summary: {**summary, "epoch": "1"},
        lambda summary: {name: value for name, value in summary.items() if name != "weights"},
        lambda summary: {name: value for name, value in summary.items() if name != "made"},
        lambda summary: {name: value for name, value in summary.items() if name != "history"},
        lambda summary: {**summary, "weights": "gone.safetensors"},
        lambda summary: {**summary, "best_score": 3},
    ],
)
def test_damaged_and_older_state_is_one_clear_line(damage, tiny_population, tmp_path):
    data = (tiny_population.train, tiny_population.validation, SHORT)
    with pytest.raises(Stop):
        train(tiny_classifier(), *data, folder=tmp_path, watch=stopping)
    file = tmp_path / "epoch.json"
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    with pytest.raises(UserError, match="delete") as error:
        train(tiny_classifier(), *data, folder=tmp_path)
    assert "\n" not in str(error.value)


# What is drawn inside


class Drops(TinyNet):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.1, self.training)


def test_the_users_generator_stays_where_it_was(tiny_population):
    """And what it has drawn before has no part in a training."""
    data = (tiny_population.train, tiny_population.validation, SHORT)
    results = []
    for start in (1, 2):
        first = tiny_classifier()
        net = Drops()
        net.load_state_dict(first.net.state_dict())
        torch.manual_seed(start)
        before = torch.get_rng_state()
        result = train(Classifier(net, size=32, classes=6), *data, plan((MID(), TTS()), SHORT))
        results.append(predict(result, tiny_population.test))  # MID draws in every pass
        assert torch.equal(torch.get_rng_state(), before)
        pretrain(tiny_classifier(), tiny_population.public, dataclasses.replace(SHORT, epochs=1))
        torch.manual_seed(start)
        tail = torch.rand(1)
        torch.set_rng_state(before)
        assert torch.equal(torch.rand(1), tail)
    assert torch.equal(*results)


def test_draws_in_a_block_follow_its_seed_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with randomness.own(3):
            drawn.append(torch.rand(4))
    assert torch.equal(*drawn)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(Stop), randomness.own(4):
        raise Stop
    assert torch.equal(torch.get_rng_state(), before)


# Places that cannot be written


def test_a_place_that_cannot_be_written_is_said_before_training(tiny_population, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("training began")

    data = (tiny_population.train, tiny_population.validation, SHORT)
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(UserError, match="cannot be written in") as error:
            train(tiny_classifier(), *data, folder=place, watch=never)
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="cannot be written in"):
            fit(tiny_population.public, QUICK_GAN, folder=place, watch=never)
    full = os.statvfs_result((4096, 4096, 100, 0, 0, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    with pytest.raises(UserError, match="0 MiB free"):
        train(tiny_classifier(), *data, folder=tmp_path / "full", watch=never)


def test_a_disk_that_fills_up_on_the_way_is_one_line_and_loses_nothing(tiny_population, tmp_path, monkeypatch):
    data = (tiny_population.train, tiny_population.validation, SHORT)
    with pytest.raises(Stop):
        train(tiny_classifier(), *data, folder=tmp_path, watch=stopping)
    kept = sorted(path.name for path in tmp_path.iterdir())

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lightleak.training.state.save_file", full)
        with pytest.raises(UserError, match=r"cannot write the training state .*No space left") as error:
            train(tiny_classifier(), *data, folder=tmp_path)
    assert "\n" not in str(error.value)
    assert kept == sorted(path.name for path in tmp_path.iterdir())
    assert len(train(tiny_classifier(), *data, folder=tmp_path).record["history"]) == 3


# Fingerprints


def test_what_decides_is_told_without_what_decides_speed_alone_at_any_depth():
    one, other = (PPA(batch=many, alignment=Alignment(batch=many)) for many in (64, 1))
    assert deciding(one) == deciding(other) != deciding(PPA(alignment=Alignment(copies=3)))
    assert deciding(nested := Nest((one, [other], {"a": one}))) == deciding(Nest((other, [one], {"a": other})))
    assert "batch" not in deciding(nested)["things"]
    fields = {f.name: repr(getattr(PPA(), f.name)) for f in dataclasses.fields(PPA) if f.name != "batch"}
    assert deciding(PPA()) == fields  # as text says it: marks that lie on a disk stay valid


def test_another_version_of_an_algorithm_is_another(monkeypatch):
    before = deciding(PPA(alignment=Alignment()))
    monkeypatch.setattr(Alignment, "version", Alignment.version + 1)
    assert deciding(PPA(alignment=Alignment())) != before
    assert versioned(PPA()) == "PPA"
    monkeypatch.setattr(PPA, "version", 3, raising=False)
    assert versioned(PPA()) == "PPA version 3"


@dataclasses.dataclass(frozen=True)
class Nest:
    things: tuple


def test_fingerprints_tell_things_apart_and_nothing_else():
    scale = 2.0

    def scaled(x):
        return scale * x

    def other(x):
        return x * scale + 1

    things = [
        1, 1.0, True, None, "1", (1,), (1, 2), ((1,), 2), {"a": 1}, {"a": 2}, RoLSS(), RoLSS(where="all"), SSF(),
        RoLSS().apply, SSF().apply, RoLSS, scaled, other, functools.partial(scaled, 1), torch.relu, torch.tanh,
        torch.zeros(3), torch.zeros(3, 1), torch.zeros(3, dtype=torch.int32), torch.tensor([0.0, 0.0, torch.nan]),
        torch.ones(3, dtype=torch.bfloat16), nn.Conv2d(1, 1, 1), lambda x: x, lambda x: x + 1, slice(0, 3),
    ]  # fmt: skip
    prints = [fingerprint(thing) for thing in things]
    assert len(set(prints)) == len(things)
    assert prints == [fingerprint(thing) for thing in things]
    assert fingerprint(torch.arange(6).view(2, 3).T) == fingerprint(torch.arange(6).view(2, 3).T.contiguous())
    assert fingerprint(RoLSS().plan(SHORT)) == fingerprint(RoLSS().plan(SHORT))
    assert fingerprint(NegLS().plan(SHORT)) == fingerprint(NegLS().plan(SHORT))
    loop: list = []
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)
