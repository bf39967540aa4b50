"""Targets as tasks: checkpoints are targets of their own, public training comes first where a defence wants it."""

import dataclasses

import pytest
import torch

from conftest import TINY
from lightleak.attacks import Guess
from lightleak.attacks.guards import LabelsOnly
from lightleak.attacks.surrogate import Lessons
from lightleak.defences import TLDMI, TTS, BiDO, RoLSS
from lightleak.errors import UserError
from lightleak.models.classifier import load
from lightleak.models.zoo import build
from lightleak.study import Store, run
from lightleak.study.tasks import Checkpoint, Copied, Guarded, Invert, Rendered, TrainTarget, source
from lightleak.training import CheckpointCriterion as At

POPULATION = source(
    "faces",
    people=4,
    images=8,
    size=32,
    public_people=5,
    public_images=10,
    judge_images=4,
    validation_images=5,
    test_images=5,
    strength=0.4,
)
SHORT = dataclasses.replace(TINY, epochs=3, batch=8)
NET = "timm:resnet10t"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("targets"))


def finish(store, *tasks):
    failures = run(tasks, store)
    assert not failures, [failure.error for failure in failures.values()]


def test_a_checkpoint_is_a_target(store):
    whole = TrainTarget(
        POPULATION,
        NET,
        SHORT,
        (RoLSS(),),
        checkpoints=(At(epoch=1), At(accuracy=1.0)),
    )
    first, second = Checkpoint(whole, 0), Checkpoint(whole, 1)
    found = Invert(first, Rendered(POPULATION), Guess(1))
    finish(store, found, second)
    told = store.result(first)
    assert told["epoch"] == 1
    assert told["surgery"] == store.result(whole)["surgery"]
    assert (
        told["validation_accuracy"]
        == load(store.folder(whole) / "target.safetensors").record["history"][0]["validation"]
    )
    assert first.title == "RoLSS at epoch 1"
    assert second.title == "RoLSS at accuracy 100 %"
    last = store.result(second)
    assert last["validation_accuracy"] == max(entry["validation"] for entry in whole.load(store).record["history"])
    assert (first.seed, first.people, first.defences, first.architecture) == (0, "private", (RoLSS(),), NET)
    assert len({first.key, second.key, whole.key}) == 3
    with pytest.raises(UserError, match="keeps 2 checkpoints"):
        Checkpoint(whole, 2)


def test_public_training_comes_first_and_is_done_once(store):
    few = TrainTarget(POPULATION, NET, SHORT, (TLDMI(share=0.5),))
    many = TrainTarget(POPULATION, NET, SHORT, (TLDMI(share=0.8), RoLSS()))
    assert few.start is not None
    assert few.start == many.start
    assert few.start in few.needs()
    assert TrainTarget(POPULATION, NET, SHORT).start is None
    longer = TLDMI(public=dataclasses.replace(SHORT, epochs=5))
    start = TrainTarget(POPULATION, NET, SHORT, (longer,)).start
    assert start is not None
    assert start.recipe.epochs == 5
    finish(store, few, many)
    assert len(store.keys("Pretrain")) == 1
    public, private = few.start.load(store).net.state_dict(), few.load(store).net.state_dict()
    kept = [name for name in public if torch.equal(public[name], private[name])]
    assert "conv1.0.weight" in kept
    assert "layer4.0.conv2.weight" not in kept
    assert few.load(store).record["pretraining"]["people"] == 5


def test_two_stages_keep_the_columns_of_a_cut_concatenation():
    """What is left of a weight that read a cut concatenation are columns of the weight as it was, in order."""
    whole = build("torchvision:densenet121", 6, 32)
    ((_, change),) = TTS().plan(SHORT).changes
    old, new = (dict(each.net.named_parameters()) for each in (whole, change(whole)))
    narrowed = [name for name, value in new.items() if value.shape != old[name].shape and value.dim() == 4]
    assert len(narrowed) > 10
    for name in narrowed:
        before, after = (each[name].flatten(2).transpose(0, 1).flatten(1) for each in (old, new))
        places = [(before == column).all(1).nonzero().flatten().tolist() for column in after]
        assert all(len(place) == 1 for place in places), name
        assert places == sorted(places)
    assert all(torch.equal(value, old[name]) for name, value in new.items() if value.shape == old[name].shape)


def test_a_network_without_skips_is_a_reference_not_a_defence():
    with pytest.raises(UserError, match="skip"):
        RoLSS().apply(build("torchvision:vgg11_bn", 4, 32))
    names = BiDO().watched(build("torchvision:vgg11_bn", 4, 32))
    assert len(names) >= 4


def test_a_copy_learns_what_the_guard_gives_out_and_no_more(store):
    trained = TrainTarget(POPULATION, NET, SHORT)
    lessons = Lessons(epochs=1, batch=8, pretrained=False)
    finish(store, Copied(Guarded(trained, LabelsOnly()), "labels", NET, lessons))
    task = Copied(Guarded(trained, LabelsOnly()), "scores", NET, lessons)
    (failure,) = run([task], store).values()
    assert "behind LabelsOnly there are labels, not scores" in str(failure.error)
