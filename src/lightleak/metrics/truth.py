"""Is it really the person? Reconstructions against the true factors of a rendered world.

Two people are as far apart as their canonical portraits: the root mean square over pixels (of 1), at 64 pixels a
side. Raw factors would mislead, since hair hue hardly shows on black hair. All yardsticks come from people drawn at
random, never from the population at hand, so a number means the same for 5 classes and for 500:

- *verification*, as in biometrics: accepted below a distance that one in 1,000 pairs of random people undercuts;
- *true match @k*: the true person is among the k nearest of the private people, or of himself and 1,000 strangers;
- *right family*, *right member*: where private people look alike, a face can be known without the person. Is the
  nearest of the private people one of the right family? And told the family, is the nearest of its members the person
  (chance: 1 / members)?
- *normalised error*: the distance over the mean distance of random people. 0 is the person, 1 is what a random
  person scores, and the average face scores about 0.7: only less than that says something about the person.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from lightleak.data import faces
from lightleak.errors import UserError
from lightleak.place import here

SIZE = 64  # pixels a side of canonical portraits
PIECE = 256  # people handled at once


@dataclass(frozen=True)
class Yardstick:
    """What distances between random people are like."""

    threshold: float  # the share `false_match_rate` of random pairs lies below it
    typical: float  # mean distance of random pairs
    false_match_rate: float
    pairs: int
    strangers: Tensor  # people x pixels: their canonical portraits, which serve as distractors


@lru_cache(maxsize=4)
def yardstick(false_match_rate: float = 1e-3, people: int = 1000, seed: int = 0) -> Yardstick:
    """Verification threshold and typical distance from all pairs of `people` random people.

    1,000 people give 499,500 pairs; over seeds, their threshold at 1e-3 has a standard deviation of about 1 %.
    Computed once per setting and process, in about 3 s.
    """
    pairs = people * (people - 1) // 2
    if not 0 < false_match_rate < 1 or pairs * false_match_rate < 20:
        raise UserError(
            f"a false match rate of {false_match_rate:g} cannot be measured on {pairs} pairs of {people} people; "
            "at least 20 false matches are needed: take more people"
        )
    strangers = portraits(faces.sample_factors(people, torch.Generator().manual_seed(seed)))
    row, column = torch.triu_indices(people, people, 1, device=strangers.device)
    distances = distance_table(strangers, strangers)[row, column]
    threshold = distances.kthvalue(int(false_match_rate * pairs)).values
    return Yardstick(float(threshold), float(distances.mean()), false_match_rate, pairs, strangers.cpu())


def portraits(factors: Tensor) -> Tensor:
    """Canonical portraits of `factors` (N x F) as rows of 3 x 64 x 64 pixels in [0, 1]: N x 12288, painted here."""
    expected = len(faces.FACTORS)
    if factors.dim() != 2 or factors.shape[1] != expected or not factors.isfinite().all():
        raise UserError(f"expected finite factors of shape N x {expected}, got shape {tuple(factors.shape)}")
    with torch.no_grad():
        pieces = here().exact.put(factors).float().split(PIECE)
        return torch.cat([faces.canonical(piece, SIZE).flatten(1) for piece in pieces])


def distance_table(a: Tensor, b: Tensor) -> Tensor:
    """Root mean square distances between rows of portraits: N x M, float64."""
    a, b = a.double(), b.double()
    centre = b.mean(0)  # the Gram matrix loses digits to whatever all portraits share
    a, b = a - centre, b - centre
    square = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    return (square.clamp(min=0) / a.shape[1]).sqrt()


@dataclass(frozen=True)
class Truth:
    """What is true of each reconstruction; every tensor has one entry per image, on the CPU."""

    distance: Tensor  # to the true person: RMS of canonical portraits
    error: Tensor  # the same over the typical distance of random people
    verified: Tensor  # bool
    rank: Tensor  # private people at least as near as the true one, 0 is a match
    rank_among_strangers: Tensor  # the same among 1,000 people drawn at random
    family: Tensor | None = None  # bool: nearest to one of the right family; None where nobody looks alike
    member: Tensor | None = None  # bool: nearest to the right one of the family's members


@dataclass(frozen=True)
class Families:
    """What the look-alikes of a population give away of each other, told by nothing but their family."""

    match_rate: float  # of verification: the share of pairs within a family that it takes for one person
    error: float  # mean distance of two members over that of random people
    # Of one of a person's family, drawn at random, the mean over people: how often it is the person,
    person: float
    verified: float  # how often verification takes it for the person,
    apart: float  # and its distance over that of random people


def families(
    private: Tensor, groups: Tensor, scale: Yardstick | None = None, which: Tensor | None = None
) -> Families | None:
    """How alike the private people (C x F) of one family (`groups`, C) are; None where every family is one person.

    `which` people a family is told of; None: all.
    """
    scale = scale or yardstick()
    known = portraits(private)
    groups = groups.to(known.device)
    same = (groups[:, None] == groups) & ~torch.eye(len(groups), dtype=torch.bool, device=known.device)
    if not same.any():
        return None
    table = distance_table(known, known).fill_diagonal_(0)
    distances, kin = table[same], (groups[:, None] == groups).double()
    rate, shares = (distances <= scale.threshold).double().mean(), kin / kin.sum(1, keepdim=True)
    drawn = [shares.diagonal(), (shares * (table <= scale.threshold)).sum(1), (shares * table).sum(1)]
    person, verified, apart = (float((each if which is None else each[which.to(each.device)]).mean()) for each in drawn)
    return Families(float(rate), float(distances.mean()) / scale.typical, person, verified, apart / scale.typical)


def compare(
    factors: Tensor,
    classes: Tensor,
    private: Tensor,
    scale: Yardstick | None = None,
    groups: Tensor | None = None,
) -> Truth:
    """Hold reconstructed people (`factors`, N x F, meant to be `classes`) against all private ones (C x F).

    `groups` (C) says who belongs to which family of look-alikes.
    """
    scale = scale or yardstick()
    if len(factors) != len(classes) or not len(classes):
        raise UserError(f"expected one class per row of factors, got {len(classes)} for {len(factors)}")
    if int(classes.min()) < 0 or int(classes.max()) >= len(private):
        raise UserError(f"expected classes from 0 to {len(private) - 1}, got up to {int(classes.max())}")
    known = portraits(private)
    scale = replace(scale, strangers=scale.strangers.to(known.device))
    pieces = zip(factors.split(PIECE), classes.to(known.device).split(PIECE))
    kin = (groups if groups is not None else torch.arange(len(private))).to(known.device)
    columns = zip(*(_held_against(portraits(piece), labels, known, scale, kin) for piece, labels in pieces))
    distance, rank, among_strangers, family, member = (torch.cat(column).cpu() for column in columns)
    alike = (family, member) if groups is not None else (None, None)
    return Truth(distance, distance / scale.typical, distance <= scale.threshold, rank, among_strangers, *alike)


def _held_against(
    found: Tensor, classes: Tensor, known: Tensor, scale: Yardstick, groups: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Distance to the true person; how many private people and strangers are at least as near; family and member."""
    # Plain differences here: an exact hit must be exactly 0.
    own = (found - known[classes]).double().square().mean(1).sqrt()
    others = distance_table(found, known).scatter(1, classes[:, None], torch.inf)
    strangers = distance_table(found, scale.strangers)
    reach = own[:, None] + 1e-6  # twins tie, and a tie is no match
    same = groups[classes][:, None] == groups
    nearest = torch.minimum(own, others.masked_fill(~same, torch.inf).amin(1))
    family = (others.masked_fill(same, torch.inf) > nearest[:, None] + 1e-6).all(1)
    member = ((others <= reach) & same).sum(1) == 0
    return own, (others <= reach).sum(1), (strangers <= reach).sum(1), family, member
