"""Defences by regularisation and by freezing: closed forms, second implementations, and that they act."""

import dataclasses
import itertools
import math
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import TINY, TinyNet, tiny_classifier
from lightleak import defences
from lightleak.attacks.oracle import Oracle
from lightleak.data.population import Images
from lightleak.defences import MID, SSF, TLDMI, TTS, BiDO, LoFt, NegLS, RoLSS, RoLSSPlus, TrapMID, parse
from lightleak.defences.bido import dependence, gaussian_kernel, linear_kernel
from lightleak.defences.mid import averaged
from lightleak.defences.smoothing import smoothed
from lightleak.defences.transfer import pretrain
from lightleak.defences.trapmid import Traps
from lightleak.errors import UserError
from lightleak.models.bottleneck import Bottleneck, divergence, moments
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.zoo import build
from lightleak.training import Batch, Plan, Recipe, combine, cross_entropy, predict, train

SHORT = dataclasses.replace(TINY, epochs=6, milestones=())


def trained(population, *chosen, recipe=SHORT, **kwargs):
    plan = defences.plan(chosen, recipe)
    return train(tiny_classifier(), population.train, population.validation, recipe, plan, **kwargs)


def waves(step, shift, *shape):
    return torch.sin(step * torch.arange(math.prod(shape), dtype=torch.float64) + shift).view(shape)


# BiDO


def by_hand(a, b, measure, kernel_a, kernel_b, ridge=1e-5):
    """The definitions with loops over pairs, one-sided centring and a plain inverse, as published."""
    m = len(a)

    def gram(values, kind):
        k = torch.zeros(m, m, dtype=torch.float64)
        for i in range(m):
            for j in range(m):
                if kind == "linear":
                    k[i, j] = sum(float(x) * float(y) for x, y in zip(values[i], values[j]))
                else:
                    distance = sum((float(x) - float(y)) ** 2 for x, y in zip(values[i], values[j]))
                    k[i, j] = math.exp(-distance / (2 * 5.0**2 * values.shape[1]))
        return k

    h = torch.eye(m, dtype=torch.float64) - 1 / m
    ka, kb = gram(a, kernel_a) @ h, gram(b, kernel_b) @ h
    if measure == "coco":
        product = h @ ka @ h @ kb
        return math.sqrt(math.sqrt(sum(float(x) ** 2 for x in product.flatten()))) / m
    shift = ridge * m * torch.eye(m, dtype=torch.float64)
    ra, rb = ka @ torch.linalg.inv(ka + shift), kb @ torch.linalg.inv(kb + shift)
    return sum(float(ra[i, j]) * float(rb[j, i]) for i in range(m) for j in range(m))


@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_dependence_is_the_double_loop(measure):
    data, hidden = (waves(0.37, 0, 8, 12) + 1) / 2, [waves(0.71, 0.3, 8, 5), waves(1.1, 2, 8, 3)]
    labels = F.one_hot(torch.arange(8) % 4, 4)
    kernels = torch.stack([linear_kernel(labels), *(gaussian_kernel(values) for values in (data, *hidden))])
    image, label = dependence(kernels, measure)
    assert float(image) == pytest.approx(sum(by_hand(z, data, measure, "", "") for z in hidden), rel=1e-7)
    assert float(label) == pytest.approx(sum(by_hand(z, labels, measure, "", "linear") for z in hidden), rel=1e-7)
    if measure == "coco":  # values of the published code on the same numbers
        one = dependence(kernels[:3], measure)
        assert [float(value) for value in one] == pytest.approx([0.001805946, 0.04988567], rel=1e-4)


@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_dependence_has_the_right_slope(measure):
    labels, data = F.one_hot(torch.arange(6) % 3, 3), waves(0.3, 0, 6, 4)

    def value(hidden):
        kernels = torch.stack([linear_kernel(labels), gaussian_kernel(data), gaussian_kernel(hidden)])
        return dependence(kernels, measure, ridge=1e-3)

    assert torch.autograd.gradcheck(value, (waves(0.9, 0.2, 6, 4).requires_grad_(),))


