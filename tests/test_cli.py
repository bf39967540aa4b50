"""The command line: the main job on a tiny scale, and bad input of every kind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from conftest import tiny_classifier
from lightleak import cli
from lightleak.attacks import PPA, Reconstruction
from lightleak.cli import skips as cli_skips
from lightleak.data.views import View
from lightleak.defences import RoLSS
from lightleak.errors import UserError
from lightleak.metrics.evaluation import Evaluation
from lightleak.models.classifier import save
from lightleak.models.zoo import build
from lightleak.report import Results, write
from lightleak.report.collect import collect
from lightleak.study import Store, run
from lightleak.study import load as load_study
from lightleak.study.comparison import Setting, compare
from lightleak.study.tasks import source
from lightleak.study.tasks.judges import ready_judge
from lightleak.training import Recipe

SMALL = {
    "people": 8,
    "images": 10,
    "size": 32,
    "strength": 0.5,
    "noise": 0.02,
    "public_people": 8,
    "public_images": 14,
    "judge_images": 14,
    "validation_images": 3,
    "test_images": 6,
}
RECIPE = Recipe(epochs=12, batch=16, rate=2e-3, milestones=(0.8,), view=View(scale=(0.9, 1.0)), precision="float32")


def setting(**changes):
    values = {
        "population": source("faces", **SMALL),
        "architecture": "face:ir18-narrow",
        "recipe": RECIPE,
        "judge": "timm:resnet10t",
        "judge_recipe": RECIPE,
        "attack": PPA(candidates=60, attempts=2, keep=1, steps=10, rate=0.05, views=4),
    }
    return Setting(**{**values, **changes})


def call(*arguments):
    """Exit code of a call in this process."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The golden study: two targets on eight people, from images to a page."""
    root = tmp_path_factory.mktemp("study")
    tasks = compare(setting(), [(), (RoLSS(),)])
    failures = run(tasks, Store(root))
    assert not failures, next(iter(failures.values())).file.read_text()
    return root, tasks


def test_the_whole_path_in_a_band(study):
    root, tasks = study
    results = collect([Store(root).folder(task) for task in tasks], "golden")
    rows = {row.name: row.measures for row in results.rows}
    assert list(rows) == [
        "no defence", "RoLSS", "null: never optimised", "null: other people",
        "ceiling: real pictures", "chance",
    ]  # fmt: skip
    whole = rows["no defence"]
    assert whole["accuracy"].value > 0.75
    assert whole["hits@1"].value > rows["chance"]["hits@1"].value + 0.2
    assert whole["error"].value < 0.9
    assert rows["null: never optimised"]["hits@1"].value < 0.5
    assert 0.7 < rows["null: never optimised"]["error"].value < 1.2
    assert rows["chance"]["hits@1"].value == pytest.approx(1 / 8)
    for measures in (rows[name] for name in ("no defence", "RoLSS")):
        for name in ("accuracy", "hits@1", "hits@5", "true@1", "error", "verified"):
            assert measures[name].low <= measures[name].value <= measures[name].high
    surgery = dict(results.recipe["surgery"])
    assert surgery["no defence"] == []
    assert len(surgery["RoLSS"]) == 1


def test_a_second_run_reuses_everything(study):
    root, tasks = study
    seen = []
    began = time.process_time()  # others may be busy on this machine
    assert run(tasks, Store(root), listen=lambda event: seen.append(event.kind)) == {}
    assert set(seen) == {"reused"}
    assert time.process_time() - began < 2


def test_a_study_s_target_as_its_judge_is_said(study, tmp_path):
    root, tasks = study
    store = Store(shutil.copytree(root, tmp_path / "copy"))
    evaluation = tasks[0]
    assert not Reconstruction.load(store.folder(evaluation.found) / "reconstructions.safetensors").target  # as before
    for task, told in ((evaluation.found.target, 1), (evaluation.judge, 0)):
        judge = ready_judge(task.population, store.folder(task) / "target.safetensors")
        judged = replace(evaluation, judge=judge, nulls={})
        assert not run([judged], store)
        warnings = store.result(judged)["evaluation"]["warnings"]
        assert sum("the attacked model itself" in one for one in warnings) == told


