"""From finished tasks to the record: everything that is said of an audit, in one place."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lightleak.audit import mapping
from lightleak.audit.answer import RESIDUAL, Answer, Found, answer, shows_by
from lightleak.audit.ensemble import Member
from lightleak.audit.exposures import compared
from lightleak.audit.plan import Prepared
from lightleak.audit.record import pictures, sha256
from lightleak.metrics.evidence import wilson
from lightleak.ranking import or_lowest
from lightleak.study.task import Store, commit, device, versions

PURPOSE = (
    "How far images of the people whom a model was trained on can be got out of it, measured by attacking it. The "
    "record states what was done and found; it is no certificate and no legal assessment."
)
AGAIN = 365  # days until the next test at the latest


def record(prepared: Prepared, store: Store, command: str) -> tuple[dict[str, Any], Answer]:
    """The record without its page's hash and its seal, and the answer in it."""
    found = [_found(one, store.result(prepared.measures[one.name])) for one in prepared.ensemble.members]
    embed = store.result(prepared.embed) if prepared.embed else None
    qualities = {one.judge.architecture: store.result(one)["accuracy"] for one in prepared.qualities}
    order, population = prepared.order, prepared.population
    word = "people" if order.subjects == "people" else "classes"
    sees = {one.name: one.sees for one in prepared.ensemble.members}
    told = answer(found, sees, embed, qualities, population.classes, word, order.seed)
    fit = [name for name in qualities if name not in told.unfit]
    spent = _spent(prepared, store)
    people = store.result(next(iter(prepared.measures.values())))["people"]
    return {
        "purpose": PURPOSE,
        "answer": told.to_json(),
        "warnings": [*told.warnings, *prepared.warnings],
        "model": _model(prepared),
        "subjects": {
            "what": order.subjects,
            "number": population.classes,
            "training_pictures": len(population.train),
            "held_out_pictures": len(population.validation) + len(population.test) + len(population.judge),
            "public_people": len(population.public.labels.unique()),
            "public_pictures": len(population.public),
            "training_list_given": order.train_list is not None,
            "division": population.division,
            "notes": list(population.notes),
            "consent": order.declared.get("consent", "not declared"),
            "special_category": order.declared.get("special_category", "not declared"),
        },
        "release": {
            "declared": order.declared.get("release", "not declared"),
            "access_tested": order.access,
            "guard": repr(order.guard) if order.guard else "none",
            "budget": order.budget,
            "attackers_knowledge": (
                f"the classes, and {len(population.public)} pictures of other {word}; prior: "
                f"{order.prior or 'a generator fitted to those pictures'}"
            ),
        },
        "coverage": [{"attack": a, "state": s, "how": h} for a, s, h in mapping.ATTACKS]
        + [{"attack": name, "state": "not run", "how": why} for name, why in prepared.ensemble.untried.items()],
        "members": [
            {
                "name": one.name,
                "null": one.null,
                "control": one.control,
                "sees": sees[one.name],
                **_counted(one, told, fit),
                **spent[one.name],
                "curve": store.result(prepared.measures[one.name]).get("curve"),
                "settings": repr(prepared.measures[one.name].found.attack),
            }
            for one in found
        ],
        "exposures": _exposures(prepared, store, told, fit),
        "people": _people(prepared, told, found, embed, people),
        "verification": embed or {"missing": "no recogniser took part"},
        "judges": {
            "accuracy": qualities,
            "fit_from": 0.95,
            "agreement": told.agreement,
        },
        "measures": {
            "taken": list(prepared.classifier.changes) or "none known",
            "training": prepared.classifier.record.get("privacy") or "no differential privacy is recorded",
            "guard": repr(order.guard) if order.guard else "none",
        },
        "residual_risk": RESIDUAL[told.verdict],
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
            "seconds": sum(row["seconds"] for row in spent.values()),
        },
        "hashes": _hashes(prepared, store),
    }, told


def _exposures(prepared: Prepared, store: Store, told: Answer, fit: list[str]) -> list[dict[str, Any]]:
    """What the same attacks show behind each way of answering; empty unless that was asked for."""
    found, spent = {}, {}
    for way in prepared.exposures:
        measures, members = prepared.behind[way.name], way.ensemble.members
        found[way.name] = [_found(one, store.result(measures[one.name])) for one in members]
        spent[way.name] = sum(_queries(one, store) for one in members)
    return compared(found, told, fit, spent, prepared.order.seed)


def _queries(member: Member, store: Store) -> int:
    """Images that a member showed to the model itself."""
    if member.copy is not None:  # the attack asked the copy; the model was asked by the copy's training alone
        return store.result(member.copy)["queries"]
    result = store.result(member.task)
    return result["queries"] + sum(result["beforehand"].values())


def _found(member: Member, result: Mapping[str, Any]) -> Found:
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
                "held_out": embed["held_out"][person] if embed and "held_out" in embed else None,
                "model_names": prepared.examined.right[person],
                "members_that_show": sum(
                    shows_by(each, told.by, [n for n in each.judges if n not in told.unfit])[place]
                    for each in found
                    if not each.null and not each.control
                ),
            }
        )
    rows.sort(key=lambda row: (-row["shown"], -row["members_that_show"], -or_lowest(row["score"] or row["belief"])))
    return {"worst": rows[0]["name"], "each": rows}


def _hashes(prepared: Prepared, store: Store) -> dict[str, Any]:
    order = prepared.order
    hashes: dict[str, Any] = {"model": {"file": order.brought.file, "sha256": prepared.target.weights}}
    if order.brought.net:
        file = order.brought.net.rpartition(":")[0]
        hashes["source"] = {"file": file, "sha256": prepared.target.source}
    if order.data.startswith("folder:"):
        hashes["pictures"] = pictures(Path(order.data.partition(":")[2]).expanduser())
    if order.train_list is not None:
        hashes["training_list"] = {"file": str(order.train_list), "sha256": sha256(order.train_list)}
    if prepared.embed is not None:
        hashes["recogniser"] = {"sha256": prepared.embed.recogniser.sha256}
    hashes["judges"] = {
        one.judge.architecture: sha256(store.folder(one.judge) / "target.safetensors") for one in prepared.qualities
    }
    prior = prepared.ensemble.members[0].task.prior
    weights = store.folder(prior) / "prior.safetensors"
    hashes["prior"] = {"sha256": sha256(weights) if weights.is_file() else prior.key}
    return hashes
