"""Every sentence of the findings in README.md, computed from the records beside it; fails where they no longer agree.

    python results/claims.py            checks (make claims; continuous integration runs it)
    python results/claims.py --write    writes the sentences anew, where the records still support them

A claim is a sentence whose numbers come out of records, and a condition that must hold for it to be said.
"""
# ruff: noqa: E501 -- a sentence is read best in one piece

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch

from lightleak.data import faces
from lightleak.metrics import truth
from lightleak.metrics.evidence import Comparison, above_chance, over_worlds

HERE = Path(__file__).parent
START, END = "<!-- findings: written by claims.py -->", "<!-- end of findings -->"

HARD, HARDER = "demo-faces/hard", "demo-faces/harder"
POINCARE, MARGIN = "defences-faces/poincare", "defences-faces/max-margin"
STAGES, DENSE, SWEEP = "paper/tab2_stages/resnet18", "paper/tab2_stages/densenet121", "paper/fig9_ssf/resnet18"
LONGER = "paper/fig12_repetitions/resnet18-42-epochs"
NARROW = "paper/tab2_stages/densenet-narrow"
VGG, RESIDUAL = "paper/tab11_vgg/resnet18", "paper/tab11_vgg/ir18-narrow"
TERMS = "paper/tab8_bido_rolss/terms"
PRIVATE, PRIVATE_MARGIN = "private-faces/poincare", "private-faces/max-margin"
TRUTH, TRUTH_MARGIN = "rolss-by-truth/poincare", "rolss-by-truth/max-margin"
KNOWN, OTHER, LADDER = "defences-2026/ir18", "defences-2026/resnet18", "access-ladder"
OVER, OVER_MARGIN = (f"defences-2026/resnet18-on-rolss/{loss}" for loss in ("poincare", "max-margin"))
FUSED, EFFICIENT, VIT = "paper/tab4_repvgg/repvgg_a0", "paper/fig3_families/efficientnet_b0", "paper/fig7_transformers"
# RoLSS attacked by the Poincaré distance, three trainings each. All were drawn by the same seed: people or families
# of one are in the others, so they are one world, not four.
EARLIER = ((HARD, "RoLSS"), (HARDER, "RoLSS"), (POINCARE, "RoLSS"), (STAGES, "RoLSS (where 4)"))
# Trained along wrong gradients; the README there says how. No claim may rest on these rows.
WITHDRAWN = ("defences-faces", "DP-SGD")


@dataclass
class Records:
    """The records below a folder, read once."""

    folder: Path = HERE
    known: dict[str, dict[str, Any]] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, Any]:
        """One record by its place, or the only one below it."""
        if name not in self.known:
            places = sorted(self.folder.glob(f"{name}/record.json")) or sorted(
                self.folder.glob(f"{name}/*/record.json")
            )
            self.known[name] = json.loads(places[0].read_text(encoding="utf-8"))
        return self.known[name]

    def all(self) -> list[dict[str, Any]]:
        """Every record, without the rows that were withdrawn."""
        found = []
        for place in sorted(self.folder.rglob("record.json")):
            record = json.loads(place.read_text(encoding="utf-8"))
            if WITHDRAWN[0] in place.parts:
                record["rows"] = [row for row in record["rows"] if WITHDRAWN[1] not in row["name"]]
            found.append(record)
        return found

    def value(self, name: str, row: str, column: str) -> float:
        """A number of the main table."""
        return next(one for one in self.of(name)["rows"] if one["name"] == row)["measures"][column]["value"]

    def gap(self, name: str, row: str, column: str) -> tuple[float, float, float]:
        """A paired difference to the baseline with its interval, as the record has it."""
        found = self.difference(name, row, column)
        return found["value"], found["low"], found["high"]

    def tested(self, name: str, row: str, column: str) -> tuple[tuple[float, float, float], float]:
        """A paired difference over worlds with its interval, and Holm's p."""
        return self.gap(name, row, column), self.difference(name, row, column)["corrected"]

    def difference(self, name: str, row: str, column: str) -> dict[str, Any]:
        """All that a record says of a paired difference to the baseline."""
        return next(o for o in self.of(name)["differences"] if (o["row"], o["column"]) == (row, column))

    def least_corrected(self, name: str, row: str, column: str) -> float:
        """Holm's p of a difference at its smallest: as if its interval, and those of all clearer ones, were normal."""
        gaps = {o["row"]: o for o in self.of(name)["differences"] if o["column"] == column}
        z = {other: 1.96 * 2 * abs(o["value"]) / (o["high"] - o["low"]) for other, o in gaps.items()}
        clearer = sum(value > z[row] for value in z.values())
        return 2 * (1 - NormalDist().cdf(z[row])) * (len(z) - clearer)

    def level(self, name: str, row: str, column: str) -> tuple[float, float, float]:
        """The same at equal natural accuracy."""
        found = next(o for o in self.of(name)["levels"] if (o["row"], o["column"]) == (row, column))["difference"]
        return found["value"], found["low"], found["high"]