def test_a_dead_layer_gives_no_nan():
    hidden = torch.ones(6, 4, requires_grad=True)
    kernels = torch.stack([linear_kernel(torch.eye(6)), gaussian_kernel(torch.rand(6, 4)), gaussian_kernel(hidden)])
    for measure in ("hsic", "coco"):
        image, label = dependence(kernels, measure)
        (slope,) = torch.autograd.grad(image + label, hidden, retain_graph=True)
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize(
    "defence", [BiDO(lambda_x=5.0, lambda_y=0.0), BiDO(measure="coco", lambda_x=2000.0, lambda_y=0.0)]
)
def test_bido_hides_the_image(defence, tiny_population):
    """The term that is minimised ends lower than where it is only measured."""
    idle = dataclasses.replace(defence, lambda_x=1e-12)
    name = f"{defence.measure}_image"
    acting, watching = (trained(tiny_population, each).record["history"][-1][name] for each in (defence, idle))
    assert acting < 0.9 * watching


def test_bido_ties_layers_to_the_label(tiny_population):
    acting, watching = (
        trained(tiny_population, BiDO(lambda_x=0, lambda_y=each)).record["history"][-1]["hsic_label"]
        for each in (10.0, 1e-12)
    )
    assert acting > watching


def test_bido_finds_stages():
    assert BiDO().watched(tiny_classifier()) == ("first.2", "third.2")
    net = build("timm:resnet10t", 5, 64)
    assert BiDO().watched(net)[-5:] == ("layer1.0", "layer2.0", "layer3.0", "layer4.0", "global_pool")
    cut = defences.RoLSS().apply(net)
    assert BiDO().watched(cut) == BiDO().watched(net)
    assert BiDO().watched(MID().apply(net)) == BiDO().watched(net)
    blocks = BiDO().watched(build("timm:vit_tiny_patch16_224", 5, 32))
    assert blocks[:4] == ("blocks.2", "blocks.5", "blocks.8", "blocks.11")
    assert BiDO(layers=("layer4", "layer2")).watched(net) == ("layer4", "layer2")

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.Flatten())
            self.inner = nn.ModuleDict({"backbone": self.body})
            self.head = nn.Linear(8 * 64, 5)

        def forward(self, x):
            return self.head(self.inner["backbone"](x))

    assert BiDO().watched(Classifier(Wrapper(), size=32, classes=5)) == ("body.1", "body.2", "body.3")


@pytest.mark.parametrize(
    ("architecture", "size", "layers"),
    [
        ("timm:resnet18", 64, "act1 layer1.1 layer2.1 layer3.1 layer4.1 global_pool"),
        ("timm:vgg16", 64, "features.8 features.15 features.22 features.29 features.30 head.drop"),
        ("face:vgg16", None, "feature.12 feature.22 feature.32 feature.42 feature.43 bn"),
        (
            "timm:densenet121", 64,
            "features.norm0 features.transition1.conv features.transition2.conv features.transition3.conv "
            "features.norm5 head_drop",
        ),
        ("timm:vit_tiny_patch16_224", 64, "blocks.2 blocks.5 blocks.8 blocks.11 head_drop"),
        ("torchvision:vit_b_16", 64, "2 5 8 11"),
        ("timm:xcit_nano_12_p16_224", 64, "blocks.2 blocks.5 blocks.8 blocks.11 head_drop"),
        ("timm:levit_128s", 64, "stem.act1 stem.act2 stem.act3 stages.0 stages.1 head.drop"),
        ("timm:pit_ti_224", 64, "transformers.0.blocks.1 transformers.1.blocks.5 transformers.2.blocks.3 head_drop"),
        ("timm:hiera_tiny_224", 64, "blocks.0 blocks.2 blocks.9 blocks.11 head.drop"),
        ("timm:twins_svt_small", 64, "blocks.0.1 blocks.1.1 blocks.2.9 norm head_drop"),
        ("timm:coat_tiny", 64, "serial_blocks1.1 norm2 norm3 norm4 head_drop"),
        (
            "timm:tnt_s_legacy_patch16_224", 64,
            "blocks.2.drop_path blocks.5.drop_path blocks.8.drop_path blocks.11.drop_path head_drop",
        ),
    ],
)  # fmt: skip
def test_bido_watches_the_whole_of_a_network(architecture, size, layers):
    """As it always was for maps and for tokens of one resolution; pyramids of tokens have stages as those of maps."""
    place = "encoder.layers.encoder_layer_" if architecture == "torchvision:vit_b_16" else ""
    assert BiDO().watched(build(architecture, 5, size)) == tuple(place + each for each in layers.split())


