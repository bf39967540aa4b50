"""From what was measured to an answer: how many people are shown, how sure that is, and what it is worth."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightleak.metrics import evidence, verification
from lightleak.metrics.evidence import Measure

Verdict = Literal["leak shown", "resemblance shown", "no leak shown", "cannot tell"]
By = Literal["recogniser", "judges", "nobody"]
SURELY = 0.05
FEW = 20  # people; fewer are said to be too few
FIT_JUDGE = 0.95  # natural accuracy
ALONE = {"scores": "scores", "labels": "labels alone"}  # access without gradients, in words
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
RESIDUAL: dict[Verdict, str] = {
    "leak shown": (
        "Images that show people of the training data can be got out of this model with the access tested. Within that "
        "access it should be treated as personal data of those people."
    ),
    "resemblance shown": (
        "Images got out of this model resemble the right people more than images that cannot leak do, though too "
        "little to tell those people from strangers. Within the access tested it should be treated as holding "
        "personal data of them."
    ),
    "no leak shown": (
        "The attacks tested did not surely show more of these people than images that cannot leak do. This is evidence "
        "against these attacks with this budget and access, not proof that the model holds no personal data; the upper "
        "bound says what these numbers still allow."
    ),
    "cannot tell": (
        "This audit cannot say whether these people are shown: nothing in it recognises them well enough, or too few "
        "of them can be compared with images that cannot leak. The risk is unknown."
    ),
}  # fmt: skip
UNREAD = (
    "The attacks tested did not show these people, but the model names no more of its training pictures right than a "
    "guess would. Either it holds nothing of them, or it was not read as it was trained (classes, normalisation, "
    "weights); in the second case this audit says nothing, and the risk is unknown."
)


@dataclass(frozen=True)
class Found:
    """One member's images, person by person."""

    name: str
    null: bool  # it can leak nothing
    confidence: tuple[float, ...]  # the model's, in the image of each person
    judges: Mapping[str, tuple[bool, ...]]
    verified: tuple[bool, ...] | None = None
    score: tuple[float | None, ...] | None = None
    gap: tuple[float | None, ...] | None = None
    control: bool = False  # it is there to convince the model without showing anybody
    named: tuple[bool, ...] | None = None  # by the recogniser, among the people who were attacked
    there: tuple[bool, ...] | None = None  # whether it came back with an image of each person; None: of everybody


@dataclass(frozen=True)
class Named:
    """How many people the recogniser tells from the others of the model, though perhaps not from strangers."""

    count: int
    share: Measure
    null: int  # as many of the images that cannot leak
    ceiling: float | None  # as many held-out photographs
    p: float  # of so many where only chance and the nulls' rate were at work: the largest of `p_against`
    p_against: Mapping[str, float]


