"""SSD: every answer is drawn towards the mean answer of a class, as far as a budget allows.

Zhuang et al., "Stealthy Shield Defense" (ICLR 2025); no retraining, an API's answers alone. Of the target's answer f:

    1. a class y is drawn from softmax(f / temperature)
    2. q = the target's mean answer to held-out images of class y
    3. budget = epsilon * H(f), H the entropy in nats
    4. p = the nearest to q, by KL(p, q), of all p with |p - f|_1 <= budget: q itself if that is near enough, else
       p_j = clip(f_j, a q_j, b q_j)  with  sum (a q - f)+ = sum (f - b q)+ = budget / 2

Deviations from the published code: 0 log 0 is 0, and no mean answer is 0 (there both end in NaN); the class is drawn by
what 4 x 4 means of the image show in sixteen levels, so that neither asking twice nor a jitter of the last bit gets
another draw (there each query has its own).
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks.guards import Guard
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.models.classifier import Classifier
from lightleak.place import precise
from lightleak.randomness import keyed
from lightleak.training import predict

FLOOR = 1e-12
SIDE, LEVELS = 4, 16


@dataclass(frozen=True)
class SSD(Guard):
    """Stealthy Shield Defense."""

    epsilon: float = 0.5  # published: 0.35 to 0.8 at 64 pixels, 1.5 at 224
    temperature: float = 0.1
    means: Tensor | None = field(default=None, compare=False, repr=False)  # of the target, C x C: `fitted`

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < float("inf") and 0 < self.temperature < float("inf")):
            raise UserError(f"epsilon and temperature must be above 0, not {self.epsilon} and {self.temperature}")

    def fitted(self, target: Classifier, images: Images) -> "SSD":
        """The guard of this target, whose mean answers are those to `images`, which it was not trained on."""
        answers = predict(target, images).softmax(1)
        return SSD(self.epsilon, self.temperature, mean_answers(answers, images.labels.cpu(), target.classes))

    def answer(self, probabilities: Tensor, images: Tensor, seeds: Tensor) -> Tensor:  # noqa: ARG002
        """1 to 4."""
        if self.means is None:
            raise UserError("SSD needs the target's mean answers: guard.fitted(target, held-out images)")
        f = precise(probabilities)
        chance = (f / self.temperature).softmax(1).cpu()
        drawn = torch.stack([torch.rand((), generator=keyed(seed), dtype=torch.float64) for seed in seen(images)])
        chosen = (chance.cumsum(1) <= drawn[:, None]).sum(1).clamp(max=f.shape[1] - 1)
        entropy = -torch.xlogy(f, f).sum(1)
        return shielded(f, self.means.to(f)[chosen.to(f.device)], self.epsilon * entropy).to(probabilities)


def mean_answers(answers: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean of probabilities N x C over the images of each class, C x C; its own name where a class has none."""
    means = torch.eye(classes, dtype=torch.float64)
    for label in labels.unique().tolist():
        means[label] = precise(answers[labels == label]).mean(0)
    means = means.clamp(min=FLOOR)
    return means / means.sum(1, keepdim=True)


def shielded(f: Tensor, q: Tensor, budget: Tensor) -> Tensor:
    """4: of probabilities f and q, N x C, and budgets N; float64."""
    f, q = f.double(), q.double().clamp(min=FLOOR)
    q = q / q.sum(1, keepdim=True)
    half = (budget.double() / 2)[:, None]
    ratio, order = (f / q).sort(1)
    above, below = f.gather(1, order), q.gather(1, order)
    # a: with the j smallest ratios raised, a = (F + half) / Q, which must not reach the next ratio.
    raised, weight = above.cumsum(1), below.cumsum(1)
    after = torch.cat([ratio[:, 1:], torch.full_like(ratio[:, :1], torch.inf)], 1)
    first = (after * weight - raised > half).double().argmax(1, keepdim=True)
    low = (raised.gather(1, first) + half) / weight.gather(1, first)
    # b: the same from above.
    lowered, weight = (each.flip(1).cumsum(1).flip(1) for each in (above, below))
    before = torch.cat([torch.zeros_like(ratio[:, :1]), ratio[:, :-1]], 1)
    enough = (lowered - before * weight > half).double()
    last = (enough * torch.arange(1, f.shape[1] + 1, device=f.device)).argmax(1, keepdim=True)
    high = (lowered.gather(1, last) - half) / weight.gather(1, last)
    clipped = torch.minimum(torch.maximum(f, low * q), high * q)
    near = (f - q).abs().sum(1, keepdim=True) <= 2 * half
    return torch.where(near, q, clipped)


def seen(images: Tensor) -> list[int]:
    """A seed for each image N x 3 x H x W by what it roughly shows."""
    rough = F.adaptive_avg_pool2d(images.detach().float(), SIDE).clamp(0, 1)
    rough = (rough * (LEVELS - 1)).round().byte().flatten(1).cpu().numpy()
    return [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest()) >> 1 for row in rough]
