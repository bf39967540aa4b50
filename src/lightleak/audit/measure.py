"""What the members of an ensemble found, measured person by person: by the model itself, a recogniser, and judges."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightleak.attacks import Access, Oracle, Reconstruction
from lightleak.attacks.draws import Rows, own_draws
from lightleak.attacks.frame import confidence_of
from lightleak.audit import photographs
from lightleak.data.population import Images, as_bytes
from lightleak.data.views import DRAWS, View, resized
from lightleak.errors import UserError
from lightleak.metrics import verification
from lightleak.models.recogniser import Recogniser, embedded
from lightleak.ranking import answers, as_lowest
from lightleak.renamed import former
from lightleak.study.task import Progress, Store, Task
from lightleak.study.tasks import Draw, Given, Invert, TrainJudge
from lightleak.study.tasks.work import guard_of
from lightleak.training import predict

VIEWS, ASKED = 16, -7  # how often the model is asked about an image; the step that this counts as
VIEW = View(scale=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.5)
GALLERY = 5
Spread = Callable[[Tensor, Any], list[Any]]  # from one value an image, and what counts where there is none


@dataclass(frozen=True)
class Embed(Task):
    """A recogniser's embeddings of everybody's pictures, and the threshold that they calibrate."""

    gpus = 1.0
    population: Draw
    recogniser: Recogniser
    version: ClassVar[int] = 2  # the first averaged over pictures, not people
    rate: float | None = None
    seed: int = 0

    @property
    def label(self) -> str:
        return "show the recogniser all pictures"

    @property
    def cost(self) -> float:
        return 60.0

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:
        population, network = self.population.load(store), self.recogniser.load()
        who = photographs.known(population)
        sets = {"gallery": self._drawn(population.judge, who), "held_out": photographs.only(population.test, who)}
        sets |= {"train": self._drawn(population.train, who), "public": population.public}
        total, done, tensors = sum(map(len, sets.values())), 0, {}
        for name, images in sets.items():
            pieces = []
            for piece in images.pixels.split(32):
                pieces.append(embedded(network, piece))
                done += len(piece)
                watch(done, total)
            features = torch.cat(pieces) if pieces else torch.empty(0, 1)
            tensors |= {f"{name}.features": features, f"{name}.labels": images.labels}
        save_file(tensors, folder / "features.safetensors")
        return {"title": self.recogniser.title, "images": total} | self._calibrated(tensors)

    def _drawn(self, images: Images, who: Tensor) -> Images:
        """The pictures of a set that its galleries are made of: a recogniser may take a tenth of a second for each."""
        images = photographs.only(images, who)
        try:
            places = torch.searchsorted(who, images.labels)
            return images.at(verification.drawn(places, len(who), GALLERY, self.seed).flatten())
        except UserError:  # somebody has none; what needs one says so
            return images

    def _calibrated(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The calibration, and what held-out pictures reach; the reason where there is none."""
        try:
            gallery = self.gallery(tensors)
            impostors = verification.claims(tensors["public.features"], gallery)
            found = verification.calibrate(impostors, tensors["public.labels"], self.rate)
        except UserError as error:
            if self.rate is not None:
                raise
            return {"missing": str(error)}
        genuine = verification.claims(tensors["held_out.features"], gallery)
        labels = _places(tensors, tensors["held_out.labels"])
        own = genuine.gather(1, labels[:, None]).squeeze(1)
        passed = verification.passes(own, found.threshold)
        rates = verification.carried(found.scores, found.people)
        thresholds = {
            rate: verification.calibrate(impostors, tensors["public.labels"], rate).threshold for rate in rates
        }
        return {
            "calibration": asdict(found),
            "gallery": gallery.shape[1],
            "held_out": photographs.by_person(passed, labels, len(gallery)),
            "held_out_images": len(own),
            "named": photographs.share(verification.named(genuine, labels), labels),
            "ceiling": photographs.share(passed, labels),
            "thresholds": [[rate, value] for rate, value in thresholds.items()],
            "curve": [[rate, photographs.share(own > value, labels)] for rate, value in thresholds.items()],
        }

    def gallery(self, tensors: Mapping[str, Tensor], part: str = "gallery") -> Tensor:
        """So many pictures of each person who has one to be known by, drawn once."""
        places, people = _places(tensors, tensors[f"{part}.labels"]), len(_who(tensors))
        return verification.galleries(tensors[f"{part}.features"], places, people, GALLERY, self.seed)

    def verified(self, store: Store, shown: Tensor, classes: Tensor, spread: Spread) -> dict[str, Any]:
        """Of each image as a claim to its person, of all others, and of training pictures; empty without a threshold.

        `shown`: N x 3 x S x S bytes, of `classes` (N); `spread` makes one value a person of N.
        """
        told, tensors = store.result(self), self.load(store)
        if "calibration" not in told:
            return {}
        features = embedded(self.recogniser.load(), shown) if len(shown) else torch.empty(0, 1)
        threshold = told["calibration"]["threshold"]
        gallery, places = self.gallery(tensors), _places(tensors, classes)
        if not len(shown):
            missing = {"score": None, "verified": False, "named": False, "gap": None}
            nobody = {"curve": [[rate, 0.0] for rate, _ in told["thresholds"]]}
            return {name: spread(classes, value) for name, value in missing.items()} | nobody
        scores = verification.claims(features, gallery)
        own = scores.gather(1, places[:, None]).squeeze(1)
        passed = verification.passes(scores, threshold)
        strange = passed.sum() - verification.passes(own, threshold).sum()
        result = {
            "score": spread(own, None),
            "verified": spread(verification.passes(own, threshold), False),
            "named": spread(verification.named(scores, places), False),
            "as_others": float(strange) / max(1, passed.numel() - len(own)),
            "curve": [[rate, _share(spread(own > value, False))] for rate, value in told["thresholds"]],
        }
        try:  # with as many training pictures as held-out ones, or the larger gallery would win
            trained = self.gallery(tensors, "train")
        except UserError:
            return result
        size = min(trained.shape[1], gallery.shape[1])
        near = verification.claims(features, trained[:, :size]).gather(1, places[:, None]).squeeze(1)
        far = verification.claims(features, gallery[:, :size]).gather(1, places[:, None]).squeeze(1)
        return result | {"gap": spread(near - far, None)}

    def load(self, store: Store) -> dict[str, Tensor]:
        """The embeddings and labels."""
        return load_file(store.folder(self) / "features.safetensors")


