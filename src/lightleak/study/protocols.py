"""Protocols: who is attacked, how often, who judges, and which numbers count, by name and version.

Two attack accuracies compare only if they were counted alike: over all images or over the best of each person, by the
same judge at the same size, over as many people. An evaluation records the protocol that it follows, and a table of
two protocols is refused unless it was asked for. A protocol whose meaning changes gets a new version.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightleak.errors import UserError

Fed = Literal["float", "8-bit"]


@dataclass(frozen=True)
class Protocol:
    """What is counted, and how. Every score is a mean over *all* kept images of a person, then over people."""

    name: str
    version: int = 1
    identities: int | None = None  # the first so many classes are attacked; None: all
    attempts: int | None = None  # latents optimised (or drawn) for each; None: as many as the attack likes
    keep: int | None = None  # images of each that are scored; None: as many as the attack returns
    judge: str | None = None  # architecture; None: whichever the study names
    judge_size: int | None = None  # side length of what it sees, in pixels
    fed: Fed = "float"  # reconstructions reach the judge as they are, or as the 8-bit images that a file would hold
    distance: str = "judge"  # whose features measure the distance to the nearest private image, squared L2
    fid: str = "judge"  # whose features FID is taken over
    metrics: tuple[str, ...] = (
        "hits@1",
        "hits@5",
        "delta_eval",
        "judge_fid",
    )  # names in METRICS, the first is the headline

    def __post_init__(self) -> None:
        counts = {"version": self.version, "identities": self.identities, "attempts": self.attempts, "keep": self.keep}
        wrong = [f"{name} must be at least 1, not {value}" for name, value in counts.items()
                 if value is not None and value < 1]  # fmt: skip
        if self.keep and self.attempts and self.keep > self.attempts:
            wrong.append(f"of {self.attempts} attempts no {self.keep} images can be kept")
        if not self.name or not self.metrics:
            wrong.append("a protocol needs a name and at least one metric")
        if wrong:
            raise UserError(f"this protocol cannot be: {'; '.join(wrong)}")

    @property
    def label(self) -> str:
        """Name and version, as tables write them."""
        return f"{self.name} v{self.version}"

    def classes(self, people: int) -> tuple[int, ...]:
        """Whom to attack among so many people; UserError if there are too few."""
        if self.identities is not None and people < self.identities:
            raise UserError(f"{self.label} attacks {self.identities} people, the target knows {people}")
        return tuple(range(self.identities or people))

    def check(self, found: Tensor, people: int, judge: str | None, judge_size: int, attempts: int | None) -> None:
        """UserError that names every departure of a reconstruction (its classes, N) and its judge from the protocol."""
        departures = []
        labels, counts = torch.unique(found, return_counts=True)
        if tuple(labels.tolist()) != (expected := self.classes(people)):
            departures.append(f"it attacks the first {len(expected)} classes, not {len(labels)} of them")
        if self.keep is not None and bool((counts != self.keep).any()):
            seen = " or ".join(str(count) for count in counts.unique().tolist())
            departures.append(f"it scores {self.keep} images of each person, not {seen}")
        if self.attempts is not None and attempts is not None and attempts != self.attempts:
            departures.append(f"it makes {self.attempts} attempts at each person, not {attempts}")
        if self.judge is not None and judge != self.judge:
            departures.append(f"its judge is {self.judge}, not {judge}")
        if self.judge_size is not None and judge_size != self.judge_size:
            departures.append(f"its judge sees {self.judge_size} x {self.judge_size} pixels, not {judge_size}")
        if departures:
            raise UserError(f"this evaluation does not follow {self.label}: {'; '.join(departures)}")


# Koh et al.: the judge, the features of FID, and what is measured of faces.
BY_INCEPTION: dict[str, Any] = {"judge": "torchvision:inception_v3", "judge_size": 299, "fid": "fid-inception"}
FACES = ("hits@1", "hits@5", "delta_eval", "delta_face", "fid", "precision", "recall", "density", "coverage")

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        # The 64-pixel attacks on CelebA (KED-MI, LOMMA, PLG-MI): labels 0 to 299 of 1,000, five restarts or draws of
        # each, top-1 and top-5 over all 1,500 images. Never the best of five, as the first GMI release counted.
        # Version 2 hands the judge 8-bit images, as GMI, KED-MI, LOMMA, BiDO and MID do; version 1 handed over floats.
        # PLG-MI hands over raw floats, enlarged with aligned corners: numbers of its paper differ in that.
        Protocol(
            "celeba-300x5",
            version=2,
            identities=300,
            attempts=5,
            keep=5,
            judge="face:facenet112",
            judge_size=112,
            fed="8-bit",
        ),
        # Koh et al. (ECCV 2024) with PPA on FaceScrub: 530 identities, 16 latents optimised and 8 kept of each.
        Protocol(
            "paper-ppa",
            identities=530,
            attempts=16,
            keep=8,
            **BY_INCEPTION,
            metrics=FACES,
        ),
        # The same of Stanford Dogs, which have no faces, and of CelebA, where 50 of 200 latents are kept.
        Protocol(
            "paper-ppa-dogs",
            identities=120,
            attempts=16,
            keep=8,
            **BY_INCEPTION,
            metrics=tuple(name for name in FACES if name != "delta_face"),
        ),
        Protocol(
            "paper-ppa-celeba",
            identities=1000,
            attempts=200,
            keep=50,
            **BY_INCEPTION,
            metrics=FACES,
        ),
        # Rendered people, as far as a laptop goes: everyone, whatever the attack returns, and the truth.
        Protocol("rendered", metrics=("hits@1", "verified", "true@1", "error", "delta_eval", "judge_fid")),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol of this name; UserError if there is none."""
    if name not in PROTOCOLS:
        raise UserError(f"there is no protocol {name!r}; known are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
