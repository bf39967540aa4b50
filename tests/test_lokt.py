"""LOKT: the training of its prior against plain formulas, its inversion where the answer is known, and classes that no
label tells of.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional as F

from lightleak.attacks import LOKT, AccessError, Knowledge, Oracle, Transfer, drawn, draws, learn
from lightleak.attacks.guards import LabelsOnly
from lightleak.attacks.knowledge import SMALL_TRANSFER
from lightleak.attacks.lokt import PRESETS
from lightleak.attacks.steps import LOSSES
from lightleak.attacks.surrogate import Lessons, Practice, as_logits
from lightleak.data.augmentation import Augmentation
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.priors import load, save
from lightleak.priors.conditional64 import ConditionalGenerator, NamingPrior
from lightleak.priors.fit import LOKT_QUICK, Asked, Lokt, fit
from lightleak.priors.fit.lokt import _start, lokt_step, taught_by
from lightleak.randomness import keyed
from lightleak.ranking import named
from test_plgmi import shades
from toy_targets import LATENTS, SIDE, Plain, balls, oracle_of, rng

TINY = Lokt(
    width=2, discriminator_width=2, latents=5, plain=1, steps=4, critic_steps=2, batch=6, average=0.5, warmup=2,
    checkpoint_every=2,
)  # fmt: skip
CLASSES = 5  # four bands of brightness, and one that nobody is
EACH = 16  # images of each class that surrogates learn of
BANDS = torch.tensor([0.35, 0.45, 0.55, 0.65])


def by_label(images):
    """The labels of a target that knows four bands of brightness and has a class that it never names."""
    band = (images.mean((1, 2, 3))[:, None] - BANDS).abs().argmin(1)
    return 20.0 * F.one_hot(band, CLASSES).float()


class Brightness(torch.nn.Module):
    """The same as a network, with so many classes that it never names."""

    def __init__(self, silent=1) -> None:
        super().__init__()
        self.silent = silent
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        centres = torch.cat([BANDS, torch.full((self.silent,), 9.0)])
        return -40 * (images.mean((1, 2, 3))[:, None] - centres).square() + self.anchor


def oracle(guard=None):
    target = Classifier(Brightness(), size=8, classes=CLASSES, mean=(0.0,) * 3, std=(1.0,) * 3)
    return Oracle(target, "labels", guard=guard)


def test_published_settings():
    training, attack, transfer = Lokt(), LOKT(), Transfer()
    assert (training.latents, training.width, training.rate, training.betas) == (128, 64, 2e-4, (0.0, 0.9))
    assert (training.batch, training.critic_steps, training.plain, training.weight) == (128, 5, 1000, 1.5)
    assert (attack.attempts, attack.steps, attack.rate, attack.views, attack.loss) == (5, 600, 0.1, 2, "max-margin")
    assert training.queries + 1000 * transfer.images == 12_660_000
    assert [name.split(":")[1] for name in transfer.students] == ["densenet121", "densenet161", "densenet169"]
    assert attack.access == training.asks == "labels"
    assert PRESETS["lokt"] == attack


def test_golden_max_margin():
    margin = LOSSES[LOKT().loss](torch.tensor([[3.0, 1, 0, -1, 2]]), torch.tensor([0]))
    assert float(margin) == pytest.approx(-1)


def test_whom_a_target_names():
    assert named(torch.tensor([[0.0, 20, 0], [0, 0, 0], [20, 0, 0]])).tolist() == [1, -1, 0]
    logits, labels = torch.randn(4, 3, generator=rng()), torch.tensor([2, -1, 0, -1])
    plain = (F.cross_entropy(logits[:1], labels[:1]) + F.cross_entropy(logits[2:3], labels[2:3])) / 2
    assert float(taught_by(logits, labels)) == pytest.approx(float(plain))
    assert float(taught_by(logits, -torch.ones(4, dtype=torch.int64))) == 0


def started(settings, images):
    return _start(images, settings, 0, "cpu", Asked(by_label), named(by_label(images.floats())), CLASSES)


@pytest.mark.parametrize("weight", [1.5, 0.0])
def test_a_step_is_the_published_one(weight):
    """One update of each network, the same as by the formulas with the same random numbers."""
    images, settings = shades(), replace(TINY, critic_steps=1, average=0.0)
    ours, plain = started(settings, images), started(settings, images)
    heard = lokt_step(ours, settings, images.pixels, weight)

    stream = rng()
    real = 2 * images.floats()[torch.randint(24, (6,), generator=stream)] - 1
    classes = torch.randint(CLASSES, (6,), generator=stream)
    made = plain.generator(torch.randn(6, 5, generator=stream), classes).detach()
    odds, said = plain.discriminator.both(torch.cat([real, made]))
    sure = torch.cat([torch.ones(6), torch.zeros(6)])
    loss = 2 * F.binary_cross_entropy(odds.sigmoid(), sure)
    assert heard["odds"] == pytest.approx(float(loss.detach()), rel=1e-4)
    labels = by_label((made + 1) / 2).argmax(1)
    if weight:
        loss = loss + 1.5 * F.cross_entropy(said[6:], labels)
    plain.discriminator_adam.zero_grad()
    loss.backward()
    plain.discriminator_adam.step()

    classes = torch.randint(CLASSES, (6,), generator=stream)
    z = torch.randn(6, 5, generator=stream)
    odds, said = plain.discriminator.eval().both(plain.generator(z, classes))
    loss = F.binary_cross_entropy(odds.sigmoid(), torch.ones(6))
    loss = loss + 1.5 * F.cross_entropy(said, classes) if weight else loss
    plain.generator_adam.zero_grad()
    loss.backward()
    plain.generator_adam.step()
    for name in ("generator", "discriminator"):
        pairs = zip(getattr(ours, name).parameters(), getattr(plain, name).parameters(), strict=True)
        gaps = torch.cat([(one - other).abs().flatten() for one, other in pairs])
        assert (gaps > 0.05 * settings.rate).double().mean() < 0.02
    assert ours.target.count == (6 if weight else 0)  # plain steps ask nothing
    counts = torch.bincount(labels, minlength=CLASSES) if weight else torch.zeros(CLASSES, dtype=torch.int64)
    assert ours.discriminator.hits.tolist() == counts.tolist()


# ---------------------------------------------------------------------------------------------------------------------
# The prior as a whole


class StopError(Exception):
    pass


@pytest.mark.parametrize("moment", [1, 3, 5])
def test_a_stopped_fit_goes_on_to_the_same_result_and_the_same_count(tmp_path, moment):
    asked = Asked(by_label)
    whole = fit(shades(), TINY, target=asked)
    assert asked.count == 24 + TINY.queries == 24 + 3 * 2 * 6
    assert int(whole.hits.sum()) == TINY.queries

    def stop(step, _total, **_):
        if step == moment:
            raise StopError

    with pytest.raises(StopError):
        fit(shades(), TINY, folder=tmp_path, watch=stop, target=by_label)
    again = Asked(by_label)
    resumed = fit(shades(), TINY, folder=tmp_path, target=again)
    assert all(torch.equal(value, resumed.state()[name]) for name, value in whole.state().items())
    assert again.count == asked.count
    with pytest.raises(UserError, match="belongs to other images, settings or another seed"):
        fit(shades(), TINY, folder=tmp_path, target=lambda images: by_label(1 - images))


@pytest.fixture(scope="module")
def prior():
    """Of shades of grey, for a target that names four of five classes."""
    settings = replace(LOKT_QUICK, width=4, discriminator_width=4, latents=4, warmup=120, plain=2, steps=20, batch=24)
    settings = replace(settings, rate=2e-4, average=0.0, critic_steps=1)
    return fit(shades(48), settings, target=as_logits(oracle()))


def test_it_draws_the_classes_and_names_them(prior, tmp_path):
    assert isinstance(prior, NamingPrior)
    made = prior.decode(prior.sample(64, rng()), torch.arange(4).repeat(16))
    bright = made.mean((1, 2, 3)).view(16, 4).mean(0)
    assert (bright.diff() > 0).all()
    assert bright[3] - bright[0] > 0.1
    assert prior.hits[:4].min() > 0
    assert prior.hits[4] == 0
    with pytest.raises(UserError, match="pass decode"):
        prior.decode(prior.sample(1, rng()))
    save(prior, tmp_path)
    again = load(tmp_path)
    assert torch.equal(again.hits, prior.hits)
    assert torch.equal(again.recognise(made), prior.recognise(made))
    assert again.recognises
    assert again.log_odds


def test_labels_are_all_that_any_stage_asks_for(prior):
    asked = oracle()
    with pytest.raises(AccessError):
        asked.scores(torch.zeros(1, 3, 8, 8))
    guarded = oracle(LabelsOnly())
    assert torch.equal(as_logits(guarded)(shades().floats()), as_logits(asked)(shades().floats()))
    found = LOKT(models="discriminator", attempts=1, steps=1).run(guarded, prior, torch.arange(2), rng())
    assert found.classes.tolist() == [0, 1]


@pytest.fixture(scope="module")
def taught(prior):
    """Two surrogates, learnt of what the prior draws."""
    lessons = Lessons(epochs=12, rate=0.05, batch=40, pretrained=False)
    settings = Transfer(("timm:test_efficientnet",) * 2, EACH, lessons, Practice(augmented=True, cosine=True))
    images = drawn(prior, settings, 8, rng())
    assert images.labels.tolist() == torch.arange(CLASSES).repeat_interleave(EACH).tolist()
    return learn(oracle(), images, settings, rng())


@pytest.mark.parametrize("models", ["ensemble", "surrogate", "discriminator"])
def test_the_whole_chain_finds_the_classes_and_names_the_silent_one(models, prior, taught):
    asked = oracle()
    attack = LOKT(models=models, attempts=3, steps=20)
    knowledge = None if models == "discriminator" else taught
    found = attack.run(asked, prior, torch.arange(CLASSES), rng(), knowledge=knowledge)
    assert found.classes.unique().tolist() == [0, 1, 2, 3]
    assert found.asked.tolist() == [0, 1, 2, 3, 4]
    assert list(found.failures) == [4]
    assert found.failures[4].startswith("no signal: the target called none of")
    assert found.confidence.mean() > 0.5  # whether its label agrees
    assert found.queries == asked.queries == 12  # a label for each image that is returned
    start = replace(attack, steps=0).run(oracle(), prior, torch.arange(4), rng(), knowledge=knowledge)
    assert found.confidence.mean() >= start.confidence.mean()


def test_one_seed_for_all_stages_gives_each_purpose_its_own_stream(prior, taught, monkeypatch):
    """The surrogates' images, the restarts, the augmentations."""
    keys = []

    def noted(*key):
        keys.append(key)
        return keyed(*key)

    monkeypatch.setattr(draws, "keyed", noted)
    images = drawn(prior, Transfer(images=EACH), 8, rng())
    start = LOKT(attempts=3, steps=0).run(oracle(), prior, torch.arange(4), rng(), knowledge=taught)
    assert len(keys) == len(set(keys)) == EACH * CLASSES + 2 * 12
    assert not any((image == images.pixels).flatten(1).all(1).any() for image in start.bytes())


