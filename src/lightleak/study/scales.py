"""The sizes at which a study of the paper can be run: its own, on photographs, or painted people.

A study says what is compared; the scale says among whom, how the networks are trained, how hard they are attacked and
who judges. What holds at one scale need not hold at the other, so a table never mixes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from lightleak.attacks import PPA
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.study.comparison import Setting
from lightleak.study.photographs import Files, Trims, lowres_settings, ppa_setting
from lightleak.study.tasks import source
from lightleak.training import CheckpointCriterion

# Forty-eight pixels, eight clusters of four look-alikes.
WORLD: Mapping[str, Any] = {
    "people": 32,
    "images": 14,
    "size": 48,
    "lookalikes": 4,
    "jitter": 0.4,
    "strength": 1.0,
    "noise": 0.05,
    "public_people": 32,
    "public_images": 22,
    "judge_images": 40,
}
SMALL_ATTACK = PPA(candidates=300, attempts=3, keep=2, steps=30, rate=0.05, milestones=(20,), views=10, batch=48)
SCALES = ("rendered", "paper")
# Painted, a DenseNet-121 without the concatenations of its last stages does not learn: a chain of up to 48 convolutions
# of single pixels. This one has four layers a stage; cut, it needs these epochs and this rate. It leaves two copies on
# its way, by which it is compared at equal natural accuracy.
DENSENET = "face:densenet-narrow"
PATIENCE: Mapping[str, Mapping[str, Any]] = {DENSENET: {"epochs": 30, "rate": 2e-3}}
COPIES = {DENSENET: (CheckpointCriterion(accuracy=0.7), CheckpointCriterion(accuracy=0.8))}
# The networks of the paper's tables over families and depths, by scale (Koh et al., Tab. 2 and 5).
EIGHT = {
    "rendered": ("torchvision:resnet18", DENSENET),
    "paper": tuple(
        f"torchvision:{kind}{depth}"
        for kind, depths in (("resnet", (34, 50, 101, 152)), ("densenet", (121, 161, 169, 201)))
        for depth in depths
    ),
}
EIGHT_STAND_FOR = {"torchvision:resnet18": "torchvision:resnet34", DENSENET: "torchvision:densenet121"}  # painted


def at(
    scale: str = "rendered",
    networks: Mapping[str, Sequence[str]] | None = None,
    only: str = "",
    architecture: str = "",
    seeds: int = 0,
    patience: Mapping[str, Any] | None = None,
    curve: bool = False,
    **options: Any,
) -> Setting:
    """The setting that a scale stands for, of the first of the study's `networks` (by scale); `each` gives all.

    "rendered": painted people; options change settings of their population (people=80). "paper": `data` is a data set
    of photographs as `--data` takes it ("facescrub:PATH"), `prior` the folder of a converted StyleGAN2, `weights` the
    folder of files that networks begin with, `judge` an evaluation model (else one is trained), `face` and `inception`
    files for delta_face and FID; recipe, attack, judge and division are those of Koh et al. (ECCV 2024, Tab. 12 and the
    published configurations), where `Trims` names what may be made smaller, and other options are the data set's.
    `only`: some of the networks, "resnet101 vgg16_bn". `architecture`: others in their place. `seeds` is the number of
    training runs of each target; 0: three painted, one of photographs. `patience` changes the painted networks' recipe,
    for those that learn slowly from scratch. `curve`: copies are left behind at several natural accuracies, at the
    paper's scale. Lacking, a UserError, names all that is missing.
    """
    chosen = chosen_networks(scale, networks, only, architecture)
    trims, files, world = _told_apart(options)
    if scale == "paper":
        return ppa_setting(files, chosen or ["torchvision:resnet101"], trims, seeds, curve, world)
    _refuse_files(files)
    setting = Setting(
        source("faces", **{**WORLD, **world}),
        attack=trims.of_attack(SMALL_ATTACK),
        seeds=tuple(range(seeds or 3)),
        networks=tuple(chosen),
    )
    recipe = replace(setting.recipe, **patience or {})
    slow = {name: trims.of_recipe(replace(recipe, **changes)) for name, changes in PATIENCE.items()}
    setting = replace(setting, recipe=trims.of_recipe(recipe), recipes=slow, copies=COPIES)
    return setting.of(chosen[0]) if chosen else setting


def at64(
    scale: str,
    networks: Mapping[str, Sequence[str]],
    only: str = "",
    architecture: str = "",
    seeds: int = 0,
    **options: Any,
) -> dict[str, Setting]:
    """The settings of the 64-pixel attacks at the paper's scale, by attack; options as for `at`."""
    trims, files, world = _told_apart(options)
    return lowres_settings(files, chosen_networks(scale, networks, only, architecture), trims, seeds, world)


def chosen_networks(
    scale: str, networks: Mapping[str, Sequence[str]] | None, only: str = "", architecture: str = ""
) -> list[str]:
    """The study's networks at a scale, those of them that were asked for (`only`), or others (`architecture`).

    UserError if there is no such scale or network.
    """
    if scale not in SCALES:
        raise UserError(f"a study of the paper runs at the scale {' or '.join(SCALES)}, not {scale!r}")
    others = list(dict.fromkeys(architecture.replace(",", " ").split()))
    for one in others:
        zoo.check(one)
    there = others or list((networks or {}).get(scale, ()))
    wanted = only.replace(",", " ").split()
    short = {one.partition(":")[2]: one for one in there}
    unknown = [one for one in wanted if one not in short and one not in there]
    if unknown:
        raise UserError(f"this study has no network {', '.join(unknown)} at scale={scale}; it has {', '.join(short)}")
    return [one for one in there if not wanted or one in wanted or one.partition(":")[2] in wanted]


def _told_apart(options: Mapping[str, Any]) -> tuple[Trims, Files, dict[str, Any]]:
    """What options trim, which files they name, and what is left for the population."""
    names = [{field.name for field in fields(kind)} for kind in (Trims, Files)]
    trims, files = ({name: value for name, value in options.items() if name in known} for known in names)
    world = {name: value for name, value in options.items() if not any(name in known for known in names)}
    return Trims(**trims), Files(**{name: str(value) for name, value in files.items()}), world


def _refuse_files(files: Files) -> None:
    given = [name for name, value in vars(files).items() if value]
    if given:
        raise UserError(f"{' and '.join(given)} belong to scale=paper; at scale=rendered all is painted")
