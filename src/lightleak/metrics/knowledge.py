"""The knowledge extraction score: what a student that saw reconstructions alone knows about the private people.

A judge may be fooled image by image; a student that learns nothing but the reconstructions recognises private
photographs only if they hold something true. Struppek et al. (ICML 2022) train a ResNet-50, started from ImageNet,
for 75 epochs. A caution: networks also learn from adversarial images (Ilyas et al. 2019), so the score of a null
(images of the prior that nobody optimised) belongs beside it.
"""

from pathlib import Path

import torch
from torch import Tensor

from lightleak import randomness
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.data.population import Images, Population
from lightleak.metrics.recognition import per_class
from lightleak.models.classifier import Classifier
from lightleak.models.zoo import build
from lightleak.ranking import answers
from lightleak.training import RECIPES, Recipe, predict, train
from lightleak.training.loop import Watch


def teach(
    reconstruction: Reconstruction,
    people: int,
    architecture: str = "timm:resnet50",
    recipe: Recipe = RECIPES["student"],
    *,
    pretrained: bool = False,
    seed: int = 0,
    folder: Path | None = None,
    watch: Watch | None = None,
) -> Classifier:
    """A classifier of `people` classes that learnt from the reconstructions and nothing else.

    The recipe's last epoch counts: choosing one on private images would give it knowledge that it must not have.
    """
    images = Images(reconstruction.bytes(), reconstruction.classes.cpu())
    with randomness.own(seed):
        student = build(architecture, people, images.size, pretrained=pretrained)
    return train(student, images, images, recipe, seed=seed, folder=folder, watch=watch)


def extracted(student: Classifier, population: Population, which: Tensor) -> Tensor:
    """The student's accuracy on the private test images of each class in `which`; NaN where there are none."""
    images = population.test.at(torch.isin(population.test.labels, which))
    if not len(images):
        return torch.full((len(which),), torch.nan, dtype=torch.float64)
    right = (answers(predict(student, images)) == images.labels).double()
    return per_class(right, images.labels, which)