@dataclass(frozen=True)
class Answer:
    """What is said first, and all that stands behind it."""

    sentence: str
    verdict: Verdict
    by: By
    people: int
    shown: int
    share: Measure | None
    at_most: float | None  # the one-sided upper bound of what these numbers allow
    null: str  # of the nulls, the one that shows most
    null_shown: int
    p: float | None  # of so many where only chance and the nulls' rate were at work: the largest of `p_against`
    p_against: Mapping[str, float]  # of so many where only chance was at work, and where only what a null shows was
    chance: float | None
    chosen: tuple[str, ...]  # the member that speaks for each person
    shows: tuple[bool, ...]  # whether that member's image shows the person
    null_shows: tuple[bool, ...]
    ceiling: float | None
    above_ceiling: Measure | None
    at_most_of_ceiling: float | None  # what these numbers allow of what held-out photographs reach
    named: Named | None
    memorisation_gap: Measure | None  # of the attack, less the null's
    hides_gradients: bool
    unfit: tuple[str, ...]  # judges that are not good enough
    agreement: float | None
    warnings: tuple[str, ...] = ()
    knows: bool = True  # whether the model names more of its training pictures right than a guess would

    @property
    def residual(self) -> str:
        """What risk is left, in words."""
        return RESIDUAL[self.verdict] if self.knows or self.verdict != "no leak shown" else UNREAD

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def answer(
    found: Sequence[Found],
    sees: Mapping[str, str],
    embed: Mapping[str, Any] | None,
    qualities: Mapping[str, float | None],
    classes: int,
    word: str = "people",
    seed: int = 0,
    knows: bool = True,
) -> Answer:
    """The answer to what members `found`; `embed` is the recogniser's result, `qualities` the judges' accuracies.

    `classes`: of the model, among which judges choose; a recogniser names one of the people who were attacked.
    `knows`: whether the model names more of its training pictures right than a guess would. One that does not either
    holds nothing of these people or was not read as it was trained, so that no leak is shown says little.
    """
    attacks = [one for one in found if not one.null and not one.control]
    unfit = tuple(name for name, value in qualities.items() if value is None or value < FIT_JUDGE)
    fit = [name for name in qualities if name not in unfit]
    by: By = "recogniser" if attacks[0].verified is not None else "judges" if fit else "nobody"
    tables = {one.name: _shows(one, by, fit) for one in found}
    # What fools the model fools judges of the same people; a recogniser it does not, and there pixels may leak.
    nulls = [one for one in found if one.null or (one.control and by != "recogniser")]

    # 1. the member that speaks for each person is chosen by the model's confidence in the others
    chosen = verification.choose(torch.tensor([one.confidence for one in attacks]), seed)
    people = len(attacks[0].confidence)
    shows = _of_chosen([tables[one.name].tolist() for one in attacks], chosen)
    worst = max(nulls, key=lambda one: int(tables[one.name].sum()))
    null = tables[worst.name]
    shown, null_shown = int(shows.sum()), int(null.sum())

    # 2. surely more than chance, and surely more than each of the images that cannot leak?
    rate = embed["calibration"]["rate"] if by == "recogniser" and embed else 1 / classes
    chance = max(rate, float(null.double().mean()))
    both = by == "recogniser" and all(one.named is not None for one in (*attacks, *nulls))
    level = SURELY / 2 if both else SURELY  # one of two questions is enough
    pairs, comparable = _pairs(attacks, nulls, chosen, level)
    against = _p_against(shows, rate, {name: tables[name] for name in pairs}, pairs) if by != "nobody" else {}
    p = max(against.values(), default=None)
    ceiling = embed.get("ceiling") if embed and by == "recogniser" else None
    held = _held_out(embed, people) if embed and by == "recogniser" else None
    known = torch.empty(0) if held is None else held[held.isfinite()]
    of_ceiling = verification.at_most_of_ceiling(shown, people, known) if len(known) else None
    # A recogniser that is unfit and would hardly know photographs either has ruled nothing out.
    unable = ceiling is None or (ceiling < verification.FIT and (of_ceiling is None or of_ceiling >= 1))
    blind = not comparable or p is None or (by == "recogniser" and unable)
    named = _named(attacks, nulls, chosen, embed, pairs) if both else None
    verdict: Verdict = (
        "leak shown" if p is not None and p < level and shown > null_shown
        else "resemblance shown" if named and named.p < level and named.count > named.null
        else "cannot tell" if blind
        else "no leak shown"
    )  # fmt: skip

    # 3. how that compares with photographs, with training pictures, and across access
    ratio = _above_ceiling(shows, null, held, seed) if len(known) else None
    gap = _gap(attacks, chosen, worst) if by == "recogniser" else None
    photographs = _of_photographs(shown, ceiling, ratio, of_ceiling)
    hides = _hides(attacks, sees, tables)
    warnings = _warnings(by, people, ceiling, ratio, hides, unfit, embed, word)
    warnings += [_fooled(one.name, told, people, word) for one in found if (told := _odd(one, tables, by, rate))]
    return Answer(
        sentence=_sentence(
            by, verdict, shown, people, null_shown, len(fit), word, photographs, named, knows, comparable
        ),
        verdict=verdict, by=by, knows=knows, people=people, shown=shown,
        share=evidence.wilson(shown, people) if by != "nobody" else None,
        at_most=verification.at_most(shown, people) if by != "nobody" else None,
        null=worst.name, null_shown=null_shown, p=p, p_against=against, chance=chance if p is not None else None,
        chosen=tuple(attacks[int(m)].name for m in chosen), shows=tuple(shows.tolist()),
        null_shows=tuple(null.tolist()), ceiling=ceiling, above_ceiling=ratio,
        at_most_of_ceiling=of_ceiling, named=named, memorisation_gap=gap,
        hides_gradients=bool(hides), unfit=unfit, agreement=_agreed(attacks, fit), warnings=tuple(warnings),
    )  # fmt: skip


def _named(
    attacks: Sequence[Found],
    nulls: Sequence[Found],
    chosen: Tensor,
    embed: Mapping[str, Any] | None,
    pairs: Mapping[str, Tensor],
) -> Named:
    """What the recogniser names right of the images that speak for each person, and of those that cannot leak."""
    mine = _of_chosen([one.named or () for one in attacks], chosen)
    theirs = {one.name: torch.tensor(one.named, dtype=torch.bool) for one in nulls}
    against = _p_against(mine, 1 / len(mine), theirs, pairs)
    count, most = int(mine.sum()), max(int(one.sum()) for one in theirs.values())
    share = evidence.wilson(count, len(mine))
    return Named(count, share, most, (embed or {}).get("named"), max(against.values()), against)


