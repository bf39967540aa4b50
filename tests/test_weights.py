"""Weights from any container: the entry and the prefix that make names agree, and what is said of the rest."""

import json
import math
import pathlib
import warnings
from collections import Counter, OrderedDict, defaultdict

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lightleak import cli
from lightleak.convert import Hints, convert, described, remarks
from lightleak.errors import UserError
from lightleak.models import weights
from lightleak.models.classifier import load, save
from lightleak.models.inception import ANCHORS
from lightleak.models.own import own as of_own
from lightleak.models.weight_files import read_tensors
from lightleak.models.zoo import build

NAME = "timm:test_resnet"
CLASSES = 5


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(NAME, CLASSES, 32).net.eval()


@pytest.fixture(scope="module")
def average(net):
    """Weights near those of `net`."""
    return {name: value + 0.01 if value.is_floating_point() else value for name, value in net.state_dict().items()}


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def wrapped_inside(state):
    """torch.compile and FSDP around parts of a network, DataParallel around one of them."""
    compiled = {name.replace("layer1.0.", "layer1._orig_mod.0._fsdp_wrapped_module."): v for name, v in state.items()}
    return {name.replace("layer2.", "layer2.module."): value for name, value in compiled.items()}


def written(content, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path)
    return path


def converted(content, tmp_path, **hints):
    return convert(written(content, tmp_path / "c.pth"), Hints(architecture=NAME, size=32, **hints))


def same(classifier, state):
    found = classifier.net.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[name], value) for name, value in state.items())


