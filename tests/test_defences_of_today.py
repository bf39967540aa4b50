"""AT-AT, MIDRE, LoFt, CALoR and Trap-MID: values of the papers' formulas, that they act, and how they go together."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import TINY, TinyNet, tiny_classifier
from lightleak import defences
from lightleak.data.population import Images
from lightleak.defences import ATAT, DPSGD, MID, MIDRE, CALoR, LoFt, NegLS, RoLSS, TrapMID
from lightleak.defences.calor import adapted
from lightleak.defences.midre import GREY, erase, square
from lightleak.defences.trapmid import Traps, blended, patterns_of, without_traps
from lightleak.errors import UserError
from lightleak.metrics import robustness
from lightleak.metrics.calibration import calibration
from lightleak.metrics.robustness import robust, robust_accuracy
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.low_rank import LowRank
from lightleak.models.zoo import build
from lightleak.training import Batch, Plan, Tuning, accuracy_and_loss, combine, predict, train
from lightleak.training import CheckpointCriterion as At
from lightleak.training.adversarial import other_labels, perturbed
from lightleak.training.loop import bfloat16

SHORT = dataclasses.replace(TINY, epochs=3, milestones=())


def trained(population, *chosen, recipe=SHORT, **kwargs):
    """On all images; some tests take two steps an epoch (`few`)."""
    plan = defences.plan(chosen, recipe)
    return train(tiny_classifier(), population.train, population.validation, recipe, plan, **kwargs)


def few(population):
    """The first 32 training images, in two steps."""
    return dataclasses.replace(population, train=population.train.at(torch.arange(32)))


# AT-AT


def test_targets_are_never_the_label():
    drawn, labels = torch.tensor([0, 4, 3]), torch.tensor([0, 4, 2])
    assert other_labels(drawn, labels, 5).tolist() == [1, 0, 3]


def test_descent_follows_signs_and_stays_in_its_box():
    """A linear network, where each step is known: up where the target's weight is larger than the others' mean."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3 * 2 * 2, 2, bias=False)
            with torch.no_grad():
                self.head.weight.copy_(torch.stack([torch.ones(12), torch.linspace(-5.1, 6, 12)]))

        def forward(self, x):
            return self.head(x.flatten(1))

    network = Classifier(Linear(), size=2, classes=2, mean=(0.0,) * 3, std=(1.0,) * 3)
    images = torch.full((1, 3, 2, 2), 0.5)
    images[0, 0, 0, 0] = 0.0
    rise = torch.where(torch.linspace(-5.1, 6, 12) > 1, 1.0, -1.0).view(1, 3, 2, 2)
    two = perturbed(network, images, torch.tensor([1]), epsilon=1e-3, step=4e-4, steps=2, towards=True)
    assert torch.allclose(two, (images + 8e-4 * rise).clamp(min=0), atol=1e-7)
    five = perturbed(network, images, torch.tensor([1]), epsilon=1e-3, step=4e-4, steps=5, towards=True)
    assert torch.allclose(five, (images + 1e-3 * rise).clamp(min=0), atol=1e-7)
    away = perturbed(network, images, torch.tensor([0]), epsilon=1e-3, step=4e-4, steps=5, towards=False)
    assert torch.equal(away, five)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_epsilon_is_gone_in_bfloat16_and_so_it_is_refused(tiny_population):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    moved = ATAT().moved(tiny_classifier(), images, torch.tensor([0, 1, 2, 3]))
    assert float((moved - images).abs().max()) <= 2.5e-4 + 1e-7
    assert float((moved != images).double().mean()) > 0.99
    lost = (2 * moved - 1).bfloat16() == (2 * images - 1).bfloat16()
    assert 0.5 < float(lost.double().mean()) < 0.9
    plan = defences.plan((ATAT(),), SHORT)
    automatic, asked = (dataclasses.replace(SHORT, precision=each) for each in ("auto", "bfloat16"))
    assert not bfloat16(plan, automatic, torch.device("cpu"))
    with pytest.raises(UserError, match="float32"):
        trained(tiny_population, ATAT(), recipe=asked)
    half = tiny_classifier()
    half.net.half()
    with pytest.raises(UserError, match="lower precision"):
        ATAT().apply(half)