def test_counts_of_labels_last(taught, tmp_path):
    assert taught.queries == sum(taught.named) == EACH * CLASSES
    assert taught.named[4] == 0
    taught.save(tmp_path)
    assert Knowledge.load(tmp_path).named == taught.named


def test_nobody_to_follow_costs_nothing(prior):
    asked = oracle()
    found = LOKT(models="discriminator", attempts=2, steps=3).run(asked, prior, torch.tensor([4]), rng())
    assert len(found) == 0
    assert asked.queries == 0
    assert list(found.failures) == [4]


# ---------------------------------------------------------------------------------------------------------------------
# The inversion where the answer is known


@dataclass(frozen=True)
class Named(Plain):
    """Latents are the colours; it tells apart three balls, of which a fourth class is everything outside."""

    @property
    def classes(self):
        return 4

    @property
    def recognises(self):
        return True

    def recognise(self, images):
        return balls(CENTRES, 2.0)((images.flatten(1) - 0.5) / 0.05)


@dataclass(frozen=True)
class Still(Augmentation):
    """No augmentation: two pixels a side leave nothing to crop."""

    def __call__(self, images, draws):  # noqa: ARG002
        return images


CENTRES = 1.5 * torch.randn(3, LATENTS, generator=rng(1)).sign()


def test_it_comes_to_the_middle_of_a_ball():
    """Balls that do not touch: the margin to everything outside is largest in the middle."""
    attack = LOKT(models="discriminator", attempts=2, steps=300, rate=0.05, view=Still())
    asked = oracle_of(balls(CENTRES, 2.0), 4, "labels")
    found = attack.run(asked, Named(), torch.arange(3), rng())
    assert asked.size == SIDE
    assert torch.allclose(found.latents, CENTRES.repeat_interleave(2, 0), atol=0.02)
    assert found.confidence.tolist() == [1.0] * 6


