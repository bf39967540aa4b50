"""From finished tasks to the record: everything that is said of an audit, in one place."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from lightleak.attacks import Access
from lightleak.audit import mapping, photographs, recognisers
from lightleak.audit.answer import Answer, Found, answer, shows_by
from lightleak.audit.ensemble import Member
from lightleak.audit.exposures import compared
from lightleak.audit.measure import Measure, Verified
from lightleak.audit.plan import Prepared
from lightleak.audit.recognisers import Opinion
from lightleak.audit.record import pictures, sha256
from lightleak.metrics.evidence import wilson
from lightleak.models.recogniser import Recogniser
from lightleak.ranking import or_lowest
from lightleak.study.task import Store, commit, device, plain, versions, with_needs
from lightleak.study.tasks import Ready

PURPOSE = (
    "How far images of the people whom a model was trained on can be got out of it, measured by attacking it. The "
    "record states what was done and found; it is no certificate and no legal assessment."
)
BY_RECOGNISER = ("score", "verified", "named", "gap", "as_others", "curve")  # of what a Measure holds
AGAIN = 365  # days until the next test at the latest
EXPOSED: dict[Access, str] = {
    "gradients": "weights: whoever holds them has gradients, scores and labels",
    "scores": "scores: the probability of every class",
    "labels": "labels: the most probable class alone",
}
COST = (
    "What defences cost in accuracy is not measured here, as the undefended model was not brought; what a guard or "
    "another way of answering changes in what is shown is in 'exposures', where it was asked for."
)


def record(prepared: Prepared, store: Store, command: str) -> tuple[dict[str, Any], Answer]:
    """The record without its page's hash and its seal, and the answer in it."""
    qualities = {one.judge.architecture: store.result(one)["accuracy"] for one in prepared.qualities}
    order, population = prepared.order, prepared.population
    sees = {one.name: one.sees for one in prepared.ensemble.members}

    def of(found: list[Found], embed: Mapping[str, Any] | None) -> Answer:
        return answer(
            found, sees, embed, qualities, population.classes, _word(prepared), order.seed, prepared.examined.knows
        )

    embeds = [store.result(one) for one in prepared.embeds]
    first = recognisers.deciding(embeds)
    embed = embeds[first] if embeds else None
    every = [_members(prepared.measures, prepared, store, place) for place in range(max(1, len(embeds)))]
    found, opinions = every[first], []
    for task, one, members in zip(prepared.embeds, embeds, every):
        own = of(members, one) if "calibration" in one else None
        opinions.append(Opinion(task.recogniser.title, task.recogniser.sha256, one, members, own))
    told = of(found, embed or {"missing": "; ".join(prepared.without)})
    fit = [name for name in qualities if name not in told.unfit]
    spent = _spent(prepared, store)
    people = store.result(next(iter(prepared.measures.values())))["people"]
    whole = {
        "purpose": PURPOSE,
        "answer": told.to_json(),
        "warnings": [*told.warnings, *recognisers.warnings(opinions, first), *prepared.warnings],
        "model": _model(prepared),
        "subjects": _subjects(prepared),
        "release": _release(prepared),
        "coverage": _coverage(prepared, store),
        "members": [
            {
                "name": one.name,
                "null": one.null,
                "control": one.control,
                "sees": sees[one.name],
                **(counted := _counted(one, told, fit)),
                **spent[one.name],
                "queries_to_first": _to_first(one.name, counted["shows"], len(one.confidence), prepared, store),
                "curve": _result(prepared.measures[one.name], prepared, store, first).get("curve"),
                "settings": repr(prepared.measures[one.name].found.attack),
            }
            for one in found
        ],
        "exposures": _exposures(prepared, store, told, fit, first),
        "people": _people(prepared, told, found, embed, people),
        "verification": embed or {"missing": "no recogniser took part"},
        "recognisers": recognisers.section(opinions, first),
        "judges": {
            "accuracy": qualities,
            "fit_from": 0.95,
            "agreement": told.agreement,
        },
        "measures": {
            "taken": list(prepared.classifier.changes) or "none known",
            "training": prepared.classifier.record.get("privacy") or "no differential privacy is recorded",
            "privacy_declared": order.declared.get("privacy", "not declared"),
            "guard": _guard(prepared),
            "cost": COST,
        },
        "residual_risk": told.residual,
        "limits": list(mapping.LIMITS),
        "mapping": [dict(row) for row in mapping.FRAMEWORKS],
        "provenance": {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "next_test": (datetime.now(UTC) + timedelta(days=AGAIN)).date().isoformat(),
            "command": command,
            "seed": order.seed,
            "versions": versions(),
            "commit": commit(),
            "device": device(),
            "seconds": sum(store.made(one)["seconds"] for one in with_needs(prepared.tasks) if store.done(one)),
        },
        "hashes": _hashes(prepared, store, first),
    }
    return plain(whole), told  # what is no number is not known