def test_the_loss_is_the_box_step_by_step(tiny_population):
    batch = tiny_population.train.at(torch.arange(8))
    classifier = tiny_classifier().eval()
    images, labels = batch.floats(torch.arange(8)), batch.labels
    torch.manual_seed(3)
    loss = ATAT().loss(Batch(classifier, images, labels, 0.0)).detach()
    torch.manual_seed(3)
    drawn = torch.randint(6, (8,))
    wrong = torch.tensor([(int(d) + 1) % 6 if d == y else int(d) for d, y in zip(drawn, labels)])
    moved = images + (2 * torch.rand(images.shape) - 1) * 2.5e-4
    for _ in range(5):
        moved = moved.clamp(images - 2.5e-4, images + 2.5e-4).clamp(0, 1).requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(classifier(moved), wrong), moved)
        moved = moved.detach() - 5e-5 * slope.sign()
    moved = moved.clamp(images - 2.5e-4, images + 2.5e-4).clamp(0, 1)
    expected = F.cross_entropy(classifier(images), labels) + 0.08 * F.cross_entropy(classifier(moved), wrong)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("published", [False, True])
def test_the_descent_leaves_running_statistics_alone_unless_asked(published):
    classifier = tiny_classifier().train()
    before = int(dict(classifier.net.named_buffers())["first.1.num_batches_tracked"])
    ATAT(training_mode=published).moved(classifier, torch.rand(4, 3, 32, 32), torch.zeros(4, dtype=torch.long))
    after = int(dict(classifier.net.named_buffers())["first.1.num_batches_tracked"])
    assert after - before == (5 if published else 0)
    assert classifier.training


# MIDRE


@pytest.mark.parametrize(("area", "side"), [(0.1, 20), (0.4, 40), (0.8, 57)])
def test_sides_of_the_square(area, side):
    assert int(square(torch.tensor([area]), 64, 64)) == side
    images = torch.zeros(1, 3, 64, 64)
    for corner in (0.0, 0.999999):
        gone = erase(images, torch.tensor([[0.5, corner, corner]]), area, area) != 0
        assert int(gone[0, 0].sum()) == side**2
        assert bool(gone[0, :, -1, -1].all() if corner else gone[0, :, 0, 0].all())
    filled = erase(images, torch.tensor([[0.5, 0.0, 0.0]]), area, area)[0, :, 0, 0]
    assert filled.tolist() == pytest.approx(GREY)
    assert [(2 * each - 1) for each in GREY] == pytest.approx((0.485, 0.456, 0.406))


def test_each_image_loses_a_square_of_its_own_and_nothing_else():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 32, 32)
    seen = MIDRE().erased(images)
    gone = (seen != images).any(1)
    areas = gone.flatten(1).sum(1)
    sides = areas.double().sqrt()
    assert torch.equal(sides, sides.round())
    assert int(areas.min()) >= 10**2
    assert int(areas.max()) <= 20**2
    assert len(areas.unique()) > 5
    for each, area in zip(gone, areas):  # a square: its rows and columns are side by side
        rows, columns = each.any(1).nonzero(), each.any(0).nonzero()
        assert int(rows[-1] - rows[0] + 1) * int(columns[-1] - columns[0] + 1) == int(area)