def hundredths(shares: Sequence[float], between: str = ", ") -> str:
    """Shares in percent, without decimals and without the sign."""
    return between.join(f"{100 * share:.0f}" for share in shares)


def points(found: tuple[float, float, float] | Comparison) -> str:
    """A difference in percentage points with its interval."""
    ends = (found.value, found.low, found.high) if isinstance(found, Comparison) else found
    value, low, high = (f"{100 * end:.0f}".replace("-0", "0").replace("-", "−") for end in ends if end is not None)
    return f"{value} points ({low} to {high})"


def percent(share: float) -> str:
    """A share as the sentences write it."""
    return f"{hundredths([share])} %"


def clear(found: tuple[float, float, float]) -> bool:
    """Whether an interval leaves out zero."""
    return found[1] > 0 or found[2] < 0


Claim = Callable[[Records], tuple[str, bool]]
CLAIMS: list[Claim] = []


def claim(function: Claim) -> Claim:
    """Put a claim on the list."""
    CLAIMS.append(function)
    return function


@claim
def rolss_by_the_judge(records: Records) -> tuple[str, bool]:
    got, p = records.tested(TRUTH, "RoLSS", "hits@1")
    before = [records.gap(name, row, "hits@1")[0] for name, row in EARLIER]
    seeds = {records.of(name)["recipe"]["population"]["settings"].get("seed", 0) for name, _ in EARLIER}
    return (
        f"**RoLSS defends, by the judge**: {points(got)} of AttAcc@1 over sixteen worlds, by two judges, p = {p:.1g}. Four "
        f"earlier records of three trainings each have {hundredths(before).replace('-', '−')} points; they share most of their "
        "people, so they are one world, not four.",
        clear(got) and p < 0.05 and max(before) < 0 and len(seeds) == 1,
    )


@claim
def rolss_by_the_truth(records: Records) -> tuple[str, bool]:
    (true, p), (member, sure) = (records.tested(TRUTH, "RoLSS", name) for name in ("true@1", "member@1"))
    judged, lost = (records.gap(TRUTH, "RoLSS", name) for name in ("hits@1", "accuracy"))
    worlds = len(records.of(TRUTH)["tables"]["RoLSS"]["true@1"])
    return (
        f"**RoLSS defends, by the truth.** Declared before it ran: {worlds} worlds, one training each, ResNet-18, PPA. "
        f"{points(true)} of true match @1 (p = {p:.1g} after Holm's correction over four defences), {points(member)} of "
        f"the right member of the right family (p = {sure:.1g}), {points(judged)} by two judges, for {points(lost)} of "
        "natural accuracy.",
        worlds == 16 and true[2] < 0 and p < 0.05 and member[2] < 0 and sure < 0.05,
    )


@claim
def rolss_by_the_other_loss(records: Records) -> tuple[str, bool]:
    (true, p), (judged, sure) = (records.tested(TRUTH_MARGIN, "RoLSS", name) for name in ("true@1", "hits@1"))
    return (
        f"**The other loss agrees**: by max-margin, on the same networks, RoLSS takes "
        f"{points(true)} by the truth (p = {p:.1g}) and {points(judged)} by the judges (p = {sure:.1g}).",
        true[2] < 0 and p < 0.05,
    )


