"""MI-Face: gradient descent in the pixels (Fredrikson, Jha and Ristenpart, CCS 2015, Algorithm 1).

    1. for each class start with an image of one colour, or with noise
    2. climb the target's confidence in it, clip the colours to [0, 1] and process the image
    3. stop at a confidence that is enough, when no step in so many was better than the worst of them, or at `steps`
    4. return the iterate of which the target was most confident

There is no prior: what comes out convinces the target and, on deep networks, shows nobody. So it is the adversarial
null of a report: a judge that recognises people in it is no judge.

Deviations: by default the logarithm of the confidence is climbed, which does not flatten out where the target is sure
of somebody else (paper: the confidence), from grey (paper: from zeros), down to a cost of 0.001 (paper: gamma 0.99,
which as a bound on the cost would stop nearly at once, so it is read as a confidence). Denoising in the code of an
autoencoder is replaced by blurring, or by descending total variation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks.frame import Found, Needs, Part, ReturnsAll, Tell
from lightleak.attacks.oracle import Access, Oracle
from lightleak.attacks.steps import cross_entropy, negative_logit
from lightleak.data.views import resized
from lightleak.errors import refuse
from lightleak.priors.prior import Prior

COLOURS = {"grey": 0.5, "zeros": 0.0}


@dataclass(frozen=True)
class MIFace(ReturnsAll):
    """MI-Face: climb the target's confidence in the pixels themselves, and return the best image."""

    attempts: int = 1  # images of each class; more than one only from noise
    steps: int = 5000  # at most: a class that nothing leads to ends here
    patience: int = 100  # stop when a cost is no better than the worst of so many before it
    enough: float = 0.001  # stop at this cost, 1 - confidence
    rate: float = 0.1
    objective: str = "log-probability"  # or probability, logit
    start: str = "grey"  # or zeros, noise
    process: str = "none"  # or blur, total-variation: what is done to an image after every step
    strength: float = 0.1  # of the processing, 0 to 1
    batch: int = field(default=64, compare=False)  # images at a time: decides speed and memory, not the result
    access: ClassVar[Access] = "gradients"
    sorted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        problems = []
        if min(self.attempts, self.patience, self.batch) < 1 or self.steps < 0:
            problems.append("attempts, patience and batch must be at least 1, steps at least 0")
        if not (self.rate > 0 and 0 <= self.enough <= 1 and 0 <= self.strength <= 1):
            problems.append("rate must be above 0, enough and strength in [0, 1]")
        for name, known in (("objective", OBJECTIVES), ("start", (*COLOURS, "noise")), ("process", PROCESSES)):
            if getattr(self, name) not in known:
                problems.append(f"there is no {name} {getattr(self, name)!r}; choose from {', '.join(known)}")
        if self.attempts > 1 and self.start != "noise":
            problems.append(f"{self.attempts} attempts from one start are one; use start noise for more")
        refuse(problems)

    @property
    def title(self) -> str:
        """What a table calls it."""
        return "MI-Face"

    @property
    def images_searched(self) -> int:
        """The start of each attempt, and where each step leads."""
        return self.attempts * (self.steps + 1)

    def needs(self) -> Needs:
        """Latents that are the images' own pixels."""
        return Needs(pixels=True)

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The images of which the target was most confident."""
        # 1. start
        x = part.latents(prior)
        x = x if self.start == "noise" else torch.full_like(x, COLOURS[self.start])
        best, cheapest = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        window = cheapest[:, None].repeat(1, self.patience)
        active = torch.arange(len(x), device=x.device)
        for step in range(self.steps + 1):
            # 2. the target's confidence in those that are not finished, and which way doubt falls
            here = x[active].requires_grad_()
            rows = part.rows(step).at(active)
            logits = oracle.logits(resized(prior.decode(here), oracle.size), rows)
            (slope,) = torch.autograd.grad(OBJECTIVES[self.objective](logits, rows.classes).sum(), here)
            with torch.no_grad():
                cost = doubt(logits, rows.classes)
                better = active[cost < cheapest[active]]
                best[better] = x[better]
                cheapest[active] = torch.fmin(cheapest[active], cost)
                tell(min(step + 1, self.steps), confidence=float(1 - cheapest.mean()))
                # 3. stop; a cost that is no number goes no further
                goes_on = (cost > self.enough) & (cost < window[active].amax(1))
                window[active, step % self.patience] = cost
                active, slope = active[goes_on], slope[goes_on]
                if step == self.steps or not len(active):
                    break
                moved = (x[active] - self.rate * slope).clamp(0, 1).unflatten(1, (3, prior.size, prior.size))
                x[active] = PROCESSES[self.process](moved, self.strength).flatten(1)
        # 4. the best iterate of each
        return Found(best, images=prior.decode(best))


# ---------------------------------------------------------------------------------------------------------------------
# What is descended: logits N x C and classes N to one number an image


def doubt(logits: Tensor, classes: Tensor) -> Tensor:
    """1 - the target's confidence, the paper's cost, N in [0, 1]."""
    return 1 - logits.softmax(1).gather(1, classes[:, None]).squeeze(1)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "log-probability": cross_entropy,
    "probability": doubt,
    "logit": negative_logit,
}

# ---------------------------------------------------------------------------------------------------------------------
# What is done to images N x 3 x S x S after a step


def blurred(images: Tensor, strength: float) -> Tensor:
    """Moved by `strength` towards the mean of 3 x 3 pixels, weighted 1 2 1 either way; borders are repeated."""
    weights = images.new_tensor([0.25, 0.5, 0.25])
    kernel = (weights[:, None] * weights).expand(3, 1, 3, 3)
    return images.lerp(F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=3), strength)


def flatter(images: Tensor, strength: float) -> Tensor:
    """A step of `strength` / 4 down the total variation, a pixel's differences with its neighbours, clipped to [0, 1].

    Differences below 2 `strength` count in proportion, so that flat images stay as they are.
    """
    if not strength:
        return images
    pull = torch.zeros_like(images)
    for axis in (2, 3):
        force = (images.diff(dim=axis) / (2 * strength)).clamp(-1, 1)
        edge = torch.zeros_like(images.narrow(axis, 0, 1))
        pull = pull + torch.cat([force, edge], axis) - torch.cat([edge, force], axis)
    return (images + strength / 4 * pull).clamp(0, 1)


PROCESSES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "none": lambda images, strength: images,  # noqa: ARG005
    "blur": blurred,
    "total-variation": flatter,
}

PRESETS = {
    # Section 5 of the paper: softmax and multilayer networks.
    "miface": MIFace(objective="probability", start="zeros", enough=0.01),
    # The adversarial null of a report.
    "null": MIFace(steps=200, start="noise"),
}
