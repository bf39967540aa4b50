"""Retrofit: surgery on a trained network, its recovery, and the search for what keeps the accuracy."""

import copy
import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import lightleak as ll
from conftest import TINY, TinyNet, tiny_classifier
from lightleak import cli, defences
from lightleak.data.population import Images
from lightleak.defences import ATAT, MIDRE, SSF, TLDMI, LoFt, RoLSS, plan
from lightleak.defences.lasting import lasting
from lightleak.defences.midre import GREY
from lightleak.defences.retrofit import FACTORS, Cut, Recovery, Tried, held_out, protect, search, settle, shortened
from lightleak.errors import UserError
from lightleak.models.classifier import load, save
from lightleak.models.zoo import build
from lightleak.surgery import find_skips
from lightleak.training import Batch, Recipe, accuracy_and_loss, predict, train


def test_the_loss_by_hand():
    original, cut = tiny_classifier(seed=1).eval(), tiny_classifier(seed=2).eval()
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    loss = Recovery(original, temperature=3.0, features=0.5)(Batch(cut, images, torch.zeros(5), 0.0))
    (h, theirs), (g, ours) = original.features_and_logits(images), cut.features_and_logits(images)
    p, q = (theirs / 3).softmax(1), (ours / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1).mean() + 0.5 * ((g - h).square().sum(1) / h.square().sum(1)).mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    same = Recovery(original)(Batch(original.train(), images, torch.zeros(5), 0.0))
    assert not original.training or float(same.detach()) > 0  # its batch norms answer otherwise in training
    original.eval()
    assert float(Recovery(original)(Batch(original, images, torch.zeros(5), 0.0)).detach()) == pytest.approx(
        0, abs=1e-6
    )


def test_other_features_are_left_out():
    wide, narrow = tiny_classifier(seed=1).eval(), ll.Classifier(TinyNet(6, width=8), size=32, classes=6).eval()
    images = torch.rand(3, 3, 32, 32)
    losses = [Recovery(wide, features=each)(Batch(narrow, images, torch.zeros(3), 0.0)).detach() for each in (0.0, 9.0)]
    assert float(losses[0]) == float(losses[1])


def test_a_trained_network_loses_its_skips_and_recovers(tiny_target, tiny_population, tmp_path):
    before = {name: value.clone() for name, value in tiny_target.state_dict().items()}
    cut = RoLSS().apply(tiny_target)
    ruined, _ = accuracy_and_loss(cut, tiny_population.validation)
    recovered = ll.protect(tiny_target, tiny_population.train, tiny_population.validation, "rolss")
    told = recovered.record["retrofit"]
    assert recovered.record["recipe"]["epochs"] == 3  # a tenth of 24
    assert recovered.record["recipe"]["rate"] == TINY.rate
    assert told["original_accuracy"] == accuracy_and_loss(tiny_target, tiny_population.validation)[0]
    assert told["surgery"] == "RoLSS"
    assert told["tried"][0]["accuracy"] == accuracy_and_loss(recovered, tiny_population.validation)[0]
    assert told["tried"][0]["accuracy"] >= max(0.8, ruined)
    assert len(find_skips(recovered.net, recovered.example)) == 1
    assert all(torch.equal(before[name], value) for name, value in tiny_target.state_dict().items())
    save(recovered, tmp_path / "safer.safetensors")
    again = load(tmp_path / "safer.safetensors", net=TinyNet())
    assert torch.allclose(predict(again, tiny_population.test), predict(recovered, tiny_population.test), atol=1e-5)
    assert again.record["retrofit"] == told


