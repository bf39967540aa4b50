"""DP-SGD: each image's gradient is clipped, noise has its size, batches are Poisson, epsilon is what was spent."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from conftest import TINY, TinyNet, tiny_classifier
from lightleak import defences
from lightleak.data.population import Images
from lightleak.data.views import View, uniform
from lightleak.defences import DPSGD, MID, SSF, TLDMI, TTS, BiDO, NegLS, RoLSS, RoLSSPlus
from lightleak.defences.dp import Private, calibrated, spent
from lightleak.defences.ghost import Ghost, Kept, listening
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.group_norm import batch_norms, groups_of, regroup
from lightleak.models.zoo import build
from lightleak.surgery import find_skips
from lightleak.training import Plan, Recipe, cross_entropy, predict, train
from lightleak.training.loop import Batch, bfloat16, epoch_seed, mechanism_of, one_epoch

pytest.importorskip("opacus")
SHORT = dataclasses.replace(TINY, epochs=4, milestones=())


def private_classifier():
    return DPSGD().apply(tiny_classifier()).train()


def stepped(classifier, images, labels, settings, index, noise=0.0, size=4, seed=0):
    """How the parameters move in one private step of plain descent at rate 1."""
    before = [p.detach().clone() for p in classifier.net.parameters()]
    mechanism = Private(settings, noise, len(images), size, 1, 1)
    torch.manual_seed(seed)
    with mechanism.stepping(classifier, torch.optim.SGD(classifier.net.parameters(), 1.0)) as step:
        step(lambda chosen: cross_entropy(Batch(classifier, images[chosen], labels[chosen], 0.0)), index)
    return [p.detach() - old for p, old in zip(classifier.net.parameters(), before)]


def some_images(count=6):
    rng = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, 32, 32, generator=rng), torch.randint(6, (count,), generator=rng)


@pytest.mark.parametrize("clip", [0.05, 1.0, 1e6])
def test_each_image_is_clipped_as_in_a_double_loop(clip):
    images, labels = some_images()
    index = torch.tensor([0, 2, 3, 5])
    classifier = private_classifier()
    expected = [torch.zeros_like(p) for p in classifier.net.parameters()]
    for i in index.tolist():
        loss = nn.functional.cross_entropy(classifier(images[i : i + 1]), labels[i : i + 1])
        gradients = torch.autograd.grad(loss, list(classifier.net.parameters()))
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        for total, gradient in zip(expected, gradients):
            total -= gradient * min(1.0, clip / (norm + 1e-6)) / 4
    moved = stepped(classifier, images, labels, DPSGD(clip=clip), index)
    for a, b in zip(moved, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5 * max(clip, 1) if clip < 10 else 1e-4)
    length = math.sqrt(sum(float(m.square().sum()) for m in moved))
    assert length <= clip * (1 + 1e-4)  # four images of a batch of four


def test_one_image_more_moves_the_weights_by_no_more_than_the_clip():
    images, labels = some_images()
    settings = DPSGD(clip=0.1)
    with_it = stepped(private_classifier(), images, labels, settings, torch.tensor([0, 1, 2, 3]))
    without = stepped(private_classifier(), images, labels, settings, torch.tensor([0, 1, 2]))
    apart = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(with_it, without)))
    assert 0.09 / 4 < apart <= 0.1 / 4 * (1 + 1e-4)


def test_noise_has_its_size_and_nobody_gives_noise_alone():
    images, labels = some_images()
    settings = DPSGD(clip=0.5)
    quiet = stepped(private_classifier(), images, labels, settings, torch.tensor([1, 2]))
    loud = stepped(private_classifier(), images, labels, settings, torch.tensor([1, 2]), noise=2.0)
    noise = torch.cat([(a - b).flatten() for a, b in zip(loud, quiet)])
    assert float(noise.std()) == pytest.approx(2.0 * 0.5 / 4, rel=0.03)
    assert abs(float(noise.mean())) < 0.01
    nobody = torch.tensor([], dtype=torch.long)
    still = stepped(private_classifier(), images, labels, settings, nobody)
    assert all(float(m.abs().max()) == 0 for m in still)
    alone = torch.cat([m.flatten() for m in stepped(private_classifier(), images, labels, settings, nobody, noise=2.0)])
    assert float(alone.std()) == pytest.approx(0.25, rel=0.03)


def test_batches_are_poisson():
    mechanism = Private(DPSGD(), 1.0, 50, 10, 400, 1)
    draws = list(mechanism.draws(torch.Generator().manual_seed(0)))
    sizes = torch.tensor([len(d) for d in draws], dtype=torch.float64)
    assert len(draws) == 400
    assert float(sizes.mean()) == pytest.approx(10, abs=0.5)
    assert float(sizes.var()) == pytest.approx(50 * 0.2 * 0.8, rel=0.25)  # binomial: neither fixed nor with replacement
    assert all(len(d.unique()) == len(d) for d in draws)
    often = torch.stack([torch.bincount(d, minlength=50) for d in draws]).double()
    assert float(often.mean(0).sub(0.2).abs().max()) < 0.08


@pytest.mark.parametrize(("noise", "steps"), [(2.0, 10), (6.0, 200)])
def test_epsilon_of_full_batches_is_the_closed_form(noise, steps):
    """Rényi divergence of the Gaussian mechanism is order / (2 noise^2) a step; converted as by Balle et al. (2020)."""
    delta = 1e-5
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    expected = min(
        steps * a / (2 * noise**2) + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders
    )
    assert spent(noise, delta, 1.0, steps) == pytest.approx(expected, rel=1e-6)


def test_epsilon_is_what_the_accountant_adds_up_step_by_step(tiny_population):
    from opacus.accountants import create_accountant

    settings = DPSGD(epsilon=None, noise=1.5)
    result = train(tiny_classifier(), tiny_population.train, tiny_population.validation, SHORT, settings.plan(SHORT))
    told = result.record["privacy"]
    assert (told["steps"], told["sample_rate"]) == (4 * (72 // 16), 16 / 72)
    books = create_accountant("rdp")
    for _ in range(told["steps"]):
        books.step(noise_multiplier=1.5, sample_rate=16 / 72)
    assert told["epsilon"] == pytest.approx(books.get_epsilon(delta=1e-5), rel=1e-9)
    assert (told["delta"], told["noise"], told["clip"], told["sampling"]) == (1e-5, 1.5, 1.0, "Poisson")


def test_noise_follows_from_epsilon():
    noise = calibrated(8.0, 1e-5, 0.1, 100)
    told = [spent(share * noise, 1e-5, 0.1, 100) or 0.0 for share in (1.0, 0.995)]
    assert told[0] <= 8.0 < told[1]
    assert calibrated(2.0, 1e-5, 0.1, 100) > noise
    assert spent(0.0, 1e-5, 0.1, 100) is None  # clipping alone guarantees nothing


@pytest.mark.slow
def test_the_tighter_accountant_counts_no_more():
    tight, loose = spent(2.0, 1e-5, 0.2, 20, "prv"), spent(2.0, 1e-5, 0.2, 20)
    assert tight is not None
    assert loose is not None
    assert 0.5 * loose < tight <= loose * 1.01


@pytest.mark.parametrize("names", ["dp,tts", "mid,dp,negls", "dp,tldmi,rolss"])
def test_it_composes_resumes_and_survives_a_checkpoint(names, tiny_population, tmp_path):
    chosen = tuple(DPSGD(epsilon=None, noise=0.5) if one.title == "DP-SGD" else one for one in defences.parse(names))
    plan = defences.plan(chosen, SHORT)

    def trained(**kwargs):
        return train(tiny_classifier(), tiny_population.train, tiny_population.validation, SHORT, plan, **kwargs)

    class Stop(Exception):
        pass

    def watch(step, *_, **__):
        if step == 3:
            raise Stop

    whole = trained()
    with pytest.raises(Stop):
        trained(folder=tmp_path, watch=watch)
    again = trained(folder=tmp_path)
    assert again.record["history"] == whole.record["history"]
    assert again.record["privacy"] == whole.record["privacy"]
    assert not batch_norms(again.net)
    assert not any("grad_sample" in vars(p) for p in again.net.parameters())
    if not any(one.title == "MID" for one in chosen):
        save(again, tmp_path / "private.safetensors")
        loaded = load(tmp_path / "private.safetensors", net=TinyNet())
        torch.testing.assert_close(
            predict(loaded, tiny_population.test), predict(again, tiny_population.test), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    ("name", "extra", "skips"),
    [
        ("timm:resnet10t", (RoLSS(),), 3),
        pytest.param("timm:vit_tiny_patch16_224", (), 24, marks=pytest.mark.slow),
        pytest.param("timm:densenet121", (RoLSS(),), None, marks=pytest.mark.slow),
        pytest.param("torchvision:densenet121", (TTS(),), None, marks=pytest.mark.slow),
        pytest.param("timm:convnext_atto", (), None, marks=pytest.mark.slow),
    ],
)
def test_it_trains_networks_of_every_family(name, extra, skips, tiny_population, tmp_path):
    few = tiny_population.train.at(torch.arange(0, 72, 4))
    recipe = dataclasses.replace(TINY, epochs=2, batch=6)
    torch.manual_seed(0)
    plan = defences.plan((*extra, DPSGD(epsilon=None, noise=0.1)), recipe)
    result = train(build(name, 6, 32), few, tiny_population.validation, recipe, plan)
    assert not batch_norms(result.net)
    assert math.isfinite(result.record["history"][-1]["loss"])
    if skips is not None:
        assert len(find_skips(result.net, result.example)) == skips
    save(result, tmp_path / "private.safetensors")
    torch.testing.assert_close(
        predict(load(tmp_path / "private.safetensors"), few), predict(result, few), rtol=1e-3, atol=1e-3
    )


# The layout of memory, and what else could make an image's gradient another one than one backward pass makes

AS_THEY_ARE = View(scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
ONE_STEP = Recipe(epochs=1, batch=4, optimiser="sgd", rate=0.1, momentum=0.0, milestones=(), view=AS_THEY_ARE,
                  precision="float32")  # fmt: skip
FAMILIES = [
    "timm:test_resnet", "timm:test_byobnet", "timm:test_convnext", "timm:test_convnext2", "timm:test_efficientnet",
    "timm:test_efficientnet_gn", "timm:test_efficientnet_evos", "timm:test_mambaout", "timm:test_nfnet",
    "timm:test_vit", "timm:test_vit3", "timm:edgenext_xx_small@64", "timm:regnetx_002", "timm:mobilenetv3_small_050",
    "torchvision:squeezenet1_1@64", pytest.param("timm:densenet121", marks=pytest.mark.slow),
    pytest.param("timm:convnext_atto", marks=pytest.mark.slow), pytest.param("timm:resnet18", marks=pytest.mark.slow),
    pytest.param("timm:xception41@64", marks=pytest.mark.slow),
]  # fmt: skip

# A ReLU at its edge falls either way in float32, so that plain steps of two batch sizes differ by as much.
EDGY = ("timm:densenet121", "timm:xception41@64")


def four_images(size=32, count=4):
    rng = torch.Generator().manual_seed(3)
    pixels = torch.randint(256, (count, 3, size, size), generator=rng, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3)


def moved_by_one_epoch(start, images, plan, recipe=ONE_STEP):
    """How one epoch of the library's own loop moves the parameters, over the rate."""
    classifier = start.with_net(copy.deepcopy(start.net))
    optimiser = torch.optim.SGD(classifier.net.parameters(), lr=recipe.rate)
    one_epoch(classifier, optimiser, images, recipe, plan, mechanism_of(plan, recipe, len(images)), 0)
    pairs = zip(start.net.parameters(), classifier.net.parameters(), strict=True)
    return torch.cat([((old - new).detach() / recipe.rate).flatten() for old, new in pairs])


