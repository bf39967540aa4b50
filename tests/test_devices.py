"""Every public path on a second device that refuses to mix: training, priors, attacks, metrics, regressors, tasks.

What comes home is compared with the same on the processor: the device decides nothing but the last digits.
"""

import os
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pkgutil import walk_packages
from types import SimpleNamespace
from typing import ClassVar
from weakref import ref

import pytest
import torch

from conftest import TinyNet, tiny_classifier
from lightleak import audit, forecast, priors
from lightleak.attacks import GMI, KEDMI, PPA, SSD, Alignment, Guess, MirrorBlackBox, Oracle, Reconstruction, Smoothed
from lightleak.attacks.draws import Rows
from lightleak.attacks.noise import is_noisy
from lightleak.data import faces
from lightleak.data.population import Images
from lightleak.defences import ATAT, MID, BiDO, RoLSS, plan
from lightleak.errors import UserError
from lightleak.metrics import attribute_regressor, recognition, truth
from lightleak.metrics.evaluate import evaluate
from lightleak.metrics.robustness import robust
from lightleak.models.classifier import load, save
from lightleak.models.zoo import build
from lightleak.place import Memory, Place, choose, here
from lightleak.priors import RenderedPrior
from lightleak.priors.fit import FITS, PlgMi, SmallStyleGAN2, WganGp, fit
from lightleak.randomness import own
from lightleak.study import Store, Task, pool
from lightleak.study.tasks.work import Repeating
from lightleak.training import Recipe, predict, train
from second_device import card

run = import_module("lightleak.study.run")  # the package's `run` is its function
RECIPE = Recipe(epochs=2, batch=8, precision="float32")


@pytest.fixture
def there(request):
    """The place of the second device, entered; `WITHOUT` has it refuse float64."""
    with card(getattr(request, "param", True)) as device, Place(device).entered() as place:
        yield place


WITHOUT = pytest.mark.parametrize("there", [True, False], indirect=True, ids=["float64", "float32"])


def test_populations_are_painted_there_and_come_home_as_bytes(there):
    settings = {"people": 2, "images": 2, "size": 32, "public_people": 2, "judge_images": 2, "test_images": 2}
    found = faces.population(**settings)
    assert found.train.pixels.device.type == "cpu"
    staged = found.train.on(there.device)
    assert staged.pixels.device == there.device
    assert staged.floats(torch.tensor([1]), there.device).device == there.device
    assert found.train.floats(slice(0, 2), there.device).device == there.device
    assert torch.equal(staged.at(torch.tensor([1])).pixels.cpu(), found.train.pixels[1:2])


@WITHOUT
@pytest.mark.parametrize("defences", [(), (RoLSS(),), (BiDO(),), (MID(),)], ids=str)
def test_training(there, tiny_population, tmp_path, defences):
    expected = train(
        tiny_classifier(), tiny_population.train, tiny_population.validation, RECIPE, plan(defences, RECIPE)
    )
    target = there.put(tiny_classifier())
    trained = train(
        target, tiny_population.train, tiny_population.validation, RECIPE, plan(defences, RECIPE), folder=tmp_path
    )
    assert trained.device == there.device
    # Sums are made in another order there, tensors moved one by one, and descent makes more of it; most where noise is
    # scaled by what is learnt.
    near = 5e-2 if defences == (MID(),) else 2e-2
    assert trained.record["history"][-1]["loss"] == pytest.approx(expected.record["history"][-1]["loss"], rel=1e-3)
    assert torch.allclose(predict(trained, tiny_population.test), predict(expected, tiny_population.test), atol=near)


def test_a_classifier_comes_back_there(there, tmp_path):
    path = save(there.put(tiny_classifier()), tmp_path / "own.safetensors")
    loaded = load(path, net=there.put(TinyNet()))
    assert loaded.device == there.device
    assert all(tensor.device == there.device for tensor in loaded.state_dict().values())


def reconstruction(people, device):
    prior = RenderedPrior(size=32)
    latents = prior.sample(2 * people, torch.Generator().manual_seed(0))
    with torch.no_grad():
        images = prior.decode(latents)
    classes = torch.arange(people).repeat_interleave(2)
    return Reconstruction(*(tensor.to(device) for tensor in (images, classes, latents, torch.rand(2 * people))))


