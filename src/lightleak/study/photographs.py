"""The paper's own scale: data, networks, recipes, judges and attacks of Koh et al. (ECCV 2024), from the user's files.

What the paper and its published configurations say is here and nowhere else: which networks begin with ImageNet's
weights, in batches of which size they train, how a data set is divided and cropped, for the target and for the judge,
how hard it is attacked and by which protocol it is counted. A user may trim any of it; then the numbers are counted by
a protocol of another name and share no table with the paper's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from lightleak.attacks import KEDMI, LOMMA, PLGMI, PPA, Attack
from lightleak.attacks.knowledge import Distillation
from lightleak.attacks.ppa import PRESETS
from lightleak.data.outlook import Outlook, outlook
from lightleak.errors import UserError
from lightleak.models import starting
from lightleak.models.header import read_header
from lightleak.models.weight_files import Weights
from lightleak.priors.fit import KedMi, PlgMi
from lightleak.study.comparison import Setting
from lightleak.study.protocols import PROTOCOLS, Protocol
from lightleak.study.tasks import Ready, ready, source
from lightleak.training import RECIPES, CheckpointCriterion, Recipe

Found = TypeVar("Found")

# Published configurations: these begin from scratch (their shapes change with the skips); of EfficientNet and RepVGG
# none says, and they begin with ImageNet's weights here.
SCRATCH = ("torchvision:densenet",)
SMALL_BATCHES = ("torchvision:densenet", "torchvision:vit", "torchvision:maxvit", "torchvision:vgg")  # of 64, not 128
CURVE = (0.7, 0.8, 0.9)  # natural accuracies at which copies are attacked, beside the end of the training


class Lacking(UserError):
    """Everything that a study needs and does not find, together; `what` holds a sentence for each."""

    def __init__(self, what: Sequence[str]) -> None:
        super().__init__("; ".join(what))
        self.what = tuple(what)


@dataclass(frozen=True)
class Files:
    """The user's files, as settings name them; "" is not given."""

    data: str = ""
    prior: str = ""
    weights: str = ""  # a folder
    judge: str = ""
    face: str = ""
    inception: str = ""


@dataclass(frozen=True)
class Trims:
    """What a user may make smaller than in the paper; None leaves it as it is."""

    epochs: int | None = None
    judge_epochs: int | None = None
    batch: int | None = None  # of training
    precision: str | None = None
    candidates: int | None = None
    attempts: int | None = None
    keep: int | None = None
    steps: int | None = None
    views: int | None = None
    identities: int | None = None  # the first so many are attacked
    accuracies: float | tuple[float, ...] | None = None  # of the copies on a curve
    judge_size: int | None = None
    prior_steps: int | None = None  # of generators that are fitted
    students: str | None = None  # architecture of LOMMA's students

    def of_recipe(self, recipe: Recipe, epochs: int | None = None) -> Recipe:
        """The recipe, trimmed."""
        return _changed(recipe, epochs=epochs or self.epochs, batch=self.batch, precision=self.precision)

    def of_attack(self, attack: Attack) -> Attack:
        """The attack with fewer or shorter searches."""
        known = {"candidates", "attempts", "keep", "steps", "views"} & set(vars(attack))
        return _changed(attack, **{name: getattr(self, name) for name in sorted(known)})

    @property
    def moments(self) -> tuple[CheckpointCriterion, ...]:
        """When copies are left behind on a curve."""
        wanted = CURVE if self.accuracies is None else self.accuracies
        return tuple(CheckpointCriterion(accuracy=one) for one in (wanted if isinstance(wanted, tuple) else (wanted,)))


@dataclass(frozen=True)
class Kind:
    """What the paper does with one data set."""

    attack: PPA
    protocol: Protocol
    judge_recipe: Recipe
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the data set, for the target
    judged: Mapping[str, Any] = field(default_factory=dict)  # and for the judge besides
    batches: bool = True  # whether some networks train in batches of 64


# PPA's targets see 224 pixels and its judge 299, both made of the pictures themselves.
KINDS = {
    "facescrub": Kind(PRESETS["rolss"], PROTOCOLS["paper-ppa"], RECIPES["rolss-judge"]),
    "celeba": Kind(
        replace(PRESETS["rolss"], attempts=200, keep=50),
        PROTOCOLS["paper-ppa-celeba"],
        RECIPES["rolss"],
        {"protocol": "ppa"},
    ),
    "dogs": Kind(
        PRESETS["rolss-dogs"],
        PROTOCOLS["paper-ppa-dogs"],
        RECIPES["rolss-judge"],
        {"cropped": False},
        {"cropped": True},
        batches=False,
    ),
}
SIZE, JUDGE_SIZE = 224, 299
JUDGE = "torchvision:inception_v3"
EXPECTED = "--settings scale paper data facescrub:PATH prior FOLDER weights FOLDER judge FILE"

