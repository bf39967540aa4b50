"""The rendered world: populations of painted people whose identity factors are known."""

import inspect
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lightleak.data.factors import CIRCUMSTANCES, FACTORS, Factor
from lightleak.data.population import Images, Population, as_bytes
from lightleak.data.portrait import LARGEST, SMALLEST, render
from lightleak.errors import UserError
from lightleak.place import here
from lightleak.randomness import named

__all__ = [
    "CIRCUMSTANCES",
    "DIFFICULTIES",
    "FACTORS",
    "Factor",
    "canonical",
    "families",
    "identity",
    "population",
    "render",
    "sample_circumstances",
    "sample_factors",
]

# Settings of `population` that belong together.
DIFFICULTIES: dict[str, dict[str, Any]] = {
    "easy": {"images": 30, "lookalikes": 1, "strength": 0.5, "noise": 0.02},
    "hard": {"images": 12, "lookalikes": 4, "jitter": 0.35, "strength": 1.0, "noise": 0.05},
    "harder": {"images": 16, "lookalikes": 8, "jitter": 0.30, "strength": 1.0, "noise": 0.05},
}
MOST_PEOPLE, MOST_IMAGES = 1_000_000, 10_000_000  # more would take weeks
BATCH = 64  # portraits painted at once


def sample_factors(count: int, rng: torch.Generator) -> Tensor:
    """Identities drawn evenly from [-1, 1]^F: count x F."""
    return torch.rand(count, len(FACTORS), generator=rng, device=rng.device) * 2 - 1


def sample_circumstances(count: int, rng: torch.Generator, strength: float = 1.0) -> Tensor:
    """Circumstances drawn normally with `strength` as standard deviation: count x K."""
    return torch.randn(count, len(CIRCUMSTANCES), generator=rng, device=rng.device) * strength


def canonical(factors: Tensor, size: int = 64) -> Tensor:
    """Portraits in neutral circumstances: N x 3 x size x size in [0, 1], differentiable."""
    return render(factors, None, size)


def check(**settings: Any) -> None:
    """UserError, before anything is painted, that says all that is wrong with settings of `population`."""
    said = inspect.signature(population).bind_partial(**settings)
    said.apply_defaults()
    it = SimpleNamespace(**said.arguments)
    counts = ("images", "public_people", "public_images", "validation_images", "test_images", "judge_images")
    few = {name: said.arguments[name] for name in counts if said.arguments[name] < 1}
    problems = [f"{name} must be at least 1, not {value}" for name, value in few.items()]
    if it.people < 2:
        problems.append(f"people must be at least 2, since a classifier tells people apart, not {it.people}")
    if not SMALLEST <= it.size <= LARGEST:
        problems.append(f"size must be {SMALLEST} to {LARGEST} pixels, not {it.size}")
    if it.lookalikes < 1 or it.people % it.lookalikes:
        next_up = f"; {it.lookalikes * -(-it.people // it.lookalikes)} people would do" if it.lookalikes > 1 else ""
        problems.append(f"lookalikes must divide the {it.people} people into clusters, not {it.lookalikes}{next_up}")
    if it.lookalikes > 1 and not 0 < it.jitter <= 2:
        problems.append(f"jitter must be above 0 and at most 2, or look-alikes are one person, not {it.jitter}")
    if not 0 <= it.strength <= 3:
        problems.append(f"strength must be from 0 to 3, not {it.strength}")
    if not 0 <= it.noise <= 0.5:
        problems.append(f"noise must be from 0 to 0.5 (of a pixel range of 1), not {it.noise}")
    private = it.people * (it.images + it.validation_images + it.test_images + it.judge_images)
    drawn = private + it.public_people * it.public_images
    if max(it.people, it.public_people) > MOST_PEOPLE or drawn > MOST_IMAGES:
        problems.append(f"at most {MOST_PEOPLE:,} people and {MOST_IMAGES:,} images are painted, not {drawn:,} images")
    if problems:
        raise UserError("the rendered faces cannot be drawn: " + "; ".join(problems))


