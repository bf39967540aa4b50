"""Priors of a study: fitted, rendered, or ready in a folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from lightleak import priors
from lightleak.attacks import Access
from lightleak.attacks.surrogate import asked, lesson, teacher
from lightleak.data.outlook import Outlook
from lightleak.errors import UserError
from lightleak.fingerprint import told
from lightleak.priors import PixelsPrior, Prior, RenderedPrior
from lightleak.priors.fit import QUICK, FitSettings, check_target, fit
from lightleak.study.amounts import Amount
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks.populations import Draw
from lightleak.study.tasks.targets import Attacked, run_of
from lightleak.study.tasks.work import REST, Repeating, counts, guard_of, named


@dataclass(frozen=True)
class FitPrior(Repeating):
    """A generator learnt from public images and, where its settings say so, from the answers of one target to them."""

    gpus = 1.0
    population: Draw
    settings: FitSettings = QUICK
    seed: int = 0
    target: Attacked | None = None

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and the run that its target lies in."""
        return (*super().needs(), run_of(self.target)) if self.target else super().needs()

    def __post_init__(self) -> None:
        check_target(self.settings, self.target is not None)

    @property
    def label(self) -> str:
        return "fit the prior" + (f" for {named(self.target)}" if self.target else "")

    @property
    def pictures(self) -> Draw:
        """Of the public people."""
        return self.population

    @property
    def asks(self) -> Access | None:
        """What it is granted of the target: what its settings need, no more; None without a target."""
        return self.settings.asks if self.target else None

    def amounts(self) -> tuple[Amount, ...]:
        """Unless its target is a network that no name tells."""
        return () if self.target is not None and not self.target.architecture else super().amounts()

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """The fit, of which some steps are measured on images of noise, and a look of its target at all images."""
        asked = self.target.architecture if self.target is not None else ""
        fit = Amount("fit", 1, asked, seen.size, seen.people, fit=self.settings)
        looked = [Amount("look", seen.images["public"], asked, seen.size, seen.people)] if asked else []
        return (fit, *looked, REST)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population = self.population.load(store)
        oracle = None
        if self.target:
            target = self.target.load(store)
            oracle = teacher(target, self.settings, guard_of(self.target, target, store))
        heard = asked(oracle, self.settings) if oracle else None
        prior = fit(population.public, self.settings, self.seed, store.scratch(self), watch, target=heard)
        queries = heard.count if heard else 0  # those before a stop as well
        priors.save(prior, folder, lesson(oracle, heard))
        priors.show(prior, folder / "samples.png")
        return {"images": len(population.public), "queries": queries, "settings": told(self.settings)}

    def load(self, store: Store) -> Prior:
        """The fitted prior."""
        return priors.load(store.folder(self))


@dataclass(frozen=True)
class Rendered(Task):
    """The renderer as a prior over its own factors."""

    population: Draw
    strength: float = 1.0
    asks: ClassVar[Access | None] = None

    @property
    def label(self) -> str:
        return "take the renderer as prior"

    def sketch(self) -> Prior | None:
        """The painter at the images' size."""
        seen = counts(self.population)
        return None if seen is None else RenderedPrior(size=seen.size, strength=self.strength)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        prior = RenderedPrior(size=self.population.load(store).size, strength=self.strength)
        priors.save(prior, folder)
        return {"latents": prior.latents}

    def load(self, store: Store) -> Prior:
        """The prior."""
        return priors.load(store.folder(self))


@dataclass(frozen=True)
class Pixels(Task):
    """No prior: attacks search in the pixels of the images themselves, as adversarial nulls do."""

    population: Draw
    asks: ClassVar[Access | None] = None

    @property
    def label(self) -> str:
        return "take pixels as prior"

    def sketch(self) -> Prior | None:
        """As many pixels."""
        seen = counts(self.population)
        return None if seen is None else PixelsPrior(size=seen.size)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        prior = PixelsPrior(size=self.population.load(store).size)
        priors.save(prior, folder)
        return {"latents": prior.latents}

    def load(self, store: Store) -> Prior:
        """The prior."""
        return priors.load(store.folder(self))


@dataclass(frozen=True)
class Ready(Task):
    """A prior in a folder, as `lightleak fit` or `lightleak convert` wrote it; it is read where it lies."""

    path: str = field(compare=False)  # of the folder; what decides the result is what lies in it
    weights: str = ""  # their sha256
    asks: ClassVar[Access | None] = None  # nothing while the study runs; what it learnt before is in its note

    @property
    def queries(self) -> int:
        """Images that were shown to a target while it was made; 0 without one."""
        made = priors.learnt(self.path)
        return made[1] if made else 0

    @property
    def size(self) -> int:
        """Pixels a side of the images that it draws."""
        return _size(self.path, self.weights)

    def sketch(self) -> Prior | None:
        """The prior."""
        return priors.load(self.path)

    def brings(self) -> dict[str, Callable[[], str]]:
        """The prior."""
        return {"prior": self._described}

    def _described(self) -> str:
        if priors.seal(self.path) != self.weights:
            raise UserError(f"{self.path} holds another prior than the study was planned with")
        prior = priors.load(self.path)
        return f"{self.path}: images of {prior.size} pixels, {prior.latents} latents"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        prior = priors.load(self.path)
        found = priors.seal(self.path)
        if found != self.weights:
            raise UserError(f"{self.path} holds another prior than the study was planned with ({found[:12]})")
        return {"size": prior.size, "latents": prior.latents, "weights": self.weights}

    def load(self, store: Store) -> Prior:  # noqa: ARG002
        """The prior."""
        return priors.load(self.path)


@cache
def _size(path: str, weights: str) -> int:  # noqa: ARG001
    return priors.load(path).size


def ready(path: str | Path) -> Ready:
    """The prior in a folder, known by its weights; UserError if there is none."""
    return Ready(str(Path(path).expanduser().absolute()), priors.seal(path))
