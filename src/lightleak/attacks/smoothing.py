"""RP: the label that most of an image's noisy copies get, with a radius in which it cannot change; else no answer.

Randomised smoothing (Cohen et al., ICML 2019) as what an API gives out (arXiv 2601.17360, 2026):

    1. show the target `copies` of the image, each with noise of N(0, sigma^2)
    2. bound = the lower Clopper-Pearson bound of the share of the most frequent label, at confidence 1 - alpha
    3. bound <= 1/2: no answer;  else that label, which no change shorter than  sigma * Phi^-1(bound)  can change

One query costs as many passes of the target as there are copies. The radius is of whole images, in units of a pixel's
range; it is for the API's owner (`certified`), and is not given out.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.stats import beta, norm
from torch import Tensor

from lightleak.attacks.guards import Guard
from lightleak.errors import UserError
from lightleak.place import Place
from lightleak.randomness import hashes, normals
from lightleak.ranking import answers


@dataclass(frozen=True)
class Smoothed(Guard):
    """Randomised smoothing with abstention (RP)."""

    sigma: float = 0.1  # of the noise, in units of a pixel's range
    number: int = 100  # copies of an image
    alpha: float = 0.001
    labels: ClassVar[bool] = True
    version: ClassVar[int] = 2  # 1 drew noise on the processor

    def __post_init__(self) -> None:
        if not (0 < self.sigma < float("inf") and 0 < self.alpha < 1 and self.number >= 1):
            raise UserError(
                "sigma must be above 0, alpha a probability and the number of copies at least 1, not "
                f"{self.sigma}, {self.alpha} and {self.number}"
            )

    @property
    def copies(self) -> int:
        """Noisy copies of one image."""
        return self.number

    def inputs(self, images: Tensor, seeds: Tensor) -> Tensor:
        """1: N * copies images."""
        keys = hashes(seeds[:, None], torch.arange(self.number)).flatten().to(images.device)
        return images.repeat_interleave(self.number, 0) + self.sigma * normals(keys, *images.shape[1:]).to(images)

    def answer(self, probabilities: Tensor, images: Tensor, seeds: Tensor) -> Tensor:  # noqa: ARG002
        """2 and 3: labels, N; -1 for no answer."""
        return self.certified(probabilities)[0]

    def certified(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Labels N (-1: no answer) of probabilities N x copies x C, and their radii, N (0 with no answer)."""
        if probabilities.dim() == 2:  # one copy
            probabilities = probabilities[:, None]
        said = answers(probabilities.flatten(0, 1)).unflatten(0, probabilities.shape[:2])
        votes = torch.stack([(said == label).sum(1) for label in range(probabilities.shape[2])], 1)
        most, label = votes.max(1)
        bounds = bound(most.cpu(), self.number, self.alpha)
        radius = self.sigma * torch.as_tensor(norm.ppf(bounds.clamp(min=0.5).numpy()))
        sure = (bounds > 0.5).to(label.device)
        return torch.where(sure, label, -1), Place(label.device).exact.put(radius)


def bound(votes: Tensor, copies: int, alpha: float) -> Tensor:
    """The lower Clopper-Pearson bound, one-sided at 1 - alpha, of the share behind so many votes of `copies`."""
    low = beta.ppf(alpha, votes.double().numpy(), (copies - votes + 1).double().numpy())
    return torch.as_tensor(low).nan_to_num(0.0)  # no vote at all