def test_erasing_reaches_the_network(tiny_population):
    seen = []
    plan = defences.plan((MIDRE(),), SHORT)
    plan = dataclasses.replace(plan, loss=lambda batch: seen.append(batch.images) or F.cross_entropy(
        batch.classifier(batch.images), batch.labels))  # fmt: skip
    train(tiny_classifier(), tiny_population.train, tiny_population.validation,
          dataclasses.replace(SHORT, epochs=1), plan)  # fmt: skip
    grey = torch.tensor(GREY).view(1, 3, 1, 1)
    share = torch.cat([((images - grey).abs() < 1e-6).all(1).flatten(1).double().mean(1) for images in seen])
    assert float(share.min()) > 0.08
    assert float(share.max()) < 0.45


# LoFt and CALoR


def test_the_head_is_the_published_one(tiny_population, tmp_path):
    classifier = LoFt(rank=7).apply(tiny_classifier())
    (low,) = [module for module in classifier.net.modules() if isinstance(module, LowRank)]
    features = torch.rand(5, 512)
    theirs = nn.Sequential(nn.BatchNorm1d(512), nn.Linear(512, 7), nn.Tanh(), nn.Linear(7, 6))
    theirs.load_state_dict(dict(zip(theirs.state_dict(), low.state_dict().values())))
    assert torch.allclose(low.eval()(features), theirs.eval()(features))
    assert classifier.features(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    result = trained(tiny_population, LoFt(rank=7))
    save(result, tmp_path / "loft.safetensors")
    again = load(tmp_path / "loft.safetensors", net=TinyNet())
    assert torch.allclose(predict(result, tiny_population.test), predict(again, tiny_population.test), atol=1e-5)


@pytest.mark.parametrize(
    ("gamma", "least", "value"), [(8, 0.882497, -0.011496), (4, 0.778801, -0.022992), (2, 0.606531, -0.045985)]
)
def test_confidence_adaptation_is_least_where_the_paper_says(gamma, least, value):
    def at(p):
        return float(adapted(torch.tensor([[math.log(p), math.log(1 - p)]]), torch.tensor([0]), 0.25, gamma))

    assert CALoR(gamma=gamma).surest == pytest.approx(least, abs=1e-6)
    assert at(least) == pytest.approx(value, abs=1e-6)
    assert at(least) < min(at(least - 0.01), at(least + 0.01))
    if gamma == 8:
        assert (at(0.99), at(0.5)) == (pytest.approx(-0.002318, abs=1e-6), pytest.approx(-0.000677, abs=1e-6))


def test_adaptation_makes_the_sure_less_sure(tiny_population):
    """At a rate that suits so small a network; the record tells both parts of the training."""
    recipe = dataclasses.replace(TINY, epochs=8, least_steps=96)
    sure, adapted_ = (
        trained(tiny_population, each, recipe=recipe)
        for each in (LoFt(rank=16), CALoR(rank=16, epochs=5, rate=0.5, gamma=1))
    )
    confidences = [
        float(predict(each, tiny_population.train).softmax(1).max(1).values.mean()) for each in (sure, adapted_)
    ]
    assert confidences[0] > 0.5
    assert confidences[1] < confidences[0] - 0.1
    assert accuracy_and_loss(adapted_, tiny_population.train)[0] > 0.5
    assert [len(part["history"]) for part in adapted_.record["tuning"]] == [5]
    assert len(adapted_.record["history"]) == 8
    assert adapted_.record["history"] == sure.record["history"]  # the first part is LoFt's
    part = adapted_.record["tuning"][0]["recipe"]
    assert (part["optimiser"], part["momentum"], part["milestones"]) == ("sgd", 0.9, (0.6, 0.8))
    assert adapted_.record["validation_accuracy"] == accuracy_and_loss(adapted_, tiny_population.validation)[0]


def test_copies_of_a_tuned_training_are_tuned(tiny_population):
    kept = {}
    trained(tiny_population, CALoR(rank=8, epochs=2), moments=(At(accuracy=0.5),), keep=kept.__setitem__)
    assert kept[0].record["epoch"] in (4, 5)
    with pytest.raises(UserError, match="at accuracies"):
        trained(tiny_population, CALoR(rank=8), moments=(At(epoch=2),))


# Trap-MID


def traps(**settings):
    torch.manual_seed(0)
    return Traps(TrapMID(**settings), TINY, tiny_classifier())


def test_a_trapped_image_is_the_blend():
    x, k = (torch.tensor(each).view(1, 3, 1, 1) for each in ([0.2, 0.9, 0.5], [1.0, 0.0, 0.5]))
    assert blended(x, k, 0.02).flatten().tolist() == pytest.approx([0.216, 0.882, 0.5])


def test_classes_come_equally_often():
    made = traps()
    first = torch.cat([made.drawn(5, 0.0) for _ in range(3)])
    assert sorted(torch.bincount(first, minlength=6).tolist()) == [2, 2, 2, 3, 3, 3]
    made.drawn(3, 0.5)
    assert len(made.queue) == 3


def test_the_three_steps_one_by_one(tiny_population):
    """Against a transcription: the discriminator by SGD, patterns by signs, one pass of the network for both parts."""
    made = traps(augment=False)
    recipe = dataclasses.replace(TINY, optimiser="sgd", rate=0.05)
    torch.manual_seed(0)
    made = Traps(TrapMID(augment=False), recipe, tiny_classifier())
    network = tiny_classifier().train()
    other = made.discriminator.with_net(TinyNet(1))
    other.net.load_state_dict(made.discriminator.net.state_dict())
    patterns = made.patterns.clone()
    images, labels = tiny_population.train.floats(torch.arange(8)), tiny_population.train.labels[:8]
    torch.manual_seed(5)
    loss = made.loss(Batch(network, images, labels, 0.0)).detach()

    torch.manual_seed(5)
    classes = torch.cat([torch.randperm(6), torch.randperm(6)])[:8]
    optimiser = torch.optim.SGD(other.net.parameters(), 0.05, momentum=0.9)
    other.train()
    trapped = 0.02 * patterns[classes] + 0.98 * images
    told = other(torch.cat([images, trapped]))[:, 0].sigmoid()
    truth = torch.cat([torch.ones(8), torch.zeros(8)])
    (-(truth * told.log() + (1 - truth) * (1 - told).log())).mean().backward()
    optimiser.step()
    for ours, theirs in zip(made.discriminator.net.parameters(), other.net.parameters()):
        assert torch.allclose(ours, theirs, atol=1e-6)
    other.eval()
    twin = tiny_classifier().eval()
    twin.net.load_state_dict(tiny_classifier().net.state_dict())
    patterns = patterns.requires_grad_()
    trapped = 0.02 * patterns[classes] + 0.98 * images
    aim = -other(trapped)[:, 0].sigmoid().log().mean() + F.cross_entropy(twin(trapped), classes)
    (slope,) = torch.autograd.grad(aim, patterns)
    moved = (patterns.detach() - 0.01 * slope.sign()).clamp(0, 1)
    assert float((moved != made.patterns).double().mean()) < 0.001
    logits = twin.train()(torch.cat([images, 0.02 * made.patterns[classes] + 0.98 * images]))
    expected = 0.8 * F.cross_entropy(logits[:8], labels) + 0.2 * F.cross_entropy(logits[8:], classes)
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.slow
def test_patterns_catch_what_the_network_is_shown(tiny_population, tmp_path):
    recipe = dataclasses.replace(TINY, epochs=14, keep="last")
    result = trained(tiny_population, TrapMID(augment=False, blend=0.1), recipe=recipe)
    patterns = patterns_of(result)
    assert patterns is not None
    assert patterns.shape == (6, 3, 32, 32)
    images = tiny_population.test.floats(torch.arange(len(tiny_population.test)))
    labels = tiny_population.test.labels
    wrong = (labels + 1) % 6
    found = result(blended(images, patterns[wrong], 0.1)).argmax(1)
    assert float((found == wrong).double().mean()) > 0.5
    assert float((result(images).argmax(1) == labels).double().mean()) > 0.7
    save(result, tmp_path / "trapped.safetensors")
    again = load(tmp_path / "trapped.safetensors", net=TinyNet())
    assert torch.equal(patterns_of(again), patterns)  # pyright: ignore[reportArgumentType]
    clean = without_traps(again)
    assert patterns_of(clean) is None
    assert torch.allclose(clean(images), result(images), atol=1e-5)
    save(clean, tmp_path / "clean.safetensors")
    assert torch.equal(load(tmp_path / "clean.safetensors", net=TinyNet())(images), clean(images))
    with pytest.raises(UserError, match="no patterns"):
        without_traps(clean)


def test_own_views_keep_half_of_the_images_whole():
    made = traps()
    images = torch.rand(200, 3, 32, 32)
    torch.manual_seed(1)
    seen = made.augmented(images)
    same = (seen - images).abs().flatten(1).amax(1) < 1e-5
    assert 0.05 < float(same.double().mean()) < 0.25  # no crop, no mirror, no turn: an eighth
    assert torch.equal(traps(augment=False).augmented(images), images)


# Together


@pytest.mark.parametrize(
    ("names", "stop"),
    [("rolss,atat", 2), ("rolss,trapmid,bido", 2), ("negls,calor", 2), ("negls,calor", 5), ("bido,midre,loft", 1)],
)
def test_they_compose_and_a_stopped_run_goes_on_alike(names, stop, tiny_population, tmp_path):
    chosen = defences.parse(names)

    class Stop(Exception):
        pass

    def watch(step, total, **_):
        assert step <= total
        if step == stop:
            raise Stop

    whole = trained(few(tiny_population), *chosen)
    with pytest.raises(Stop):
        trained(few(tiny_population), *chosen, folder=tmp_path, watch=watch)
    again = trained(few(tiny_population), *chosen, folder=tmp_path)
    assert again.record["history"] == whole.record["history"]
    for a, b in zip(whole.net.state_dict().values(), again.net.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ATAT(weight=0), "above 0"),
        (lambda: ATAT(epsilon=float("nan")), "epsilon"),
        (lambda: ATAT(steps=0), "one at least"),
        (lambda: MIDRE(least=0.5), "least <= most"),
        (lambda: MIDRE(most=1.0), "0 < least"),
        (lambda: LoFt(rank=0), "at least 1"),
        (lambda: LoFt(rank=512).apply(tiny_classifier()), "fewer numbers"),
        (lambda: LoFt().apply(build("torchvision:squeezenet1_1", 5, 64)), "linear layer"),
        (lambda: CALoR(gamma=0), "above 0"),
        (lambda: CALoR(epochs=0), "at least 1 epoch"),
        (lambda: TrapMID(blend=1), "shares"),
        (lambda: TrapMID(alpha=0.1), "below 0"),
        (lambda: TrapMID(step=float("nan")), "step"),
        (lambda: defences.plan((ATAT(), NegLS()), SHORT), "replace the training loss"),
        (lambda: defences.plan((TrapMID(), ATAT()), SHORT), "replace the training loss"),
        (lambda: defences.plan((MID(), LoFt()), SHORT), "head of their own"),
        (lambda: defences.plan((LoFt(), CALoR()), SHORT), "head of their own"),
        (lambda: defences.plan((DPSGD(), ATAT()), SHORT), "more than once"),
        (lambda: defences.plan((DPSGD(), TrapMID()), SHORT), "beside the network"),
        (lambda: defences.plan((DPSGD(), CALoR()), SHORT), "no noise covers"),
        (lambda: defences.parse("midre-0.9"), "midre-0.8"),
    ],
)
def test_what_cannot_be_is_one_clear_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_presets_name_is_its_settings():
    assert defences.parse("midre-0.8,rolss") == (MIDRE(most=0.8), RoLSS())
    assert defences.parse("loft-35,trapmid-negls") == (LoFt(35), TrapMID(alpha=-0.05))


