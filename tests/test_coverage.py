"""Intervals hold the truth as often as they say, in simulated studies; a wrong formula does not.

People have a chance of their own on the logit scale, trainings shift all of them, families of look-alikes share a
shift, and images are drawn from what comes out. The truth is the mean over endlessly many people and trainings.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
import torch

from lightleak.metrics import evidence

PERSON, REST = 1.0, 0.7  # standard deviations on the logit scale


@dataclass(frozen=True)
class Design:
    """A simulated study."""

    seeds: int
    people: int
    images: int = 2
    level: float = 0.0  # of the logit: 0 is about one half, -5 near none, 4.5 near all
    training: float = 0.0  # standard deviation between trainings
    alike: int = 1  # members of a family
    family: float = 0.0  # standard deviation between families

    @property
    def clusters(self) -> torch.Tensor | None:
        return torch.arange(self.people) // self.alike if self.alike > 1 else None


@lru_cache
def truth(design: Design) -> float:
    rng = np.random.default_rng(1)
    sd = np.sqrt(PERSON**2 + REST**2 + design.training**2 + design.family**2)
    return float((1 / (1 + np.exp(-(design.level + sd * rng.standard_normal(400_000))))).mean())


def drawn(design: Design, rng: np.random.Generator, people: np.ndarray | None = None) -> torch.Tensor:
    """One study's shares, seeds x people; `people` are the logits of those who were met before."""
    people = people_of(design, rng) if people is None else people
    shift = design.training * rng.standard_normal((design.seeds, 1))
    rest = REST * rng.standard_normal((design.seeds, design.people))
    return torch.from_numpy(rng.binomial(design.images, 1 / (1 + np.exp(-(people + shift + rest)))) / design.images)


