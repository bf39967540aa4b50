"""The contract that every attack keeps, on a plain target and on one that draws random numbers (attack_rows.py)."""

import copy
import random
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from attack_rows import LEVEL, OPTIMISING, ROWS, run
from conftest import tiny_classifier
from lightleak.attacks import (
    ATTACKS,
    GMI,
    LOMMA,
    AccessError,
    Alignment,
    Attack,
    BudgetError,
    Distillation,
    Found,
    Guess,
    Oracle,
    Transfer,
    drawn,
    learn,
    merge,
    queries,
)
from lightleak.attacks.draws import Rows
from lightleak.attacks.reconstruction import TENSORS, join
from lightleak.attacks.surrogate import Lessons, as_logits
from lightleak.errors import UserError
from lightleak.models import bottleneck
from lightleak.models.classifier import Classifier
from lightleak.priors import PixelsPrior, RenderedPrior, StyleGAN2Prior
from lightleak.priors.fit import KED_QUICK, PLG_QUICK, Lokt, PlgMi, fit
from lightleak.priors.stylegan2 import Discriminator, Generator
from lightleak.study.tasks import Distil, FitPrior, Invert, Rendered, TrainTarget, source
from lightleak.training import RECIPES, train
from second_device import card


@pytest.fixture(scope="module")
def learnt(tiny_target, tiny_population, naming):
    """What attacks learn of the target beforehand, each with its own access, once for all tests: LOMMA and SMILE from
    public images, LOKT from what its prior draws.
    """
    settings = Distillation(students=("timm:test_efficientnet",), pretrained=False, epochs=10, batch=8)
    taught = Transfer(settings.students, images=16, lessons=Lessons(epochs=12, rate=0.05, batch=24, pretrained=False))
    public, made = tiny_population.public, drawn(naming, taught, 32, torch.Generator().manual_seed(0))
    ways = {"gradients": (public, settings), "scores": (public, settings), "labels": (made, taught)}
    return {
        access: learn(Oracle(tiny_target, access), images, how, torch.Generator().manual_seed(0))
        for access, (images, how) in ways.items()
    }


@pytest.fixture(scope="module")
def rendered():
    return RenderedPrior(size=32)


@pytest.fixture(scope="module")
def pixels():
    return PixelsPrior(size=32)


@pytest.fixture(scope="module")
def stylegan():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return StyleGAN2Prior(Generator(32, latents=8, styles=8, depth=2, base=256, widest=16), psi=1.0)


@pytest.fixture(scope="module")
def cropped():
    """Of larger images, which are all that its discriminator knows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {"base": 256, "widest": 16}
        return StyleGAN2Prior(Generator(64, 8, 8, depth=2, **settings), Discriminator(64, **settings), crop=32)


@pytest.fixture(scope="module")
def conditional(tiny_population, tiny_target):
    """PLG-MI's prior for the tiny target, from the tiny public images."""
    training = PlgMi(width=4, discriminator_width=4, latents=16, top=6, steps=4, critic_steps=1, batch=16, warmup=120)
    return fit(tiny_population.public, training, target=Oracle(tiny_target).logits)


@pytest.fixture(scope="module")
def naming(tiny_population, tiny_target):
    """LOKT's prior for the tiny target, by labels alone; eight public people would leave classes without a signal."""
    training = Lokt(
        width=4, discriminator_width=4, latents=16, plain=5, steps=15, critic_steps=1, batch=16, warmup=150, rate=3e-4,
        critic_rate=3e-4,
    )  # fmt: skip
    return fit(tiny_population.judge, training, target=as_logits(Oracle(tiny_target, "labels")))


@pytest.fixture
def prior(request):
    """The prior that suits the attack under test."""
    return request.getfixturevalue(ROWS[request.node.callspec.params["name"]].prior)


def test_every_attack_has_a_row():
    assert set(ROWS) == set(ATTACKS)
    assert all(type(row.attack) is ATTACKS[name] for name, row in ROWS.items())