def test_the_page_is_made_again(study):
    root, tasks = study
    assert call("report", root) == 2  # no study.json yet
    (root / "study.json").write_text(
        json.dumps({"title": "t", "command": "c", "evaluations": [task.key for task in tasks]})
    )
    assert call("report", root) == 0
    page = (root / "report.html").read_text()
    assert "RoLSS" in page
    assert "http-equiv" not in page
    assert (root / "record.json").is_file()


def test_the_record_says_how_the_numbers_came_about(study):
    root, tasks = study
    results = collect([Store(root).folder(task) for task in tasks], "golden")
    kinds = ("Draw", "TrainTarget", "TrainJudge", "Rendered", "Score", "Invert", "MeasurePrivate", "Evaluate")
    made = [json.loads(file.read_text()) for kind in kinds for file in root.glob(f"{kind}/*/made.json")]
    assert results.seconds == pytest.approx(sum(one["seconds"] for one in made))
    assert results.versions == made[0]["versions"]
    assert results.device == made[0]["device"]
    assert results.machine == made[0]["machine"]
    assert results.commit == made[0]["commit"]  # of this checkout; nothing where it is none
    assert all(one["bytes"] > 0 for one in made)
    assert len(results.recipe["judge"]["sha256"]) == 64
    assert results.protocol == "no named protocol"
    assert Results.from_json(results.to_json()).commit == results.commit


def test_numbers_counted_differently_refuse_to_share_a_table(study, tmp_path, capsys):
    root, tasks = study
    folder = tmp_path / "Evaluate"
    shutil.copytree(root / "Evaluate", folder)
    changed = folder / tasks[1].key / "result.json"
    told = json.loads(changed.read_text())
    told["protocol"] = {"name": "celeba-300x5", "version": 1}
    changed.write_text(json.dumps(told))
    folders = [folder / task.key for task in tasks]
    with pytest.raises(UserError, match=r"result.json is damaged \(.*\); run the study again"):
        collect(folders, "mixed")
    (folder / tasks[1].key / "made.json").unlink()  # it says what was written
    with pytest.raises(UserError, match=r"do not compare \(no named protocol: no defence; celeba-300x5 v1: R"):
        collect(folders, "mixed")
    results = collect(folders, "mixed", mixed_protocols=True)
    assert results.warnings[0] == "counted differently, and so not comparable: no named protocol; celeba-300x5 v1"
    about = {"title": "t", "command": "c", "evaluations": [task.key for task in tasks]}
    (tmp_path / "study.json").write_text(json.dumps(about))
    assert call("report", tmp_path) == 2
    assert "ask for it with --mixed-protocols" in capsys.readouterr().err
    assert call("report", tmp_path, "--mixed-protocols") == 0
    # Another judge is another way to count, too.
    del told["protocol"]
    told["judge"]["sha256"] = "0" * 64
    changed.write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"judge timm:resnet10t 00000000: RoLSS"):
        collect(folders, "mixed")


def test_one_page_over_all_records(study, tmp_path):
    root, tasks = study
    results = collect([Store(root).folder(task) for task in tasks], "golden <b>")
    write(results, tmp_path / "results" / "golden" / "hard", show_private=True)
    (tmp_path / "results" / "golden" / "README.md").write_text("# What it says\n\nMuch.")
    (tmp_path / "results" / "README.md").write_text("# Results\n\nnot an entry")
    (tmp_path / "results" / "speed.md").write_text("# The <engine>\n\nFast **enough**.\n")
    assert call("report", tmp_path / "results") == 0
    page = (tmp_path / "results" / "index.html").read_text()
    for said in (
        "golden &lt;b&gt;",
        "The &lt;engine&gt;",
        "Fast enough.",
        "golden/hard/report.html",
        "golden/README.md",
    ):
        assert said in page
    for hidden in ("not an entry", "<b>RoLSS", "<script", "http:", "https:", " src="):
        assert hidden not in page
    for address in re.findall('href="([^"#]+)"', page):
        assert address == "data:," or (tmp_path / "results" / address).is_file()
    assert page.count("<article") == 2
    (tmp_path / "results" / "golden" / "hard" / "record.json").write_text("{")
    assert call("report", tmp_path / "results") == 2


