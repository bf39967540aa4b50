"""`lightleak attack`: reconstruct the people of a checkpoint."""

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, cast

import torch
import tyro

from lightleak import priors
from lightleak.attacks import (
    ATTACKS,
    OURS,
    PRESETS,
    Access,
    Attack,
    Distillation,
    Knowledge,
    Oracle,
    Transfer,
    drawn,
    learn,
)
from lightleak.attacks.frame import check, grants
from lightleak.attacks.knowledge import FEATURES, SMALL, SMALL_TRANSFER
from lightleak.cli.arguments import (
    NOTHING,
    Own,
    OwnNet,
    Settings,
    check_data,
    check_network,
    classifier_of,
    computing,
    population_of,
)
from lightleak.cli.kinds import Checkpoint, Count, Device, Prior, Seed, Source
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.files import check_place
from lightleak.models.whose import people_of
from lightleak.place import Precision
from lightleak.priors import PixelsPrior, RenderedPrior
from lightleak.terminal import bar, console

if TYPE_CHECKING:
    Choice = Attack
else:
    # Whatever is registered is offered: ours by their names in the registry, a plug-in's by its class.
    named = [Annotated[kind, tyro.conf.subcommand(name)] if name in OURS else kind for name, kind in ATTACKS.items()]
    Choice = Union[tuple(named)]  # noqa: UP007

DEFAULT = PRESETS["ppa"]["rendered"]


@computing
def main(
    out: Path,
    target: Checkpoint | None = None,
    prior: Prior = "rendered",
    attack: Choice = DEFAULT,
    preset: str | None = None,
    classes: tuple[int, ...] = (),
    seed: Seed = 0,
    precision: Precision = "float32",
    knowledge: Path | None = None,
    public: Source | None = None,
    distillation: Distillation = SMALL,
    transfer: Transfer = SMALL_TRANSFER,
    device: Device = "auto",  # noqa: ARG001
    settings: Settings = {},  # noqa: B006
    size: Count | None = None,
    own: OwnNet = NOTHING,
) -> None:
    """Reconstruct the people that a checkpoint, or a network of your own, was trained on.

    Example: lightleak attack --target rolss.safetensors --out found.safetensors attack:ppa --attack.steps 70

    Example: lightleak attack --net mymodel.py:make_model --weights w.pt --out found.safetensors

    Args:
        out: the reconstructions to write.
        target: the checkpoint to invert.
        prior: "rendered", "pixels" (no prior: an adversarial null), or the folder of a fitted prior.
        attack: which attack, and its settings.
        preset: a paper's settings instead: of PPA ppa, ppa-celeba, ppa-dogs, rolss, taa, published and others; of
            another attack ATTACK:NAME, such as brepmi:ppdg, or NAME beside attack:brepmi. Only --attack.batch, which
            decides speed and memory, may stand beside it.
        classes: whom to reconstruct; by default all.
        seed: decides everything random.
        precision: of the target's and the prior's convolutions; bfloat16 is faster where the hardware has it.
        knowledge: the folder of what an attack (LOMMA, SMILE, LOKT) learns beforehand; learnt there if it is not yet.
            What lies there is used with any seed, and refused where it was learnt otherwise than the options below say.
        public: the data set whose public images LOMMA and SMILE learn from (faces, digits or folder:PATH).
        distillation: how their students learn.
        transfer: how LOKT's surrogates learn, of images that its prior draws.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        settings: of that data set's function.
        size: of an own network: side of the images that it takes, in pixels; by default what it says of itself.
        own: a network of your own in place of a checkpoint of Lightleak's.
    """
    if preset is not None:
        attack = preset_of(preset, attack)
    classifier = classifier_of(target, own, size)
    name = str(target or own.weights or own.net)
    bad = [label for label in classes if not 0 <= label < classifier.classes]
    if bad:
        raise UserError(f"{name} has classes 0 to {classifier.classes - 1}, not {bad[0]}")
    known = {"rendered": RenderedPrior, "pixels": PixelsPrior}
    generator = known[prior](size=classifier.size) if prior in known else priors.load(prior)
    wanted = torch.tensor(classes) if classes else torch.arange(classifier.classes)
    generator = generator.lowered(precision)
    oracle = Oracle(classifier, attack.access, precision=precision)
    learnt, called = None, attack.title or type(attack).__name__
    made = None if prior in known else priors.learnt(prior)
    if made and not attack.null and not grants(attack.access, cast(Access, made[0])):
        raise UserError(f"{called} is granted {attack.access}, but {prior} learnt of a target's {made[0]}")
    if made and priors.target_of(prior) not in ("", oracle.weights):
        raise UserError(f"the prior in {prior} was made for another target than {name}; fit one for this target")
    check(attack, oracle, generator, wanted)
    needs = attack.needs()
    of_public = needs.knowledge and not needs.drawn
    idle = {
        "--knowledge": knowledge and not needs.knowledge,
        "--public": public and not of_public,
        "--settings": settings and not of_public,
        "--distillation": distillation != SMALL and not of_public,
        "--transfer": transfer != SMALL_TRANSFER and not needs.drawn,
    }
    if unused := ", ".join(option for option, given in idle.items() if given):
        source = "of images that its prior draws" if needs.drawn else "from public images"
        raise UserError(f"{called} learns {source if needs.knowledge else 'nothing beforehand'}; leave {unused} out")
    if needs.knowledge:

        def images() -> Images:
            if needs.drawn:
                return drawn(generator, transfer, classifier.size, torch.Generator().manual_seed(seed))
            return _public(public, settings)

        lessons = transfer if needs.drawn else distillation
        learnt = _knowledge(Oracle(classifier, attack.access), knowledge, images, lessons, seed, bool(public))
    with bar(f"{called} on {Path(name).name}") as watch:
        rng, scratch = torch.Generator().manual_seed(seed), out.with_name(f".{out.name}.attack")
        found = attack.run(oracle, generator, wanted, rng, watch, knowledge=learnt, folder=scratch)
    found = found.with_fields(beforehand=(learnt.queries if learnt else 0) + (made[1] if made else 0))
    found.named(people_of(classifier)).save(out)
    shutil.rmtree(scratch, ignore_errors=True)
    for label, why in found.failures.items():
        console.print(f"no image of class {label}: {why}", highlight=False)
    shown = "1 image" if len(found) == 1 else f"{len(found)} images"
    people = "1 person" if len(wanted) == 1 else f"{len(wanted)} people"
    told = f"the target's mean confidence in them {found.confidence.mean():.3f}"
    console.print(
        f"{out}: {shown} of {people}, {told}, {found.queries:,} queries, {found.seconds:.0f} s", highlight=False
    )