def by_one_backward_pass_each(start, images, dtype=torch.float32):
    """The gradients of the images, N x parameters: plain autograd, an image at a time."""
    net = start.with_net(copy.deepcopy(start.net).to(dtype)).train()
    rows = []
    for image in range(len(images)):
        pixels = images.floats(slice(image, image + 1)).to(dtype)
        loss = nn.functional.cross_entropy(net(pixels), images.labels[image, None])
        parts = torch.autograd.grad(loss, list(net.net.parameters()), allow_unused=True)
        rows.append(torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten()
                               for p, g in zip(net.net.parameters(), parts)]))  # fmt: skip
    return torch.stack(rows)


def hold_by_image(start, images):
    """Lengths and weighted sums against one backward pass each, channels-last and in float64; what each part is."""
    from opacus.grad_sample import GradSampleHooks

    start = start.with_net(copy.deepcopy(start.net).double().to(memory_format=torch.channels_last)).train()
    with listening(start.net, GradSampleHooks) as gradients_of:
        logits = start(images.floats(slice(None)).double().to(memory_format=torch.channels_last))
        found = gradients_of(nn.functional.cross_entropy(logits, images.labels), len(images))
    alone = by_one_backward_pass_each(start, images, torch.float64)
    torch.testing.assert_close(found.lengths(), alone.norm(dim=1), rtol=1e-7, atol=0)
    weights = torch.tensor([1.0, 0.0, 0.3, 0.01], dtype=torch.float64)
    summed, expected = found.weighted(weights), weights @ alone
    got = torch.cat([summed.get(p, torch.zeros_like(p)).flatten() for p in start.net.parameters()])
    assert float((got - expected).norm()) < 1e-7 * float(expected.norm())
    return {name: type(found.parts[p]) for name, p in start.net.named_parameters() if p in found.parts}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_private_step_is_the_plain_step_but_for_clipping_and_noise(name):
    """Opacus 1.6 reads channels-last maps as if they were contiguous; this fails where one of them reaches it."""
    architecture, _, size = name.partition("@")
    torch.manual_seed(0)
    start = DPSGD().apply(build(architecture, 3, int(size or 32)))
    for module in start.net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # which images meet which mask depends on how batches are drawn
    images = four_images()
    hold_by_image(start, images)
    close = 2e-2 if name in EDGY else 1e-3
    plain = moved_by_one_epoch(start, images, Plan())
    quiet = moved_by_one_epoch(start, images, Plan(mechanism=DPSGD(epsilon=None, noise=0.0, clip=1e9).mechanism))
    assert float((quiet - plain).norm()) < close * float(plain.norm())
    alone = by_one_backward_pass_each(start, images)
    lengths = alone.norm(dim=1)
    clip = float(lengths.median())
    clipped = moved_by_one_epoch(start, images, Plan(mechanism=DPSGD(epsilon=None, noise=0.0, clip=clip).mechanism))
    expected = (alone * (clip / lengths).clamp_max(1.0)[:, None]).mean(0)
    assert (lengths > clip).any()
    assert float((clipped - expected).norm()) < close * float(expected.norm())


