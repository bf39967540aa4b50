"""The studies of the paper on painted people, and what is said of their own scale before anything runs."""

import json
from pathlib import Path

import pytest

from lightleak import priors
from lightleak.defences import SSF, TTS, RoLSS
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.priors import RenderedPrior
from lightleak.study import Store, load, plain, run
from lightleak.study.gradient_shares import GradientShares
from lightleak.study.photographs import Lacking
from lightleak.study.scales import at
from lightleak.study.tasks import Evaluate, Invert, TrainTarget, ready

STUDIES = sorted((Path(__file__).parent.parent / "studies" / "paper").glob("*.py"))


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """Stands for a converted StyleGAN2: a study asks only what its weights are."""
    folder = tmp_path_factory.mktemp("prior")
    priors.save(RenderedPrior(size=64), folder)
    return folder


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_a_painted_study_of_the_paper(study):
    tasks = load(study)
    evaluations = [task for task in tasks if isinstance(task, Evaluate)]
    assert len({task.key for task in tasks}) == len(tasks)
    assert rows_once(evaluations)
    assert all(one.found.target.population.source == "faces" for one in evaluations)


def rows_once(evaluations):
    """Whether no row of any table is there twice, and every network exists."""
    told = [(e.found.target.architecture, e.found.target.title, e.found.target.seed, e.found.attack.title,
             e.found.target.population.key, json.dumps(plain(e.found.attack))) for e in evaluations]  # fmt: skip
    known = [one[0].partition(":") for one in told]
    return len(set(told)) == len(told) > 1 and all(name in zoo.names(library) for library, _, name in known)


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_a_study_takes_any_network(study):
    """It takes the place of the study's own, is cut, and is what every line of a log names."""
    if study.stem == "tab4_repvgg":  # without branches there is nothing to fuse
        with pytest.raises(UserError, match="RegNet has no parallel convolution and batch norm branches to fuse"):
            load(study, architecture="timm:regnety_002")
        return
    tasks = load(study, architecture="timm:regnety_002")
    evaluations = [task for task in tasks if isinstance(task, Evaluate)]
    assert {one.found.target.architecture for one in evaluations} == {"timm:regnety_002"}
    assert any(isinstance(cut, RoLSS) for one in evaluations for cut in one.found.target.defences)
    assert all("regnety_002" in one.label for task in tasks for one in (task, *task.needs()) if by_network(one))


def by_network(task):
    """Whether a task is about one network that is attacked."""
    return isinstance(task, Evaluate | Invert | TrainTarget | GradientShares)


def test_a_network_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="timm has no model 'resnett18'; did you mean resnet18"):
        load(STUDIES[0], architecture="timm:resnett18")
    with pytest.raises(UserError, match="expected an architecture as timm:NAME"):
        load(STUDIES[0], architecture="resnet18")


def test_the_same_cut_is_trained_once():
    """However it is spelled; and what was spelled shortly keeps its key."""
    setting = at("rendered")
    keys = {spelled: setting.target((spelled,), 0).key for spelled in (
        RoLSS(), RoLSS(where=4), RoLSS(where="4"), SSF(factor=0), SSF(factor=0.0, where=4), RoLSS(where=3), TTS(),
        TTS(where=4), SSF(), SSF(factor=0.2), SSF(factor=0.4),
    )}  # fmt: skip
    plain = TrainTarget(setting.population, setting.architecture, setting.recipe, (RoLSS(),))
    assert {keys[one] for one in keys if one not in (RoLSS(where=3), TTS(), TTS(where=4), SSF(), SSF(factor=0.2),
                                                      SSF(factor=0.4))} == {plain.key}  # fmt: skip
    assert keys[TTS()] == keys[TTS(where=4)]
    assert keys[SSF()] == keys[SSF(factor=0.2)]
    assert len({keys[one] for one in (RoLSS(), RoLSS(where=3), TTS(), SSF(), SSF(factor=0.4))}) == 5


