"""The attacks of a study, and what they share: scored candidates, learnt knowledge, shards of identities."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightleak.attacks import PPA, Attack, Oracle, Reconstruction
from lightleak.attacks.knowledge import SMALL, Distillation, Knowledge, learn
from lightleak.attacks.reconstruction import join
from lightleak.attacks.steps import Candidates
from lightleak.errors import UserError
from lightleak.study.task import Store, Task, Watch
from lightleak.study.tasks.priors import FitPrior, Ready, Rendered
from lightleak.study.tasks.targets import Target, run_of


@dataclass(frozen=True)
class Score(Task):
    """PPA's candidates and what one target believes of them, for all variants of the attack that start from them.

    Their images are not kept: making them again for another target is less than a hundredth of an attack's work.
    """

    target: Target
    prior: FitPrior | Rendered | Ready
    candidates: int
    cutoff: int | None = None
    seed: int = 0

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and the run that its target lies in."""
        return (*super().needs(), run_of(self.target))

    @property
    def label(self) -> str:
        return f"score candidates for {self.target.title}" + (f", seed {self.target.seed}" if self.target.seed else "")

    @property
    def cost(self) -> float:
        return 3.0

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        attack = PPA(candidates=self.candidates, attempts=1, keep=1, cutoff=self.cutoff)
        rng = torch.Generator().manual_seed(self.seed)
        found = attack.score(Oracle(self.target.load(store), "scores"), self.prior.load(store), rng)
        tensors = {"latents": found.latents.contiguous(), "scores": found.scores.contiguous()}
        save_file(tensors, folder / "candidates.safetensors")
        return {"queries": found.queries, "seed": found.seed}

    def load(self, store: Store) -> Candidates:
        """The scored candidates."""
        result = store.result(self)
        tensors = load_file(store.folder(self) / "candidates.safetensors")
        return Candidates(**tensors, seed=result["seed"], queries=result["queries"])


@dataclass(frozen=True)
class Distil(Task):
    """What an attacker learns of a target from public images before attacking: students, and where its features lie."""

    target: Target
    settings: Distillation = SMALL
    seed: int = 0

    @property
    def label(self) -> str:
        return f"distil {self.target.title}" + (f", seed {self.target.seed}" if self.target.seed else "")

    @property
    def cost(self) -> float:
        return 3.0 * self.settings.epochs * len(self.settings.students)

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        public = self.target.population.load(store).public
        oracle, rng = Oracle(self.target.load(store)), torch.Generator().manual_seed(self.seed)
        knowledge = learn(oracle, public, self.settings, rng, store.scratch(self), watch)
        knowledge.save(folder)
        return {"images": len(public), "agreement": knowledge.agreement, "queries": knowledge.queries}

    def load(self, store: Store) -> Knowledge:
        """What was learnt."""
        return Knowledge.load(store.folder(self))

    def needs(self) -> tuple[Task, ...]:
        """Its target, the run that this lies in, and the images that it was drawn from."""
        return (*super().needs(), run_of(self.target), self.target.population)


@dataclass(frozen=True)
class Invert(Task):
    """An attack on one target, through an oracle that grants what the attack's threat model grants."""

    gpus = 1.0
    target: Target
    prior: FitPrior | Rendered | Ready
    attack: Attack
    classes: tuple[int, ...] | None = None  # None: all
    seed: int = 0
    knowledge: Distil | None = None  # what the attack learnt beforehand, where it needs that
    parts: int = field(default=0, compare=False)  # tasks that share the work; 0: as the number of workers suggests

    def needs(self) -> tuple[Task, ...]:
        """Its fields, the run that its target lies in, its shards if the work is shared, and the candidates' scores."""
        scored = [self.scored] if self.scored else []
        return (*super().needs(), run_of(self.target), *self.parts_done(), *scored)

    def __post_init__(self) -> None:
        needed = getattr(self.attack, "needs_knowledge", False)
        if needed != (self.knowledge is not None):
            kind, advice = type(self.attack).__name__, "pass a Distil task" if needed else "leave it out"
            raise UserError(f"{kind} uses {'' if needed else 'no '}knowledge from public images; {advice}")

    def split(self, parts: int) -> Task:
        """Shared out to shards of identities, if the attack says where it may be cut and nobody else decided."""
        can = parts > 1 and self.parts == 0 and hasattr(self.attack, "group")
        return replace(self, parts=parts) if can else self

    def parts_done(self) -> tuple[Task, ...]:
        """The shards that it is joined from; none if it does the work itself."""
        return tuple(InvertShard(self, part, self.parts, self.group) for part in range(self.parts)) if self.cut else ()

    @property
    def cut(self) -> bool:
        """Whether shards do the work."""
        return self.parts > 1 and hasattr(self.attack, "group")

    @property
    def group(self) -> int:
        """Identities that the attack optimises together."""
        return getattr(self.attack, "group", 0)

    @property
    def scored(self) -> Score | None:
        """The table of candidates that this attack shares with its variants, if it starts from one."""
        if not isinstance(self.attack, PPA):
            return None
        return Score(self.target, self.prior, self.attack.candidates, self.attack.cutoff, self.seed)

    @property
    def label(self) -> str:
        return f"invert {self.target.title}" + (f", seed {self.target.seed}" if self.target.seed else "")

    @property
    def cost(self) -> float:
        if self.cut:
            return 0.0
        return 20.0 if getattr(self.attack, "steps", 0) else 2.0

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        if self.cut:
            shards = [shard.load(store) for shard in self.parts_done() if isinstance(shard, InvertShard)]
            found = join([shard for shard in shards if shard is not None])
        else:
            found = self.attacked(store, self.identities(store), watch)
        # How long it took is noted by the store; what is written here is the same whenever it is made again.
        replace(found, seconds=0.0).save(folder / "reconstructions.safetensors")
        return {"queries": found.queries, "confidence": float(found.confidence.mean())}

    def identities(self, store: Store) -> Tensor:
        """The classes to reconstruct, in order."""
        return torch.arange(self.target.load(store).classes) if self.classes is None else torch.tensor(self.classes)

    def attacked(self, store: Store, wanted: Tensor, watch: Watch) -> Reconstruction:
        """What the attack finds of these classes."""
        oracle = Oracle(self.target.load(store), self.attack.access)
        rng = torch.Generator().manual_seed(self.seed)
        prior = self.prior.load(store)
        if isinstance(self.attack, PPA) and self.scored:
            return self.attack.run(oracle, prior, wanted, rng, watch, self.scored.load(store))
        learnt: dict[str, Any] = {"knowledge": self.knowledge.load(store)} if self.knowledge else {}
        return self.attack.run(oracle, prior, wanted, rng, watch, **learnt)

    def load(self, store: Store) -> Reconstruction:
        """What the attack brought home."""
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

    @property
    def cost(self) -> float:
        return (replace(self.whole, parts=1).cost or 0.0) / self.parts

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        wanted = self.whole.identities(store)
        groups = -(-len(wanted) // self.group)
        first, last = (place * groups // self.parts * self.group for place in (self.part, self.part + 1))
        wanted = wanted[first:last]
        if len(wanted):
            found = self.whole.attacked(store, wanted, watch)
            replace(found, seconds=0.0).save(folder / "reconstructions.safetensors")
        return {"identities": wanted.tolist()}

    def load(self, store: Store) -> Reconstruction | None:
        """What the attack found; None if there are fewer groups than shards and nobody was left for this one."""
        file = store.folder(self) / "reconstructions.safetensors"
        return Reconstruction.load(file) if store.result(self)["identities"] else None