@pytest.mark.parametrize(("count", "batch"), [(95, 64), (49, 2), (5, 4)])
def test_the_divisor_is_the_expected_batch_whatever_images_over_batch_leaves(count, batch):
    """Opacus's own engine divides by int(images / batches), 47 for 95 images in batches of 64."""
    images = four_images(count=count)
    recipe = dataclasses.replace(ONE_STEP, batch=batch, rate=1e-6)  # so slow that the gradients stand still
    plan = Plan(mechanism=DPSGD(epsilon=None, noise=0.0, clip=1e9).mechanism)
    start = DPSGD().apply(tiny_classifier(3))
    mechanism = mechanism_of(plan, recipe, count)
    drawn = torch.zeros(count)
    rng = torch.Generator().manual_seed(epoch_seed(0, 0))
    for index in mechanism.draws(rng):
        drawn[index] += 1
        uniform(max(1, len(index)), rng)  # as the views of that batch draw
    expected = (drawn[:, None] * by_one_backward_pass_each(start, images)).sum(0) / batch
    moved = moved_by_one_epoch(start, images, plan, recipe)
    assert torch.nn.functional.cosine_similarity(moved, expected, 0) > 0.99
    assert float(moved.norm()) == pytest.approx(float(expected.norm()), rel=0.02)
    assert mechanism.spent()["sample_rate"] == batch / count


