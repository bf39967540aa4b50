"""The steps of a study as tasks: draw a population, train, fit a prior, invert, evaluate."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightleak import data, defences, priors
from lightleak.attacks import PPA, Attack, Oracle, Reconstruction
from lightleak.attacks.knowledge import SMALL, Distillation, Knowledge, learn
from lightleak.attacks.reconstruction import join
from lightleak.attacks.steps import Candidates
from lightleak.data.folders import scan
from lightleak.data.population import Images, Population, as_bytes
from lightleak.defences import Defence, pretrain
from lightleak.errors import UserError
from lightleak.metrics import appraiser as appraisers
from lightleak.metrics.appraiser import Appraiser
from lightleak.metrics.evaluate import Reference, evaluate, reference
from lightleak.metrics.knowledge import extracted, teach
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.facenet import facenet
from lightleak.models.inception import inception
from lightleak.models.published import Weights
from lightleak.models.zoo import build, only_size
from lightleak.priors import Prior, RenderedPrior
from lightleak.priors.fit import QUICK, Settings, check_target, fit
from lightleak.study.protocols import Protocol
from lightleak.study.task import Store, Task, Watch, plain
from lightleak.surgery import fuse
from lightleak.training import RECIPES, Moment, Recipe, accuracy_and_loss, predict, train

SPLITS = ("train", "validation", "test", "judge", "public")


@dataclass(frozen=True)
class Draw(Task):
    """A population, drawn or read once; every other task reads it from here."""

    source: str = "faces"  # faces, digits or folder:PATH
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the population function
    contents: str = ""  # what a folder holds, see `fingerprint`

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        population = data.load(self.source, **dict(self.settings), watch=watch)
        tensors: dict[str, Tensor] = {}
        for split in SPLITS:
            images: Images = getattr(population, split)
            tensors |= {f"{split}.pixels": images.pixels, f"{split}.labels": images.labels}
        if population.factors is not None and population.public_factors is not None:
            tensors |= {"factors": population.factors, "public_factors": population.public_factors}
        save_file(tensors, folder / "population.safetensors")
        about = {
            "name": population.name,
            "class_names": list(population.class_names),
            "notes": list(population.notes),
        }
        (folder / "population.json").write_text(json.dumps(about))
        counts = {split: len(getattr(population, split)) for split in SPLITS}
        return {**about, "classes": population.classes, "size": population.size, "images": counts}

    def load(self, store: Store) -> Population:
        """The population as it was drawn."""
        folder = store.folder(self)
        tensors = load_file(folder / "population.safetensors")
        about = json.loads((folder / "population.json").read_text())
        return Population(
            name=about["name"],
            class_names=tuple(about["class_names"]),
            notes=tuple(about["notes"]),
            findings=(),
            factors=tensors.get("factors"),
            public_factors=tensors.get("public_factors"),
            **{split: Images(tensors[f"{split}.pixels"], tensors[f"{split}.labels"]) for split in SPLITS},
        )


def fingerprint(folder: str | Path, classes: bool = True) -> str:
    """What a folder holds (names, sizes, times of change), as a hash; `classes`: only images in folders of classes."""
    root = Path(folder).expanduser()
    if not classes and not root.is_dir():
        raise UserError(f"there is no folder {root}")
    names = scan(root).files if classes else sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    lines = []
    for name in names:
        status = (root / name).stat()
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:20]


def source(text: str, **settings: Any) -> Draw:
    """The population that "faces", "digits" or "celeba:PATH" names, with the settings of its function."""
    kind, _, path = text.partition(":")
    if kind == "folder":
        return Draw(text, settings, fingerprint(path) if path else "")
    places = [place for place in (path, str(settings.get("public") or "").partition(":")[2]) if place]
    return Draw(text, settings, " ".join(fingerprint(place, classes=False) for place in places))


@dataclass(frozen=True)
class Pretrain(Task):
    """A network that has learnt to tell public people apart, with a fresh head for the private ones."""

    gpus = 1.0
    population: Draw
    architecture: str
    recipe: Recipe
    seed: int = 0

    @property
    def label(self) -> str:
        return f"train on public images, seed {self.seed}"

    @property
    def cost(self) -> float:
        return 3.0 * self.recipe.epochs

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        population = self.population.load(store)
        torch.manual_seed(self.seed)
        classifier = build(self.architecture, population.classes, population.size)
        start = pretrain(classifier, population.public, self.recipe, self.seed, store.scratch(self), watch)
        save(start, folder / "target.safetensors")
        record = start.record["pretraining"]
        return {name: record[name] for name in ("images", "people", "validation_accuracy", "best_epoch")}

    def load(self, store: Store) -> Classifier:
        """The network to start from."""
        return load(store.folder(self) / "target.safetensors")


@dataclass(frozen=True)
class TrainTarget(Task):
    """A classifier of the private people, with or without defences."""

    gpus = 1.0
    population: Draw
    architecture: str = "timm:resnet18"
    recipe: Recipe = RECIPES["small"]
    defences: tuple[Defence, ...] = ()
    seed: int = 0
    people: str = "private"  # "public": the same network for people who are none of them, as a null
    checkpoints: tuple[Moment, ...] = ()  # copies that are kept on the way, see `Checkpoint`

    def needs(self) -> tuple[Task, ...]:
        """Its population, and the public training that a defence begins with."""
        return (*super().needs(), self.start) if self.start else super().needs()

    @property
    def start(self) -> Pretrain | None:
        """The public training that comes first, if a defence wants it."""
        recipe = defences.pretraining(self.defences, self.recipe)
        return Pretrain(self.population, self.architecture, recipe, self.seed) if recipe else None

    @property
    def label(self) -> str:
        return f"train {self.title}" + (f", seed {self.seed}" if self.seed else "")

    @property
    def title(self) -> str:
        """The defences as a table names them."""
        if self.people == "public":
            return "other people"
        return " + ".join(defences.title(defence) for defence in self.defences) or "no defence"

    @property
    def cost(self) -> float:
        return 3.0 * self.recipe.epochs

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        population = self.population.load(store)
        images, validation, test = people(population, self.people)
        torch.manual_seed(self.seed)
        if self.start:
            classifier = self.start.load(store)
        else:
            classifier = build(self.architecture, int(images.labels.max()) + 1, population.size)
        classifier.class_names = population.class_names if self.people == "private" else ()
        scratch = store.scratch(self)

        def keep(place: int, copy: Classifier) -> None:
            save(copy, scratch / _kept(place))

        trained = train(
            classifier,
            images,
            validation,
            self.recipe,
            defences.plan(self.defences, self.recipe),
            seed=self.seed,
            folder=scratch,
            watch=watch,
            moments=self.checkpoints,
            keep=keep,
        )
        save(trained, folder / "target.safetensors")
        for place in range(len(self.checkpoints)):
            shutil.copyfile(scratch / _kept(place), folder / _kept(place))
        return described(trained, images, test)

    def load(self, store: Store) -> Classifier:
        """The trained classifier."""
        return load(store.folder(self) / "target.safetensors")


@dataclass(frozen=True)
class Derived(Task):
    """A target that comes of the training of another."""

    run_of: TrainTarget

    @property
    def label(self) -> str:
        return f"look at {self.title}" + (f", seed {self.seed}" if self.seed else "")

    @property
    def title(self) -> str:
        """What a table calls it."""
        raise NotImplementedError(f"{type(self).__name__} has no title")

    @property
    def cost(self) -> float:
        return 1.0

    @property
    def population(self) -> Draw:
        """As the training's."""
        return self.run_of.population

    @property
    def architecture(self) -> str:
        """As the training's."""
        return self.run_of.architecture

    @property
    def recipe(self) -> Recipe:
        """As the training's."""
        return self.run_of.recipe

    @property
    def defences(self) -> tuple[Defence, ...]:
        """As the training's."""
        return self.run_of.defences

    @property
    def seed(self) -> int:
        """As the training's."""
        return self.run_of.seed

    @property
    def people(self) -> str:
        """As the training's."""
        return self.run_of.people

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        images, _, test = people(self.population.load(store), self.people)
        return described(self.load(store), images, test)

    def load(self, store: Store) -> Classifier:
        """The classifier."""
        raise NotImplementedError(f"{type(self).__name__} has no load(store)")


