"""Remove skips, or scale them: `F(x) + k * shortcut(x)`, and of concatenated maps the first `round(k * C)` channels.

Koh et al. ("On the Vulnerability of Skip Connections to Model Inversion Attacks", ECCV 2024): RoLSS removes those of
the last stage, SSF scales them (their equations 3 and 8).
"""

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from lightleak.surgery.copies import copied
from lightleak.surgery.fuse import fuse_again
from lightleak.surgery.graft import graft
from lightleak.surgery.joins import Call, put
from lightleak.surgery.narrow import Refusal, concatenate, narrow
from lightleak.surgery.observe import Observation, find_places, observe
from lightleak.surgery.recipe import ATTRIBUTE, check, note, recipe, step_of
from lightleak.surgery.skips import find_joins, find_skips, joins_of, prepare
from lightleak.surgery.stages import Join, Skip
from lightleak.surgery.through import SurgeryError
from lightleak.surgery.trace import MethodTracer, graphs_of, join_at
from lightleak.surgery.unused import drop_unused, reached
from lightleak.surgery.wake import wake as wake_gains
from lightleak.surgery.where import Where, choose

LAYERS = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm)
DROPS = {"DropPath", "StochasticDepth"}


def chosen_skips(model: nn.Module, where: Where = "last", example: Tensor | None = None) -> list[Skip]:
    """The skips that `remove_skips` would remove, in the order of computation; SurgeryError where it raises one."""
    joins = find_joins(model, example)
    return _chosen(model, joins, where)


def _chosen(model: nn.Module, joins: list[Join], where: Where) -> list[Skip]:
    stuck = [join for join in joins if join.is_stuck]
    return choose([join for join in joins if join.is_skip], where, type(model).__name__, stuck)


def remove_skips(
    model: nn.Module,
    where: Where = "last",
    example: Tensor | None = None,
    keep_keys: bool = False,
    wake: bool = True,
) -> nn.Module:
    """A copy of the model without the chosen skips, and without the modules that only served them.

    `where`: "last" (the last stage that has skips), "all", a stage, "3[0.9:]" (the tail of stage 3), a glob of names, a
    Skip, or a list of these. `keep_keys` keeps unused modules, so that weights of the uncut model load strictly.
    Class, methods and parameter names stay. `wake` (see [wake](glossary.md#wake)) lets an untrained model learn without
    its skips: gains of the cut blocks that are initialised at zero, as timm's are, are set to one. Raises SurgeryError
    if nothing would change or the model cannot be cut.
    """
    return scale_skips(model, 0.0, where, example, keep_keys, wake)


def scale_skips(
    model: nn.Module,
    factor: float,
    where: Where = "last",
    example: Tensor | None = None,
    keep_keys: bool = False,
    wake: bool = True,
) -> nn.Module:
    """A copy of the model whose chosen skips are multiplied by `factor` in [0, 1]: 0 removes them, 1 changes nothing.

    Of a concatenation, the first `round(factor * C)` channels of each older map are kept, and the layers that read it
    are narrowed to the columns of those. Otherwise as `remove_skips`.
    """
    return _scaled(model, factor, where, example, keep_keys, wake, (False, True))


def _scaled(
    model: nn.Module,
    factor: float,
    where: Where,
    example: Tensor | None,
    keep_keys: bool,
    wake: bool,
    ways: tuple[bool, ...],
) -> nn.Module:
    """`scale_skips`; what is cut from concatenations is absent (False) or zero (True), by the first way that works."""
    if not 0 <= factor <= 1:
        raise SurgeryError(f"the factor must lie between 0 (remove) and 1 (change nothing), not {factor}")
    example = prepare(model, example)
    seen = observe(model, example)
    chosen = _chosen(model, joins_of(model, seen), where)
    before = reached(model, example)
    masked = False
    for masked in ways:
        result = copied(model)
        _cut(result, seen, chosen, factor, masked)
        try:
            if any(skip.kind == "cat" for skip in chosen):
                narrow(result, example, len(recipe(model)))
            break
        except Refusal:  # a reader needs the full width: what is cut becomes zero instead of absent
            continue
    if factor == 0 and wake:
        wake_gains(result, chosen)
    if not keep_keys:
        drop_unused(result, example, before - reached(result, example))
    note(result, step_of(factor, chosen, where, keep_keys, masked))
    return result


