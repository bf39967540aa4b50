"""What an attack will need: memory and time on this device, from one step on it.

Memory grows linearly with the batch: the networks, and for each image of a batch what a step keeps for its gradient.
On CUDA both are what the card says of steps with one and with two images; elsewhere they are counted from the tensors
that the step saves, so a machine without a card can say what a card will need (its kernels' scratch space, about a
tenth, comes on top).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak.attacks import PPA, Oracle
from lightleak.data.views import resized
from lightleak.models.classifier import Classifier
from lightleak.place import Place, here
from lightleak.priors import Prior

SPARE = 0.9  # of what is free, to be filled at most


@dataclass(frozen=True)
class Forecast:
    """What one attack on all people of a target will need."""

    networks: int  # bytes, whatever the batch
    image: int  # bytes that a step keeps for each image of a batch
    seconds: float  # of the whole attack
    batch: int  # the attack's
    free: int | None  # bytes that are free on this device; None if unknown

    @property
    def memory(self) -> int:
        """Bytes that a step with the attack's batch holds."""
        return self.networks + self.batch * self.image

    @property
    def fits(self) -> int | None:
        """The largest batch that fits into what is free; None if that is unknown."""
        return None if self.free is None else max(0, int((SPARE * self.free - self.networks) / max(1, self.image)))


def forecast(attack: PPA, prior: Prior, target: Classifier, people: int) -> Forecast:
    """What PPA with these settings needs for so many people, of whom the target knows as many or others."""
    place = here()
    oracle = Oracle(target)
    rng = torch.Generator().manual_seed(0)
    latents = place.put(prior.sample(2, rng))
    classes = torch.zeros(2, dtype=torch.long, device=place.device)

    def step(count: int) -> Tensor:
        w = latents[:count].clone().requires_grad_()
        images = resized(prior.decode(w, classes[:count]), oracle.size)
        loss = F.cross_entropy(oracle.logits(images), classes[:count], reduction="sum")
        return torch.autograd.grad(loss, w)[0]

    def look(decoded: bool) -> None:
        with torch.no_grad():
            if decoded:
                images = resized(prior.decode(latents[:1], classes[:1]), oracle.size)
            else:
                images = torch.zeros(1, 3, oracle.size, oracle.size, device=place.device)
            oracle.scores(images)

    networks, image = _peaks(step, place) if place.device.type == "cuda" else _counted(step, prior, target)
    jobs = (lambda: step(1), lambda: look(True), lambda: look(False))
    descended, scored, seen = (_seconds(job, place) for job in jobs)
    each = attack.attempts * (attack.steps * descended + attack.views * seen)
    memory = place.memory()
    return Forecast(
        networks, image, people * each + attack.candidates * (scored + seen), attack.batch, memory and memory.free
    )


def _peaks(step: Callable[[int], Any], place: Place) -> tuple[int, int]:
    """Bytes of networks and of each image, by what a card says of steps with one and with two."""
    peaks = []
    for count in (1, 2):
        step(count)
        place.tidy()
        torch.cuda.reset_peak_memory_stats(place.device)
        step(count)
        peaks.append(torch.cuda.max_memory_allocated(place.device))
    image = max(1, peaks[1] - peaks[0])
    return max(0, peaks[0] - image), image


def _counted(step: Callable[[int], Any], prior: Prior, target: Classifier) -> tuple[int, int]:
    """The same, by the tensors that a step with one image saves for its gradient."""
    parts = [part for part in vars(prior).values() if isinstance(part, torch.nn.Module)]
    weights = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for part in (*parts, target)
        for tensor in (*part.parameters(), *part.buffers())
    }
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    sizes = []
    for count in (1, 2):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            step(count)
        sizes.append(sum(size for where, size in kept.items() if where not in weights))
    return sum(weights.values()), max(1, sizes[1] - sizes[0])


def _seconds(job: Callable[[], Any], place: Place) -> float:
    """Wall seconds of a job, the better of two after one that is not counted."""
    taken = []
    for _ in range(3):
        place.wait()
        began = time.perf_counter()
        job()
        place.wait()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])