@dataclass(frozen=True)
class Checkpoint(Derived):
    """A copy that a target left behind on its way, as a target of its own."""

    place: int = 0  # among its `checkpoints`

    def __post_init__(self) -> None:
        kept = self.run_of.checkpoints
        if not 0 <= self.place < len(kept):
            raise UserError(f"{self.run_of.title} keeps {len(kept)} checkpoints; there is no number {self.place}")

    @property
    def title(self) -> str:
        """The defences, and when the copy was made."""
        return f"{self.run_of.title} at {self.moment}"

    @property
    def moment(self) -> Moment:
        """When the copy was made."""
        return self.run_of.checkpoints[self.place]

    def load(self, store: Store) -> Classifier:
        """The classifier as it was then."""
        return load(store.folder(self.run_of) / _kept(self.place))


@dataclass(frozen=True)
class Fused(Derived):
    """A trained network with its skips re-parameterised away, as it would be deployed (Koh et al., Sec. 4)."""

    @property
    def title(self) -> str:
        """The defences, and that it is fused."""
        return f"{self.run_of.title}, fused"

    def load(self, store: Store) -> Classifier:
        """The trained classifier with every re-parameterisable block as one convolution."""
        trained = self.run_of.load(store)
        return trained.with_net(fuse(trained.net))