def people_of(design: Design, rng: np.random.Generator) -> np.ndarray:
    families = np.repeat(rng.standard_normal(design.people // design.alike), design.alike)
    return design.level + PERSON * rng.standard_normal(design.people) + design.family * families


def coverage(design: Design, times: int, clusters: bool = True) -> float:
    rng, held = np.random.default_rng(0), 0
    for _ in range(times):
        got = evidence.seeds_interval(drawn(design, rng), rate=True, clusters=design.clusters if clusters else None)
        assert got.low is not None
        assert got.high is not None
        held += got.low <= truth(design) <= got.high
    return held / times


MIDDLE = [Design(1, 10), Design(1, 56, 1), Design(3, 20), Design(3, 32, 1), Design(3, 32, 2, 0, 0.3)]
EDGES = [Design(1, 20, 2, -5), Design(1, 56, 2, 4.5), Design(3, 32, 2, -6), Design(3, 32, 2, 4.5, 0.3)]
ALIKE = [Design(1, 32, 1, 0, 0, 4, 1.2), Design(3, 56, 2, 0, 0, 4, 1.2)]


@pytest.mark.parametrize("design", [*MIDDLE, *ALIKE], ids=str)
def test_in_the_middle_it_holds_the_truth_as_often_as_it_says(design: Design) -> None:
    assert 0.91 <= coverage(design, 300) <= 0.99


@pytest.mark.parametrize("design", EDGES, ids=str)
def test_at_the_edges_it_is_never_too_sure(design: Design) -> None:
    assert coverage(design, 200) >= 0.91


@pytest.mark.parametrize(("families", "alike"), [(14, 4), (7, 8)])
@pytest.mark.parametrize("share", [0.1, 0.9, 0.95])
def test_at_the_edges_families_who_are_found_together_are_the_unit(families: int, alike: int, share: float) -> None:
    """All of a family, or nobody, as in "right family": with people for units it held seven times in ten, or five."""
    rng, held, times = np.random.default_rng(0), 0, 300
    clusters = torch.arange(families * alike) // alike
    for _ in range(times):
        found = torch.from_numpy((rng.random(families) < share).astype(float)).repeat_interleave(alike)
        got = evidence.seeds_interval(found[None], rate=True, clusters=clusters)
        assert got.low is not None
        assert got.high is not None
        held += got.low <= share <= got.high
    assert held / times >= 0.93


def test_all_of_so_many_families_is_as_sure_as_all_of_so_many_strangers() -> None:
    clusters = torch.arange(56) // 4
    alike, strangers = (
        evidence.seeds_interval(torch.ones(1, count), clusters=one) for count, one in ((56, clusters), (14, None))
    )
    assert (alike.low, alike.high) == (strangers.low, strangers.high)
    ones, halves = torch.ones(1, 8), torch.full((1, 8), 0.5)
    assert evidence.compare(ones, halves, rate=False, clusters=clusters[:8]).p == 0.5  # two signs, both alike
    assert evidence.compare(ones, halves, rate=False).p == 2.0**-7


def test_look_alikes_taken_for_strangers_would_make_it_too_sure() -> None:
    design = Design(1, 32, 4, 0, 0, 4, 2.0)
    assert coverage(design, 300, clusters=False) < 0.9 < coverage(design, 300)


def clear(design: Design, times: int) -> float:
    """How often two defences that do the same differ by an interval clear of zero."""
    rng, found = np.random.default_rng(0), 0
    for _ in range(times):
        people = people_of(design, rng)
        one, other = (drawn(design, rng, people) for _ in range(2))
        got = evidence.compare(one, other, rate=True, clusters=design.clusters)
        assert got.low is not None
        assert got.high is not None
        found += got.low > 0 or got.high < 0
        assert (got.p < 0.05) == (got.low > 0 or got.high < 0)
    return found / times


@pytest.mark.parametrize(
    "design", [Design(1, 20), Design(3, 20), Design(3, 32, 1, 0, 0.3), Design(1, 32, 1, 0, 0, 4, 1.2)], ids=str
)
def test_a_defence_that_does_nothing_is_seldom_named(design: Design) -> None:
    assert clear(design, 250) <= 0.09


@pytest.mark.parametrize("level", [-5.0, 4.5])
def test_at_the_edges_nothing_is_seldom_named(level: float) -> None:
    assert clear(Design(1, 32, 2, level), 150) <= 0.06


def worlds(design: Design, count: int, effect: float, rng: np.random.Generator) -> tuple[list, list]:
    """Each world's own people, with and without a defence that moves the logit by `effect`."""
    sides: tuple[list, list] = ([], [])
    for _ in range(count):
        people = people_of(design, rng)
        for side, shift in zip(sides, (effect, 0.0)):
            side.append(drawn(design, rng, people + shift))
    return sides


def over(sides: tuple[list, list]) -> evidence.Comparison:
    return evidence.over_worlds(sides[0], sides[1], rate=True)


@pytest.mark.parametrize(("count", "level"), [(4, 0.0), (16, 0.0), (16, -5.0)])
def test_over_worlds_nothing_is_named_in_one_of_twenty(count: int, level: float) -> None:
    rng, named = np.random.default_rng(0), 0
    for _ in range(200):
        got = over(worlds(Design(1, 20, 1, level, 0.3, 4, 1.0), count, 0.0, rng))
        named += got.p < 0.05
    assert named / 200 <= 0.09


def test_sixteen_worlds_find_what_one_world_of_three_trainings_misses() -> None:
    """An effect of about ten points: the reason why worlds are the unit."""
    rng, many, one = np.random.default_rng(0), 0, 0
    for _ in range(60):
        many += over(worlds(Design(1, 32, 2, 1.0, 0.2, 4, 0.7), 16, -0.6, rng)).p < 0.05
        (defended,), (plain,) = worlds(Design(3, 32, 2, 1.0, 0.2, 4, 0.7), 1, -0.6, rng)
        families = torch.arange(32) // 4
        one += evidence.compare(defended, plain, rate=True, clusters=families).p < 0.05
    assert many / 60 > 0.85
    assert one / 60 < 0.6


def test_delta_s_interval_covers_and_a_free_defence_has_none() -> None:
    rng, held, times, given = np.random.default_rng(0), 0, 150, 0
    for _ in range(times):
        people = rng.standard_normal((1, 40))
        losses = 0.1 + 0.05 * rng.standard_normal((3, 40)) + 0.03 * people
        drops = 0.2 + 0.2 * rng.standard_normal((3, 40)) + 0.1 * people
        zero = torch.zeros(3, 40)
        got = evidence.delta((torch.from_numpy(drops), zero), (torch.from_numpy(losses), zero))
        assert got.low is not None
        assert got.high is not None
        held += got.low <= 2 <= got.high
        free = evidence.delta((torch.from_numpy(drops), zero), (torch.from_numpy(losses - 0.1), zero))
        given += free.value is not None
    assert held / times >= 0.9
    assert given / times <= 0.06


GRID = [
    Design(seeds, people, images, level, training, alike, family)
    for seeds in (1, 3)
    for people, images in ((10, 2), (20, 2), (56, 1), (56, 2))
    for level in (0.0, -4.0, -6.0, 4.5)
    for training in ((0.0,) if seeds == 1 else (0.0, 0.3, 1.0))
    for alike, family in (((1, 0.0), (4, 1.0)) if people % 4 == 0 else ((1, 0.0),))
]


@pytest.mark.slow
@pytest.mark.parametrize("design", GRID, ids=str)
def test_the_whole_grid(design: Design) -> None:
    least = 0.85 if design.people == 10 or design.training == 1 else 0.91
    assert coverage(design, 400) >= least
