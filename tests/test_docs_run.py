"""Every Python block of the README and of the documentation runs, those of a page together and in their order.

What a page takes for granted ("a trained target", "the file ffhq.pkl") is its set-up here; `SMALLER` says which sizes,
paths and devices a test replaces. A page with a new block that needs nothing needs no line here.
"""

import ast
import importlib
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import timm
import torch
from safetensors.torch import save_file

import test_foreign
import test_published
import test_report_study
from conftest import TINY, TinyNet, tiny_classifier
from lightleak import priors
from lightleak.attacks import PPA, VMI, Access, Attack, Found, Guess, Oracle
from lightleak.attacks import ppa as ppa_module
from lightleak.data import celeba
from lightleak.defences import RoLSS
from lightleak.metrics.evaluate import evaluate
from lightleak.metrics.evaluation import Evaluation
from lightleak.models.classifier import save
from lightleak.models.zoo import build
from lightleak.priors import RenderedPrior
from lightleak.report.study import NOTE
from lightleak.study.tasks import source
from lightleak.training import train
from test_convert import resnet, rolss, written
from test_stylegan2 import small_prior

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += sorted((ROOT / "examples").rglob("*.md"))
FENCE = re.compile(r"^```python[^\n]*\n(.*?)^```", re.M | re.S)
ELSEWHERE = {"docs/where-you-work.md"}  # tests/test_where_you_work.py: block by block, some of them slow
SLOW = {"docs/cluster.md"}  # starts a cluster


