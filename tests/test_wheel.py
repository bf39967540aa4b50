"""The wheel in a clean environment, without the repository: what a user has who says `pip install lightleak`."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def ran(there: Path, *arguments: str) -> str:
    """The command line of the installed wheel, away from the repository."""
    code = f"import sys; sys.path.insert(0, {str(there)!r}); from lightleak.cli import main; main(sys.argv[1:])"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"COLUMNS": "120"}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=there.parent, env=env, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_an_installed_wheel_has_the_studies_and_makes_a_page(wheel, tmp_path):
    there = tmp_path / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", there, wheel], check=True, timeout=300)
    assert "tasks to run" in ran(there, "study", "paper/tab2_stages", "--dry-run")
    study = tmp_path / "tiny.py"
    study.write_text(TINY)
    said = " ".join(ran(there, "study", str(study), "--here", "1", "--out", str(tmp_path / "out")).split())
    assert "LaTeX" in said.rsplit("page", 1)[-1]  # the last line names what was written
    assert "figures" in said.rsplit("page", 1)[-1]
    assert "<h1>" in (tmp_path / "out" / "report.html").read_text()


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
