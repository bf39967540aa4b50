"""The wheel in a clean environment, without the repository: what a user has who says `pip install lightleak`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from test_audit import world  # noqa: F401

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of what the repository holds, so that no build output is left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if names.returncode:
        pytest.skip("no git checkout here")
    for name in names.stdout.splitlines():
        if name.startswith(("src/", "studies/")) or name in ("pyproject.toml", "README.md", "LICENSE"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "hatchling" in done.stderr and "No module named" in done.stderr:
        pytest.skip("hatchling is not installed, and nothing is downloaded here")
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def there(wheel, tmp_path_factory) -> Path:
    """Where the wheel is installed, and nothing else."""
    place = tmp_path_factory.mktemp("installed") / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", place, wheel], check=True, timeout=300)
    return place


def ran(there: Path, *arguments: object, first: str = "") -> str:
    """The command line of the installed wheel, away from the repository."""
    code = (
        f"import sys; sys.path.insert(0, {str(there)!r}); import lightleak; "
        f"assert lightleak.__file__.startswith({str(there)!r}); {first}"
        "from lightleak.cli import main; main(sys.argv[1:])"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "120"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=there.parent, env=env, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_an_installed_wheel_has_the_studies_and_makes_a_page(there, tmp_path):
    assert "tasks to run" in ran(there, "study", "paper/tab2_stages", "--dry-run")
    study = tmp_path / "tiny.py"
    study.write_text(TINY)
    said = " ".join(ran(there, "study", str(study), "--here", "1", "--out", str(tmp_path / "out")).split())
    assert "LaTeX" in said.rsplit("page", 1)[-1]  # the last line names what was written
    assert "figures" in said.rsplit("page", 1)[-1]
    assert "<h1>" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_of_an_installed_wheel(there, tmp_path):
    said = ran(there, "demo", "--people", 4, "--workers", 1, "--out", tmp_path)
    assert "RoLSS" in said
    assert "<h1>" in (tmp_path / "report.html").read_text()


SMALLER = """
from dataclasses import replace
from lightleak.attacks import PPA
from lightleak.attacks.surrogate import Lessons
from lightleak.audit.ensemble import BUDGETS
attack = PPA(candidates=60, attempts=2, keep=1, steps=25, rate=0.05, views=4, batch=48)
lessons = Lessons(epochs=1, batch=64, pretrained=False)
small = {"attack": attack, "variants": {"PPA": attack}, "lessons": lessons, "student": "timm:test_resnet", "judges": ()}
BUDGETS["tiny"] = replace(BUDGETS["tiny"], **small)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_installed_wheel_audits_a_network_of_ones_own(there, world, tmp_path):  # noqa: F811
    said = ran(
        there, "audit", "--model", f"{world}/mine.py:make_model", "--weights", world / "knows.pt", "--size", 32,
        "--data", f"folder:{world}/people", "--private", "all", "--public", f"folder:{world}/others",
        "--classes", world / "names.txt", "--train-list", world / "trained-on.txt", "--fmr", 0.1,
        "--recogniser", f"{world}/mine.py:Colours", "--prior", "rendered", "--workers", 1, "--out", tmp_path,
        first=f"exec({SMALLER!r}); ",
    )  # fmt: skip
    assert "leak" in said
    assert "<h1>" in (tmp_path / "audit.html").read_text()
    assert "as recorded" in ran(there, "audit", "--verify", tmp_path)


TINY = """
from lightleak.attacks import Guess
from lightleak.study.comparison import Setting
from lightleak.study.tasks import source
from lightleak.training import Recipe

RECIPE = Recipe(epochs=1, batch=8, precision="float32")

def tasks():
    people = source("faces", people=4, images=4, size=32, public_people=4, public_images=2, judge_images=4,
                    validation_images=2, test_images=2)
    net = "timm:test_resnet"
    setting = Setting(people, net, RECIPE, judge=net, judge_recipe=RECIPE, attack=Guess(1))
    return [setting.evaluated(setting.target((), 0), {})]
"""


@pytest.mark.slow
def test_a_wheel_holds_every_study_and_every_template(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    for file in (ROOT / "studies").rglob("*.py"):
        assert f"lightleak/studies/{file.relative_to(ROOT / 'studies').as_posix()}" in inside
    for file in (ROOT / "src" / "lightleak").rglob("*.j2"):
        assert file.relative_to(ROOT / "src").as_posix() in inside
    assert not any("tests/" in name or name.endswith(".pyc") for name in inside)