@claim
def others_by_the_truth(records: Records) -> tuple[str, bool]:
    found = {row: records.tested(TRUTH, row, "true@1") for row in ("RoLSS+", "SSF", "TTS")}
    sure = [row for row, (gap, p) in found.items() if clear(gap) and p < 0.05]
    told = "; ".join(
        f"{row} {points(gap)}, p = {p:.1g}{'' if row in sure else ', not shown'}" for row, (gap, p) in found.items()
    )
    lost = records.gap(TRUTH, "RoLSS+", "accuracy")
    return (
        f"**The others in those worlds**, true match @1: {told}. RoLSS+ costs {points(lost)} of natural accuracy.",
        "RoLSS+" in sure and found["RoLSS+"][0][0] < records.gap(TRUTH, "RoLSS", "true@1")[0],
    )


@claim
def attackers_who_know(records: Records) -> tuple[str, bool]:
    known = records.of(KNOWN)
    words = {one["word"] for one in known["verdicts"]}
    rows = [one["name"] for one in known["rows"] if one["kind"] == "target" and one["name"] != known["baseline"]]
    found = {row: records.tested(KNOWN, row, "knowing true@1") for row in rows}
    least = {row: got for row, got in found.items() if clear(got[0]) and got[1] < 0.05}
    told = ", ".join(
        f"{row.partition(' (')[0]} {points(gap)}" for row, (gap, _) in sorted(least.items(), key=lambda one: one[1][0])
    )
    return (
        f"**Attackers who know the defence** (a narrow IR-18, two worlds, {len(rows)} defences): by the study's rule, which "
        "asks every attack and each world by itself, none is shown to be real, hiding or a trade. The strongest of all "
        f"attacks finds fewer people by the truth of {told} (Holm over {len(rows)}), and of no other.",
        words == {"cannot be told"} and {row.partition(" (")[0] for row in least} == {"Trap-MID", "LoFt"},
    )


@claim
def it_depends_on_the_network(records: Records) -> tuple[str, bool]:
    there = [records.gap(KNOWN, "RoLSS", f"knowing {by}") for by in ("hits@1", "true@1")]
    here = [records.gap(OTHER, "RoLSS", f"knowing {by}") for by in ("hits@1", "true@1")]
    plus = [records.tested(OTHER, "RoLSS+", f"knowing {by}") for by in ("hits@1", "true@1")]
    words = {one["word"] for one in records.of(OTHER)["verdicts"]}
    return (
        f"**What RoLSS is worth depends on the network**: the strongest of all attacks on a ResNet-18 in the first of those "
        f"worlds finds {points(here[0])} by the judge and {points(here[1])} by the truth (three trainings; RoLSS+ "
        f"{points(plus[0][0])}, Holm over 13, and {points(plus[1][0])}), on the IR-18 in both worlds {points(there[0])} and "
        f"{points(there[1])}. By the study's rule none of the 13 can be told on ResNet-18 either.",
        all(map(clear, here))
        and not any(map(clear, there))
        and here[0][0] < there[0][0]
        and plus[0][1] < 0.05
        and words == {"cannot be told"},
    )


@claim
def on_top_of_rolss(records: Records) -> tuple[str, bool]:
    both = (OVER, OVER_MARGIN)
    names = [row["name"] for row in records.of(OVER)["rows"] if row["name"].startswith("RoLSS + ")]
    alone = [records.tested(one, "RoLSS", "true@1") for one in both]
    least = [records.value(one, "RoLSS", "true@1") for one in both]
    further = {name: max(low - records.value(one, name, "true@1") for one, low in zip(both, least)) for name in names}
    undone = next(name for name in names if "TL-DMI" in name)
    left = [records.value(one, undone, "true@1") for one in both]
    return (
        f"**On top of RoLSS, a second defence adds little** (ResNet-18, one world, three trainings, {len(names)} defences, attackers who know "
        f"none): RoLSS takes {points(alone[0][0])} and {points(alone[1][0])} by the truth with the two losses (Holm over 10); no "
        f"second defence takes more than another {100 * max(further.values()):.0f}. With TL-DMI nothing of it is left: "
        f"{hundredths(left, ' and ')} % by the truth, where RoLSS alone leaves {hundredths(least, ' and ')}.",
        len(names) == 9
        and all(corrected < 0.05 for _, corrected in alone)
        and max(further.values()) < 0.1
        and not any(clear(records.gap(one, undone, "true@1")) for one in both),
    )


