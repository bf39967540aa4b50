"""How large a study must be: power against simulation and a closed form, variances from records, the command."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from tests.test_worlds import JUDGES, TARGETS, WORLDS, drawn

from lightleak.cli import main
from lightleak.cli.study import seconds_each
from lightleak.errors import UserError
from lightleak.report.power import KNOWN, Variances, power, sizes, varied
from lightleak.study import Store, schedule
from lightleak.study.comparison import Setting, compare
from lightleak.study.task import with_needs
from lightleak.study.tasks import Evaluate, source


def test_power_agrees_with_simulation() -> None:
    rng = np.random.default_rng(0)
    for worlds, effect, tests in ((4, 0.1, 1), (12, 0.1, 1), (16, 0.05, 1), (8, 0.1, 4)):
        drawn_ = effect + 0.12 * rng.standard_normal((20000, worlds))
        found = np.mean(np.asarray(ttest_1samp(drawn_, 0, axis=1)[1]) < 0.05 / tests)
        assert power(effect, 0.12**2, worlds, tests) == pytest.approx(found, abs=0.012)
    assert power(0.1, 0.12**2, 1) == 0


def test_more_people_or_trainings_need_no_more_worlds() -> None:
    found = {(one.people, one.trainings): one.worlds for one in sizes(0.1, 0.8)}
    assert found[32, 1] >= found[32, 3]
    assert found[16, 1] >= found[56, 1]
    assert 6 <= found[32, 1] <= 14  # a true effect of 10 points: about twelve worlds of one training
    assert all(one.power >= 0.8 for one in sizes(0.1, 0.8))
    (first, *_) = sizes(0.1, 0.8, seconds=60.0)
    assert first.hours == pytest.approx(60 * first.worlds * first.trainings * first.people / 32 / 3600)
    with pytest.raises(UserError, match="up to 100 points"):
        sizes(0.0)


def test_hours_are_of_the_people_for_whom_seconds_are_given() -> None:
    few, many = sizes(0.1, seconds=60.0, seconds_people=8), sizes(0.1, seconds=240.0, seconds_people=32)
    assert [one.hours for one in few] == pytest.approx([one.hours for one in many])


def study_of(people: int):
    return [
        one for seed in range(2) for one in compare(Setting(source("faces", people=people, lookalikes=4, seed=seed)))
    ]


def test_what_a_training_takes_is_recorded_or_expected(tmp_path) -> None:
    """The same for any number of people in a study, and also where all of it is done."""
    store = Store(tmp_path)
    (few, of_few), (many, of_many) = (seconds_each(study_of(people), store) for people in (8, 32))
    assert (of_few, of_many) == (8, 32)
    assert few is not None
    assert many is not None
    assert many > few
    tasks = study_of(8)
    everything = with_needs(tasks)
    trainings = len({one.found.target.key for one in tasks if isinstance(one, Evaluate)})
    for number, task in enumerate(everything):
        store.publish(task, store.begin(task), {"classes": 8}, float(number))
        if number == len(everything) // 2:
            half, _ = seconds_each(tasks, store)
            assert half is not None
    assert not schedule(tasks, store).seconds
    seconds, people = seconds_each(tasks, store)
    assert people == 8
    assert seconds == pytest.approx(sum(range(len(everything))) / trainings)
    assert seconds_each([], store) == (None, 1.0)


def test_variances_come_from_records() -> None:
    records = [drawn(world, title, JUDGES[0]) for world in range(WORLDS) for title in ("none", "TTS")]
    got = varied(records, "true@1")
    assert got is not None
    values = {(w, t): drawn(w, t, JUDGES[0]).evaluation.per_class["true@1"] for w in range(WORLDS) for t in TARGETS}
    gaps = [np.subtract(values[w, "TTS"], values[w, "none"]) for w in range(WORLDS)]
    assert got.person == pytest.approx(np.mean([gap.var(ddof=1) for gap in gaps]))
    between = np.var([gap.mean() for gap in gaps], ddof=1)
    assert got.world == pytest.approx(max(0, between - got.person / 8))
    assert varied(records[:1], "true@1") is None
    assert Variances(0.1, 0.2, 0.3).of_a_world(10, 2) == pytest.approx(0.1 + 0.1 + 0.03)
    assert KNOWN.of_a_world(32, 3) < KNOWN.of_a_world(32, 1)


STUDY = """
from lightleak.attacks import PPA
from lightleak.data.faces import DIFFICULTIES
from lightleak.study.comparison import Setting, compare
from lightleak.study.tasks import source

PRIMARY = ("member@1",)


def tasks():
    return [one for seed in range(2) for one in compare(Setting(source("faces", people=8, lookalikes=4, seed=seed)))]
"""


def test_study_plan_says_how_many_worlds(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.py").write_text(STUDY)
    main(["study", "plan", "s.py", "--effect", "10", "--power", "0.8"])
    told = " ".join(capsys.readouterr().out.split())
    assert "member@1" in told
    assert "corrected for 3 tests" in told
    assert not (tmp_path / "runs").exists()  # a plan touches nothing
