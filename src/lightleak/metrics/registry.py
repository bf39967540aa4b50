"""Every metric by name, in the order in which pages show them. A new one is a function and an entry here.

A function takes what was seen of a reconstruction (`Seen`) and gives a value per image, per person or of the whole set.
"""

from collections.abc import Callable

from torch import Tensor

from lightleak.metrics import recognition
from lightleak.metrics.evidence import Measure
from lightleak.metrics.metric import Metric, Place, Seen, Unmeasured
from lightleak.metrics.truth import Truth, Yardstick
from lightleak.place import here
from lightleak.plugins import Registry

Of = Callable[[Seen], Tensor]
Chance = Callable[[Seen], float | None]


def _few(k: int, seen: Seen) -> None:
    if k >= seen.population.classes:
        raise Unmeasured(f"{k} guesses among {seen.population.classes} people say nothing")


def _hits(k: int) -> Of:
    def of(seen: Seen) -> Tensor:
        _few(k, seen)
        return recognition.hits(seen.logits, seen.classes, k)

    return of


def _held(seen: Seen) -> Truth:
    """The images against the truth, if anybody knows it."""
    if seen.population.factors is None:
        raise Unmeasured(f"nobody knows the true factors of '{seen.population.name}'")
    if seen.truth is None:
        raise Unmeasured("neither factors= nor attribute_regressor= was given")
    return seen.truth


def _true(read: Callable[[Truth], Tensor]) -> Of:
    return lambda seen: read(_held(seen))


def _match(k: int) -> Of:
    def of(seen: Seen) -> Tensor:
        held = _held(seen)
        _few(k, seen)
        return held.rank < k

    return of


def _kin(read: Callable[[Truth], Tensor | None]) -> Of:
    def of(seen: Seen) -> Tensor:
        found = read(_held(seen))
        if found is None:
            raise Unmeasured(f"nobody in '{seen.population.name}' is known to look like anybody else")
        return found

    return of


def _judge_only(seen: Seen) -> Tensor:
    held = _held(seen)
    return recognition.hits(seen.logits, seen.classes, 1) & ~held.verified


def _knowledge(seen: Seen) -> Tensor:
    if seen.student is None:
        raise Unmeasured("no student was given (student=)")
    from lightleak.metrics.knowledge import extracted  # trains networks: nothing that a report should wait for

    return extracted(seen.student, seen.population, seen.which)


def _delta_eval(seen: Seen) -> Tensor:
    return _nearest(seen.features, seen.known.features, seen)


def _delta_face(seen: Seen) -> Tensor:
    if seen.embedded is None or seen.known.faces is None:
        raise Unmeasured("no face embedding was given (face_embedding=)")
    return _nearest(seen.embedded, seen.known.faces, seen)


def _nearest(features: Tensor, private: Tensor, seen: Seen) -> Tensor:
    rows = here().exact.put(features)
    return recognition.nearest(rows, seen.classes, private, seen.known.labels).cpu()


def _of_set(name: str) -> Callable[[Seen], Measure]:
    def of(seen: Seen) -> Measure:
        if name not in seen.realism:
            raise Unmeasured(seen.unreal.get(name, "no feature network was given (inception=)"))
        return seen.realism[name]

    return of


def _guess(k: int) -> Chance:
    return lambda seen: k / seen.population.classes


def _by_scale(read: Callable[[Yardstick], float]) -> Chance:
    return lambda seen: None if seen.scale is None else read(seen.scale)


def _sizes(seen: Seen) -> Tensor | None:
    """How many look alike in each attacked person's family."""
    families = seen.population.families
    return None if families is None else (families[seen.which][:, None] == families).sum(1).double()


def _family(seen: Seen) -> float | None:
    sizes = _sizes(seen)
    return None if sizes is None else float(sizes.mean()) / seen.population.classes


def _member(seen: Seen) -> float | None:
    sizes = _sizes(seen)
    return None if sizes is None else float((1 / sizes).mean())