@claim
def labels_alone(records: Records) -> tuple[str, bool]:
    attacks, names = ("BREP-MI", "LOKT"), ("RoLSS", "RoLSS+")
    cut = {(how, name): records.gap(LADDER, name, f"true@1 {how}") for how in attacks for name in names}
    found = ", ".join(
        f"{how} finds {percent(records.value(LADDER, 'no defence', f'true@1 {how}'))} by the truth of the whole network, RoLSS "
        f"{points(cut[how, 'RoLSS'])}, RoLSS+ {points(cut[how, 'RoLSS+'])}"
        for how in attacks
    )
    return (
        f"**Against somebody who sees labels alone** (ResNet-18, one world, 500 queries a person) cutting skips is not shown to "
        f"help: {found}. No defence is shown to hide gradients.",
        not any(map(clear, cut.values())) and not records.of(LADDER)["warnings"],
    )


@claim
def scores_and_gradients(records: Records) -> tuple[str, bool]:
    rolss = {how: records.tested(LADDER, "RoLSS", f"true@1 {how}") for how in ("RLB-MI", "GMI")}
    plus = {how: records.tested(LADDER, "RoLSS+", f"true@1 {how}") for how in ("PPA", "GMI")}
    near = [records.tested(LADDER, row, "true@1 MIRROR, white-box") for row in ("RoLSS", "RoLSS+")]
    told = [", ".join(f"{points(gap)} from {how}" for how, (gap, _) in side.items()) for side in (rolss, plus)]
    vmi = records.tested(LADDER, "TTS", "true@1 VMI")
    others = [
        one["corrected"]
        for one in records.of(LADDER)["differences"]
        if one["row"] == "TTS" and one["column"].startswith("true@1") and one["column"] != "true@1 VMI"
    ]
    return (
        f"**With scores and gradients it does** (the same networks, by the truth, Holm over seven defences): RoLSS takes {told[0]}; "
        f"RoLSS+ {told[1]}. From MIRROR, white-box, {points(near[0][0])} and {points(near[1][0])} are not shown after the correction. TTS takes {points(vmi[0])} from VMI and nothing that was shown from any other attack.",
        all(p < 0.05 for _, p in (*rolss.values(), *plus.values(), vmi)) and min(others + [p for _, p in near]) >= 0.05,
    )


@claim
def rolss_plus(records: Records) -> tuple[str, bool]:
    judge, true = (records.gap(POINCARE, "RoLSS+", column) for column in ("hits@1", "true@1"))
    return (
        f"**RoLSS+ defends more in an earlier world, too**: {points(judge)} by the judge, {points(true)} by "
        "the truth; three trainings, one of eleven defences there.",
        clear(judge) and clear(true) and judge[0] < records.gap(POINCARE, "RoLSS", "hits@1")[0],
    )


@claim
def last_stage(records: Records) -> tuple[str, bool]:
    stages = [records.gap(STAGES, f"RoLSS (where {stage})", "hits@1") for stage in (1, 2, 3, 4)]
    runs = [torch.tensor(records.of(STAGES)["runs"][f"RoLSS (where {stage})"]["hits@1"]) for stage in (4, 3)]
    contrast = over_worlds(list(runs[0][:, None]), list(runs[1][:, None]))
    return (
        f"**The last stage's skips are the leakiest** (ResNet-18): without them {points(stages[3])} by the judge; "
        f"stages 1 to 3 are each within noise. That the effect grows from stage to stage is not shown; stage 4 minus "
        f"stage 3 is {points(contrast)}, of three trainings on the same people.",
        clear(stages[3]) and not any(map(clear, stages[:3])),
    )


@claim
def lasting(records: Records) -> tuple[str, bool]:
    judge, true = (records.gap(LONGER, "RoLSS", column) for column in ("hits@1", "true@1"))
    whole, cut = (100 * records.value(LONGER, row, "accuracy") for row in ("no defence", "RoLSS"))
    return (
        f"**RoLSS is not just a network that has learnt less**: both trained three times as long, until they are right "
        f"on {whole:.0f} and {cut:.0f} % of test pictures, it takes {points(judge)} by the judge; by the truth "
        f"{points(true)}, over three trainings not shown.",
        clear(judge) and not clear(true) and abs(whole - cut) < 1,
    )


