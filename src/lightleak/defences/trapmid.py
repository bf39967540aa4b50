"""Trap-MID: an invisible pattern for each class that an attack finds more easily than the person.

Liu and Chen, "Trap-MID: Trapdoor-based Defense against Model Inversion Attacks" (NeurIPS 2024). Each class has a
pattern k; a trapped image of class c is  x~ = blend k_c + (1 - blend) x.  For each batch, with classes c drawn so that
all come equally often:

    1. a discriminator learns to tell x from x~
    2. patterns make x~ look real to it and like c to the network:  k <- clip( k - step sign(gradient), 0, 1 )
    3. the network learns both:  (1 - weight) CE(T(aug x), y) + weight CE(T(aug x~), c),  in one pass

The patterns go with the checkpoint, for whoever wants to know what an attack has found; `without_traps` takes them off
before the network is given to anybody. A pattern of 5/255 does not survive being blurred: attack with copies of low
resolution as well (`lightleak.attacks.adaptive`).

Deviations from the published code: the patterns are of the size that the network sees; step 3 leaves out no batch.
"""

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightleak.data.views import View, crop, resized
from lightleak.defences.smoothing import NegLS, smoothed
from lightleak.errors import UserError
from lightleak.models import traps
from lightleak.models.bottleneck import exchanged
from lightleak.models.classifier import Classifier
from lightleak.training.adversarial import answering
from lightleak.training.plan import Batch, Plan
from lightleak.training.recipes import Recipe

VIEW = View(scale=(0.8, 1.0), flip=0.5)
TURN, CHANCE = 30.0, 0.5  # degrees either way; how often a crop, and a turn, is done


@dataclass(frozen=True)
class TrapMID:
    """Trapdoors against model inversion."""

    blend: float = 0.02  # how much of the pattern an image gets; 5/255
    weight: float = 0.2  # of the trapped images in the loss
    step: float = 0.01  # of the patterns
    augment: bool = True  # crops, mirrors and turns of its own, on top of the recipe's
    alpha: float = 0.0  # below 0: negative label smoothing of the clean images, as in the paper's combination
    title: ClassVar[str] = "Trap-MID"

    def __post_init__(self) -> None:
        problems = []
        if not (0 < self.blend < 1 and 0 < self.weight < 1):
            problems.append(f"blend and weight are shares in (0, 1), not {self.blend} and {self.weight}")
        if not 0 < self.step <= 1:
            problems.append(f"patterns move by a step in (0, 1], not {self.step}")
        if not self.alpha <= 0:
            problems.append(f"it goes with negative label smoothing, an alpha below 0, or 0 for none, not {self.alpha}")
        if problems:
            raise UserError(f"Trap-MID: {'; '.join(problems)}")

    def plan(self, recipe: Recipe) -> Plan:
        return Plan(companion=lambda classifier: Traps(self, recipe, classifier))

    def alpha_at(self, progress: float, recipe: Recipe) -> float:
        """The smoothing of an epoch: negative label smoothing's ramp."""
        if not self.alpha:
            return 0.0
        return NegLS(self.alpha).alpha_at(round(progress * recipe.epochs), recipe.epochs)