MAIN: tuple[Place, ...] = (
    "table",
    "difference",
    "curve",
    "record",
    "chance",
    "essential",
)  # what papers and the truth are read by

OURS = {
    "hits@1": Metric(
        "AttAcc@1",
        "the judge sees the right person",
        1,
        True,
        of=_hits(1),
        chance=_guess(1),
        shown=MAIN,
        words="recognised by the judge",
        explanation="Attack accuracy as papers report it: a second classifier, the judge, trained on other images "
        "of the same people, names each reconstruction, and we count how often it names the right "
        "person. The judge must choose among the private people, so anything that is nearest to the "
        "right one counts, also if it resembles nobody. Among few people this flatters the attack.",
    ),
    "hits@5": Metric(
        "AttAcc@5",
        "the right person is among the judge's five best",
        1,
        True,
        of=_hits(5),
        chance=_guess(5),
        explanation="As AttAcc@1, but the right person need only be among the judge's five best guesses. With ten "
        "people, half of all guesses succeed.",
    ),
    "verified": Metric(
        "verified",
        "the person passes verification at the false match rate",
        1,
        True,
        of=_true(lambda held: held.verified),
        chance=_by_scale(lambda scale: scale.false_match_rate),
        shown=MAIN,
        words="taken for the person",
        explanation="Biometric verification against the truth: the identity factors of the reconstruction are "
        "compared with the person's, and it passes if they are closer than all but one in a thousand "
        "pairs of random people. This does not depend on how many people the target knows, and it is "
        "the strictest number here.",
    ),
    "true@1": Metric(
        "true match @1",
        "nearest to the right one of the private people",
        1,
        True,
        of=_match(1),
        chance=_guess(1),
        shown=MAIN,
        words="most like the right person",
        explanation="Among the private people, the reconstruction's identity factors are nearest to the right "
        "person's. Like AttAcc@1 it is a choice among few people, but made by the truth instead of a "
        "network.",
    ),
    "true@5": Metric(
        "true match @5",
        "the right one is among the five nearest private people",
        1,
        True,
        of=_match(5),
        chance=_guess(5),
        explanation="As true match @1, with five guesses.",
    ),
    "family@1": Metric(
        "right family",
        "nearest to the person or to one of the person's look-alikes",
        1,
        True,
        of=_kin(lambda held: held.family),
        chance=_family,
        shown=("table", "record"),
        explanation="Where private people look alike, in families: the nearest of the private people is the person "
        "or a look-alike. To score here, the family is enough.",
    ),
    "member@1": Metric(
        "right member",
        "told the family, nearest to the right one of its members",
        1,
        True,
        of=_kin(lambda held: held.member),
        chance=_member,
        shown=("table", "difference", "record", "chance", "essential"),
        words="the right one of look-alikes",
        explanation="Told the family of look-alikes that the person belongs to, the reconstruction is nearest to "
        "the right one of its members. Chance is one over their number, also for whoever knows the "
        "family: only more than that says something of the person.",
    ),
    "stranger@1": Metric(
        "match among 1,000 @1",
        "nearer to the person than to 1,000 strangers",
        1,
        True,
        of=_true(lambda held: held.rank_among_strangers < 1),
        chance=_by_scale(lambda scale: 1 / (len(scale.strangers) + 1)),
        shown=("table", "record"),
        explanation="The right person is hidden among 1,000 people who were in no data set; the reconstruction must "
        "be nearest to the right one. An attacker who searches a city rather than a list of suspects is "
        "in this situation.",
    ),
    "error": Metric(
        "error",
        "distance from the person, 1 = a random person's",
        -1,
        of=_true(lambda held: held.error),
        chance=_by_scale(lambda _: 1.0),
        shown=("table", "difference", "record"),
        explanation="Distance between the reconstruction's identity factors and the person's, where each factor "
        "counts by what it changes in a picture. 0 is the person, 1 is what a random person would get. "
        "Lower is a worse leak.",
    ),
    "confidence": Metric(
        "confidence",
        "the attacked model's own confidence",
        0,
        True,
        of=lambda seen: seen.reconstruction.confidence,
        explanation="The attacked model's own confidence in the reconstruction. The attack raises it on purpose, so it "
        "says how well the optimisation went, not how much was found.",
    ),
    "knowledge": Metric(
        "KES",
        "accuracy on private photographs of a student taught by reconstructions",
        1,
        True,
        of=_knowledge,
        over="people",
        chance=_guess(1),
        explanation="A student network is taught by the reconstructions alone and tested on private photographs: "
        "what it gets right, it can only have learnt from what leaked. Compare it with the student of "
        "the null.",
    ),
    "delta_eval": Metric(
        "delta_eval",
        "squared judge-feature distance to the nearest private image",
        -1,
        of=_delta_eval,
        explanation="Squared distance in the judge's features to the nearest private image of the person, also "
        "called KNN distance. Comparable only between targets that share the judge.",
    ),
    "delta_face": Metric(
        "delta_face",
        "squared face-embedding distance to the nearest private image",
        -1,
        of=_delta_face,
        explanation="Distance in a face-recognition network's features to the nearest private image of the person.",
    ),
    "fid": Metric(
        "FID",
        "Fréchet distance to the private images",
        0,
        of=_of_set("fid"),
        over="set",
        explanation="How far the reconstructions as a set are from the private images. It depends on the feature "
        "network and on the number of images; compare it within this page only.",
    ),
    "precision": Metric(
        "precision", "share of reconstructions among the private images", 0, True, of=_of_set("precision"), over="set"
    ),
    "recall": Metric(
        "recall", "share of private images among the reconstructions", 0, True, of=_of_set("recall"), over="set"
    ),
    "density": Metric(
        "density", "private neighbourhoods around a reconstruction", 0, of=_of_set("density"), over="set"
    ),
    "coverage": Metric(
        "coverage", "share of private images with a reconstruction nearby", 0, True, of=_of_set("coverage"), over="set"
    ),
    "judge_only": Metric(
        "judge only",
        "the judge sees the person, verification does not",
        0,
        True,
        of=_judge_only,
        shown=(),
        explanation="Reconstructions that the judge accepts and verification does not: false positives behind a "
        "high attack accuracy.",
    ),
    "stranger@5": Metric(
        "match among 1,000 @5",
        "at most four of 1,000 strangers are nearer",
        1,
        True,
        of=_true(lambda held: held.rank_among_strangers < 5),
        chance=_by_scale(lambda scale: 5 / (len(scale.strangers) + 1)),
        shown=(),
        explanation="As above, with five guesses.",
    ),
    "judge_fid": Metric(
        "FID over judge features",
        "Fréchet distance, as the judge sees images",
        0,
        of=_of_set("judge_fid"),
        over="set",
        shown=(),
        explanation="How far the reconstructions as a set are from the private images, in the judge's own features. "
        "It is no FID in the usual sense and compares only within this page.",
    ),
    "judge_precision": Metric(
        "precision (judge)",
        "precision over the judge's features",
        0,
        True,
        of=_of_set("judge_precision"),
        over="set",
        shown=(),
    ),
    "judge_recall": Metric(
        "recall (judge)", "recall over the judge's features", 0, True, of=_of_set("judge_recall"), over="set", shown=()
    ),
    "judge_density": Metric(
        "density (judge)", "density over the judge's features", 0, of=_of_set("judge_density"), over="set", shown=()
    ),
    "judge_coverage": Metric(
        "coverage (judge)",
        "coverage over the judge's features",
        0,
        True,
        of=_of_set("judge_coverage"),
        over="set",
        shown=(),
    ),
}
METRICS: Registry[Metric] = Registry(
    "lightleak.metrics", OURS, lambda thing: isinstance(thing, Metric), "lightleak.metrics.metric.Metric"
)


def shown_in(place: Place) -> tuple[str, ...]:
    """The metrics that stand in a place of the report."""
    return tuple(name for name, metric in METRICS.items() if place in metric.shown)