@pytest.mark.parametrize("name", ROWS)
def test_images_are_of_the_asked_classes(name, tiny_target, prior, learnt):
    found = run(name, tiny_target, prior, learnt, classes=[4, 1])
    keep = ROWS[name].attack.keep
    assert found.classes.tolist() == [4] * keep + [1] * keep
    assert found.images.shape == (2 * keep, 3, 32, 32)
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert not found.images.requires_grad
    assert not found.latents.requires_grad
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert found.queries > 0


@pytest.mark.parametrize("name", ROWS)
def test_same_seed_same_result_other_seed_other_result(name, tiny_target, prior, learnt):
    short = dict(ROWS[name].short)
    first, again, other = (run(name, tiny_target, prior, learnt, classes=[2], seed=seed, **short) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.confidence, again.confidence)
    assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("name", ROWS)
def test_results_depend_neither_on_batch_nor_on_shard(name, tiny_target, prior, learnt):
    short = dict(ROWS[name].short)
    whole = run(name, tiny_target, prior, learnt, batch=64, **short)
    small = run(name, tiny_target, prior, learnt, batch=5, **short)
    shards = merge([run(name, tiny_target, prior, learnt, classes=part, **short) for part in ([0, 3], [1, 2, 4, 5])])
    for other in (small, shards):
        assert torch.equal(whole.classes, other.classes)
        assert torch.allclose(whole.latents, other.latents, atol=2e-3)
        assert torch.allclose(whole.images, other.images, atol=LEVEL)
        assert torch.allclose(whole.confidence, other.confidence, atol=2e-3)
        for course, value in whole.per_class.items():
            assert torch.allclose(value.float(), other.per_class[course][other.asked.argsort()].float(), atol=2e-3), (
                course
            )


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.early])
def test_the_course_of_searches_that_end_early_is_whole_in_any_batch(name, tiny_target, prior, learnt, monkeypatch):
    """Also of rounds that nobody records: they are more than the points of a curve."""
    monkeypatch.setattr(queries, "POINTS", 4)
    runs = [run(name, tiny_target, prior, learnt, batch=batch, **dict(ROWS[name].early)) for batch in (64, 4, 1)]
    (course,) = runs[0].per_class
    for found in runs:
        ends = found.per_class[course][:, -1]
        assert found.queries - found.shared == ends[:, 0].sum() < 6 * dict(ROWS[name].early)["queries"]
        assert len(ends[:, 0].unique()) > 1
        assert torch.allclose(found.per_class[course], runs[0].per_class[course], atol=2e-3)


class Watched(Oracle):
    """An oracle that notes how many images it is shown at most, with gradients and without."""

    def _count(self, images, copies=1):
        self.most = getattr(self, "most", {True: 0, False: 0})
        self.most[torch.is_grad_enabled()] = max(self.most[torch.is_grad_enabled()], images)
        super()._count(images, copies)


@pytest.mark.parametrize("name", ROWS)
def test_no_query_shows_more_images_than_a_batch(name, tiny_target, prior, learnt):
    """Without gradients four times as many, or all views of one image; with them, all views of a step."""
    attack, oracle = ROWS[name].attack, Watched(tiny_target, ROWS[name].attack.access)
    run(name, None, prior, learnt, classes=[1, 4], batch=1, oracle=oracle, **dict(ROWS[name].short))
    assert oracle.most[True] <= (attack.views if name == "plgmi" else 1)
    assert oracle.most[False] <= max(4, attack.looks)


