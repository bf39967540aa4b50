"""An audit from what somebody brings to tasks: what is read, who attacks, who judges, and what it will cost."""

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch

from lightleak import priors
from lightleak.attacks import GUARDS, Access, Guard, Oracle
from lightleak.attacks.adaptive import defended_by
from lightleak.attacks.frame import grants
from lightleak.audit import photographs
from lightleak.audit.brought import Brought, Examined, estimating, examine, normalised
from lightleak.audit.ensemble import BUDGETS, BudgetName, Ensemble, Member, PriorTask, ensemble
from lightleak.audit.exposures import Exposure, exposures
from lightleak.audit.measure import GALLERY, Embed, JudgeQuality, Measure, Verified
from lightleak.audit.record import sha256
from lightleak.data.division import FEWEST
from lightleak.data.listed import overlapping, read_list, unmatched
from lightleak.data.population import Population
from lightleak.errors import UserError
from lightleak.fingerprint import weights_of
from lightleak.forecast import timed
from lightleak.metrics import verification
from lightleak.models.classifier import Classifier
from lightleak.models.recogniser import FACES, Recogniser, embedded, faces_file, recogniser
from lightleak.models.zoo import build
from lightleak.study.task import Task
from lightleak.study.tasks import Draw, Given, Redivided, Rendered, ready, source

NAMED = 10  # people named in a line
SQUARES = (8, 16, 32, 64, 128)  # pixels a side that a fitted GAN draws


@dataclass(frozen=True)
class Order:
    """What somebody wants audited; what is declared is theirs to say and is never inferred."""

    brought: Brought
    data: str  # folder:PATH, faces, digits ...
    settings: Mapping[str, Any] = field(default_factory=dict)  # private, public, classes ...
    train_list: Path | None = None
    access: Access = "gradients"
    budget: BudgetName = "tiny"
    guard: Guard | None = None
    # None: none; "auto": the extra `faces` where it is installed and people are shown; several: see `recognisers.RULE`
    recogniser: str | tuple[str, ...] | None = "auto"
    rate: float | None = None  # false match rate; None: 1 in 1,000 or the strictest that the data carry
    prior: str | None = None  # a folder, or "rendered"; None: fitted to the public pictures
    uncut: str | None = None  # the architecture before surgery
    subjects: str = "people"  # what classes are: people, or anything else
    seed: int = 0
    declared: Mapping[str, str] = field(
        default_factory=dict
    )  # name, release, consent, special category, variants, privacy
    defended: tuple[str, ...] | None = None  # what attackers know of its defences; None: what the checkpoint says
    exposures: bool = False  # whether the same attacks are also run behind each way of answering


@dataclass(frozen=True)
class Prepared:
    """An audit whose model has been held against its pictures, with every task that is left to do."""

    order: Order  # with the normalisation stated
    classifier: Classifier
    population: Population  # at the size at which attackers, judges and the recogniser see it
    audited: tuple[int, ...]  # who is attacked: whoever can be known by held-out pictures, or all if nearly nobody can
    examined: Examined
    target: Given
    ensemble: Ensemble
    embeds: tuple[Embed, ...]  # by recogniser, as named
    measures: Mapping[str, Measure]  # by member
    qualities: tuple[JudgeQuality, ...]
    warnings: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # why recognisers cannot take part
    exposures: tuple[Exposure, ...] = ()
    behind: Mapping[str, Mapping[str, Measure]] = field(default_factory=dict)  # by exposure and member
    unmatched: int | None = None  # pictures on the training list that match none; None without such a list

    @property
    def tasks(self) -> list[Task]:
        """What is to be run; the rest follows."""
        behind = [one for each in self.behind.values() for one in each.values()]
        measured = [*self.measures.values(), *behind]
        further = [Verified(one, embed) for embed in self.embeds[1:] for one in measured]
        return [*self.embeds, *self.qualities, *measured, *further]

    @property
    def everybody(self) -> tuple[Member, ...]:
        """The members of the ensemble, and those behind each exposure."""
        return (*self.ensemble.members, *(one for each in self.exposures for one in each.ensemble.members))