class Pooled(nn.Module):
    """A network of one convolution, whose features subclasses treat badly."""

    def __init__(self, **options):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1, **options)
        self.fc = nn.Linear(8, 6)

    def treat(self, features):
        return features

    def forward(self, x):
        return self.fc(self.treat(self.c(x).relu().mean((2, 3))))


class Convolved(nn.Module):
    """A convolution of every kind, each at a few positions and at many."""

    def __init__(self, size):
        super().__init__()
        kinds = [
            {"padding": 1},
            {"padding": (0, 2), "stride": (2, 1), "bias": False},
            {"padding": 2, "dilation": 2, "groups": 4},
            {"padding": 1, "groups": 16},
            {"kernel_size": 1, "stride": 2},
            {"kernel_size": (1, 3), "padding": (0, 1)},
            {"kernel_size": 1, "padding": 1, "groups": 2},
        ]
        self.size = size
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.kinds = nn.ModuleList(nn.Conv2d(16, 32, **{"kernel_size": 3, **kind}) for kind in kinds)
        self.tokens = nn.Linear(32, 24)
        self.fc = nn.Linear(24, 3)

    def forward(self, x):
        x = nn.functional.adaptive_avg_pool2d(self.stem(x), self.size).tanh()
        tokens = torch.cat([kind(x).tanh().flatten(2) for kind in self.kinds], 2).mT
        return self.fc(self.tokens(tokens).tanh().mean(1))