# Identities of three attempts: two, three to a batch; one is left over.
@pytest.mark.parametrize("batch", [7, pytest.param(9, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ROWS)
def test_shards_cut_between_groups_join_to_the_whole_bit_for_bit(name, batch, tiny_target, prior, learnt):
    group = replace(ROWS[name].attack, batch=batch).group
    assert 1 < group < 5
    short = dict(ROWS[name].short) | {"batch": batch}
    whole = run(name, tiny_target, prior, learnt, classes=range(5), **short)
    shards = [run(name, tiny_target, prior, learnt, part, **short) for part in (range(group), range(group, 5))]
    joined = join(shards)
    for tensor in TENSORS:
        assert torch.equal(getattr(whole, tensor), getattr(joined, tensor)), tensor
    assert joined.queries == whole.queries


@pytest.mark.parametrize("name", ROWS)
def test_what_it_will_show_the_target_is_told_beforehand(name, tiny_target, prior, learnt):
    row = ROWS[name]
    for one in (row.short, row.start, *row.counted):
        changes = dict(one + row.patient)
        attack, oracle = replace(row.attack, **changes), Oracle(tiny_target, row.attack.access)
        found = run(name, None, prior, learnt, classes=[1, 3, 4], oracle=oracle, **changes)
        assert attack.images_shown(3) == found.queries == oracle.queries, changes


@pytest.mark.parametrize("name", ROWS)
def test_a_stricter_oracle_stops_it(name, tiny_target, prior, learnt):
    order = ["gradients", "scores", "labels"]
    for stricter in order[order.index(ATTACKS[name].access) + 1 :]:
        with pytest.raises(AccessError, match="grants"):
            run(name, tiny_target, prior, learnt, access=stricter)


@pytest.mark.parametrize("kind", ["rendered", "pixels", "conditional", "naming", "stylegan", "cropped"])
@pytest.mark.parametrize("name", ROWS)
def test_a_prior_serves_or_is_refused_before_anything_is_asked(name, kind, tiny_target, learnt, request):
    prior, row = request.getfixturevalue(kind), ROWS[name]
    settings = [dict(row.short)] + [{"critic": 1.0, **dict(row.short)}] * hasattr(row.attack, "critic")
    for changes in settings:
        oracle, refused = Oracle(tiny_target, row.attack.access), ""
        try:
            found = run(name, None, prior, learnt, classes=[1], oracle=oracle, **changes)
            assert found.asked.tolist() == [1]
        except UserError as error:
            refused = str(error)
        if refused:
            assert oracle.queries == 0
            assert refused.startswith((type(row.attack).__name__, "the prior", "this prior"))
            assert "decode" not in refused
            assert kind != row.prior


@pytest.mark.parametrize("name", ROWS)
def test_target_and_randomness_are_left_alone(name, tiny_target, prior, learnt):
    target = copy.deepcopy(tiny_target).train()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    run(name, target, prior, learnt, classes=[0], **dict(ROWS[name].short))
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())
    assert target.training
    assert all(p.grad is None and p.requires_grad for p in target.parameters())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", OPTIMISING)
def test_it_raises_the_confidence_above_start_and_null(name, tiny_target, prior, learnt):
    found = run(name, tiny_target, prior, learnt)
    start = run(name, tiny_target, prior, learnt, **dict(ROWS[name].start))
    null = run("guess", tiny_target, prior, learnt)
    # The confidence in what is returned, judged by plain scores rather than by the attack's own views.
    oracle = Oracle(tiny_target, "scores")

    def confidence(r):
        return oracle.scores(r.images).gather(1, r.classes[:, None]).mean().item()

    if ROWS[name].attack.access == "labels":  # it knows no confidence that could rise
        assert confidence(found) > confidence(start) + 0.02
    else:
        assert confidence(found) > confidence(start) - 1e-3
        assert found.confidence.mean() > start.confidence.mean() + 0.02
    assert confidence(found) > confidence(null) + ROWS[name].above


@pytest.mark.parametrize("kind", ["transforms", "noise"])
@pytest.mark.parametrize("name", ["gmi", "kedmi", "lomma", "plgmi"])
def test_every_attack_with_gradients_takes_an_alignment(name, kind, tiny_target, prior, learnt):
    changes = {"alignment": Alignment(kind=kind, copies=3, batch=7), "steps": 4}
    whole = run(name, tiny_target, prior, learnt, classes=[1, 4], **changes)
    small = run(name, tiny_target, prior, learnt, classes=[4, 1], batch=2, **changes)
    keep = ROWS[name].attack.keep
    assert torch.allclose(whole.images, torch.cat([small.images[keep:], small.images[:keep]]), atol=LEVEL)
    plain = run(name, tiny_target, prior, learnt, classes=[1, 4], steps=4)
    assert not torch.equal(whole.images, plain.images)
    assert whole.queries > 2 * plain.queries  # each copy is a query


@pytest.mark.parametrize("name", ROWS)
def test_it_runs_where_its_target_is(name, tiny_target, learnt, request):
    """On a second device that refuses to mix with the processor: the same but for the last digits."""
    kind, short = ROWS[name].prior, dict(ROWS[name].short)
    prior = PixelsPrior(size=32) if kind == "rendered" else request.getfixturevalue(kind)
    expected = run(name, tiny_target, prior, learnt, classes=[4, 1], **short)
    with card() as device:
        target = copy.deepcopy(tiny_target).to(device)
        parts = {one.name: getattr(prior, one.name) for one in fields(prior) if one.init}
        nets = {part: copy.deepcopy(net).to(device) for part, net in parts.items() if isinstance(net, nn.Module)}
        prior = replace(prior, **nets)
        found = run(name, target, prior, learnt, classes=[4, 1], **short)
        assert found.pixels.device.type == found.latents.device.type == found.confidence.device.type == "cpu"
    assert found.classes.tolist() == expected.classes.tolist()
    assert torch.allclose(found.latents, expected.latents, atol=5e-3)
    assert torch.allclose(found.confidence, expected.confidence, atol=5e-3)


# ---------------------------------------------------------------------------------------------------------------------
# A target that draws random numbers


class Forgetful(nn.Module):
    """A small network with dropout and without batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(392, 6)
        )

    def forward(self, x):
        return self.net(x)


@pytest.fixture(scope="module", params=["MID", "dropout"])
def noisy(request, tiny_target):
    """Makes oracles of a target with MID's bottleneck, or with dropout switched on."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if request.param == "MID":
            net = bottleneck.insert(copy.deepcopy(tiny_target.net), {"head": "head", "width": 8})
            return lambda access: Oracle(tiny_target.with_net(net), access)
        target = Classifier(Forgetful(), size=32, classes=6)
        return lambda access: Oracle(target, access, batch_statistics=True)


@pytest.mark.parametrize("name", ROWS)
def test_noise_inside_a_target_belongs_to_the_attempt(name, noisy, prior, learnt):
    students = {access: replace(one, target="") for access, one in learnt.items()}  # of a target without noise

    def found(seed=0, classes=range(4), **changes):
        torch.manual_seed(seed)  # whatever the user does with the global generator
        state = torch.get_rng_state()
        oracle = noisy(ROWS[name].attack.access)
        assert oracle.noisy
        result = run(name, None, prior, students, classes, oracle=oracle, **(dict(ROWS[name].short) | changes))
        assert torch.equal(state, torch.get_rng_state())
        return result

    batch = 2 * ROWS[name].attack.attempts
    whole, again = found(batch=batch), found(seed=9, batch=batch)
    shards = join([found(seed=part, classes=(2 * part, 2 * part + 1), batch=batch) for part in (0, 1)])
    for other in (again, shards):
        for tensor in TENSORS:
            assert torch.equal(getattr(whole, tensor), getattr(other, tensor)), tensor
    assert torch.allclose(whole.latents, found(batch=5).latents, atol=2e-3)


def test_an_answer_depends_on_its_row_alone(noisy):
    oracle = noisy("gradients")
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = Rows(3, torch.arange(6), torch.arange(6) % 2, step=5)
    together = oracle.logits(images, rows)
    alone = torch.cat([oracle.logits(images[i : i + 1], rows.at(torch.tensor([i]))) for i in range(6)])
    assert torch.allclose(together, alone, atol=1e-5)
    for other in (replace(rows, step=6), replace(rows, seed=4), rows.repeated(1)):
        assert not torch.allclose(oracle.logits(images, other), together, atol=1e-3)
    # Without rows, the same image gets the same answer, in whatever company.
    shown = oracle.scores(images)
    assert torch.allclose(oracle.scores(images.flip(0)).flip(0), shown, atol=1e-5)
    assert not torch.allclose(oracle.scores(images + 1e-6), shown, atol=1e-3)
    with pytest.raises(UserError, match="6 images were shown with 2 rows"):
        oracle.scores(images, rows.at(slice(2)))


class Drawing(nn.Module):
    """A small network that draws in a way of its own."""

    def __init__(self, draw) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head, self.draw = nn.Linear(8, 6), draw

    def forward(self, x):
        features = self.body(x)
        return self.head(features * self.draw(features))


DRAWS = {
    "NumPy": lambda x: torch.from_numpy(np.random.rand(*x.shape)).to(x),
    "Python": lambda x: random.random() + torch.rand_like(x),
    "one for the batch": lambda x: torch.rand(x.shape[1]),
    "a generator of its own": lambda x: torch.rand(x.shape, generator=torch.Generator().manual_seed(1)),
    "a statistic of the batch": lambda x: 1 / (0.1 + x.mean(0, keepdim=True)),
    "gumbel": lambda x: nn.functional.gumbel_softmax(x),
    "a distribution": lambda x: torch.distributions.Normal(1.0, 0.5).sample(x.shape),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_answers_belong_to_the_row_whatever_a_network_draws_with(kind):
    torch.manual_seed(0)
    target = Classifier(Drawing(DRAWS[kind]), size=32, classes=6)
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rows = Rows(3, torch.arange(8), torch.arange(8) % 2, step=5)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    oracle = Oracle(target)
    together = oracle.logits(images, rows).nan_to_num(7.0)
    again = Oracle(target).logits(images, rows).nan_to_num(7.0)
    parts = [oracle.logits(images[part], rows.at(part)).nan_to_num(7.0) for part in (slice(0, 3), slice(3, 8))]
    assert torch.equal(together, again)
    assert torch.allclose(together, torch.cat(parts), atol=1e-5)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_classes_are_whole_numbers(tiny_target):
    prior = RenderedPrior(size=32)
    with pytest.raises(UserError, match="classes are whole numbers, not float32"):
        run("guess", tiny_target, prior, classes=(0.0, 1.0))
    found = run("guess", tiny_target, prior)
    with pytest.raises(UserError, match="classes are whole numbers, not float32"):
        replace(found, classes=found.classes.float())


def test_a_target_without_gradients_is_one_line(tiny_population):
    target = Classifier(Drawing(lambda x: torch.zeros_like(x)), size=32, classes=6)
    target.head.weight.requires_grad_(False)
    target.net.register_forward_hook(lambda _, __, output: output.detach())
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    with pytest.raises(UserError, match="lets no gradient through to its images"):
        Oracle(target).logits(images)
    assert Oracle(target, "scores").scores(images).shape == (2, 6)
    with pytest.raises(UserError, match="Drawing cannot be trained: its output has no gradient"):
        train(target, tiny_population.train, tiny_population.validation, RECIPES["small"])


def test_answers_of_a_noisy_target_average_to_what_is_meant():
    """A dropped-out linear network: over many rows the mean answer is the plain one."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 4 * 4, 3))
    oracle = Oracle(Classifier(net, size=4, classes=3), batch_statistics=True)
    image = torch.rand(1, 3, 4, 4).expand(4000, -1, -1, -1)
    count = torch.arange(4000)
    answers = oracle.logits(image, Rows(0, count, count)).detach()
    plain = Oracle(Classifier(net, size=4, classes=3)).logits(image[:1])
    assert torch.allclose(answers.mean(0), plain[0], atol=5 * float(answers.std(0).max()) / 4000**0.5)
    assert answers.std(0).min() > 0.01


# ---------------------------------------------------------------------------------------------------------------------
# Stopped and going on


class StopError(Exception):
    pass


@pytest.mark.parametrize("name", ROWS)
def test_a_stopped_attack_goes_on_from_its_last_finished_batch(name, tiny_target, prior, learnt, tmp_path):
    heard = []

    def stop(step, total, **_):
        heard.append(step)
        if step > total / 2:
            raise StopError

    short = dict(ROWS[name].short) | {"batch": 2 * ROWS[name].attack.attempts}
    whole = run(name, tiny_target, prior, learnt, **short)
    with pytest.raises(StopError):
        run(name, tiny_target, prior, learnt, watch=stop, folder=tmp_path, **short)
    assert list(tmp_path.glob("rows-*"))
    rest = []
    later = {"watch": lambda step, *_, **__: rest.append(step), "folder": tmp_path}
    found = run(name, tiny_target, prior, learnt, **later, **short)
    assert min(rest) > heard[0]  # what was finished is not done again
    for tensor in TENSORS:
        assert torch.equal(getattr(whole, tensor), getattr(found, tensor)), tensor
    assert found.queries == whole.queries
    assert {key: value.tolist() for key, value in found.per_class.items()} == {
        key: value.tolist() for key, value in whole.per_class.items()
    }
    with pytest.raises(UserError, match=r"another attack left \(another seed\); delete it"):
        run(name, tiny_target, prior, learnt, seed=1, folder=tmp_path, **short)


def test_a_stopped_attack_may_go_on_in_smaller_batches(tiny_target, rendered, tmp_path):
    def stop(step, total, **_):
        if step > total / 2:
            raise StopError

    with pytest.raises(StopError):
        run("ppa", tiny_target, rendered, steps=2, batch=9, watch=stop, folder=tmp_path)
    found = run("ppa", tiny_target, rendered, steps=2, batch=4, folder=tmp_path)
    whole = run("ppa", tiny_target, rendered, steps=2)
    assert found.classes.tolist() == whole.classes.tolist()
    assert torch.allclose(found.latents, whole.latents, atol=2e-3)


# ---------------------------------------------------------------------------------------------------------------------
# A newcomer's attack: everything but its idea is the frame's


@dataclass(frozen=True)
class Wander(Attack):
    """Random search by scores: the best of so many latents, which cost a query each."""

    queries: int = 12
    keep: int = 1
    attempts: int = 1
    excess: int = 0
    batch: int = field(default=64, compare=False)
    access: ClassVar = "scores"

    @property
    def steps(self):
        return self.queries

    @property
    def budget(self):
        return self.queries

    def search(self, oracle, prior, part, tell):
        best, latents = torch.full((len(part),), -1.0), part.latents(prior)
        curve = []
        for step in range(self.queries + self.excess):
            tried = latents + (0.3 * part.normals(prior.latents, stream=step + 1) if step else 0)
            confidence = oracle.scores(prior.decode(tried), part.rows(step)).gather(1, part.classes[:, None])[:, 0]
            latents = torch.where((confidence > best)[:, None], tried, latents)
            best = torch.maximum(best, confidence)
            curve.append(torch.stack([torch.full_like(best, step + 1), best], 1))
            tell(step + 1, confidence=float(best.mean()))
        return Found(latents, confidence=best, per_class={"curve": torch.stack(curve, 1)})


def test_a_newcomer_writes_the_idea_alone(tiny_target, rendered, tmp_path):
    oracle, classes = Oracle(tiny_target, "scores"), torch.tensor([4, 0, 3])
    found = Wander().run(oracle, rendered, classes, torch.Generator().manual_seed(0))
    assert found.queries == oracle.queries == 3 * 12  # exactly its budget, and nothing for judging
    assert found.classes.tolist() == found.asked.tolist() == [4, 0, 3]
    assert found.per_class["curve"].shape == (3, 12, 2)
    assert (found.per_class["curve"][:, :, 1].diff(dim=1) >= 0).all()
    found.save(tmp_path / "found.safetensors")
    again = type(found).load(tmp_path / "found.safetensors")
    assert torch.equal(again.per_class["curve"], found.per_class["curve"])
    small = Wander(batch=1).run(Oracle(tiny_target, "scores"), rendered, classes, torch.Generator().manual_seed(0))
    assert torch.allclose(small.latents, found.latents, atol=1e-4)
    with pytest.raises(BudgetError, match="0 are left"):
        Wander(excess=1).run(oracle, rendered, classes, torch.Generator().manual_seed(0))
    greedy = Wander(attempts=2)  # each of a class's searches takes what is for both: so much fits in no batch
    for batch in (64, 1):
        with pytest.raises(BudgetError, match="0 are left"):
            replace(greedy, batch=batch).run(oracle, rendered, classes, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("classes", "message"),
    [([], "no class"), ([2, 2], "named twice"), ([6], "classes 0 to 5"), ([-1], "classes 0 to 5")],
)
def test_classes_that_cannot_be_attacked(classes, message, tiny_target, rendered):
    oracle = Oracle(tiny_target, "scores")
    with pytest.raises(UserError, match=message):
        Wander().run(oracle, rendered, torch.tensor(classes, dtype=torch.int64), torch.Generator().manual_seed(0))
    assert oracle.queries == 0


def test_what_was_learnt_with_more_access_is_refused(tiny_target, rendered, learnt):
    oracle = Oracle(tiny_target, "scores")
    attack, rng = ROWS["smile"].attack, torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match="granted scores, but its knowledge is learnt from gradients"):
        attack.run(oracle, rendered, torch.tensor([0]), rng, knowledge=learnt["gradients"])
    assert oracle.queries == 0


BUDGETED = [name for name, row in ROWS.items() if row.attack.budget is not None]


@pytest.mark.parametrize("name", BUDGETED)
def test_a_budget_is_never_exceeded_and_curves_rise(name, tiny_target, prior, learnt):
    """What a search says that it spent is what the oracle counted, and no more than its budget."""
    oracle = Oracle(tiny_target, ROWS[name].attack.access)
    budget = dict(ROWS[name].short)["queries"]
    # One search at a time: those of a class are in two batches, and count together.
    found = run(name, None, prior, learnt, oracle=oracle, batch=1, **dict(ROWS[name].short))
    assert found.queries == oracle.queries
    assert found.queries - found.shared <= 6 * budget
    (curve,) = (value for name, value in found.per_class.items() if name in ("curve", "radii"))
    assert curve.shape[0] == 6
    assert curve[:, -1, 0].sum() == found.queries - found.shared
    assert (curve[:, -1, 0] <= budget).all()
    assert (curve.diff(dim=1) >= 0).all()


def test_the_null_scores_chance(tiny_target, rendered):
    """Classes are given out to images at random, so whatever the target says, one in six is right."""
    found = run("guess", tiny_target, rendered, keep=60)
    said = Oracle(tiny_target, "labels").labels(found.images)
    assert (said == found.classes).double().mean().item() == pytest.approx(1 / 6, abs=4 * (5 / 36 / 360) ** 0.5)


def test_latents_of_a_black_box_are_judged_by_labels(tiny_target, rendered):
    with pytest.raises(AccessError):
        run("gmi", tiny_target, rendered, access="labels", steps=1)


def test_an_untrained_network_is_a_target_too(rendered):
    found = run("gmi", tiny_classifier(), rendered, classes=[5], steps=1)
    assert len(found) == 2


def test_what_is_learnt_beforehand_is_granted_no_more_than_the_attack():
    population = source("faces", people=6)
    target = TrainTarget(population)
    conditional = FitPrior(population, PLG_QUICK, target=target)
    assert conditional.asks == "gradients"
    with pytest.raises(UserError, match="Wander is granted scores, but its prior is learnt from gradients"):
        Invert(target, conditional, Wander())
    assert FitPrior(population, KED_QUICK, target=target).asks == "scores"
    Invert(target, FitPrior(population, KED_QUICK, target=target), Wander())
    Invert(target, conditional, Guess())  # a null stands beside the attack whose prior it takes
    with pytest.raises(UserError, match="uses no knowledge"):
        Invert(target, Rendered(population), GMI(), knowledge=Distil(target))


@pytest.mark.parametrize("access", ["scores", "labels"])
def test_surrogates_are_learnt_of_whatever_is_granted(access, tiny_target, tiny_population):
    settings = Distillation(students=("timm:test_efficientnet",), pretrained=False, epochs=2, batch=8)
    oracle = Oracle(tiny_target, access)
    found = learn(oracle, tiny_population.public, settings, torch.Generator().manual_seed(0))
    assert (found.mean, found.access, found.queries) == (None, access, len(tiny_population.public))
    with pytest.raises(UserError, match="says nothing of features"):
        LOMMA(steps=1).identity(oracle, found, 0)
    assert len(found.students) == 1