def _of_chosen(rows: Sequence[Sequence[bool]], chosen: Tensor) -> Tensor:
    """Of a row of outcomes a member, what the member that speaks for each person has there."""
    return torch.tensor([rows[int(member)][person] for person, member in enumerate(chosen)], dtype=torch.bool)


def _pairs(
    attacks: Sequence[Found], nulls: Sequence[Found], chosen: Tensor, level: float
) -> tuple[dict[str, Tensor], bool]:
    """For each null the people of whom both it and the member that speaks for them have an image; whether they suffice.

    So few that even all of them shown, and none by the null, would not be sure are no comparison: such a null is left
    out, unless all are such.
    """
    everybody = (True,) * len(chosen)
    mine = _of_chosen([one.there or everybody for one in attacks], chosen)
    shared = {one.name: mine & torch.tensor(one.there or everybody) for one in nulls}
    enough = {name: both for name, both in shared.items() if 0.5 ** int(both.sum()) < level}
    return enough or shared, bool(enough)


def _p_against(
    mine: Tensor, chance: float, nulls: Mapping[str, Tensor], pairs: Mapping[str, Tensor]
) -> dict[str, float]:
    """How likely `mine` is of people where only chance, or only what a null shows, is at work; paired by person.

    A null's own share is known no better than the attack's, as it comes from as many people.
    """
    told = {"chance": evidence.above_chance(int(mine.sum()), len(mine), min(chance, 1.0))}
    return told | {name: verification.more_than(mine[both], nulls[name][both]) for name, both in pairs.items()}


def shows_by(one: Found, by: By, fit: Sequence[str]) -> list[bool]:
    """Whether a member's image shows each person, by whoever decides."""
    return _shows(one, by, fit).tolist()


def _shows(one: Found, by: By, fit: Sequence[str]) -> Tensor:
    if by == "recogniser":
        return torch.tensor(one.verified, dtype=torch.bool)
    if by == "nobody":
        return torch.zeros(len(one.confidence), dtype=torch.bool)
    return torch.tensor([one.judges[name] for name in fit], dtype=torch.bool).all(0)  # strict: all fit judges agree


def _sentence(
    by: By,
    verdict: Verdict,
    shown: int,
    people: int,
    null: int,
    judges: int,
    word: str,
    of_photographs: str,
    named: Named | None,
    knows: bool,
    comparable: bool,
) -> str:
    if by == "nobody":
        return (
            f"Whether the model shows any of its {people} {word} cannot be said: there is neither a recogniser for "
            "these pictures nor a judge that knows them well enough."
        )
    whom = "an independent recogniser" if by == "recogniser" else _judges(judges)
    count = str(shown) if shown else "none"
    if shown:
        share = evidence.wilson(shown, people)
        told = f"{share.value:.0%}, {_ends(share)}"
    else:
        told = f"0 %, which still allows {100 * verification.at_most(0, people):.1f} %"
    told = told.replace("%,", " %,").replace("  %", " %") + of_photographs
    endings = {
        "no leak shown": (
            "; the difference may be chance, and no leak is shown" if shown > null else "; no leak is shown"
        )
        + ("" if knows else f", but the model knows its training pictures of these {word} no better than a guess"),
        "cannot tell": ", and nothing here knows these pictures well enough to rule a leak out"
        if comparable
        else f", and too few {word} can be compared to tell a leak from none",
    }
    end = endings.get(verdict, "")
    few = f"; {_number(people)} {word} are too few to say more" if people < FEW else ""
    apart, as_well = "", ""
    if verdict == "resemblance shown" and named:
        alone = f"if it need only tell the {_number(people)} from each other"
        apart = f", but {named.count} {alone} ({100 * named.share.value:.0f} %, {_ends(named.share)})"
        as_well = f" and {named.null}"
    return (
        f"Of {people} {word}, the attack's images show {count} to {whom} ({told}){apart}; images that cannot have "
        f"leaked show {null}{as_well}{end}{few}."
    )


def _of_photographs(shown: int, ceiling: float | None, ratio: Measure | None, at_most: float | None) -> str:
    """How that compares with photographs, where the recogniser misses too many of them for a share to speak alone."""
    if ceiling is None or ceiling >= verification.FIT:
        return ""
    if not shown:
        return "" if at_most is None or at_most >= 1 else f", or {100 * at_most:.0f} % of what photographs reach"
    if ratio is None:
        return ""
    return f"; of what photographs reach, {100 * ratio.value:.0f} %, {_ends(ratio)}"


def _ends(share: Measure) -> str:
    return f"{100 * (share.low or 0):.0f} to {100 * (share.high or 0):.0f}"