STEPS = """
from dataclasses import dataclass, field
from lightleak.study import Task

@dataclass(frozen=True)
class Step(Task):
    number: int
    above: tuple[Task, ...] = ()
    cost = 30.0

    def run(self, store, folder, watch):
        (folder / "file").write_text("x" * 1_500_000)
        if self.number == 2:
            raise ValueError("on purpose")
        return {}

def tasks():
    first = Step(1)
    yield from (first, Step(2, (first,)), Step(3, (Step(2, (first,)),)), Step(4))
"""


def test_a_study_tells_what_it_would_do_and_how_it_stands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("steps.py").write_text(STEPS)

    def said(*arguments, code=0):
        assert call("study", *arguments) == code
        out = capsys.readouterr()
        return " ".join((out.out + out.err).split())

    before = said("steps.py", "--dry-run", "--here", "2")
    assert "4 tasks to run, 0 found done" in before
    assert "time: about 1:30 min on 2 processes; disk: unknown" in before  # the chain of three, not the half of four
    assert not Path("runs").exists()
    new = said("status", "steps.py")
    assert "0 tasks done, 4 not" in new
    assert "a guess, as none has run yet" in new
    assert "ValueError: on purpose" in said("steps.py", "--here", "1", code=2)
    after = said("status", "steps.py", "--here", "1")
    assert "2 tasks done, 2 not" in after
    assert "│ Step │ 2 │ 1 │ 1 │" in after
    assert "ValueError: on purpose" in after
    traceback = re.search(r"\S*runs/steps/failed/Step-\w+\.txt", after)
    assert traceback is not None
    assert "on purpose" in Path(traceback.group()).read_text()
    assert "time left: about" in after
    assert "a guess" not in after
    assert "disk: about 3.0 MB more" in said("steps.py", "--dry-run")
    store = Store(Path("runs/steps"))
    note = store.working(load_study("steps.py")[0])
    now = time.time()
    told = {
        "key": "k",
        "label": "a [step]",
        "machine": "m",
        "since": now - 125,
        "seen": now - 90,
        "step": 1,
        "total": 4,
    }
    note.write_text(json.dumps(told))
    assert "▸ a [step], 25%, for 2:05 min on m, silent for 1:30 min" in said("status", "steps.py")
    assert "give --ray or --slurm, not both" in said("steps.py", "--ray", "auto", "--slurm", "x", code=2)


def test_the_same_command_gives_the_same_numbers(study, tmp_path):
    root, tasks = study
    found = compare(setting())[0].found
    assert not run([found], Store(tmp_path))
    assert Store(root).result(tasks[0].found) == Store(tmp_path).result(found)
    first, second = (found.load(store) for store in (Store(root), Store(tmp_path)))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.confidence, second.confidence)


def test_single_steps(tmp_path, capsys):
    settings = [part for name in ("people", "size", "images") for part in (name, SMALL[name])]
    data = ["--settings", *settings, "judge_images", 6, "public_people", 2]
    recipe = ["--recipe.epochs", 2, "--recipe.batch", 16]
    target, judge, found = (tmp_path / f"{name}.safetensors" for name in ("target", "judge", "found"))
    assert call("train", "--out", target, "--architecture", "timm:resnet10t", "--defence", "ssf", *recipe, *data) == 0
    assert call("train", "--out", judge, "--architecture", "timm:resnet14t", "--judge", *recipe, *data) == 0
    attack = ["attack:ppa", "--attack.candidates", 8, "--attack.attempts", 1, "--attack.keep", 1, "--attack.steps", 2]
    assert call("attack", "--target", target, "--out", found, "--classes", 0, 3, *attack) == 0
    smoke = ["attack", "--target", target, "--out", found, "--preset", "smoke", "--classes", 1]
    assert call(*smoke, "--precision", "bfloat16") == 0
    assert call(*smoke, *attack) == 2
    assert call(*smoke[:-4], "--preset", "smokes") == 2
    out = tmp_path / "evaluation.json"
    assert call("evaluate", "--found", found, "--judge", judge, "--out", out, *data) == 0
    assert json.loads(out.read_text())["scored"] == {"protocol": None, "fed": "float", "published": False}
    assert Evaluation.load(out).scored["fed"] == "float"
    counted = ("--protocol", "rendered", "--fed-8-bit")
    assert call("evaluate", "--found", found, "--judge", judge, "--out", out, *data, *counted) == 2
    measures = json.loads(out.read_text())["measures"]
    assert measures["error"]["value"] > 0
    said = capsys.readouterr().out
    assert "natural accuracy" in said
    assert "attacked model itself" not in said
    assert "no student was given (--student): KES" in said
    assert said.count("no feature network was given (--inception): FID, precision") == 1
    given = ("--found", found, "--judge", target, "--out", out, "--null", found)
    assert call("evaluate", *given, *data) == 0
    assert sum("the attacked model itself" in one for one in json.loads(out.read_text())["warnings"]) == 1
    said = capsys.readouterr().out
    assert "the attacked model itself" in said
    assert "┃ null" in said
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors", ".safetensors", ".safetensors"]


