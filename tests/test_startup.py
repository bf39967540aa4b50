"""Help, version and wrong command lines are answered without anything heavy, and as the verbs would answer."""

import contextlib
import importlib
import importlib.util
import io
import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path

import pytest
import tyro

from lightleak import cli
from lightleak.attacks import OURS
from lightleak.cli.outline import checked, described
from lightleak.cli.sources import REFUSED, Reader
from lightleak.errors import UserError
from lightleak.models import named, zoo
from lightleak.priors.fit import TRAININGS
from lightleak.version import __version__

RIGHT = [
    "demo --data folder:x --people 8",
    "skips timm:resnet18 --size 64 --json",
    "train --out x --recipe.epochs 2 --recipe.view.scale 0.5 1.0 --settings people 4 size 32 --judge",
    "train --out=x --recipe.batch=3 --device cuda:1",
    "protect --target x --out y --defence ssf --keep-accuracy 0.98 --data folder:z --epochs 2",
    "train --net m.py:Net --from w.pt --out x",
    "fit --out y --target x training:kedmi --training.steps 5",
    "convert f.pth --out x --crop 5 --students a b --architecture timm:resnet18 --noise none",
    "attack --target x --out y --classes 0 3 attack:ppa --attack.steps 2",
    "attack --target x --out y --distillation.students a b --seed 3",
    "evaluate --found a --judge b --out c --no-published",
    "study a.py --here 2 --slurm-options a b --dry-run",
    "study a.py --slurm_options a b --mixed_protocols",
    "report x --show-private",
    "raters x --seconds 20 --results",
    "doctor --preset rolss --json",
    "attack --out y --target x attack:gmi --attack.rate 0.1 attack.alignment:alignment --attack.alignment.copies 3",
    "attack --out y --target x attack:miface --attack.process none",
    "fit --out y training:wgan-published --training.betas 0 0.9",
    "train --out x --recipe.milestones 0.5 --recipe.view.flip 0.5 --data digits --defence RoLSS,bido",
]
WRONG = [
    # demo
    "demo --bogus",
    "demo --people 5",
    "demo --data folder",
    "demo --data nope",
    "demo --people 0",
    "demo --workers 0",
    "demo --out x",
    "demo --seed 99999999999999999999",
    # skips
    "skips",
    "skips timm:nope",
    "skips torchvision:nope",
    "skips face:nope",
    "skips nope:nope",
    "skips timm:zzz*",
    "skips nope:*",
    "skips nowhere.py:f",
    "skips nowhere",
    "skips timm:resnet18 --size 0",
    # train
    "train",
    "train --bogus --out o",
    "train --out o --size many",
    "train --out o --recipe.epochs 2 --bogus 3",
    "train --out o --recipe.epocs 2",
    "train --out o --recipe.epochs two",
    "train --out o --recipe.epochs 0",
    "train --out o --recipe.view.scale 0.5",
    "train --out o --recipe.milestones 3",
    "train --out o --settings people",
    "train --out o --data nope",
    "train --out o --data folder:nowhere",
    "train --out o --device gpu",
    "train --out o --architecture resnet18",
    "train --out o --size 0",
    "train --out o --architecture timm:nope",
    "train --out o --architecture torchvision:nope",
    "train --out o --architecture face:nope",
    "train --out o --architecture nope:resnet18",
    "train --out o --architecture timm:",
    "train --out o --like nope",
    "train --out o --like rolss --recipe.epochs 3",
    "train --out o --weights x",
    "train --out o --from nowhere",
    "train --out o --from x --weights x --net a.py:f",
    "train --out o --net nowhere.py:make",
    "train --out o --net nonsense",
    "train --out o --net a.py:f --weights nowhere",
    "train --out o --data nope:",
    "train --out o --data faces:",
    "train --out o --data faces:x",
    "train --out o --data folder",
    "train --out o --data folder:",
    "train --out o --data celeba",
    "train --out o --data faces --settings peple 4",
    "train --out o --data faces --settings people many",
    "train --out o --data faces --settings people 0",
    "train --out o --data faces --settings size 4",
    "train --out o --data faces --settings lookalikes 3",
    "train --out o --data digits --settings size 4",
    "train --out o --data digits --settings people 4",
    "train --out o --data folder:z --settings private 1.5",
    "train --out o --data folder:z --settings order up",
    "train --out o --data folder:z --settings public nowhere",
    "train --out o --data folder:z --settings public ffhq:nowhere",
    "train --out o --data folder:z --settings seed 99999999999999999",
    "train --out o --data celeba:z --settings protocol nope",
    "train --out o --data afhq:z --settings animal cow",
    "train --out o --defence nope",
    "train --out o --defence rolss,nope",
    "train --out o --defence ssf(factr=1)",
    "train --out o --defence ssf(factor=7)",
    "train --out o --defence rolss(where=last)",
    "train --out o --defence midre-0.9",
    'train --out o --defence bido(measure="x")',
    "train --out o --seed 99999999999999999999",
    "train --out z",
    "train --out o --recipe.precision half",
    # fit
    "fit --datta x --out o",
    "fit --out o training:nope",
    "fit --out o training:kedmi --training.steps some",
    "fit --out o training:kedmi",
    "fit --out o --data folder:nowhere",
    "fit --out o --data ffhq",
    "fit --out x",
    # convert
    "convert x --out o --noise some",
    "convert x --out o --class-order up",
    "convert nope --out o",
    "convert x --out o --architecture timm:nope",
    "convert x --out o --normalise some",
    "convert x --out o --students nowhere",
    "convert x --out o --psi 2",
    "convert x --out o --class-names nowhere",
    "convert x --out o --net nowhere.py:f",
    "convert c.yaml --out o",
    # attack
    "attack --target x --out o --presett z",
    "attack --out o attack:ppa --attack.step 3",
    "attack --out o attack:gmi --attack.rate a",
    "attack --out o attack:ppa --attack.steps -2",
    "attack --out o attack:kedmi --attack.loss l",
    "attack --out o --distillation.student a",
    "attack --out o --target nope",
    "attack --out o --prior nope",
    "attack --out o",
    "attack --out o --target x --preset nope",
    "attack --out o --target x --preset ppa:nope",
    "attack --out o --target x --preset nope:ppa",
    "attack --out o --target x --preset rolss attack:gmi",
    "attack --out o --target x --preset ppdg",
    "attack --out o --target x --preset brepmi:ppdg attack:mirror",
    "attack --out o --target x --preset rolss attack:ppa --attack.steps 3",
    "attack --out o --target x --classes 0 0",
    "attack --out o --target x --classes -1",
    "attack --out o --target x --precision half",
    "attack --out o --target x --public nope",
    "attack --out o --target x --public faces --settings people 0",
    "attack --out o --target x attack:nope",
    "attack --out o --target x --weights x",
    "attack --out z --target x",
    # evaluate
    "evaluate --found x",
    "evaluate --found z --judge x --out o",
    "evaluate --found nope --out o",
    "evaluate --found x --out o",
    "evaluate --found x --judge x --out o --student nope",
    "evaluate --found x --judge x --out o --student timm:nope",
    "evaluate --found x --judge x --out o --protocol nope",
    "evaluate --found x --judge x --out o --data nope",
    "evaluate --found x --judge x --out z",
    "evaluate --found x --judge x --out o --inception nowhere",
    "evaluate --found x --judge x --out o --prior nowhere",
    # study
    "study",
    "study b.py --here many",
    "study nope.py",
    "study nope",
    "study b.py --settings nonsense 1",
    "study b.py --settings nonsense 1 --dry-run",
    "study b.py --ray auto --slurm main",
    "study b.py --plan --effect 0",
    "study b.py --plan --power 2",
    "study broken.py",
    "study b.py --here 0",
    "study b.py --minutes 0",
    "study b.py --device gpu",
    "study rolss_by_truth --settings nonsense 1",
    # report
    "report",
    "report nope",
    "report nowhere",
    # doctor
    "doctor --archi x",
    "doctor --preset nope",
    "doctor --judge x",
    "doctor --judge nowhere",
    "doctor --study b.py --data faces",
    "doctor --study b.py --settings nonsense 1",
    "doctor --study nowhere",
    "doctor --data faces --settings nonsense 1",
    "doctor --architecture timm:nope",
    "doctor --people 0",
    "doctor --people 10",
    "doctor --prior somewhere",
    "doctor --precision bfloat16",
    "doctor --data faces --here 2",
    "doctor --settings people 3",
    "convert c.yaml --out a.py --crop 800",
    "convert w.pt --out out --net m.py:f --space w+",
    # protect
    "protect --out o",
    "protect --out o --target x --defence nope",
    "protect --out o --target x --keep-accuracy 2",
    "protect --out o --target x --epochs 0",
    "protect --out o --target x --weights x",
    # audit
    "audit",
    "audit --model x",
    "audit --model nowhere --data folder:z",
    "audit --model nowhere.py:f --weights x --data folder:z",
    "audit --model x --data nope",
    "audit --model x --data folder:nowhere",
    "audit --model x --data folder:z --guard nope",
    "audit --model x --data folder:z --guard rounded:x",
    "audit --model x --data folder:z --guard rounded:-4",
    "audit --model x --data folder:z --defended nope",
    "audit --model x --data folder:z --fmr 3",
    "audit --model x --data folder:z --uncut timm:nope",
    "audit --model x --data folder:z --budget some",
    "audit --model x --data folder:z --access all",
    "audit --model x --data folder:z --private some",
    "audit --model x --data folder:z --public folder:nowhere",
    "audit --model x --data folder:z --prior nowhere",
    "audit --model x --data folder:z --exposures --guard labels",
    "audit --model x --data folder:z --workers 0",
    "audit --model x --data folder:z --settings nonsense 1",
    "audit --model x --data folder:z --dry-run --settings nonsense 1",
    "audit --verify nowhere",
    # raters
    "raters nowhere",
    "raters z --port 99999999",
    "raters z --seconds 0",
]


