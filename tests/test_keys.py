"""Keys are by content: version, source and bytes, never a name alone, a path or a time."""

import os
import shutil
from dataclasses import dataclass, field, replace

import pytest
from PIL import Image

from lightleak.attacks import PPA, Attack, Guess
from lightleak.errors import UserError
from lightleak.study import Store, Task, keys, run
from lightleak.study.pool import load_module
from lightleak.study.protocols import Protocol
from lightleak.study.tasks import (
    Altered,
    Copied,
    Draw,
    Evaluate,
    Given,
    Invert,
    Rendered,
    Surrogate,
    TrainJudge,
    TrainTarget,
    Undone,
    source,
)

PEOPLE = source("faces", people=6)
TARGET = TrainTarget(PEOPLE)


def attacked(attack):
    return Invert(TARGET, Rendered(PEOPLE), attack)


def own(name):
    """A class of this file that is called as one of the library's."""

    @dataclass(frozen=True)
    class Mine(Guess):
        def run(self, *_, **__):
            raise RuntimeError("another algorithm")

    Mine.__name__ = name
    return Mine()


def test_what_lacks_a_part_of_an_attack_is_one_clear_line():
    @dataclass(frozen=True)
    class Alone:  # has what an attack had before there was a base
        keep: int = 3

        def run(self, *_, **__): ...

    @dataclass(frozen=True)
    class Idle(Attack):
        access = "scores"
        attempts: int = 3
        keep: int = 3

    with pytest.raises(UserError, match=r"Alone is no attack: name lightleak.attacks.Attack as its base"):
        attacked(Alone())
    with pytest.raises(UserError, match=r"the attack Idle lacks steps, batch, search\(oracle, prior, part, tell\)"):
        attacked(Idle())


def test_a_class_of_ones_own_is_not_the_librarys_of_that_name():
    assert attacked(own("Guess")).key != attacked(Guess()).key

    @dataclass(frozen=True)
    class Draw(Task):
        source: str = "faces"
        settings: dict = field(default_factory=dict)
        contents: str = ""

    assert Draw("faces", {"people": 6}).key != PEOPLE.key


STUDY = '''
from dataclasses import dataclass
from lightleak.attacks import Guess
@dataclass(frozen=True)
class Mine(Guess):
    """{words}"""
    keep: int = 3
    def run(self):
        # {words}
        return {value}
'''


def mine(folder, name, **text):
    (folder / f"{name}.py").write_text(STUDY.format(**text))
    return load_module(f"lightleak_study_{name}", folder / f"{name}.py").Mine()


def test_ones_own_class_is_known_by_its_source_without_comments(tmp_path):
    first = attacked(mine(tmp_path, "first", words="one", value=1)).key
    assert attacked(mine(tmp_path, "elsewhere", words="one", value=1)).key == first
    assert attacked(mine(tmp_path, "changed", words="one", value=2)).key != first
    spaced = STUDY.replace("        # {words}\n", "\n        # more\n\n")
    (tmp_path / "spaced.py").write_text(spaced.format(words="one", value=1))
    assert attacked(load_module("lightleak_study_spaced", tmp_path / "spaced.py").Mine()).key == first


@pytest.mark.parametrize("kind", [PPA, Guess])
def test_another_version_is_another_key(kind, monkeypatch):
    assert attacked(kind()).spec["fields"]["attack"]["version"] >= 1
    key = attacked(kind()).key
    monkeypatch.setattr(kind, "version", 99, raising=False)  # an algorithm that gives other results says so
    assert attacked(kind()).key != key