@WITHOUT
def test_evaluation(there, tiny_population, tiny_judge):
    with Place().entered():
        expected = evaluate(
            reconstruction(6, "cpu"), tiny_judge, tiny_population, factors=RenderedPrior(size=32).factors_of
        )
    judge = there.put(tiny_judge)
    try:
        found = evaluate(
            reconstruction(6, there.device), judge, tiny_population, factors=RenderedPrior(size=32).factors_of
        )
    finally:
        tiny_judge.cpu()
    for name, measure in expected.measures.items():
        if name != "confidence" and measure is not None:
            assert found.measures[name].value == pytest.approx(measure.value, rel=1e-3, abs=1e-6), name


def test_metrics_follow_their_first_argument(there):
    scores, classes = torch.rand(8, 5), torch.randint(5, (8,))
    on = there.device
    for first, second in ((scores.to(on), classes), (scores, classes.to(on)), (scores.to(on), classes.to(on))):
        assert torch.equal(recognition.true_rank(first, second).cpu(), recognition.true_rank(scores, classes))
        assert torch.equal(recognition.hits(first, second, 2).cpu(), recognition.hits(scores, classes, 2))
    features, labels = torch.rand(9, 4), torch.arange(9) % 5
    near = recognition.nearest(scores[:, :4].to(on), classes, features, labels)
    assert torch.equal(near.cpu(), recognition.nearest(scores[:, :4], classes, features, labels))
    people = faces.sample_factors(4, torch.Generator().manual_seed(1))
    told = truth.compare(people.to(on), torch.arange(4), people, groups=torch.tensor([0, 0, 1, 1]))
    assert told.verified.all()
    assert told.member.all()


@pytest.mark.slow
def test_the_attribute_regressor(there):
    settings = attribute_regressor.Fit(steps=2, batch=4, width=4, images=4)
    fitted = attribute_regressor.fit_attribute_regressor(settings)
    assert next(fitted.parameters()).device == there.device
    images = torch.rand(3, 3, 64, 64)
    found = attribute_regressor.estimate(fitted, images)
    assert found.device.type == "cpu"
    with Place().entered():
        expected = attribute_regressor.estimate(attribute_regressor.fit_attribute_regressor(settings), images)
    assert torch.allclose(found, expected, atol=1e-3)


ATTACKING = {
    "ppa": PPA(candidates=8, attempts=2, keep=1, steps=2, rate=0.05, views=2),
    "gmi": GMI(attempts=2, steps=2, rate=0.03, weight=1.0, averaged=1),
    "kedmi": KEDMI(attempts=2, steps=2, rate=0.1),
    "guess": Guess(keep=1),
    "paa": PPA(
        candidates=8, attempts=2, keep=1, steps=2, rate=0.05, views=2, alignment=Alignment(kind="noise", copies=3)
    ),
    "taa": PPA(candidates=8, attempts=2, keep=1, steps=2, rate=0.05, views=2, alignment=Alignment(copies=3)),
    "mirror": MirrorBlackBox(queries=64, samples=32, population=8, attempts=1),
}


@WITHOUT
@pytest.mark.parametrize("name", ATTACKING)
def test_attacks_run_where_their_target_is(there, name):
    attack, prior = ATTACKING[name], RenderedPrior(size=32)

    def found(place):
        with place.entered():
            oracle = Oracle(place.put(tiny_classifier()), attack.access)
            return attack.run(oracle, prior, torch.tensor([4, 1]), torch.Generator().manual_seed(0))

    ours, expected = found(there), found(Place())
    assert ours.classes.tolist() == expected.classes.tolist()
    assert ours.images.device.type == "cpu"
    assert torch.allclose(ours.latents.cpu(), expected.latents, atol=1e-3)
    assert torch.allclose(ours.confidence.cpu(), expected.confidence, atol=1e-4)


@WITHOUT
@pytest.mark.parametrize("guard", [SSD(), Smoothed(0.02, 10)], ids=["ssd", "smoothed"])
def test_guards_answer_where_their_target_is(there, tiny_population, guard):
    def answers(place):
        with place.entered():
            target = place.put(tiny_classifier())
            ready = guard.fitted(target, tiny_population.validation)
            oracle = Oracle(target, "labels", guard=ready)
            return oracle.labels(tiny_population.test.floats(torch.arange(6), place.device)).cpu()

    assert torch.equal(answers(there), answers(Place()))


NOISE = {
    "paa": lambda _, images, rows: Alignment(kind="noise")._copies(images, rows, rows.classes),
    "smoothed": lambda _, images, rows: Smoothed(number=2).inputs(images, rows.classes),
    "atat": lambda target, images, rows: ATAT(steps=1).moved(target, images, rows.classes),
    "robust": lambda target, images, rows: robust(
        target, Images((255 * images).byte().cpu(), rows.classes.cpu()), steps=1
    ),
}