@dataclass(frozen=True)
class Measure(Task):
    """One member's image of each person, the one that the model is most confident of, and what everybody says of it."""

    gpus = 1.0
    found: Invert
    model: Given
    access: Access  # with which the model is asked for its confidence
    judges: tuple[TrainJudge, ...]
    embed: Embed | None = None
    seed: int = 0

    def needs(self) -> tuple[Task, ...]:
        """Its fields, whose people they are, and what draws the images again."""
        return (*super().needs(), self.model.population, self.found.prior)

    @property
    def label(self) -> str:
        return f"measure {self.found.outcome}"

    @property
    def cost(self) -> float:
        return 3.0

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        population = self.model.population.load(store)
        found, model = self.found.load(store), self.model.load(store)
        oracle = Oracle(model, self.access, guard=guard_of(self.model, model, store))
        confidence = confidence_over_views(oracle, found, self.seed)
        people = list(range(population.classes)) if self.found.classes is None else list(self.found.classes)
        best = [_best(found, confidence, person) for person in people]
        there = torch.tensor([row for row in best if row is not None], dtype=torch.int64)
        shown = (
            as_bytes(found.drawn_by(self.found.prior.load(store)).floats(there)) if len(there) else found.bytes(there)
        )

        classes = found.classes[there]
        save_file({"images": shown.contiguous(), "people": classes}, folder / "images.safetensors")
        spread = _spread(people, classes.tolist())
        result: dict[str, Any] = {
            "people": people,
            "found": len(there),
            "belief": spread(as_lowest(confidence[there]).clamp(0, 1), 0.0),
            "queries_to_measure": oracle.queries,
            "judges": {},
        }
        for judge in self.judges:
            network = judge.load(store)
            right = (
                answers(predict(network, Images(shown, classes))) == classes if len(there) else torch.empty(0).bool()
            )
            result["judges"][judge.architecture] = spread(right, False)
        if self.embed is not None:
            result |= self.embed.verified(store, shown, classes, spread)
        return result

    def images(self, store: Store) -> dict[int, Tensor]:
        """The image of each person, 3 x S x S bytes."""
        kept = load_file(store.folder(self) / "images.safetensors")
        return dict(zip(kept["people"].tolist(), kept["images"]))

    def there(self, store: Store) -> tuple[bool, ...]:
        """Whether there is an image of each of its people."""
        with safe_open(store.folder(self) / "images.safetensors", "pt") as kept:
            found = set(kept.get_tensor("people").tolist())
        return tuple(person in found for person in store.result(self)["people"])


