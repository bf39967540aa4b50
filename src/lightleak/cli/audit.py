"""`lightleak audit`: one command on somebody's own model and pictures."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from lightleak import audit
from lightleak.attacks import GUARDS, Access, Guard
from lightleak.attacks.adaptive import knowing
from lightleak.audit import Brought, Order, Prepared
from lightleak.audit.ensemble import BudgetName
from lightleak.cli.arguments import NOTHING, Own, OwnNet, Settings, check_own, command, computing, values
from lightleak.cli.kinds import Architecture, Count, Device, File, Folder, Seed, Share, Source
from lightleak.cli.running import NOBODY, run_tasks, workers_on
from lightleak.data import check as check_population
from lightleak.errors import UserError
from lightleak.place import here
from lightleak.study import Store
from lightleak.terminal import bar, console


@computing
def main(
    model: str | None = None,
    data: Source | None = None,
    out: Path = Path("runs/audit"),
    private: Literal["all"] | None = None,
    public: Source | None = None,
    classes: File | None = None,
    train_list: File | None = None,
    access: Access = "gradients",
    budget: BudgetName = "tiny",
    guard: str | None = None,
    exposures: bool = False,
    recogniser: tuple[str, ...] = ("auto",),
    fmr: Share | None = None,
    prior: str | None = None,
    uncut: Architecture | None = None,
    defended: str | None = None,
    subjects: Literal["people", "classes"] = "people",
    called: str | None = None,
    release: str | None = None,
    consent: str | None = None,
    special_category: str | None = None,
    variants: str | None = None,
    privacy: str | None = None,
    seed: Seed = 0,
    workers: Count | None = None,
    device: Device = "auto",
    size: Count | None = None,
    show_private: bool = False,
    dry_run: bool = False,
    verify: Folder | None = None,
    settings: Settings = {},  # noqa: B006
    own: OwnNet = NOTHING,
) -> None:
    """Audit your own model on your own pictures: attacks, verification, a record and a page.

    Example: lightleak audit --model mymodel.py:make_model --weights w.pt --data folder:photos --public folder:others
    --classes names.txt --out runs/audit

    Example: lightleak audit --verify runs/audit

    Args:
        model: FILE.py:NAME, your own function that returns the network (it is executed; its weights in --weights), or
            a checkpoint of ours (of your own network with --net FILE.py:NAME).
        data: pictures of the people whom the model knows, folder:PATH with one folder a person (or faces, digits).
        out: where everything is kept; the same command again continues.
        private: "all": everybody in the folder is known to the model; with --public it goes without saying.
        public: pictures of people whom it does not know, folder:OTHER.
        classes: a file with the names of the classes, one a line, in the model's order.
        train_list: a file with the pictures that the model was trained on, one a line.
        access: what an attacker is granted of the model.
        budget: tiny (minutes), standard (hours), thorough (days without a graphics processor).
        guard: what the API gives out: labels, rounded:2, top-k:1, tempered:2, ssd:0.5 or smoothed:0.1.
        exposures: also attack it behind each way of answering (probabilities, rounded, the largest, the label alone).
        recogniser: "faces" (the extra), a file of FaceNet, ArcFace or AdaFace, a checkpoint, FILE.py:NAME, or none; of
            several, the first that is fit for the pictures decides and all are heard.
        fmr: false match rate of verification; by default 0.001, or the strictest that the pictures can show.
        prior: the attacker's generator: a folder ('lightleak fit', 'lightleak convert'), or "rendered" for faces.
        uncut: the architecture before its skips were removed, timm:NAME: also attack a copy that has them again.
        defended: defences that attackers know to be there, names separated by commas, or none; by default what
            the checkpoint says.
        subjects: what the classes are; of other things than people "same class" is asked, by no recogniser of faces.
        called: your name for the model, for the record.
        release: how it is released, as you declare it (public API, internal, open weights).
        consent: on what basis the pictures are used, as you declare it.
        special_category: whether they are special category data, as you declare it.
        variants: which variants of the model are released too (quantised, pruned, distilled), as you declare it.
        privacy: how private its training was, as you declare it: epsilon, delta, and of what (a record or a person).
        seed: decides everything random.
        workers: processes at a time; by default one a card, else two.
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        size: side of the images that the network takes, in pixels; by default what it says of itself.
        show_private: do not blur private pictures on the page.
        dry_run: say what would be done and what it would take, and do nothing.
        verify: check the record in this folder, and whether its page, model and pictures are still the same.
        settings: further settings of the data set's function.
        own: the weights of your own network, and how its images are normalised.
    """
    if verify is not None:
        _verify(verify)
        return
    order = _order(model, data, own, size)
    chosen = _chosen(settings, private, public, classes)
    declared = {
        "name": called, "release": release, "consent": consent, "special_category": special_category,
        "variants": variants, "privacy": privacy,
    }  # fmt: skip
    order = Order(
        order, str(data), chosen, train_list, access, budget, guarded(guard),
        _recogniser(recogniser), fmr, prior, uncut, subjects, seed,
        {name: value for name, value in declared.items() if value}, _known(defended), exposures,
    )  # fmt: skip
    with bar("read the pictures") as watch:
        prepared = audit.prepare(order, out, watch)
    _introduce(prepared)
    if dry_run:
        _costs(prepared, workers_on(device, workers))
        return
    store = Store(out / "work")
    prepared.classifier.cpu()
    here().tidy()  # the card is the workers' now
    run_tasks(prepared.tasks, store.root, workers, device)
    answer = audit.finish(prepared, store, out, command(), show_private or str(data).partition(":")[0] in NOBODY)
    console.print()
    console.print(f"[bold]{escape(answer.sentence)}[/]", highlight=False)
    console.print(f"{answer.verdict}. [bold]{out / 'audit.html'}[/] shows it all; {out / 'audit.json'} is the record")


def check_arguments(
    model: str | None, data: str | None, private: str | None, public: str | None, classes: Path | None,
    guard: str | None, exposures: bool, prior: str | None, defended: str | None, verify: Path | None,
    settings: dict[str, str], own: Own, size: int | None, recogniser: tuple[str, ...],
) -> None:  # fmt: skip
    """UserError, before anything is read, for arguments that do not go together."""
    if verify is not None:
        return
    brought = _order(model, data, own, size)
    check_own(replace(own, net=brought.net, weights=Path(brought.file)))
    if exposures and guard is not None:
        raise UserError("--exposures tries every guard by itself; leave --guard out")
    if prior not in (None, "rendered") and not Path(prior).expanduser().exists():
        raise UserError(f"there is no prior {prior}; --prior is 'rendered' or a folder")
    check_population(str(data), **_chosen(settings, private, public, classes))
    _known(defended)
    _recogniser(recogniser)
    guarded(guard)


def _chosen(settings: dict[str, str], private: str | None, public: str | None, classes: Path | None) -> dict[str, Any]:
    """Settings of the data set, with those that have a flag of their own."""
    flags = {"private": private, "public": public, "classes": str(classes) if classes else None}
    return values(settings) | {name: value for name, value in flags.items() if value is not None}


def _recogniser(names: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """None for "none", "auto" alone for "auto", else the names in their order."""
    alone = {"none": None, "None": None, "auto": "auto"}
    if len(names) == 1 and names[0] in alone:
        return alone[names[0]]
    if not names or any(name in alone for name in names):
        raise UserError("--recogniser takes the names of recognisers, or alone none or auto (the default)")
    return names


def _known(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip() not in ("", "none"))
    knowing(names)
    return names


def guarded(text: str | None) -> Guard | None:
    """The guard with this name and first setting: labels, rounded:2, top-k:1, tempered:2, ssd:0.5, smoothed:0.1."""
    if text is None:
        return None
    name, _, number = text.partition(":")
    if name not in GUARDS:
        raise UserError(f"there is no guard {name!r}; choose from {', '.join(GUARDS)}, with a number as in rounded:2")
    try:
        settings = fields(GUARDS[name])  # pyright: ignore[reportArgumentType]
        return GUARDS[name](*([type(settings[0].default)(number)] if number else []))
    except UserError:
        raise
    except (IndexError, TypeError, ValueError):
        raise UserError(f"expected a guard such as rounded:2, top-k:1 or labels, not {text!r}") from None


def _order(model: str | None, data: str | None, own: Own, size: int | None) -> Brought:
    """The model in --model, a function of one's own with --weights or a checkpoint, or in --net with --weights."""
    net, file = own.net, own.weights
    if model is not None and ".py:" in model:
        if own.net is not None:
            raise UserError(f"--model {model} and --net {own.net} are two networks; give one of them")
        net = model
    elif model is not None and Path(model).suffix == ".py":
        raise UserError(f"{model} names no function: {model}:NAME")
    elif model is not None:
        if own.weights is not None:
            raise UserError(f"--model {model} has weights of its own: leave --weights out, or give FILE.py:NAME")
        file = Path(model)
    if file is None or data is None or (model is None and net is None):
        raise UserError(
            "expected a model, its weights and pictures: --model FILE.py:NAME --weights w.pt --data folder:PATH; or "
            "--verify DIR"
        )
    if (own.mean or own.std or own.entry or own.output) and net is None:
        raise UserError("--mean, --std, --entry and --output are of a network of your own; name it with --net")
    return Brought(str(file), net, size, own.mean or None, own.std or None, own.entry, own.output)