LAYOUTS = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "DataParallel": lambda s: {"state_dict": under("module.", s)},
    "compiled": lambda s: {"model": under("_orig_mod.", s)},
    "compiled within DataParallel": lambda s: under("module._orig_mod.", s),
    "DataParallel within compiled": lambda s: under("_orig_mod.module.", s),
    "net": lambda s: under("net.", s),
    "backbone": lambda s: under("backbone.", s),
    "any prefix": lambda s: under("encoder.trunk_0.inner.", s),
    "wrappers inside": wrapped_inside,
    "Lightning": lambda s: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**under("model.", s), "criterion.weight": torch.ones(5), "train_acc.total": torch.tensor(3)},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3, 3)}}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": {"root": pathlib.PurePosixPath("data"), "counts": Counter({30: 1}), 3.5: (1, 2)},
    },
    "a loss beside": lambda s: {**s, "criterion.weight": torch.ones(5), "loss_fn.centres": torch.ones(5, 2)},
    "counted by a profiler": lambda s: {**s, "layer1.0.conv1.total_ops": torch.zeros(1), "total_ops": torch.zeros(1)},
    "averaged": lambda s: {"n_averaged": torch.tensor(9), **under("module.", s)},
    "an optimiser and a schedule": lambda s: {
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2, 2)}}, "param_groups": [{"params": [0]}]},
        "scheduler": {"milestones": Counter({30: 1, 60: 1}), "seen": defaultdict(list, {"a": [1]})},
        "model": s,
        "best_loss": math.inf,
    },
    "damage beside": lambda s: {"model": s, "extra": {"a b": torch.ones(2, 2)}, "nothing": {"x": torch.ones(0, 3)}},
    "not finite beside": lambda s: {"model": under("net.", s) | {"queue": torch.tensor([[math.nan, math.inf]])}},
    "without counters": lambda s: {n: v for n, v in s.items() if not n.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_network(layout, net, tmp_path):
    state = net.state_dict()
    if layout == "without counters":
        assert any(name.endswith("num_batches_tracked") for name in state)
    found = converted(LAYOUTS[layout](dict(state)), tmp_path)
    assert same(found, state)
    assert same(load(save(found, tmp_path / "out.safetensors")), state)  # whatever lay beside it


def test_bfloat16_and_safetensors(net, tmp_path):
    state = net.state_dict()
    short = {name: value.bfloat16() if value.is_floating_point() else value for name, value in state.items()}
    save_file(under("module.", short), tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = convert(tmp_path / "model.safetensors", Hints(NAME, 32))
    assert all(torch.equal(value.to(short[name]), short[name]) for name, value in found.net.state_dict().items())
    assert {value.dtype for value in found.net.parameters()} == {torch.float32}


def shards(state, folder, **index):
    folder.mkdir(exist_ok=True)
    names = list(state)
    parts = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
    for file, mine in parts.items():
        save_file({name: state[name] for name in mine}, folder / file)
    table = {name: file for file, mine in parts.items() for name in mine} | index
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return folder / "model.safetensors.index.json"


def test_shards_and_published_folders(net, tmp_path):
    state = net.state_dict()
    assert same(convert(shards(state, tmp_path / "hub"), Hints(NAME, 32)), state)
    (tmp_path / "hub" / "config.json").write_text(json.dumps({"id2label": {str(i): f"p{i}" for i in range(CLASSES)}}))
    found = convert(tmp_path / "hub", Hints(NAME, 32))
    assert same(found, state)
    assert found.class_names == ("p0", "p1", "p2", "p3", "p4")
    for file, told in (("../a.safetensors", "no safetensors file beside it"), ("a.safetensors", "in none"),
                       (3, "is no index"), ("gone.safetensors", "gone")):  # fmt: skip
        with pytest.raises(UserError, match=told):
            convert(shards(state, tmp_path / "bad", x=file), Hints(NAME, 32))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is a directory without"):
        convert(tmp_path / "empty", Hints(NAME, 32))


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b'{"weight_map": []}', b'{"weight_map": {}}', b"\xff"])
def test_an_index_that_is_none(content, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(UserError, match="is no index"):
        weights.read(tmp_path / "model.safetensors.index.json")


PAIRS = {
    "timm": lambda raw, ema: {"state_dict": raw, "state_dict_ema": ema},
    "DeiT": lambda raw, ema: {"model": raw, "model_ema": ema, "epoch": 3},
    "EMA first": lambda raw, ema: {"model_ema": ema, "model": raw},
    "by prefix": lambda raw, ema: {"state_dict": under("model.", raw) | under("ema_model.module.", ema)},
    "by prefix alone": lambda raw, ema: raw | under("ema.", ema),
    "deep": lambda raw, ema: {"model": raw, "callbacks": {"EMA": {"ema_weights": ema}}},
}


@pytest.mark.parametrize("pair", PAIRS)
def test_raw_weights_beside_their_average(pair, net, average, tmp_path):
    content = PAIRS[pair](dict(net.state_dict()), average)
    raw = converted(content, tmp_path)
    assert same(raw, net.state_dict())
    (other,) = raw.record["converted"]["others"]
    assert "ema" in other.lower()
    assert other in described(raw)
    assert any("the file also holds" in note for note in remarks(raw))
    chosen = converted(content, tmp_path, entry=other)
    assert same(chosen, average)
    assert chosen.record["converted"]["entry"] == other
    assert chosen.record["converted"]["others"] == []
    assert load(save(chosen, tmp_path / "out.safetensors")).record["converted"]["entry"] == other


def listed(net, average):
    """An average's parameters in order, as torch_ema and diffusers keep it."""
    return [average[name] for name, _ in net.named_parameters()]


KEPT = {
    "ema.shadow_params": lambda raw, values: {
        "model": raw,
        "ema": {"decay": 0.99, "num_updates": 7, "shadow_params": values, "collected_params": None},
    },
    "shadow_params": lambda raw, values: {"state_dict": raw, "optimization_step": 7, "shadow_params": tuple(values)},
    "callbacks.EMA.weights": lambda raw, values: {
        "state_dict": under("net.", raw),
        "callbacks": {"EMA": {"weights": [nn.Parameter(value) for value in values]}},
    },
    "model_ema": lambda raw, values: {"model": raw, "model_ema": dict(enumerate(values))},
    "averaged": lambda raw, values: {"model": raw, "averaged": {str(n): value for n, value in enumerate(values)}},
}


@pytest.mark.parametrize("place", KEPT)
def test_an_average_without_names_can_be_chosen(place, net, average, tmp_path):
    """Its tensors are the parameters in their order; the buffers are the network's own, as where it was trained."""
    content = KEPT[place](dict(net.state_dict()), listed(net, average))
    outermost = next(iter(content))
    found = converted(content, tmp_path)
    assert same(found, net.state_dict())
    assert found.record["converted"]["others"] == [place]
    note = f"the file also holds {place}; {outermost} was taken (--entry chooses)"
    assert note in remarks(found)
    own = of_own(build(NAME, CLASSES, 32).net, tmp_path / "c.pth", size=32)
    assert note in own.notes
    chosen = converted(content, tmp_path, entry=place)
    kept = {name: average[name] for name, _ in net.named_parameters()}
    assert len(kept) < len(average)  # there are buffers
    assert same(chosen, net.state_dict() | kept)
    assert chosen.record["converted"]["entry"] == place
    assumed = f"{place} holds tensors without names, read with those of {outermost} and its buffers"
    assert assumed in remarks(chosen)
    own = of_own(build(NAME, CLASSES, 32).net, tmp_path / "c.pth", size=32, entry=place)
    assert same(own, net.state_dict() | kept)
    assert assumed in own.notes
    with pytest.raises(UserError, match=rf"holds no entry 'ema\.none'; it holds '{outermost}', .*'{place}'"):
        converted(content, tmp_path, entry="ema.none")
    assert not any("also holds" in each for each in remarks(converted(content, tmp_path, entry=outermost)))


def test_an_average_that_cannot_be_named_is_said(net, average, tmp_path):
    """Of parameters in another order, of some alone, and of two networks that it may be of."""
    raw, values = dict(net.state_dict()), listed(net, average)
    for wrong in (values[::-1], values[1:]):
        content = {"model": raw, "ema": {"shadow_params": wrong}}
        found = converted(content, tmp_path)
        assert same(found, raw)
        (note,) = (each for each in remarks(found) if "also holds" in each)
        assert note.startswith(
            f"the file also holds ema.shadow_params, {len(wrong)} tensors of the same shapes without"
        )
        assert "does not have one for each parameter in turn" in note
        assert "save its state dict" in note
        with pytest.raises(UserError, match=r"ema.shadow_params in .* cannot be chosen: it holds .* in turn"):
            converted(content, tmp_path, entry="ema.shadow_params")
    content = {"student": raw, "teacher": average, "shadow_params": values}
    with pytest.raises(UserError, match=r"cannot be chosen: .* which fits 'student', 'teacher'"):
        converted(content, tmp_path, entry="shadow_params")


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        (lambda raw, ema: {"state_dict": under("model.", raw) | under("net.", ema)},
         ("state_dict.model", "state_dict.net")),
        (lambda raw, ema: raw | under("model.", ema), (".", "model")),
        (lambda raw, ema: {"model": raw | under("best.", ema)}, ("model", "model.best")),
        (lambda raw, ema: {"x" * 40 + "1": raw, "x" * 40 + "2": ema}, ("x" * 40 + ":1", "x" * 40 + ":2")),
    ],
    ids=["wrappers", "a wrapper", "one within the other", "cut"],
)  # fmt: skip
def test_networks_that_would_share_a_name_have_one_each(layout, names, net, average, tmp_path):
    content = layout(dict(net.state_dict()), average)
    there = ", ".join(map(repr, names))
    with pytest.raises(UserError, match=f"holds 2 networks that fit: {there}; choose one with --entry"):
        converted(content, tmp_path)
    for name, state in zip(names, (net.state_dict(), average)):
        assert same(converted(content, tmp_path, entry=name), state)