def test_batch_norm_is_of_the_network_that_recovered(tiny_target, tiny_population):
    """Its averages, made again by hand from what each layer reads; averages on the way hold the network before."""
    images = tiny_population.train
    recovered = ll.protect(tiny_target, images, tiny_population.validation, "rolss", epochs=1)
    norms = [one for one in recovered.net.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    assert norms
    read: dict[torch.nn.Module, list[torch.Tensor]] = {one: [] for one in norms}
    probe = copy.deepcopy(recovered)
    twins = [one for one in probe.net.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for own, twin in zip(norms, twins):
        twin.train()
        twin.register_forward_hook(lambda _, given, __, own=own: read[own].append(given[0].detach()))
    size = min(recovered.record["recipe"]["batch"], len(images))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    for start in range(0, len(images) - size + 1, size):
        probe(images.floats(order[start : start + size]))
    for own in norms:
        means = torch.stack([seen.mean((0, 2, 3)) for seen in read[own]]).mean(0)
        variances = torch.stack([seen.var((0, 2, 3)) for seen in read[own]]).mean(0)
        torch.testing.assert_close(own.running_mean, means, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(own.running_var, variances, rtol=1e-3, atol=1e-4)
        assert own.momentum == 0.1


def test_a_stopped_search_goes_on_alike(tiny_target, tiny_population, tmp_path):
    class Stop(Exception):
        pass

    steps = []

    def watch(step, *_, **__):
        steps.append(step)
        if len(steps) == 3:
            raise Stop

    def sought(**more):
        return protect(tiny_target, tiny_population.train, tiny_population.validation, "ssf", keep_accuracy=0.01,
                       epochs=2, **more)  # fmt: skip

    whole = sought()
    with pytest.raises(Stop):
        sought(folder=tmp_path, watch=watch)
    again = sought(folder=tmp_path)
    assert whole.record["retrofit"] == again.record["retrofit"]
    assert [one["surgery"] for one in whole.record["retrofit"]["tried"]] == [
        "no skips in stage 2", "no skips in stages 2 and 1",
    ]  # fmt: skip
    assert not find_skips(again.net, again.example)
    for a, b in zip(whole.net.state_dict().values(), again.net.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def trials(kept) -> Any:
    """As recoveries would be noted that keep what `kept` says of a cut."""
    found = SimpleNamespace(model=build("timm:resnet10t", 5, 32), tried=[])

    def recovered(cut, name):
        found.tried.append(Tried(name, kept(cut), kept(cut)))
        return name

    found.recovered = recovered
    return found


def defended(population, *chosen, recipe=None):
    """A network trained with defences for a moment."""
    recipe = recipe or dataclasses.replace(TINY, epochs=2, milestones=())
    return train(tiny_classifier(), population.train, population.validation, recipe, plan(chosen, recipe))


def retold(classifier, path):
    """The same from the disk, where nothing is known but what was recorded."""
    save(classifier, path)
    return load(path, net=TinyNet())


def test_plain_steps_void_the_bound_of_private_ones(tiny_population):
    private = tiny_classifier()
    private.record = {"defences": ["dp"], "privacy": {"epsilon": 8.0}}
    with pytest.raises(UserError, match=r"trained with dp.*void its bound") as error:
        protect(private, tiny_population.train, tiny_population.validation)
    assert "\n" not in str(error.value)


def test_what_plain_steps_leave_of_a_defence_is_what_its_plan_says():
    def left(**record):
        found = lasting({"defences": [*defences.DEFENCES, "of another version"], **record})
        return found.names, tuple(found.by_views), found.by_freezing, found.void, found.undone

    changes = ("rolss", "rolss+", "ssf", "tts", "loft")
    losses = ("bido", "mid", "negls", "atat", "calor", "trapmid", "of another version")
    names, views, freezing, void, undone = left()
    assert (names, views, freezing, void) == (changes, (), (), ())
    assert set(undone) == {*losses, "midre", "tldmi", "dp"}  # older records tell no settings and no frozen layers
    settings = {"midre": {"least": 0.1, "most": 0.8}}
    names, views, freezing, void, undone = left(defence_settings=settings, frozen=["a"], privacy={"epsilon": 8})
    assert (names, views, freezing, void) == (changes, ("midre",), ("tldmi",), ("dp",))
    assert set(undone) == set(losses)
    assert left(defence_settings={"midre": {"later": 1}})[1] == ()


def test_what_recovery_undoes_is_struck_and_said(tiny_population, caplog):
    target = tiny_classifier()
    target.record = {"defences": ["negls", "loft", "midre"]}
    with caplog.at_level("WARNING", "lightleak"):
        safer = protect(target, tiny_population.train, tiny_population.validation, "rolss", epochs=1)
    assert "recovery undoes negls, midre" in caplog.text
    assert safer.record["defences"] == ["loft", "rolss"]
    assert safer.record["defence_settings"] == {"rolss": {"where": "last", "wake": True}}


def test_recovery_sees_a_face_no_more_whole_than_training_did(tiny_population, tmp_path):
    target = retold(defended(tiny_population, MIDRE(least=0.5, most=0.8)), tmp_path / "a.safetensors")
    assert target.record["defence_settings"] == {"midre": {"least": 0.5, "most": 0.8, "fill": list(GREY)}}
    shares = []

    class Seeing(Recovery):
        def __call__(self, batch):
            grey = (batch.images - torch.tensor(GREY).view(1, 3, 1, 1)).abs().amax(1) < 1e-6
            shares.extend(grey.float().flatten(1).mean(1).tolist())
            return super().__call__(batch)

    both = tiny_population.train, tiny_population.validation
    safer = protect(target, *both, "rolss", epochs=1, recovery=Seeing)
    assert min(shares) > 0.45
    assert max(shares) < 0.85
    assert safer.record["defences"] == ["midre", "rolss"]
    assert safer.record["defence_settings"]["midre"]["most"] == 0.8
    blank = settle(tiny_classifier(), tiny_population.train, 8, views=(torch.zeros_like,))
    dark = tiny_population.train.at(torch.arange(16))
    dark = Images(torch.zeros_like(dark.pixels), dark.labels)
    wanted = settle(tiny_classifier(), dark, 8)
    assert torch.allclose(blank.net.first[1].running_mean, wanted.net.first[1].running_mean, atol=1e-6)


@pytest.mark.parametrize("disk", [True, False])
def test_frozen_layers_stay_frozen_in_recovery(disk, tiny_population, tmp_path):
    target = defended(tiny_population, TLDMI(until="first"))
    target = retold(target, tmp_path / "a.safetensors") if disk else target
    before = {name: value.clone() for name, value in target.net.state_dict().items()}
    safer = protect(target, tiny_population.train, tiny_population.validation, "rolss", epochs=1)
    same = {name for name, value in safer.net.state_dict().items() if torch.equal(value, before[name])}
    assert same == {name for name in before if name.startswith(("stem", "first"))}
    assert safer.record["defences"] == ["tldmi", "rolss"]
    again = protect(retold(safer, tmp_path / "b.safetensors"), *(tiny_population.train, tiny_population.validation),
                    "ssf(where=1)", epochs=1)  # fmt: skip
    assert again.record["defences"] == ["tldmi", "rolss", "ssf"]


def test_a_retrofit_of_a_retrofit_takes_a_tenth_of_the_originals_epochs(tiny_population):
    target = tiny_classifier()
    target.record = {"recipe": dataclasses.asdict(dataclasses.replace(TINY, epochs=20))}
    both = tiny_population.train, tiny_population.validation
    once = protect(target, *both, "ssf")
    twice = protect(once, *both, "ssf(where=1)")
    assert [each.record["recipe"]["epochs"] for each in (once, twice)] == [2, 2]
    assert twice.record["retrofit"]["recipe"]["epochs"] == 20


def test_the_last_stage_is_not_cut_twice(tiny_population):
    both = tiny_population.train, tiny_population.validation
    once = RoLSS().apply(tiny_classifier())
    for defence in ("rolss", "ssf"):
        with pytest.raises(UserError, match=r"cut already.*where=1"):
            protect(once, *both, defence)
    assert [skip.stage for skip in find_skips(RoLSS(where=1).apply(tiny_classifier()).net, once.example)]
    assert len(RoLSS().apply(RoLSS(where=1).apply(build("timm:resnet10t", 4, 32))).changes) == 2  # an earlier stage
    assert len(RoLSS().apply(SSF().apply(tiny_classifier())).changes) == 2  # the same skips, first weaker, then gone


def test_the_search_takes_stages_first_and_then_the_smallest_k():
    def kept(cut):
        if cut.scaled is None:
            return {1: 0.995, 2: 0.97}[len(cut.removed)]
        assert cut.removed == (4,)
        assert cut.scaled == 3
        return 0.97 + 0.05 * cut.k

    found = trials(kept)
    assert search(found, 0.985, scaling=True)[1] == "no skips in stage 4, k = 0.4 in stage 3"
    assert [one.surgery for one in found.tried] == [
        "no skips in stage 4",
        "no skips in stages 4 and 3",
        "no skips in stage 4, k = 0.4 in stage 3",
        "no skips in stage 4, k = 0.2 in stage 3",
    ]
    assert search(trials(kept), 0.985, scaling=False)[1] == "no skips in stage 4"
    everything = trials(lambda _: 1.0)
    assert search(everything, 1.0, scaling=True)[1] == "no skips in stages 4 and 3 and 2 and 1"
    assert len(everything.tried) == 4


@pytest.mark.parametrize("threshold", [*FACTORS, 0.9])
def test_every_k_can_be_found(threshold):
    found = trials(lambda cut: 1.0 if (cut.k or 0) >= threshold else 0.5)
    if threshold == 0.9:
        with pytest.raises(UserError, match=r"keeps 99\.0% of the accuracy; nearest came .*which keeps 50\.0%"):
            search(found, 0.99, scaling=True)
    else:
        assert search(found, 0.99, scaling=True)[1] == f"k = {threshold:g} in stage 4"
        assert len(found.tried) <= 4


def test_accuracy_that_is_no_number_keeps_nothing():
    with pytest.raises(UserError, match="no surgery"):
        search(trials(lambda _: float("nan")), 0.5, scaling=True)


def test_a_cut_is_what_it_says():
    net = build("timm:resnet10t", 5, 32)
    stages = [skip.stage for skip in find_skips(net.net, net.example)]
    cut = Cut((4,), 3, 0.2)(net)
    assert [skip.stage for skip in find_skips(cut.net, cut.example)] == [each for each in stages if each != 4]
    assert [change["factor"] for change in cut.changes] == [0.2, 0.0]


def test_images_are_held_out_of_each_class():
    labels = torch.tensor([0] * 20 + [1] * 10 + [2] * 5)
    images = Images(torch.arange(35, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 4, 4), labels)
    seen, aside = held_out(images)
    assert aside.pixels[:, 0, 0, 0].tolist() == [9, 19, 29]
    assert len(seen) == 32
    with pytest.raises(UserError, match="held out"):
        held_out(images.at(torch.arange(5)))


@pytest.mark.parametrize(
    ("defence", "message"),
    [
        ("tts", "middle of a training"),
        ("tts,negls", "middle of a training"),
        ("negls", "a way of training"),
        ("midre", "a way of training"),
        ((ATAT(),), "a way of training"),
        (LoFt(rank=4), "untrained head"),
        (TLDMI(), "public images"),
        ("dp", "cannot be retrofitted"),
        ("none", "name the surgery"),
        ("rols", "no defence 'rols'"),
    ],
)
def test_what_cannot_be_retrofitted_says_why(defence, message, tiny_population):
    with pytest.raises(UserError, match=message) as error:
        protect(tiny_classifier(), tiny_population.train, tiny_population.validation, defence)
    assert "\n" not in str(error.value)


def test_bad_settings_are_one_clear_line(tiny_population):
    both = tiny_population.train, tiny_population.validation
    for keep in (0.0, 1.5, float("nan")):
        with pytest.raises(UserError, match="share"):
            protect(tiny_classifier(), *both, keep_accuracy=keep)
    with pytest.raises(UserError, match="nothing to keep"):
        protect(tiny_classifier(), *both, keep_accuracy=0.9)
    with pytest.raises(UserError, match="chosen among"):
        protect(tiny_classifier(), *both, SSF(0.5), keep_accuracy=0.9)
    with pytest.raises(UserError, match="at least 1 epoch"):
        protect(tiny_classifier(), *both, epochs=0)
    with pytest.raises(UserError, match="wrap your network"):
        protect(nn.Linear(2, 2), *both)  # pyright: ignore[reportArgumentType]
    assert shortened(Recipe(epochs=14)).epochs == 2
    assert shortened(Recipe(epochs=100)).epochs == 10


def test_the_command_line_retrofits_and_says_what_it_found(tmp_path, capsys):
    save(build("timm:resnet10t", 4, 32), tmp_path / "trained.safetensors")
    small = "people 4 images 4 size 32 public_people 1 public_images 1 judge_images 1 validation_images 1 test_images 2"
    line = f"protect --target {tmp_path}/trained.safetensors --out {tmp_path}/safer.safetensors --settings {small}"
    cli.main([*line.split(), "--epochs", "1", "--defence", "rolss", "--device", "cpu"])
    told = capsys.readouterr().out
    assert "chosen: RoLSS" in told
    assert "after 1 epoch of recovery" in told
    found = load(tmp_path / "safer.safetensors")
    assert found.record["retrofit"]["keep_accuracy"] is None
    assert not (tmp_path / ".safer.safetensors.retrofit").exists()
    with pytest.raises(SystemExit):
        cli.main([*line.replace("people 4", "people 5").split(), "--device", "cpu"])
    assert "5 classes, the model 4" in " ".join(capsys.readouterr().err.split())


def test_recovery_goes_by_the_recipe_that_the_model_was_trained_with(tiny_target):
    from lightleak.defences.retrofit import _recipe_of

    assert _recipe_of(tiny_target) == TINY
    foreign = tiny_target.with_net(tiny_target.net)
    foreign.record = {}
    assert _recipe_of(foreign).epochs == 14
    foreign.record = {"recipe": {**dataclasses.asdict(TINY), "invented": 1}}
    assert _recipe_of(foreign).epochs == 24