def blocks(page: Path) -> list[str]:
    """The page's Python blocks, each behind so many empty lines that tracebacks name the page's own."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text[: found.start(1)].count("\n") + found[1] for found in FENCE.finditer(text)]


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


WITH_CODE = [page for page in PAGES if blocks(page)]

# page: what is written there, what a test runs; each must be found
SMALLER: dict[str, dict[str, str]] = {
    "README.md": {'"resnet18"': '"resnet10t"', "224, 224": "64, 64"},
    "docs/index.md": {'"resnet18"': '"resnet10t"', "224, 224": "64, 64"},
    "docs/surgery.md": {'"resnet50"': '"resnet26t"'},
    "docs/attacks/ppa.md": {"torch.arange(530)": "torch.arange(2)"},
    "docs/cluster.md": {'"10.0.0.5:6379"': '"local"', '"/shared/mine"': '"shared"'},
    "docs/convert.md": {"crop=800": "crop=6"},
    "docs/data.md": {
        "/home/me/pictures": "pictures",
        "/data/celeba": "celeba",
        "people=40, size=64": "people=4, images=2, size=32",
    },
    "docs/gpu.md": {'"cuda"': '"cpu"'},
    "docs/rendered-world.md": {"people=40, size=64": "people=4, size=32", "size=128": "size=32", "112": "32"},
    "docs/studies.md": {"run(tasks, store, workers=2": "run(tasks, store, workers=1"},
}


@dataclass
class World:
    """What the set-ups are made of."""

    population: Any
    target: Any
    judge: Any
    monkeypatch: pytest.MonkeyPatch
    prior: RenderedPrior = field(default_factory=lambda: RenderedPrior(size=32))

    def found(self, attack: Attack, **options: Any) -> Any:
        rng = torch.Generator().manual_seed(0)
        return attack.run(Oracle(self.target), self.prior, torch.arange(3), rng, **options)

    def measured(self, found: Any) -> Evaluation:
        return evaluate(found, self.judge, self.population, factors=self.prior.factors_of)


QUICK = PPA(candidates=32, attempts=2, keep=2, steps=2, views=2)


def needs_gradients(_: World) -> dict[str, Any]:
    return {"net": TinyNet().eval(), "images": torch.rand(4, 3, 32, 32), "labels": torch.arange(4)}


def needs_evaluation(world: World) -> dict[str, Any]:
    return {
        "attack": QUICK,
        "oracle": Oracle(world.target),
        "prior": world.prior,
        "classes": torch.arange(3),
        "rng": torch.Generator().manual_seed(0),
        "judge": world.judge,
        "population": world.population,
        "guessed": world.found(Guess(2)),
        "other": world.measured(world.found(QUICK)),
        "Evaluation": Evaluation,
    }


def needs_report(world: World) -> dict[str, Any]:
    found = world.found(QUICK)
    measured = world.measured(found)
    picture = found.pixels[0].permute(1, 2, 0).numpy()
    for task, target in (("a", "none"), ("b", "RoLSS")):
        test_report_study.evaluated(Path("runs/mine"), task, title=target, evaluation=measured)
        nobody = {
            "classes": torch.zeros(0, dtype=torch.long),
            "private": torch.zeros(0),
            "reconstructed": torch.zeros(0),
        }
        save_file(nobody, f"runs/mine/Evaluate/{task}/gallery.safetensors")
    note = {"title": "Mine", "command": "lightleak study mine.py", "evaluations": ["a", "b"]}
    Path("runs/mine", NOTE).write_text(json.dumps(note))
    return {"plain": measured, "rolss": measured, "found": found, "private_image": picture, "image": picture}


def needs_defence(world: World) -> dict[str, Any]:
    recipe = replace(TINY, epochs=1)
    return {"classifier": tiny_classifier(), "population": world.population, "recipe": recipe, "train": train}


def needs_mid(world: World) -> dict[str, Any]:
    from lightleak.defences import MID

    recipe = replace(TINY, epochs=1)
    population = world.population
    target = train(tiny_classifier(), population.train, population.validation, recipe, MID().plan(recipe))
    return {"target": target}


def needs_traps(_: World) -> dict[str, Any]:
    from lightleak.models import traps

    classifier = tiny_classifier()
    change = {"kind": traps.KIND, "size": 32, "classes": 6}
    return {"trained": classifier.with_net(traps.attach(classifier.net, change), change=change)}


def needs_model(world: World) -> dict[str, Any]:
    return {"model": world.target, "images": world.population.train, "validation": world.population.validation}


def needs_comparing(_: World) -> dict[str, Any]:
    return {"population": source("faces", people=6), "defences": [(), (RoLSS(),)]}


def needs_attack(_: World) -> dict[str, Any]:
    names = (dataclass, field, Attack, Access, ClassVar, Found, torch)
    return {getattr(name, "__name__", str(name)): name for name in names} | {"ClassVar": ClassVar, "Access": Access}


def needs_ffhq(world: World) -> dict[str, Any]:
    priors.save(small_prior(), "ffhq")
    presets = {"rolss": replace(QUICK, keep=1)}
    world.monkeypatch.setattr(ppa_module, "PRESETS", presets)
    return {"target": world.target, "torch": torch, "replace": replace}


def needs_samples(world: World) -> dict[str, Any]:
    world.found(VMI(steps=2, attempts=2)).save("found.safetensors")
    return {"prior": world.prior, "torch": torch}


def needs_foreign_files(world: World) -> dict[str, Any]:
    test_foreign.modules.__wrapped__(world.monkeypatch)
    Path("ffhq.pkl").write_bytes(test_foreign.dumped(test_foreign.whole()))
    state = rolss(resnet().state_dict())
    written(state, Path("Classifier_0.9138_Epoch_99.pth"), new=True)
    Path("mymodel.py").write_text("import timm\n\n\ndef make_model():\n    return timm.create_model('test_resnet')\n")
    torch.save(timm.create_model("test_resnet").state_dict(), "w.pt")
    return {}


def needs_pictures(world: World) -> dict[str, Any]:
    for person in range(5):
        for number in range(8):
            test_published.noise(Path("pictures", f"person {person}", f"{number}.png"), 10 * person + number)
    test_published.aligned.__wrapped__(Path.cwd(), world.monkeypatch)
    assert celeba.OFTEN == 6
    return {}


def needs_target_file(_: World) -> dict[str, Any]:
    import lightleak

    save(build("timm:test_resnet", 6, 32), "target.safetensors")
    return {"lightleak": lightleak}


STUDY = """
from lightleak.report.study import NOTE
from lightleak.study.tasks import source

def tasks():
    return [source("faces", people=4, images=1, size=32, public_people=1, public_images=1, judge_images=1)]