def test_plans_keep_all_parts():
    tuning = Tuning(SHORT, lambda batch: batch.images.sum())
    first = Plan(views=(torch.neg,), tuning=(tuning,), robust=True, passes=2)
    both = combine({"first": first, "second": Plan(views=(torch.abs,), head=True)})
    assert both == Plan(views=(torch.neg, torch.abs), tuning=(tuning,), robust=True, passes=2, head=True)


def test_smoothing_of_trapped_training_follows_the_ramp():
    recipe = dataclasses.replace(TINY, epochs=8)
    assert TrapMID().alpha_at(0.9, recipe) == 0.0
    assert TrapMID(alpha=-0.05).alpha_at(0.25, recipe) == 0.0
    assert TrapMID(alpha=-0.05).alpha_at(0.75, recipe) == -0.05


def test_an_image_of_another_size_is_trapped_at_the_networks(tiny_population):
    made = traps()
    images = Images(tiny_population.train.pixels[:4], tiny_population.train.labels[:4])
    larger = F.interpolate(images.floats(torch.arange(4)), (40, 40))
    loss = made.loss(Batch(tiny_classifier(), larger, images.labels, 0.0))
    assert math.isfinite(float(loss.detach()))


# What they cost


def test_robust_accuracy_of_a_network_whose_margin_is_known():
    """Brightness decides: an image of 0.5 + d is right within epsilon while d > epsilon."""

    class Bright(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, 2)
            with torch.no_grad():
                self.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
                self.head.bias.copy_(torch.tensor([0.5, -0.5]))

        def forward(self, x):
            return self.head(x.mean((1, 2, 3))[:, None])

    network = Classifier(Bright(), size=8, classes=2, mean=(0.0,) * 3, std=(1.0,) * 3).train()
    levels = torch.tensor([100, 125, 127, 128, 130, 131, 200])  # 127.5 lies between the classes
    images = Images(levels.byte().view(-1, 1, 1, 1).expand(-1, 3, 8, 8), (levels > 127.5).long())
    state = torch.get_rng_state()
    assert robust(network, images).tolist() == [True, True, False, False, True, True, True]
    assert robust_accuracy(network, images, epsilon=4 / 255) == pytest.approx(2 / 7)
    wrong = Images(images.pixels, 1 - images.labels)
    assert robust_accuracy(network, wrong) == 0
    assert torch.equal(state, torch.get_rng_state())
    assert network.training


