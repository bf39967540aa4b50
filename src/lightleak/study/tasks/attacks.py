"""The attacks of a study, and what they share: scored candidates, learnt knowledge, shards of identities."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightleak.attacks import Access, Attack, Common, Oracle, Reconstruction
from lightleak.attacks.frame import complete, grants, weaker
from lightleak.attacks.knowledge import SMALL, SMALL_TRANSFER, Distillation, Knowledge, Transfer, drawn, learn
from lightleak.attacks.reconstruction import write
from lightleak.data.outlook import Outlook
from lightleak.errors import UserError
from lightleak.fingerprint import LATER
from lightleak.models import zoo
from lightleak.models.weight_files import Weights
from lightleak.models.whose import people_of
from lightleak.study.amounts import Amount
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks.populations import Draw
from lightleak.study.tasks.priors import FitPrior, Pixels, Ready, Rendered
from lightleak.study.tasks.targets import Attacked, run_of
from lightleak.study.tasks.work import REST, Repeating, counts, guard_of, learnt_from, named, size_of

LOADED = Amount("rest", 1.0)  # what an attack takes beside its steps: reading target and prior, writing what it found


def shown_to(target: Attacked, prior: FitPrior | Rendered | Pixels | Ready, seen: Outlook) -> dict[str, Any]:
    """How a target is shown what a prior draws, as fields of an `Amount`; a generator that is yet to be fitted is small
    beside the target, and left out.
    """
    how: dict[str, Any] = {
        "architecture": target.architecture,
        "size": zoo.only_size(target.architecture) or seen.size,
        "classes": seen.people,
    }
    if isinstance(prior, FitPrior):
        return how
    return {**how, "prior": prior.key, "sketch": prior.sketch, "painted": isinstance(prior, Rendered)}


@dataclass(frozen=True)
class Score(Repeating):
    """What an attack computes once for all classes (PPA: candidates and a target's confidence in them), for all
    attacks that would find out the same.

    The candidates' images are not kept: making them again for another target is less than a hundredth of the work.
    """

    gpus = 1.0
    target: Attacked
    prior: FitPrior | Rendered | Pixels | Ready
    attack: Attack  # a `preparation`
    seed: int = 0

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and the run that its target lies in."""
        return (*super().needs(), run_of(self.target))

    @property
    def label(self) -> str:
        return f"score candidates for {named(self.target)}"

    @property
    def pictures(self) -> Draw:
        """Of the target's people."""
        return self.target.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """Looks at what the attack is to choose from."""
        return (Amount("look", self.attack.images_beforehand, **shown_to(self.target, self.prior, seen)), REST)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        target = self.target.load(store)
        oracle = Oracle(target, weaker("scores", self.attack.access), guard=guard_of(self.target, target, store))
        found = self.attack.prepared(oracle, self.prior.load(store), torch.Generator().manual_seed(self.seed))
        if found is None:
            raise UserError(f"{type(self.attack).__name__} prepares nothing")
        tensors = {name: value.cpu().contiguous() for name, value in found.tensors.items()}
        save_file(tensors, folder / "candidates.safetensors")
        return {"queries": found.queries, "seed": found.seed}

    def load(self, store: Store) -> Common:
        """What was found out."""
        result = store.result(self)
        tensors = load_file(store.folder(self) / "candidates.safetensors")
        return Common(tensors, seed=result["seed"], queries=result["queries"])


@dataclass(frozen=True)
class Distil(Repeating):
    """What an attacker learns of a target from public images before attacking: students, and where its features lie."""

    gpus = 1.0
    target: Attacked
    settings: Distillation = SMALL
    seed: int = 0
    access: Access = "gradients"  # that of the attack which uses it
    weights: tuple[Weights, ...] = field(default=(), metadata=LATER)  # files that the students begin with, in order

    @property
    def label(self) -> str:
        return f"distil {named(self.target)}"

    @property
    def pictures(self) -> Draw:
        """Of the public people."""
        return self.target.population

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """The training of its students on all public images."""
        how = self.settings
        return tuple(part for one in how.students for part in learnt_from(seen, one, how.epochs, how.batch))

    def begins(self) -> tuple[tuple[str, Weights, int | None], ...]:
        """Its students, if they begin with files."""
        size = size_of(self.target.population)
        return tuple((one, weights, size) for one, weights in zip(self.settings.students, self.weights))

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        public = self.target.population.load(store).public
        target = self.target.load(store)
        oracle = Oracle(target, self.access, guard=guard_of(self.target, target, store))
        rng = torch.Generator().manual_seed(self.seed)
        knowledge = learn(oracle, public, self.settings, rng, store.scratch(self), watch, self.weights)
        knowledge.save(folder)
        return {"images": len(public), "agreement": knowledge.agreement, "queries": knowledge.queries}

    def load(self, store: Store) -> Knowledge:
        """What was learnt."""
        return Knowledge.load(store.folder(self))

    def needs(self) -> tuple[Task, ...]:
        """Its target, the run that this lies in, and the images that it was drawn from."""
        return (*super().needs(), run_of(self.target), self.target.population)


@dataclass(frozen=True)
class Taught(Task):
    """What surrogates learn of a target from images that a prior draws (LOKT), before an attack."""

    gpus = 1.0
    target: Attacked
    prior: FitPrior
    settings: Transfer = SMALL_TRANSFER
    seed: int = 0
    access: Access = "labels"  # that of the attack which uses it

    def __post_init__(self) -> None:
        asked = self.prior.asks
        if asked is not None and not grants(self.access, asked):
            raise UserError(f"surrogates are granted {self.access}, but the prior they learn of is made with {asked}")

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and the run that its target lies in."""
        return (*super().needs(), run_of(self.target))

    @property
    def label(self) -> str:
        return f"teach surrogates of {named(self.target)}"

    @property
    def cost(self) -> float:
        return 3.0 * self.settings.lessons.epochs * len(self.settings.students)

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        target = self.target.load(store)
        oracle = Oracle(target, self.access, guard=guard_of(self.target, target, store))
        rng = torch.Generator().manual_seed(self.seed)
        images = drawn(self.prior.load(store), self.settings, oracle.size, rng)
        knowledge = learn(oracle, images, self.settings, rng, store.scratch(self), watch)
        knowledge.save(folder)
        about = {"agreement": knowledge.agreement, "named": knowledge.named, "queries": knowledge.queries}
        return {"images": len(images), **about}

    def load(self, store: Store) -> Knowledge:
        """What was learnt."""
        return Knowledge.load(store.folder(self))


@dataclass(frozen=True)
class Invert(Repeating):
    """An attack on one target, through an oracle that grants what the attack's threat model grants."""

    gpus = 1.0
    target: Attacked
    prior: FitPrior | Rendered | Pixels | Ready
    attack: Attack
    classes: tuple[int, ...] | None = None  # None: all
    seed: int = 0
    knowledge: Distil | Taught | None = None  # what the attack learnt beforehand, where it needs that
    parts: int = field(default=0, compare=False)  # tasks that share the work; 0: as the number of workers suggests

    def needs(self) -> tuple[Task, ...]:
        """Its fields, the run that its target lies in, its shards if the work is shared, and the candidates' scores."""
        scored = [self.scored] if self.scored else []
        return (*super().needs(), run_of(self.target), *self.parts_done(), *scored)

    def __post_init__(self) -> None:
        complete(self.attack)
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            raise UserError(f"each class is attacked once, but {self.classes} names one twice")
        needs, kind = self.attack.needs(), type(self.attack).__name__
        task, source = (Taught, "images that its prior draws") if needs.drawn else (Distil, "public images")
        if needs.knowledge != (self.knowledge is not None) or (self.knowledge and type(self.knowledge) is not task):
            advice = f"pass a {task.__name__} task" if needs.knowledge else "leave it out"
            raise UserError(f"{kind} uses {'' if needs.knowledge else 'no '}knowledge from {source}; {advice}")
        learnt: dict[str, Access | None] = {
            "knowledge": self.knowledge.access if self.knowledge else None,
            "prior": self.prior.asks,
        }
        for what, access in learnt.items():
            if access is not None and not self.attack.null and not grants(self.attack.access, access):
                raise UserError(f"{kind} is granted {self.attack.access}, but its {what} is learnt from {access}")

    def split(self, parts: int) -> Task:
        """Split into shards of identities, if the attack takes long enough and no number was given."""
        return replace(self, parts=parts) if parts > 1 and self.parts == 0 and self.attack.steps > 1 else self

    def parts_done(self) -> tuple[Task, ...]:
        """The shards that it is joined from; none if it does the work itself."""
        return self.shards

    @property
    def shards(self) -> tuple["InvertShard", ...]:
        """The parts of the work; none if it is not shared."""
        group = self.attack.group
        return tuple(InvertShard(self, part, self.parts, group) for part in range(self.parts)) if self.cut else ()

    @property
    def cut(self) -> bool:
        """Whether shards do the work."""
        return self.parts > 1 and self.attack.steps > 1

    @property
    def scored(self) -> Score | None:
        """What this attack shares with its variants, if it prepares anything."""
        prepared = self.attack.preparation
        return None if prepared is None else Score(self.target, self.prior, prepared, self.seed)

    @property
    def label(self) -> str:
        return f"invert {named(self.target)} by {self.by}"

    @property
    def by(self) -> str:
        """The attack as the lines of a log call it."""
        name = (self.attack.title or type(self.attack).__name__) + " (null)" * self.attack.null
        return f"{name} in pixels" if isinstance(self.prior, Pixels) and not self.attack.needs().pixels else name

    @property
    def outcome(self) -> str:
        """What comes of it, as the lines of a log call it."""
        return f"what {self.by} found of {named(self.target)}"

    @property
    def pictures(self) -> Draw:
        """Of the target's people."""
        return self.target.population

    @property
    def cost(self) -> float | None:
        """Roughly; nothing of its own where shards do the work."""
        return 0.0 if self.cut else super().cost

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        if self.cut:
            shards = [found for shard in self.shards if (found := shard.load(store)) is not None]
        else:
            shards = [self.attacked(store, self.identities(store), watch, store.scratch(self))]
        # How long it took is noted by the store; what is written here is the same whenever it is made again.
        learnt = {"knowledge": self.knowledge, "prior": self.prior if self.prior.asks else None}
        beforehand = {name: store.result(task)["queries"] for name, task in learnt.items() if task is not None}
        if isinstance(self.prior, Ready) and (spent := self.prior.queries):
            beforehand["prior"] = spent
        notes = {"seconds": 0.0, "beforehand": sum(beforehand.values()), "target": ""}  # the task names its target
        path = write(folder / "reconstructions.safetensors", [found.with_fields(**notes) for found in shards])
        found = Reconstruction.load(path)
        return {
            "queries": found.queries,
            "beforehand": beforehand,
            "confidence": float(found.confidence.mean()) if len(found) else None,
            "failures": dict(found.failures),
        }

    def amounts(self) -> tuple[Amount, ...]:
        """Nothing of its own where shards do the work; nor can a network be measured that no name tells."""
        return () if self.cut or not self.target.architecture else super().amounts()

    def repeated(self, seen: Outlook) -> tuple[Amount, ...]:
        """Steps of its searches, and the views that judge them; of searches by queries, the queries."""
        attack, people = self.attack, self.people_of(seen)
        drawn = shown_to(self.target, self.prior, seen)
        if attack.budget is not None:
            return (Amount("look", people * attack.images_searched, **drawn), LOADED)
        looked = people * attack.images_judged
        if not attack.images_a_step * attack.steps:
            return (Amount("look", looked, **drawn), LOADED)
        students = len(self.knowledge.settings.students) if self.knowledge else 0
        networks = max(1, students + (attack.images_searched > 0))  # the target, if it is one of those descended
        searched = people * attack.images_a_step * attack.steps * networks
        plain = {**drawn, "prior": "", "sketch": None, "painted": False}
        return (
            Amount("search", searched, **{**drawn, "batch": attack.batch}),
            Amount("look", looked, **plain),
            LOADED,
        )

    @property
    def room(self) -> int:
        """The images that it keeps, and those that no latents make again at the size of a prior that was brought."""
        seen = counts(self.target.population)
        if seen is None:
            return 0
        people = self.people_of(seen)
        large = self.prior.size if self.attack.needs().blocks and isinstance(self.prior, Ready) else 0
        return people * self.attack.keep * (3 * (seen.size**2 + (large**2 if large > seen.size else 0)) + 4096)

    def people_of(self, seen: Outlook) -> int:
        """How many people it is on, of those of its pictures."""
        return seen.people if self.classes is None else len(self.classes)

    def identities(self, store: Store) -> Tensor:
        """The classes to reconstruct, in order."""
        return torch.arange(self.target.load(store).classes) if self.classes is None else torch.tensor(self.classes)

    def attacked(self, store: Store, wanted: Tensor, watch: Progress, folder: Path) -> Reconstruction:
        """What the attack finds of these classes; finished batches are kept in the folder."""
        target = self.target.load(store)
        found = self.attack.run(
            Oracle(target, self.attack.access, guard=guard_of(self.target, target, store)),
            self.prior.load(store),
            wanted,
            torch.Generator().manual_seed(self.seed),
            watch,
            knowledge=self.knowledge.load(store) if self.knowledge else None,
            common=self.scored.load(store) if self.scored else None,
            folder=folder,
        )
        return found.named(people_of(target))

    def load(self, store: Store) -> Reconstruction:
        """The attack's reconstruction."""
        return Reconstruction.load(store.folder(self) / "reconstructions.safetensors")


@dataclass(frozen=True)
class InvertShard(Task):
    """Some of the identities of an attack; the whole joins its shards and deletes them.

    Shards are cut between the groups of identities that the attack optimises together, and each begins with the same
    random numbers: so they join to what the undivided attack gives, bit for bit.
    """

    gpus = 1.0
    whole: Invert
    part: int
    parts: int
    group: int  # identities that are optimised together: decides where shards begin

    def needs(self) -> tuple[Task, ...]:
        """What the whole attack needs."""
        return replace(self.whole, parts=1).needs()

    @property
    def label(self) -> str:
        return f"{self.whole.label}, part {self.part + 1} of {self.parts}"

    def amounts(self) -> tuple[Amount, ...]:
        """Its share of the whole attack's."""
        return tuple(replace(one, images=one.images / self.parts) for one in replace(self.whole, parts=1).amounts())

    @property
    def cost(self) -> float:
        """Its share of the whole attack's."""
        return (replace(self.whole, parts=1).cost or 0.0) / self.parts

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        wanted = self.whole.identities(store)
        groups = -(-len(wanted) // self.group)
        first, last = (place * groups // self.parts * self.group for place in (self.part, self.part + 1))
        wanted = wanted[first:last]
        if len(wanted):
            found = self.whole.attacked(store, wanted, watch, store.scratch(self))
            found.with_fields(seconds=0.0, target="").save(folder / "reconstructions.safetensors")
        return {"identities": wanted.tolist()}

    def load(self, store: Store) -> Reconstruction | None:
        """What the attack found; None if there are fewer groups than shards and nobody was left for this one."""
        file = store.folder(self) / "reconstructions.safetensors"
        return Reconstruction.load(file) if store.result(self)["identities"] else None
