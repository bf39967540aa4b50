"""The studies of the paper: what they would run, at both scales, without running it."""

from collections import Counter
from pathlib import Path

import pytest

from lightleak import priors
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.priors import RenderedPrior
from lightleak.study import Store, load, run
from lightleak.study.scales import at
from lightleak.study.tasks import Evaluate, ready

STUDIES = sorted((Path(__file__).parent.parent / "studies" / "paper").glob("*.py"))


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """Stands for a converted StyleGAN2: a study asks only what its weights are."""
    folder = tmp_path_factory.mktemp("prior")
    priors.save(RenderedPrior(size=64), folder)
    return folder


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
@pytest.mark.parametrize("scale", ["rendered", "paper"])
def test_a_study_of_the_paper(study, scale, prior):
    data = "dogs" if study.stem == "fig5_other_data" else "facescrub"
    options = {"data": f"{data}:{prior}", "prior": str(prior)} if scale == "paper" else {}
    tasks = load(study, scale=scale, **options)
    evaluations = [task for task in tasks if isinstance(task, Evaluate)]
    assert len({task.key for task in tasks}) == len(tasks)
    rows = Counter((e.found.target.architecture, e.found.target.title, e.found.target.seed) for e in evaluations)
    assert set(rows.values()) == {1}
    assert len(evaluations) > 1
    for evaluation in evaluations:
        library, _, name = evaluation.found.target.architecture.partition(":")
        assert name in zoo.names(library)
    population = evaluations[0].found.target.population
    assert population.source == (options["data"] if options else "faces")


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_published_numbers_name_rows_that_exist(study, prior):
    module = __import__("runpy").run_path(str(study))
    data = "dogs" if study.stem == "fig5_other_data" else "facescrub"
    evaluations = [
        task
        for task in module["tasks"](scale="paper", data=f"{data}:{prior}", prior=str(prior))
        if isinstance(task, Evaluate)
    ]
    rows = {(e.found.target.architecture, e.found.target.title) for e in evaluations}
    for network, lines in module.get("PUBLISHED", {}).items():
        assert set(module.get("STANDS_FOR", {}).values()) <= set(module["PUBLISHED"])
        for title, numbers in lines.items():
            assert (network, title) in rows
            assert all(0 < value < 1 for value in numbers.values())


def test_bad_scales(prior):
    with pytest.raises(UserError, match="rendered or paper, not 'large'"):
        at("large")
    with pytest.raises(UserError, match="scale=paper needs data and prior"):
        at("paper")
    with pytest.raises(UserError, match="the paper attacks facescrub, celeba, dogs, not 'folder'"):
        at("paper", data="folder:here", prior=str(prior))
    with pytest.raises(UserError, match="there is no prior in nowhere"):
        at("paper", data=f"facescrub:{prior}", prior="nowhere")
    with pytest.raises(UserError, match="belong to scale=paper"):
        at("rendered", data="facescrub:here")


def test_a_study_is_told_of_settings_that_it_does_not_take(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def tasks(size=1):\n    return []\n")
    with pytest.raises(UserError, match=r"tasks\(size=1\) of .*mine.py: got an unexpected keyword argument 'scale'"):
        load(file, scale="paper")


def test_a_prior_is_known_by_its_weights(prior, tmp_path):
    task = ready(prior)
    assert not run([task], Store(tmp_path))
    assert Store(tmp_path).result(task)["size"] == 64
    other = tmp_path / "other"
    priors.save(RenderedPrior(size=48), other)
    assert ready(other).key == task.key  # a painter has no weights