# ---------------------------------------------------------------------------------------------------------------------
# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LOKT(models="critic"), "models are one of discriminator, surrogate, ensemble, not 'critic'"),
        (lambda: LOKT(attempts=0), "at least 1"),
        (lambda: Lokt(steps=10, plain=10), "some must be left after 10 plain ones"),
        (lambda: Lokt(weight=0.0), "weight must be above 0"),
        (lambda: Transfer(images=0), "at least one image of each class"),
        (lambda: Practice(shown=0), "at least one image"),
    ],
)
def test_bad_settings_are_one_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_what_is_missing_is_said_before_anything_is_asked(prior, taught):
    asked = oracle()
    with pytest.raises(UserError, match="images that its prior draws; pass knowledge"):
        LOKT().run(asked, prior, torch.arange(2), rng())
    with pytest.raises(UserError, match="needs a prior that draws people of given classes"):
        LOKT().run(asked, Plain(), torch.arange(2), rng(), knowledge=taught)
    bigger = Classifier(Brightness(2), size=8, classes=CLASSES + 1, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(UserError, match="draws 5 classes and the target has 6; it was made for another one"):
        LOKT(models="discriminator").run(Oracle(bigger, "labels"), prior, torch.arange(2), rng())
    with pytest.raises(UserError, match="asks its prior whom an image shows, and Plain does not tell"):
        LOKT(models="discriminator").run(asked, Plain(), torch.arange(2), rng())
    with pytest.raises(UserError, match="granted labels, but its knowledge is learnt from scores"):
        LOKT().run(asked, prior, torch.arange(2), rng(), knowledge=replace(taught, access="scores"))
    with pytest.raises(UserError, match="knowledge that LOKT is given was learnt of another target"):
        LOKT().run(asked, prior, torch.arange(2), rng(), knowledge=replace(taught, target="another"))
    with pytest.raises(UserError, match="draws no given classes"):
        drawn(Plain(), SMALL_TRANSFER, 8, rng())
    with pytest.raises(UserError, match="to learn from, got 1"):
        fit(Images(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.zeros(1)), TINY, target=by_label)
    assert asked.queries == 0


def test_images_of_which_the_target_says_nothing_are_nobody_in_the_warm_up(monkeypatch):
    """Where a guard abstains, the decoder was told that class 0 is in the picture."""
    told, forward = [], ConditionalGenerator.forward

    def noted(self, latents, classes):
        told.append(classes)
        return forward(self, latents, classes)

    monkeypatch.setattr(ConditionalGenerator, "forward", noted)
    fit(shades(), replace(TINY, batch=24), target=lambda images: torch.zeros(len(images), CLASSES))
    first, second = told[:2]  # the warm-up
    assert len(torch.cat([first, second]).unique()) == CLASSES


def test_a_prior_of_more_classes_than_the_target_has_is_another_targets(prior):
    target = Classifier(Brightness(silent=0), size=8, classes=4, mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(UserError, match="draws 5 classes and the target has 4; it was made for another one"):
        LOKT("discriminator", attempts=1, steps=1).run(Oracle(target, "labels"), prior, torch.tensor([0]), rng())
