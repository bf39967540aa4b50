"""Attackers who know the defence: for each, what would undo it, as settings of an attack or a change of what it sees.

    what is hidden                  by                              undone by
    the way through skips           RoLSS, RoLSS+, TTS, SSF         skips scaled back in; a student that has them
    the answer, in noise            MID, dropout, smoothing, SSD    averaging over the noise (EOT); its mean; labels,
                                                                    and a majority of them
    the gradient, in ripples        BiDO, TL-DMI, AT-AT             averaging over views (TAA); a copy by labels
    the gradient, in squeezed       NegLS, LoFt, CALoR              the max-margin loss; tanh with its slope put back;
    answers                                                         a copy by labels
    the person, behind a pattern    Trap-MID                        views in which so fine a pattern is lost
    the whole of a face             MIDRE                           reconstructing through the same squares

A row a defence; who knows of several undoes the first of each at once, too. DP-SGD hides nothing: its bound holds for
whoever knows it, and it is attacked like an open model.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from lightleak import defences
from lightleak.attacks.alignment import Alignment
from lightleak.attacks.draws import Rows
from lightleak.attacks.oracle import Access
from lightleak.attacks.ppa import PPA
from lightleak.attacks.surrogate import Lessons
from lightleak.defences.lasting import remade
from lightleak.defences.midre import MIDRE, erase
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.bottleneck import average
from lightleak.models.changes import SURGERY, replay
from lightleak.models.classifier import Classifier
from lightleak.models.low_rank import straighten
from lightleak.randomness import uniforms
from lightleak.surgery import Skip, find_joins, find_skips, remove_skips, scale_skips

Way = Literal["mean draw", "straight tanh", "skips back"]


@dataclass(frozen=True)
class LowPassed(Alignment):
    """TAA on copies without details finer than `coarse` pixels."""

    coarse: int = 2

    def _copies(self, images: Tensor, rows: Rows, number: Tensor) -> Tensor:
        small = F.avg_pool2d(images, self.coarse, ceil_mode=True, count_include_pad=False)
        smooth = F.interpolate(small, images.shape[-2:], mode="bilinear", align_corners=False)
        return super()._copies(smooth, rows, number)


@dataclass(frozen=True)
class Erased(Alignment):
    """TAA on copies with one square erased each, as in MIDRE's training images."""

    least: float = 0.1
    most: float = 0.4

    def _copies(self, images: Tensor, rows: Rows, number: Tensor) -> Tensor:
        draws = uniforms(rows.keys(number, stream=1), 3)
        return erase(super()._copies(images, rows, number), draws, self.least, self.most)


TAA = Alignment(copies=8)
EOT = Alignment(kind="noise", copies=8, noise=0.0)  # nothing but the target's own randomness differs


@dataclass(frozen=True)
class Knowing:
    """One countermeasure of an attacker who knows the defence."""

    name: str
    alignment: Alignment | None = None  # over which copies gradients are averaged
    margin: bool = False  # whether the loss is max-margin, which no softmax squeezes
    undo: Way | None = None  # what is done to the network by whoever holds its weights
    copy: Access | None = None  # the attack is on a network that learnt the target's answers of this kind
    whole: bool = False  # which has the architecture from before surgery
    votes: int = 1  # how often the target is asked about each image that the copy learns of

    def attack(self, plain: PPA) -> PPA:
        """The plain attack as this attacker runs it."""
        found = replace(plain, loss="max-margin") if self.margin else plain
        return found if self.alignment is None else replace(found, alignment=self.alignment)

    def joined(self, other: "Knowing") -> "Knowing | None":
        """Both at once; None where one holds the other, or they cannot be: two changes or averages, copies."""
        averages, changes = ({getattr(one, what) for one in (self, other)} - {None} for what in ("alignment", "undo"))
        if len(averages) > 1 or len(changes) > 1 or self.copy or other.copy:
            return None
        name, average, change = f"{self.name} and {other.name}", next(iter(averages), None), next(iter(changes), None)
        both = Knowing(name, average, self.margin or other.margin, change)
        return None if any(both == replace(one, name=name) for one in (self, other)) else both

    def lessons(self, plain: Lessons) -> Lessons:
        """The lessons of a plain copy as this attacker's learns."""
        return replace(plain, votes=self.votes)


MARGIN = Knowing("max-margin", margin=True)
LABELS = Knowing("a copy by labels", copy="labels")
VOTES = Knowing("a copy by a vote of 3 labels", copy="labels", votes=3)  # of a guard that draws by the image
VIEWS = Knowing("averaged over views", alignment=TAA)
SURGERIES = (
    Knowing("skips scaled back in", undo="skips back"),
    Knowing("a copy with its skips", copy="gradients", whole=True),
)
AVERAGED = Knowing("averaged over the noise", alignment=EOT)