@pytest.mark.parametrize("name", NOISE)
def test_noise_as_large_as_images_is_drawn_there(there, tiny_population, monkeypatch, name):
    """And is the same as on the processor."""
    found = []
    for place in (there, Place()):
        with place.entered(), monkeypatch.context() as patched:
            target, index = place.put(tiny_classifier()), torch.arange(4)
            images = tiny_population.test.floats(index, place.device)
            for source in ("rand", "randn"):
                patched.setattr(torch, source, lambda *_, **__: pytest.fail("drawn on the processor"))
            torch.manual_seed(0)
            rows = Rows(7, place.put(index), place.put(torch.zeros_like(index)))
            found.append(NOISE[name](target, images, rows).cpu().float())
    assert torch.allclose(*found, atol=1e-4)


FITTING = {
    "wgan": WganGp(width=4, critic_width=4, latents=8, steps=1, batch=4, warmup=1),
    "plgmi": PlgMi(width=4, discriminator_width=4, latents=8, top=2, steps=1, critic_steps=1, batch=4, warmup=1),
    "stylegan2": SmallStyleGAN2(base=32, widest=8, critic_base=32, critic_widest=8, steps=1, batch=4),
}


@pytest.mark.parametrize("name", FITTING)
def test_priors_are_learnt_there_and_come_back_there(there, tiny_population, tmp_path, name):
    settings = FITTING[name]
    asked = Oracle(there.put(tiny_classifier())).logits if settings.needs_target else None
    prior = fit(tiny_population.public, settings, target=asked)
    assert prior.device == there.device
    priors.show(prior, tmp_path / "samples.png")
    priors.save(prior, tmp_path)
    back = priors.load(tmp_path)
    assert back.device == there.device
    latents = back.sample(2, torch.Generator().manual_seed(0)).to(there.device)
    with torch.no_grad():
        images = back.decode(latents, torch.zeros(2, dtype=torch.long).to(there.device))
    assert images.device == there.device
    with Place().entered():
        assert priors.load(tmp_path).device.type == "cpu"


@dataclass(frozen=True)
class Where(Task):
    """Says where it was run."""

    def run(self, store, folder, watch):  # noqa: ARG002
        net = build("timm:resnet10t", 2, 32)
        return {"place": str(here().device), "network": str(net.device)}


def test_tasks_compute_where_they_are_told_and_their_keys_do_not_say(tmp_path, monkeypatch):
    before = Where().key
    with card() as device:
        monkeypatch.setattr(run, "choose", lambda name: Place(device if name == "cuda:0" else torch.device("cpu")))
        store = Store(tmp_path).open()
        assert not run.execute(Where(), store, device="cuda:0").error
    assert store.result(Where()) == {"place": "meta", "network": "meta"}
    assert Where().key == before