class Traps:
    """The patterns and the discriminator during training."""

    def __init__(self, settings: TrapMID, recipe: Recipe, classifier: Classifier) -> None:
        self.settings, self.recipe = settings, recipe
        name, head = classifier.only_head("Trap-MID")
        if classifier.sides is not None:
            raise UserError("Trap-MID's patterns are square, and this network takes images that are not")
        size = classifier.size
        self.patterns = torch.rand(classifier.classes, 3, size, size).to(classifier.device)
        telling = exchanged(classifier.net, name, nn.Linear(head.in_features, 1).to(head.weight))
        self.discriminator = Classifier(
            telling, size=size, classes=1, architecture=classifier.architecture, mean=classifier.mean,
            std=classifier.std, reading=classifier.reading,
        ).to(classifier.device).requires_grad_(True)  # fmt: skip
        self.optimiser = recipe.optimising(self.discriminator.parameters())
        self.queue, self.epoch = torch.zeros(0, dtype=torch.long), -1.0

    def loss(self, batch: Batch) -> Tensor:
        """1 to 3."""
        images, network = resized(batch.images, batch.classifier.size), batch.classifier
        classes = self.drawn(len(images), batch.progress).to(batch.labels)
        # 1. the discriminator
        self.discriminator.train()
        told = self.discriminator(torch.cat([images, self.trapped(images, classes)])).float().squeeze(1)
        real = torch.cat([torch.ones(len(images)), torch.zeros(len(images))]).to(told)
        self.optimiser.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(told, real).backward()
        self.optimiser.step()
        # 2. the patterns
        with answering(network), answering(self.discriminator), torch.enable_grad():
            self.patterns.requires_grad_()
            trapped = self.trapped(images, classes)
            told = self.discriminator(trapped).float().squeeze(1)
            both = F.binary_cross_entropy_with_logits(told, torch.ones_like(told))
            both = both + F.cross_entropy(network(self.augmented(trapped)).float(), classes)
            (slope,) = torch.autograd.grad(both, self.patterns)
        self.patterns = (self.patterns.detach() - self.settings.step * slope.sign()).clamp(0, 1)
        # 3. the network
        trapped = self.trapped(images, classes)
        logits = network(torch.cat([self.augmented(images), self.augmented(trapped)])).float()
        clean, found = logits.chunk(2)
        weight, alpha = self.settings.weight, self.settings.alpha_at(batch.progress, self.recipe)
        return (1 - weight) * smoothed(clean, batch.labels, alpha) + weight * F.cross_entropy(found, classes)

    def drawn(self, count: int, epoch: float) -> Tensor:
        """So many classes; within an epoch every class comes equally often, give or take one."""
        if epoch != self.epoch:
            self.queue, self.epoch = self.queue[:0], epoch
        while len(self.queue) < count:
            self.queue = torch.cat([self.queue, torch.randperm(len(self.patterns))])
        chosen, self.queue = self.queue[:count], self.queue[count:]
        return chosen

    def trapped(self, images: Tensor, classes: Tensor) -> Tensor:
        """x~ of images N x 3 x H x W."""
        return blended(images, self.patterns[classes], self.settings.blend)

    def augmented(self, images: Tensor) -> Tensor:
        """A crop, a mirror and a turn of each image, the first and the last of them every second time."""
        if not self.settings.augment:
            return images
        draws = torch.rand(len(images), 8).to(images.device)
        left, top, width, height, mirror = VIEW.boxes(draws)
        whole = draws[:, 5] < CHANCE
        left, top = (torch.where(whole, torch.zeros_like(each), each) for each in (left, top))
        width, height = (torch.where(whole, torch.ones_like(each), each) for each in (width, height))
        angle = torch.where(draws[:, 6] < CHANCE, (2 * draws[:, 7] - 1) * (TURN * pi / 180), torch.zeros_like(width))
        return crop(images, left, top, width, height, mirror, angle)

    def state(self) -> dict[str, Tensor]:
        """Patterns, discriminator, and its optimiser's memory."""
        found = {"patterns": self.patterns.detach()}
        found |= {f"net.{name}": value for name, value in self.discriminator.net.state_dict().items()}
        for index, values in self.optimiser.state_dict()["state"].items():
            found |= {
                f"optimiser.{index}.{name}": torch.as_tensor(each) for name, each in values.items() if each is not None
            }
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.patterns = state["patterns"].to(self.patterns)
        own = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
        self.discriminator.net.load_state_dict(own)
        memory: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".", 2)
                memory.setdefault(int(index), {})[key] = value
        self.optimiser.load_state_dict({"state": memory, "param_groups": self.optimiser.state_dict()["param_groups"]})

    def finish(self, classifier: Classifier) -> Classifier:
        """The classifier with its patterns as a buffer."""
        change = {"kind": traps.KIND, "size": classifier.size, "classes": classifier.classes}
        net = traps.attach(classifier.net, change)
        net.get_buffer(traps.NAME).copy_(self.patterns.detach())
        return classifier.with_net(net, change=change)


def blended(images: Tensor, patterns: Tensor, blend: float) -> Tensor:
    """blend * pattern + (1 - blend) * image."""
    return blend * patterns + (1 - blend) * images


def patterns_of(classifier: Classifier) -> Tensor | None:
    """The patterns that a checkpoint holds, classes x 3 x H x W in [0, 1]; None if it was not trained with any."""
    return dict(classifier.net.named_buffers()).get(traps.NAME)


def without_traps(classifier: Classifier) -> Classifier:
    """The same network without the patterns, as it is given to others; it answers alike."""
    change = {"kind": traps.DETACHED}
    return classifier.with_net(traps.detach(classifier.net, change), change=change).train(classifier.training)
