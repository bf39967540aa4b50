"""The only access of an attack to a target: what the threat model grants, and how often it was used."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lightleak.attacks.draws import Rows
from lightleak.attacks.guards import Guard
from lightleak.attacks.noise import content_seeds, is_noisy, keyed_noise
from lightleak.errors import UserError
from lightleak.fingerprint import weights_of
from lightleak.models.classifier import Classifier
from lightleak.models.wrap import say
from lightleak.place import Precision, lowered
from lightleak.ranking import named
from lightleak.surgery.copies import copied

Access = Literal["gradients", "scores", "labels"]
SAME = 1e-2  # of the largest logit: more than sums in another order make, or a lower precision


class AccessError(PermissionError):
    """An attack asked for more than its threat model grants."""


class BudgetError(RuntimeError):
    """An attack asked more often than its budget of queries allows."""


class Oracle:
    """What an attacker may ask of a target; every image shown counts as one query.

    The target is copied and prepared in this one place (eval mode, frozen, channels_last), so that an attack can
    neither change it nor leave gradients behind. With `batch_statistics` it answers as in training (batch norms
    see the current batch, dropout is on), as some published code has it by accident.

    A `guard` stands between target and attacker: scores and labels are what it gives out, gradients there are none.
    `queries` counts what the attacker asked, `passes` what the target was shown for it.

    Where a target draws random numbers (MID, dropout), an answer depends on the image's row alone: say with `rows`
    whose image it is. Without, the same image gets the same answer. The process's generators do not move. A target
    that answers an image otherwise in other company is asked for one image at a time, which is said and slower.

    Two ways to be faster are off unless asked for, since answers then differ a little: `precision` "bfloat16" lets
    convolutions and products run in that precision (answers are float32 all the same), `compiled` has torch.compile
    prepare the network (not one that draws random numbers).
    """

    def __init__(
        self,
        target: Classifier,
        access: Access = "gradients",
        *,
        guard: Guard | None = None,
        batch_statistics: bool = False,
        precision: Precision = "float32",
        compiled: bool = False,
    ) -> None:
        if access not in get_args(Access):
            raise UserError(f"access is one of {', '.join(get_args(Access))}, not {access!r}")
        if precision not in get_args(Precision):
            raise UserError(f"precision is one of {', '.join(get_args(Precision))}, not {precision!r}")
        if guard is not None and access != "labels" and (access == "gradients" or guard.labels):
            gives = "labels" if guard.labels else "scores"
            raise UserError(f"behind {type(guard).__name__} there are {gives}, not {access}; open the oracle with them")
        self.precision: Precision = precision
        self.access: Access = access
        self.guard = guard
        self.queries = 0
        self.passes = 0
        self._last: int | None = None  # the query that a budget ends with
        self.classes = target.classes
        self.size = target.size
        self._statistics = batch_statistics
        self._target = copied(target).train(batch_statistics).requires_grad_(False)
        self._target.net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.noisy = is_noisy(self._try, self.device)
        self.alone = not batch_statistics and not self._separate()  # whether images are asked one at a time
        if compiled and not self.noisy and not self.alone:
            self._target.net.compile()

    @property
    def device(self) -> torch.device:
        """Where the target is; images come from there, and so do answers."""
        return self._target.device

    def logits(self, images: Tensor, rows: Rows | None = None) -> Tensor:
        """Logits N x classes that gradients flow through; AccessError unless access is "gradients"."""
        self._grant("gradients")
        self._count(len(images))
        return self._passing(images, self._answer(images, rows))

    def features(self, images: Tensor, rows: Rows | None = None) -> tuple[Tensor, Tensor]:
        """Penultimate features and logits, both differentiable; AccessError unless access is "gradients"."""
        self._grant("gradients")
        self._count(len(images))
        features, logits = self._outputs(self._target.features_and_logits, images, rows)
        return features.float(), self._passing(images, logits.float())

    @torch.no_grad()
    def scores(self, images: Tensor, rows: Rows | None = None) -> Tensor:
        """Probabilities N x classes, detached; AccessError if only labels are granted."""
        self._grant("scores")
        return self._given_out(images, rows)

    @torch.no_grad()
    def labels(self, images: Tensor, rows: Rows | None = None) -> Tensor:
        """The class of the largest logit, N; -1 where there is no answer: a guard gives none, or rounds all
        alike, or a number is none.
        """
        given = self._given_out(images, rows)
        return named(given) if given.dim() == 2 else given

    @contextmanager
    def at_most(self, queries: int | None) -> Iterator[None]:
        """While it lasts, more than so many queries raise BudgetError before they are answered; None: no bound."""
        before, self._last = self._last, None if queries is None else self.queries + queries
        try:
            yield
        finally:
            self._last = before

    def settings(self) -> dict[str, Any]:
        """How it answers, apart from the target's weights."""
        return {
            "access": self.access,
            "guard": repr(self.guard),
            "batch_statistics": self._statistics,
            "precision": self.precision,
            "target": self._target.recipe,
        }

    def state(self) -> dict[str, Tensor]:
        """The target's weights, to tell one target from another; no attack reads them."""
        return self._target.net.state_dict()

    @cached_property
    def weights(self) -> str:
        """The mark of the target's weights, by which an evaluation tells a judge that is the target."""
        return weights_of(self._target.net)

    def _given_out(self, images: Tensor, rows: Rows | None) -> Tensor:
        """Probabilities, or whatever the guard makes of them."""
        if self.guard is None:
            self._count(len(images))
            return self._answer(images, rows).softmax(1)
        copies = self.guard.copies
        self._count(len(images), copies)
        seeds = torch.tensor(rows.seeds() if rows is not None else content_seeds(images), dtype=torch.int64)
        shown = self.guard.inputs(images, seeds)
        theirs = rows.repeated(copies) if rows is not None and copies > 1 else rows
        probabilities = self._answer(shown, theirs).softmax(1)
        if copies > 1:
            probabilities = probabilities.unflatten(0, (len(images), copies))
        return self.guard.answer(probabilities, images, seeds)

    def _answer(self, images: Tensor, rows: Rows | None) -> Tensor:
        (logits,) = self._outputs(lambda ready: (self._target(ready),), images, rows)
        return logits.float()

    def _outputs(
        self, answer: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, rows: Rows | None
    ) -> tuple[Tensor, ...]:
        """What the network makes of images, laid out as it likes them, each with random numbers of its own."""
        if rows is not None and len(rows) != len(images):
            raise UserError(f"{len(images)} images were shown with {len(rows)} rows; each image belongs to one")
        with lowered(self.precision, images.device):
            ready = images.contiguous(memory_format=torch.channels_last)
            if not self.noisy and not self.alone:
                return answer(ready)
            seeds = content_seeds(images) if rows is None else rows.seeds()
            groups = zip(ready.split(1), ([seed] for seed in seeds)) if self.alone else [(ready, seeds)]
            return tuple(map(torch.cat, zip(*(self._keyed(answer, *group) for group in groups))))

    def _keyed(
        self, answer: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, seeds: Sequence[int]
    ) -> tuple[Tensor, ...]:
        with keyed_noise(seeds, images.device):
            return answer(images)

    def _passing(self, images: Tensor, logits: Tensor) -> Tensor:
        """The logits; UserError if no gradient flows through them to images that want one."""
        if torch.is_grad_enabled() and images.requires_grad and not logits.requires_grad:
            raise UserError(
                f"{type(self._target.net).__name__} lets no gradient through to its images (it detaches or rounds "
                "inside); take an attack that sees scores or labels"
            )
        return logits

    @torch.no_grad()
    def _try(self) -> Tensor:
        """Two images: what tells whether the target draws random numbers."""
        return self._target(self._two_images())

    def _two_images(self) -> Tensor:
        return torch.rand(2, 3, self.size, self.size, generator=torch.Generator().manual_seed(0)).to(self.device)

    @torch.no_grad()
    def _separate(self) -> bool:
        """Whether an image gets the same answer in company as alone; if not, that is said."""
        together = self._keyed(lambda images: (self._target(images),), self._two_images(), (1, 2))[0][1:]
        alone = self._keyed(lambda images: (self._target(images),), self._two_images()[1:], (2,))[0]
        name = self._target.architecture or type(self._target.net).__name__
        if together.isfinite().all() and not alone.isfinite().all():
            say(f"{name} answers no single image: what it says of one depends on the batch")
            return True
        if not alone.isfinite().all() or (together - alone).abs().max() <= SAME * alone.abs().max().clamp_min(1e-6):
            return True
        say(f"{name} answers an image otherwise in other company: it is asked for one image at a time")
        return False

    def _count(self, images: int, copies: int = 1) -> None:
        if self._last is not None and self.queries + images > self._last:
            raise BudgetError(f"{images} more queries were asked where {self._last - self.queries} are left")
        self.queries += images
        self.passes += images * copies

    def _grant(self, wanted: Access) -> None:
        order = get_args(Access)
        if order.index(self.access) > order.index(wanted):
            raise AccessError(f"this oracle grants {self.access} only; the attack asked for {wanted}")