def accepts(line):
    verb, *rest = line.split()
    stand_in, readable = checked(verb, rest)
    try:
        tyro.cli(stand_in, args=readable, console_outputs=False).check()
    except (SystemExit, UserError):
        return False
    return True


def fill(folder):
    """What the command lines name: files, a folder of pictures, studies."""
    for name in ("x", "a", "b", "f.pth", "c.yaml", "w.pt"):
        (folder / name).touch()
    (folder / "z").mkdir()
    (folder / "m.py").touch()
    (folder / "a.py").write_text("def make_model(): ...\n\n\ndef tasks(): ...\n")
    (folder / "b.py").write_text("def tasks(worlds=1): ...\n")
    (folder / "broken.py").write_text("def tasks(:\n")


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    """What the right command lines name is there."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)


@pytest.mark.parametrize("line", RIGHT)
def test_the_stand_in_takes_what_is_right(line):
    assert accepts(line)


def told(function, words):
    """The flags and choices in a verb's help."""
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        tyro.cli(function, args=[*words, "--help"])
    text = out.getvalue()
    return set(re.findall(r"--[a-z0-9.-]*[a-z0-9]", text)) | set(re.findall(r"(?:attack|training):[\w-]+", text))


@pytest.mark.parametrize("words", [*cli.VERBS, "attack attack:gmi", "fit training:kedmi"])
def test_the_stand_in_has_every_flag_of_its_verb(words):
    """Nothing of our own is hidden from it: otherwise a mistake there would cost the import of torch."""
    verb, *words = words.split()
    real = importlib.import_module(f"lightleak.cli.{verb}").main
    stand_in, readable = checked(verb, words)
    assert readable == words
    assert told(stand_in, words) == told(real, words)
    assert described(verb).__doc__.splitlines()[0] == real.__doc__.splitlines()[0]


