"""What each way of answering costs: the same attacks behind an API that gives out less and less.

An attacker with an API alone meets probabilities as they are, rounded, the largest one, or the name of the class. The
black-box members of the ensemble, with the same budget, prior and seeds, are run behind each of these guards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightleak.attacks import Access, Guard
from lightleak.attacks.guards import LabelsOnly, Rounded, TopK
from lightleak.audit.answer import Answer, Found, shows_by
from lightleak.audit.ensemble import BudgetName, Ensemble, PriorTask, ensemble
from lightleak.metrics import verification
from lightleak.metrics.evidence import compare, wilson
from lightleak.study.tasks import Given

EXPOSURES: dict[str, Guard | None] = {
    "probabilities as they are": None,
    "probabilities to 2 decimals": Rounded(2),
    "the largest probability": TopK(1),
    "the label alone": LabelsOnly(),
}


@dataclass(frozen=True)
class Exposure:
    """One way of answering, and who attacks it."""

    name: str
    target: Given
    ensemble: Ensemble

    @property
    def sees(self) -> Access:
        """What the attacker gets."""
        return "labels" if self.target.guard is not None and self.target.guard.labels else "scores"


def exposures(
    target: Given, budget: BudgetName, prior: PriorTask | None, seed: int, classes: tuple[int, ...] | None = None
) -> tuple[Exposure, ...]:
    """The same model behind each guard, attacked through its API alone; `classes`: who is attacked, None for all."""
    found = []
    for name, guard in EXPOSURES.items():
        behind = replace(target, guard=guard)
        group = ensemble(behind, "scores", budget, prior, seed, classes=classes)
        found.append(Exposure(name, behind, replace(group, members=group.attacks)))
    return tuple(found)


def compared(
    found: Mapping[str, Sequence[Found]], told: Answer, fit: Sequence[str], spent: Mapping[str, int], seed: int
) -> list[dict[str, Any]]:
    """A row for each exposure: what its members show, and how that differs from all that was granted in the audit.

    As everywhere, the model's confidence in one half of the people chooses the member that speaks for the other half.
    """
    granted, rows = torch.tensor(told.shows, dtype=torch.float64), []
    for name, members in found.items():
        tables = torch.tensor([shows_by(one, told.by, fit) for one in members], dtype=torch.float64)
        shows = _of_chosen(tables, torch.tensor([one.confidence for one in members]), seed)
        known = told.by != "nobody"
        rows.append(
            {
                "exposure": name,
                "shown": int(shows.sum()),
                "share": asdict(wilson(int(shows.sum()), len(shows))) if known else None,
                "at_most": verification.at_most(int(shows.sum()), len(shows)) if known else None,
                "less_than_granted": asdict(compare(granted, shows, rate=True)) if known else None,
                "queries": spent[name],
                "members": {one.name: int(table.sum()) for one, table in zip(members, tables)},
            }
        )
    return rows


def _of_chosen(tables: Tensor, confidence: Tensor, seed: int) -> Tensor:
    chosen = verification.choose(confidence, seed)
    return tables.gather(0, chosen[None]).squeeze(0)