class Pair(nn.Module):
    """A block that gives two tensors, so that only what lies within it is seen."""

    def __init__(self, *widths):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, pair):
        x = pair[0]
        for part in self.parts:
            x = part(x)
        return x, pair[1]


class Paired(nn.Module):
    """Such blocks one after the other, on tokens of one resolution."""

    def __init__(self, *blocks):
        super().__init__()
        self.embed = nn.Conv2d(3, blocks[0][0], 8, 8)
        self.blocks = nn.ModuleList(Pair(*widths) for widths in blocks)
        self.head = nn.Linear(blocks[-1][-1], 5)

    def forward(self, x):
        x = self.embed(x).flatten(2).mT
        pair = (x, x)
        for block in self.blocks:
            pair = block(pair)
        return self.head(pair[0].mean(1))


def test_bido_does_not_watch_one_block_alone():
    def watched(*blocks):
        return BiDO().watched(Classifier(Paired(*blocks), size=32, classes=5))

    assert watched(*[(8, 8)] * 8) == tuple(f"blocks.{n}.parts.0" for n in (1, 3, 5, 7))
    assert watched(*[(8, 8, 8, 8, 8)] * 4) == tuple(f"blocks.{n}.parts.3" for n in range(4))
    with pytest.raises(UserError, match="nor blocks throughout it; name its layers"):
        watched((8, 8, 8, 8, 8), *((width, width + 1, width + 1) for width in range(8, 14)))


def test_looking_for_stages_leaves_no_trace():
    classifier = tiny_classifier().train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    state = torch.get_rng_state()
    BiDO().watched(classifier)
    TLDMI().apply(classifier)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in classifier.state_dict().items())
    assert classifier.training
    assert classifier.net.first[1].training
    assert not any(module._forward_hooks for module in classifier.modules())


# MID


def test_divergence_is_the_closed_form():
    raw = 4 * waves(0.45, 0, 2, 8)
    assert float(divergence(raw)) == pytest.approx(33.158028, abs=1e-4)
    mean, std = moments(raw)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, std), normal(0.0, 1.0)).sum(1).mean()
    assert float(divergence(raw)) == pytest.approx(float(wanted), rel=1e-5)
    low = torch.full((1, 4), -500.0, requires_grad=True)
    divergence(low).backward()
    assert torch.isfinite(low.grad).all()


def test_mid_falls_with_beta_and_survives_a_checkpoint(tiny_population, tmp_path):
    mild, hard = (trained(tiny_population, MID(beta=beta)) for beta in (1e-9, 0.05))
    assert hard.record["history"][-1]["kl"] < 0.7 * hard.record["history"][0]["kl"]
    assert hard.record["history"][-1]["kl"] < 0.7 * mild.record["history"][-1]["kl"]
    images = tiny_population.test.floats(slice(0, 4))
    assert not torch.equal(hard(images), hard(images))  # the noise stays at test time
    save(hard, tmp_path / "mid.safetensors")
    again = load(tmp_path / "mid.safetensors", net=TinyNet())
    torch.manual_seed(1)
    first = hard(images)
    torch.manual_seed(1)
    assert torch.allclose(first, again(images), atol=1e-4)
    assert again.recipe["changes"] == [{"kind": "bottleneck", "head": "head", "width": 256}]


