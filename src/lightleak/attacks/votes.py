"""A majority of labels: what undoes a guard whose answer to an image is drawn at random, by that image.

A guard that always answers the same image alike (SSD, smoothing) is asked about forms of it that show the same and are
other images to it: the image, then the image moved by a few pixels in one direction after the other. Each form is a
query. The class that most forms are called is the label; of several such, the one that was named first.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

SHARE = 32  # of an image's side that a form is moved by: 1 / SHARE


def voted(ask: Callable[[Tensor], Tensor], images: Tensor, votes: int) -> Tensor:
    """The label that most of so many forms of each image N x 3 x H x W get, N; -1 where no form is answered.

    `ask` names the classes of images, N, and may give no answer (-1), which is no vote.
    """
    said = torch.stack([ask(form(images, number)) for number in range(votes)], 1)
    agreeing = (said[:, :, None] == said[:, None, :]).sum(2) * (said >= 0)
    earliest = torch.arange(votes, 0, -1, device=said.device)  # breaks ties, and nothing else
    first = (agreeing * (votes + 1) + earliest).argmax(1, keepdim=True)
    return said.gather(1, first).squeeze(1)


def form(images: Tensor, number: int) -> Tensor:
    """Form `number` of images N x 3 x H x W: moved right, down, left and up, then twice as far; 0: as they are.

    What is moved in repeats the border.
    """
    if number == 0:
        return images
    far, where = divmod(number - 1, 4)
    x, y = ((1, 0), (0, 1), (-1, 0), (0, -1))[where]
    high, wide = images.shape[-2:]
    x, y = (way * (far + 1) * max(1, round(side / SHARE)) for way, side in ((x, wide), (y, high)))
    around = F.pad(images, (abs(x), abs(x), abs(y), abs(y)), mode="replicate")
    return around[..., abs(y) - y : abs(y) - y + high, abs(x) - x : abs(x) - x + wide]


def by_vote(votes: int) -> str:
    """What a title says of it."""
    return f", a vote of {votes}" if votes > 1 else ""