@pytest.mark.parametrize("verb", ["train", "attack", "fit"])
def test_help_holds_no_remarks_to_linters_and_describes_every_choice(verb, capsys):
    choices = {"train": (), "attack": ("attack:ppa",), "fit": ()}[verb]
    for arguments in ((), choices):
        with pytest.raises(SystemExit):
            cli.main([verb, *arguments, "--help"])
        said = capsys.readouterr().out
        assert "noqa" not in said
    described = {"fit": "small and quick", "attack": "as it judges attempts", "train": "Defences"}
    assert described[verb] in said


def test_a_prior_made_for_another_target_is_refused(tmp_path, capsys):
    """Two networks of the same people: what one taught a generator says nothing of the other."""
    for number in range(2):
        torch.manual_seed(number)
        save(build("face:ir18-narrow", 4, 32), tmp_path / f"{number}.safetensors")
    data = ["--settings", "size", 32, "people", 4, "images", 1, "public_people", 4, "judge_images", 1, "test_images", 1]
    short = ["--training.steps", 1, "--training.warmup", 0, "--training.width", 4, "--training.batch", 4]
    folder, found = tmp_path / "prior", tmp_path / "found.safetensors"
    assert call("fit", "--target", tmp_path / "0.safetensors", "--out", folder, *data, "training:kedmi", *short) == 0
    attack = ["--prior", folder, "--out", found, "--classes", 0, "attack:kedmi", "--attack.attempts", 1]
    assert call("attack", "--target", tmp_path / "0.safetensors", *attack, "--attack.steps", 1) == 0
    capsys.readouterr()
    assert call("attack", "--target", tmp_path / "1.safetensors", *attack, "--attack.steps", 1) == 2
    assert "made for another target" in " ".join(capsys.readouterr().err.split())


def test_places_that_cannot_be_written_are_said_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lightleak.cli.train.population_of", None)  # not even data are read
    monkeypatch.setattr("lightleak.cli.fit.population_of", None)
    (tmp_path / "file").write_text("")
    for arguments in (
        ("train", "--out", tmp_path),
        ("train", "--out", tmp_path / "file" / "x.safetensors"),
        ("fit", "--out", tmp_path / "file"),
    ):
        assert call(*arguments) == 2
        told = capsys.readouterr().err
        assert "cannot be written in" in told or "is a folder; name a file" in told.replace("\n", " ")
        assert "Traceback" not in told


def test_public_images_train_no_classifier_and_people_alone_no_prior(tmp_path, capsys):
    values = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)
    for number, pixels in enumerate(values):
        place = (
            "metfaces/images" if number < 4 else f"facescrub/{('actors', 'actresses')[number % 2]}/faces/{number % 4}"
        )
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / place / f"{number}.png")
    size = ("--settings", "size", 16)
    assert call("train", "--data", f"metfaces:{tmp_path / 'metfaces'}", "--out", tmp_path / "t", *size) == 2
    assert "has public images only" in capsys.readouterr().err
    assert call("fit", "--data", f"facescrub:{tmp_path / 'facescrub'}", "--out", tmp_path / "p", *size) == 2
    assert "no public images: add --settings public ffhq:PATH" in capsys.readouterr().err


