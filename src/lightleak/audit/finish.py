"""What is written once every task of an audit is done: the record, its page, and the page as PDF."""

from pathlib import Path

from lightleak.audit import page, record, report
from lightleak.audit.answer import Answer
from lightleak.audit.plan import Prepared
from lightleak.study.task import Store


def finish(
    prepared: Prepared, store: Store, out: Path, command: str, show_private: bool = False, pdf: bool = True
) -> Answer:
    """Write audit.html and audit.json into `out`, and with `pdf` audit.pdf where a Chromium is at hand; the answer."""
    told, answer = report.record(prepared, store, command)
    names = prepared.population.class_names
    file = page.save(told, _pictures(prepared, store, answer), names, out, show_private)
    told["hashes"]["page"] = {"file": file.name, "sha256": record.sha256(file)}
    record.save(told, out)
    if pdf:
        page.printed(file)
    return answer


def _pictures(prepared: Prepared, store: Store, answer: Answer) -> page.Pictures:
    """Of each person a training picture, the image that speaks for the person, and the null's."""
    images = {name: task.images(store) for name, task in prepared.measures.items()}
    people = store.result(next(iter(prepared.measures.values())))["people"]
    shown: dict[int, dict] = {}
    for place, person in enumerate(people):
        mine = prepared.population.train.of(person)
        found = {"attack": images[answer.chosen[place]].get(person), "null": images[answer.null].get(person)}
        if len(mine):
            found = {"private": mine.pixels[0], **found}
        shown[person] = {what: picture for what, picture in found.items() if picture is not None}
    return shown
