"""What a training of priors keeps on disk, and what its steps share: batches, running averages, one optimiser step."""

import json
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from lightleak import ranking
from lightleak.data.population import Images, as_bytes
from lightleak.errors import StaleState, UserError
from lightleak.files import check_folder, publish
from lightleak.fingerprint import check_made, told

Logits = Callable[[Tensor], Tensor]  # a target: images N x 3 x S x S in [0, 1] to logits N x C, differentiable


class Asked(nn.Module):
    """A target whose queries are counted, across stops as well: the count is kept among the networks of a training."""

    queries: Tensor

    def __init__(self, target: Logits, each: int = 1) -> None:
        super().__init__()
        self.target = (target,)  # none of its weights are this training's
        self.each = each  # queries that an image costs
        self.register_buffer("queries", torch.zeros((), dtype=torch.int64))

    def forward(self, images: Tensor) -> Tensor:
        self.queries += len(images) * self.each
        return self.target[0](images)

    @property
    def count(self) -> int:
        """Number of queries that it was asked."""
        return int(self.queries)


class State:
    """Networks, optimisers, the random generator and the step of one training; `save` and `resume` make it last.

    A checkpoint holds everything that decides what comes next, so a training that was stopped goes on to the same
    result. One of other images, settings or another seed is refused.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        optimisers: Mapping[str, Optimizer],
        rng: torch.Generator,
        folder: Path | None,
        recipe: str,
    ) -> None:
        self.networks, self.optimisers, self.rng, self.recipe = networks, optimisers, rng, recipe
        self.path = None if folder is None else Path(folder) / "checkpoint.safetensors"
        self.step = 0

    def save(self) -> None:
        """Write the checkpoint, whole or not at all; without a folder, nothing."""
        if self.path is None:
            return
        tensors = {"rng": self.rng.get_state()}
        for part, network in self.networks.items():
            tensors |= {f"{part}/{name}": value for name, value in network.state_dict().items()}
        for part, optimiser in self.optimisers.items():
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"{part}/{index}/{name}": value for name, value in state.items()}
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        metadata = {"step": str(self.step), "recipe": self.recipe}
        publish(self.path, lambda part: save_file(tensors, part, metadata=metadata), "the training state")

    def run(
        self,
        step: Callable[[int], dict[str, float]],
        last: int,
        every: int,
        watch: Callable[..., None] | None,
        kept: Callable[[], None] | None = None,
    ) -> None:
        """Call `step(index)` from the current step up to `last`, and save a checkpoint every `every` steps.

        `watch(steps, last, **numbers)` gets what each step returns; `kept()` is called after each checkpoint.
        """
        while self.step < last:
            numbers = step(self.step)
            self.step += 1
            if watch:
                watch(self.step, last, **numbers)
            if self.step % every == 0 or self.step == last:
                self._check_finite()
                self.save()
                if kept:
                    kept()

    def _check_finite(self) -> None:
        """UserError if a network's weights are no numbers any more: nothing recovers from that."""
        for part, network in self.networks.items():
            wrong = [name for name, value in network.named_parameters() if not value.isfinite().all()]
            if wrong:
                raise UserError(
                    f"training diverged before step {self.step}: no finite number any more in {part}'s {wrong[0]}; "
                    "lower the rate"
                )

    def save_samples(self, images: Tensor, columns: int = 8) -> None:
        """Write images N x 3 x S x S in [0, 1] as one picture, samples.png, beside the checkpoint; without a folder,
        nothing.
        """
        if self.path is None:
            return
        rows = [torch.cat(list(row), 2) for row in images[: len(images) // columns * columns].split(columns)]
        grid = Image.fromarray(as_bytes(torch.cat(rows, 1)).permute(1, 2, 0).numpy())
        publish(self.path.with_name("samples.png"), lambda part: grid.save(part, format="PNG"), "the samples")

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if self.path is None:
            return
        check_folder(self.path.parent, "the training state")
        if not self.path.exists():
            return
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise self._damaged(error) from None
        check_made(_made(metadata.get("recipe", "null")), _made(self.recipe), self.path)
        try:
            self._restore(kept, int(metadata["step"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise self._damaged(error) from error

    def _restore(self, kept: Mapping[str, Tensor], step: int) -> None:
        for part, network in self.networks.items():
            if own := _below(kept, f"{part}/"):  # an older checkpoint has no count of queries
                network.load_state_dict(own)
        for part, optimiser in self.optimisers.items():
            states: dict[int, dict[str, Tensor]] = {}
            for name, value in _below(kept, f"{part}/").items():
                index, field = name.split("/")
                states.setdefault(int(index), {})[field] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
        self.rng.set_state(kept["rng"])
        self.step = step

    def _damaged(self, error: Exception) -> StaleState:
        line = " ".join(str(error).split())[:160]
        return StaleState(f"{self.path} is damaged ({line}); delete it to train anew")


def _made(recipe: str) -> Any:
    """A recipe as what it names; None for what is none."""
    try:
        return json.loads(recipe)
    except (ValueError, RecursionError):
        return None


def faults(settings: Any, least: Mapping[str, int], above: Iterable[str]) -> list[str]:
    """What is wrong with settings, one line each: no number, below its `least` value, not above 0 though in `above`."""
    fields = vars(settings)
    numbers = [
        (name, one) for name, value in fields.items() for one in (value if isinstance(value, tuple) else (value,))
    ]
    if odd := [name for name, one in numbers if isinstance(one, float) and not isfinite(one)]:
        return [f"{name} must be a number, not {fields[name]}" for name in dict.fromkeys(odd)]
    low = {name: value for name, value in least.items() if getattr(settings, name) < value}
    wrong = [f"{name} must be at least {value}, not {getattr(settings, name)}" for name, value in low.items()]
    average = getattr(settings, "average", 0.0)
    if not 0 <= average < 1:
        wrong.append(f"average must lie in [0, 1), not {average}")
    if not all(0 <= beta < 1 for beta in fields.get("betas", ())):
        wrong.append(f"betas must lie in [0, 1), not {fields['betas']}")
    return wrong + [f"{name} must be above 0, not {value}" for name in above if (value := getattr(settings, name)) <= 0]


def check_enough(images: Images) -> None:
    """UserError where there are fewer than two public images."""
    if len(images) < 2:
        raise UserError(f"a generator needs public images to learn from, got {len(images)}")


def recipe(settings: Any, images: Images, seed: int, **more: Any) -> str:
    """Everything that determines a training of a prior, as JSON: settings, seed, the images, and what else is named."""
    digest = sha256(images.pixels.contiguous().numpy().tobytes()).hexdigest()[:16]
    return json.dumps({**told(settings), "seed": seed, "size": images.size, "images": digest, **more})


@torch.no_grad()
def answers(target: Logits, images: Images, batch: int = 256, device: torch.device | str = "cpu") -> Tensor:
    """The target's logits for every public image, N x C: asked once, since they are always the same."""
    parts = torch.arange(len(images)).split(batch)
    return torch.cat([target(images.floats(part).to(device)) for part in parts])


def digest_of(logits: Tensor) -> str:
    """A hash of the chosen classes, by which answers are recognised; rounding does not change it."""
    return sha256(ranking.answers(logits).cpu().numpy().tobytes()).hexdigest()[:16]


def batch(pixels: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """`count` images drawn with replacement, float32 in [0, 1]."""
    chosen = torch.randint(len(pixels), (count,), generator=rng).to(pixels.device)
    return pixels[chosen].float().div_(255)


def update(optimiser: Optimizer, loss: Tensor) -> None:
    """One step down the gradient of `loss`."""
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move a running average towards the network by 1 - decay; integers are copied."""
    for slow, fast in zip(average.state_dict().values(), network.state_dict().values()):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
