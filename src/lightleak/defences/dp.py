"""DP-SGD: an image moves the weights by a bounded amount, under noise of a known size.

Abadi et al., "Deep Learning with Differential Privacy" (CCS 2016); gradients and accounting by Opacus.

    1. batch norm, which mixes the images of a batch, becomes group norm; no signal is overwritten in place
    2. each image joins each batch by itself, with probability batch / images (Poisson sampling)
    3. the gradient of each image is scaled down to length `clip` at most
    4. their sum, plus noise * clip * N(0, 1), over the expected size of a batch, goes to the optimiser
    5. an accountant adds up what all steps spend: (epsilon, delta) for one image more or less

The unit is the image: whoever has k of them among the training images is protected by k times epsilon only (group
privacy), and validation images, which choose the epoch, not at all. Model-inversion papers call "DP" a loop that keeps
batch norm, adds noise of 0.01 and accounts for nothing; that is no privacy and is not offered here.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from lightleak.defences.by_image import WORKING, check
from lightleak.defences.ghost import listening
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.models.group_norm import batch_norms, groups_of, regroup
from lightleak.surgery import without_inplace
from lightleak.training.plan import Batch, Loss, Objective, Plan, Step
from lightleak.training.recipes import Recipe

Accountant = Literal["rdp", "prv"]


@dataclass(frozen=True)
class DPSGD:
    """Differentially private stochastic gradient descent."""

    epsilon: float | None = 8.0  # what all epochs together may spend; the noise follows from it
    noise: float | None = None  # instead: the standard deviation of the noise, in units of `clip`; 0 only clips
    delta: float = 1e-5  # must be far below 1 / images
    clip: float = 1.0
    groups: int = 32  # of group norm, at most; each has four channels at least
    accountant: Accountant = "rdp"  # or prv: a tighter bound, slower
    title: ClassVar[str] = "DP-SGD"

    def __post_init__(self) -> None:
        problems = []
        if (self.epsilon is None) == (self.noise is None):
            problems.append("give epsilon or noise, and None for the other")
        if self.epsilon is not None and not 0 < self.epsilon < float("inf"):
            problems.append(f"epsilon is above 0, such as 8, not {self.epsilon}")
        if self.noise is not None and not 0 <= self.noise < float("inf"):
            problems.append(f"noise is at least 0, such as 1, not {self.noise}")
        if not 0 < self.delta < 1:
            problems.append(f"delta is a probability above 0, such as 1e-5, not {self.delta}")
        if not 0 < self.clip < float("inf"):
            problems.append(f"clip is a length above 0, such as 1, not {self.clip}")
        if self.groups < 1:
            problems.append(f"group norm has at least 1 group, not {self.groups}")
        if self.accountant not in get_args(Accountant):
            problems.append(f"the accountant is {' or '.join(get_args(Accountant))}, not {self.accountant!r}")
        if problems:
            raise UserError(f"DP-SGD: {'; '.join(problems)}")

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        return Plan(changes=((0, self.apply),), mechanism=self.mechanism, exact=True)

    def apply(self, classifier: Classifier) -> Classifier:
        """The classifier as Opacus can train it; UserError that names what it cannot."""
        net = without_inplace(classifier.net, classifier.example)
        change = {
            "kind": "group_norm",
            "groups": {name: groups_of(each.num_features, self.groups) for name, each in batch_norms(net).items()},
        }
        net = regroup(net, change)
        refused = [
            f"{name or type(module).__name__!r} ({type(module).__name__})"
            for name, module in net.named_modules()
            if any(p.requires_grad for p in module.parameters(recurse=False)) and not _bounded(module)
        ]
        if refused:
            more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
            raise UserError(
                f"Opacus cannot clip the gradient of each image in {', '.join(refused[:3])}{more}; {WORKING}"
            )
        return classifier.with_net(net, change=change if change["groups"] else None)

    def mechanism(self, images: int, size: int, steps: int, epochs: int) -> "Private":
        """Private steps for so many images, an expected batch of `size`, and so many epochs of `steps`."""
        if not self.delta < 1 / images:
            raise UserError(f"DP-SGD: delta is below 1 / images, here {1 / images:.2g}, not {self.delta}")
        noise = self.noise
        if self.epsilon is not None:
            noise = calibrated(self.epsilon, self.delta, size / images, steps * epochs, self.accountant)
        return Private(self, float(noise or 0.0), images, size, steps, epochs)


@dataclass(frozen=True)
class Private:
    """Steps 2 to 5 for one run."""

    settings: DPSGD
    noise: float
    images: int
    size: int  # of a batch, expected
    steps: int  # of an epoch
    epochs: int

    def draws(self, rng: torch.Generator) -> Iterator[Tensor]:
        """Step 2: batches of random size, now and then an empty one."""
        for _ in range(self.steps):
            yield (torch.rand(self.images, generator=rng) < self.size / self.images).nonzero().flatten()

    def check(self, classifier: Classifier, loss: Loss, batch: Batch) -> None:
        """UserError unless each image has a gradient of its own in this network, which step 3 rests on."""
        check(classifier, loss, batch, _opacus()[0])

    @contextmanager
    def stepping(self, classifier: Classifier, optimiser: torch.optim.Optimizer) -> Iterator[Step]:
        """Steps 3 and 4."""
        hooks_of, private_optimiser = _opacus()
        # The sum is over whoever was drawn, and its divisor what was expected: batch, whatever images / batch leaves.
        private = private_optimiser(
            optimiser,
            noise_multiplier=self.noise,
            max_grad_norm=self.settings.clip,
            expected_batch_size=self.size,
        )

        def step(objective: Objective, index: Tensor) -> float:
            nobody = not len(index)  # a step of noise alone, whose stand-in does not count
            loss = objective(torch.zeros(1, dtype=torch.long) if nobody else index)
            found = gradients_of(loss, max(1, len(index)))
            weights = (self.settings.clip / (found.lengths() + 1e-6)).clamp_max(1.0)
            summed = found.weighted(torch.zeros_like(weights) if nobody else weights)
            private.zero_grad(set_to_none=True)
            for parameter in private.params:
                parameter.grad = summed[parameter] if parameter in summed else torch.zeros_like(parameter)
            private.step()
            return float(loss.detach())

        with listening(classifier.net, hooks_of) as gradients_of:
            yield step

    def spent(self) -> dict[str, Any]:
        """Step 5: the guarantee of the whole run. It depends on settings alone, so a resumed run has the same."""
        epsilon = spent(self.noise, self.settings.delta, self.size / self.images, self.steps * self.epochs,
                        self.settings.accountant)  # fmt: skip
        return {
            "epsilon": epsilon,
            "delta": self.settings.delta,
            "noise": self.noise,
            "clip": self.settings.clip,
            "accountant": self.settings.accountant,
            "sampling": "Poisson",
            "sample_rate": self.size / self.images,
            "steps": self.steps * self.epochs,
            "unit": "image",
        }


@cache
def spent(noise: float, delta: float, rate: float, steps: int, accountant: Accountant = "rdp") -> float | None:
    """Epsilon at `delta` after so many steps of Poisson sampling at `rate`; None: nothing is guaranteed."""
    if noise == 0:
        return None
    try:
        from opacus.accountants import create_accountant
    except ImportError:
        raise UserError(MISSING) from None

    books = create_accountant(accountant)
    books.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the end of the range of orders: the bound holds, a tighter one may exist
        return float(books.get_epsilon(delta=delta))


@cache
def calibrated(epsilon: float, delta: float, rate: float, steps: int, accountant: Accountant = "rdp") -> float:
    """The smallest noise (to 0.1 %) with which so many steps spend no more than `epsilon` at `delta`."""
    low, high = 0.0, 1.0
    while (spent(high, delta, rate, steps, accountant) or 0.0) > epsilon:
        low, high = high, 2 * high
        if high > 2**20:
            raise UserError(f"no noise makes {steps} steps spend only an epsilon of {epsilon}; allow more")
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        if (spent(middle, delta, rate, steps, accountant) or 0.0) > epsilon:
            low = middle
        else:
            high = middle
    return high


MISSING = "DP-SGD needs Opacus; install lightleak[dp]"


def _opacus() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from opacus.grad_sample.grad_sample_module import GradSampleHooks
        from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
    except ImportError:
        raise UserError(MISSING) from None
    return GradSampleHooks, DPOptimizerFastGradientClipping  # which adds noise to sums that are clipped


def _bounded(module: nn.Module) -> bool:
    """Whether each image has its own gradient in this layer, as Opacus finds it."""
    return not isinstance(module, nn.MultiheadAttention) and not any(True for _ in module.buffers())
