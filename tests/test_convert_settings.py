"""YAML settings of PPA and RoLSS become ours: values, what is left out, what is refused, and files that run."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from lightleak import cli, data
from lightleak.attacks import PPA, PRESETS, Reconstruction
from lightleak.convert.settings import as_python, settings
from lightleak.convert.skips import Cuts
from lightleak.data.views import View
from lightleak.defences import SSF, NegLS, RoLSS
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.priors import RenderedPrior
from lightleak.study import load
from lightleak.surgery import find_skips
from lightleak.surgery.where import choose
from lightleak.training import RECIPES, Recipe

TRAINING = """
seed: 42
model:
  architecture: resnet101_skip
  num_classes: 530
  pretrained: true
  skip: [1, 1, 1, 0]
dataset:
  type: facescrub
  facescrub_group: all
  image_size: 224
transformations:
  RandomResizedCrop:
    size: [224, 224]
    scale: [0.85, 1.0]
    ratio: [1.0, 1.0]
  ColorJitter:
    brightness: 0.2
    contrast: 0.2
    saturation: 0.1
    hue: 0.1
  RandomHorizontalFlip:
    p: 0.5
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
  dataloader_num_workers: 8
  save_path: results
rtpt:
  experiment_name: x
  name_initials: XX
wandb:
  enable_logging: false
  args:
    project: x
"""

ATTACK = """
target_model:
  architecture: resnet101_skip
  num_classes: 530
  weights: target.pth
  skip: [1, 1, 1, 0]
evaluation_model:
  architecture: inceptionv3
  num_classes: 530
  weights: judge.pth
stylegan_model: ffhq.pkl
seed: 42
dataset: facescrub
candidates:
  num_candidates: 16
  candidate_search:
    search_space_size: 2000
    center_crop: 800
    resize: 224
    horizontal_flip: true
    batch_size: 25
    truncation_psi: 0.5
    truncation_cutoff: 8
attack:
  batch_size: 8
  num_epochs: 50
  targets: all
  discriminator_loss_weight: 0.0
  single_w: true
  clip: false
  transformations:
    CenterCrop:
      size: [800, 800]
    Resize:
      size: [224, 224]
      antialias: true
    RandomResizedCrop:
      size: [224, 224]
      scale: [0.9, 1.0]
      ratio: [1.0, 1.0]
  optimizer:
    Adam:
      lr: 0.005
      betas: [0.1, 0.1]
  lr_scheduler:
    MultiStepLR:
      milestones: [30, 40]
      gamma: 0.1
final_selection:
  samples_per_target: 8
  approach: transforms
  iterations: 100
wandb:
  enable_logging: false
  wandb_init_args:
    project: x