def population(
    people: int = 40,
    images: int = 16,
    size: int = 64,
    lookalikes: int = 1,
    jitter: float = 0.45,
    strength: float = 1.0,
    noise: float = 0.05,
    public_people: int = 200,
    public_images: int = 5,
    validation_images: int = 4,
    test_images: int = 10,
    judge_images: int = 40,
    seed: int = 0,
    watch: Callable[..., None] | None = None,
) -> Population:
    """A rendered population: `people` private identities, `public_people` others, and their factors as truth.

    `images` (training), `validation_images`, `test_images` and `judge_images` are per private person, each
    painted in circumstances of its own with standard deviation `strength`, plus pixel noise with standard
    deviation `noise` (of 1). `lookalikes` people share a cluster: a centre plus `jitter` times normal noise,
    mirrored back into [-1, 1], so that every factor stays evenly distributed. Each person and each image has
    its own random stream and so does not depend on how many others there are. `watch(done, total=...)` hears
    of progress. Raises UserError for settings that cannot be.
    """
    check(
        people=people, lookalikes=lookalikes, images=images, size=size, jitter=jitter, strength=strength, noise=noise,
        public_people=public_people, public_images=public_images, validation_images=validation_images,
        test_images=test_images, judge_images=judge_images,
    )  # fmt: skip

    private = torch.stack([_identity(seed, "private", i, lookalikes, jitter) for i in range(people)])
    public = torch.stack([_identity(seed, "public", i, 1, 0.0) for i in range(public_people)])
    wanted = {
        "train": (private, images),
        "validation": (private, validation_images),
        "test": (private, test_images),
        "judge": (private, judge_images),
        "public": (public, public_images),
    }
    total = sum(len(factors) * count for factors, count in wanted.values())
    done = 0
    sets: dict[str, Images] = {}
    for split, (factors, count) in wanted.items():
        parts = []
        for painted in paint(seed, split, factors, count, size, strength, noise):
            parts.append(painted)
            done += len(painted)
            if watch is not None:
                watch(done, total=total)
        labels = torch.arange(len(factors)).repeat_interleave(count)
        sets[split] = Images(torch.cat(parts), labels)
    names = tuple(f"person {i:03d}" for i in range(people))
    members, centres = families(people, lookalikes, seed) or (None, None)
    return Population(
        name="faces",
        class_names=names,
        train=sets["train"],
        validation=sets["validation"],
        test=sets["test"],
        judge=sets["judge"],
        public=sets["public"],
        factors=private,
        public_factors=public,
        families=members,
        family_factors=centres,
    )


def families(people: int = 40, lookalikes: int = 1, seed: int = 0, **_: Any) -> tuple[Tensor, Tensor] | None:
    """The family of each person (C) and the centre of each family (families x F); None without lookalikes.

    Takes the settings of `population`, so that a population that was stored without its families can be told them.
    """
    if lookalikes == 1:
        return None
    first = range(0, people, lookalikes)
    return torch.arange(people) // lookalikes, torch.stack([_centre(seed, "private", i, lookalikes) for i in first])


def identity(seed: int, person: int, lookalikes: int = 1, jitter: float = 0.45) -> Tensor:
    """The factors of one private person of `population`, F."""
    return _identity(seed, "private", person, lookalikes, jitter)


def _centre(seed: int, kind: str, person: int, lookalikes: int) -> Tensor:
    """The factors around which the family of this person lies."""
    return sample_factors(1, named(seed, kind, "cluster", person // lookalikes))[0]


def _identity(seed: int, kind: str, person: int, lookalikes: int, jitter: float) -> Tensor:
    """The factors of one person: the centre of the cluster, and the distance from it."""
    if lookalikes == 1:
        return sample_factors(1, named(seed, kind, person))[0]
    away = _centre(seed, kind, person, lookalikes) + jitter * torch.randn(
        len(FACTORS), generator=named(seed, kind, person)
    )
    return 1 - ((away + 1) % 4 - 2).abs()  # reflected at -1 and 1 as often as needed


@torch.no_grad()
def paint(
    seed: int, split: str, factors: Tensor, count: int, size: int, strength: float = 1.0, noise: float = 0.05
) -> Iterator[Tensor]:
    """Bytes of `count` images of each person in turn, BATCH at a time."""
    for start in range(0, len(factors) * count, BATCH):
        indices = range(start, min(start + BATCH, len(factors) * count))
        streams = [named(seed, split, i // count, i % count) for i in indices]
        circumstances = torch.cat([sample_circumstances(1, stream, strength) for stream in streams])
        grain = torch.stack([torch.randn(3, size, size, generator=stream) for stream in streams])
        people = factors[torch.tensor(indices) // count]
        put = here().put  # what is random is drawn on the processor, everywhere alike
        yield as_bytes(render(put(people), put(circumstances), size) + put(noise * grain))