Target = TrainTarget | Derived


def run_of(target: Target) -> TrainTarget:
    """The training that a target comes from: itself, or that which it is derived of."""
    return target.run_of if isinstance(target, Derived) else target


def _kept(place: int) -> str:
    return f"checkpoint-{place}.safetensors"


def described(target: Classifier, images: Images, test: Images) -> dict[str, Any]:
    """What is said of a target before anyone attacks it."""
    right = predict(target, test).argmax(1) == test.labels
    seen, _ = accuracy_and_loss(target, images)
    return {
        "accuracy": float(right.double().mean()),
        "accuracy_of": [float(right[test.labels == label].double().mean()) for label in test.labels.unique()],
        "train_accuracy": seen,
        "test_images": len(test),
        "parameters": sum(p.numel() for p in target.net.parameters()),
        "surgery": target.recipe["surgery"],
        "best_epoch": target.record["best_epoch"],
        "epoch": target.record.get("epoch", target.record["best_epoch"]),
        "validation_accuracy": target.record["validation_accuracy"],
        "privacy": target.record.get("privacy"),
        "measured": {
            name: [entry[name] for entry in target.record["history"]]
            for name in target.record["history"][-1]
            if name not in ("loss", "validation", "validation_loss")
        },
    }


def people(population: Population, kind: str) -> tuple[Images, Images, Images]:
    """Training, validation and test images of the private people, or of as many public ones."""
    if kind == "private":
        return population.train, population.validation, population.test
    if kind != "public":
        raise UserError(f"people are private or public, not {kind!r}")
    images = population.public.at(population.public.labels < population.classes)
    place = torch.zeros(len(images), dtype=torch.long)
    for label in images.labels.unique():
        own = (images.labels == label).nonzero().flatten()
        place[own] = torch.arange(len(own)) * 10 // len(own)  # the tenth of its person's images
    return images.at(place < 7), images.at((place >= 7) & (place < 8)), images.at(place >= 8)


@dataclass(frozen=True)
class TrainJudge(Task):
    """Another architecture, trained on other images of the same people; it never meets an attack."""

    gpus = 1.0
    population: Draw
    architecture: str = "timm:resnet14t"
    recipe: Recipe = RECIPES["judge"]
    seed: int = 1000
    size: int | None = None  # pixels a side that it sees; None: those of the images, or the only ones that it takes

    @property
    def label(self) -> str:
        return "train the judge"

    @property
    def cost(self) -> float:
        return 6.0 * self.recipe.epochs

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        population = self.population.load(store)
        torch.manual_seed(self.seed)
        size = self.size or only_size(self.architecture) or population.size
        classifier = build(self.architecture, population.classes, size)
        scratch = store.scratch(self)
        trained = train(
            classifier,
            population.judge,
            population.validation,
            self.recipe,
            seed=self.seed,
            folder=scratch,
            watch=watch,
        )
        trained.class_names = population.class_names
        save(trained, folder / "target.safetensors")
        right, loss = accuracy_and_loss(trained, population.test)
        return {"accuracy": right, "loss": loss, "test_images": len(population.test)}

    def load(self, store: Store) -> Classifier:
        """The trained judge."""
        return load(store.folder(self) / "target.safetensors")