"""


def asked(text, tmp_path, *edits):
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return settings(file)


def test_a_training_of_rolss_is_our_recipe_of_it(tmp_path):
    found = asked(TRAINING, tmp_path)
    assert found.recipe == RECIPES["rolss"]
    assert found.defences == (RoLSS(),)
    assert (found.architecture, found.size, found.seed) == ("torchvision:resnet101", 224, 42)
    assert (found.data, found.reading) == ("facescrub:data/facescrub", (("size", 224),))
    assert dict(found.ignored).keys() == {
        "model.num_classes", "model.pretrained", "training.dataloader_num_workers",
        "training.save_path", "rtpt", "wandb",
    }  # fmt: skip
    assert all(found.ignored)


@pytest.mark.parametrize(
    ("edits", "defences"),
    [
        ([("[1, 1, 1, 0]", "[1, 1, 1, 1]")], ()),
        ([("[1, 1, 1, 0]", "[1, 1, 1, 0.2]")], (SSF(0.2),)),
        ([("[1, 1, 1, 0]", "[1, 0, 1, 1]")], (RoLSS("layer[2].*"),)),
        ([("[1, 1, 1, 0]", "[0, 0, 1, 1]")], (RoLSS("layer[12].*"),)),
        ([("resnet101", "densenet169"), ("[1, 1, 1, 0]", "[0, 1, 1, 1]")], (RoLSS("features.denseblock[1]*"),)),
        ([("resnet101", "convnext_tiny"), ("[1, 1, 1, 0]", "[0, 0, 0.5, 1]")], (RoLSS("features.[13].*"),)),
        (
            [("resnet101", "vit"), ("[1, 1, 1, 0]", f"[0, {', '.join('1' * 11)}]\n  mode: mlp")],
            (RoLSS("encoder.layers.encoder_layer_0.add_2"),),
        ),
        ([("save_path", "label_smoothing: -0.05\n  save_path")], (RoLSS(), NegLS(-0.05))),
    ],
)
def test_skip_factors_are_defences(edits, defences, tmp_path):
    assert asked(TRAINING, tmp_path, *edits).defences == defences


@pytest.mark.parametrize(
    ("architecture", "where", "count"),
    [
        ("resnet18", "layer[12].*", 4),
        ("densenet121", "features.denseblock[1]*", 6),
        ("convnext_tiny", "features.[13].*", 6),
    ],
)
def test_those_patterns_mean_the_stages(architecture, where, count):
    import torchvision

    net = getattr(torchvision.models, architecture)()
    assert len(choose(find_skips(net, torch.rand(2, 3, 64, 64)), where, architecture)) == count


def test_other_optimisers_and_schedules(tmp_path):
    found = asked(
        TRAINING,
        tmp_path,
        (
            "Adam:\n    lr: 0.001\n    betas: [0.9, 0.999]",
            "SGD:\n    lr: 1e-2\n    momentum: 0.9\n    weight_decay: 1e-4",
        ),
        (TRAINING[TRAINING.index("lr_scheduler") : TRAINING.index("training:\n")], ""),
        (TRAINING[TRAINING.index("  ColorJitter") : TRAINING.index("  RandomHorizontal")], ""),
    )
    view = View(scale=(0.85, 1.0), flip=0.5)
    assert found.recipe == Recipe(optimiser="sgd", rate=0.01, weight_decay=1e-4, milestones=(), view=view)


def test_an_attack_of_rolss(tmp_path):
    found = asked(ATTACK, tmp_path)
    assert found.attack == PPA(attempts=16, keep=8, milestones=(30, 40), cutoff=8)
    assert found.attack.batch == 8
    assert dict(found.prior) == {"crop": 800, "psi": 0.5, "space": "w", "cutoff": None, "clip": False}
    assert found.hints.cuts == Cuts((1, 1, 1, 0))
    assert found.files == ("ffhq.pkl", "target.pth", "judge.pth")
    assert found.classes == ()
    several = asked(ATTACK, tmp_path, ("targets: all", "targets: [3, 5]"), ("single_w: true", "single_w: false"))
    assert several.classes == (3, 5)
    assert (dict(several.prior)["space"], dict(several.prior)["cutoff"], several.attack.cutoff) == ("w+", 8, None)


CONFIGURATIONS = {  # of the papers' code: candidates, attempts, kept, steps, rate, whether it falls, batch, dogs
    "published": (2000, 200, 50, 50, 0.005, True, 25, False),
    "published-facescrub": (2000, 200, 50, 50, 0.005, False, 25, False),
    "published-celeba": (5000, 200, 50, 70, 0.005, False, 25, False),
    "published-metfaces": (5000, 200, 50, 70, 0.005, False, 20, False),
    "published-dogs": (2000, 200, 50, 100, 0.01, False, 25, True),
    "published-rolss": (2000, 16, 8, 50, 0.005, True, 8, False),
    "published-rolss-large": (2000, 16, 8, 50, 0.005, True, 16, False),
    "published-rolss-resnet18": (2000, 200, 50, 50, 0.005, True, 16, False),
    "published-rolss-celeba": (2000, 200, 50, 50, 0.005, True, 8, False),
    "published-rolss-dogs": (2000, 16, 8, 50, 0.01, True, 8, True),
    "published-rolss-dogs-resnest101": (2000, 200, 50, 100, 0.01, True, 16, True),
}


@pytest.mark.parametrize("name", [name for name in PRESETS["ppa"] if name.startswith("published")])
def test_a_published_preset_is_what_its_configuration_asks_for(name, tmp_path):
    """Read as a file of settings, and with the quirks that the code adds to every configuration."""
    candidates, attempts, keep, steps, rate, falls, batch, dogs = CONFIGURATIONS[name]
    falling = "  lr_scheduler:\n    MultiStepLR:\n      milestones: [30, 40]\n      gamma: 0.1\n"
    edits = [
        ("search_space_size: 2000", f"search_space_size: {candidates}"),
        ("num_candidates: 16", f"num_candidates: {attempts}"),
        ("samples_per_target: 8", f"samples_per_target: {keep}"),
        ("num_epochs: 50", f"num_epochs: {steps}"),
        ("lr: 0.005", f"lr: {rate}"),
        (falling, falling if falls else ""),
        ("  batch_size: 8", f"  batch_size: {batch}"),
    ]
    if dogs:
        cropped = "    CenterCrop:\n      size: [800, 800]\n"
        edits += [("center_crop: 800", "center_crop: null"), (cropped, ""), ("[0.9, 1.0]", "[0.75, 1.0]")]
    found, preset = asked(ATTACK, tmp_path, *edits), PRESETS["ppa"][name]
    assert replace(preset, shared=False, epsilon=1e-8) == found.attack
    assert (preset.batch, preset.shared, preset.epsilon) == (found.attack.batch, True, pytest.approx(batch * 1e-8))
    assert dict(found.prior)["crop"] == (None if dogs else 800)


@pytest.mark.parametrize(
    ("text", "old", "new", "told"),
    [
        (TRAINING, "seed: 42", "seed: 42\nsede: 1\nmodle:\n  x: 1", "unknown keys: sede, modle"),
        (TRAINING, "pretrained: true", "pretraind: true", "unknown keys: model.pretraind"),
        (TRAINING, "resnet101_skip", "resnet1001", "'resnet1001' is unknown"),
        (TRAINING, "resnet101_skip", "resnet101", "does not end in _skip"),
        (TRAINING, "[1, 1, 1, 0]", "[1, 0.5, 1, 0]", "two factors"),
        (TRAINING, "[1, 1, 1, 0]", "[1, 1, 0]", "no defence says"),
        (TRAINING, "[1, 1, 1, 0]", "[1, 1, 1, x]", "lists of numbers"),
        (TRAINING, "[1, 1, 1, 0]", "[1, 1, 1, 2]", "between 0 and 1"),
        (TRAINING, "facescrub\n", "imagenet\n", "'imagenet' is unknown"),
        (TRAINING, "group: all", "group: actors", "reads all of FaceScrub"),
        (TRAINING, "image_size: 224", "image_size: [224, 200]", "expected one side"),
        (TRAINING, "betas: [0.9, 0.999]", "betas: [0.5, 0.999]", "betas is [0.5, 0.999]; Lightleak has only"),
        (TRAINING, "lr: 0.001", "lr: fast", "are numbers"),
        (TRAINING, "Adam:", "RMSprop:", "RMSprop is unknown"),
        (TRAINING, "MultiStepLR", "CosineAnnealingLR", "CosineAnnealingLR is unknown"),
        (TRAINING, "[75, 90]", "75", "expected whole numbers"),
        (TRAINING, "RandomHorizontalFlip", "RandomErasing", "RandomErasing is unknown"),
        (TRAINING, "brightness: 0.2", "brightnes: 0.2", "unknown argument 'brightnes'"),
        (TRAINING, "scale: [0.85, 1.0]", "scale: 0.85", "expected two numbers"),
        (TRAINING, "num_epochs: 100", "num_epochs: many", "training.num_epochs is 'many', expected int"),
        (TRAINING, "num_epochs: 100", "num_epochs: true", "training.num_epochs is True, expected int"),
        (TRAINING, "  num_epochs: 100\n", "", "does not say training.num_epochs"),
        (TRAINING, "save_path", "label_smoothing: 0.1\n  save_path", "makes a model leak more"),
        (TRAINING, "model:", "molde:", "does not say model.architecture"),
        (ATTACK, "center_crop: 800", "center_crop: 700", "cropped to 700, but attacked at [800, 800]"),
        (ATTACK, "betas: [0.1, 0.1]", "betas: [0.9, 0.999]", "has only [0.1, 0.1]"),
        (ATTACK, "transforms", "confidence", "approach is unknown"),
        (ATTACK, "targets: all", "targets: some", "expected all, a class or a list"),
        (ATTACK, "samples_per_target: 8", "samples_per_target: 80", "keep <= attempts"),
        (ATTACK, "iterations: 100", "iteration: 100", "unknown keys: final_selection.iteration"),
        (ATTACK, "stylegan_model: ffhq.pkl", "", "does not say stylegan_model"),
        (ATTACK, "  num_candidates", "  candidate_file: x.pt\n  num_candidates", "candidate_file"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_an_error(text, old, new, told, tmp_path):
    with pytest.raises(UserError) as caught:
        asked(text, tmp_path, (old, new))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a: !!python/object/apply:os.system ['touch touched']", "no plain YAML"),
        (b"a: &a [x]\nb: *a", "uses aliases"),
        (b"a: 1\na: 2", "the key 'a' twice"),
        (b"[" * 5000, "no plain YAML"),
        (b"{" * 5000, "no plain YAML"),
        (b"a: [", "no plain YAML"),
        (b"\xff\xfe", "no plain YAML"),
        (b"? [a, b]\n: 1\n", "no plain YAML"),
        (b"- a", "holds no settings"),
        (b"", "holds no settings"),
        (b"a: 1", "neither 'training' nor 'attack'"),
        (b"training: 3", "does not say model.architecture"),
        (b"#" * 2**21, "larger than a settings file"),
    ],
)
def test_hostile_yaml(content, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(UserError) as caught:
        settings("x.yaml")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [left.name for left in tmp_path.iterdir()] == ["x.yaml"]


def test_a_training_becomes_a_study_that_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(TRAINING.replace("save_path", "label_smoothing: -0.05\n  save_path"))
    for person in range(4):
        folder = tmp_path / "data" / "facescrub" / ("actors", "actresses")[person % 2] / "faces" / f"person{person}"
        folder.mkdir(parents=True)
        for image in range(8):
            Image.new("RGB", (16, 16), (person * 60, image * 30, 0)).save(folder / f"{image}.png")
    cli.main(["convert", "config.yaml", "--out", "study.py"])
    told = capsys.readouterr().out
    assert "study.py: training of torchvision:resnet101" in told
    assert "model.pretrained: targets are trained from scratch" in told
    (task,) = load(tmp_path / "study.py")
    found = settings("config.yaml")
    assert (task.recipe, task.defences, task.architecture, task.seed) == (
        found.recipe, found.defences, "torchvision:resnet101", 42,
    )  # fmt: skip
    assert "model.pretrained" in (tmp_path / "study.py").read_text()
    population = data.load(task.population.source, **{**task.population.settings, "size": 16})
    assert (population.classes, population.size) == (4, 16)


def test_settings_as_json(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(ATTACK)
    cli.main(["convert", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "config.json")])
    found = json.loads((tmp_path / "config.json").read_text())
    assert (found["kind"], found["attack"]["attempts"], found["hints"]["cuts"]["skip"]) == ("attack", 16, [1, 1, 1, 0])
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["convert", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "config.txt")])
    assert "settings become a .py that runs or a .json" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "config.txt").exists()


def test_an_attack_becomes_a_program_that_runs(tmp_path, monkeypatch, capsys):
    """With a rendered prior and small networks in place of the published files."""
    monkeypatch.chdir(tmp_path)
    small = (
        ("  num_candidates: 16", "  num_candidates: 2"),
        ("search_space_size: 2000", "search_space_size: 8"),
        ("samples_per_target: 8", "samples_per_target: 1"),
        ("num_epochs: 50", "num_epochs: 2"),
        ("iterations: 100", "iterations: 2"),
        ("    truncation_cutoff: 8\n", ""),
        ("targets: all", "targets: [2, 0]"),
    )
    found = asked(ATTACK, tmp_path, *small)
    program: dict = {"__name__": "attack"}
    exec(compile(as_python(found, "config.yaml"), "attack.py", "exec"), program)
    assert (program["ATTACK"], program["HINTS"], program["CLASSES"]) == (found.attack, found.hints, (2, 0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 3))
    given, judged = [], []

    class Judge(Classifier):
        def forward(self, images):
            judged.append(images.shape[-1])
            return super().forward(images)

    def files(path, *hints, **usage):
        given.append((path, hints, usage))
        if path == "ffhq.pkl":
            return RenderedPrior(size=48)
        return (Judge if path == "judge.pth" else Classifier)(net, size=32, classes=3).eval()

    program["convert"] = files
    program["main"]()
    assert given == [
        ("ffhq.pkl", (), {"crop": 800, "psi": 0.5, "space": "w", "cutoff": None, "clip": False}),
        ("target.pth", (found.hints,), {}),
        ("judge.pth", (), {}),
    ]
    assert "2 images of 2 people; the judge names" in capsys.readouterr().out
    assert Reconstruction.load("reconstructions.safetensors").classes.tolist() == [2, 0]
    assert judged == [48]  # as 'lightleak evaluate' and PPA do: not enlarged from what the target saw