def _guard(prepared: Prepared) -> str:
    return repr(prepared.order.guard) if prepared.order.guard else "none"


def _subjects(prepared: Prepared) -> dict[str, Any]:
    order, population, who = prepared.order, prepared.population, torch.tensor(prepared.audited)
    each = torch.bincount(population.train.labels, minlength=population.classes)[who]
    held_out = (population.validation, population.test, population.judge)
    return {
        "what": order.subjects,
        "number": len(who),
        "not_audited": [name for person, name in enumerate(population.class_names) if person not in prepared.audited],
        "training_pictures": int(each.sum()),
        "training_pictures_each": {"least": int(each.min()), "most": int(each.max())},
        "held_out_pictures": sum(len(photographs.only(images, who)) for images in held_out),
        "public_people": len(population.public.labels.unique()),
        "public_pictures": len(population.public),
        "training_list_given": order.train_list is not None,
        "training_list_unmatched": prepared.unmatched,
        "division": population.division,
        "notes": list(population.notes),
        "consent": order.declared.get("consent", "not declared"),
        "special_category": order.declared.get("special_category", "not declared"),
    }


def _release(prepared: Prepared) -> dict[str, Any]:
    order = prepared.order
    return {
        "declared": order.declared.get("release", "not declared"),
        "variants": order.declared.get("variants", "not declared"),
        "access_tested": order.access,
        "exposed": EXPOSED[order.access] if order.guard is None else f"answers behind {_guard(prepared)}",
        "guard": _guard(prepared),
        "budget": order.budget,
        "prior": _prior(prepared),
        "attackers_knowledge": (
            f"the classes, and {len(prepared.population.public)} pictures of other {_word(prepared)}; "
            f"prior: {_prior(prepared)}"
        ),
    }


def _prior(prepared: Prepared) -> str:
    return prepared.order.prior or "a generator fitted to those pictures"


def _word(prepared: Prepared) -> str:
    return "people" if prepared.order.subjects == "people" else "classes"


def _coverage(prepared: Prepared, store: Store) -> list[dict[str, Any]]:
    """Each kind of attack with its state, and each attack of this kind: run, failed or not run."""
    rows = [{"attack": name, "state": state, "how": how} for name, state, how in mapping.ATTACKS]
    for one in prepared.ensemble.attacks:
        people = len(store.result(prepared.measures[one.name])["people"])
        failed = len(store.result(one.task)["failures"])
        told = f"by {one.sees}" + (f"; found no image of {failed} of {people} {_word(prepared)}" if failed else "")
        rows.append({"attack": one.name, "state": "failed" if failed == people else "run", "how": told})
    with_knowledge = {
        "prior": _prior(prepared),
        "knowledge": _release(prepared)["attackers_knowledge"],
        "budget": prepared.order.budget,
    }
    rows = [row | with_knowledge if row["state"] in ("run", "failed") else row for row in rows]
    untried = prepared.ensemble.untried.items()
    return [*rows, *({"attack": name, "state": "not run", "how": why} for name, why in untried)]


def _result(measure: Measure, prepared: Prepared, store: Store, place: int) -> dict[str, Any]:
    """What was measured of a member's images, with what the recogniser at `place` says of them and no other."""
    result = store.result(measure)
    if place == 0:
        return result
    plain = {name: value for name, value in result.items() if name not in BY_RECOGNISER}
    return plain | store.result(Verified(measure, prepared.embeds[place]))