@dataclass(frozen=True)
class Verified(Task):
    """What one more recogniser says of the images that were measured."""

    gpus = 1.0
    measure: Measure
    embed: Embed

    @property
    def label(self) -> str:
        return f"show {self.embed.recogniser.title} {self.measure.found.outcome}"

    @property
    def cost(self) -> float:
        return 3.0

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        images, people = self.measure.images(store), store.result(self.measure)["people"]
        there = [person for person in people if person in images]
        shown = torch.stack([images[person] for person in there]) if there else torch.empty(0, dtype=torch.uint8)
        return self.embed.verified(store, shown, torch.tensor(there, dtype=torch.int64), _spread(people, there))


@dataclass(frozen=True)
class JudgeQuality(Task):
    """How far a judge can be trusted: its accuracy on pictures that it was not trained on."""

    gpus = 1.0
    judge: TrainJudge
    version: ClassVar[int] = 2  # the first averaged over pictures, not people

    def needs(self) -> tuple[Task, ...]:
        """The judge, and the pictures."""
        return (self.judge, self.judge.population)

    @property
    def label(self) -> str:
        return f"test the judge {self.judge.architecture}"

    def run(self, store: Store, folder: Path, watch: Progress) -> dict[str, Any]:  # noqa: ARG002
        population = self.judge.population.load(store)
        network, test = self.judge.load(store), photographs.only(population.test, photographs.known(population))
        if not len(test):
            return {"accuracy": None, "images": 0, "right": []}
        right = answers(predict(network, test)) == test.labels
        return {"accuracy": photographs.share(right, test.labels), "images": len(test), "right": right.tolist()}


@torch.no_grad()
def confidence_over_views(oracle: Oracle, found: Reconstruction, seed: int) -> Tensor:
    """The model's confidence in each image, averaged over views; from labels alone, the share of views it names."""
    confidence = []
    for index in torch.arange(len(found)).split(16):
        classes = found.classes[index].repeat_interleave(VIEWS)
        attempts = torch.arange(VIEWS).repeat(len(index))
        draws = own_draws(seed, classes, attempts, (1, DRAWS))[:, 0]
        there = oracle.device
        images = resized(found.floats(index).to(there), oracle.size).repeat_interleave(VIEWS, 0)
        own = attempts + VIEWS * index.repeat_interleave(VIEWS)
        rows = Rows(seed, classes.to(there), own.to(there), ASKED)
        seen = VIEW(images, draws.to(there))
        confidence.append(confidence_of(oracle, seen, rows).view(len(index), VIEWS).mean(1).cpu())
    return torch.cat(confidence) if confidence else torch.empty(0)


def _who(tensors: Mapping[str, Tensor]) -> Tensor:
    """The people who have a gallery, ascending."""
    return tensors["gallery.labels"].unique()


def _places(tensors: Mapping[str, Tensor], classes: Tensor) -> Tensor:
    """The places of these people's galleries."""
    return torch.searchsorted(_who(tensors), classes)


def _spread(people: Sequence[int], there: Sequence[int]) -> Spread:
    """Of one value for each person whose image is `there`, one for each of all; no image means that nothing leaked."""

    def spread(values: Tensor, missing: Any) -> list[Any]:
        found = dict(zip(there, values.tolist()))
        return [found.get(person, missing) for person in people]

    return spread


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)


def _best(found: Reconstruction, confidence: Tensor, person: int) -> int | None:
    """The row of a person's best image; None if there is none."""
    mine = (found.classes == person).nonzero().flatten()
    return None if not len(mine) else int(mine[as_lowest(confidence[mine]).argmax()])


__getattr__ = former(__name__, {"believed_over_views": f"{__name__}:confidence_over_views"})
