"""What every attack does around its idea: starts, whole batches, telling, judging, keeping the best, going on.

    1. what serves all classes alike is made once (`prepare`)
    2. batches of whole identities are searched, each number drawn by (seed, class, attempt)   <- the attack's idea
    3. what a batch found is judged, the best of each class are kept as bytes, the rest is dropped
    4. the kept images of all batches are put together, in the order in which classes were asked

So memory depends on a batch and on what is kept, never on how many attempts there are. With a folder, a batch is on
the disk once it is finished, and a run that was stopped goes on from there.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, get_args

import torch
from torch import Tensor

from lightleak.attacks.draws import Rows, Streams, own_draws, own_latents, own_normals, seed_for, seed_of
from lightleak.attacks.keeping import Keeper
from lightleak.attacks.knowledge import Knowledge
from lightleak.attacks.oracle import Access, AccessError, Oracle
from lightleak.attacks.reconstruction import Reconstruction
from lightleak.data.population import as_bytes, check_unit
from lightleak.data.views import resized
from lightleak.errors import UserError, refuse
from lightleak.place import batch_of
from lightleak.priors.prior import Prior
from lightleak.training.loop import Watch

Tell = Callable[..., None]  # tell(step, confidence=...): how far a batch is, from 1 to the attack's `steps`


@dataclass(frozen=True)
class Common:
    """What a run computes once for all classes, alike in every shard: a table of candidates, or of labels."""

    tensors: Mapping[str, Tensor]
    seed: int  # of the run that made it
    queries: int = 0  # what it cost

    def to(self, device: torch.device) -> "Common":
        """The same on a device."""
        return replace(self, tensors={name: value.to(device) for name, value in self.tensors.items()})


@dataclass(frozen=True)
class Part:
    """The searches of one batch. Their random numbers are drawn on the CPU by (seed, class, attempt), then moved."""

    seed: int
    classes: Tensor  # int64, N, on the oracle's device: whom each search looks for
    attempts: Tensor  # int64, N, there too: which of its class's searches it is
    common: Common | None = None  # what `prepare` made
    knowledge: Knowledge | None = None  # what was learnt beforehand

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def device(self) -> torch.device:
        """Where it is worked on."""
        return self.classes.device

    @property
    def identities(self) -> Tensor:
        """The classes without repetition, in order."""
        return self.classes.unique_consecutive()

    @property
    def place(self) -> Tensor:
        """Which of `identities` each search is for, N."""
        return self.classes.unique_consecutive(return_inverse=True)[1]

    def table(self, name: str) -> Tensor:
        """A tensor that `prepare` made, on this device."""
        if self.common is None:
            raise UserError("nothing was prepared for this attack; run it by its `run`")
        return self.common.tensors[name].to(self.device)

    def latents(self, prior: Prior, purpose: str = "") -> Tensor:
        """A latent of the prior for each search, N x L; with a purpose, of which nothing else draws from this seed."""
        seed = seed_for(self.seed, purpose) if purpose else self.seed
        return own_latents(prior, seed, self.classes, self.attempts)

    def draws(self, *shape: int, stream: int = 0) -> Tensor:
        """Uniform numbers in [0, 1) for each search, N x shape; streams are independent of each other."""
        return own_draws(self.seed + stream, self.classes, self.attempts, shape)

    def normals(self, *shape: int, stream: int = 0) -> Tensor:
        """Standard normal numbers for each search, N x shape."""
        return own_normals(self.seed + stream, self.classes, self.attempts, shape)

    def streams(self) -> Streams:
        """A generator for each search, for as many draws as it takes."""
        return Streams(self.seed, self.classes, self.attempts, 1)

    def rows(self, step: int) -> Rows:
        """Whose images are shown in a step, for the oracle; one image a search (see `Rows.repeated`)."""
        return Rows(self.seed, self.classes, self.attempts, step)


@dataclass(frozen=True)
class Found:
    """What a search returns. Without `classes` and `attempts`, row i is what search i of the part found."""

    latents: Tensor  # M x L
    classes: Tensor | None = None  # int64, M
    attempts: Tensor | None = None  # int64, M
    confidence: Tensor | None = None  # M, where the search has paid for it already; nobody asks again then
    drawn: Tensor | None = None  # int64, M: as which classes the prior draws them, if not as `classes`
    images: Tensor | None = None  # M x 3 x S x S in [0, 1], where `decode(latents, classes)` does not make them
    # A row for each of `part.identities`: distributions, or of searches by queries "curve", C x P x 2: queries spent,
    # and the best confidence so far.
    per_class: Mapping[str, Tensor] = field(default_factory=dict)
    failures: Mapping[int, str] = field(default_factory=dict)  # class -> why nothing was found


@dataclass(frozen=True)
class Needs:
    """What an attack needs before it begins. It may learn only with the access that it has been granted."""

    knowledge: bool = False  # from public images: students (surrogates) of the target, where its features lie
    drawn: bool = False  # that knowledge is learnt of images that the prior draws of each class, not of public ones
    recogniser: bool = False  # a prior whose discriminator tells the target's classes apart
    classes: bool | None = None  # True: a prior that draws people of given classes; False: one that knows none
    realism: bool = False  # a prior that judges how real its images are
    blocks: int = 0  # a prior whose synthesis has at least so many blocks to stop between
    pixels: bool = False  # no prior: latents that are the pixels themselves


class Attack(Protocol):
    """Settings are the fields of a frozen dataclass, defaults are the paper's; the idea is `search`.

    An attack names this class as its base and says what differs from what stands here. It reads like the paper's
    algorithm box: everything around the idea is `run`, the same for all.
    """

    access: ClassVar[Access]
    null: ClassVar[bool] = False  # whether it stands beside another attack, with that one's prior, and leaks nothing
    sorted: ClassVar[bool] = True  # whether a class's images come best first; else by attempt
    attempts: int  # images of each class that are judged
    keep: int  # of those, how many are returned
    steps: int  # how often a search tells how far it is; 0: it does nothing but draw
    batch: int  # images at a time: decides speed and memory, not the result

    @property
    def title(self) -> str:
        """What a table calls it, where that is not the name of its class."""
        return ""

    @property
    def searches(self) -> int:
        """Searches for each class; one may come back with several images."""
        return self.attempts

    @property
    def looks(self) -> int:
        """How many views of each attempt the target is shown to judge it."""
        return 1

    # What a run shows the target, counted without running it: queries and, of a step, the time that it takes.

    @property
    def images_a_step(self) -> int:
        """Images of each class in a step of its searches, each view and copy counted."""
        alignment = getattr(self, "alignment", None)
        return self.searches * (alignment.copies if alignment else 1)

    @property
    def images_beforehand(self) -> int:
        """Images that `prepare` shows the target."""
        return 0

    @property
    def images_searched(self) -> int:
        """Images of each class that its searches show the target, unless they end early."""
        return self.images_a_step * self.steps if self.budget is None else self.budget

    @property
    def images_judged(self) -> int:
        """Images of each class that the target is shown to judge what was found; searches by queries have paid."""
        return self.attempts * self.looks if self.budget is None else 0

    def images_shown(self, people: int) -> int:
        """Images that a run shows the target, for so many people."""
        return self.images_beforehand + people * (self.images_searched + self.images_judged)

    @property
    def budget(self) -> int | None:
        """Queries for each identity, beside what is common to all, shared evenly by its searches: a search spends its
        share exactly and gives its own `confidence`, since judging would cost more. None: it is no search by queries.
        """
        return None

    @property
    def group(self) -> int:
        """Identities that share a batch; shards are cut between such groups."""
        return group_of(self.searches, self.batch)

    def needs(self) -> Needs:
        """What it needs before it begins."""
        return Needs()

    @property
    def preparation(self) -> "Attack | None":
        """The attack with all settings that `prepare` does not read at some fixed value; None: nothing to share.

        Attacks of equal preparation can share what one of them prepared.
        """
        return None

    def prepare(self, oracle: Oracle, prior: Prior, seed: int) -> Common | None:  # noqa: ARG002
        """Compute what all classes share."""
        return None

    def search(self, oracle: Oracle, prior: Prior, part: Part, tell: Tell) -> Found:
        """The idea: the latents that the searches of one batch end at."""
        ...

    def judge(self, oracle: Oracle, images: Tensor, part: Part) -> Tensor:
        """The target's own confidence that the images of a part's rows show their classes, N in [0, 1]."""
        return confidence_of(oracle, images, part.rows(JUDGED))

    def run(
        self,
        oracle: Oracle,
        prior: Prior,
        classes: Tensor,
        rng: torch.Generator,
        watch: Watch | None = None,
        *,
        knowledge: Knowledge | None = None,
        common: Common | None = None,
        folder: Path | None = None,
    ) -> Reconstruction:
        """`keep` images of each class; what a class gets depends on (rng's seed, class) alone.

        `knowledge` is what the attack `needs`, `common` what `prepared` made with an equal rng. With a `folder`,
        finished batches are kept there; a run with the same arguments goes on from them.
        """
        began = time.monotonic()
        seed = seed_of(rng)
        classes = classes.cpu()
        check(self, oracle, prior, classes)
        check_knowledge(self, knowledge, oracle)
        keeper = Keeper(folder, (self, seed, classes, oracle, prior, knowledge), self.keep, self.sorted)
        # 1. what serves all classes alike
        given = common is not None
        if given and common.seed != seed:
            raise UserError("what is common to all classes was made with another seed; make it with the same rng")
        if not given:
            with batch_of(self.batch, "--attack.batch", oracle.device):
                common = self.prepare(oracle, prior, seed)
        # 2. and 3. batch by batch
        each, parts = self.searches, whole_batches(len(classes), self.searches, self._width)
        total = len(classes) * each * self.steps
        for rows in [piece for part in parts for piece in keeper.missing(part)]:
            which = torch.arange(rows.start, rows.stop)
            attempts = (which % each).to(oracle.device)
            part = Part(seed, classes[which // each].to(oracle.device), attempts, common, knowledge)

            def tell(step: int, rows: slice = rows, **numbers: float) -> None:
                if watch:
                    watch(rows.start * self.steps + step * (rows.stop - rows.start), total, **numbers)

            before, started = oracle.queries, time.monotonic()
            allowed = None if self.budget is None else self.budget * len(part) // each
            with oracle.at_most(allowed), batch_of(self.batch, "--attack.batch", oracle.device):
                kept = self._kept(oracle, prior, part, self.search(oracle, prior, part, tell))
            kept = kept.with_fields(queries=oracle.queries - before, seconds=time.monotonic() - started)
            keeper.add(rows, kept)
        # 4. all together
        found = keeper.together(classes)
        shared = common.queries if common else 0
        seconds = found.seconds if keeper.resumed else time.monotonic() - began
        silent = sorted(set(classes.tolist()) - set(found.classes.tolist()) - set(found.failures))
        return found.with_fields(
            queries=found.queries + shared,
            shared=shared,
            seconds=seconds,
            failures={**found.failures, **dict.fromkeys(silent, SILENT)},
            target=oracle.weights,
        )

    def prepared(self, oracle: Oracle, prior: Prior, rng: torch.Generator) -> Common | None:
        """What `prepare` makes for the run that has an equal rng."""
        refuse(unsuited(self, oracle.classes, prior))
        return self.prepare(oracle, prior, seed_of(rng))

    @property
    def _width(self) -> int:
        """Searches at a time."""
        return self.searches * self.group if self.searches <= self.batch else self.batch

    @torch.no_grad()
    def _kept(self, oracle: Oracle, prior: Prior, part: Part, found: Found) -> Reconstruction:
        """Step 3 for one batch: what was found, judged and as bytes, the best of each class alone."""
        classes = part.classes if found.classes is None else found.classes
        attempts = part.attempts if found.attempts is None else found.attempts
        redrawn = found.images is None and (found.drawn is None or prior.classes is None)
        side = prior.size if found.images is None else found.images.shape[-1]
        pixels, confidence = [torch.empty(0, 3, oracle.size, oracle.size, dtype=torch.uint8)], []
        large = [torch.empty(0, 3, side, side, dtype=torch.uint8)] if side > oracle.size and not redrawn else None
        for rows in torch.arange(len(classes), device=part.device).split(self.batch):
            mine = replace(part, classes=classes[rows], attempts=attempts[rows])
            drawn = mine.classes if found.drawn is None else found.drawn[rows]
            images = prior.decode(found.latents[rows], drawn) if found.images is None else found.images[rows]
            check_unit(images, "a prior that draws images")
            if not images.isfinite().all():
                raise UserError("the prior draws NaN or infinity: it diverged, or its weights are damaged")
            images = images.clamp(0, 1)
            if found.confidence is None:
                confidence.append(self.judge(oracle, images, mine).cpu())
            pixels.append(as_bytes(resized(images, oracle.size)))
            if large is not None:  # others are drawn again for a judge; these are nobody's to draw
                large.append(as_bytes(images))
        if found.confidence is None:
            confidence = torch.cat(confidence) if confidence else torch.empty(0)
        else:
            confidence = found.confidence.cpu()
        return Reconstruction(
            torch.cat(pixels),
            classes.cpu(),
            found.latents.detach().cpu(),
            confidence,
            attempts=attempts.cpu(),
            large=None if large is None else torch.cat(large),
            redrawn=redrawn,
            drawn_at=side if side > oracle.size else 0,
            asked=part.identities.cpu(),
            per_class={name: value.detach().cpu() for name, value in found.per_class.items()},
            failures=found.failures,
        ).kept_of_each(self.keep, self.sorted)


SILENT = "the attack returned no image of it, and no reason"
JUDGED = -1  # the step that the judging of what was found counts as


class ReturnsAll(Attack, Protocol):
    """An attack that returns every image that it makes, and picks none."""

    @property
    def keep(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Images of each class that are returned."""
        return self.attempts


def confidence_of(oracle: Oracle, images: Tensor, rows: Rows) -> Tensor:
    """The target's confidence that each image shows its row's class, N; of an oracle of labels, whether it says so."""
    if oracle.access == "labels":
        return (oracle.labels(images, rows) == rows.classes).float()
    return oracle.scores(images, rows).gather(1, rows.classes[:, None]).squeeze(1)


def complete(attack: object) -> None:
    """UserError, in one line, if an object lacks part of the protocol of attacks."""
    kind: Any = type(attack)
    if Attack not in kind.__mro__:
        raise UserError(
            f"{kind.__name__} is no attack: name lightleak.attacks.Attack as its base, which brings `run`, and give it "
            "search(oracle, prior, part, tell)"
        )
    missing = [name for name in ("access", "attempts", "keep", "steps", "batch") if not hasattr(attack, name)]
    missing += ["search(oracle, prior, part, tell)"] if kind.search is Attack.search else []
    if missing:
        raise UserError(f"the attack {kind.__name__} lacks {', '.join(missing)}")


def check(attack: Attack, oracle: Oracle, prior: Prior, classes: Tensor) -> None:
    """UserError (AccessError of an oracle that grants less) in one line if an attack cannot be run so, whatever it
    learns beforehand; no query has been spent by then.
    """
    complete(attack)
    name, problems = type(attack).__name__, []
    if not grants(oracle.access, attack.access):
        raise AccessError(f"this oracle grants {oracle.access} only; {name} asks for {attack.access}")
    if not len(classes):
        problems.append("there is no class to attack")
    elif classes.is_floating_point():
        problems.append(f"classes are whole numbers, not {str(classes.dtype).removeprefix('torch.')}")
    elif not 0 <= int(classes.min()) <= int(classes.max()) < oracle.classes:
        problems.append(
            f"the target has classes 0 to {oracle.classes - 1}, not {int(classes.min())} to {int(classes.max())}"
        )
    elif len(classes.unique()) < len(classes):
        problems.append("a class is named twice; it would count twice")
    refuse([*problems, *unsuited(attack, oracle.classes, prior)])


def unsuited(attack: Attack, classes: int, prior: Prior) -> list[str]:
    """Why a prior cannot serve an attack on a target of so many classes, a line each."""
    name, kind, needs, problems = type(attack).__name__, type(prior).__name__, attack.needs(), []
    if needs.classes and prior.classes is None:
        problems.append(
            f"{name} needs a prior that draws people of given classes, not {kind}; fit one for this "
            "target, by its gradients (training:plgmi) or labels (training:lokt)"
        )
    elif needs.classes and prior.classes != classes:
        problems.append(
            f"this prior draws {prior.classes} classes and the target has {classes}; it was made for another one"
        )
    if needs.classes is False and prior.classes is not None:
        problems.append(
            f"{name} searches a prior that knows no classes, and {kind} draws {prior.classes}; "
            "fit one of public images alone"
        )
    if needs.recogniser and not prior.recognises:
        problems.append(f"{name} asks its prior whom an image shows, and {kind} does not tell")
    if needs.realism and not prior.judges:
        problems.append(
            f"{name} asks its prior how real an image is, and this {kind} has no discriminator of the images that it "
            "draws; convert one from a file that holds D, without a crop"
        )
    if needs.blocks > prior.blocks > 0:
        problems.append(f"{name} has {needs.blocks} stages, a block each, and this prior has {prior.blocks} blocks")
    elif needs.blocks and not prior.blocks:
        problems.append(f"{name} stops between a prior's blocks, and {kind} has none; use a StyleGAN2")
    if needs.pixels and not prior.pixels:
        problems.append(f"{name} searches in the pixels themselves, not with {kind}; use --prior pixels")
    return problems


def check_knowledge(attack: Attack, knowledge: Knowledge | None, oracle: Oracle) -> None:
    """UserError if what an attack needs to have learnt is missing, of another target, or learnt with more access."""
    name, needs, problems = type(attack).__name__, attack.needs(), []
    if needs.knowledge and knowledge is None:
        source = "images that its prior draws" if needs.drawn else "public images"
        problems.append(f"{name} uses what it learnt from {source}; pass knowledge=learn(oracle, images, ...)")
    if knowledge is not None and not grants(attack.access, knowledge.access):
        problems.append(f"{name} is granted {attack.access}, but its knowledge is learnt from {knowledge.access}")
    if knowledge is not None and knowledge.target and knowledge.target != oracle.weights:
        problems.append(f"the knowledge that {name} is given was learnt of another target; learn(oracle, ...) anew")
    refuse(problems)


def grants(granted: Access, wanted: Access) -> bool:
    """Whether an oracle of one access gives what another asks for."""
    order = get_args(Access)
    return order.index(granted) <= order.index(wanted)


def weaker(one: Access, other: Access) -> Access:
    """The one of two that grants less."""
    return other if grants(one, other) else one


def group_of(each: int, batch: int) -> int:
    """How many identities of `each` images share a batch, at least one."""
    return max(1, batch // each)


def batches(count: int, batch: int) -> Iterator[slice]:
    """Consecutive slices of at most `batch`."""
    for start in range(0, count, batch):
        yield slice(start, min(start + batch, count))


def whole_batches(identities: int, each: int, batch: int) -> Iterator[slice]:
    """Slices of at most `batch` images: `group_of` whole identities, or an even part of one that is larger.

    So identities that are optimised together stay together in any shard that is cut between groups, and since
    kernels are chosen by the shape of a batch, each image comes out the same to the last bit.
    """
    size = group_of(each, batch) * each
    for start in range(0, identities * each, size):
        stop = min(start + size, identities * each)
        pieces = -(-(stop - start) // batch)
        for part in batches(stop - start, -(-(stop - start) // pieces)):
            yield slice(start + part.start, start + part.stop)