def check_arguments(
    out: Path, target: Path | None, attack: Attack, preset: str | None, classes: tuple[int, ...], public: str | None,
    settings: dict[str, str], own: Own,
) -> None:  # fmt: skip
    """UserError, before anything is read, for arguments that do not go together."""
    check_network(target, own, "--target")
    if twice := [label for label in dict.fromkeys(classes) if classes.count(label) > 1]:
        raise UserError(f"class {twice[0]} is named twice; people are attacked, and counted, once each")
    if below := [label for label in classes if label < 0]:
        raise UserError(f"classes are numbers from 0, not {below[0]}")
    check_data(public, settings)
    if settings and public is None:
        raise UserError("--settings are those of the data set that --public names; name it, or leave them out")
    check_place(out, "a reconstruction")
    if preset is not None:
        preset_of(preset, attack)


def preset_of(preset: str, attack: Attack = DEFAULT) -> Attack:
    """The settings of a preset: NAME for the chosen attack, or ATTACK:NAME if the attack is the default one; but for
    what decides speed and memory alone, as the attack's own `batch`, where that was given.
    """
    plain = DEFAULT if attack == DEFAULT else type(attack)()
    if attack != plain:
        raise UserError("give a preset or an attack with its own settings, not both")
    chosen = next((name for name, kind in ATTACKS.items() if type(attack) is kind), "")
    kind, _, name = preset.rpartition(":")
    if kind and attack != DEFAULT and kind != chosen:
        raise UserError(f"the preset {preset} is none of the chosen attack's, {chosen}; leave one of both out")
    own = PRESETS.get(kind or chosen, {})
    if name not in own:
        known = ", ".join(own) if own else "those of " + ", ".join(f"{one}:..." for one in PRESETS)
        raise UserError(f"there is no preset {preset!r} of {kind or chosen}; choose from {known}")
    given = {one.name: getattr(attack, one.name) for one in fields(cast(Any, attack)) if not one.compare}
    return replace(cast(Any, own[name]), **{key: value for key, value in given.items() if value != getattr(plain, key)})


def _public(public: str | None, settings: dict[str, str]) -> Images:
    """The public images that students learn from."""
    if public is None:
        raise UserError(
            "this attack learns from public images first; name them with --public, or a folder with --knowledge"
        )
    return population_of(public, settings).public


def _knowledge(
    oracle: Oracle,
    folder: Path | None,
    images: Callable[[], Images],
    lessons: Distillation | Transfer,
    seed: int,
    named: bool = False,
) -> Knowledge:
    """What is in the folder, or what the images teach, kept there; if lessons or images were `named` and what is there
    was learnt otherwise, UserError.
    """
    if folder and (folder / FEATURES).exists():
        found = Knowledge.load(folder)
        if found.target and found.target != oracle.weights:
            raise UserError(f"what lies in {folder} was learnt of another target; name another folder, or delete it")
        if named or lessons not in (SMALL, SMALL_TRANSFER):
            if not found.made:
                console.print(f"what lies in {folder} is used; of an older version, it does not say how it was learnt")
            elif why := found.differing(lessons, images() if named else None):
                raise UserError(
                    f"what lies in {folder} was learnt otherwise ({'; '.join(why[:3])}); name another folder, or leave "
                    "out how it is to be learnt"
                )
        return found
    seen, scratch = images(), folder / ".training" if folder else None
    with bar("learn from images") as watch:
        knowledge = learn(oracle, seen, lessons, torch.Generator().manual_seed(seed), scratch, watch)
    told = ", ".join(f"{share:.0%}" for share in knowledge.agreement)
    console.print(f"students name the target's class on {told} of {len(seen)} images", highlight=False)
    if folder:
        knowledge.save(folder)
        shutil.rmtree(folder / ".training", ignore_errors=True)
    return knowledge