def test_averaging_over_draws_is_the_mean_of_draws(tmp_path):
    torch.manual_seed(0)
    classifier = MID(width=8).apply(tiny_classifier()).eval()
    layer = next(module for module in classifier.net.modules() if isinstance(module, Bottleneck))
    with torch.no_grad():
        layer.statistics.bias += 5  # much noise
    images = torch.rand(2, 3, 32, 32)
    still = averaged(classifier, 0)
    assert torch.equal(still(images), still(images))
    with torch.no_grad():
        draws = torch.stack([classifier(images) for _ in range(600)])
        fewer = torch.stack([averaged(classifier, 9)(images) for _ in range(60)])
    assert torch.allclose(draws.mean(0), still(images), atol=0.1)
    assert float(fewer.std(0).mean() / draws.std(0).mean()) == pytest.approx(1 / 3, rel=0.2)
    save(still, tmp_path / "still.safetensors")
    assert torch.equal(load(tmp_path / "still.safetensors", net=TinyNet())(images), still(images))


def test_mid_can_be_attacked():
    oracle = Oracle(averaged(MID().apply(tiny_classifier())))
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    F.cross_entropy(oracle.logits(images), torch.tensor([0, 1])).backward()
    assert float(images.grad.abs().sum()) > 0


# Negative label smoothing


def test_smoothing_is_the_closed_form():
    logits, labels = 3 * waves(1.3, 0, 3, 6), torch.tensor([2, 0, 5])
    for alpha in (0.0, -0.05, -1.0):
        soft = (1 - alpha) * F.one_hot(labels, 6) + alpha / 6
        wanted = -(soft * logits.float().log_softmax(1)).sum(1).mean()
        assert float(smoothed(logits, labels, alpha)) == pytest.approx(float(wanted), rel=1e-5)
    assert float(smoothed(logits, labels, 0.2)) == pytest.approx(
        float(F.cross_entropy(logits.float(), labels, label_smoothing=0.2)), rel=1e-5
    )


def test_the_ramp_is_the_published_one():
    at = [NegLS().alpha_at(epoch, 100) for epoch in (0, 49, 50, 74, 75, 99)]
    assert at == pytest.approx([0, 0, -0.05 / 50, -0.025, -0.05, -0.05])
    classifier = tiny_classifier().eval().requires_grad_(False)
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    loss = NegLS(alpha=-0.5).plan(Recipe(epochs=8)).loss
    for epoch in range(8):
        wanted = smoothed(classifier(images), labels, NegLS(alpha=-0.5).alpha_at(epoch, 8))
        assert float(loss(Batch(classifier, images, labels, epoch / 8))) == pytest.approx(float(wanted))


def test_smoothing_spreads_the_logits(tiny_population):
    plain, pushed = (trained(tiny_population, *chosen) for chosen in ((), (NegLS(alpha=-0.5, start=0.2, full=0.5),)))
    surprise = [-predict(each, tiny_population.train).log_softmax(1).mean() for each in (plain, pushed)]
    assert surprise[1] > 1.2 * surprise[0]


# TL-DMI


def test_what_is_frozen_stays_as_it_was(tiny_population):
    before = {name: value.clone() for name, value in tiny_classifier().net.state_dict().items()}
    result = trained(tiny_population, TLDMI(until="second"))
    same = {name for name, value in result.net.state_dict().items() if torch.equal(value, before[name])}
    early = {name for name in before if name.startswith(("stem", "first", "second"))}
    assert early == same
    assert {"first.1.running_mean", "second.1.num_batches_tracked"} <= same


