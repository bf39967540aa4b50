"""Whole files of every kind that Lightleak reads, as small as they come, and the calls that read them."""

import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from lightleak import data, priors
from lightleak.attacks import Reconstruction
from lightleak.attacks.knowledge import Knowledge
from lightleak.metrics import attribute_regressor, evidence
from lightleak.metrics.evaluate import Evaluation, Reference
from lightleak.models import classifier, zoo
from lightleak.priors.fit import fit
from lightleak.priors.fit.wgan import WganGp

NET = "timm:test_resnet"
PEOPLE = {"people": 2, "images": 1, "size": 32, "public_people": 2, "public_images": 1, "validation_images": 1,
          "test_images": 1, "judge_images": 1}  # fmt: skip
FACES = ["--settings", *(str(part) for pair in PEOPLE.items() for part in pair)]
STUDY = f"""
from lightleak.attacks import Guess
from lightleak.study.tasks import Draw, Evaluate, Invert, Rendered, TrainJudge, TrainTarget
from lightleak.training import Recipe

def tasks():
    people, short = Draw("faces", {PEOPLE}), Recipe(epochs=1, batch=2, precision="float32")
    target = TrainTarget(people, "{NET}", short)
    return [Evaluate(Invert(target, Rendered(people), Guess(keep=1)), TrainJudge(people, "{NET}", short))]
"""
YAML = """seed: 42
model:
  architecture: resnet18
  num_classes: 2
  pretrained: true
dataset:
  type: facescrub
  image_size: 64
transformations:
  RandomResizedCrop:
    size: [64, 64]
    scale: [0.85, 1.0]
    ratio: [1.0, 1.0]
optimizer:
  Adam:
    lr: 0.001
    betas: [0.9, 0.999]
lr_scheduler:
  MultiStepLR:
    milestones: [75, 90]
    gamma: 0.1
training:
  num_epochs: 100
  batch_size: 128
"""


@dataclass(frozen=True)
class Kind:
    """Files of one kind below a folder, how they are damaged, and calls that read them."""

    name: str
    damage: str  # a key of WAYS
    files: tuple[str, ...]  # one of them is damaged at a time
    calls: tuple[list[str] | Callable[[], object], ...]  # arguments of the command line, or a call of the library


class Canary:
    """A pickle that would run a program."""

    def __reduce__(self):
        import os

        return os.system, ("touch canary",)


def make(home: Path) -> list[Kind]:
    """Write all originals below `home` and name what reads them; calls run with `home` as working folder."""
    torch.manual_seed(0)
    people = data.load("faces", **PEOPLE)
    net = zoo.build(NET, 2, 32)
    net.class_names, net.people = people.class_names, people.people
    classifier.save(net, home / "net.safetensors")
    shown = people.train.floats()
    Reconstruction(shown, people.train.labels, torch.zeros(2, 17), torch.ones(2)).save(home / "found.safetensors")
    small = WganGp(width=4, critic_width=4, latents=8, steps=1, critic_steps=1, batch=2)
    priors.save(fit(people.public, small, 0), home / "prior")
    width = net.features(shown).shape[1]
    Knowledge((net,), torch.zeros(width), torch.ones(width), (0.5,)).save(home / "knowledge")
    attribute_regressor.save(attribute_regressor.AttributeRegressor(4), home / "appraiser.safetensors")
    accuracy = evidence.wilson(1, 2)
    Reference(accuracy, people.train.labels, torch.zeros(2, 4)).save(home / "reference.safetensors")
    Evaluation((0, 1), 2, {"hits@1": accuracy}, {"hits@1": (0.0, 1.0)}, {}, {}, accuracy).save(home / "evaluation.json")
    return [
        Kind("checkpoint", "safetensors", ("net.safetensors",), (
            ["skips", "net.safetensors"],
            ["attack", "--target", "net.safetensors", "--out", "o.safetensors", "attack:guess"],
        )),
        Kind("reconstruction", "safetensors", ("found.safetensors",), (
            ["evaluate", "--found", "found.safetensors", "--judge", "net.safetensors", "--out", "e.json", *FACES],
        )),
        Kind("prior", "safetensors", ("prior/prior.safetensors",), (_prior(),)),
        Kind("prior's recipe", "json", ("prior/prior.json",), (_prior(),)),
        Kind("knowledge", "safetensors", ("knowledge/features.safetensors", "knowledge/student-0.safetensors"),
             (lambda: Knowledge.load("knowledge"),)),
        Kind("appraiser", "safetensors", ("appraiser.safetensors",),
             (lambda: attribute_regressor.load("appraiser.safetensors"),)),
        Kind("reference", "safetensors", ("reference.safetensors",),
             (lambda: Reference.load("reference.safetensors"),)),
        Kind("evaluation", "json", ("evaluation.json",), (lambda: Evaluation.load("evaluation.json"),)),
        *_records(home),
        *_foreign(home, net),
        *_pictures(home),
    ]  # fmt: skip


def _prior() -> list[str]:
    return ["attack", "--target", "net.safetensors", "--prior", "prior", "--out", "o.safetensors", "attack:guess"]


def _records(home: Path) -> list[Kind]:
    """A finished study and a folder with a record."""
    from lightleak.cli import main

    (home / "tiny.py").write_text(STUDY)
    main(["study", str(home / "tiny.py"), "--out", str(home / "study"), "--here", "1"])
    whole = [path.relative_to(home).as_posix() for path in sorted((home / "study").rglob("*")) if path.is_file()]
    results = Path(__file__).parents[2] / "results" / "lowres-faces" / "gmi"
    shutil.copytree(results, home / "records" / "gmi")
    results = [path for path in whole if path.endswith(".json")]
    tensors = [path for path in whole if path.endswith(".safetensors")]
    again = ["study", "tiny.py", "--out", "study", "--here", "1"]
    return [
        Kind("study's results", "json", tuple(results), (["report", "study"], [*again, "--status"])),
        Kind("study's tensors", "safetensors", tuple(tensors), (["report", "study"], [*again, "--dry-run"])),
        Kind("record", "json", ("records/gmi/record.json",), (["report", "records"],)),
    ]