class Tied(nn.Module):
    """Weights that are used more than once: a layer that is called twice, and two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 16, 3, stride=8), nn.Conv2d(16, 16, 3, padding=1)
        self.one, self.other = nn.Linear(16, 16), nn.Linear(16, 16)
        self.other.weight = self.one.weight
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = self.twice(self.twice(self.stem(x)).tanh()).tanh().mean((2, 3))
        return self.fc(self.other(self.one(x).tanh()))


class Scaled(nn.Linear):
    """Another layer than the one it derives from."""

    def forward(self, x):
        return 3 * super().forward(x)


class TiedToAnother(Tied):
    """Its weight is also learnt by a layer whose gradients only Opacus makes."""

    def __init__(self):
        super().__init__()
        self.other = Scaled(16, 16)
        self.other.weight = self.one.weight


class Normed(Tied):
    """A layer whose weight is made of others."""

    def __init__(self):
        super().__init__()
        self.fc = nn.utils.parametrizations.weight_norm(self.fc)


@pytest.mark.parametrize(
    ("make", "of_weights"),
    [
        (lambda: Convolved(3), {"stem": Kept, "kinds.0": Ghost, "kinds.3": Kept, "kinds.4": Ghost, "fc": Ghost}),
        (lambda: Convolved(24), {"stem": Kept, "kinds.0": Kept, "kinds.3": Kept, "kinds.4": Kept, "fc": Ghost}),
        (Tied, {"stem": Kept, "twice": Kept, "one": Kept, "fc": Ghost}),
        (TiedToAnother, {"stem": Kept, "twice": Kept, "one": Kept, "fc": Ghost}),
        (Normed, {"stem": Kept, "one": Kept}),
    ],
)
def test_lengths_and_sums_are_those_of_one_backward_pass_each(make, of_weights):
    torch.manual_seed(0)
    start, images = Classifier(make().train(), size=32, classes=3), four_images()
    batch = Batch(start, images.floats(slice(None)), images.labels, 0.0)
    Private(DPSGD(), 0.0, 10, 4, 1, 1).check(start, cross_entropy, batch)
    found = hold_by_image(start, images)
    assert {name: found[f"{name}.weight"] for name in of_weights} == of_weights


class Centred(Pooled):
    def treat(self, features):
        return features - features.mean(0, keepdim=True)


class CentredByConstant(Pooled):
    """Mixes without a gradient that would show it."""

    def treat(self, features):
        return features - features.mean(0, keepdim=True).detach()


class Neighbours(Pooled):
    def treat(self, features):
        return features + 0.1 * features.roll(1, 0)


class Remembers(Pooled):
    """A layer without parameters that keeps statistics of all it has seen."""

    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm2d(3, track_running_stats=True)

    def forward(self, x):
        return super().forward(self.norm(x))


class Folds(Pooled):
    """A linear layer that is shown each map as many rows: the first dimension is not the image's."""

    def forward(self, x):
        rows = self.c(x).relu().flatten(2).transpose(1, 2).reshape(-1, 8)
        return self.fc(rows).reshape(len(x), -1, 6).mean(1)