def test_other_lists_are_no_average(net, tmp_path):
    raw = dict(net.state_dict())
    optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for beside in ({"losses": [torch.ones(3), torch.ones(3)]}, {"optimizer": optimiser.state_dict()}, {"none": []}):
        found = converted({"state_dict": raw, **beside}, tmp_path)
        assert not any("also holds" in each for each in remarks(found))


def test_an_average_with_names_comes_before_one_without(net, average, tmp_path):
    found = converted({"model_ema": average, "shadow_params": listed(net, average)}, tmp_path)
    assert same(found, average)
    found = converted({"model_ema": average, "shadow_params": listed(net, net.state_dict())}, tmp_path)
    assert same(found, average)
    assert found.record["converted"]["others"] == ["shadow_params"]


def test_an_average_alone(average, tmp_path):
    for content in ({"state_dict_ema": average}, {"epoch": 3, "model_ema": under("module.", average)}):
        found = converted(content, tmp_path)
        assert same(found, average)
        assert found.record["converted"]["others"] == []


@pytest.mark.parametrize(
    ("one", "other"), [("student", "teacher"), ("model", "best_model"), ("state_dict", "model"), ("net1", "net2")]
)
def test_nobody_can_choose_but_the_user(one, other, net, average, tmp_path):
    nested, flat = ({one: net.state_dict(), other: average},
                    {"state_dict": under(f"{one}.", net.state_dict()) | under(f"{other}.", average)})  # fmt: skip
    for content in (nested, flat):
        with pytest.raises(UserError, match=r"2 networks that fit: .*choose one with --entry") as caught:
            converted(content, tmp_path)
        assert "\n" not in str(caught.value)
    assert same(converted(nested, tmp_path, entry=one), net.state_dict())
    assert same(converted(nested, tmp_path, entry=other), average)
    with pytest.raises(UserError, match=f"no entry 'none'; it holds .*{other}"):
        converted(nested, tmp_path, entry="none")


def test_the_same_weights_twice_are_no_choice(net, tmp_path):
    found = converted({"model": net.state_dict(), "best": dict(net.state_dict())}, tmp_path)
    assert found.record["converted"]["others"] == []