@claim
def ssf(records: Records) -> tuple[str, bool]:
    rows = ("no defence", *(f"SSF (factor {k})" for k in ("0.8", "0.6", "0.4")), "SSF", "RoLSS")
    judge, true = ([records.value(SWEEP, row, column) for row in rows] for column in ("hits@1", "true@1"))
    told = [hundredths(each) for each in (judge, true)]
    return (
        f"**SSF lies between**: {told[0]} % by the judge and {told[1]} % by the truth at k = 1, 0.8, 0.6, 0.4, 0.2, 0 "
        "(ResNet-18). By the truth less is found with every step; clear of k = 1 are 0.2 and 0.",
        all(a > b for a, b in pairwise(true))
        and [clear(records.gap(SWEEP, row, "true@1")) for row in rows[1:]] == [False, False, False, True, True],
    )


@claim
def tts(records: Records) -> tuple[str, bool]:
    one, other = records.gap(HARD, "TTS", "hits@1"), records.gap(POINCARE, "TTS", "hits@1")
    return (
        f"**TTS**: no in one record ({points(one)} by the judge), cannot tell in another of people from the same families ({points(other)}).",
        max(map(abs, one)) < 0.05 and not clear(other),
    )


@claim
def bido(records: Records) -> tuple[str, bool]:
    alone, both = "BiDO (lambda x 0.005, lambda y 0.05)", "BiDO (lambda x 0.005, lambda y 0.05) + RoLSS"
    with_, without = records.gap(POINCARE, both, "hits@1"), records.gap(POINCARE, alone, "hits@1")
    rolss, true = records.gap(POINCARE, "RoLSS", "hits@1"), records.gap(POINCARE, both, "true@1")
    rows = ("no defence", "RoLSS", "BiDO + RoLSS", "BiDO (lambda x 0) + RoLSS")
    full = [records.value(TERMS, row, "hits@1") for row in rows]
    return (
        f"**BiDO with RoLSS**, at a tenth of BiDO's weights, takes {points(with_)} by the judge, BiDO alone "
        f"{points(without)}, RoLSS alone {points(rolss)}: that the two together do more than RoLSS is not shown, nor is an "
        f"effect by the truth ({points(true)}). At the published weights the judge recognises {hundredths(full)} % without defence, "
        "with RoLSS, with both, and with RoLSS and BiDO's term for the label alone: that term undoes RoLSS by the judge.",
        clear(with_) and not clear(without) and not clear(true)
        and full[1] < min(full[0], full[2], full[3]) - 0.1,
    )  # fmt: skip


@claim
def mid(records: Records) -> tuple[str, bool]:
    one, other = records.gap(POINCARE, "MID", "hits@1"), records.gap(MARGIN, "MID", "hits@1")
    return (
        f"**MID: not shown.** {points(one)} by the Poincaré loss is one of eleven comparisons on that page and does not "
        f"survive a correction; by max-margin {points(other)}.",
        records.least_corrected(POINCARE, "MID", "hits@1") >= 0.05 and not clear(other),
    )


@claim
def one_strength(records: Records) -> tuple[str, bool]:
    found = [
        records.gap(name, row, "hits@1")
        for name in (POINCARE, MARGIN)
        for row in ("NegLS (alpha -0.5)", "TL-DMI (share 0.85)")
    ]
    return (
        "**NegLS and TL-DMI**, each attacked at one strength alone, show nothing by either loss.",
        not any(map(clear, found)),
    )


@claim
def private(records: Records) -> tuple[str, bool]:
    noisy, public = "DP-SGD (epsilon None, noise 0.01)", "TL-DMI (share 0.85) + DP-SGD (epsilon 1000)"
    one, other = records.gap(PRIVATE, noisy, "true@1"), records.gap(PRIVATE_MARGIN, noisy, "true@1")
    plain, left = (records.value(PRIVATE, row, "accuracy") for row in ("no defence", noisy))
    judged = records.gap(PRIVATE, public, "hits@1")
    true = [records.gap(place, public, "true@1") for place in (PRIVATE, PRIVATE_MARGIN)]
    return (
        f"**DP-SGD with noise 0.01** takes {points(one)} by the truth and natural accuracy from {percent(plain)} to "
        f"{percent(left)}, and guarantees nothing (epsilon above a million). After public training, at epsilon 1,000, it "
        f"takes {points(judged)} by the judge; by the truth that is not shown. At epsilon 8 too few images are left to learn "
        "from.",
        clear(one) and clear(other) and clear(judged) and not any(map(clear, true)),
    )