def prepare(order: Order, out: Path, watch=None) -> Prepared:
    """Read the model, hold it against the pictures, and plan; UserError before anything long begins."""
    plan = BUDGETS[order.budget]
    with estimating():
        classifier = order.brought.open()
    settings = dict(order.settings)
    if order.data.startswith("folder:") and "classes" not in settings and classifier.class_names:
        settings["classes"] = list(classifier.class_names)
    seen = max(classifier.size, 16)
    full = _draw(order, settings | {"size": seen}).drawn(watch)
    brought, said, doubts = normalised(order.brought, full)
    order = replace(order, brought=brought, settings=settings)
    classifier = brought.open()
    examined = examine(classifier, full, said, out)

    size = min(seen, plan.pixels)
    if order.prior is None:
        size = next((side for side in SQUARES if side >= size), SQUARES[-1])
    draw = _draw(order, settings | {"size": size})
    population = full if size == full.size else draw.drawn(watch)
    if not len(population.public):
        raise UserError(
            "an audit needs pictures of people whom the model does not know, for the attacker's prior and as "
            "impostors; name them with --public folder:OTHER"
        )
    target = Given(
        draw, sha256(brought.file), sha256(brought.net.rpartition(":")[0]) if brought.net else "", brought.size,
        brought.mean, brought.std, brought.entry, order.guard, brought.output, net=brought.net, file=brought.file,
    )  # fmt: skip
    prior = _prior(order, draw, classifier)
    told = defended_by(classifier, Oracle(classifier).noisy) if order.defended is None else order.defended
    cut = {"rolss", "rolss+", "ssf", "tts"} & set(told)
    uncut = order.uncut or (classifier.architecture if cut else None)
    if uncut:
        build(uncut, classifier.classes, size)  # said now, not when a copy of it is to be taught
    known = (*told, *([name for name, kind in GUARDS.items() if type(order.guard) is kind]))
    people = photographs.known(population).tolist()
    able = len(people) >= FEWEST
    audited = tuple(people) if able else tuple(range(population.classes))
    classes = audited if len(audited) < population.classes else None
    group = ensemble(
        target, order.access, order.budget, prior, order.seed, uncut, classes, defended=known,
        model=classifier, mirrored=order.subjects == "people", side=population.size,
    )  # fmt: skip
    judges = group.judges if able and len(population.validation) and len(population.test) else ()
    group = replace(group, judges=judges)
    found, why = _recognisers(order)
    asked = tuple(Embed(draw, one, order.rate, order.seed) for one in found) if able else ()
    why = (*why, *dict.fromkeys(line for one in asked for line in _checked(one, population)))
    embeds = () if why else asked
    embed = embeds[0] if embeds else None
    access = order.access if order.guard is None else ("labels" if order.guard.labels else "scores")
    seen_as: Access = "labels" if access == "labels" else "scores"
    measures = {one.name: Measure(one.task, target, seen_as, judges, embed, order.seed) for one in group.members}
    if order.exposures and order.guard is not None:
        raise UserError("--exposures tries every guard by itself; leave --guard out")
    ways = exposures(target, order.budget, prior, order.seed, classes) if order.exposures else ()
    behind = {
        way.name: {
            one.name: Measure(one.task, way.target, way.sees, judges, embed, order.seed) for one in way.ensemble.members
        }
        for way in ways
    }
    listed = None if order.train_list is None else read_list(order.train_list)
    missed = None if listed is None else len(unmatched(order.data, listed, population.size))
    overlap = overlapping(missed, "test and judge", "the ceiling")
    warnings = (*doubts, *examined.warnings, *filter(None, (overlap,)), *_lacking(population))
    return Prepared(
        order,
        classifier,
        population,
        audited,
        examined,
        target,
        group,
        embeds,
        measures,
        tuple(map(JudgeQuality, judges)),
        warnings,
        why,
        ways,
        behind,
        missed,
    )


def _draw(order: Order, settings: Mapping[str, Any]) -> Draw:
    if order.train_list is None:
        return source(order.data, **settings)
    read_list(order.train_list)
    read, mark = source(order.data, **settings), sha256(order.train_list)
    return Redivided(read.source, read.settings, read.contents, mark, str(order.train_list))


def _prior(order: Order, draw: Draw, classifier: Classifier) -> PriorTask | None:
    """The attacker's generator, if one is brought; UserError if it learnt of another model, or of more than granted."""
    if order.prior is None:
        return None
    if order.prior == "rendered":
        return Rendered(draw)
    found, made = ready(order.prior), priors.learnt(order.prior)
    if priors.target_of(order.prior) not in ("", weights_of(classifier.net)):
        raise UserError(f"the prior in {order.prior} was made for another model; fit one for this model")
    if made and not grants(order.access, cast(Access, made[0])):
        raise UserError(f"attackers are granted {order.access}, but the prior in {order.prior} learnt of {made[0]}")
    return found


