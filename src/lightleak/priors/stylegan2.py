"""StyleGAN2's generator and discriminator, written for attacks, and a prior made of them.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020; Training Generative Adversarial
Networks with Limited Data, NeurIPS 2020 (the "skip" generator and the "residual" discriminator). Parameters and
buffers carry the official names and shapes: 30,370,060 parameters in the generator for 1024 x 1024, 29,012,513 in the
discriminator. Both work in [-1, 1]; the prior turns that into [0, 1].

What makes an attack step fast, without changing its result:

    a style scales the activations and demodulation scales the output, so all images share one convolution
    one matrix product makes the styles of all layers when they share one w
    sums of squared weights, noise maps and gains do not depend on the latents and are made once (`Prepared`)
    only the window of each layer that the wanted crop depends on is computed
"""

from dataclasses import dataclass, field, replace
from math import log2, sqrt
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.errors import UserError, refuse
from lightleak.place import Precision, lowered
from lightleak.priors.networks import fill, weights_of
from lightleak.priors.prior import Prior, State

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024)
LIMITS = {"depth": 32, "base": 65536, "widest": 1024, "group": 64}
BOX_SAMPLES = 10_000  # styles that the ends of the box of latents are taken from
FIR = (1.0, 3.0, 3.0, 1.0)  # the binomial filter of all up- and downsampling
Noise = Literal["const", "none"]


class Mapping(nn.Module):
    """Latents z N x `latents` to styles w N x `styles`; keeps the mean style for truncation."""

    w_avg: Tensor

    def __init__(self, latents: int, styles: int, depth: int) -> None:
        super().__init__()
        self.depth = depth
        for index in range(depth):
            setattr(self, f"fc{index}", Dense(styles if index else latents, styles, rate=0.01))
        self.register_buffer("w_avg", torch.zeros(styles))

    def forward(self, z: Tensor) -> Tensor:
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for index in range(self.depth):
            x = F.leaky_relu(getattr(self, f"fc{index}")(x), 0.2) * sqrt(2)
        return x

    @torch.no_grad()
    def track(self, w: Tensor, beta: float = 0.995) -> None:
        """Move the running mean style towards the mean of a training batch."""
        self.w_avg.lerp_(w.detach().mean(0), 1 - beta)


class Dense(nn.Module):
    """A linear layer whose stored weights are scaled at run time by rate / sqrt(inputs), its bias by rate."""

    def __init__(self, inputs: int, outputs: int, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.rate = rate
        self.gain = rate / sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias * self.rate)


class StyledLayer(nn.Module):
    """Parameters of a modulated 3 x 3 convolution with noise; `Step` says how they are used."""

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, size: int, styles: int) -> None:
        super().__init__()
        self.affine = Dense(styles, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(size, size))
        self.register_buffer("resample_filter", fir())


class ToRGB(nn.Module):
    """Parameters of a modulated 1 x 1 convolution to colours, without demodulation."""

    def __init__(self, inputs: int, styles: int) -> None:
        super().__init__()
        self.affine = Dense(styles, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))


class Block(nn.Module):
    """The layers of one resolution."""

    def __init__(self, inputs: int, outputs: int, size: int, styles: int) -> None:
        super().__init__()
        if inputs:
            self.conv0 = StyledLayer(inputs, outputs, size, styles)
        else:
            self.const = nn.Parameter(torch.randn(outputs, size, size))
        self.conv1 = StyledLayer(outputs, outputs, size, styles)
        self.torgb = ToRGB(outputs, styles)
        self.register_buffer("resample_filter", fir())


class Step(NamedTuple):
    """One modulated convolution, ready for any styles: the layer's parameters as one window needs them."""

    slot: int  # which style of W+ it takes
    weight: Tensor
    squares: Tensor | None  # inputs x outputs, sums of squared weights; None: colours, not demodulated
    bias: Tensor
    noise: Tensor | None
    blur: Tensor | None  # the filter of what comes from the next smaller map, unless the weight holds it already
    up: bool  # whether what it makes, or adds to, comes from the next smaller map
    keep: slice  # rows and columns of the result that somebody needs