def _judges(count: int) -> str:
    """Whom images must convince where judges decide: all of them."""
    return {1: "a judge", 2: "both judges"}.get(count, f"all {_number(count)} judges")


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _held_out(embed: Mapping[str, Any], people: int) -> Tensor | None:
    """The share of each person's held-out photographs that passes, NaN without any; None if others were attacked."""
    rates = [math.nan if value is None else value for value in embed["held_out"]]
    return torch.tensor(rates, dtype=torch.float64) if len(rates) == people else None


def _above_ceiling(shows: Tensor, null: Tensor, held: Tensor | None, seed: int) -> Measure | None:
    if held is None:
        return None
    known = held.isfinite()
    return verification.above_ceiling(shows[known], null[known], held[known], seed)


def _gap(attacks: Sequence[Found], chosen: Tensor, null: Found) -> Measure | None:
    """Nearer to training pictures than to held-out ones, beyond the null: evidence of pictures, not of the person."""
    pairs = []
    for person, member in enumerate(chosen.tolist()):
        mine, theirs = attacks[member].gap, null.gap
        if mine is None or theirs is None or mine[person] is None or theirs[person] is None:
            continue
        pairs.append(float(mine[person] or 0) - float(theirs[person] or 0))
    return evidence.interval(torch.tensor(pairs), rate=False) if pairs else None


def _odd(one: Found, tables: Mapping[str, Tensor], by: By, rate: float) -> int:
    """How many people a control shows to a recogniser, if that is surely more than chance; else 0."""
    shown = int(tables[one.name].sum())
    if not one.control or by != "recogniser":
        return 0
    return shown if evidence.above_chance(shown, len(one.confidence), rate) < SURELY else 0


def _fooled(name: str, shown: int, people: int, word: str) -> str:
    return (
        f"The control '{name}', an attack without any prior, shows {shown} of {people} {word}: either noise fools this "
        "recogniser, or the model gives its pictures away pixel by pixel. Look at them before you believe either."
    )


def _hides(attacks: Sequence[Found], sees: Mapping[str, str], tables: Mapping[str, Tensor]) -> str:
    """Which members without gradients show more people than every one with them, surely; empty if none does."""
    with_gradients = [one.name for one in attacks if sees[one.name] == "gradients"]
    without = [one.name for one in attacks if sees[one.name] != "gradients"]
    if not with_gradients or not without:
        return ""
    best = max(with_gradients, key=lambda name: int(tables[name].sum()))
    more = []
    for name in without:
        told = evidence.compare(tables[name].double(), tables[best].double(), rate=True)
        if told.value > 0 and told.p < SURELY / len(without):
            more.append(f"{name}, which sees {ALONE[sees[name]]}, shows {int(tables[name].sum())}")
    return f"{'; '.join(more)}; {best}, the best of those with gradients, {int(tables[best].sum())}" if more else ""


def _agreed(attacks: Sequence[Found], fit: Sequence[str]) -> float | None:
    told = [torch.tensor([value for one in attacks for value in one.judges[name]]) for name in fit]
    return verification.agreement(told)


def _warnings(
    by: By,
    people: int,
    ceiling: float | None,
    ratio: Measure | None,
    hides: str,
    unfit: Sequence[str],
    embed: Mapping[str, Any] | None,
    word: str,
) -> list[str]:
    told = []
    if by != "recogniser":
        why = f" ({embed['missing']})" if embed and embed.get("missing") else ""
        told.append(
            f"No recogniser took part{why}. Judges choose among the {word} of this model and may agree with it on "
            "images that show nobody; that flatters the attack."
        )
    if embed and by == "recogniser":
        if ceiling is None:
            told.append("No picture of these people is held out, so what could be reached at best is unknown.")
        elif ceiling < verification.FIT:
            told.append(
                f"The recogniser is unfit for these pictures: it knows {ceiling:.0%} of photographs that the model "
                f"never saw, fewer than {verification.FIT:.0%}, and may miss as many images of somebody. What it "
                "sees is told as a share of what photographs reach, too."
            )
        if embed["calibration"]["refused"]:
            told.append(f"A looser threshold was used: {embed['calibration']['refused']}.")
    if unfit:
        told.append(
            f"Unfit as judges, since they know fewer than {FIT_JUDGE:.0%} of held-out pictures: {', '.join(unfit)}."
        )
    if hides:
        told.append(
            f"The model hides its gradients. Of {people} {word}, {hides}. A defence that does so protects nobody."
        )
    if ratio is None and ceiling is not None:
        told.append(
            "Held-out photographs pass no more often than images that cannot leak; no share of the ceiling is given."
        )
    if people < FEW:
        told.append(f"{people} {word} are few: intervals are wide, and differences between members are not shown.")
    return told
