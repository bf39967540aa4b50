"""The study of low-resolution attacks: what it compares is what it says."""

import pytest

from lightleak.errors import UserError
from lightleak.study import Task
from lightleak.study.loading import load
from lightleak.study.lowres import PRIORS, TARGETS, LowRes
from lightleak.study.protocols import PROTOCOLS


def everything(tasks: list) -> dict[str, Task]:
    """All tasks that these rest on, by key."""
    found: dict[str, Task] = {}
    todo = list(tasks)
    while todo:
        task = todo.pop()
        if task.key not in found:
            found[task.key] = task
            todo += task.needs()
    return found


def test_every_attack_meets_every_target_with_a_prior_of_its_own_kind():
    study = LowRes()
    tasks = study.tasks()
    assert len(tasks) == len({task.key for task in tasks}) == len(TARGETS) * len(study.attacks)
    for task, name in zip(tasks, list(study.attacks) * len(TARGETS), strict=True):
        settings = PRIORS[study.attacks[name][0]]
        assert task.found.prior.settings == settings
        assert (task.found.prior.target == task.found.target) == settings.needs_target
        assert task.nulls["never optimised"].prior == task.found.prior
        assert task.protocol == PROTOCOLS["rendered"]
        assert task.appraiser is not None
    kinds = [type(task).__name__ for task in everything(tasks).values()]
    assert kinds.count("TrainTarget") == 3
    assert kinds.count("TrainJudge") == kinds.count("FitAttributeRegressor") == kinds.count("Draw") == 1
    used = [PRIORS[kind] for kind in {kind for kind, _ in study.attacks.values()}]
    assert kinds.count("FitPrior") == sum(len(TARGETS) if one.needs_target else 1 for one in used)


def test_trainings_share_a_world_and_the_prior_that_needs_no_target():
    study = LowRes(size=64, trainings=3)
    tasks = study.tasks(("face:ir18-narrow",), ("GMI", "KED-MI"))
    assert {task.found.target.seed for task in tasks} == {task.found.seed for task in tasks} == {0, 1, 2}
    kinds = [type(task).__name__ for task in everything(tasks).values()]
    assert kinds.count("TrainTarget") == 2 * 3
    assert kinds.count("Draw") == 1
    assert kinds.count("FitPrior") == 1 + 2 * 3  # GMI's for all, KED-MI's for each
    assert dict(tasks[0].found.target.population.settings)["size"] == 64
    with pytest.raises(UserError, match="not PPA"):
        study.tasks(attacks=("PPA",))


def test_the_files_name_it(request):
    studies = request.config.rootpath / "studies"
    assert [t.key for t in load(studies / "lowres_faces.py")] == [t.key for t in LowRes().tasks()]
    digits = load(studies / "lowres_digits.py")
    assert {task.found.target.population.source for task in digits} == {"digits"}
    assert all(task.appraiser is None for task in digits)  # nobody knows the truth of a digit