class Prepared(NamedTuple):
    """A generator's synthesis of one window, with everything that does not depend on the styles computed beforehand."""

    const: Tensor
    weight: Tensor  # the affine maps from w to the styles of all steps, one below the other
    bias: Tensor
    widths: list[int]
    steps: list[Step]
    clamp: float | None

    def cast(self, kind: torch.dtype) -> "Prepared":
        """The same with maps and convolutions in another precision; styles, demodulation and the image keep theirs."""
        steps = [
            step._replace(
                weight=step.weight.to(kind),
                bias=step.bias.to(kind),
                noise=None if step.noise is None else step.noise.to(kind),
                blur=step.blur if step.squares is None or step.blur is None else step.blur.to(kind),
            )
            for step in self.steps
        ]
        return self._replace(const=self.const.to(kind), steps=steps)


def as_computed(device: torch.device) -> tuple[torch.memory_format, bool]:
    """The layout that `Synthesis.prepare` is given on a device, and whether blurs are merged there."""
    return (torch.channels_last, True) if device.type == "cuda" else (torch.contiguous_format, False)


class Synthesis(nn.Module):
    """Styles to images, block by block from 4 x 4 up."""

    def __init__(self, size: int, styles: int, base: int, widest: int, clamp: float | None) -> None:
        super().__init__()
        self.size, self.styles, self.clamp = size, styles, clamp
        self.sizes = [2**power for power in range(2, int(log2(size)) + 1)]
        self.slots = 2 * len(self.sizes)
        inputs = 0
        for resolution in self.sizes:
            outputs = min(base // resolution, widest)
            setattr(self, f"b{resolution}", Block(inputs, outputs, resolution, styles))
            inputs = outputs

    def forward(self, w: Tensor, noise: Noise | torch.Generator = "const", crop: slice | None = None) -> Tensor:
        """Images N x 3 x size x size, about in [-1, 1], from styles as in `synthesise`; arguments as in `prepare`."""
        return synthesise(self.prepare(noise, crop, len(w), *as_computed(w.device)), w)

    def prepare(
        self,
        noise: Noise | torch.Generator = "const",
        crop: slice | None = None,
        count: int = 1,
        memory_format: torch.memory_format = torch.contiguous_format,
        merged: bool = False,
    ) -> Prepared:
        """Compute everything that does not depend on the styles; differentiable in the parameters.

        `noise` is the stored maps, none, or fresh maps for `count` images from a generator. `crop` is a window of
        rows and columns; only what it depends on is prepared. `merged` folds each blur into the up-convolution before
        it, 6 x 6 in place of 3 x 3 and 4 x 4: the same function by four times the products and without a depthwise
        convolution, which is what graphics cards are slow at; processors are faster with the two.
        """
        needed, wide = _windows(self.sizes, crop or slice(0, self.size))
        steps: list[Step] = []
        affines: list[tuple[Dense, float]] = []

        def styled(layer: StyledLayer, slot: int, window: slice, origin: int, up: bool) -> None:
            weight = layer.weight.transpose(0, 1) if up else layer.weight
            blur = _depthwise(4 * torch.as_tensor(layer.resample_filter), len(layer.bias)) if up else None
            if blur is not None and merged:
                weight, blur = _merged(weight, blur[:1]), None
            maps = None
            if isinstance(noise, torch.Generator):
                side = layer.noise_const.shape[0]
                maps = torch.randn(count, 1, side, side, generator=noise, device=noise.device).to(layer.weight.device)
            elif noise == "const":
                maps = layer.noise_const[None, None]
            if maps is not None:
                maps = maps[..., window, window] * layer.noise_strength * sqrt(2)
            steps.append(
                Step(
                    slot=slot,
                    weight=weight.contiguous(memory_format=memory_format),
                    squares=layer.weight.square().sum((2, 3)).t(),
                    bias=(layer.bias * sqrt(2)).view(1, -1, 1, 1),
                    noise=maps,
                    blur=blur,
                    up=up,
                    keep=slice(window.start - origin, window.stop - origin),
                )
            )
            affines.append((layer.affine, 1.0))

        for index, size in enumerate(self.sizes):
            block: Block = getattr(self, f"b{size}")
            origin = 2 * needed[index - 1].start if index else 0
            if index:  # colours share their style with the layer after them
                styled(block.conv0, 2 * index - 1, wide[index], origin, up=True)
            styled(block.conv1, 2 * index, needed[index], wide[index].start, up=False)
            window = slice(needed[index].start - origin, needed[index].stop - origin)
            blur = _depthwise(4 * torch.as_tensor(block.resample_filter), 3)
            if merged:  # one dense convolution of three channels
                blur = torch.eye(3, device=blur.device)[:, :, None, None] * blur
            colours, up = block.torgb, index > 0
            steps.append(
                Step(2 * index + 1, colours.weight, None, colours.bias, None, blur if up else None, up, window)
            )
            affines.append((colours.affine, 1 / sqrt(colours.weight.shape[1])))
        first: Block = self.b4  # pyright: ignore[reportAssignmentType]
        return Prepared(
            first.const[None, :, wide[0], wide[0]].contiguous(memory_format=memory_format),
            torch.cat([affine.weight * (affine.gain * gain) for affine, gain in affines]),
            torch.cat([affine.bias * (affine.rate * gain) for affine, gain in affines]),
            [len(affine.bias) for affine, _ in affines],
            steps,
            self.clamp,
        )


def synthesise(prepared: Prepared, w: Tensor) -> Tensor:
    """Images of a prepared window, about in [-1, 1], from styles N x `styles` shared by all layers or N x slots x
    `styles`.
    """
    image = advance(prepared, w, State(prepared.const.expand(len(w), -1, -1, -1), None), slice(None)).image
    assert image is not None
    return image


def advance(prepared: Prepared, w: Tensor, state: State, steps: slice) -> State:
    """Run some steps of a prepared synthesis on the result of the steps before them; styles as in `synthesise`."""
    x, image = state
    coefficients = _coefficients(prepared, w)[steps]
    for step, (style, scale) in zip(prepared.steps[steps], coefficients, strict=True):
        y = x * style.to(x.dtype)[:, :, None, None]
        if scale is None:
            colours = F.conv2d(y, step.weight, step.bias).to(w.dtype)
            colours = colours if prepared.clamp is None else colours.clamp(-prepared.clamp, prepared.clamp)
            if image is not None and step.blur is not None:
                larger = F.conv_transpose2d(image, step.blur, stride=2, padding=1, groups=3 // step.blur.shape[1])
                colours = colours + larger[..., step.keep, step.keep]
            image = colours
            continue
        if not step.up:
            y = F.conv2d(y, step.weight, padding=1)
        elif step.blur is None:
            y = F.conv_transpose2d(y, step.weight, stride=2, padding=2)
        else:
            y = F.conv_transpose2d(y, step.weight, stride=2)
            y = F.conv2d(y, step.blur, padding=1, groups=len(step.blur))
        y = y[..., step.keep, step.keep]
        x = torch.addcmul(step.bias.to(y.dtype), y, scale.to(y.dtype)[:, :, None, None])
        if step.noise is not None:
            x.add_(step.noise)
        x = F.leaky_relu_(x, 0.2)
        x = x if prepared.clamp is None else x.clamp(-prepared.clamp, prepared.clamp)
    return State(x, image)


def _coefficients(prepared: Prepared, w: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    """For each step, the scale of its inputs (N x inputs) and that of its outputs (N x outputs), in full precision."""
    with lowered("float32", w.device):
        if w.dim() == 2:
            styles = F.linear(w, prepared.weight, prepared.bias).split(prepared.widths, 1)
        else:
            parts = zip(
                prepared.steps,
                prepared.weight.split(prepared.widths),
                prepared.bias.split(prepared.widths),
                strict=True,
            )
            styles = [F.linear(w[:, step.slot], weight, bias) for step, weight, bias in parts]
        return [
            (style, None if step.squares is None else (style.square() @ step.squares + 1e-8).rsqrt() * sqrt(2))
            for style, step in zip(styles, prepared.steps, strict=True)
        ]


def _windows(sizes: list[int], crop: slice) -> tuple[list[slice], list[slice]]:
    """For each map, from the smallest: what the cropped image depends on, and the same before its last 3 x 3
    convolution.
    """
    needed, wide = [], []
    low, high = crop.start, crop.stop
    for size in reversed(sizes):
        needed.append(slice(low, high))
        low, high = max(0, low - 1), min(size, high + 1)
        wide.append(slice(low, high))
        # Pixel n after blur and up-convolution reads pixels ceil((n - 3) / 2) to floor((n + 2) / 2) of the smaller map.
        low, high = max(0, (low - 2) // 2), min(size // 2, (high + 1) // 2 + 1)
    return needed[::-1], wide[::-1]


class Generator(nn.Module):
    """Latents z to images: `mapping`, truncation, `synthesis`."""

    def __init__(
        self,
        size: int = 1024,
        latents: int = 512,
        styles: int = 512,
        depth: int = 8,
        base: int = 32768,
        widest: int = 512,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "size": size,
            "latents": latents,
            "styles": styles,
            "depth": depth,
            "base": base,
            "widest": widest,
            "clamp": clamp,
        }
        _check(self.settings)
        self.mapping = Mapping(latents, styles, depth)
        self.synthesis = Synthesis(size, styles, base, widest, clamp)

    def forward(self, z: Tensor, noise: Noise | torch.Generator = "const") -> Tensor:
        """Images N x 3 x size x size, about in [-1, 1], without truncation."""
        return self.synthesis(self.mapping(z), noise)

    def truncate(self, w: Tensor, psi: float) -> Tensor:
        """Styles pulled towards the mean style: psi 1 changes nothing, psi 0 gives the mean (StyleGAN, sec. B)."""
        return self.mapping.w_avg + psi * (w - self.mapping.w_avg)


class Convolution(nn.Module):
    """A convolution whose stored weights are scaled at run time; `down` blurs and halves the map."""

    def __init__(self, inputs: int, outputs: int, kernel: int, bias: bool = True, down: bool = False) -> None:
        super().__init__()
        self.down = down
        self.gain = 1 / sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("resample_filter", fir())

    def forward(self, x: Tensor, gain: float, clamp: float | None) -> Tensor:
        """The output times `gain`, after a leaky ReLU if there is a bias, clamped to `clamp` times gain."""
        kernel = self.weight.shape[-1]
        weight, padding, stride = self.weight * self.gain, kernel // 2, 1
        if self.down:
            blur = _depthwise(torch.as_tensor(self.resample_filter), x.shape[1])
            x = F.conv2d(x, blur, padding=1 + kernel // 2, stride=2 if kernel == 1 else 1, groups=x.shape[1])
            padding, stride = 0, 1 if kernel == 1 else 2
        if self.bias is None:
            return F.conv2d(x, weight * gain, stride=stride, padding=padding)
        x = F.leaky_relu(F.conv2d(x, weight, self.bias, stride, padding), 0.2) * (sqrt(2) * gain)
        return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


class CriticBlock(nn.Module):
    """Halves the map by two convolutions and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, first: bool, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.fromrgb = Convolution(3, inputs, 1) if first else None
        self.conv0 = Convolution(inputs, inputs, 3)
        self.conv1 = Convolution(inputs, outputs, 3, down=True)
        self.skip = Convolution(inputs, outputs, 1, bias=False, down=True)
        self.register_buffer("resample_filter", fir())

    def forward(self, x: Tensor) -> Tensor:
        if self.fromrgb is not None:
            x = self.fromrgb(x, 1.0, self.clamp)
        around = self.skip(x, sqrt(0.5), None)
        return self.conv1(self.conv0(x, 1.0, self.clamp), sqrt(0.5), self.clamp) + around


class CriticHead(nn.Module):
    """Compares the images of a group, then scores each."""

    def __init__(self, channels: int, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.conv = Convolution(channels + 1, channels, 3)
        self.fc = Dense(channels * 16, channels)
        self.out = Dense(channels, 1)

    def forward(self, x: Tensor, group: int) -> Tensor:
        grouped = x.unflatten(0, (group, -1))
        spread = (grouped - grouped.mean(0)).square().mean(0).add(1e-8).sqrt().mean((1, 2, 3))
        x = torch.cat([x, spread.repeat(group)[:, None, None, None].expand(-1, 1, 4, 4)], 1)
        x = self.conv(x, 1.0, self.clamp).flatten(1)
        return self.out(F.leaky_relu(self.fc(x), 0.2) * sqrt(2)).flatten()


class Discriminator(nn.Module):
    """Maps images N x 3 x size x size in [-1, 1] to one score each; higher is more like the public images."""

    def __init__(
        self, size: int = 1024, base: int = 32768, widest: int = 512, clamp: float | None = None, group: int = 4
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {"size": size, "base": base, "widest": widest, "clamp": clamp, "group": group}
        _check(self.settings)
        self.group = group
        self.sizes = [2**power for power in range(int(log2(size)), 2, -1)]
        for resolution in self.sizes:
            inputs, outputs = min(base // resolution, widest), min(base // (resolution // 2), widest)
            setattr(self, f"b{resolution}", CriticBlock(inputs, outputs, resolution == size, clamp))
        self.b4 = CriticHead(min(base // 4, widest), clamp)

    def forward(self, images: Tensor, group: int | None = None) -> Tensor:
        """Scores N. The images of a group (default: as in training) influence each other by their spread; with
        `group` 1 each is scored alone.
        """
        group = min(group or self.group, len(images))
        if len(images) % group:
            raise UserError(f"{len(images)} images do not divide into groups of {group}; choose group=1")
        for size in self.sizes:
            images = getattr(self, f"b{size}")(images)
        return self.b4(images, group)


@dataclass(frozen=True, eq=False)
class StyleGAN2Prior(Prior):
    """A StyleGAN2 as a prior: latents are styles w after truncation; both networks are frozen.

    The networks' weights are read once, before the first image; a prior whose networks are moved to another device
    reads them again.
    """

    generator: Generator
    critic: Discriminator | None = None
    space: Literal["w", "w+"] = "w"  # one style for all layers, or one for each slot
    psi: float = 0.5  # truncation; PPA samples with 0.5
    cutoff: int | None = None  # w+: only the first so many slots are truncated (PPA scores with 8); None: all
    crop: int | None = None  # side of the centre that is kept; PPA keeps 800 of FFHQ's 1024
    noise: Noise = "const"
    precision: Precision = "float32"  # of the convolutions; not kept: a choice of each run
    clip: bool = True  # False: images overshoot [0, 1], as what PPA's published code descends through
    _prepared: dict[torch.device, Prepared] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        whole, problems = self.generator.settings["size"], []
        if self.space not in ("w", "w+"):
            problems.append(f"space must be w or w+, not {self.space!r}")
        if self.noise not in ("const", "none"):
            problems.append(f"noise must be const or none, not {self.noise!r}")
        if self.precision not in ("float32", "bfloat16"):
            problems.append(f"precision must be float32 or bfloat16, not {self.precision!r}")
        if not 0 <= self.psi <= 1:
            problems.append(f"psi must be from 0 to 1, not {self.psi}")
        if self.cutoff is not None and (self.space == "w" or not 0 <= self.cutoff <= self.generator.synthesis.slots):
            slots = self.generator.synthesis.slots
            problems.append(f"cutoff needs space w+ and must be from 0 to {slots}, not {self.cutoff} in {self.space}")
        if self.crop is not None and not 1 <= self.crop <= whole:
            problems.append(f"crop must be from 1 to {whole}, not {self.crop}")
        if self.critic is not None and self.critic.settings["size"] != whole:
            problems.append(f"generator and critic differ in size: {whole} and {self.critic.settings['size']}")
        refuse(problems)
        for net in (self.generator, self.critic):
            if net is not None:
                net.eval().requires_grad_(False)

    @property
    def size(self) -> int:
        """Side length of the images in pixels, after the crop."""
        return self.crop or self.generator.settings["size"]

    @property
    def latents(self) -> int:
        """Length of a latent vector: one style, or in W+ the styles of all slots one after the other."""
        return self.generator.settings["styles"] * (self.generator.synthesis.slots if self.space == "w+" else 1)

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator) -> Tensor:
        """Latents count x L: mapped from standard normal z, then truncated."""
        z = torch.randn(count, self.noise_size, generator=rng, device=rng.device)
        return self.from_noise(z.to(self.device)).to(rng.device)

    @property
    def noise_size(self) -> int:
        """Length of z."""
        return self.generator.settings["latents"]

    def from_noise(self, noise: Tensor) -> Tensor:
        """Latents N x L from z: mapped, then truncated; differentiable in z."""
        w = self.generator.mapping(noise)
        near = self.generator.truncate(w, self.psi)
        if self.space == "w+":
            slots = self.generator.synthesis.slots
            first = slots if self.cutoff is None else self.cutoff
            near = torch.stack([near] * first + [w] * (slots - first), 1).flatten(1)
        return near

    @torch.no_grad()
    def box(self, kappa: float) -> tuple[Tensor, Tensor]:
        """MIRROR's box (An et al., NDSS 2022) in latents: with the mapping's last rectifier undone, styles are nearly
        normal; their mean and `kappa` standard deviations, of 10,000 styles without truncation.
        """
        z = torch.randn(BOX_SAMPLES, self.noise_size, generator=torch.Generator().manual_seed(0))
        low, high = box_of(torch.cat([self.generator.mapping(part.to(self.device)) for part in z.split(1000)]), kappa)
        slots = self.latents // self.generator.settings["styles"]
        return low.repeat(slots), high.repeat(slots)

    def lowered(self, precision: Precision) -> "StyleGAN2Prior":
        """The same with maps and convolutions in that precision."""
        return replace(self, precision=precision)

    @property
    def judges(self) -> bool:
        """Whether there is a discriminator, of whole images as they are drawn."""
        return self.critic is not None and self.critic.settings["size"] == self.size

    def untruncated(self, latents: Tensor, cutoff: int) -> Tensor:
        """Latents of W as latents of W+, truncated in the first `cutoff` slots only (PPA scores with 8), N x slots * L.

        `decode` takes them. UserError where there is nothing to undo: in W+, or with psi 0.
        """
        slots = self.generator.synthesis.slots
        if self.space == "w+" or not self.psi or not 0 <= cutoff <= slots:
            raise UserError(f"undoing truncation needs space w, psi above 0 and a cutoff up to {slots}, not {cutoff}")
        mean = self.generator.mapping.w_avg.to(latents)
        whole = mean + (latents - mean) / self.psi
        return torch.stack([latents] * cutoff + [whole] * (slots - cutoff), 1).flatten(1)

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Images N x 3 x size x size, clamped to [0, 1]; where a pixel is clamped, its gradient is zero.

        Latents of either space are taken. Only the crop is computed, and it is the crop of the whole.
        """
        return self._seen(synthesise(self._ready(), self._styles(latents)))

    @property
    def blocks(self) -> int:
        """One for each resolution from 4 pixels up; block b works at 4 * 2^b."""
        return len(self.generator.synthesis.sizes)

    def begin(self, latents: Tensor, block: int) -> State:
        """The synthesis up to block `block`, exclusive: its features, and the image that the colours so far add up to.

        Of a crop, only what it depends on.
        """
        prepared = self._ready()
        state = State(prepared.const.expand(len(latents), -1, -1, -1), None)
        return advance(prepared, self._styles(latents), state, slice(0, self._first_step(block)))

    def through(self, state: State, latents: Tensor, block: int) -> State:
        """The state after block `block`, from the state before it; the last block is left to `finish`."""
        steps = slice(self._first_step(block), self._first_step(block + 1))
        return advance(self._ready(), self._styles(latents), state, steps)

    def finish(self, state: State, latents: Tensor, block: int) -> Tensor:
        """The images from a synthesis stopped before block `block`, as `decode` gives them."""
        image = advance(self._ready(), self._styles(latents), state, slice(self._first_step(block), None)).image
        assert image is not None
        return self._seen(image)

    def _first_step(self, block: int) -> int:
        """The number of a block's first convolution: the first block has two, the others three."""
        if not 0 <= block < self.blocks:
            raise UserError(f"this generator has blocks 0 to {self.blocks - 1}, not {block}")
        return 3 * block - 1 if block else 0

    def _styles(self, latents: Tensor) -> Tensor:
        styles = self.generator.settings["styles"]
        return latents if latents.shape[1] == styles else latents.unflatten(1, (-1, styles))

    def _seen(self, image: Tensor) -> Tensor:
        """A synthesised image as others see it."""
        image = image * 0.5 + 0.5
        return image.clamp(0, 1) if self.clip else image

    def realism(self, images: Tensor, classes: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """The discriminator's score of each image on its own, unbounded: only differences mean something.

        In training it compared the images of a batch; here that would make a score depend on the other images.
        UserError without a discriminator, or for cropped images, which it never saw.
        """
        if self.critic is None:
            raise UserError("this prior has no discriminator, so it cannot tell realism; convert a file that holds D")
        whole = self.critic.settings["size"]
        if images.shape[1:] != (3, whole, whole):
            raise UserError(f"the discriminator scores images of 3 x {whole} x {whole}, not {tuple(images.shape[1:])}")
        return self.critic(images * 2 - 1, group=1)

    @property
    def device(self) -> torch.device:
        """The device of the generator."""
        return self.generator.mapping.w_avg.device

    def _ready(self) -> Prepared:
        if self.device not in self._prepared:
            start = round((self.generator.settings["size"] - self.size) / 2)
            with torch.no_grad():
                prepared = self.generator.synthesis.prepare(
                    self.noise, slice(start, start + self.size), 1, *as_computed(self.device)
                )
            self._prepared[self.device] = prepared if self.precision == "float32" else prepared.cast(torch.bfloat16)
        return self._prepared[self.device]

    def settings(self) -> dict[str, Any]:
        """What rebuilds the two networks and how they are used."""
        return {
            "generator": self.generator.settings,
            "critic": self.critic and self.critic.settings,
            **{name: getattr(self, name) for name in ("space", "psi", "cutoff", "crop", "noise", "clip")},
        }

    def state(self) -> dict[str, Tensor]:
        """All weights, official names prefixed by `generator.` and `critic.`."""
        return weights_of({"generator": self.generator, **({"critic": self.critic} if self.critic else {})})

    @classmethod
    def restore(cls, settings: dict[str, Any], state: dict[str, Tensor]) -> "StyleGAN2Prior":
        """The prior that `settings` and `state` describe; a mismatch of names or shapes raises RuntimeError."""
        settings = dict(settings)
        shapes = {"generator": settings.pop("generator"), "critic": settings.pop("critic")}
        kinds = {"generator": Generator, "critic": Discriminator}
        with torch.device("meta"):  # the weights are about to come
            nets = {part: kinds[part](**shape) for part, shape in shapes.items() if shape is not None}
        fill(nets, {name: value.float() if value.is_floating_point() else value for name, value in state.items()})
        return cls(**nets, **settings)


def box_of(w: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of styles w (M x D), D each, from mean and biased deviation with LeakyReLU(0.2) undone."""
    p = F.leaky_relu(w, 5.0)
    mean, spread = p.mean(0), p.std(0, correction=0)
    return F.leaky_relu(mean - kappa * spread, 0.2), F.leaky_relu(mean + kappa * spread, 0.2)


def fir() -> Tensor:
    """The filter of all up- and downsampling, 4 x 4, with sum 1."""
    taps = torch.tensor(FIR)
    return torch.outer(taps, taps) / taps.sum() ** 2


def _depthwise(kernel: Tensor, channels: int) -> Tensor:
    """A filter that treats each channel alike."""
    return kernel.expand(channels, 1, -1, -1).contiguous()


def _merged(weight: Tensor, blur: Tensor) -> Tensor:
    """An up-convolution's weight, inputs x outputs x 3 x 3, and the blur after it, 1 x 1 x 4 x 4, as one of 6 x 6."""
    return F.conv2d(weight.flatten(0, 1)[:, None], blur, padding=3)[:, 0].unflatten(0, weight.shape[:2])


def _check(settings: dict[str, Any]) -> None:
    """UserError that names every setting of a network that cannot be."""
    size = settings["size"]
    problems = [] if size in SIZES else [f"size must be one of {', '.join(map(str, SIZES))}, not {size!r}"]
    for name in set(settings) - {"size", "clamp"}:
        value, most = settings[name], LIMITS.get(name, 4096)
        if type(value) is not int or not 1 <= value <= most:
            problems.append(f"{name} must be a whole number from 1 to {most}, not {value!r}")
    clamp = settings["clamp"]
    if clamp is not None and (type(clamp) not in (int, float) or not clamp > 0):
        problems.append(f"clamp must be above 0 or None, not {clamp!r}")
    if not problems and settings["base"] < size:
        problems.append(f"base must be at least the size, {size}, so that every map has a channel")
    if problems:
        raise UserError("no such StyleGAN2: " + "; ".join(sorted(problems)))
