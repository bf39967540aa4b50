"""TL-DMI: layers that never see private data cannot remember it.

Ho et al., "Model Inversion Robustness: Can Transfer Learning Help?" (CVPR 2024).

    1. train the network on public data: `pretrain`
    2. freeze its early part
    3. train the rest on the private data

Step 1 needs other images than step 3, so the plan is steps 2 and 3; `lightleak train` and studies do step 1 first,
Python code calls `pretrain` (or brings weights from elsewhere): without it the frozen part is random. Deviations from
the published code: the running statistics of the frozen part stand still (there they adapt to private data), and the
first layer is frozen too (there a misspelt name leaves it free).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from lightleak import randomness
from lightleak.data.population import Images
from lightleak.errors import UserError
from lightleak.models.bottleneck import exchanged
from lightleak.models.classifier import Classifier
from lightleak.surgery.copies import copied
from lightleak.surgery.observe import undone
from lightleak.training.loop import Plan, Watch, train
from lightleak.training.recipes import Recipe


@dataclass(frozen=True)
class TLDMI:
    """Transfer Learning as a Defence against Model Inversion."""

    share: float = 8 / 13  # of the layers with weights before the head; the paper's VGG-16 freezes 8 of 13
    until: str | None = None  # instead: the last module that is frozen, such as "layer2"
    public: Recipe | None = None  # how step 1 trains; None: as the private training that follows
    title: ClassVar[str] = "TL-DMI"
    freezes: ClassVar[bool] = True  # it lasts as long as what it froze stays frozen

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"TL-DMI freezes a share of the layers in (0, 1], not {self.share}")

    def plan(self, recipe: Recipe) -> Plan:  # noqa: ARG002
        return Plan(changes=((0, self.apply),))

    def pretraining(self, recipe: Recipe) -> Recipe:
        """How step 1 trains, where `recipe` is how step 3 does."""
        return self.public or recipe

    def apply(self, classifier: Classifier) -> Classifier:
        """The classifier with its early parameters frozen; `train` keeps the statistics beside them still."""
        net = copied(classifier.net)
        began, ended = _times(classifier)
        stop = ended.get(self.until, -1) if self.until is not None else self._stop(classifier, began)
        if stop < 0:
            main = ", ".join(name for name in ended if name and "." not in name)
            raise UserError(f"{type(net).__name__} runs no module {self.until!r}; its main ones are {main}")
        for name, parameter in net.named_parameters():
            owner = name.rpartition(".")[0]
            while owner not in began:  # some modules use the weights of their children without calling them
                owner = owner.rpartition(".")[0]
            if began[owner] < stop and (owner or "." not in name):
                parameter.requires_grad_(False)
        return classifier.with_net(net)

    def _stop(self, classifier: Classifier, began: dict[str, int]) -> int:
        """When the first layer starts that is left free."""
        kinds = (nn.Linear, nn.Conv1d, nn.Conv2d)
        layers = [began[name] for name, m in classifier.net.named_modules() if isinstance(m, kinds) and name in began]
        layers.sort()
        before = len(layers) - max(1, len(classifier.heads))  # the last ones are the heads
        count = int(self.share * before + 1e-9)
        if count == 0:
            raise UserError(f"a share of {self.share:.2f} of {before} layers is none; nothing would be frozen")
        return layers[count]


def pretrain(
    classifier: Classifier,
    public: Images,
    recipe: Recipe,
    seed: int = 0,
    folder: Path | None = None,
    watch: Watch | None = None,
) -> Classifier:
    """Step 1: the network trained to tell public people apart, with its own head put back.

    Every fifth image is held out to choose the best epoch; `folder` and `watch` as for `train`. UserError if no linear
    layer alone makes the logits.
    """
    name, head = classifier.only_head("pre-training, which exchanges the head,")
    people = int(public.labels.max()) + 1
    with randomness.own(seed):
        fresh = nn.Linear(head.in_features, people).to(head.weight)
    other = Classifier(
        exchanged(classifier.net, name, fresh),
        size=classifier.sides or classifier.size,
        classes=people,
        mean=classifier.mean,
        std=classifier.std,
        reading=classifier.reading,
    ).to(classifier.device)
    held = torch.arange(len(public)) % 5 == 4
    seen, aside = (Images(public.pixels[which], public.labels[which]) for which in (~held, held))
    trained = train(other, seen, aside, recipe, seed=seed, folder=folder, watch=watch)
    start = classifier.with_net(exchanged(trained.net, name, copied(head)))
    start.record = {"pretraining": {**trained.record, "people": people}}
    return start


def _times(classifier: Classifier) -> tuple[dict[str, int], dict[str, int]]:
    """When each module of the network first starts and first ends in one pass; those that never run are missing."""
    began: dict[str, int] = {}
    ended: dict[str, int] = {}
    handles = []

    def note(times: dict[str, int], name: str) -> None:
        times.setdefault(name, len(began) + len(ended))

    for name, module in classifier.net.named_modules():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: note(began, name)))
        handles.append(module.register_forward_hook(lambda *_, name=name: note(ended, name)))
    try:
        with undone(classifier), torch.no_grad():
            classifier.net(classifier.example)
    finally:
        for handle in handles:
            handle.remove()
    return began, ended