@pytest.mark.parametrize("real", [*OURS.values(), *dict.fromkeys(type(each) for each in TRAININGS.values())])
def test_settings_are_read_from_their_source(real):
    """Without the module, a class has the same fields and defaults, and refuses what it refuses."""
    read = Reader().names(real.__module__)[real.__name__]
    assert [one.name for one in fields(read)] == [one.name for one in fields(real)]
    assert repr(read()) == repr(real())
    assert REFUSED not in vars(read())
    assert REFUSED in vars(read(batch=0))


TABLES = [
    ("lightleak.attacks.ppa", "PRESETS"), ("lightleak.attacks", "OURS"), ("lightleak.data", "DATASETS"),
    ("lightleak.training.recipes", "RECIPES"), ("lightleak.study.protocols", "PROTOCOLS"),
    ("lightleak.defences", "DEFENCES"), ("lightleak.defences", "PRESETS"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), TABLES)
def test_a_table_s_names_are_read_from_its_source(module, name):
    """All of them: a name that is added in another statement would be refused at the command line."""
    assert Reader().listed(module, name) == list(getattr(importlib.import_module(module), name))


# Values that no argument of a kind can have; what is free text or names a place to write stands in FREE.
BASES = {
    "demo": "demo", "skips": "skips", "train": "train --out o", "protect": "protect --out o --target x",
    "fit": "fit --out o", "convert": "convert x --out o", "attack": "attack --out o --target x",
    "evaluate": "evaluate --found x --out o --judge x", "audit": "audit --model x --data folder:z",
    "study": "study b.py", "raters": "raters z", "report": "report z", "doctor": "doctor",
}  # fmt: skip
FREE = {
    "out", "settings", "knowledge", "recogniser", "called", "release", "consent", "special_category", "entry",
    "ray", "slurm", "slurm_options", "students",
}  # fmt: skip


def choices():
    """A wrong value for each argument of each verb, from what its annotation says."""
    for verb, base in BASES.items():
        stand_in, _ = checked(verb, [])
        for field in fields(stand_in):
            if field.name in FREE or is_dataclass(field.default) or field.default_factory is not MISSING:
                continue
            flag = {"start": "from"}.get(field.name, field.name).replace("_", "-")
            words = base.split()
            positional = field.default is MISSING and f"--{flag}" not in words
            if field.type is bool:
                yield f"{base} --{flag}=nonsense"
            elif positional:
                yield " ".join([verb, "nonsense", *words[2:]])
            else:
                yield f"{base} --{flag} nonsense"
            if field.type is not bool and "int" in str(field.type):
                yield f"{base} --{flag} -99999999999999999999999"