@claim
def fusion(records: Records) -> tuple[str, bool]:
    got = records.gap(FUSED, "no defence, fused", "hits@1")
    return (
        f"**Re-parameterising after training (RepVGG) does not defend**: {points(got)}.",
        not clear(got) and got[1] > -0.05,
    )


@claim
def concatenation(records: Records) -> tuple[str, bool]:
    judge, true = (records.level(DENSE, "RoLSS (where 1)", column) for column in ("hits@1", "true@1"))
    rows = ("no defence", *(f"RoLSS (where {stage})" for stage in (1, 2, 3)), "RoLSS")
    stages = {column: [records.value(NARROW, row, column) for row in rows] for column in ("hits@1", "true@1")}
    last, judged = records.level(NARROW, "RoLSS", "hits@1"), stages["hits@1"]
    return (
        f"**Concatenations leak, the last stage's most**: of a narrow DenseNet the judge recognises {hundredths(judged[1:])} % without "
        f"those of stage 1, 2, 3, 4 ({percent(judged[0])} whole); at equal natural accuracy stage 4 makes "
        f"{points(last)}. DenseNet-121 without stage 1's, at equal natural accuracy: {points(judge)} by the judge, "
        f"{points(true)} by the truth. The whole networks were stopped there, which alone moves such a difference by "
        "up to 5 points.",
        judge[2] < -0.05 and true[2] < -0.05 and last[2] < -0.05
        and all(a > b for values in stages.values() for a, b in pairwise(values)),
    )  # fmt: skip


@claim
def never_had_one(records: Records) -> tuple[str, bool]:
    plain, whole = "no defence (face:vgg16-narrow)", "no defence"
    vgg, resnet = ([records.value(VGG, row, column) for column in ("hits@1", "true@1")] for row in (plain, whole))
    residual = [records.value(RESIDUAL, whole, column) for column in ("hits@1", "true@1")]
    told = [hundredths(each, " and ") for each in (vgg, residual, resnet)]
    return (
        f"**A network that never had a skip is not safer here**: a narrow VGG-16 {told[0]} % by the judge and by the "
        f"truth, a residual network of the same channels {told[1]}, ResNet-18 {told[2]}. The paper's VGGs leak little "
        "more than half of what its ResNets do.",
        all(a > b - 0.1 for others in (residual, resnet) for a, b in zip(vgg, others)),
    )


@claim
def efficientnet(records: Records) -> tuple[str, bool]:
    judge, true = (records.level(EFFICIENT, "RoLSS", column) for column in ("hits@1", "true@1"))
    return (
        f"**EfficientNet-B0: not shown**, at equal accuracy {points(judge)} by the judge, {points(true)} by the truth.",
        not clear(judge) and not clear(true),
    )


@claim
def vit(records: Records) -> tuple[str, bool]:
    judge, true = (records.gap(VIT, "RoLSS (where blocks.0.add_2)", column) for column in ("hits@1", "true@1"))
    lost = records.value(VIT, "no defence", "accuracy") - records.value(VIT, "RoLSS (where blocks.0.add_2)", "accuracy")
    return (
        f"**A small ViT without its first MLP residual**: {points(judge)} by the judge, {points(true)} by the truth, at "
        f"{100 * lost:.0f} points of natural accuracy; a whole one stopped there was not attacked.",
        clear(judge) and clear(true),
    )


@claim
def lowres(records: Records) -> tuple[str, bool]:
    once = [
        records.gap(f"lowres-faces/{name}", "RoLSS", column)
        for name in ("gmi", "ked-mi", "lomma-gmi", "lomma-ked", "plg-mi")
        for column in ("hits@1", "true@1")
    ]
    places = [f"paper/fig4_other_attacks/{name}" for name in ("kedmi", "lomma", "plgmi")]
    judge, true = ([records.gap(place, "RoLSS", column) for place in places] for column in ("hits@1", "true@1"))
    return (
        "**Other attacks on a narrow IR-18** (three worlds): RoLSS takes "
        f"{', '.join(points(one) for one in judge)} from KED-MI, LOMMA and PLG-MI by the judge, "
        f"{', '.join(points(one) for one in true)} by the truth: nothing is shown, as with PPA on this network.",
        not any(map(clear, (*once, *judge, *true))),
    )