def test_what_does_not_fit_is_no_candidate(net, tmp_path):
    """A second network of another kind decides nothing, whatever is wrong with it."""
    head = nn.Linear(3, 4)
    head.weight.data.fill_(math.nan)
    content = {"projector": head.state_dict(), "student": net.state_dict(), "history": [1, 2]}
    found = converted(content, tmp_path)
    assert same(found, net.state_dict())
    assert found.record["converted"]["entry"] == "student"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda s: under("net.", {n: v for n, v in s.items() if n != "fc.bias"}), "fc.bias is missing"),
        (lambda s: under("net.", s | {"layer1.0.se.weight": torch.ones(2)}), "se.weight is not in the network"),
        (lambda s: s | {"pre_logits.fc.weight": torch.ones(2)}, "pre_logits.fc.weight is not in the network"),
        (lambda s: under("net.", s | {"conv1.weight": torch.ones(2)}), "conv1.weight is "),
        (lambda s: s | {"fc.weight": torch.full_like(s["fc.weight"], math.nan)}, "not finite, in fc.weight"),
    ],
)
def test_weights_of_another_network_are_refused(edit, told, net, tmp_path):
    with pytest.raises(UserError) as caught:
        converted(edit(dict(net.state_dict())), tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_readers_find_theirs_beside_anything(tmp_path):
    wanted = {"fc.weight": torch.ones(2, 3), "Mixed_7c.branch_pool.conv.weight": torch.ones(1, 1)}
    content = {"state_dict": under("inception.", wanted) | {"criterion.weight": torch.ones(1)}}
    assert read_tensors(written(content, tmp_path / "c.pth"), ANCHORS).keys() == wanted.keys()


def test_a_network_that_is_wrapped_takes_bare_weights():
    inner = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    outer = nn.Module()
    outer.net = inner
    content = weights.Content((weights.Entry("", OrderedDict(inner.state_dict())),), {})
    found = weights.agree(content, outer.state_dict(), "file")
    assert found.tensors.keys() == outer.state_dict().keys()


# Names of classes


def test_names_in_the_file(net, tmp_path):
    state, names = net.state_dict(), ("eve", "ada", "bob", "dan", "cy")
    for said in (
        {"class_names": list(names)},
        {"class_to_idx": {name: number for number, name in enumerate(names)}},
        {"idx_to_class": dict(enumerate(names))},
        {"hyper_parameters": {"classes": names}},
    ):
        assert converted({"model": state, **said}, tmp_path).class_names == names
    for said in ({"classes": 5}, {"class_names": list(names[:4])}, {"class_to_idx": {"a": 10**9}},
                 {"labels": ["a"] * 5}, {"idx_to_class": {"²": "a"}}):  # fmt: skip
        found = converted({"model": state, **said}, tmp_path)
        assert found.class_names == ()
        assert any("no class names" in remark for remark in remarks(found))


def test_names_that_are_given(net, tmp_path, capsys):
    file = written(net.state_dict(), tmp_path / "c.pth")
    for name in ("1", "2", "10", "B", "a"):
        (tmp_path / "people" / name).mkdir(parents=True)
    text = convert(file, Hints(NAME, 32, class_names=tmp_path / "people")).class_names
    natural = convert(file, Hints(NAME, 32, class_names=tmp_path / "people", class_order="natural")).class_names
    assert text == ("1", "10", "2", "B", "a")  # Lightleak's and torchvision's
    assert natural == ("1", "2", "10", "a", "B")
    (tmp_path / "names.txt").write_text("x\ny\nz\nä\n w \n", encoding="utf-8")
    out = tmp_path / "out.safetensors"
    names = ["--class-names", str(tmp_path / "names.txt")]
    cli.main(["convert", str(file), "--architecture", NAME, "--size", "32", *names, "--out", str(out)])
    assert load(out).class_names == ("x", "y", "z", "ä", "w")
    assert "class names are the 5 lines of names.txt" in " ".join(capsys.readouterr().out.split())
    for content, told in ((b"x\ny", "names 2 classes"), (b"x\nx\ny\nz\nw", "'x' twice"), (b"\xff\xfe", "UTF-8")):
        (tmp_path / "names.txt").write_bytes(content)
        with pytest.raises(UserError, match=told):
            convert(file, Hints(NAME, 32, class_names=tmp_path / "names.txt"))


def test_natural_order_is_timms():
    """timm 1.0 numbers the folders of an image folder in natural order; torchvision and Lightleak in that of text."""
    from timm.data.readers.reader_image_folder import natural_key

    from lightleak.convert.names import natural

    folders = ["10", "2", "1", "n02", "n1", "N10", "a", "B", "x 3", "x 12", "007", "7"]
    assert sorted(folders, key=natural) == sorted(folders, key=natural_key)
