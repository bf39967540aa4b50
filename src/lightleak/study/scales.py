"""The sizes at which a study of the paper can be run: its own, on photographs, or painted people.

A study says what is compared; the scale says among whom, how the networks are trained, how hard they are attacked and
who judges. What holds at one scale need not hold at the other, so a table never mixes them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightleak.attacks import PPA
from lightleak.attacks.ppa import PRESETS
from lightleak.errors import UserError
from lightleak.study.comparison import Setting
from lightleak.study.tasks import ready, source
from lightleak.training import RECIPES

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


def at(
    scale: str = "rendered",
    data: str = "",
    prior: str = "",
    seeds: int = 0,
    patience: Mapping[str, Any] | None = None,
    **world: Any,
) -> Setting:
    """The setting that a scale stands for, with the first of its networks' architectures.

    "rendered": painted people; `world` changes settings of their population (people=80). "paper": `data` is a data set
    of photographs as `--data` takes it ("facescrub:PATH"), `prior` the folder of a converted StyleGAN2; the recipe,
    the attack and the judge are those of Koh et al. (ECCV 2024, Tab. 12 and the published settings). `seeds` is the
    number of training runs of each target; 0: three painted, one of photographs. `patience` changes the painted
    networks' recipe, for those that learn slowly from scratch. UserError if something is missing.
    """
    if scale not in SCALES:
        raise UserError(f"a study of the paper runs at the scale {' or '.join(SCALES)}, not {scale!r}")
    if scale == "rendered":
        if data or prior:
            raise UserError("data and prior belong to scale=paper; at scale=rendered both are painted")
        population = source("faces", **{**WORLD, **world})
        setting = Setting(population, attack=SMALL_ATTACK, seeds=tuple(range(seeds or 3)))
        return replace(setting, recipe=replace(setting.recipe, **patience or {}))
    missing = [name for name, value in (("data", data), ("prior", prior)) if not value]
    if missing:
        raise UserError(
            f"scale=paper needs {' and '.join(missing)}: --settings scale paper data facescrub:PATH prior FOLDER, "
            "where FOLDER holds a prior that 'lightleak convert' made of an official StyleGAN2 file"
        )
    kind = data.partition(":")[0]
    if kind not in ATTACKS:
        raise UserError(f"the paper attacks {', '.join(ATTACKS)}, not {kind!r}")
    return Setting(
        source(data, size=224, **world),
        architecture="torchvision:resnet101",
        recipe=RECIPES["rolss"],
        judge="torchvision:inception_v3",
        judge_recipe=RECIPES["rolss"],
        attack=ATTACKS[kind],
        prior=ready(prior),
        seeds=tuple(range(seeds or 1)),
    )


# Koh et al.'s settings of PPA by data set (published configurations).
ATTACKS = {
    "facescrub": PRESETS["rolss"],
    "celeba": replace(PRESETS["rolss"], attempts=200, keep=50),
    "dogs": replace(PRESETS["rolss"], rate=0.01),
}