LINES = [*dict.fromkeys([*WRONG, *choices()])]
WITHOUT = [["--help"], ["--version"], ["nonsense"], []]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What every line is answered, by one process: exit code, what heavy was imported, and the text."""
    folder = tmp_path_factory.mktemp("lines")
    fill(folder)
    code = f"""
import contextlib, io, json, sys
from lightleak import cli
for line in {[*WITHOUT, *(line.split() for line in LINES)]!r}:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        try:
            cli.main(line)
            told = 0
        except SystemExit as end:
            told = end.code or 0
    heavy = sorted({{'torch', 'timm', 'torchvision', 'sklearn', 'numpy'}} & set(sys.modules))
    print(json.dumps([' '.join(line), told, heavy, out.getvalue()]))
    for name in heavy:
        sys.exit('imported ' + name + ' for ' + ' '.join(line))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    return {line: rest for line, *rest in map(json.loads, done.stdout.splitlines())}, done.stderr


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_command_is_refused_in_a_line_without_anything_heavy(line, answers):
    found, rest = answers
    assert line in found, rest
    told, heavy, text = found[line]
    assert (told, heavy) == (2, []), text
    assert "Traceback" not in text
    if text.startswith("lightleak:"):
        assert len(text.strip().splitlines()) == 1


def test_help_and_version_import_nothing_heavy(answers):
    found, rest = answers
    assert [found[" ".join(line)][:2] for line in WITHOUT] == [[0, []], [0, []], [2, []], [2, []]], rest
    assert f"lightleak {__version__}" in found["--version"][2]
    for verb in cli.VERBS:
        assert verb in found["--help"][2]


@pytest.mark.parametrize(
    "line",
    [
        "attack --target x --out x", "attack --target x --prior z --out z", "evaluate --found x --judge a --out x",
        "evaluate --found x --judge a --out ./z/../a", "train --net m.py:f --from w.pt --out w.pt",
        "train --net m.py:f --out m.py", "protect --target x --out x", "convert x --out x",
        "convert x --students a --out a", "fit --data folder:z --out z", "audit --model x --data folder:z --out z",
        "attack --net m.py:f --weights x --out x",
    ],
)  # fmt: skip
def test_nothing_that_is_read_is_overwritten(line, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(line.split())
    assert end.value.code == 2
    assert "would overwrite what is read" in capsys.readouterr().err


def test_a_word_is_no_place():
    assert accepts("audit --model x --data folder:z --called b --out b")


@pytest.mark.parametrize("library", named.LIBRARIES[:2])
def test_the_names_of_a_library_are_read_as_it_registers_them(library):
    assert named.names_in(library) == sorted(zoo.names(library))
    assert tuple(zoo.BUILDERS) == named.LIBRARIES


def test_a_plug_ins_choice_is_left_to_it_and_others_are_refused(tmp_path, monkeypatch):
    """Without importing the plug-in: by the name of the class in its source."""
    (tmp_path / "my_own.py").write_text("import nothing_like_this\n\n\nclass MyOwn:\n    pass\n")
    about = tmp_path / "my_own-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-own\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[lightleak.attacks]\nmine = my_own:MyOwn\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert accepts("attack --out o --target x attack:my-own --attack.unheard-of 3")
    assert accepts("attack --out o --target x attack:ppa --attack.steps 3")
    assert not accepts("attack --out o --target x attack:nope")
    assert not accepts("attack --out o --target x attack:ppa --attack.stepps 3")
    assert not accepts("attack --out o --target x --classes 0 0 attack:my-own --attack.unheard-of 3")
    assert "my_own" not in sys.modules
    (tmp_path / "my_own.py").write_text("from elsewhere import MyOwn\n")  # who knows what that class is called
    assert accepts("attack --out o --target x attack:nope")


def test_a_study_of_ours_is_found_from_anywhere():
    assert accepts("study paper/tab2_stages --status")
    assert accepts("study rolss_by_truth --settings worlds 2")
    assert not accepts("study rolss_by_truth --settings world 2")


def test_the_benchmark_prints_both(capsys):
    file = Path(__file__).parent.parent / "benchmarks" / "startup.py"
    spec = importlib.util.spec_from_file_location("benchmark_startup", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.main(["--rounds", "1", "--quick"])
    assert found["lightleak --version"] < 2
    assert "lightleak --version" in capsys.readouterr().out