class Borrows(Pooled):
    """Uses a layer's weights without calling the layer."""

    def forward(self, x):
        return nn.functional.linear(self.c(x).relu().mean((2, 3)), self.fc.weight, self.fc.bias)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Centred(), r"Centred: an image's loss moves with the other images of its batch.* no epsilon would hold"),
        (CentredByConstant(), "an image's loss moves with the other images"),
        (Neighbours(), "an image's loss moves with the other images"),
        (Remembers(), r"keeps statistics of the images .*norm.running_mean"),
        (Folds(), r"Opacus cannot clip .* in Folds: .* fc.weight \(\(4096, 6, 8\), not 4 times \(6, 8\)\)"),
        (Borrows(), r"Opacus cannot clip .* in Borrows"),
        (Pooled(padding_mode="reflect"), r"Opacus cannot clip .* c.weight \(other values\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_networks_without_a_gradient_for_each_image_are_refused(net, message, tiny_population):
    classifier = Classifier(net, size=32, classes=6)
    plan = defences.plan((DPSGD(epsilon=None, noise=1.0),), SHORT)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=message) as error:
        train(classifier, tiny_population.train, tiny_population.validation, SHORT, plan)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())  # nothing was trained


@pytest.mark.parametrize(
    "name",
    [
        "mobilevit_xxs",
        "test_vit_relpos",
        "test_coatnet",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("davit_tiny", "sequencer2d_s@224", "nest_tiny@224")),
    ],
)
def test_what_opacus_cannot_do_is_one_clear_line(name):
    name, _, size = name.partition("@")
    plan = defences.plan((DPSGD(epsilon=None, noise=1.0),), SHORT)
    with pytest.raises(UserError, match="Opacus cannot clip the gradient of each image") as error:
        train(build(f"timm:{name}", 3, int(size or 64)), four_images(), four_images(), ONE_STEP, plan)
    assert "\n" not in str(error.value)


def test_a_loss_that_compares_images_is_refused():
    def spread(batch):
        logits = batch.classifier(batch.images)
        return cross_entropy(batch) + logits.var(0).sum()

    plan = dataclasses.replace(DPSGD(epsilon=None, noise=1.0).plan(ONE_STEP), loss=spread)
    with pytest.raises(UserError, match="moves with the other images"):
        train(tiny_classifier(3), four_images(), four_images(), ONE_STEP, plan)


def test_frozen_networks_are_one_clear_line():
    frozen = tiny_classifier(3)
    frozen.net.requires_grad_(False)
    for plan in (Plan(), DPSGD(epsilon=None, noise=1.0).plan(ONE_STEP)):
        with pytest.raises(UserError, match="every parameter of TinyNet is frozen"):
            train(frozen, four_images(), four_images(), ONE_STEP, plan)


def test_a_part_that_a_pass_leaves_out_stands_still_but_for_the_noise():
    net = Pooled()
    net.unused = nn.Linear(3, 2)
    plan = DPSGD(epsilon=None, noise=0.0).plan(ONE_STEP)
    weight = net.unused.weight.detach().clone()
    result = train(Classifier(net, size=32, classes=6), four_images(), four_images(), ONE_STEP, plan)
    assert torch.equal(result.net.get_submodule("unused").weight, weight)