def test_what_an_attacker_makes_of_a_target_is_known_by_its_own_fields():
    """Of a target that somebody gives and of one that the study trained it behaves alike, and its keys stay apart."""
    given = Given(PEOPLE, "0" * 64, file="x.safetensors")
    pairs = [
        (Undone(given, "mean draw"), Altered(TARGET, "mean draw")),
        (Surrogate(given, "labels", "timm:resnet10t"), Copied(TARGET, "labels", "timm:resnet10t")),
    ]
    assert [[set(one.spec["fields"]) for one in pair] for pair in pairs] == [
        [{"target", "way", "uncut", "seed"}, {"run_of", "way"}],
        [{"target", "access", "architecture", "lessons", "seed"}, {"run_of", "access", "student", "lessons"}],
    ]
    (undone, altered), (surrogate, copied) = pairs
    assert (undone.title, altered.title) == ("the model, mean draw", "no defence, mean draw")
    assert (surrogate.title, copied.title) == ("a copy by its labels", "no defence, a copy by its labels")
    for one, other in pairs:
        assert one.population == other.population == PEOPLE
        assert one.guard is other.guard is None
        assert (one.amounts(), one.cost, one.gpus) == (other.amounts(), other.cost, other.gpus)
    assert surrogate.amounts()


def test_a_field_called_version_speaks_for_itself():
    judge, found = TrainJudge(PEOPLE), attacked(Guess())
    keys = {Evaluate(found, judge, protocol=Protocol("mine", version=version)).key for version in (1, 2)}
    assert len(keys) == 2


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTLEAK_CACHE", str(tmp_path / "cache"))
    for person in "abcd":
        (tmp_path / "x" / person).mkdir(parents=True)
        for number in range(8):
            Image.new("RGB", (16, 16), (number * 20, ord(person), 0)).save(tmp_path / "x" / person / f"{number}.png")
    return tmp_path / "x"


def test_pictures_are_known_by_what_is_in_them(pictures, tmp_path):
    first = source(f"folder:{pictures}", size=16)
    shutil.copytree(pictures, tmp_path / "y", copy_function=shutil.copyfile)
    copied = source(f"folder:{tmp_path / 'y'}", size=16)
    assert copied.key == first.key
    os.utime(pictures / "a" / "0.png")
    assert source(f"folder:{pictures}", size=16).key == first.key
    assert source(f"folder:{pictures}", size=16, cache=str(tmp_path)).key == first.key
    assert source(f"folder:{pictures}", size=24).key != first.key
    data = bytearray((pictures / "a" / "0.png").read_bytes())
    data[-20] ^= 1  # as long as before
    (pictures / "a" / "0.png").write_bytes(bytes(data))
    assert source(f"folder:{pictures}", size=16).key != first.key
    (tmp_path / "y" / "a").rename(tmp_path / "y" / "e")
    assert source(f"folder:{tmp_path / 'y'}", size=16).key != first.key


def test_a_copied_folder_draws_nothing_again_and_a_changed_one_is_noticed(pictures, tmp_path):
    store, first = Store(tmp_path / "store"), source(f"folder:{pictures}", size=16)
    assert run([first], store) == {}
    shutil.move(pictures, tmp_path / "moved")
    moved, seen = source(f"folder:{tmp_path / 'moved'}", size=16), []
    assert run([moved], store, listen=lambda event: seen.append(event.kind)) == {}
    assert seen == ["reused"]
    assert moved.load(store).classes == first.load(store).classes == 2
    later = source(f"folder:{tmp_path / 'moved'}", size=24)
    Image.new("RGB", (16, 16)).save(tmp_path / "moved" / "a" / "8.png")
    (failure,) = run([later], store).values()
    assert "have changed since the study was planned" in failure.error


def test_a_path_without_contents_is_its_own_key():
    assert Draw("folder:/x").key != Draw("folder:/y").key


def test_who_is_attacked_twice_is_refused():
    with pytest.raises(UserError, match="names one twice"):
        replace(attacked(Guess()), classes=(0, 1, 0))


def test_what_a_class_takes_from_around_it_is_part_of_it():
    """A class made within a function is another one with another value there; by its source alone it is the same."""

    def made(share, name="mine"):
        @dataclass(frozen=True)
        class Mine:
            title = "Mine"
            strength: float = 0.5

            def plan(self, recipe):  # noqa: ARG002
                return share, name

        return Mine

    assert keys.source(made(0.1)) == keys.source(made(0.1))
    assert len({keys.source(made(0.1)), keys.source(made(0.2)), keys.source(made(0.1, "yours"))}) == 3