@dataclass(frozen=True)
class FitPrior(Task):
    """A generator learnt from public images and, where its settings say so, from the answers of one target to them."""

    gpus = 1.0
    population: Draw
    settings: Settings = QUICK
    seed: int = 0
    target: Target | None = None

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and the run that its target lies in."""
        return (*super().needs(), run_of(self.target)) if self.target else super().needs()

    def __post_init__(self) -> None:
        check_target(self.settings, self.target is not None)

    @property
    def label(self) -> str:
        return "fit the prior" + (f" for {self.target.title}" if self.target else "")

    @property
    def cost(self) -> float:
        return 40.0

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        population = self.population.load(store)
        statistics = getattr(self.settings, "batch_statistics", False)
        oracle = Oracle(self.target.load(store), batch_statistics=statistics) if self.target else None
        asked = oracle.logits if oracle else None
        prior = fit(population.public, self.settings, self.seed, store.scratch(self), watch, target=asked)
        priors.save(prior, folder)
        priors.show(prior, folder / "samples.png")
        queries = oracle.queries if oracle else 0
        return {"images": len(population.public), "queries": queries, "settings": asdict(self.settings)}

    def load(self, store: Store) -> Prior:
        """The fitted prior."""
        return priors.load(store.folder(self))


@dataclass(frozen=True)
class Rendered(Task):
    """The renderer as a prior over its own factors."""

    population: Draw
    strength: float = 1.0

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        prior = RenderedPrior(size=self.population.load(store).size, strength=self.strength)
        priors.save(prior, folder)
        return {"latents": prior.latents}

    def load(self, store: Store) -> Prior:
        """The prior."""
        return priors.load(store.folder(self))


@dataclass(frozen=True)
class Ready(Task):
    """A prior in a folder, as `lightleak fit` or `lightleak convert` wrote it; it is read where it lies."""

    path: str = field(compare=False)  # of the folder; what decides the result is what lies in it
    weights: str = ""  # their sha256

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        prior = priors.load(self.path)
        found = priors.seal(self.path)
        if found != self.weights:
            raise UserError(f"{self.path} holds another prior than the study was planned with ({found[:12]})")
        return {"size": prior.size, "latents": prior.latents, "weights": self.weights}

    def load(self, store: Store) -> Prior:  # noqa: ARG002
        """The prior."""
        return priors.load(self.path)


def ready(path: str | Path) -> Ready:
    """The prior in a folder, known by its weights; UserError if there is none."""
    return Ready(str(Path(path).expanduser().absolute()), priors.seal(path))


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


@dataclass(frozen=True)
class FitAppraiser(Task):
    """A network that reads identity factors off images, for reconstructions that were not rendered."""

    gpus = 1.0
    settings: appraisers.Fit = appraisers.Fit()  # noqa: RUF009

    @property
    def label(self) -> str:
        return "fit the appraiser"

    @property
    def cost(self) -> float:
        return 120.0

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        appraiser = appraisers.fit_appraiser(self.settings, watch)
        appraisers.save(appraiser, folder / "appraiser.safetensors")
        return {"quality": asdict(appraiser.quality) if appraiser.quality else None}

    def load(self, store: Store) -> Appraiser:
        """The fitted appraiser with its own error."""
        return appraisers.load(store.folder(self) / "appraiser.safetensors")


@dataclass(frozen=True)
class MeasurePrivate(Task):
    """What the judge and other networks say of private images, once for all evaluations of a study."""

    gpus = 1.0
    judge: TrainJudge
    inception: Weights | None = None
    face: Weights | None = None
    published: bool = False

    @property
    def label(self) -> str:
        return "measure the private images"

    @property
    def cost(self) -> float:
        return 60.0 if self.inception or self.face else 3.0

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:  # noqa: ARG002
        known = reference(
            self.judge.load(store),
            self.judge.population.load(store),
            face_embedding=facenet(self.face) if self.face else None,
            inception=inception(self.inception, self.published) if self.inception else None,
        )
        known.save(folder / "reference.safetensors")
        return {"judge_accuracy": asdict(known.judge_accuracy), "networks": known.networks, "images": len(known.labels)}

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and what the judge was trained on."""
        return (*super().needs(), self.judge.population)

    def load(self, store: Store) -> Reference:
        """What was measured."""
        return Reference.load(store.folder(self) / "reference.safetensors")


@dataclass(frozen=True)
class Student:
    """Who is taught by reconstructions, and how: the knowledge extraction score is what it then knows."""

    architecture: str = "timm:resnet50"
    recipe: Recipe = RECIPES["student"]
    pretrained: bool = False  # the published score starts from ImageNet's weights
    seed: int = 0