@claim
def judge_and_truth(records: Records) -> tuple[str, bool]:
    counted = [
        row["measures"]
        for record in records.all()
        for row in record["rows"]
        if row["kind"] == "target" and row["measures"].get("hits@1") and row["measures"].get("true@1")
    ]
    what = ("hits@1", "true@1", "error", "confidence")  # rows that several pages share count once
    rows = list({tuple((one.get(name) or {}).get("value") for name in what): one for one in counted}.values())
    less = sum(row["hits@1"]["value"] < row["true@1"]["value"] for row in rows)
    return (
        f"**The judge mostly sees more than the truth, not everywhere**: in {less} of {len(rows)} rows of these records "
        "it names the right person less often than the truth does, asked the same question.",
        0 < less < len(rows) / 2,
    )


def verified_centres(settings: dict[str, Any]) -> float:
    """How many centres of families verification takes for their members, in the world that these settings draw."""
    world = {name: settings[name] for name in ("people", "lookalikes", "jitter")}
    world["seed"] = settings.get("seed", 0)
    members = torch.stack(
        [faces.identity(world["seed"], i, world["lookalikes"], world["jitter"]) for i in range(world["people"])]
    )
    known, centres = faces.families(**world)  # pyright: ignore
    told = truth.compare(centres[known], torch.arange(len(members)), members)
    return float(told.verified.double().mean())


@claim
def headline(records: Records) -> tuple[str, bool]:
    judge, true, stranger, verified = (
        records.value(HARD, "no defence", name) for name in ("hits@1", "true@1", "stranger@1", "verified")
    )
    family = verified_centres(records.of(HARD)["recipe"]["population"]["settings"])
    return (
        f"**What the judge's {percent(judge)} mean** (world `hard`, no defence): asked the same question, the truth agrees "
        f"in {percent(true)}; among 1,000 strangers the person ranks first in {percent(stranger)}; a fixed threshold at "
        f"one false match in 1,000 passes {percent(verified)}, and {percent(family)} of the centres of the right "
        "families, which know nothing of the person.",
        judge > true > stranger > verified and family > verified - 0.05,
    )


@claim
def nulls(records: Records) -> tuple[str, bool]:
    hits = round(112 * records.value(HARD, "null: never optimised", "hits@1"))
    return (
        "**Nulls**: images of the prior that nobody optimised are named as often as chance has it in the world `hard`.",
        above_chance(hits, 112, 1 / 56) > 0.05,
    )


def findings(records: Records) -> tuple[list[str], list[str]]:
    """The sentences, and what the records do not support."""
    sentences, failed = [], []
    for one in CLAIMS:
        sentence, supported = one(records)
        sentences.append(f"- {sentence}")
        if not supported:
            failed.append(f"{one.__name__}: the records no longer support this: {sentence}")
    return sentences, failed


def check(readme: str, records: Records) -> list[str]:
    """What is wrong with the findings in a README: unsupported, missing, changed, or not computed."""
    sentences, failed = findings(records)
    if readme.count(START) != 1 or readme.count(END) != 1:
        return [*failed, f"the findings' marks are not there once each: {START} and {END}"]
    written = readme.partition(START)[2].partition(END)[0].strip().splitlines()
    failed += [f"not in the README as computed: {one}" for one in sentences if one not in written]
    failed += [f"in the README, but not computed from a record: {one}" for one in written if one not in sentences]
    return failed


def main(arguments: Sequence[str]) -> int:
    """0 if every sentence stands."""
    file = HERE / "README.md"
    records = Records()
    if "--write" in arguments:
        sentences, failed = findings(records)
        head, _, rest = file.read_text(encoding="utf-8").partition(START)
        if not failed:
            block = "\n".join([START, "", *sentences, "", ""])
            file.write_text(head + block + END + rest.partition(END)[2], encoding="utf-8")
    else:
        failed = check(file.read_text(encoding="utf-8"), records)
    print("\n".join(failed) if failed else f"{len(CLAIMS)} findings are what their records say")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
