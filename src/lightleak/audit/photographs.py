"""What share of people's photographs somebody knows: a recogniser, a judge, or the model itself.

The unit is the person, as everywhere: each person's photographs are averaged first, so that nobody decides by having
been photographed often. Of whom no picture is held out to be known by, nobody can say whether an image shows them.
"""

import torch
from torch import Tensor

from lightleak.data.population import Images, Population
from lightleak.metrics import evidence, recognition
from lightleak.metrics.evidence import Measure
from lightleak.study.task import plain


def known(population: Population) -> Tensor:
    """The people whom recogniser and judges can know by held-out pictures, ascending."""
    return population.judge.labels.unique()


def only(images: Images, people: Tensor) -> Images:
    """The pictures of these people."""
    return images.at(torch.isin(images.labels, people))


def by_person(right: Tensor, labels: Tensor, people: int) -> list[float | None]:
    """The share of each person's photographs that is `right` (N, of `labels`); None for whom there is none."""
    return plain(recognition.per_class(right, labels, labels.new_tensor(range(people))))


def measured(right: Tensor, labels: Tensor, families: Tensor | None = None) -> Measure | None:
    """The mean over people of the share of photographs that is `right` (N, of `labels`), with its interval.

    None without a photograph. `families` (C) says who belongs to which look-alikes, who are known or mistaken together.
    """
    which = labels.unique()
    if not len(which):
        return None
    clusters = None if families is None else families[which]
    return evidence.interval(recognition.per_class(right, labels, which), rate=True, clusters=clusters)


def share(right: Tensor, labels: Tensor) -> float | None:
    """The mean over people of the share of photographs that is `right` (N, of `labels`); None without a photograph."""
    found = measured(right, labels)
    return None if found is None else found.value
