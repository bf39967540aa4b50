"""What attacks and studies will need: memory and time on this device, from a few steps on it.

Memory grows linearly with the batch: the networks, and for each image of a batch what a step keeps for its gradient.
On CUDA both are what the card says of steps with one and with two images; elsewhere they are counted from the tensors
that the step saves, so a machine without a card can say what a card will need (its kernels' scratch space, about a
tenth, comes on top).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightleak import randomness
from lightleak.attacks import PPA, Oracle
from lightleak.attacks.surrogate import asked, teacher
from lightleak.data import faces
from lightleak.data.population import Images
from lightleak.data.views import resized, uniform
from lightleak.models import zoo
from lightleak.models.classifier import Classifier
from lightleak.place import Place, Precision, cards, here, lowered
from lightleak.priors import Prior
from lightleak.priors.fit import fit
from lightleak.study.amounts import Amount
from lightleak.study.pool import share_of_cores
from lightleak.study.task import Task
from lightleak.training import RECIPES
from lightleak.training.loop import layout_of, precision

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


def forecast(attack: PPA, prior: Prior, target: Classifier, people: int, precision: Precision = "float32") -> Forecast:
    """What PPA with these settings needs for so many people, of whom the target knows as many or others.

    A card takes as long to launch a step of one image as of many, so its steps are timed with the attack's batch, or
    with as much of that as fits.
    """
    place = here()
    prior, oracle = prior.lowered(precision), Oracle(target, precision=precision)
    rng = torch.Generator().manual_seed(0)
    latents = place.put(prior.sample(max(2, attack.batch if place.is_card else 0), rng))
    classes = torch.zeros(len(latents), dtype=torch.long, device=place.device)

    def step(count: int) -> Tensor:
        w = latents[:count].clone().requires_grad_()
        images = resized(prior.decode(w, classes[:count]), oracle.size)
        loss = F.cross_entropy(oracle.logits(images), classes[:count], reduction="sum")
        return torch.autograd.grad(loss, w)[0]

    def look(count: int, decoded: bool) -> None:
        with torch.no_grad():
            if decoded:
                images = resized(prior.decode(latents[:count], classes[:count]), oracle.size)
            else:
                images = torch.zeros(count, 3, oracle.size, oracle.size, device=place.device)
            oracle.scores(images)

    networks, image = _peaks(step, place) if place.device.type == "cuda" else _counted(step, prior, target)
    memory = place.memory()
    found = Forecast(networks, image, 0.0, attack.batch, memory and memory.free)
    fits = attack.batch if found.fits is None else found.fits
    count = max(1, min(attack.batch, fits)) if place.is_card else 1
    jobs = (lambda: step(count), lambda: look(count, True), lambda: look(count, False))
    descended, scored, seen = (timed(job) / count for job in jobs)
    each = attack.attempts * (attack.steps * descended + attack.views * seen)
    return replace(found, seconds=people * each + attack.candidates * (scored + seen))


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


# Studies --------------------------------------------------------------------------------------------------------------

PROCESSORS = 8 * 224**2  # pixels of a step of training at a time: a processor is as quick with few large images
GLANCE = 2 * 224**2  # and of a step of anything else
TIMED = 3  # steps that are timed, after one that is not
ENOUGH = 1.0  # seconds that one kind of steps may take to be timed
NOISE = 96  # images of noise that the fitting of a generator is timed on

Clock = Callable[[], float]


@dataclass
class Pace:
    """Seconds for an image of each kind of work on this device, measured once."""

    known: dict[Amount, float] = field(default_factory=dict)
    failed: dict[Amount, str] = field(default_factory=dict)  # why a kind could not be measured
    clock: Clock = time.perf_counter

    def seconds(self, amount: Amount) -> float | None:
        """Of the whole amount; None where its kind could not be measured."""
        kind = _at_a_time(amount)
        if kind not in self.known and kind not in self.failed:
            try:
                self.known[kind] = _pace(kind, self.clock)
            except Exception as error:  # an estimate must not stop anybody, whatever a network does
                self.failed[kind] = " ".join(str(error).split())[:120]
            here().tidy()
        return None if kind in self.failed else self.known[kind] * amount.images


def expected(
    tasks: Iterable[Task],
    pace: Pace | None = None,
    watch: Callable[..., None] = lambda *_, **__: None,
    workers: int = 1,
) -> dict[str, float]:
    """Seconds by key of those tasks that say what they repeat, from a few steps of each kind on this device.

    Of so many processes at a time, each with its share of the cores, and slowed down by the others.
    """
    pace = pace or Pace()
    said = {task.key: task.amounts() for task in tasks}
    kinds = list(dict.fromkeys(_at_a_time(amount) for amounts in said.values() for amount in amounts))
    with _threads_of(workers):
        for place, kind in enumerate(kinds):
            pace.seconds(kind)
            watch(place + 1, len(kinds))
        slower = crowding(workers, pace.clock) if kinds else 1.0
    found = {}
    for key, amounts in said.items():
        parts = [pace.seconds(amount) for amount in amounts]
        if parts and all(part is not None for part in parts):
            found[key] = slower * sum(part for part in parts if part is not None)
    return found


def crowding(workers: int, clock: Clock = time.perf_counter) -> float:
    """How many times as long a step takes when so many processes compute at once, from 1 to their number.

    Cores share memory and, where two of them are one, their arithmetic; what shares a card shares all of it.
    """
    if workers < 2:
        return 1.0
    if here().is_card:
        return max(1.0, workers / max(1, len(cards(here().device.type))))
    images, weights = torch.rand(8, 64, 48, 48), torch.rand(64, 64, 3, 3)

    def convolve(_: int = 0) -> float:
        began = clock()
        with torch.no_grad():
            for _ in range(TIMED):
                F.conv2d(images, weights, padding=1)
        return clock() - began

    alone = min(convolve() for _ in range(TIMED))
    with ThreadPoolExecutor(workers) as crowd:
        together = median(crowd.map(convolve, range(2 * workers)))
    return min(max(1.0, together / alone), float(workers)) if alone > 0 else 1.0


@contextmanager
def _threads_of(workers: int) -> Iterator[None]:
    """Compute as one of so many processes of a run does."""
    before = torch.get_num_threads()
    if workers > 1:
        torch.set_num_threads(share_of_cores(workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _at_a_time(amount: Amount) -> Amount:
    """The same with as many images at a time as it is measured with."""
    if here().is_card or amount.kind in ("fit", "rest"):
        return amount
    pixels = PROCESSORS if amount.kind == "train" else GLANCE
    return replace(amount, batch=min(amount.batch, max(2, pixels // (amount.size or 224) ** 2)))


def _pace(amount: Amount, clock: Clock) -> float:
    """Seconds for an image (of "fit": for the whole, of "rest": for a second)."""
    place, count = here(), amount.batch
    with randomness.own(0, place.device):
        if amount.kind == "rest":
            return 1.0
        if amount.kind == "fit":
            return _fit_pace(amount, clock)
        if amount.kind == "paint":
            return timed(_painting(amount), clock) / count
        classifier = zoo.build(amount.architecture, amount.classes, amount.size)
        side = amount.size or classifier.size
        labels = torch.arange(count, device=place.device) % amount.classes
        pixels = torch.rand(count, 3, side, side, device=place.device)
        prior = amount.sketch() if amount.sketch else None
        latents = place.put(prior.sample(count, torch.Generator().manual_seed(0))) if prior else None
        jobs = {"train": _training, "look": _looking, "search": _searching}
        job = jobs[amount.kind](amount, classifier, pixels, labels, prior, latents)
        return timed(job, clock) / count


def _painting(amount: Amount) -> Callable[[], None]:
    factors = faces.sample_factors(amount.batch, torch.Generator().manual_seed(0))

    def paint() -> None:
        for _ in faces.paint(0, "train", factors, 1, amount.size or 64):
            pass

    return paint


def _training(amount: Amount, classifier: Classifier, pixels: Tensor, labels: Tensor, *_: Any) -> Callable[[], None]:
    recipe = replace(RECIPES["rolss"], precision=amount.precision, **({"view": amount.view} if amount.view else {}))  # pyright: ignore[reportArgumentType]
    layout = layout_of(classifier.net, pixels.device)
    classifier.net.to(memory_format=layout).train()  # pyright: ignore[reportCallIssue]
    optimiser = recipe.optimising(classifier.parameters())
    dtype = "bfloat16" if precision(recipe, pixels.device) else "float32"
    draws = uniform(len(pixels), torch.Generator().manual_seed(0)).to(pixels.device)

    def step() -> None:
        seen = recipe.view(pixels, draws).contiguous(memory_format=layout)
        with lowered(dtype, pixels.device):
            loss = F.cross_entropy(classifier(seen), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


def _looking(
    amount: Amount,  # noqa: ARG001
    classifier: Classifier,
    pixels: Tensor,
    labels: Tensor,
    prior: Prior | None,
    latents: Tensor | None,
) -> Callable[[], None]:
    oracle = Oracle(classifier.eval())

    @torch.no_grad()
    def look() -> None:
        shown = pixels if prior is None or latents is None else prior.decode(latents, labels)
        oracle.scores(resized(shown, oracle.size))

    return look


def _searching(
    amount: Amount,  # noqa: ARG001
    classifier: Classifier,
    pixels: Tensor,
    labels: Tensor,
    prior: Prior | None,
    latents: Tensor | None,
) -> Callable[[], None]:
    oracle = Oracle(classifier.eval())
    start = (pixels if latents is None else latents).clone().requires_grad_()

    def step() -> None:
        shown = start if prior is None else prior.decode(start, labels)
        loss = F.cross_entropy(oracle.logits(resized(shown, oracle.size)), labels, reduction="sum")
        torch.autograd.grad(loss, start)

    return step


def _fit_pace(amount: Amount, clock: Clock) -> float:
    """The whole fit: steps of the warm-up and of the others, each as what three take longer than one."""
    settings = amount.fit
    if settings is None:
        raise ValueError("no settings of a fit")
    side, generator = amount.size or 64, torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NOISE, 3, side, side), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(NOISE))
    target = None
    if settings.needs_target:
        target = asked(teacher(zoo.build(amount.architecture, amount.classes, amount.size).eval(), settings), settings)
    brief = {name: value for name, value in (("plain", 0),) if hasattr(settings, name)}

    def taken(warmup: int, steps: int) -> float:
        began = clock()
        fit(images, replace(settings, warmup=warmup, steps=steps, **brief), target=target)  # pyright: ignore[reportArgumentType]
        here().wait()
        return clock() - began

    least = min(1, settings.warmup)
    taken(least, 1)  # not counted
    start, steps = taken(least, 1), taken(least, 3)
    warmup = taken(3, 1) - start if settings.warmup else 0.0
    return start + settings.steps * max(0.0, steps - start) / 2 + settings.warmup * max(0.0, warmup) / 2


def timed(job: Callable[[], Any], clock: Clock = time.perf_counter) -> float:
    """Median seconds of a job on this device, after one that is not counted; fewer where they take long."""
    place, taken = here(), list[float]()
    while len(taken) < 2 or (len(taken) <= TIMED and sum(taken) < ENOUGH):
        place.wait()
        began = clock()
        job()
        place.wait()
        taken.append(clock() - began)
    return median(taken[1:])