# The 64-pixel attacks of Fig. 4, with their papers' settings, and what each searches in.
LOWRES: dict[str, tuple[Attack, KedMi | PlgMi]] = {
    "KED-MI": (KEDMI(), KedMi()),
    "LOMMA": (LOMMA("kedmi"), KedMi()),
    "PLG-MI": (PLGMI(), PlgMi()),
}
LOWRES_JUDGE, LOWRES_JUDGE_SIZE = "face:facenet112", 112


def ppa_setting(
    files: Files, networks: Sequence[str], trims: Trims, seeds: int, curve: bool, world: Mapping[str, Any]
) -> Setting:
    """Koh et al.'s setting of PPA on a data set; Lacking names all that is missing."""
    want = _Wanted()
    kind, name = want.kind(files, KINDS)
    own = {"size": SIZE, "split": "published", **kind.settings, **world}
    side = trims.judge_size or JUDGE_SIZE
    seen = want(lambda: outlook(files.data, **own)) if name else None
    if name and kind.judged:
        want(lambda: outlook(files.data, **{**own, "size": side, **kind.judged}))
    prior = (
        want(lambda: _general(files.prior))
        if files.prior
        else want.absent("prior FOLDER: what 'lightleak convert' made of an official StyleGAN2 file")
    )
    starts = want.starts(files.weights, [one for one in networks if not one.startswith(SCRATCH)])
    judge, judge_start = want.judge(files, JUDGE, seen)
    face, realism = want.file(files.face), want.file(files.inception)
    want.done()
    attack = trims.of_attack(kind.attack)
    recipe = trims.of_recipe(replace(RECIPES["rolss"], precision="float32"))
    small = _changed(recipe, batch=trims.batch or 64)
    slow = {one: small for one in networks if kind.batches and one.startswith(SMALL_BATCHES)}
    people = source(files.data, **own)
    setting = Setting(
        people,
        networks[0],
        recipe=recipe,
        judge=JUDGE,
        judge_recipe=trims.of_recipe(replace(kind.judge_recipe, precision="float32"), trims.judge_epochs),
        attack=attack,
        prior=prior,
        seeds=tuple(range(seeds or 1)),
        checkpoints=trims.moments if curve else (),
        networks=tuple(networks),
        recipes=slow,
        starts=starts,
        judged=source(files.data, **{**own, "size": side, **kind.judged}),
        judge_start=judge_start,
        ready_judge=judge and judge[0],
        ready_architecture=judge[1] if judge else "",
        ready_side=judge[2] if judge else 0,
        classes=_first(trims.identities),
        face=face,
        inception=realism,
        published=realism is not None,
    )
    size = judge[2] if judge else side
    return replace(setting, protocol=_counted(kind.protocol, setting, seen, attack == kind.attack, size)).of(
        networks[0]
    )


def lowres_settings(
    files: Files, networks: Sequence[str], trims: Trims, seeds: int, world: Mapping[str, Any]
) -> dict[str, Setting]:
    """The setting of each attack of Fig. 4 on CelebA's 64-pixel crops; Lacking names all that is missing."""
    want = _Wanted()
    _, name = want.kind(files, {"celeba": None})
    own = {"protocol": "lowres", "size": 64, "split": "published", **world}
    side = trims.judge_size or LOWRES_JUDGE_SIZE
    seen = want(lambda: outlook(files.data, **own)) if name else None
    starts = want.starts(files.weights, list(networks))
    judge, judge_start = want.judge(files, LOWRES_JUDGE, seen)
    how = Distillation() if trims.students is None else Distillation(students=(trims.students,), pretrained=False)
    how = _changed(how, epochs=trims.epochs, batch=trims.batch)
    taught = want.starts(files.weights, list(how.students)) if trims.students is None else {}
    want.done()
    settings = {}
    first = trims.identities or 300
    for title, (published, fit) in LOWRES.items():
        attack = trims.of_attack(published)
        setting = Setting(
            source(files.data, **own),
            recipe=trims.of_recipe(replace(RECIPES["ir152"], precision="float32")),
            judge=LOWRES_JUDGE,
            judge_recipe=trims.of_recipe(replace(RECIPES["facenet112"], precision="float32"), trims.judge_epochs),
            attack=attack,
            prior=_fitted(fit, trims),
            distillation=how,
            seeds=tuple(range(seeds or 1)),
            networks=tuple(networks),
            starts=starts,
            judged=source(files.data, **{**own, "size": side}),
            judge_start=judge_start,
            ready_judge=judge and judge[0],
            ready_architecture=judge[1] if judge else "",
            ready_side=judge[2] if judge else 0,
            classes=_first(first),
            students=tuple(taught.values()),
        )
        size = judge[2] if judge else side
        protocol = _counted(PROTOCOLS["celeba-300x5"], setting, seen, attack == published and first == 300, size)
        settings[title] = replace(setting, protocol=protocol).of(networks[0])
    return settings