def test_workers_share_out_the_cards(monkeypatch):
    class Started:
        def __init__(self, threads, files, card=None):  # noqa: ARG002
            self.card = card

    monkeypatch.setattr(pool, "Worker", Started)
    workers = pool.Pool(4, print, 1, {}, ["cuda:0", "cuda:1"])
    assert [workers._worker().card for _ in range(4)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert pool.Pool(1, print, 1, {}, ["cuda:0"])._worker().card is None  # the only card needs no hiding
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pool.see_only("cuda:1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    pool.see_only("cuda:1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"


@pytest.mark.parametrize(
    ("device", "shared", "elsewhere", "gpus", "told"),
    [
        ("auto", [], False, 1.0, "auto"),
        ("cuda", ["cuda:0", "cuda:1"], False, 1.0, "cuda"),  # a worker sees its own card alone
        ("auto", ["cuda:0", "cuda:1"], False, 0.0, "cuda"),
        ("cuda:1", ["cuda:1"], False, 1.0, "cuda:1"),
        ("cuda:1", [], True, 1.0, "cuda"),  # on a cluster, the card that it was given
        ("cuda", [], True, 0.0, "cpu"),  # none was asked for, though some may be seen
        ("auto", [], True, 0.0, "cpu"),
        ("auto", [], True, 1.0, "auto"),
        ("cpu", [], True, 1.0, "cpu"),
    ],
)
def test_what_a_worker_is_told(device, shared, elsewhere, gpus, told):
    task = SimpleNamespace(gpus=gpus)
    assert run._device_of(task, device, shared, elsewhere) == told


def task_classes(kind=Task):
    """All of Lightleak's own, below one."""
    for below in kind.__subclasses__():
        if below.__module__.startswith("lightleak."):
            yield below
            yield from task_classes(below)


def test_a_task_that_computes_with_networks_asks_a_cluster_for_a_card():
    """And is known by the same key as ever: cards are no field."""
    for package in ("lightleak.study", "lightleak.audit"):
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            import_module(module.name)
    tasks = set(task_classes()) - {Repeating}
    without = {kind.__name__ for kind in tasks if not kind.gpus}
    assert without == {"Draw", "Redivided", "Rendered", "Pixels", "Ready", "Given", "Pairs"}
    assert not any(field.name == "gpus" for kind in tasks for field in fields(kind))


@pytest.mark.parametrize(("free", "count"), [(None, 8), (103, 4)])
def test_a_card_is_timed_with_as_much_of_a_batch_as_fits(there, monkeypatch, free, count):
    """It launches a step of one image as long as one of eight."""
    attack, prior, shown, timed = replace(ATTACKING["ppa"], batch=8), RenderedPrior(size=32), [], []

    def second(job):
        job()
        timed.append(shown[-1])
        return 1.0

    monkeypatch.setattr(forecast, "_counted", lambda *_: (10, 20))  # bytes of networks and of an image
    monkeypatch.setattr(forecast, "timed", second)
    monkeypatch.setattr(Place, "memory", lambda _: free and Memory(free, free))
    for place, images in ((there, count), (Place(), 1)):
        with place.entered():
            target = place.put(tiny_classifier())
            target.net.register_forward_pre_hook(lambda _, given: shown.append(len(given[0])))
            found = forecast.forecast(attack, prior, target, 3)
        searched = 3 * attack.attempts * (attack.steps + attack.views)
        assert found.seconds * images == searched + 2 * attack.candidates
        assert timed == [images] * 3
        timed.clear()


def test_an_audit_is_timed_until_the_card_has_done_what_it_was_asked(tiny_population, monkeypatch):
    model, done = tiny_classifier(), []
    model.net.register_forward_pre_hook(lambda *_: done.append("pass"))
    monkeypatch.setattr(Place, "wait", lambda _: done.append("wait"))
    nobody = SimpleNamespace(
        order=SimpleNamespace(budget="tiny", prior=None), classifier=model, population=tiny_population, audited=(),
        everybody=(), ensemble=SimpleNamespace(judges=()), embeds=(),
    )  # fmt: skip
    audit.cost(nobody)
    assert done == ["wait", "pass", "wait"] * (len(done) // 3) != []


@dataclass(frozen=True)
class Holds(Task):
    """Holds numbers until it ends, as it may."""

    fails: bool = False
    held: ClassVar[list] = []

    def run(self, store, folder, watch):  # noqa: ARG002
        numbers = torch.zeros(3)
        self.held.append(ref(numbers))
        if self.fails:
            raise ValueError("on purpose")
        return {"numbers": numbers}


@pytest.mark.parametrize("fails", [False, True])
def test_a_task_that_has_ended_leaves_the_memory_of_its_card_to_others(tmp_path, monkeypatch, fails):
    left, task = [], Holds(fails)
    monkeypatch.setattr(Place, "tidy", lambda _: left.append(task.held[-1]()))
    outcome = run.execute(task, Store(tmp_path).open(), device="cpu")
    assert bool(outcome.error) == fails
    assert left == [None]  # tidied once, when nothing was held any more


def test_an_audit_leaves_its_card_to_the_workers(there, tmp_path, monkeypatch):
    verb, seen = import_module("lightleak.cli.audit"), []
    prepared = SimpleNamespace(classifier=there.put(tiny_classifier()), tasks=[])
    monkeypatch.setattr("lightleak.cli.arguments.choose", lambda _: there)
    monkeypatch.setattr(Place, "name", "a card")
    monkeypatch.setattr(Place, "tidy", lambda _: seen.append(prepared.classifier.device.type))
    monkeypatch.setattr(audit, "prepare", lambda *_: prepared)
    monkeypatch.setattr(audit, "finish", lambda *_: SimpleNamespace(sentence="", verdict=""))
    monkeypatch.setattr(verb, "_introduce", lambda _: None)
    monkeypatch.setattr(verb, "run_tasks", lambda *_: seen.append("tasks"))
    verb.main("x.safetensors", "faces", tmp_path)
    assert seen == ["cpu", "tasks"]


def test_what_apples_gpu_draws_follows_our_seeds_and_is_noticed(monkeypatch):
    """On a stand-in for its generator."""
    card = torch.Generator().manual_seed(9)
    monkeypatch.setattr(torch, "mps", SimpleNamespace(
        get_rng_state=card.get_state, set_rng_state=card.set_state, manual_seed=card.manual_seed,
    ))  # fmt: skip
    before = card.get_state()

    def draw():
        return torch.rand(3, generator=card)

    found = []
    for _ in range(2):
        with own(5, "mps"):
            found.append(draw())
    assert torch.equal(*found)
    assert is_noisy(draw, torch.device("mps"))
    assert not is_noisy(lambda: None, torch.device("mps"))
    assert torch.equal(card.get_state(), before)


FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"


def test_a_full_card_ends_training_in_one_line_and_the_rerun_goes_on(tiny_population, tmp_path, monkeypatch):
    recipe = replace(RECIPE, epochs=3)
    loop, begun = import_module("lightleak.training.loop"), []
    whole = loop.one_epoch

    def training():
        return train(tiny_classifier(), tiny_population.train, tiny_population.validation, recipe, folder=tmp_path)

    def fills_up(*arguments):
        begun.append(arguments[6])
        if begun == [0, 1]:
            raise torch.OutOfMemoryError(FULL)
        return whole(*arguments)

    monkeypatch.setattr(loop, "one_epoch", fills_up)
    with pytest.raises(UserError, match=r"a batch of 8 does not fit .*: --recipe.batch \d; what is done stays done"):
        training()
    resumed = training()
    assert begun == [0, 1, 1, 2]  # the first epoch stayed done
    monkeypatch.undo()
    expected = train(tiny_classifier(), tiny_population.train, tiny_population.validation, recipe)
    assert torch.equal(resumed.net.head.weight, expected.net.head.weight)


def test_a_full_card_ends_an_attack_in_one_line_and_a_smaller_batch_goes_on(tmp_path, monkeypatch):
    attack, prior, wanted = replace(ATTACKING["ppa"], batch=4), RenderedPrior(size=32), torch.arange(6)
    whole, searched = PPA.search, []

    def run_it(one):
        oracle = Oracle(tiny_classifier(), one.access)
        return one.run(oracle, prior, wanted, torch.Generator().manual_seed(0), folder=tmp_path)

    def fills_up(self, oracle, prior, part, tell):
        searched.append(part.identities.tolist())
        if len(searched) == 2:
            raise torch.OutOfMemoryError(FULL)
        return whole(self, oracle, prior, part, tell)

    monkeypatch.setattr(PPA, "search", fills_up)
    with pytest.raises(UserError, match=r"a batch of 4 does not fit .*: --attack.batch 2; what is done stays done"):
        run_it(attack)
    found = run_it(replace(attack, batch=2))
    assert searched == [[0, 1], [2, 3], [2], [3], [4], [5]]  # the first two people stayed done
    assert found.classes.tolist() == list(range(6))


def test_a_card_that_is_full_of_candidates_or_of_a_prior_names_the_setting_of_its_batch(monkeypatch, tiny_population):
    def fills_up(*_, **__):
        raise torch.OutOfMemoryError(FULL)

    monkeypatch.setattr(PPA, "prepare", fills_up)
    oracle = Oracle(tiny_classifier(), "gradients")
    with pytest.raises(UserError, match=r"--attack.batch \d"):
        ATTACKING["ppa"].run(oracle, RenderedPrior(size=32), torch.arange(2), torch.Generator().manual_seed(0))
    monkeypatch.setitem(FITS, WganGp, fills_up)
    with pytest.raises(UserError, match=r"a batch of 4 does not fit .*--training.batch 2"):
        fit(tiny_population.public, FITTING["wgan"])


@pytest.mark.gpu
def test_the_whole_path_on_a_card_is_the_same_twice_and_near_the_processor(tiny_population):
    """Train, attack and evaluate: every step on the card."""

    def path(place):
        with place.entered():
            target = train(place.put(tiny_classifier()), tiny_population.train, tiny_population.validation, RECIPE)
            judge = place.put(tiny_classifier(seed=7))
            found = ATTACKING["ppa"].run(
                Oracle(target), RenderedPrior(size=32), torch.arange(6), torch.Generator().manual_seed(0)
            )
            told = evaluate(found, judge, tiny_population, factors=RenderedPrior(size=32).factors_of)
        return target, found, told

    first, again, here_too = path(choose("cuda")), path(choose("cuda")), path(Place())
    assert first[0].device.type == "cuda"
    assert all(torch.equal(a, b) for a, b in zip(first[0].state_dict().values(), again[0].state_dict().values()))
    assert torch.equal(first[1].latents, again[1].latents)
    assert torch.equal(first[1].images, again[1].images)
    loss, other = (told.record["history"][-1]["loss"] for told in (first[0], here_too[0]))
    assert loss == pytest.approx(other, rel=1e-2)
    assert set(first[2].measures) == set(here_too[2].measures)