def test_a_share_counts_layers_in_the_order_they_run():
    def frozen(classifier):
        return [name for name, parameter in classifier.net.named_parameters() if not parameter.requires_grad]

    half = TLDMI(share=0.5).apply(tiny_classifier())
    assert {name.split(".")[0] for name in frozen(half)} == {"stem", "first"}
    assert {name.split(".")[0] for name in frozen(TLDMI(share=1.0).apply(half))} == {"stem", "first", "second", "third"}
    assert frozen(defences.RoLSS().apply(half)) == frozen(half)
    vit = frozen(TLDMI(share=0.5).apply(build("timm:vit_tiny_patch16_224", 5, 32)))
    assert {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.5.mlp.fc1.weight"} <= set(vit)
    assert "head.weight" not in vit


class Wide(TinyNet):
    """A network of images that are not square, and takes any; it notes what it is shown."""

    seen: ClassVar[set] = set()

    def forward(self, x):
        self.seen.add(tuple(x.shape[2:]))
        return super().forward(x)


def test_pretraining_shows_images_as_the_network_takes_them(tiny_population):
    start = Classifier(Wide(), size=(24, 40), classes=6)
    Wide.seen.clear()
    pretrain(start, tiny_population.public, dataclasses.replace(SHORT, epochs=1))
    assert Wide.seen == {(24, 40)}


def test_pretraining_keeps_the_head_and_learns_the_rest(tiny_population):
    start = tiny_classifier()
    result = pretrain(start, tiny_population.public, SHORT)
    assert torch.equal(result.net.head.weight, start.net.head.weight)
    assert not torch.equal(result.net.stem.weight, start.net.stem.weight)
    assert result.classes == 6


# Skips


class Joined(nn.Module):
    """A block that adds, concatenates or takes the larger of what went through it and what went around."""

    def __init__(self, width, how):
        super().__init__()
        self.conv, self.norm, self.how = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), how
        self.mix = nn.Conv2d(2 * width, width, 1) if how == "cat" else nn.Identity()

    def forward(self, x):
        y = self.norm(self.conv(x))
        if self.how == "max":
            return torch.maximum(y, x)
        return self.mix(torch.cat([x, y], 1)) if self.how == "cat" else torch.relu(y + x)