def _members(measures: Mapping[str, Measure], prepared: Prepared, store: Store, place: int) -> list[Found]:
    """Every member of the ensemble, by the recogniser at `place`."""
    return [_found(one, measures[one.name], prepared, store, place) for one in prepared.ensemble.members]


def _exposures(prepared: Prepared, store: Store, told: Answer, fit: list[str], place: int) -> list[dict[str, Any]]:
    """What the same attacks show behind each way of answering; empty unless that was asked for."""
    found, spent = {}, {}
    for way in prepared.exposures:
        measures, members = prepared.behind[way.name], way.ensemble.members
        found[way.name] = [_found(one, measures[one.name], prepared, store, place) for one in members]
        spent[way.name] = _together(members, store)
    return compared(found, told, fit, spent, prepared.order.seed)


def _queries(member: Member, store: Store) -> int:
    """Images that a member showed to the model itself."""
    if member.copy is not None:  # the attack asked the copy; the model, whoever taught the copy or made the prior
        return store.result(member.copy)["queries"] + _of_prior(member)
    result = store.result(member.task)
    return result["queries"] + sum(result["beforehand"].values())


def _of_prior(member: Member) -> int:
    """Images that the model was shown for the prior that was brought."""
    prior = member.task.prior
    return prior.queries if isinstance(prior, Ready) else 0


def _together(members: Sequence[Member], store: Store) -> int:
    """Images that members showed to the model, where what serves several of them was asked once."""
    spent: dict[str, int] = {}
    for one in members:
        if one.copy is not None:
            spent |= {one.copy.key: store.result(one.copy)["queries"], one.task.prior.key: _of_prior(one)}
            continue
        task, result = one.task, store.result(one.task)
        learnt = {"knowledge": task.knowledge, "prior": task.prior}
        before = {made.key: result["beforehand"][name] for name, made in learnt.items() if name in result["beforehand"]}
        scored = {task.scored.key: store.result(task.scored)["queries"]} if task.scored else {}
        spent |= {task.key: result["queries"] - sum(scored.values()), **scored, **before}
    return sum(spent.values())


def _to_first(name: str, shown: int, people: int, prepared: Prepared, store: Store) -> int | None:
    """Images shown to the model until the first person is shown, if people are attacked in random order, expected.

    What serves all people alike (a copy's lessons, scored candidates) comes first and whole; then of s people shown
    among n the first is the (n + 1) / (s + 1)-th on average. None where nobody is shown.
    """
    member = next(one for one in prepared.ensemble.members if one.name == name)
    if not shown:
        return None
    if member.copy is not None:
        return _queries(member, store)
    found, beforehand = member.task.load(store), sum(store.result(member.task)["beforehand"].values())
    each = (found.queries - found.shared) / people
    return round(beforehand + found.shared + each * (people + 1) / (shown + 1))


def _found(member: Member, measure: Measure, prepared: Prepared, store: Store, place: int) -> Found:
    result = _result(measure, prepared, store, place)

    def row(key: str):
        return tuple(result[key]) if key in result else None

    judges = {judge: tuple(values) for judge, values in result["judges"].items()}
    return Found(
        member.name,
        member.null,
        tuple(result["belief"]),
        judges,
        row("verified"),
        row("score"),
        row("gap"),
        member.control,
        row("named"),
        measure.there(store),
    )


def _counted(one: Found, told: Answer, fit: list[str]) -> dict[str, Any]:
    shows = shows_by(one, told.by, fit)
    return {
        "shows": sum(shows),
        "share": asdict(wilson(sum(shows), len(shows))) if told.by != "nobody" else None,
        "named": sum(one.named) if one.named is not None else None,
        "belief": sum(one.confidence) / len(one.confidence),
        "judges": {name: sum(values) / len(values) for name, values in one.judges.items()},
    }


def _spent(prepared: Prepared, store: Store) -> dict[str, dict[str, Any]]:
    """What each member cost: images shown to the model itself, and seconds."""
    spent = {}
    for one in prepared.ensemble.members:
        result, seconds = store.result(one.task), store.made(one.task)["seconds"]
        if one.copy is not None:
            seconds += store.made(one.copy)["seconds"]
        spent[one.name] = {
            "queries": _queries(one, store),
            "with_gradients": one.sees == "gradients" and one.copy is None,
            "seconds": seconds,
            "copy_agrees": store.result(one.copy)["agreement"] if one.copy is not None else None,
            "failures": {str(k): v for k, v in result["failures"].items()},
        }
    return spent


