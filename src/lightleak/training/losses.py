"""Identity losses that the training of priors shares with attacks: logits N x C and classes N to one loss per image."""

import torch
from torch import Tensor


def max_margin(logits: Tensor, classes: Tensor) -> Tensor:
    """The largest other logit minus the class's own (PLG-MI, Yuan et al., AAAI 2023, Eq. 5), N."""
    own = logits.gather(1, classes[:, None]).squeeze(1)
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return others.max(1).values - own
