"""Real handwritten digits that ship with scikit-learn: 0 to 4 are private, 5 to 9 public.

1,797 grey images of 8 x 8 pixels (the test set of the UCI Optical Recognition of Handwritten Digits). A
private class is a digit, not a person: a small real world without a download, with the class division of
GMI's MNIST task.
"""

from collections.abc import Callable

import torch
from torch.nn.functional import interpolate

from lightleak.data.images import split
from lightleak.data.population import Images, Population, as_bytes
from lightleak.errors import UserError

PRIVATE = 5  # digits below are private, the others public


def check(size: int = 32, **_: object) -> None:
    """UserError, before anything is drawn, for settings of `population` that cannot be."""
    if not 8 <= size <= 512:
        raise UserError(f"digits are drawn at 8 to 512 pixels, not {size}")


def population(size: int = 32, seed: int = 0, watch: Callable[..., None] | None = None) -> Population:
    """The digits as size x size RGB images (bicubic from 8 x 8); the seed decides the split alone."""
    check(size)
    from sklearn.datasets import load_digits  # here, because it takes a second that other data need not wait

    flat, digits = load_digits(return_X_y=True)
    grey = torch.from_numpy(flat).float().view(-1, 1, 8, 8).div(16)
    pixels = as_bytes(interpolate(grey, size=size, mode="bicubic").expand(-1, 3, -1, -1))
    labels = torch.from_numpy(digits).long()
    private = Images(pixels[labels < PRIVATE], labels[labels < PRIVATE])
    public = Images(pixels[labels >= PRIVATE], labels[labels >= PRIVATE] - PRIVATE)
    train, validation, test, judge = (private.at(part) for part in split(private.labels, seed))
    names = tuple(str(digit) for digit in range(PRIVATE))
    if watch is not None:
        watch(1, 1)
    division = f"drawn, seed {seed}"
    return Population("digits", names, train, validation, test, judge, public, division=division)
