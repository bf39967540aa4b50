"""An attack whose identities are shared out to several tasks gives what the undivided one gives, bit for bit."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lightleak.attacks import PPA, Guess
from lightleak.data.views import View
from lightleak.defences import MID
from lightleak.study import Store, run, schedule
from lightleak.study.tasks import Invert, InvertShard, Rendered, Score, TrainTarget, source
from lightleak.training import Recipe

POPULATION = source(
    "faces",
    people=6,
    images=4,
    size=32,
    validation_images=2,
    test_images=2,
    public_people=6,
    public_images=2,
    judge_images=2,
)
RECIPE = Recipe(epochs=1, batch=8, rate=3e-3, milestones=(), view=View(), precision="float32")
TARGET = TrainTarget(POPULATION, "timm:test_resnet", RECIPE)
ATTACK = PPA(candidates=20, attempts=2, keep=1, steps=3, rate=0.05, views=2, batch=4)  # two identities to a batch
WHOLE = Invert(TARGET, Rendered(POPULATION), ATTACK)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A store with the undivided attack done."""
    store = Store(tmp_path_factory.mktemp("whole"))
    assert run([WHOLE], store) == {}
    assert store.keys("InvertShard") == set()
    return store


def copy_of_needs(finished, folder):
    store = Store(folder)
    assert WHOLE.scored
    for task in (POPULATION, TARGET, WHOLE.prior, WHOLE.scored):
        store.folder(task).parent.mkdir(parents=True)
        store.folder(task).symlink_to(finished.folder(task))
    return store


def files(store):
    folder = store.folder(WHOLE)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "made.json"}


@pytest.mark.parametrize("parts", [2, 5])
def test_parts_join_to_the_same_bytes_and_are_gone_then(finished, tmp_path, parts):
    store = copy_of_needs(finished, tmp_path)
    split = replace(WHOLE, parts=parts)
    assert split.key == WHOLE.key
    shards = [task for task in schedule([split], store).todo if isinstance(task, InvertShard)]
    assert len(shards) == parts
    assert run(shards, store) == {}
    told = [store.result(shard)["identities"] for shard in shards]
    assert [label for part in told for label in part] == list(range(6))
    spent = sum(store.made(shard)["seconds"] for shard in shards)
    assert run([split], store) == {}
    assert files(store) == files(finished)
    assert store.keys("InvertShard") == set()
    assert store.made(WHOLE)["seconds"] >= spent  # what the parts took is not forgotten


def test_chosen_identities_keep_their_order(finished, tmp_path):
    store = copy_of_needs(finished, tmp_path)
    chosen = Invert(TARGET, WHOLE.prior, ATTACK, classes=(5, 0, 3))
    assert run([chosen], store) == {}
    whole = chosen.load(store)
    assert whole.classes.tolist() == [5, 0, 3]
    store.drop(chosen)
    assert run([replace(chosen, parts=2)], store) == {}
    again = chosen.load(store)
    assert again.classes.tolist() == [5, 0, 3]
    assert (again.images == whole.images).all()


def test_the_number_of_workers_decides_without_changing_the_key(finished, tmp_path):
    store = copy_of_needs(finished, tmp_path)
    one, other = WHOLE, replace(WHOLE, seed=1)

    def todo(tasks, workers=1):
        planned = schedule(tasks, store, workers=workers).todo
        return [task for task in planned if not isinstance(task, Score)]  # candidates are scored once for all parts

    assert [type(task) for task in todo([one], workers=1)] == [Invert]
    assert [type(task).__name__ for task in todo([one], workers=2)] == ["InvertShard"] * 2 + ["Invert"]
    assert len(todo([one, other], workers=2)) == 2  # both processes have work as it is
    assert len(todo([one, other], workers=4)) == 2 + 4
    assert len(todo([replace(one, parts=1)], workers=4)) == 1  # the study's own choice stands
    guess = Invert(TARGET, WHOLE.prior, Guess(1))  # says nothing of groups: stays whole
    assert len(todo([guess], workers=4)) == 1
    assert len(todo([replace(guess, parts=3)])) == 1
    assert guess.label == "invert test_resnet (no defence) by Guess (null)"
    assert one.outcome == f"what {one.by} found of test_resnet (no defence)"
    assert one.target.population.label == "draw faces"

    class Two(ThreadPoolExecutor):
        def slots(self):
            return 2

    labels = []
    with Two(2) as threads:
        assert run([one], store, executor=threads, listen=lambda event: labels.append(event.task.label)) == {}
    assert f"invert test_resnet (no defence) by {one.by}, part 2 of 2" in labels
    assert files(store) == files(finished)


def test_a_target_that_draws_random_numbers_gives_the_same_bytes_again_and_in_parts(tmp_path):
    """MID's noise belongs to the attempt and the step, so a rerun and any shards make the same file."""
    store, found = Store(tmp_path), []
    noisy = Invert(replace(TARGET, defences=(MID(),)), Rendered(POPULATION), ATTACK)
    for task in (noisy, noisy, replace(noisy, parts=3)):
        assert run([task], store) == {}
        found.append((store.folder(noisy) / "reconstructions.safetensors").read_bytes())
        store.drop(noisy)
    assert found[0] == found[1] == found[2]