def test_it_is_computed_in_float32():
    """In bfloat16 each image's gradient would be rounded before it is clipped."""
    plan = DPSGD(epsilon=None, noise=1.0).plan(ONE_STEP)
    cpu = torch.device("cpu")
    assert not bfloat16(plan, dataclasses.replace(ONE_STEP, precision="auto"), cpu)
    assert bfloat16(Plan(), dataclasses.replace(ONE_STEP, precision="bfloat16"), cpu)
    with pytest.raises(UserError, match="float32"):
        bfloat16(plan, dataclasses.replace(ONE_STEP, precision="bfloat16"), cpu)
    assert defences.plan((RoLSS(), DPSGD()), SHORT).exact


def test_frozen_batch_norm_may_stay(tiny_population):
    """What TL-DMI froze never sees private data: its statistics stand still and mix no images."""
    plan = defences.plan((TLDMI(until="second"), DPSGD(epsilon=None, noise=0.5)), SHORT)
    result = train(tiny_classifier(), tiny_population.train, tiny_population.validation, SHORT, plan)
    kinds = {name: type(module).__name__ for name, module in result.net.named_modules() if "1" in name}
    assert kinds == {"first.1": "BatchNorm2d", "second.1": "BatchNorm2d", "third.1": "GroupNorm"}


def test_group_norm_takes_the_place_of_batch_norm():
    assert [groups_of(c) for c in (1, 2, 3, 6, 8, 12, 32, 64, 96, 512, 1000)] == [1, 1, 1, 1, 2, 3, 8, 16, 24, 32, 25]
    net = TinyNet()
    changed = regroup(net, {"groups": {"first.1": 4, "gone.1": 2}})
    layer = changed.get_submodule("first.1")
    assert isinstance(layer, nn.GroupNorm)
    lost = {f"first.1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert set(changed.state_dict()) == set(net.state_dict()) - lost
    images = torch.rand(5, 16, 8, 8)
    torch.testing.assert_close(layer(images), torch.cat([layer(one[None]) for one in images]))  # each by itself
    with pytest.raises(UserError, match="'stem' is a Conv2d"):
        regroup(net, {"groups": {"stem": 4}})
    with pytest.raises(UserError, match="5 equal groups"):
        regroup(net, {"groups": {"first.1": 5}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPSGD(epsilon=-1), "above 0, such as 8, not -1"),
        (lambda: DPSGD(epsilon=math.inf), "above 0"),
        (lambda: DPSGD(noise=1.0), "epsilon or noise, and None for the other"),
        (lambda: DPSGD(epsilon=None), "epsilon or noise"),
        (lambda: DPSGD(epsilon=None, noise=-0.1), "at least 0"),
        (lambda: DPSGD(delta=0), "probability"),
        (lambda: DPSGD(clip=0), "length above 0"),
        (lambda: DPSGD(groups=0), "at least 1 group"),
        (lambda: DPSGD(accountant="gdp"), "rdp or prv, not 'gdp'"),  # pyright: ignore[reportArgumentType]
        (lambda: DPSGD(delta=0.02).mechanism(72, 16, 4, 4), r"below 1 / images, here 0.014, not 0.02"),
        (lambda: DPSGD(epsilon=1e-6).mechanism(72, 72, 100, 100), "allow more"),
        (lambda: defences.plan((BiDO(), DPSGD()), SHORT), r"DP-SGD bounds .* BiDO compares .* RoLSS, .* MID, NegLS"),
        (lambda: defences.plan((DPSGD(), RoLSSPlus(), BiDO()), SHORT), "BiDO compares the images of a batch"),
        (lambda: defences.plan((DPSGD(), DPSGD(epsilon=1.0)), SHORT), "twice"),
        (lambda: DPSGD().apply(build("torchvision:vit_b_32", 5, 64)), r"MultiheadAttention.*timm's ResNets"),
    ],
)
def test_bad_settings_are_one_clear_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_everything_else_goes_with_it():
    for other in (RoLSS(), RoLSSPlus(), SSF(), TTS(), MID(), NegLS(), TLDMI()):
        assert defences.plan((other, DPSGD()), SHORT).mechanism is not None