def squares(defence: MIDRE) -> Knowing:
    """The countermeasure to MIDRE with these settings."""
    return Knowing("through the same squares", alignment=Erased(copies=8, least=defence.least, most=defence.most))


LOW_RANK = (MARGIN, Knowing("straight through tanh", margin=True, undo="straight tanh"), LABELS)

# By the names of DEFENCES, of what stands in a checkpoint's record, and of guards.
ADAPTIVE: Mapping[str, tuple[Knowing, ...]] = {
    "rolss": SURGERIES,
    "rolss+": SURGERIES,
    "ssf": SURGERIES,
    "tts": SURGERIES,
    "bido": (VIEWS,),
    "mid": (AVERAGED, Knowing("the mean of the noise", undo="mean draw")),
    "negls": (MARGIN, LABELS),
    "tldmi": (VIEWS,),
    "dp": (),
    "atat": (Knowing("averaged over smooth views", alignment=LowPassed(copies=8)), MARGIN, LABELS),
    "midre": (squares(MIDRE()),),
    "loft": LOW_RANK,
    "calor": LOW_RANK,
    "trapmid": (Knowing("trapdoor avoidance", alignment=LowPassed(copies=8), margin=True), LABELS),
    "noise": (AVERAGED,),  # dropout that stays on, and whatever else draws random numbers
    "rounded": (LABELS,),
    "top-k": (LABELS,),
    "tempered": (LABELS,),
    "labels": (LABELS,),
    "ssd": (LABELS, VOTES),
    "smoothed": (LABELS, VOTES),
}
OF_CHANGE = {"bottleneck": "mid", "low_rank": "loft", "traps": "trapmid"}


def defended_by(classifier: Classifier, noisy: bool = False) -> tuple[str, ...]:
    """Which defences a checkpoint says that it was trained with, or shows by what was done to its network.

    MIDRE whose recorded squares are others than the paper's is named with them. DP-SGD counts where the record has the
    privacy that it spent: group norm alone, or plain steps since, bound nothing.
    `noisy`: whether its answers are random.
    """
    told = classifier.record.get("defences")
    private = bool(classifier.record.get("privacy"))
    found = [str(name) for name in told if name != "dp" or private] if isinstance(told, list) else []
    found += ["dp"] if private else []
    for change in classifier.changes:
        if _cuts(change) and not {"rolss", "rolss+", "ssf", "tts"} & set(found):
            found.append("ssf" if change.get("factor") else "rolss")
        found.append(OF_CHANGE.get(change["kind"], ""))
    found += ["noise"] if noisy and "mid" not in found else []
    known = dict.fromkeys(name for name in found if name in ADAPTIVE)
    return tuple(_spelled(name, classifier.record) if name == "midre" else name for name in known)


def _spelled(name: str, record: Mapping[str, Any]) -> str:
    """MIDRE's name, with the sizes of its squares in brackets if they are recorded and not the paper's."""
    told = record.get("defence_settings")
    made = remade(name, told.get(name)) if isinstance(told, dict) else None
    if not isinstance(made, MIDRE) or (made.least, made.most) == (MIDRE().least, MIDRE().most):
        return name
    return f"{name}(least={made.least}, most={made.most})"


def _ways(name: str) -> tuple[Knowing, ...]:
    """The countermeasures to a defence by its name, to MIDRE also with settings in brackets; UserError for others."""
    if name in ADAPTIVE:
        return ADAPTIVE[name]
    for each in defences.parse(name) if name.startswith("midre") else ():
        if isinstance(each, MIDRE):
            return (squares(each),)
    raise UserError(f"nothing is known of the defence {name!r}; choose from {', '.join(ADAPTIVE)}")


def knowing(names: Iterable[str]) -> tuple[Knowing, ...]:
    """The countermeasures of an attacker who knows of these defences, each once; UserError for unknown names.

    Of several defences also the first of each that can be joined, all at once.
    """
    names = tuple(names)
    rows = [_ways(name) for name in names]
    found = dict.fromkeys(each for row in rows for each in row)
    together: Knowing | None = None
    for ways in dict.fromkeys(row for row in rows if row):
        if together is None:
            together = ways[0]
        else:
            together = next(filter(None, map(together.joined, ways)), together)
    return tuple(dict.fromkeys([*found, *([together] if together else [])]))


def undone(classifier: Classifier, way: Way, uncut: str | None = None) -> Classifier:
    """The network after what somebody who holds its weights can undo; UserError if there is nothing to undo."""
    ways: dict[Way, Callable[[], Classifier]] = {
        "mean draw": lambda: _changed(classifier, average, {"kind": "draws", "draws": 0}),
        "straight tanh": lambda: _changed(classifier, straighten, {"kind": "straight"}),
        "skips back": lambda: skips_back(classifier, uncut),
    }
    return ways[way]().eval()


def _changed(classifier: Classifier, do: Callable[..., Any], change: dict[str, Any]) -> Classifier:
    return classifier.with_net(do(classifier.net, change), change=change)


