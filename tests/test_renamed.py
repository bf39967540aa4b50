"""Names of the version before: they still answer, say what they are called now, and lead to the same keys."""

from importlib import import_module

import pytest

from lightleak.cli import main
from lightleak.study.gradient_shares import GradientShares
from lightleak.study.keys import canonical
from lightleak.study.tasks import FitAttributeRegressor
from lightleak.training import CheckpointCriterion

FORMER = {
    "lightleak.training:Moment": CheckpointCriterion,
    "lightleak.study:Plan": "Schedule",
    "lightleak.study:plan": "schedule",
    "lightleak.study.shares:Shares": GradientShares,
    "lightleak.study.tasks:fingerprint": "contents_of",
    "lightleak.study.tasks:FitAppraiser": FitAttributeRegressor,
    "lightleak.metrics.appraiser:Appraiser": "AttributeRegressor",
    "lightleak.metrics.appraiser:load": "load",
    "lightleak.audit.measure:believed_over_views": "confidence_over_views",
    "lightleak.raters:asked_of": "pairs_to_rate",
    "lightleak.models.published:Weights": "Weights",
    "lightleak.convert.published:classifier": "classifier",
    "lightleak.data.published:population": "population",
}


@pytest.mark.parametrize("name", FORMER)
def test_an_old_name_is_the_new_thing_and_says_so(name):
    module, _, old = name.partition(":")
    new = FORMER[name]
    with pytest.warns(DeprecationWarning, match=rf"{old} is now lightleak\.\S+; the old name goes") as told:
        found = getattr(import_module(module), old)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert found.__name__ == (new if isinstance(new, str) else new.__name__)
    with pytest.raises(AttributeError, match="nothing"):
        import_module(module).nothing  # noqa: B018


@pytest.mark.parametrize("flag", [["--appraiser", "absent.safetensors"], ["--appraiser=absent.safetensors"]])
def test_an_old_flag_is_the_new_one_and_says_so(flag, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "fj":
        (tmp_path / f"{name}.safetensors").touch()
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", "--found", "f.safetensors", "--judge", "j.safetensors", "--out", "e.json", *flag])
    said = capsys.readouterr().err
    assert "--appraiser is now --attribute-regressor; the old flag goes with the next release" in said
    assert "absent.safetensors" in said.splitlines()[-1]


def test_results_of_the_old_names_still_count():
    """The names in keys, as results on disk have them."""
    assert canonical(CheckpointCriterion(epoch=3))["class"] == "Moment"
    assert canonical(CheckpointCriterion(epoch=3))["fields"] == {"epoch": 3, "accuracy": None}
    assert GradientShares.known_as == "Shares"
    assert FitAttributeRegressor().name == "FitAppraiser"
    assert FitAttributeRegressor().key == "457146dddb5a7c6dfd52"