def test_skips_as_table_and_json(capsys):
    assert call("skips", "timm:resnet18", "--size", 64, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 8
    assert rows[-1]["stage"] == 4
    assert call("skips", "timm:resnet18", "--size", 64) == 0
    assert "stage 4: 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["skips", "timm:resnet19"], "did you mean"),
        (["skips", "nothing.safetensors"], "there is no checkpoint"),
        (["train", "--out", "x", "--architecture", "timm:nope"], "no model"),
        (["train", "--out", "x", "--data", "celebrities"], "choose one of faces"),
        (["train", "--out", "x", "--defence", "magic"], "choose from none, rolss"),
        (["train", "--out", "x", "--defence", "rols"], "did you mean rolss"),
        (["train", "--out", "x", "--data", "folders:x"], "did you mean folder?"),
        (["train", "--out", "x", "--settings", "peple", "4"], "did you mean people?"),
        (["study", "demo_face"], "did you mean demo_faces?"),
        (["train", "--out", "x", "--settings", "people", "1"], "people must be"),
        (["train", "--out", "x", "--settings", "heads", "2"], "no setting heads"),
        (["attack", "--target", "nothing", "--out", "x"], "there is no checkpoint"),
        (["study", "nothing.py"], "there is no study"),
        (["report", "nothing"], "there is no folder"),
        (["convert", "nothing.pkl", "--out", "x"], "there is no file nothing.pkl"),
        (["convert", __file__, "--out", "x"], "is not what torch.save writes"),
        (["demo", "--data", "folder:nothing"], "nothing"),
        (["demo", "--workers", "0"], "--workers must be at least 1"),
        (["demo", "--people", "10"], "people"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call(*arguments) == 2
    told = capsys.readouterr().err
    assert message in " ".join(told.split())
    assert "Traceback" not in told
    leftovers = [p for p in tmp_path.rglob("*") if p.is_file() and "failed" not in p.parts and p.parent.name != "cache"]
    assert not leftovers


def test_a_folder_with_one_class(capsys, tmp_path):
    (tmp_path / "photos" / "anna").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (40, 40), (number * 50, 0, 0)).save(tmp_path / "photos" / "anna" / f"{number}.png")
    assert call("demo", "--data", f"folder:{tmp_path / 'photos'}", "--out", tmp_path / "out") == 2
    assert "4" in capsys.readouterr().err


def test_a_checkpoint_of_another_network(capsys, tmp_path):
    path = save(tiny_classifier(), tmp_path / "own.safetensors")
    assert call("skips", path) == 2
    assert "net=" in capsys.readouterr().err


def test_unwritable_output(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert call("demo", "--out", tmp_path / "file" / "deep") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_is_130_and_a_rerun_continues(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}
    command = [sys.executable, "-m", "lightleak", "demo", "--people", "4", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    while not list(tmp_path.glob("out/TrainTarget/.*")):
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    told = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert not list(tmp_path.glob("out/*/.*"))
    done = list(tmp_path.glob("out/Draw/*/result.json"))
    assert done
    stamp = done[0].stat().st_mtime
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert done[0].stat().st_mtime == stamp
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_pattern_lists_names(capsys):
    assert call("skips", "face:ir*") == 0
    assert capsys.readouterr().out.split() == ["face:ir152", "face:ir18-narrow", "face:ir50"]
    assert call("skips", "face:zzz*") == 2
    assert "no model of face fits 'zzz*'" in capsys.readouterr().err


def test_a_narrow_terminal_shows_whole_names(capsys, monkeypatch):
    monkeypatch.setattr(cli_skips, "console", Console(width=80))
    assert call("skips", "torchvision:densenet121", "--size", 64) == 0
    printed = capsys.readouterr().out
    assert "features.denseblock4.denselayer16.cat" in printed
    assert max(map(len, printed.splitlines())) <= 80