def _introduce(prepared: Prepared) -> None:
    """What was found of the model before anything long begins."""
    seen, people = prepared.examined, prepared.population
    console.print(
        f"the model names {seen.seen.value:.0%} of a person's training pictures right on average, of "
        f"{len(people.train)} in all"
        + (f", {seen.held_out.value:.0%} of the others" if seen.held_out else "")
        + f"; normalisation: {escape(seen.normalised)}",
        highlight=False,
    )
    alone = [f"{why[0].upper()}{why[1:]}. Judges decide alone." for why in prepared.without]
    for note in (*people.notes, *seen.notes, *prepared.warnings, *alone):
        console.print(f"[yellow]![/] {escape(note)}", highlight=False)


def _costs(prepared: Prepared, workers: int) -> None:
    told = audit.cost(prepared)
    table = Table(title=f"what --budget {prepared.order.budget} would do")
    for name in ("attack", "sees", "images shown to the model", "of these with gradients"):
        table.add_column(name)
    for member in prepared.ensemble.members:
        null = " (null)" if member.null else " (control)" if member.control else ""
        name = member.name
        table.add_row(name + null, member.sees, f"{told.queries[name]:,}", f"{told.passes[name]:,}")
    console.print(table)
    for why in dict.fromkeys(prepared.ensemble.untried.values()):  # one line for each reason, not for each attack
        names = ", ".join(name for name, its in prepared.ensemble.untried.items() if its == why)
        console.print(f"[dim]not tried ({escape(why)}): {names}[/]", highlight=False)
    hours = told.seconds / max(1, workers) / 3600
    minutes = math.ceil(60 * hours)
    time = f"{minutes} minute{'s' * (minutes > 1)}" if hours < 1.5 else f"{hours:.1f} hours"
    console.print(
        f"about {time} with {workers} processes, {workers * told.memory / 2**30:.1f} GiB of memory; nothing was run",
        highlight=False,
    )


def _verify(folder: Path) -> None:
    checks = audit.verify(folder)
    for check in checks:
        colour = {"as recorded": "green", "changed": "red", "not there": "yellow"}[check.state]
        told = f": {check.told}" if check.told else ""
        console.print(f"[{colour}]{check.state}[/] {check.what}{escape(told)}", highlight=False)
    changed = [check.what for check in checks if not check.good]
    if changed:
        raise UserError(f"{folder}: {', '.join(changed)} {'is' if len(changed) == 1 else 'are'} not as recorded")