def without_inplace(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """A copy that overwrites no signal: `x += y` becomes `x = x + y`, in-place activations ordinary ones.

    The same function with the same parameters. Opacus needs it: its hooks see each layer's output, which must stay.
    """
    example = prepare(model, example)
    result = copied(model)
    places = find_places(result, example)[1]
    names = {name for name, module in result.named_modules() if not type(module).__module__.startswith("torch.nn")}
    seen = observe(result, example, {place for place in places if place[0] in names})
    for place in (p for p in seen.finished if p in places):
        graft(result.get_submodule(place[0]), place[1], *graphs_of(result, seen, place, lambda _: None)[1:])
    for module in result.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return result


def _cut(model: nn.Module, seen: Observation, chosen: list[Skip], factor: float, masked: bool) -> None:
    """Edit each method that joins at a chosen skip. All are traced before any is replaced."""
    grafts = []
    for name in dict.fromkeys(skip.owner for skip in chosen):
        here = {(skip.method, skip.index): skip for skip in chosen if skip.owner == name}

        def edit(tracer: MethodTracer, here: dict[tuple[str, int], Skip] = here) -> None:
            joins = [(here[method, index], node) for method, index, node in tracer.joins if (method, index) in here]
            missing = [s for s in here.values() if s.method == tracer.method and s not in dict(joins)]
            if missing:
                raise SurgeryError(
                    f"'{missing[0].owner}' goes another way each time it runs, so '{missing[0].name}' cannot be cut; "
                    "leave it out by naming the others"
                )
            for skip, node in joins:
                if skip.kind == "add":
                    _cut_sum(tracer, node, skip, factor)
                elif factor < 1:
                    _cut_concatenation(tracer, node, skip, factor, masked, len(recipe(model)))

        methods = {method for method, _ in here}
        grafts += [graphs_of(model, seen, (name, method), edit) for method in sorted(methods)]
        for module in model.get_submodule(name).modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
    for place, training, evaluating in grafts:
        graft(model.get_submodule(place[0]), place[1], training, evaluating)


def _cut_sum(tracer: MethodTracer, join: fx.Node, skip: Skip, factor: float) -> None:
    """`main + shortcut` becomes `main + factor * shortcut`, or `main`; other spellings of a sum alike."""
    graph, values = join.graph, tracer.values
    call = join_at(join, values)
    assert call is not None
    if not factor and call.form.name == "add":
        main = _without(tracer, join, call, skip)
    else:
        args, kwargs = join.args, join.kwargs
        main = next(each for i, each in enumerate(call.signals) if i not in skip.shortcut)
        with graph.inserting_before(join):
            for i in skip.shortcut if factor != 1 else ():
                scaled = graph.call_function(operator.mul, (call.signals[i], factor)) if factor else None
                like = main if values[main].shape == values[call.signals[i]].shape else call.signals[i]
                part = scaled or graph.call_function(torch.zeros_like, (like,))
                args, kwargs = put(args, kwargs, call.slots[i], part)
        join.args, join.kwargs = args, kwargs
    if factor:
        return
    for node in _chain(tracer, main.args[0] if main.target in (torch.clone, "expand_as") else main):
        if node.op == "call_module" and _module(tracer, node).__class__.__name__ in DROPS:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            graph.erase_node(node)
            break


def _without(tracer: MethodTracer, join: fx.Node, call: Call, skip: Skip) -> fx.Node:
    """Put a sum's other operand in its place."""
    (short,) = skip.shortcut
    main, shortcut = call.signals[1 - short], call.signals[short]
    graph, values = join.graph, tracer.values
    with graph.inserting_before(join):
        if alpha := join.kwargs.get("alpha"):
            main = graph.call_function(operator.mul, (main, alpha)) if short == 0 else main
        elif values[main].shape != values[join].shape:
            main = graph.call_method("expand_as", (main, shortcut))
        elif not (len(main.users) == 1 and main.op == "call_module" and isinstance(_module(tracer, main), LAYERS)):
            main = graph.call_function(torch.clone, (main,))  # whoever overwrites the sum must not overwrite its part
    values[main] = values[join]
    join.replace_all_uses_with(main)
    graph.erase_node(join)
    return main


def _chain(tracer: MethodTracer, node: Any) -> Iterator[fx.Node]:
    """From a branch's end back to the last layer with weights."""
    while isinstance(node, fx.Node) and len(node.users) <= 1 and node.args:
        before = node.args[0]
        if node.op == "call_module" and any(p.dim() > 1 for p in _module(tracer, node).parameters()):
            return
        yield node
        node = before


def _module(tracer: MethodTracer, node: fx.Node) -> nn.Module:
    return tracer.root.get_submodule(str(node.target))  # type: ignore[union-attr]


def _cut_concatenation(
    tracer: MethodTracer, join: fx.Node, skip: Skip, factor: float, masked: bool, surgery: int
) -> None:
    """Of each older map, only the first channels are passed on."""
    call = join_at(join, tracer.values)
    assert call is not None
    maps, dim = call.signals, call.dim
    widths = tuple(tracer.values[each].shape[dim] for each in maps)
    kept = [each if factor or i not in skip.shortcut else None for i, each in enumerate(maps)]
    join.target, join.kwargs = concatenate, {}
    join.args = (kept, widths, skip.shortcut, factor, dim, masked, surgery)


def replay(model: nn.Module, steps: list[dict[str, Any]], example: Tensor | None = None) -> nn.Module:
    """Repeat the surgeries of a recipe on a model of the same kind; SurgeryError if it is of another."""
    for step in steps:
        if step.get("surgery") == "fuse":
            model = fuse_again(model, step)
            continue
        try:
            skips = check(step, find_skips(model, example), type(model).__name__)
            factor, keep_keys = step["factor"], step["keep_keys"]
        except SurgeryError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise SurgeryError(f"the recipe is damaged at {step!r}: {error!r}") from error
        # Another network was masked for a layer that this one may not have yet: group norm comes after surgery here.
        ways = (True,) if step.get("masked") else (False, True)
        model = _scaled(model, factor, skips, example, keep_keys, True, ways)
        object.__setattr__(model, ATTRIBUTE, [*recipe(model)[:-1], dict(step)])
    return model
