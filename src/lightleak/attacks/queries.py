"""What attacks share that search by queries alone: what a target says of samples and candidates, and at what cost."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightleak.attacks.draws import Rows
from lightleak.attacks.frame import Attack, Common, Needs, Part, ReturnsAll
from lightleak.attacks.oracle import Oracle
from lightleak.attacks.steps import CANDIDATES
from lightleak.data.views import resized
from lightleak.priors.prior import Prior

CACHED = 32  # images at a time on a processor: of 256 each takes about 1.4 times as long (benchmarks/blackbox.py)
POINTS = 200  # of a curve, at most: what is recorded of a search must not grow with its budget

Ask = Callable[[Tensor, Rows], Tensor]  # what a target says of images, whose rows are these


class ByQueries(ReturnsAll):
    """A search by queries alone: its attempts share an exact budget evenly, and each of them returns its best."""

    queries: int  # for each class

    @property
    def budget(self) -> int:
        """Queries for each identity."""
        return self.queries

    @property
    def each(self) -> int:
        """Queries for each search."""
        return self.queries // self.attempts

    def needs(self) -> Needs:
        """A prior that knows no classes: whose would its samples be otherwise?"""
        return Needs(classes=False)


@torch.no_grad()
def answers_to(ask: Ask, oracle: Oracle, prior: Prior, latents: Tensor, rows: Rows, batch: int) -> Tensor:
    """What `ask` says of the images of latents N x L, N x ..., so many images at a time; on a processor no more than
    its cache holds, since beyond that each image takes longer.
    """
    said, batch = [], batch if latents.device.type != "cpu" else min(batch, CACHED)
    for index in torch.arange(len(latents), device=latents.device).split(batch):
        images = prior.decode(latents[index]).clamp(0, 1)
        said.append(ask(resized(images, oracle.size), rows.at(index)))
    return torch.cat(said)


def confidence_in(oracle: Oracle) -> Ask:
    """The target's confidence that images show their rows' classes, N; no number counts as no confidence."""

    def ask(images: Tensor, rows: Rows) -> Tensor:
        return oracle.scores(images, rows).gather(1, rows.classes[:, None]).squeeze(1).nan_to_num(nan=0.0)

    return ask


def table_of(ask: Ask, oracle: Oracle, prior: Prior, count: int, seed: int, batch: int, kappa: float | None) -> Common:
    """Samples of the prior (`latents`, M x L) and what the target says of them (`said`, M x ...), for all classes.

    With `kappa` they are moved into the prior's box first.
    """
    asked = oracle.queries
    latents = prior.sample(count, torch.Generator().manual_seed(seed))
    if kappa is not None:
        low, high = (end.to(latents.device) for end in prior.box(kappa))
        latents = latents.clamp(low, high)
    there = torch.arange(count, device=oracle.device)
    rows = Rows(seed, torch.zeros_like(there), there, CANDIDATES)
    said = answers_to(ask, oracle, prior, latents.to(oracle.device), rows, batch)
    return Common({"latents": latents.cpu(), "said": said.cpu()}, seed, oracle.queries - asked)


def box_for(prior: Prior, kappa: float, part: Part) -> tuple[Tensor, Tensor]:
    """Lower and upper ends of the prior's box, where the searches are."""
    low, high = prior.box(kappa)
    return low.to(part.device), high.to(part.device)


class Curve:
    """How far each class has come with how many queries, recorded at most `POINTS` times in `rounds` rounds."""

    def __init__(self, part: Part, rounds: int) -> None:
        self.place, self.classes = part.place, len(part.identities)
        self.at = set(torch.linspace(0, rounds, min(rounds + 1, POINTS)).round().int().tolist())
        self.points: list[Tensor] = []
        self.latest = torch.empty(0)

    def add(self, number: int, spent: Tensor, reached: Tensor) -> None:
        """After round `number`, from 0 to `rounds`: queries spent by each search, and the best that it has, N each."""
        queries = torch.zeros(self.classes, device=spent.device).index_add(0, self.place, spent.float())
        best = torch.full_like(queries, -torch.inf).scatter_reduce(0, self.place, reached.float(), "amax")
        self.latest = torch.stack([queries, best], 1)
        if number in self.at:
            self.points.append(self.latest)

    def table(self) -> Tensor:
        """C x P x 2: queries and the best so far; where all searches ended early, they stay where they ended."""
        missing = len(self.at) - len(self.points)
        return torch.stack([*self.points, *[self.latest] * missing], 1)


def too_small(attack: Attack, queries: int, least: int, searches: int) -> list[str]:
    """What is wrong with a budget of queries for each class, of which each of its searches needs so many at least."""
    name = attack.title or type(attack).__name__
    if queries % searches:
        return [f"{queries} queries cannot be shared evenly by {searches} attempts; take a multiple"]
    if queries // searches < least:
        each = f" for each of {searches} attempts" if searches > 1 else ""
        return [f"{queries} queries a class are too few: {name} needs at least {least}{each}"]
    return []
