"""A network of the user's own, FILE.py:NAME, with weights from any container, in every verb."""

# ruff: noqa: ARG001

import json
import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from conftest import TinyNet
from lightleak import cli
from lightleak.attacks import Reconstruction
from lightleak.attacks.adaptive import defended_by
from lightleak.errors import UserError
from lightleak.models.classifier import load, read_recipe, save
from lightleak.models.named import is_spec
from lightleak.models.own import made, opened, own, side_of
from lightleak.models.zoo import build
from lightleak.study.protocols import PROTOCOLS, Protocol

SOURCE = '''
from dataclasses import dataclass

import timm
import torch
from torch import nn
from beside import WIDTH

CALLED = []


class Net(nn.Module):
    """Small, with one skip; gives features and logits."""

    input_size = (3, 32, 32)

    def __init__(self, classes=6):
        super().__init__()
        self.stem = nn.Conv2d(3, WIDTH, 3, 2, 1)
        self.block = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, 1, 1), nn.ReLU())
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.block(x)
        features = x.mean((2, 3))
        return features, self.fc(features)


def make_model():
    return Net()


def from_timm():
    return timm.create_model("test_resnet", num_classes=6)


class Both(Net):
    """An embedding of as many numbers as there are classes beside the logits, by names that say nothing."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(WIDTH, 6)

    def forward(self, x):
        features, logits = super().forward(x)
        return {"embedding": self.embed(features), "answer": logits}


def compiled():
    return nn.DataParallel(Net())


def no_size():
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 6))


def for_classes(num_classes):
    return Net(num_classes)


def needs(depth, width):
    return Net()


def wrong():
    return 3


def fails():
    raise KeyError("no such\\nthing")


network = Net()
number = 3
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymodel.py").write_text(SOURCE)
    (tmp_path / "beside.py").write_text("WIDTH = 8\n")
    return tmp_path


def test_from_a_function_to_a_classifier_and_back(folder, caplog):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = made("mymodel.py:make_model").eval()
    content = {"state_dict": {f"model.{name}": value for name, value in theirs.state_dict().items()}, "epoch": 3}
    content["state_dict"]["criterion.weight"] = torch.ones(6)
    content["class_names"] = list("abcdef")
    torch.save(content, folder / "w.pt")
    with caplog.at_level(logging.WARNING, "lightleak"):
        found = own("mymodel.py:make_model", "w.pt", mean=(0.5,) * 3, std=(0.2,) * 3)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(found(images), theirs((images - 0.5) / 0.2)[1])
    assert (found.classes, found.size, found.class_names) == (6, 32, tuple("abcdef"))
    assert any("not read: criterion.weight" in note for note in found.notes)
    assert not found.training
    save(found, "mine.safetensors")
    assert read_recipe("mine.safetensors")["origin"] == "mymodel.py:make_model"
    with pytest.raises(UserError, match=r"made by mymodel\.py:make_model: give that with --net"):
        load("mine.safetensors")
    again = opened("mymodel.py:make_model", "mine.safetensors")
    assert torch.equal(again(images), found(images))
    assert again.recipe == found.recipe


@pytest.mark.parametrize("name", ["Net", "network", "compiled", "make_model"])
def test_what_a_name_may_be(name, folder):
    found = own(f"mymodel.py:{name}")
    assert (found.classes, found.size) == (6, 32)
    assert found(torch.rand(1, 3, 40, 40)).shape == (1, 6)


def test_classes_are_handed_on_where_they_are_asked_for(folder):
    assert own("mymodel.py:for_classes", classes=4).classes == 4
    assert own(made("mymodel.py:Net")).classes == 6  # a module itself
    with pytest.raises(UserError, match=r"wants arguments \(num_classes\)"):
        own("mymodel.py:for_classes")


def test_what_timm_says_of_itself(folder):
    found = own("mymodel.py:from_timm")
    assert (found.size, found.mean) == (160, (0.5,) * 3)
    assert any("says of itself" in note for note in found.notes)
    with torch.device("meta"):
        net = made("mymodel.py:from_timm")
    assert side_of(net) == 160


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("mymodel:Net", "FILE.py:NAME"),
        ("mymodel.py", "FILE.py:NAME"),
        ("mymodel.py:", "FILE.py:NAME"),
        ("other.py:Net", "there is no Python file other.py"),
        ("mymodel.py:Nett", "has no 'Nett'; it has"),
        ("mymodel.py:number", "is of type int, expected a function"),
        ("mymodel.py:needs", r"wants arguments \(depth, width\)"),
        ("mymodel.py:wrong", "returns something of type int, expected a torch.nn.Module"),
        ("mymodel.py:fails", r"failed: KeyError: .*, line \d+ of mymodel.py"),
        ("mymodel.py:no_size", "does not say which images it takes"),
        ("syntax.py:x", r"failed: SyntaxError: .*, line 1 of syntax.py"),
        ("leaves.py:x", "failed: SystemExit"),
        ("imports.py:x", "failed: ModuleNotFoundError: No module named 'nowhere_at_all', line 2"),
    ],
)
def test_what_fails_is_one_line(spec, told, folder):
    (folder / "syntax.py").write_text("def (:\n")
    (folder / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "imports.py").write_text("import os\nimport nowhere_at_all\n")
    with pytest.raises(UserError, match=told) as caught:
        own(spec)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network(folder):
    save_file(TinyNet(6).state_dict(), folder / "other.safetensors")
    with pytest.raises(UserError, match=r"other.safetensors does not fit its architecture: .*missing") as caught:
        own("mymodel.py:Net", "other.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.bool])
def test_whole_numbers_are_no_weights(dtype, folder):
    """Quantised files hold them, with their scales elsewhere; as weights they would be another network."""
    stored = TinyNet(6).state_dict()
    name = next(name for name, value in stored.items() if value.is_floating_point())
    save_file(stored | {name: stored[name].to(dtype)}, folder / "quantised.safetensors")
    kind = str(dtype).removeprefix("torch.")
    (folder / "six.py").write_text("from conftest import TinyNet\n\n\ndef make():\n    return TinyNet(6)\n")
    with pytest.raises(UserError, match=rf"{name} holds whole numbers \({kind}\), as quantised files do"):
        own("six.py:make", "quantised.safetensors", size=32)


def test_specs():
    assert is_spec("a/b.py:Net")
    assert is_spec("C:/b.py:make")
    assert not any(map(is_spec, ("timm:resnet18", "model.safetensors", "a.py", "a.py:1", "face:ir152")))


def told(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_every_verb_takes_it(folder, capsys):
    """skips, convert, attack, evaluate: with weights alone, and with what convert has saved."""
    net = made("mymodel.py:Net")
    torch.save({"model": net.state_dict(), "model_ema": net.state_dict()}, "w.pt")
    cli.main(["skips", "mymodel.py:Net"])
    assert "1 skip connections at 32 x 32" in told(capsys)
    cli.main(["skips", "--net", "mymodel.py:Net", "--weights", "w.pt", "--entry", "model_ema"])
    assert "mymodel.py:Net: 1 skip connections at 32 x 32" in told(capsys)
    cli.main(["convert", "w.pt", "--net", "mymodel.py:Net", "--normalise", "none", "--out", "mine.safetensors"])
    assert "mymodel.py:Net, 6 classes, images of 32 pixels" in told(capsys)
    assert read_recipe("mine.safetensors")["mean"] == [0.0, 0.0, 0.0]
    cli.main(["skips", "mine.safetensors", "--net", "mymodel.py:Net", "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 1
    guess = ["--classes", "0", "3", "attack:guess", "--attack.keep", "1"]
    cli.main(["attack", "--net", "mymodel.py:Net", "--weights", "w.pt", "--mean", *["0"] * 3, "--std", *["1"] * 3,
              "--out", "one.safetensors", *guess])  # fmt: skip
    cli.main(["attack", "--net", "mymodel.py:Net", "--target", "mine.safetensors", "--out", "two.safetensors", *guess])
    one, two = Reconstruction.load("one.safetensors"), Reconstruction.load("two.safetensors")
    assert torch.equal(one.images, two.images)
    world = ["--data", "faces", "--settings", "people", "6", "images", "4", "size", "32", "public_people", "2",
             "public_images", "2", "judge_images", "2", "validation_images", "1", "test_images", "2"]  # fmt: skip
    judge = ["--net", "mymodel.py:Net", "--weights", "w.pt"]
    cli.main(["evaluate", "--found", "one.safetensors", *judge, "--out", "e.json", *world])
    assert json.loads((folder / "e.json").read_text())


def test_a_protocol_is_followed_or_refused(folder, capsys, monkeypatch):
    """`evaluate --protocol`: departures are named before anything is written, and images are handed over as it says."""
    torch.save(made("mymodel.py:Net").state_dict(), "w.pt")
    judge = ["--net", "mymodel.py:Net", "--weights", "w.pt", "--mean", *["0"] * 3, "--std", *["1"] * 3]
    cli.main(["attack", *judge, "--out", "found.safetensors", "attack:guess", "--attack.keep", "2"])
    small = Protocol("two-each", keep=2, judge_size=32, fed="8-bit")
    monkeypatch.setitem(PROTOCOLS, "two-each", small)
    monkeypatch.setitem(PROTOCOLS, "three-each", replace(small, name="three-each", keep=3, judge_size=64))
    world = ["--data", "faces", "--settings", "people", "6", "images", "4", "size", "32", "public_people", "2",
             "public_images", "2", "judge_images", "2", "validation_images", "1", "test_images", "2"]  # fmt: skip

    def evaluation(name, *more):
        cli.main(["evaluate", "--found", "found.safetensors", *judge, "--out", name, *world, *more])
        return json.loads((folder / name).read_text())

    for chosen, departures in {
        "paper-ppa": "paper-ppa v1 attacks 530 people, the target knows 6",
        "three-each": "it scores 3 images of each person, not 2; its judge sees 64 x 64 pixels, not 32",
        "nope": "there is no protocol 'nope'",
    }.items():
        with pytest.raises(SystemExit) as end:
            evaluation("refused.json", "--protocol", chosen)
        assert end.value.code == 2
        assert departures in " ".join(capsys.readouterr().err.split())
    assert not (folder / "refused.json").exists()
    followed = evaluation("followed.json", "--protocol", "two-each")
    assert "counted as two-each v1" in told(capsys)
    assert followed.pop("scored") == {"protocol": "two-each v1", "fed": "8-bit", "published": False}
    plain = evaluation("bytes.json", "--fed-8-bit")
    assert plain.pop("scored") == {"protocol": None, "fed": "8-bit", "published": False}
    assert followed == plain
    floats = evaluation("floats.json")
    del floats["scored"]
    assert followed != floats


def test_which_of_two_equal_outputs_is_said_to_every_verb(folder, capsys):
    """Without --output one line asks for it by its name; with it each verb reads that output and no other."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = made("mymodel.py:Both").eval()
    torch.save(net.state_dict(), "w.pt")
    images = torch.rand(3, 3, 32, 32)
    for name in ("embedding", "answer"):
        read = own("mymodel.py:Both", "w.pt", mean=(0.5,) * 3, std=(0.5,) * 3, output=name)
        torch.testing.assert_close(read(images), net((images - 0.5) / 0.5)[name])
    world = ["--data", "faces", "--settings", "people", "6", "images", "4", "size", "32", "public_people", "2",
             "public_images", "2", "judge_images", "2", "validation_images", "1", "test_images", "2"]  # fmt: skip
    mine, weights = ["--net", "mymodel.py:Both"], ["--weights", "w.pt"]
    guess = ["--classes", "0", "3", "attack:guess", "--attack.keep", "1"]
    verbs = [
        ["skips", "mymodel.py:Both"],
        ["convert", "w.pt", *mine, "--normalise", "half", "--out", "mine.safetensors"],
        ["attack", *mine, *weights, "--out", "found.safetensors"],
        ["evaluate", "--found", "found.safetensors", *mine, *weights, "--out", "e.json", *world],
        ["train", *mine, "--from", "w.pt", "--out", "a.safetensors", "--recipe.epochs", "1", *world],
        ["protect", *mine, *weights, "--out", "p.safetensors", "--defence", "rolss", *world],
        ["audit", *mine, *weights, "--dry-run", "--recogniser", "none", "--prior", "rendered", *world],
    ]
    for verb in verbs:
        last = guess if verb[0] == "attack" else []
        with pytest.raises(SystemExit) as end:
            cli.main([*verb, *last])
        assert end.value.code == 2
        assert "say which holds the logits: --output embedding" in " ".join(capsys.readouterr().err.split())
        if verb[0] not in ("protect", "train"):  # which take longer
            cli.main([*verb, "--output", "answer", *last])
    assert torch.equal(opened("mymodel.py:Both", "mine.safetensors")(images), read(images))
    assert torch.equal(opened("mymodel.py:Both", "mine.safetensors", output="answer")(images), read(images))
    with pytest.raises(UserError, match="was saved with output 'answer' as the logits"):
        opened("mymodel.py:Both", "mine.safetensors", output="embedding")
    with pytest.raises(UserError, match="returns no output '7'; it has embedding: N x 6, answer: N x 6"):
        own("mymodel.py:Both", "w.pt", output=7)


@pytest.mark.parametrize("spec", [None, "mymodel.py:from_timm"])
@pytest.mark.parametrize("stated", [{"mean": (0.5,) * 3}, {"std": (0.5,) * 3}, {"entry": "ema"}, {"size": 16}])
def test_what_a_checkpoint_says_itself_is_not_stated_beside_it(spec, stated, folder):
    save(own("mymodel.py:from_timm", size=32) if spec else build("timm:resnet10t", 4, 32), "mine.safetensors")
    assert opened(spec, "mine.safetensors").size == 32
    with pytest.raises(UserError, match=r"mine\.safetensors says"):
        opened(spec, "mine.safetensors", **stated)


def test_training_takes_it_and_goes_on_from_weights(folder, capsys):
    """From nothing, from a plain state dict and from a checkpoint; the defence is applied to the plain network."""
    world = ["--data", "faces", "--settings", "people", "6", "images", "4", "size", "32", "public_people", "2",
             "public_images", "2", "judge_images", "2", "validation_images", "1", "test_images", "2"]  # fmt: skip
    short = ["--recipe.epochs", "1", "--recipe.rate", "1e-9", *world]
    torch.save({"state_dict": made("mymodel.py:Net").state_dict()}, "w.pt")
    mine = ["--net", "mymodel.py:Net"]
    cli.main(["train", *mine, "--from", "w.pt", "--out", "a.safetensors", "--defence", "rolss", *short])
    first = load("a.safetensors", made("mymodel.py:Net"))
    given = torch.load("w.pt")["state_dict"]
    assert torch.allclose(first.net.state_dict()["fc.weight"], given["fc.weight"], atol=1e-6)  # at such a rate
    assert len(first.changes) == 1
    cli.main(["train", *mine, "--from", "a.safetensors", "--out", "b.safetensors", *short])
    again = load("b.safetensors", made("mymodel.py:Net"))
    assert torch.allclose(again.net.state_dict()["fc.weight"], given["fc.weight"], atol=1e-6)
    assert len(again.changes) == 1  # what was cut stays cut
    assert again.record["defences"] == ["rolss"]  # which is said
    assert again.record["defence_settings"] == first.record["defence_settings"]
    capsys.readouterr()
    for more, said in (
        (["--defence", "rolss"], "cut already"),
        (["--defence", "tts", "--recipe.epochs", "2"], "cut already"),  # and not after an epoch
        (["--size", "16"], "leave --size out"),
        (["--mean", "0.5", "0.5", "0.5"], "leave --mean, --std and --entry out"),
        (["--architecture", "timm:resnet18"], "leave --architecture out"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["train", *mine, "--from", "a.safetensors", "--out", "d.safetensors", *short, *more])
        told = " ".join(capsys.readouterr().err.split())
        assert said in told
        assert "epoch 1" not in told
    cli.main(["train", *mine, "--out", "c.safetensors", *short])
    new = load("c.safetensors", made("mymodel.py:Net"))
    assert not torch.allclose(new.net.state_dict()["fc.weight"], given["fc.weight"], atol=1e-3)


def test_what_further_training_undoes_is_struck_and_said(tmp_path, caplog):
    small = "people 4 images 4 size 32 public_people 1 public_images 1 judge_images 1 validation_images 1 test_images 1"
    start = build("timm:resnet10t", 4, 32)
    start.record = {"defences": ["negls", "dp", "loft", "midre"], "privacy": {"epsilon": 8.0}}
    save(start, tmp_path / "a.safetensors")
    line = f"train --from {tmp_path}/a.safetensors --out {tmp_path}/b.safetensors --settings {small} --recipe.epochs 1"
    with caplog.at_level("WARNING", "lightleak"):
        cli.main([*line.split(), "--defence", "midre", "--device", "cpu"])
    assert "training undoes dp, negls, which" in caplog.text
    found = load(tmp_path / "b.safetensors")
    assert found.record["defences"] == ["loft", "midre"]
    assert "privacy" not in found.record
    assert defended_by(found) == ("loft", "midre")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--out", "x", "--weights", "w.pt"], "name it with --net"),
        (["train", "--out", "x", "--net", "mymodel.py:Net", "--from", "w.pt", "--weights", "w.pt"], "give one of them"),
        (["attack", "--out", "x"], "expected --target, or a network of your own with --net"),
        (["attack", "--out", "x", "--weights", "w.pt"], "expected --target, or a network"),
        (["attack", "--out", "x", "--net", "mymodel.py:Net", "--target", "a", "--weights", "b"], "not both"),
        (["attack", "--out", "x", "--net", "mymodel.py:Net", "--weights", "gone.pt"], "there are no weights gone.pt"),
        (["train", "--out", "x", "--net", "mymodel.py:Net", "--weights", "gone.pt"], "there are no weights gone.pt"),
        (["train", "--out", "x", "--from", "gone.pt"], "there are no weights gone.pt"),
        (["train", "--out", "x", "--from", "w.pt", "--size", "32"], "leave --size out"),
        (["train", "--out", "x", "--from", "w.pt", "--architecture", "timm:resnet18"], "leave --architecture out"),
        (["train", "--out", "x", "--net", "mymodel.py:Net", "--architecture", "timm:resnet18"], "--net says which"),
        (["skips", "mymodel.py:Net", "--weights", "gone.pt"], "there are no weights gone.pt"),
        (["skips", "a", "--net", "mymodel.py:Net", "--weights", "w.pt"], "give a checkpoint or --weights, not both"),
        (["skips", "mymodel.py:Net", "--net", "mymodel.py:Both"], "are two networks; give one of them"),
        (["skips"], "name a network: timm:NAME, FILE.py:NAME"),
        (["skips", "--weights", "w.pt"], "name a network: timm:NAME, FILE.py:NAME"),
        (["skips", "timm:resnet18", "--weights", "w.pt"], "timm:resnet18 is a library's network; --net, --weights"),
        (["evaluate", "--found", "x", "--out", "y", "--data", "digits"], "expected --judge"),
        (["convert", "w.pt", "--out", "x", "--output", "1"], "--output is of a network of your own"),
        (["convert", "w.pt", "--net", "mymodel.py:Net", "--out", "x", "--architecture", "timm:resnet18"], "takes size"),
    ],
)
def test_what_is_missing_is_said(arguments, said, folder, capsys):
    for name in ("x", "a", "b", "w.pt"):  # files that are not there are said before
        if name in arguments and "--out" not in arguments[arguments.index(name) - 1]:
            (folder / name).touch()
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
