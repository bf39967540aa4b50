"""Everything measured on one reconstruction, with intervals, chance and nulls."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from warnings import warn

import torch
from torch import Tensor, nn

from lightleak.attacks.reconstruction import PIECE, Drawn, Reconstruction
from lightleak.data import faces
from lightleak.data.images import eight_bit
from lightleak.data.population import Images, Population
from lightleak.data.views import resized
from lightleak.errors import UserError
from lightleak.metrics import evidence, realism, recognition, truth
from lightleak.metrics.attribute_regressor import AttributeRegressor, estimate
from lightleak.metrics.evaluation import METRICS, UNANSWERED, Evaluation, difference, not_shown
from lightleak.metrics.evidence import Measure
from lightleak.metrics.metric import Seen, Unmeasured
from lightleak.metrics.reference import Reference
from lightleak.metrics.whose import own_judge, same_people
from lightleak.models.classifier import Classifier
from lightleak.place import here, in_pieces
from lightleak.priors.prior import Prior
from lightleak.ranking import answers
from lightleak.training.loop import Watch

__all__ = ["METRICS", "Evaluation", "Reference", "difference", "evaluate", "reference"]

OTHER = 0.05  # mean difference of colours above which an image is another one: rounding and precision make a fifth
GOOD_JUDGE = 0.95  # a judge below this natural accuracy is flagged
FEW_IMAGES = 10  # of a person: below, recall says nothing
FEW_PEOPLE = 20  # fewer than this are flagged
FAMILY = "the family only"  # the null that knows the look-alikes of each person, and nothing of the person
MANIFOLD = ("precision", "recall", "density", "coverage")
REALISM = ("fid", *MANIFOLD)
NO_SET = "one portrait is no set of pictures"


def reference(
    judge: Classifier,
    population: Population,
    *,
    face_embedding: nn.Module | None = None,
    inception: nn.Module | None = None,
) -> Reference:
    """The judge's natural accuracy, and features of the private training images."""
    if not len(population.test) or not len(population.train):
        raise UserError(f"'{population.name}' has no private training and test images to measure against")
    _, logits = _judged(judge, population.test)
    right = (answers(logits) == population.test.labels).double()
    tested = population.test.labels.unique()
    accuracy = recognition.per_class(right, population.test.labels, tested)
    networks = {"judge": judge.architecture or type(judge.net).__name__}
    networks |= {
        name: _title(net) for name, net in (("delta_face", face_embedding), ("fid", inception)) if net is not None
    }
    return Reference(
        judge_accuracy=evidence.interval(accuracy, rate=True, clusters=_families(population, tested)),
        labels=population.train.labels,
        features=_judged(judge, population.train)[0],
        faces=_read(face_embedding, population.train) if face_embedding is not None else None,
        inception=_read(inception, population.train) if inception is not None else None,
        networks=networks,
    )