def test_where_an_image_starts_does_not_depend_on_the_batch(tiny_population, monkeypatch):
    starts, drawn = {128: [], 3: []}, robustness.random_start
    for batch, seen in starts.items():
        monkeypatch.setattr(
            robustness, "random_start", lambda *given, seen=seen: seen.append(drawn(*given)) or seen[-1]
        )
        robust(tiny_classifier(), tiny_population.test.at(torch.arange(7)), steps=1, batch=batch)
    assert [len(seen) for seen in starts.values()] == [1, 3]
    assert torch.allclose(*map(torch.cat, starts.values()), atol=1e-9)
    assert float(starts[128][0].abs().max()) <= robustness.EPSILON


def test_calibration_by_hand():
    """Four answers at 90 % of which three are right, six at 60 % of which all are: 0.4 * 0.15 + 0.6 * 0.4."""
    confidence = torch.tensor([0.9] * 4 + [0.6] * 6)
    logits = torch.stack([confidence, 1 - confidence], 1).log()
    labels = torch.tensor([0, 0, 0, 1] + [0] * 6)
    error, over = calibration(logits, labels)
    assert error == pytest.approx(0.4 * 0.15 + 0.6 * 0.4, abs=1e-6)
    assert over == pytest.approx(0.72 - 0.9, abs=1e-6)
    assert calibration(logits[:0], labels[:0]) == (None, None)
