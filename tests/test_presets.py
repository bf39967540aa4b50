"""Presets of every attack, and one spelling of each attack's name, by the command line."""

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import pytest

from lightleak import cli
from lightleak.attacks import ATTACKS, BREPMI, LOKT, OURS, PRESETS
from lightleak.cli.attack import DEFAULT, preset_of
from lightleak.errors import UserError


def said(*arguments):
    """The exit code and what was said on both streams, in one line."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        try:
            cli.main(["attack", "--out", "nowhere/found.safetensors", *map(str, arguments)])
        except SystemExit as error:
            return error.code, " ".join(out.getvalue().split())
    return 0, " ".join(out.getvalue().split())


def test_presets_are_of_their_attack():
    assert all(type(one) is ATTACKS[name] for name, presets in PRESETS.items() for one in presets.values())
    searching = {name for name in OURS if name not in ("gmi", "kedmi", "lomma", "plgmi", "guess")}
    assert set(PRESETS) == searching  # those have their papers' settings as defaults alone


def test_a_preset_is_of_the_chosen_attack_or_names_its_own():
    assert preset_of("rolss") == PRESETS["ppa"]["rolss"]
    assert preset_of("brepmi:ppdg") == preset_of("ppdg", BREPMI()) == PRESETS["brepmi"]["ppdg"]
    assert preset_of("lokt:small", LOKT()) == PRESETS["lokt"]["small"]
    for preset, attack, message in (
        ("smokes", DEFAULT, "no preset 'smokes' of ppa; choose from ppa, ppa-celeba"),
        ("brepmi:ppa", DEFAULT, "choose from brep-mi, ppdg"),
        ("guess:ppa", DEFAULT, "choose from those of ppa:"),
        ("lokt:small", BREPMI(), "none of the chosen attack's, brepmi"),
        ("ppdg", BREPMI(points=8), "not both"),
    ):
        with pytest.raises(UserError, match=message):
            preset_of(preset, attack)


@pytest.mark.parametrize("kind", PRESETS)
def test_a_preset_with_a_batch_of_ones_own_is_the_preset_in_such_batches(kind):
    for name, preset in PRESETS[kind].items():
        batch = preset.attempts + 5
        found = preset_of(name, replace(ATTACKS[kind](), batch=batch))
        assert found == preset
        assert found.batch == batch
        assert preset_of(name, ATTACKS[kind]()).batch == preset.batch
    assert preset_of("rolss", replace(DEFAULT, batch=4)).batch == 4
    assert preset_of("brepmi:ppdg", replace(DEFAULT, batch=4)).batch == 4


def test_one_spelling_of_each_attack_and_the_earlier_one_still_understood(tmp_path):
    (tmp_path / "target.safetensors").touch()
    code, help_ = said("--help")
    assert code in (0, None)
    assert all(f"attack:{name}" in help_ for name in OURS)
    assert "attack:mi-face" not in help_
    for name in ("attack:miface", "attack:mi-face", "attack:brepmi"):
        code, line = said("--target", tmp_path / "target.safetensors", "--preset", "none-such", name)
        assert code == 2
        assert f"of {name.partition(':')[2].replace('-', '')}; choose from" in line