def evaluate(
    reconstruction: Reconstruction,
    judge: Classifier,
    population: Population,
    *,
    factors: Callable[[Tensor], Tensor | None] | None = None,
    prior: Prior | None = None,
    attribute_regressor: AttributeRegressor | None = None,
    face_embedding: nn.Module | None = None,
    inception: nn.Module | None = None,
    student: Classifier | None = None,
    nulls: Mapping[str, Reconstruction] | None = None,
    null_students: Mapping[str, Classifier] | None = None,
    known: Reference | None = None,
    published: bool = False,
    fed_8_bit: bool = False,
    rng: torch.Generator | None = None,  # noqa: ARG001
    watch: Watch | None = None,
    appraiser: AttributeRegressor | None = None,
) -> Evaluation:
    """Measure a reconstruction, and each of the `nulls` in the same way.

    The `judge` is a classifier of the same people that the attacker never met, the papers' evaluation model E (see
    [judge](glossary.md#judge)).

    If the `prior` draws larger images than the reconstruction keeps, they are drawn again from the latents, piece by
    piece, and the judge sees those. The truth is known in rendered populations only: either the rendered prior tells it
    (or `factors`, its `factors_of`: latents N x L to factors N x F, or None), or an
    `attribute_regressor` estimates it from images (`appraiser` is its former name). `face_embedding` and `inception`
    map images in [0, 1] to features N x D.
    `student` has learnt from these reconstructions alone (`knowledge.teach`), and each of the `null_students` from the
    null of the same name. `known` is `reference(...)` of the same networks, if it has been computed already.

    The nulls come from the same prior, or from none (pixels). Where private people look alike, the centre of each
    family is another null (`FAMILY`). `published` repeats PPA's definitions of precision, recall, density and coverage,
    person by person; its FID also needs an `inception` that was built so. `fed_8_bit` rounds reconstructions to 8 bits
    before the judge sees them, as the 64-pixel attacks do. `rng` is ignored; earlier versions used it. `watch` counts
    reconstructions. Raises UserError if images, classes, judge and population do not fit together; warns of a judge
    that is the attacked model.
    """
    if appraiser is not None:
        warn(
            "evaluate(appraiser=) is now evaluate(attribute_regressor=); the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
    attribute_regressor = attribute_regressor or appraiser
    reconstruction, nulls = _home(reconstruction), {name: _home(null) for name, null in (nulls or {}).items()}
    whose = (*own_judge(reconstruction, judge), *same_people(reconstruction, judge, population))
    known = known or reference(judge, population, face_embedding=face_embedding, inception=inception)
    scoring = _Scoring(
        judge, population, factors, prior, attribute_regressor, face_embedding, inception, known, published, fed_8_bit
    )
    null_students = null_students or {}
    evaluation = replace(scoring.of(reconstruction, student), ceiling=scoring.ceiling(reconstruction.classes))
    if evaluation.families is not None:
        nulls[FAMILY] = family_only(population, reconstruction.classes.unique())
    if watch is not None:
        watch(1, 1 + len(nulls))
    for step, (name, null) in enumerate(nulls.items()):
        evaluation.nulls[name] = scoring.of(null, null_students.get(name), one_picture=name == FAMILY)
        if watch is not None:
            watch(step + 2, 1 + len(nulls))
    told = (*whose, *_smaller(reconstruction, prior), *_unanswered(reconstruction, evaluation))
    told = (*told, *evaluation.warnings, *_warnings(evaluation))
    return replace(evaluation, people=population.people, warnings=told)


def _home(found: Reconstruction) -> Reconstruction:
    """The same with all but its images on the processor: an attack may leave them where it ran."""
    return replace(found, **{name: getattr(found, name).cpu() for name in ("classes", "latents", "confidence")})


def family_only(population: Population, classes: Tensor) -> Reconstruction:
    """The portrait of the centre of each person's family: what an attacker gets who knows the family and no more.

    A latent is the centre's factors in neutral circumstances, as the rendered prior reads them; the target's confidence
    was not asked for and is NaN.
    """
    if population.families is None or population.family_factors is None:
        raise UserError(f"nobody in '{population.name}' is known to look like anybody else")
    centres = population.family_factors[population.families[classes]]
    neutral = torch.zeros(len(centres), len(faces.CIRCUMSTANCES))
    with torch.no_grad():
        pieces = here().put(centres).split(truth.PIECE)
        images = torch.cat([faces.canonical(piece, population.size).cpu() for piece in pieces])
    unasked = torch.full((len(centres),), torch.nan)
    return Reconstruction(images, classes, torch.cat([centres, neutral], 1), unasked, redrawn=False)


@dataclass(frozen=True)
class _Scoring:
    """By whom and how reconstructions are measured: the same for an attack and for its nulls."""

    judge: Classifier
    population: Population
    factors: Callable[[Tensor], Tensor | None] | None
    prior: Prior | None
    attribute_regressor: AttributeRegressor | None
    face_embedding: nn.Module | None
    inception: nn.Module | None
    known: Reference
    published: bool
    fed_8_bit: bool

    def of(
        self, reconstruction: Reconstruction, student: Classifier | None = None, one_picture: bool = False
    ) -> Evaluation:
        """Everything measured on one reconstruction, without nulls; it warns of NaN alone; `one_picture`: no set."""
        population, known = self.population, self.known
        _check(reconstruction, self.judge, population)
        _check_prior(reconstruction, self.prior)
        seen = self._seen(reconstruction, student, one_picture)
        which, families = seen.which, _families(population, seen.which)
        measures: dict[str, Measure | None] = dict.fromkeys(METRICS)
        per_class: dict[str, Tensor] = {}
        missing: dict[str, str] = {}
        for name, metric in METRICS.items():
            try:
                value = metric.of(seen)
                if isinstance(value, Measure):
                    measures[name] = value
                    continue
                per_class[name] = _by_person(name, value, seen)
                measures[name] = evidence.interval(per_class[name], rate=metric.rate, clusters=families)
            except Unmeasured as why:
                missing[name] = str(why)

        chance = {name: METRICS[name].chance(seen) for name, measure in measures.items() if measure}
        scale, alike = seen.scale, None
        if scale is not None and population.families is not None and population.factors is not None:
            alike = truth.families(population.factors, population.families, scale, which)
        source = seen.truth_from
        return Evaluation(
            classes=tuple(which.tolist()),
            images=len(reconstruction),
            measures=measures,
            per_class={name: tuple(values.tolist()) for name, values in per_class.items()},
            chance={name: value for name, value in chance.items() if value is not None},
            missing=missing,
            networks=known.networks,
            judge_accuracy=known.judge_accuracy,
            truth_from=source,
            appraiser=self.attribute_regressor.quality if self.attribute_regressor and source == "images" else None,
            threshold=scale.threshold if scale else None,
            families=tuple(families.tolist()) if families is not None else None,
            family_match_rate=alike.match_rate if alike else None,
            family_chance=_family_chance(alike) if alike else {},
            queries=reconstruction.queries,
            seconds=reconstruction.seconds,
            warnings=() if one_picture else tuple(_no_numbers(seen)),
        )

    def ceiling(self, classes: Tensor) -> dict[str, Measure]:
        """How real as many real pictures of the same people look: held out, so that no reconstruction does better."""
        test, which = self.population.test, classes.unique()
        each = round(len(classes) / len(which))
        index = torch.cat([rows[:each] for rows in recognition.rows_of(test.labels, which)])
        pictures = test.at(index)
        nothing = torch.zeros(len(pictures))
        drawn = Reconstruction(pictures.floats(), pictures.labels, latents=nothing, confidence=nothing)
        return self._real(drawn, _judged(self.judge, pictures)[0])[0]

    def _seen(self, reconstruction: Reconstruction, student: Classifier | None, one_picture: bool) -> Seen:
        """What the judge, the face embedding, the truth and the student say of each image, and of the set."""
        population = self.population
        drawn = reconstruction.drawn_by(self.prior)
        features, logits = _judged(self.judge, EightBit(drawn, self.judge.size) if self.fed_8_bit else drawn)
        faced = self.face_embedding is not None and self.known.faces is not None
        realism: dict[str, Measure] = {}
        unreal = dict.fromkeys((prefix + name for prefix in ("", "judge_") for name in REALISM), NO_SET)
        if not one_picture:
            realism, unreal = self._real(reconstruction, features)
        factors, source = self._factors(reconstruction) if population.factors is not None else (None, None)
        scale = held = None
        if factors is not None and population.factors is not None:
            scale = truth.yardstick()
            held = truth.compare(factors, reconstruction.classes, population.factors, scale, population.families)
        return Seen(
            reconstruction,
            population,
            reconstruction.classes.unique(),
            self.known,
            features,
            logits,
            embedded=_read(self.face_embedding, drawn) if faced and self.face_embedding else None,
            truth=held,
            scale=scale,
            truth_from=source,
            student=student,
            realism=realism,
            unreal=unreal,
        )

    def _factors(self, reconstruction: Reconstruction) -> tuple[Tensor | None, str | None]:
        """The identity factors of each image, and what they were read off ("latents" or "images")."""
        latents, found = reconstruction.latents, None
        if self.factors is not None:
            found = self.factors(latents)
        elif self.prior is not None and latents.shape[1:] == (self.prior.latents,):  # not of a null among pixels
            found = self.prior.factors_of(latents)
        if found is not None:
            return found, "latents"
        if self.attribute_regressor is None:
            return None, None
        seen = reconstruction.drawn_by(self.prior)
        pieces = torch.arange(len(seen)).split(PIECE)
        return torch.cat([estimate(self.attribute_regressor, seen.floats(piece)) for piece in pieces]), "images"

    def _real(self, reconstruction: Reconstruction, features: Tensor) -> tuple[dict[str, Measure], dict[str, str]]:
        """How real the whole set looks, to the judge and to the network that FID is defined on; why some is missing."""
        measures: dict[str, Measure] = {}
        missing: dict[str, str] = {}
        pairs = {"judge_": (self.known.features, features)}
        if self.inception is not None and self.known.inception is not None:
            pairs[""] = (self.known.inception, _read(self.inception, reconstruction.drawn_by(self.prior)))
        for prefix, (real, drawn) in pairs.items():
            real, drawn = (here().exact.put(rows) for rows in (real, drawn))
            found, why = _realism(
                real,
                self.known.labels,
                drawn,
                reconstruction.classes,
                self.published,
                _families(self.population, reconstruction.classes.unique()),
            )
            measures |= {prefix + name: value for name, value in found.items()}
            missing |= {prefix + name: reason for name, reason in why.items()}
        return measures, missing


def _by_person(name: str, value: Tensor, seen: Seen) -> Tensor:
    """What a metric says of each attacked person; Unmeasured if that is no number for all, UserError if too few."""
    over, expected = METRICS[name].over, {"images": len(seen.classes), "people": len(seen.which), "set": 0}
    if over == "set" or value.shape != (expected[over],):
        wanted = "a Measure" if over == "set" else f"{expected[over]} values, one for each of the {over}"
        raise UserError(f"the metric '{name}' should give {wanted}, not shape {tuple(value.shape)}")
    values = recognition.per_class(value, seen.classes, seen.which) if over == "images" else value.double()
    if not values.isfinite().all():
        raise Unmeasured("some people have no finite value")
    return values


def _family_chance(alike: truth.Families) -> dict[str, float]:
    """What one of the right family, drawn at random, scores: now and then it is the person."""
    return {
        "true@1": alike.person,
        "verified": alike.verified,
        "error": alike.apart,
        "family@1": 1.0,
        "member@1": alike.person,
    }


def _realism(
    real: Tensor, labels: Tensor, fake: Tensor, classes: Tensor, published: bool, families: Tensor | None
) -> tuple[dict[str, Measure], dict[str, str]]:
    """FID, precision, recall, density and coverage of all attacked people together, and why some are missing.

    `published`: all but FID for each person alone, then their mean over people. `families` are of the people in order.
    """
    which = classes.unique()
    mine = torch.isin(labels, which)
    own, labels = real[mine], labels[mine]
    values: dict[str, Measure] = {}
    missing: dict[str, str] = {}
    try:
        values["fid"] = realism.fid_over_people(own, labels, fake, classes)
    except UserError as error:
        missing["fid"] = str(error)
    try:
        if published:
            pairs = zip(recognition.rows_of(labels, which), recognition.rows_of(classes, which))
            each = [realism.manifold(own[mine], fake[theirs], published=True) for mine, theirs in pairs]
            tables = dict(zip(MANIFOLD, torch.tensor([tuple(asdict(one).values()) for one in each]).T))
        else:
            tables = {
                name: recognition.per_class(found, classes if name in ("precision", "density") else labels, which)
                for name, found in realism.by_image(own, fake).items()
            }
        values |= {
            name: evidence.interval(table, rate=METRICS[name].rate, clusters=families) for name, table in tables.items()
        }
    except UserError as error:
        missing |= dict.fromkeys(MANIFOLD, str(error))
    if "recall" in values and len(fake) < FEW_IMAGES * len(which):
        del values["recall"]
        missing["recall"] = f"of fewer than {FEW_IMAGES} images a person recall is 1 whatever they show"
    return values, missing


def _title(network: nn.Module) -> str:
    """What a network calls itself, else its class."""
    return str(getattr(network, "title", type(network).__name__))


def _no_numbers(seen: Seen) -> Iterator[str]:
    """What the judge and the attacked model answer that is NaN or infinite."""
    for who, values, then in (
        ("the judge answers", torch.cat([seen.features, seen.logits], 1), "such an image is taken for nobody"),
        ("the attacked model answers", seen.reconstruction.confidence[:, None], "their mean says nothing"),
    ):
        broken = int((~values.isfinite()).any(1).sum())
        if broken:
            yield f"{who} {broken} of {len(values)} images with NaN or infinity: {then}"


def _smaller(reconstruction: Reconstruction, prior: Prior | None) -> Iterator[str]:
    """That judges saw less than the prior draws, for it was not given or takes other latents."""
    shown = reconstruction.drawn_by(prior)
    seen = shown.prior.size if shown.prior else shown.found.size
    if seen < (drawn := reconstruction.drawn_at):
        yield f"judged at the {seen} pixels that the target saw, but their prior draws {drawn}: give it to judge those"


def _unanswered(reconstruction: Reconstruction, evaluation: Evaluation) -> Iterator[str]:
    """Whom the numbers leave out, and what is found of everybody who was attacked."""
    asked = reconstruction.asked.tolist() if reconstruction.asked is not None else []
    missing = len({*asked, *reconstruction.failures} - set(evaluation.classes))
    found = len(evaluation.classes)
    if missing:
        of_all = [
            f"{METRICS[name].label} {sum(evaluation.per_class[name]) / (found + missing):.1%}"
            for name in ("hits@1", "true@1")
            if name in evaluation.per_class
        ]
        shares = ", ".join(of_all)
        yield f"{UNANSWERED} {missing} of {found + missing} people, whom these numbers leave out; of all: {shares}"


def _warnings(evaluation: Evaluation) -> Iterator[str]:
    accuracy, people, best = evaluation.judge_accuracy.value, len(evaluation.classes), evaluation.appraiser
    if accuracy < GOOD_JUDGE:
        wanted = f"wanted: {GOOD_JUDGE:.0%}"
        yield f"the judge is right on only {accuracy:.1%} of a person's test images on average ({wanted})"
    if people < FEW_PEOPLE:
        yield f"only {people} people were attacked: intervals are wide"
    if best is not None:
        yield (
            f"the truth is estimated from images: of true photographs the attribute regressor verifies "
            f"{best.verified:.0%}, at an error of {best.error:.2f}; no reconstruction can be expected to score better"
        )
    if evaluation.family_match_rate is not None:
        yield (
            f"verification takes {evaluation.family_match_rate:.0%} of look-alikes for the person, where it takes "
            f"{evaluation.chance['verified']:.1%} of strangers: who it is, only '{METRICS['true@1'].label}' and "
            f"'{METRICS['member@1'].label}' say here"
        )
    yield from map(str, not_shown([evaluation]))


def _families(population: Population, which: Tensor) -> Tensor | None:
    """The family of each of these people; None where nobody looks alike."""
    return None if population.families is None else population.families[which]


def _check(reconstruction: Reconstruction, judge: Classifier, population: Population) -> None:
    classes, people = reconstruction.classes, population.classes
    if not len(reconstruction):
        raise UserError("there is nothing to evaluate: the reconstruction holds no images")
    problems = []
    if judge.classes != people:
        problems.append(f"the judge knows {judge.classes} classes, the population has {people}")
    if people < 2:
        problems.append("one person cannot be told from anybody: at least 2 classes are needed")
    if int(classes.min()) < 0 or int(classes.max()) >= people:
        problems.append(f"classes must be 0 to {people - 1}, got {int(classes.min())} to {int(classes.max())}")
    lost = sum(int((~piece.flatten(1).isfinite()).any(1).sum()) for piece in reconstruction.latents.split(PIECE))
    if lost:
        problems.append(f"the latents of {lost} of {len(classes)} images are not finite, so their searches diverged")
    pieces = reconstruction.pixels.split(PIECE) if reconstruction.pixels.is_floating_point() else ()
    ends = [float(end) for piece in pieces for end in piece.aminmax()]
    if not all(map(isfinite, ends)):
        problems.append("some images are not finite")
    elif ends and (min(ends) < -1e-3 or max(ends) > 1 + 1e-3):
        problems.append(f"images must lie in [0, 1], got {min(ends):.3g} to {max(ends):.3g}")
    if problems:
        raise UserError("this reconstruction cannot be evaluated: " + "; ".join(problems))


def _check_prior(found: Reconstruction, prior: Prior | None) -> None:
    """UserError unless what the prior draws again of the first latents looks as what was kept of them."""
    drawn = found.drawn_by(prior)
    if drawn.prior is None:
        return
    index = torch.arange(min(4, len(found)))
    apart = float((resized(drawn.floats(index).cpu(), found.size) - found.floats(index).cpu()).abs().mean())
    if not apart < OTHER:
        raise UserError(
            f"the prior draws other images of these latents than the attack kept (colours are {apart:.2f} apart); give "
            "the one that the attack searched in"
        )


@dataclass(frozen=True)
class EightBit:
    """Images as the 64-pixel attacks hand them to their judge."""

    images: Images | Drawn
    size: int

    def __len__(self) -> int:
        return len(self.images)

    def floats(self, index: Tensor, device: torch.device | None = None) -> Tensor:
        """The images at `index`, float32 in [0, 1] at 256 levels, on `device`."""
        return eight_bit(self.images.floats(index), self.size).to(device or "cpu")


Pictures = Images | Drawn | EightBit  # of which some at a time can be had as floats


def _judged(judge: Classifier, images: Pictures) -> tuple[Tensor, Tensor]:
    """The judge's features and logits."""
    both = _read(judge, images, lambda batch: torch.cat(judge.features_and_logits(batch), 1))
    return both[:, : -judge.classes], both[:, -judge.classes :]


def _read(
    network: nn.Module,
    images: Pictures,
    function: Callable[[Tensor], Tensor] | None = None,
    batch: int = 128,
) -> Tensor:
    """What `function` (the network itself by default) gives for the images, N x D, with the network in eval mode."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:

        def outputs(rows: slice) -> Tensor:
            seen = images.floats(torch.arange(len(images))[rows], device)
            return (function or network)(seen).flatten(1).float().cpu()

        with torch.no_grad():
            return in_pieces(outputs, len(images), batch)
    finally:
        for module, training in modes:
            module.training = training