def test_the_painted_densenet_is_trained_once_for_all_tables():
    """With its own recipe, and with the copies by which networks are compared at equal natural accuracy."""
    trained = {}
    for study in ("tab2_stages", "tab5_defences", "fig9_ssf", "fig12_repetitions"):
        targets = [task.found.target for task in load(STUDIES[0].with_name(f"{study}.py"), only="densenet-narrow",
                                                      epochs=3) if isinstance(task, Evaluate)]  # fmt: skip
        runs = [getattr(target, "run_of", target) for target in targets]
        assert {(run.recipe.epochs, run.recipe.rate, len(run.checkpoints)) for run in runs} == {(3, 2e-3, 2)}
        trained[study] = {run.key for run in runs}
    for study in ("tab2_stages", "tab5_defences", "fig9_ssf"):
        assert trained["fig12_repetitions"] < trained[study]
    [one] = load(STUDIES[0].with_name("tab2_stages.py"), only="resnet18")[:1]
    assert (one.found.target.recipe.epochs, one.found.target.checkpoints) == (14, ())


def test_bidos_terms_are_told_apart_on_demand():
    study = STUDIES[0].with_name("tab8_bido_rolss.py")
    rows = [{task.found.target.title for task in load(study, terms=terms) if isinstance(task, Evaluate)}
            for terms in (False, True)]  # fmt: skip
    assert rows[1] - rows[0] == {"RoLSS", "BiDO (lambda x 0) + RoLSS", "BiDO (lambda y 0) + RoLSS"}
    assert len(rows[0]) == 3


def test_bad_scales():
    with pytest.raises(UserError, match="rendered or paper, not 'large'"):
        at("large")
    with pytest.raises(UserError, match="this study has no network alexnet at scale=rendered; it has resnet18"):
        at("rendered", {"rendered": ("torchvision:resnet18",)}, only="alexnet")
    with pytest.raises(UserError, match="belong to scale=paper"):
        at("rendered", data="facescrub:here")


def test_all_that_is_missing_is_said_at_once(prior):
    """Nothing is computed, and nobody has to try five times."""
    networks = {"paper": ("torchvision:resnet101", "torchvision:densenet121")}
    with pytest.raises(Lacking) as error:
        at("paper", networks)
    told = error.value.what
    assert len(told) == 5
    assert told[0] == "scale=paper needs: data facescrub:PATH or celeba:PATH or dogs:PATH"
    assert told[1].startswith("prior FOLDER")
    assert told[2] == "weights FOLDER with resnet101-63fe2227.pth"  # the published DenseNets begin from scratch
    assert told[3].startswith("judge FILE")
    assert "inception_v3_google-0cc3c7bd.pth" in told[3]
    with pytest.raises(Lacking) as error:
        at("paper", networks, data=f"facescrub:{prior}", prior="nowhere", weights=prior, judge="none", face="no.pt")
    told = " | ".join(error.value.what)
    for wrong in ("holds none of the folders actors/faces", "there is no prior in nowhere", "resnet101-63fe2227.pth",
                  "none", "no.pt"):  # fmt: skip
        assert wrong in told
    with pytest.raises(Lacking, match="the paper attacks facescrub, celeba, dogs in this study, not 'folder'"):
        at("paper", networks, data="folder:here", prior=str(prior))


def test_a_study_is_told_of_settings_that_it_does_not_take(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def tasks(size=1):\n    return []\n")
    with pytest.raises(UserError, match=r"tasks\(size=1\) of .*mine.py: got an unexpected keyword argument 'scale'"):
        load(file, scale="paper")


def test_a_prior_that_learnt_of_a_target_fits_no_target_that_a_study_trains(tmp_path):
    priors.save(RenderedPrior(size=64), tmp_path / "prior", {"access": "labels", "queries": 9, "target": "another"})
    with pytest.raises(Lacking) as error:
        at("paper", {"paper": ("torchvision:resnet101",)}, prior=str(tmp_path / "prior"))
    assert any("learnt of a target, and a study trains its own" in one for one in error.value.what)


def test_a_prior_is_known_by_its_weights(prior, tmp_path):
    task = ready(prior)
    assert not run([task], Store(tmp_path))
    assert Store(tmp_path).result(task)["size"] == 64
    other = tmp_path / "other"
    priors.save(RenderedPrior(size=48), other)
    assert ready(other).key == task.key  # a painter has no weights