def staged(*stages):
    """A network with stages of such blocks, each of half the resolution."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, 200, 3, padding=1)]
    for stage in stages:
        parts += [nn.Sequential(*(Joined(200, how) for how in stage)), nn.Conv2d(200, 200, 3, 2, 1)]
    net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(200, 5))
    return Classifier(net, size=16, classes=5)


def test_each_kind_of_skip_is_scaled_by_its_own_factor():
    mixed = staged(("add", "add"), ("add", "cat", "add"))
    cut = SSF().apply(mixed)
    steps = [(change["factor"], [skip[0] for skip in change["skips"]]) for change in cut.changes]
    assert steps == [(0.2, ["3.0.add", "3.2.add"]), (0.01, ["3.1.cat"])]
    assert cut.net.get_submodule("3.1.mix").in_channels == 202  # two of 200 older channels are left
    (one,) = SSF(factor=0.3).apply(mixed).changes
    assert (one["factor"], len(one["skips"])) == (0.3, 3)
    (one,) = SSF().apply(staged(("add",), ("cat", "cat"))).changes  # whatever earlier stages have
    assert (one["factor"], one["where"]) == (0.01, "last")
    assert SSF(factor=0.2, where=2).respelled(mixed) == SSF(factor=0.2)
    assert SSF(factor=0.2, where=1).respelled(mixed) == SSF(where=1)
    assert SSF(factor=0.01, where=2).respelled(staged(("add",), ("cat", "cat"))) == SSF()


@pytest.mark.parametrize("defence", [RoLSS(), RoLSSPlus(), SSF()])
@pytest.mark.parametrize("stages", [("add", "add", "max"), ("add", "max", "add")])
def test_half_of_a_stage_is_never_cut(defence, stages):
    net = staged(*((each, "add") for each in stages))
    if stages[-1] == "add" and not isinstance(defence, RoLSSPlus):
        assert defence.apply(net).changes
        return
    with pytest.raises(UserError, match=r"maximum.*which surgery cannot cut"):
        defence.apply(net)


# Heads


class TwoHeads(TinyNet):
    """The mean of two heads makes the logits, as in networks that were distilled; the second begins at zero."""

    def __init__(self, classes=6):
        super().__init__(classes)
        self.distilled = nn.Linear(512, classes)
        nn.init.zeros_(self.distilled.weight)

    def forward(self, x):
        seen = []
        hook = self.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        logits = super().forward(x)
        hook.remove()
        return (logits + self.distilled(seen[0])) / 2


class Beside(TinyNet):
    """Something that is no layer adds to the logits."""

    def forward(self, x):
        return super().forward(x) + x.mean((1, 2, 3))[:, None]


class Spare(TinyNet):
    """The last layer of as many outputs is never asked."""

    def __init__(self, classes=6):
        super().__init__(classes)
        self.spare = nn.Linear(512, classes)


def own(kind):
    torch.manual_seed(0)
    return Classifier(kind(6), size=32, classes=6)


def test_all_layers_that_make_the_logits_are_found():
    assert tiny_classifier().heads == ("head",)
    assert MID().apply(tiny_classifier()).heads == ("head.head",)
    assert own(TwoHeads).heads == ("head", "distilled")
    assert own(Spare).heads == ("head",)
    assert own(Beside).heads == ()
    net = build("timm:deit_tiny_distilled_patch16_224", 5, 32)
    assert net.heads == ("head", "head_dist")
    assert build("timm:vit_tiny_patch16_224", 192, 32).heads == ("head",)  # blocks have layers of as many outputs


@pytest.mark.parametrize(
    "do",
    [
        MID().apply,
        LoFt(rank=4).apply,
        lambda classifier: Traps(TrapMID(), SHORT, classifier),
        lambda classifier: pretrain(classifier, Images(torch.zeros(8, 3, 32, 32).byte(), torch.arange(8) % 4), SHORT),
    ],
    ids=["MID", "LoFt", "Trap-MID", "pre-training"],
)
@pytest.mark.parametrize(
    ("kind", "why"),
    [(TwoHeads, "'head', 'distilled' do"), (Beside, "'head' does not"), (Spare, "'spare' does not")],
)
def test_a_head_of_several_is_not_exchanged(do, kind, why):
    with pytest.raises(UserError, match=f"needs one linear layer that alone makes the logits.*{why}") as error:
        do(own(kind))
    assert "\n" not in str(error.value)


def test_what_comes_before_every_head_is_watched_and_frozen():
    two = own(TwoHeads)
    assert BiDO().watched(two) == BiDO().watched(tiny_classifier())
    frozen = {n.split(".")[0] for n, p in TLDMI(share=1.0).apply(two).net.named_parameters() if not p.requires_grad}
    assert frozen == {"stem", "first", "second", "third"}


# Together


@pytest.mark.parametrize("names", ["rolss,bido", "tts,mid", "bido,negls", "mid,bido,tldmi,rolss"])
def test_they_compose_and_resume(names, tiny_population, tmp_path):
    recipe = dataclasses.replace(SHORT, epochs=4)
    chosen = defences.parse(names)
    whole = trained(tiny_population, *chosen, recipe=recipe)

    class Stop(Exception):
        pass

    def watch(step, *_, **__):
        if step == 2:
            raise Stop

    with pytest.raises(Stop):
        trained(tiny_population, *chosen, recipe=recipe, folder=tmp_path, watch=watch)
    again = trained(tiny_population, *chosen, recipe=recipe, folder=tmp_path)
    assert again.record["history"] == whole.record["history"]
    save(again, tmp_path / "both.safetensors")
    loaded = load(tmp_path / "both.safetensors", net=TinyNet())
    for a, b, c in zip(*(each.state_dict().values() for each in (whole.net, again.net, loaded.net)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(b, c)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BiDO(lambda_x=-0.1), "at least 0"),
        (lambda: BiDO(lambda_x=math.nan), "at least 0"),
        (lambda: BiDO(lambda_x=0, lambda_y=0), "change nothing"),
        (lambda: BiDO(measure="mmd"), "hsic or coco"),  # pyright: ignore[reportArgumentType]
        (lambda: BiDO(sigma=0), "sigma"),
        (lambda: BiDO(layers=("fist.2",)).watched(tiny_classifier()), r"'fist.2'.*first.2, third.2.*close.*first"),
        (lambda: BiDO(layers=("head",)).watched(tiny_classifier()), "before its head"),
        (lambda: MID(beta=-1), "at least 0"),
        (lambda: MID(width=0), "at least 1"),
        (lambda: MID(width=4096).apply(tiny_classifier()), "1 to 512"),
        (lambda: MID().apply(build("torchvision:squeezenet1_1", 5, 64)), "linear layer"),
        (lambda: MID().apply(MID().apply(tiny_classifier())), "has MID's bottleneck already"),
        (lambda: LoFt(4).apply(MID().apply(tiny_classifier())), "has MID's bottleneck already"),
        (lambda: MID().apply(LoFt(4).apply(tiny_classifier())), "has a head of low rank already"),
        (lambda: LoFt(4).apply(LoFt(8).apply(tiny_classifier())), "has a head of low rank already"),
        (lambda: averaged(tiny_classifier()), "no bottleneck"),
        (lambda: NegLS(alpha=0.1), "below 0"),
        (lambda: NegLS(start=0.8), "ramp"),
        (lambda: TLDMI(share=0), "share"),
        (lambda: TLDMI(share=0.1).apply(tiny_classifier()), "nothing would be frozen"),
        (lambda: TLDMI(until="layer9").apply(tiny_classifier()), "'layer9'; its main ones are stem, .*head"),
        (lambda: combine({"NegLS": NegLS().plan(SHORT), "other": Plan(loss=cross_entropy)}), "cannot be combined"),
        (lambda: defences.plan((NegLS(), NegLS(alpha=-1.0)), SHORT), "twice"),
        (lambda: defences.plan((SSF(), SSF(factor=0.5)), SHORT), "twice"),
    ],
)
def test_bad_settings_are_one_clear_line(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_title_names_what_is_not_the_papers():
    assert defences.title(RoLSS()) == "RoLSS"
    assert defences.title(RoLSS(where=2)) == "RoLSS (where 2)"
    assert defences.title(SSF(factor=0.5, where="all")) == "SSF (factor 0.5, where all)"
    assert defences.title(BiDO(layers=("layer1", "layer2"))) == "BiDO (layers layer1, layer2)"


def test_defences_are_parsed_with_their_settings():
    assert parse("ssf(factor=0.5, where=3), rolss+(keep=.8),tts(first=0.25),none") == (
        SSF(factor=0.5, where=3), RoLSSPlus(keep=0.8), TTS(first=0.25),
    )  # fmt: skip
    assert parse("rolss,bido") == (RoLSS(), BiDO())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ssf(k=0.5)", "settings of factor, where"),
        ("ssf(0.5)", "expected ssf"),
        ("ssf(factor=0.5", "expected ssf"),
        ("ssf(factor=open('x'))", "expected ssf"),
        ("ssf(factor=2)", "scales skips by a factor in"),
        ("bdo(a=1)", "there is no defence 'bdo'"),
    ],
)
def test_settings_that_no_defence_has(text, why):
    with pytest.raises(UserError, match=why) as error:
        parse(text)
    assert "\n" not in str(error.value)