def _foreign(home: Path, net: torch.nn.Module) -> list[Kind]:
    """What other projects wrote: torch files old and new, safetensors, pickles that would run something, settings."""
    state = {name: value.clone() for name, value in net.net.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, home / "new.pth")
    torch.save({"state_dict": state, "epoch": 3}, home / "old.tar", _use_new_zipfile_serialization=False)
    save_file(state, home / "plain.safetensors")
    (home / "evil.pkl").write_bytes(pickle.dumps({"G_ema": Canary(), "D": Canary()}))
    torch.save({"state_dict": state, "more": Canary()}, home / "evil.pth")
    (home / "train.yaml").write_text(YAML)
    as_net = ["--architecture", NET, "--size", "32"]

    def convert(name: str, *more: str, out: str = "c.safetensors") -> list[str]:
        return ["convert", name, "--out", out, *more]

    ours = (convert("train.yaml", out="c.json"), convert("train.yaml", out="c.py"))
    return [
        Kind("torch file", "zip", ("new.pth",), (convert("new.pth", *as_net), convert("new.pth"))),
        Kind("old torch file", "binary", ("old.tar",), (convert("old.tar", *as_net), convert("old.tar"))),
        Kind("hostile pickle", "binary", ("evil.pkl",), (convert("evil.pkl"),)),
        Kind("hostile torch file", "zip", ("evil.pth",), (convert("evil.pth", *as_net),)),
        Kind("foreign safetensors", "safetensors", ("plain.safetensors",), (convert("plain.safetensors", *as_net),)),
        Kind("settings", "text", ("train.yaml",), ours),
    ]


def _pictures(home: Path) -> list[Kind]:
    """A folder of people in every format, CelebA with its lists, names of classes."""
    rng = np.random.default_rng(0)
    formats = ("png", "jpg", "gif", "bmp", "webp", "tif", "ppm", "jp2")
    files = []
    for person in range(4):
        for number, suffix in enumerate(formats):
            path = home / "people" / f"p{person}" / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
            if not person:
                files.append(path.relative_to(home).as_posix())
    celeba = home / "celeba" / "img_align_celeba"
    celeba.mkdir(parents=True)
    for number in range(40):
        Image.fromarray(rng.integers(0, 256, (30, 24, 3), dtype=np.uint8)).save(celeba / f"{number:06d}.jpg")
    lines = [f"{number:06d}.jpg {number // 10}" for number in range(40)]
    (home / "celeba" / "identity_CelebA.txt").write_text("\n".join(lines))
    (home / "celeba" / "trainset.txt").write_text("\n".join(lines[:18]))
    (home / "celeba" / "testset.txt").write_text("\n".join(lines[18:20]))
    (home / "celeba" / "ganset.txt").write_text("\n".join(line.split()[0] for line in lines[20:]))
    (home / "names.txt").write_text("p0\np1\np3\n")
    lists = tuple(f"celeba/{name}" for name in ("identity_CelebA.txt", "trainset.txt", "testset.txt", "ganset.txt"))
    return [
        Kind("picture", "binary", tuple(files), (lambda: data.load("folder:people", size=16),)),
        Kind("list of pictures", "text", lists, (lambda: data.load("celeba:celeba", size=16),)),
        Kind("names of classes", "text", ("names.txt",),
             (lambda: data.load("folder:people", size=16, classes="names.txt"),)),
    ]  # fmt: skip


COMMANDS: tuple[list[str], ...] = (
    ["--help"],
    ["--version"],
    ["skips", "net.safetensors", "--size", "32", "--json"],
    ["skips", "timm:test_resnet", "--joins"],
    ["train", "--out", "t.safetensors", "--architecture", NET, "--recipe.epochs", "1", "--recipe.batch", "2",
     "--defence", "rolss", "--seed", "1", *FACES],
    ["attack", "--target", "net.safetensors", "--out", "o.safetensors", "--classes", "0", "--seed", "3", "attack:guess",
     "--attack.keep", "1"],
    ["evaluate", "--found", "found.safetensors", "--judge", "net.safetensors", "--out", "e.json", *FACES],
    ["fit", "--out", "p", "training:wgan", "--training.steps", "1", "--training.width", "4", *FACES],
    ["convert", "new.pth", "--out", "c.safetensors", "--architecture", NET],
    ["convert", "train.yaml", "--out", "c.json"],
    ["report", "study"],
    ["study", "tiny.py", "--out", "study", "--dry-run"],
    ["doctor", "--data", "folder:people", "--settings", "size", "16", "--architecture", NET],
)  # fmt: skip
TOKENS = (
    "", "-1", "0", "\u00b2", "9" * 400, "1e400", "nan", "inf", "--", "-", "--out", "--seed", "../..", "/dev/null",
    "/proc/self/mem", "/etc/passwd", "folder:", "timm:", "timm:*", "folder:people", "celeba:celeba", "net.safetensors",
    "people", "tiny.py", "evil.pkl", "a\x00b", "\udcff", "[1,", "{'a': 1}", "()", "None", "x" * 5000, "--help",
    "attack:ppa", "rolss,rolss", "faces", "\x1b[31m", "--settings", "absent.safetensors", "digits", "--recipe.epochs",
    "--attack.steps",
)  # fmt: skip
