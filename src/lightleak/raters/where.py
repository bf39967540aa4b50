"""Which pairs a study holds, and where its raters' answers are kept."""

from dataclasses import dataclass
from pathlib import Path

from lightleak.errors import UserError
from lightleak.report.study import pairs_of
from lightleak.study.pairs import FORM, Pair, read_pairs

ANSWERS = "raters"  # a folder of the study


@dataclass(frozen=True)
class PairsToRate:
    """The pairs that people are asked about, and the folder of their answers."""

    pairs: tuple[Pair, ...]
    folder: Path


def pairs_to_rate(study: Path) -> PairsToRate:
    """The pairs of a study: its folder, its file (then runs/NAME), or a folder that holds pairs itself.

    UserError if there are none, or several sets of them: then one is to be named.
    """
    place = Path("runs") / study.stem if study.suffix == ".py" else study
    if (place / FORM).is_file():
        home = place.parent.parent if place.parent.name == "Pairs" else place.parent
        return PairsToRate(read_pairs(place), home / ANSWERS / place.name)
    found = list(pairs_of(place))
    if not found:
        raise UserError(
            f"{place} holds no pairs to be rated; 'lightleak study studies/paper/tab10_user_study.py' makes some"
        )
    if len(found) > 1:
        raise UserError(f"{place} holds {len(found)} sets of pairs; name one: {', '.join(map(str, found))}")
    return PairsToRate(read_pairs(found[0]), place / ANSWERS / found[0].name)