def _general(folder: str) -> Ready:
    """The prior in a folder; UserError if it learnt of a target, which cannot be one that a study trains."""
    found = ready(folder)
    if found.queries:
        raise UserError(f"the prior in {folder} learnt of a target, and a study trains its own; bring one without")
    return found


def _fitted(fit: KedMi | PlgMi, trims: Trims) -> KedMi | PlgMi:
    """The settings of a generator, trimmed: few steps also want fewer images that stand for a class."""
    if trims.prior_steps is None:
        return fit
    narrow: dict[str, Any] = {"width": 8, "discriminator_width": 8, "steps": trims.prior_steps}
    return replace(fit, **narrow, **({"top": 2} if isinstance(fit, PlgMi) else {}))


def _counted(protocol: Protocol, setting: Setting, seen: Outlook | None, whole: bool, side: int) -> Protocol:
    """The protocol by which a setting counts: the paper's, or, where anything is trimmed, one that says so."""
    judge = setting.ready_architecture or setting.judge
    people = seen.people if seen else 0
    enough = people >= (protocol.identities or 0) if setting.classes else people == protocol.identities
    if whole and enough and (judge, side) == (protocol.judge, protocol.judge_size):
        return protocol
    return replace(
        protocol,
        name=f"{protocol.name} trimmed",
        identities=len(setting.classes) if setting.classes else None,
        attempts=setting.attack.attempts,
        keep=setting.attack.keep,
        judge=judge,
        judge_size=side,
    )


class _Wanted:
    """Collects what is missing while a setting is put together."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def __call__(self, find: Callable[[], Found]) -> Found | None:
        """What `find` gives; None, and its reason is noted, if it raises."""
        try:
            return find()
        except UserError as error:
            self.missing.append(str(error))
            return None

    def absent(self, what: str) -> None:
        """Note what was not given."""
        self.missing.append(what)

    def kind(self, files: Files, known: Mapping[str, Any]) -> tuple[Any, str]:
        """The data set's kind, and its name if it is there."""
        name, _, path = files.data.partition(":")
        if not files.data:
            self.absent(f"data {' or '.join(f'{one}:PATH' for one in known)}")
        elif name not in known:
            self.absent(f"the paper attacks {', '.join(known)} in this study, not {name!r}")
        elif not path:
            self.absent(f"data {name}:PATH, with the place of the data set")
        elif self(lambda: Path(path).expanduser().is_dir() or _refuse(f"there is no folder {path}")):
            return known[name], name
        return next(iter(known.values())), ""

    def starts(self, folder: str, networks: Sequence[str]) -> dict[str, Weights]:
        """The files that networks begin with."""
        if not networks:
            return {}
        if not folder:
            names = ", ".join(starting.published_name(one) or f"{one.partition(':')[2]}.pth" for one in networks)
            self.absent(f"weights FOLDER with {names}")
            return {}
        found = {one: self(lambda one=one: starting.find(folder, one)) for one in dict.fromkeys(networks)}
        return {one: weights for one, weights in found.items() if weights is not None}

    def judge(
        self, files: Files, architecture: str, seen: Outlook | None
    ) -> tuple[tuple[Weights, str, int] | None, Weights | None]:
        """A judge that exists (its file, architecture and size), or the weights that one begins with."""
        if not files.judge:
            if not files.weights:
                return None, self.absent(
                    f"judge FILE, a checkpoint of 'lightleak convert', or {starting.published_name(architecture)} in "
                    "the folder of weights to train one"
                )
            return None, self(lambda: starting.find(files.weights, architecture))
        header = self(lambda: read_header(files.judge))
        if header is None:
            return None, None
        if seen is not None and header.classes != seen.people:
            self.absent(
                f"the judge {files.judge} knows {header.classes} classes, {files.data} has {seen.people} people"
            )
        return (Weights.of(files.judge), header.architecture or "a network of its own", header.size), None

    def file(self, path: str) -> Weights | None:
        """An optional file of weights."""
        return self(lambda: Weights.of(path)) if path else None

    def done(self) -> None:
        """Lacking if anything is missing."""
        if self.missing:
            raise Lacking([f"scale=paper needs: {self.missing[0]}", *self.missing[1:], f"as in {EXPECTED}"])


def _refuse(why: str) -> bool:
    raise UserError(why)


def _changed(thing: Any, **changes: Any) -> Any:
    """The dataclass with those fields that a value is given for."""
    return replace(thing, **{name: value for name, value in changes.items() if value is not None})


def _first(count: int | None) -> tuple[int, ...] | None:
    return None if count is None else tuple(range(count))