def _model(prepared: Prepared) -> dict[str, Any]:
    order, classifier, seen = prepared.order, prepared.classifier, prepared.examined
    return {
        "name": order.declared.get("name", Path(order.brought.file).name),
        "architecture": classifier.architecture or type(classifier.net).__name__,
        "made_by": order.brought.net,
        "task": "classification",
        "classes": classifier.classes,
        "size": list(classifier.sides or (classifier.size, classifier.size)),
        "parameters": sum(value.numel() for value in classifier.net.parameters()),
        "accuracy_on_training_pictures": asdict(seen.seen),
        "accuracy_on_held_out_pictures": asdict(seen.held_out) if seen.held_out else None,
        "calibration_error": seen.calibration_error,
        "overconfidence": seen.overconfidence,
        "mean": list(seen.mean),
        "std": list(seen.std),
        "normalisation": seen.normalised,
        "notes": list(seen.notes),
    }


def _people(prepared: Prepared, told: Answer, found: list[Found], embed: Any, people: list[int]) -> dict[str, Any]:
    """One row a person; the worst first."""
    by_name, rows = {one.name: one for one in found}, []
    for place, person in enumerate(people):
        one = by_name[told.chosen[place]]
        rows.append(
            {
                "name": prepared.population.class_names[person],
                "member": one.name,
                "shown": told.shows[place],
                "null_shown": told.null_shows[place],
                "belief": one.confidence[place],
                "score": one.score[place] if one.score else None,
                "judges": {name: values[place] for name, values in one.judges.items()},
                "held_out": embed["held_out"][place] if embed and "held_out" in embed else None,
                "model_names": prepared.examined.right[person],
                "members_that_show": sum(
                    shows_by(each, told.by, [n for n in each.judges if n not in told.unfit])[place]
                    for each in found
                    if not each.null and not each.control
                ),
            }
        )
    rows.sort(key=lambda row: (-row["shown"], -row["members_that_show"], -or_lowest(row["score"] or row["belief"])))
    spread = {name: _spread([row[name] for row in rows]) for name in ("belief", "score", "members_that_show")}
    return {"worst": rows[0]["name"], "spread": spread, "each": rows}


def _spread(values: list[float | None]) -> dict[str, float] | None:
    """Least, quartiles and most of what is known; None of nothing."""
    known = torch.tensor([float(value) for value in values if value is not None], dtype=torch.float64)
    if not len(known):
        return None
    marks = known.quantile(torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)).tolist()
    return dict(zip(("least", "lower_quartile", "median", "upper_quartile", "most"), marks))


def _recogniser(one: Recogniser) -> dict[str, str]:
    return {"title": one.title, "file": str(one.file), "sha256": one.sha256}


def _hashes(prepared: Prepared, store: Store, first: int) -> dict[str, Any]:
    order = prepared.order
    hashes: dict[str, Any] = {"model": {"file": order.brought.file, "sha256": prepared.target.weights}}
    if order.brought.net:
        file = order.brought.net.rpartition(":")[0]
        hashes["source"] = {"file": file, "sha256": prepared.target.source}
    for name, where in (("pictures", order.data), ("public_pictures", str(order.settings.get("public", "")))):
        if where.startswith("folder:"):
            hashes[name] = pictures(Path(where.partition(":")[2]).expanduser(), loose=name == "public_pictures")
    if order.train_list is not None:
        hashes["training_list"] = {"file": str(order.train_list), "sha256": sha256(order.train_list)}
    if prepared.embeds:
        hashes["recogniser"] = _recogniser(prepared.embeds[first].recogniser)
        hashes["recognisers"] = [_recogniser(one.recogniser) for one in prepared.embeds]
    hashes["judges"] = {
        one.judge.architecture: sha256(store.folder(one.judge) / "target.safetensors") for one in prepared.qualities
    }
    prior = prepared.ensemble.members[0].task.prior
    weights = store.folder(prior) / "prior.safetensors"
    hashes["prior"] = {"sha256": sha256(weights) if weights.is_file() else prior.key}
    return hashes