def skips_back(classifier: Classifier, uncut: str | None = None, k: float = 0.2) -> Classifier:
    """The weights of a network whose skips were cut, in its architecture with skips: those removed count k again.

    Skips that were scaled count in full. Where a removed skip led through a projection, its weights are gone, and the
    skip stays away. `uncut`: the architecture by name, if the classifier does not say it. UserError if no skip comes
    back, or weights no longer fit (of concatenations).
    """
    name = uncut or classifier.architecture
    if name is None:
        raise UserError("which skips were there can only be told of an architecture by name; give --uncut timm:NAME")
    built = zoo.build(name, classifier.classes, classifier.size)
    others = [change for change in classifier.changes if change["kind"] != SURGERY]
    whole = classifier.with_net(replay(built.net, others, built.example, name).to(classifier.device))
    own, state = classifier.net.state_dict(), whole.net.state_dict()
    wrong = [key for key in own if key not in state or state[key].shape != own[key].shape]
    if wrong:
        raise UserError(
            f"{name} with its skips has other weights than the cut network ({wrong[0]}); only a copy that learns can "
            "have them"
        )
    whole.net.load_state_dict({**state, **own})
    names = _removed(classifier, built.net, name)
    gone = [skip for skip in find_skips(whole.net, whole.example) if skip.name in names]
    never = _without_weights(gone, set(state) - set(own))
    back = [skip for skip in gone if skip not in never]
    scaled = any(_cuts(change) and change["factor"] for change in classifier.changes)
    if not back and not scaled:
        raise UserError("no skip can be put back: the weights of their projections are gone; a copy can learn them")
    net = whole.net
    if back:
        net = scale_skips(net, k, [skip.name for skip in back], whole.example, wake=False)
    if never:
        net = remove_skips(net, [skip.name for skip in never], whole.example, wake=False)
    changes = tuple(change for change in classifier.changes if change["kind"] != SURGERY)
    return Classifier(
        net, size=classifier.sides or classifier.size, classes=classifier.classes, architecture=name,
        mean=classifier.mean, std=classifier.std, class_names=classifier.class_names, record=classifier.record,
        changes=changes, reading=classifier.reading,
    ).to(classifier.device)  # fmt: skip


def _cuts(change: Mapping[str, Any]) -> bool:
    """Whether a change removed or scaled skips."""
    return change["kind"] == SURGERY and change.get("surgery") in ("remove", "scale")


def _removed(classifier: Classifier, net: nn.Module, source: str) -> set[str]:
    """The skips that the recorded surgeries removed, by their names in `net`, which is the network before them all.

    Joins are counted block by block, so a step calls them as they were counted after the steps before it.
    """
    example, gone = classifier.example, set[str]()
    steps = list(classifier.changes)
    while steps and not (_cuts(steps[-1]) and not steps[-1]["factor"]):
        steps.pop()
    names = {join.name: join.name for join in find_joins(net, example)} if steps else {}
    for place, change in enumerate(steps):
        if _cuts(change) and not change["factor"]:
            called = [str(skip[0]) for skip in change["skips"]]
            if other := [each for each in called if each not in names]:
                raise UserError(f"{source} has no skip {other[0]!r}, which was removed; is it the uncut architecture?")
            gone |= {names[each] for each in called}
        if place < len(steps) - 1:
            net = replay(net, [change], example, source)
            if _cuts(change):
                names = _counted_anew(names, gone, [join.name for join in find_joins(net, example)])
    return gone


def _counted_anew(names: Mapping[str, str], gone: set[str], now: Sequence[str]) -> dict[str, str]:
    """The joins' names after a cut -> before all cuts: of those with one stem, the order stays."""

    def by_stem(called: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for each in called:
            found.setdefault(re.sub(r"_\d+$", "", each), []).append(each)
        return found

    before, after = by_stem(names), by_stem(now)
    result: dict[str, str] = {}
    for stem, called in after.items():
        first = [names[each] for each in before.get(stem, [])]
        left = [each for each in first if each not in gone]
        kept = first if len(called) == len(first) else left  # what cannot be taken out of a sum becomes zero in it
        if len(called) != len(kept):
            raise UserError(f"which skips were removed cannot be told: {stem!r} joins otherwise since an earlier cut")
        result |= zip(called, kept)
    return result


def _without_weights(gone: Sequence[Skip], lost: set[str]) -> list[Skip]:
    """Those of the removed skips that led through weights which went with them, `lost`."""

    def under(owners: Iterable[str]) -> set[str]:
        return {key for key in lost for owner in owners if key.startswith(f"{owner}.")}

    projections = {skip.name: under(skip.projection) for skip in gone}
    elsewhere = lost - set[str]().union(*projections.values())
    return [skip for skip in gone if projections[skip.name] or under([skip.owner]) & elsewhere]
