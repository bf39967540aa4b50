"""RoLSS, RoLSS+ and SSF: train without, or with weaker, skip connections in the last stage.

Koh et al., "On the Vulnerability of Skip Connections to Model Inversion Attacks" (ECCV 2024), Sec. 5.

    RoLSS   y = F(x)              in the last stage that has skips, from the first epoch on
    RoLSS+  the same, and also in the last blocks of the stage before (its first `keep` share stays whole)
    SSF     y = F(x) + k x        in the last stage; of a concatenation, the first round(k C) channels of each older map

Deviations from the published code: the projection on a removed skip goes as well (there it still runs, without any
effect); "last stage" is the last one that has skips, so the defence never silently changes nothing; no share of stage
3 is cut unless asked for (there it always is); gains that start at zero start at one in the blocks that lose their
skip, without which an untrained timm ResNet stays at chance (the published networks are pretrained, or start at one).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lightleak.errors import UserError
from lightleak.models.changes import SURGERY
from lightleak.models.classifier import Classifier
from lightleak.surgery import Skip, chosen_skips, find_skips, remove_skips, scale_skips
from lightleak.training.plan import Plan
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class RoLSS:
    """Removal of Last Stage Skip connections (paper Sec. 5.1)."""

    where: str | int = "last"  # as for remove_skips: "last", "all", a stage, a glob of skip names
    wake: bool = True  # gains that start at zero start at one where their skip is gone
    title: ClassVar[str] = "RoLSS"

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        return Plan(changes=((0, self.apply),))

    def apply(self, classifier: Classifier) -> Classifier:
        """The classifier without those skips; UserError if there are none, or "last" means other ones than before."""
        check_last(self.where, classifier, "RoLSS")
        return classifier.with_net(remove_skips(classifier.net, self.where, classifier.example, wake=self.wake))

    @property
    def ambiguous(self) -> bool:
        """Whether the last stage may be meant by its number."""
        return numbered(self.where)

    def respelled(self, classifier: Classifier) -> "RoLSS":
        """With the last stage called so."""
        return replace(self, where=shortest(self.where, classifier))


@dataclass(frozen=True)
class RoLSSPlus:
    """RoLSS, and the skips of the last part of the stage before (paper, supplement Tab. 9)."""

    keep: float = 0.9  # share of the blocks before it whose skips stay, rounded down
    title: ClassVar[str] = "RoLSS+"

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise UserError(f"RoLSS+ keeps a share of the skips in [0, 1), not {self.keep}")

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        return Plan(changes=((0, self.apply),))

    def apply(self, classifier: Classifier) -> Classifier:
        """The classifier without the skips of its last stage and of the tail of the one before."""
        check_last("last", classifier, "RoLSS+")
        stages = sorted({skip.stage for skip in find_skips(classifier.net, classifier.example)})
        if len(stages) < 2:
            raise UserError(f"RoLSS+ needs skips in two stages, this network has them in {len(stages)}; use RoLSS")
        skips = chosen_skips(classifier.net, ["last", *stages[-2:]], classifier.example)  # no half of a stage
        before = [skip for skip in skips if skip.stage == stages[-2]]
        chosen = before[int(self.keep * len(before)) :] + [skip for skip in skips if skip.stage == stages[-1]]
        return classifier.with_net(remove_skips(classifier.net, chosen, example=classifier.example))


@dataclass(frozen=True)
class SSF:
    """Skip-connection Scaling Factor (paper Sec. 5.2, Eq. 3 and 8)."""

    factor: float | None = None  # k; None: as in the paper's tables 0.2 for additive skips, 0.01 for concatenative
    where: str | int = "last"
    title: ClassVar[str] = "SSF"

    def __post_init__(self) -> None:
        if self.factor is not None and not 0 <= self.factor < 1:
            raise UserError(f"SSF scales skips by a factor in [0, 1), not {self.factor}; 1 would change nothing")

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        return Plan(changes=((0, self.apply),))

    def apply(self, classifier: Classifier) -> Classifier:
        """The classifier with those skips scaled."""
        check_last(self.where, classifier, "SSF", ("remove", "scale"))
        net, example = classifier.net, classifier.example
        factors = self._factors(classifier)
        if len(factors) == 1:
            return classifier.with_net(scale_skips(net, next(iter(factors)), self.where, example))
        for factor, names in factors.items():
            net = scale_skips(net, factor, names, example)
        return classifier.with_net(net)

    def _factors(self, classifier: Classifier) -> dict[float, list[str]]:
        """Each factor, and the names of the skips that it scales; what may leave nothing of a skip comes last."""
        found: dict[float, list[str]] = {}
        for skip in chosen_skips(classifier.net, self.where, classifier.example):
            found.setdefault(usual(skip) if self.factor is None else self.factor, []).append(skip.name)
        return dict(sorted(found.items(), reverse=True))

    @property
    def ambiguous(self) -> bool:
        """Whether the last stage may be meant by its number, or the paper's factor by itself."""
        return numbered(self.where) or self.factor is not None

    def respelled(self, classifier: Classifier) -> "SSF | RoLSS":
        """With the last stage called so, without the paper's factor; RoLSS where nothing is left of the skips."""
        where = shortest(self.where, classifier)
        if self.factor == 0:
            return RoLSS(where)
        plain = SSF(where=where)
        return plain if plain._factors(classifier) == self._factors(classifier) else replace(plain, factor=self.factor)


def check_last(where: str | int, classifier: Classifier, who: str, cuts: Sequence[str] = ("remove",)) -> None:
    """UserError if "last" is asked for of a network whose last stage is cut already: it would mean another one."""
    steps = [change for change in classifier.changes if change["kind"] == SURGERY and change.get("surgery") in cuts]
    before = max((int(stage) for step in steps for _, _, stage, _ in step["skips"]), default=0)
    if where != "last" or not before:
        return
    now = max((skip.stage for skip in find_skips(classifier.net, classifier.example)), default=0)
    if before >= now:
        raise UserError(
            f"{who}: the last stage of this network is cut already, and the last one that has skips is now another; "
            f"name what else is to be cut, such as rolss(where={now}) or ssf(where={now})"
        )


def usual(skip: Skip) -> float:
    """The paper's factor: 0.01 for concatenations, 0.2 for sums."""
    return 0.01 if skip.kind == "cat" else 0.2


def numbered(where: str | int) -> bool:
    """Whether a stage is meant by its number."""
    return isinstance(where, int) or where.isdigit()


def shortest(where: str | int, classifier: Classifier) -> str | int:
    """A stage as a number, "last" if it is the last one that has skips; whatever else is meant as it was."""
    if not numbered(where):
        return where
    stages = {skip.stage for skip in find_skips(classifier.net, classifier.example)}
    return "last" if stages and int(where) == max(stages) else int(where)