@dataclass(frozen=True)
class Teach(Task):
    """A student that learns from the reconstructions of one inversion, and nothing else."""

    gpus = 1.0
    found: Invert
    student: Student = Student()

    @property
    def label(self) -> str:
        return f"teach a student by {self.found.label.removeprefix('invert ')}"

    @property
    def cost(self) -> float:
        return 3.0 * self.student.recipe.epochs

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and the people whom the student is tested on."""
        return (*super().needs(), self.found.target.population)

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        population, found, how = self.found.target.population.load(store), self.found.load(store), self.student
        taught = teach(
            found,
            population.classes,
            how.architecture,
            how.recipe,
            pretrained=how.pretrained,
            seed=how.seed,
            folder=store.scratch(self),
            watch=watch,
        )
        save(taught, folder / "student.safetensors")
        return {"knowledge": float(extracted(taught, population, found.classes.unique()).nanmean())}

    def load(self, store: Store) -> Classifier:
        """The student."""
        return load(store.folder(self) / "student.safetensors")


@dataclass(frozen=True)
class Evaluate(Task):
    """Everything measured on one inversion, by a judge that the attacker never saw and, where it is known, by truth."""

    gpus = 1.0
    found: Invert
    judge: TrainJudge
    nulls: Mapping[str, Invert] = field(default_factory=dict)
    appraiser: FitAppraiser | None = None
    protocol: Protocol | None = None  # whom, how often and by whom: checked, and recorded beside the numbers
    inception: Weights | None = None  # for FID, precision, recall, density, coverage; the judge's features always serve
    face: Weights | None = None  # FaceNet, for delta_face
    student: Student | None = None  # for the knowledge extraction score, also of the nulls
    published: bool = False  # PPA's conventions for FID, precision, recall, density and coverage

    def needs(self) -> tuple[Task, ...]:
        """Its fields, and what it reads of their own needs."""
        target = self.found.target
        students = (self._teach(found) for found in (self.found, *self.nulls.values()) if self.student)
        return (*super().needs(), target, run_of(target), target.population, self.found.prior, self.private, *students)

    @property
    def private(self) -> MeasurePrivate:
        """What is measured on private images."""
        return MeasurePrivate(self.judge, self.inception, self.face, self.published)

    def _teach(self, found: Invert) -> Teach:
        return Teach(found, self.student or Student())

    @property
    def label(self) -> str:
        return f"evaluate {self.found.target.title}" + (
            f", seed {self.found.target.seed}" if self.found.target.seed else ""
        )

    @property
    def cost(self) -> float:
        return 5.0

    def run(self, store: Store, folder: Path, watch: Watch) -> dict[str, Any]:
        target = self.found.target
        population = target.population.load(store)
        found = self.found.load(store)
        prior = self.found.prior.load(store)
        judge = self.judge.load(store)
        if self.protocol is not None:
            attempts = getattr(self.found.attack, "attempts", getattr(self.found.attack, "keep", None))
            self.protocol.check(found.classes, population.classes, judge.architecture, judge.size, attempts)
        evaluation = evaluate(
            found,
            judge,
            population,
            factors=prior.factors_of if isinstance(prior, RenderedPrior) else None,
            appraiser=self.appraiser.load(store) if self.appraiser else None,
            face_embedding=facenet(self.face) if self.face else None,
            inception=inception(self.inception, self.published) if self.inception else None,
            student=self._teach(self.found).load(store) if self.student else None,
            nulls={name: null.load(store) for name, null in self.nulls.items()},
            null_students={name: self._teach(null).load(store) for name, null in self.nulls.items() if self.student},
            known=self.private.load(store),
            published=self.published,
            fed_8_bit=self.protocol is not None and self.protocol.fed == "8-bit",
            rng=torch.Generator().manual_seed(self.found.seed),
            watch=watch,
        )
        best = found.best(1)
        first = [int((population.train.labels == label).nonzero()[0]) for label in best.classes]
        save_file(
            {
                "classes": best.classes,
                "private": population.train.pixels[first],
                "reconstructed": as_bytes(best.images),
            },
            folder / "gallery.safetensors",
        )
        return {
            "target": {
                "title": target.title,
                "key": target.key,
                "seed": target.seed,
                "architecture": target.architecture,
                "recipe": plain(target.recipe),
                "moment": plain(target.moment) if isinstance(target, Checkpoint) else None,
                "run": run_of(target).title,
                "defences": {type(defence).__name__: plain(defence) for defence in target.defences},
                **store.result(target),
            },
            "population": {
                "key": target.population.key,
                **store.result(target.population),
                "settings": plain(target.population.settings),
            },
            "attack": {
                "name": type(self.found.attack).__name__,
                "title": getattr(self.found.attack, "title", ""),
                **plain(self.found.attack),
            },
            "prior": type(self.found.prior).__name__,
            "judge": {
                "architecture": self.judge.architecture,
                "sha256": hashlib.sha256((store.folder(self.judge) / "target.safetensors").read_bytes()).hexdigest(),
                **store.result(self.judge),
            },
            "protocol": plain(self.protocol),
            "confidence": found.confidence.tolist(),
            "evaluation": evaluation.to_json(),
        }