"""


def needs_study(_: World) -> dict[str, Any]:
    Path("studies").mkdir()
    Path("studies/mine.py").write_text(STUDY)  # the page's own takes 20 minutes
    from lightleak.study import Task
    from lightleak.study.tasks import Draw

    return {"dataclass": dataclass, "field": field, "Task": Task, "Draw": Draw}


def needs_prior(_: World) -> dict[str, Any]:
    prior, rng = small_prior(), torch.Generator().manual_seed(0)
    latents = prior.sample(2, rng)
    return {"prior": prior, "count": 2, "rng": rng, "latents": latents, "images": prior.decode(latents)}


SET_UPS: dict[str, Callable[[World], dict[str, Any]]] = {
    "docs/attacks/index.md": needs_attack,
    "docs/attacks/ppa.md": needs_ffhq,
    "docs/attacks/vmi.md": needs_samples,
    "docs/cluster.md": needs_study,
    "docs/convert.md": needs_foreign_files,
    "docs/data.md": needs_pictures,
    "docs/defences/comparing.md": needs_comparing,
    "docs/defences/dp.md": needs_defence,
    "docs/defences/mid.md": needs_mid,
    "docs/defences/retrofit.md": needs_model,
    "docs/defences/transfer.md": needs_defence,
    "docs/defences/trapmid.md": needs_traps,
    "docs/gpu.md": needs_target_file,
    "docs/gradients.md": needs_gradients,
    "docs/metrics.md": needs_evaluation,
    "docs/priors.md": needs_prior,
    "docs/report.md": needs_report,
    "docs/studies.md": needs_study,
    "docs/stylegan2.md": needs_ffhq,
}


def test_every_set_up_belongs_to_a_page():
    assert {*SET_UPS, *SMALLER, *SLOW, *ELSEWHERE} <= {title(page) for page in WITH_CODE}
    assert len(WITH_CODE) >= 20


def marked(page: Path) -> Any:
    return pytest.param(page, id=title(page), marks=[pytest.mark.slow] * (title(page) in SLOW))


@pytest.mark.parametrize("page", [marked(page) for page in WITH_CODE if title(page) not in ELSEWHERE])
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch, tiny_population, tiny_target, tiny_judge):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT / "tests"), *sys.path])
    if title(page) == "docs/cluster.md":
        pytest.importorskip("ray")
    world = World(tiny_population, tiny_target, tiny_judge, monkeypatch)
    set_up = SET_UPS.get(title(page))
    namespace = {"__name__": "docs", **(set_up(world) if set_up else {})}
    monkeypatch.setitem(sys.modules, "docs", SimpleNamespace(__dict__=namespace))  # where dataclasses look names up
    smaller = SMALLER.get(title(page), {})
    code = blocks(page)
    for written_there in smaller:
        assert any(written_there in block for block in code), f"{title(page)} no longer says {written_there}"
    for block in code:
        for written_there, here in smaller.items():
            block = block.replace(written_there, here)
        exec(compile(block, title(page), "exec"), namespace)


@pytest.mark.parametrize("page", WITH_CODE, ids=title)
def test_lightleak_is_imported_before_the_zoos(page):
    """Where torch is built for CPUs alone, torchvision fails unless Lightleak came first."""
    for block in blocks(page):
        names = []
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                names += [(node.lineno, node.col_offset, alias.name.split(".")[0]) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names.append((node.lineno, node.col_offset, str(node.module).split(".")[0]))
        order = [name for _, _, name in sorted(names, key=lambda it: it[:2])]
        zoos = [order.index(zoo) for zoo in ("timm", "torchvision", "transformers") if zoo in order]
        assert not zoos or "lightleak" not in order or order.index("lightleak") < min(zoos)


MEMBERS = re.compile(r"^::: (\S+)\n(?:    options:\n(?:      \w.*\n)*?      members: \[(.*)\])?", re.M)


@pytest.mark.parametrize("page", [page for page in PAGES if "\n::: " in page.read_text()], ids=title)
def test_what_a_page_documents_exists(page):
    """A name that is gone would vanish from the page without a word."""
    for module, members in MEMBERS.findall(page.read_text()):
        gone = set(filter(None, members.split(", "))) - {"true", *vars(importlib.import_module(module))}
        assert not gone, f"{title(page)}: {module} has no {', '.join(gone)}"
