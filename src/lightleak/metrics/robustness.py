"""Robust accuracy: how many images a network still names right when each may be changed by less than anybody sees."""

import torch
from torch import Tensor

from lightleak import randomness
from lightleak.data.population import Images
from lightleak.models.classifier import Classifier
from lightleak.place import in_pieces
from lightleak.ranking import answers
from lightleak.training.adversarial import answering, perturbed, random_start

EPSILON = 2 / 255


def robust(
    classifier: Classifier,
    images: Images,
    *,
    epsilon: float = EPSILON,
    steps: int = 10,
    seed: int = 0,
    batch: int = 128,
) -> Tensor:
    """Whether each image is named right, as it is and after projected gradient descent away from its class, bool N.

    No pixel of [0, 1] moves by more than `epsilon` (2/255, as AT-AT's paper measures); `steps` steps of a quarter of
    it from a random start of its own. An upper bound: a stronger attack may find more.
    """
    device = classifier.device
    keys = randomness.hashes(seed, torch.arange(len(images)))

    def held(rows: slice) -> Tensor:
        index = torch.arange(len(images))[rows]
        shown, labels = images.floats(index, device), images.labelled(index, device)
        start = random_start(shown, keys[rows], epsilon)
        moved = perturbed(
            classifier, shown, labels, epsilon=epsilon, step=epsilon / 4, steps=steps, towards=False, start=start
        )
        with torch.no_grad():
            right = (answers(classifier(shown)) == labels) & (answers(classifier(moved)) == labels)
        return right.cpu()

    with answering(classifier), randomness.own(seed, device):
        return in_pieces(held, len(images), batch)


def robust_accuracy(classifier: Classifier, images: Images, *, epsilon: float = EPSILON, seed: int = 0) -> float:
    """The share of images that stay right within `epsilon` of themselves."""
    return float(robust(classifier, images, epsilon=epsilon, seed=seed).double().mean())