def _recognisers(order: Order) -> tuple[tuple[Recogniser, ...], tuple[str, ...]]:
    """The recognisers asked for, in that order, and why there is none; UserError for one that is named twice."""
    if order.recogniser is None:
        return (), ()
    if order.recogniser != "auto":
        named = (order.recogniser,) if isinstance(order.recogniser, str) else order.recogniser
        found = tuple(map(recogniser, named))
        twice = next((name for name, one in zip(named, found) if found.count(one) > 1), None)
        if twice is not None:
            raise UserError(f"the recogniser {twice} is named twice; several are asked to hear several")
        return found, ()
    if order.subjects != "people":
        return (), ()
    if faces_file() is None:
        return (), ("no recogniser is installed: pip install 'lightleak[faces]', or name a file with --recogniser",)
    return (recogniser(FACES),), ()


def _lacking(population: Population) -> tuple[str, ...]:
    """What is not held out, though people are to be known by it and judges chosen and tested, a line each."""
    known, lines = set(photographs.known(population).tolist()), []
    absent = [name for person, name in enumerate(population.class_names) if person not in known]
    if absent:
        who = ", ".join(absent[:NAMED]) + (" ..." if len(absent) > NAMED else "")
        told = (
            "they are not audited"
            if len(known) >= FEWEST
            else "neither judges nor a recogniser can take part, and whether anybody is shown cannot be said"
        )
        lines.append(
            f"{len(absent)} of {population.classes} people have no held-out picture to be known by ({who}), so {told}; "
            "add pictures of them that the model was not trained on."
        )
    if len(known) >= FEWEST and not (len(population.validation) and len(population.test)):
        lines.append("Too few pictures are held out to choose judges and to test them, so none takes part.")
    return tuple(lines)


def _checked(embed: Embed, population: Population) -> tuple[str, ...]:
    """Why a recogniser that does embed these pictures cannot be calibrated; UserError if it does not embed them."""
    features = embedded(embed.recogniser.load(), population.judge.pixels[:2])
    if not features.isfinite().all():
        raise UserError(f"the recogniser {embed.recogniser.title} gives NaN or infinity for these pictures")
    who, scores = len(population.public.labels.unique()), len(population.public) * len(photographs.known(population))
    if embed.rate is not None:
        verification.check_rate(embed.rate, scores, who)
    if verification.carried(scores, who):
        return ()
    return (
        f"the recogniser cannot be calibrated: that takes pictures of at least {verification.LEAST_PEOPLE} people whom "
        f"the model does not know (--public), and there are {who} ({scores:,} claims)",
    )


@dataclass(frozen=True)
class Cost:
    """What an audit will take, roughly."""

    seconds: float  # of one process
    memory: int  # bytes of one process
    queries: Mapping[str, int]  # images shown to the model, by member
    passes: Mapping[str, int]  # of those, the ones that gradients go back through


def cost(prepared: Prepared) -> Cost:
    """An estimate: a few passes of the model are timed, everything else is counted."""
    plan, model, population = BUDGETS[prepared.order.budget], prepared.classifier, prepared.population
    images = population.train.floats(torch.arange(min(32, len(population.train)))).to(model.device)
    both = timed(lambda: model(images.requires_grad_()).sum().backward()) / len(images)
    one = both / 3
    people, queries, passes, seconds = len(prepared.audited), {}, {}, 0.0
    for member in prepared.everybody:
        asked, back = _queries(member, people)
        on_model = member.copy is None
        queries.setdefault(member.name, asked if on_model else len(population.public))
        passes.setdefault(member.name, back if on_model else 0)
        seconds += asked * one + back * (both - one)
    shown = sum(one.recipe.epochs * one.recipe.passes(len(population.judge)) for one in prepared.ensemble.judges)
    judging = shown * len(population.judge) * 0.01 * (population.size / 64) ** 2
    copies = (
        len({m.copy.key for m in prepared.everybody if m.copy}) * plan.lessons.epochs * len(population.public) * 0.01
    )
    embedding = 0.085 * (len(population.public) + len(population.test) + 2 * GALLERY * people)
    prior = 40.0 if prepared.order.prior is None else 0.0
    seconds += judging + copies + prior + embedding * len(prepared.embeds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(seconds, peak, queries, passes)


def _queries(member: Member, people: int) -> tuple[int, int]:
    """Images that a member shows, and those among them with gradients."""
    attack = member.attack
    return attack.images_shown(people), people * attack.images_searched if attack.access == "gradients" else 0
