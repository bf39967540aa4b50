"""Remove skip connections, or scale them: `F(x) + k * shortcut(x)`, and of concatenated maps the first `round(k * C)` channels.

Koh et al. ("On the Vulnerability of Skip Connections to Model Inversion Attacks", ECCV 2024): RoLSS removes those of the
last stage, SSF scales them (their equations 3 and 8).
"""

import copy
import operator
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from lightleak.surgery.graft import graft
from lightleak.surgery.narrow import Refusal, concatenate, narrow
from lightleak.surgery.observe import (
    Observation,
    Place,
    SurgeryError,
    call,
    find_places,
    frozen,
    methods_of,
    observe,
    signal,
)
from lightleak.surgery.recipe import check, note, saying
from lightleak.surgery.skips import Skip, find_skips, joins_of, prepare
from lightleak.surgery.trace import MethodTracer, same
from lightleak.surgery.where import Where, choose

DROPS = {"DropPath", "StochasticDepth"}


def remove_skips(
    model: nn.Module, where: Where = "last", example: Tensor | None = None, keep_keys: bool = False
) -> nn.Module:
    """A copy of the model without the chosen skips, and without the modules that only served them.

    `where`: "last" (the last stage that has skips), "all", a stage, "3[0.9:]" (the tail of stage 3), a glob of names, a
    Skip, or a list of these. `keep_keys` keeps unused modules, so that weights of the uncut model load strictly.
    Class, methods and parameter names stay. Raises SurgeryError where nothing would change or the model cannot be cut.
    """
    return scale_skips(model, 0.0, where, example, keep_keys)


def scale_skips(
    model: nn.Module,
    factor: float,
    where: Where = "last",
    example: Tensor | None = None,
    keep_keys: bool = False,
) -> nn.Module:
    """A copy of the model whose chosen skips count `factor` in [0, 1]: 0 removes them, 1 changes nothing.

    Of a concatenation, the first `round(factor * C)` channels of each older map are kept, and the layers that read it are
    narrowed to the columns of those. Otherwise as `remove_skips`.
    """
    if not 0 <= factor <= 1:
        raise SurgeryError(f"the factor must lie between 0 (remove) and 1 (change nothing), not {factor}")
    example = prepare(model, example)
    seen = observe(model, example)
    skips = [join for join in joins_of(model, seen) if join.is_skip]
    chosen = choose(skips, where, type(model).__name__)
    before = reached(model, example)
    for masked in (False, True):
        result = copy.deepcopy(model)
        _cut(result, seen, chosen, factor, masked)
        try:
            narrow(result, example)
            break
        except Refusal:  # a reader needs the full width: what is cut becomes zero instead of absent
            continue
    if not keep_keys:
        _drop_dead(result, example, before - reached(result, example))
    note(result, saying(factor, chosen, where, keep_keys))
    return result


def without_inplace(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """A copy that overwrites no signal: `x += y` becomes `x = x + y`, in-place activations ordinary ones.

    The same function with the same parameters. Opacus needs it: its hooks see each layer's output, which must stay.
    """
    example = prepare(model, example)
    result = copy.deepcopy(model)
    places = find_places(result, example)[1]
    names = {name for name, module in result.named_modules() if not type(module).__module__.startswith("torch.nn")}
    seen = observe(result, example, {place for place in places if place[0] in names})
    for place in (p for p in seen.finished if p in places):
        graft(result.get_submodule(place[0]), place[1], *_retrace(result, seen, place, lambda _: None)[1:])
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
                    _cut_concatenation(tracer, node, skip, factor, masked)

        methods = {method for method, _ in here}
        grafts += [_retrace(model, seen, (name, method), edit) for method in sorted(methods)]
        for module in model.get_submodule(name).modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # type: ignore[assignment]
    for place, training, evaluating in grafts:
        graft(model.get_submodule(place[0]), place[1], training, evaluating)


def _retrace(
    model: nn.Module, seen: Observation, place: Place, edit: Callable[[MethodTracer], None]
) -> tuple[Place, fx.Graph, fx.Graph]:
    """Trace one method in both modes, and edit the graphs."""
    name, method = place
    owner = model.get_submodule(name)
    label = name or type(model).__name__
    others = {other for module, other in seen.finished if module == name and other != method}
    graphs = []
    for training in (True, False):
        tracer = MethodTracer(label, method)
        with frozen(owner, training):
            args, kwargs = tree_map(_fresh, seen.calls[place])
            try:
                graph = tracer.graph_of(owner, args, kwargs, others)
            except SurgeryError:
                raise
            except Exception as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise SurgeryError(
                    f"the code of '{label}' ({type(owner).__name__}.{method}) cannot be held in a graph: {reason}; "
                    "leave its skips out by naming the others"
                ) from error
        idle = {node for node in graph.nodes if not node.users}
        edit(tracer)
        graph.eliminate_dead_code(lambda node, idle=idle: node in idle or _acts(node))
        graphs.append(graph)
    return place, graphs[0], graphs[1]


def _fresh(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return signal(value) if value.requires_grad else value.detach().clone()


def _acts(node: fx.Node) -> bool:
    """Whether a node does something beside computing its value."""
    if node.op in ("placeholder", "output") or node.target in (same, operator.setitem):
        return True
    name = str(node.target)
    return node.op == "call_method" and name.endswith("_") and not name.endswith("__")


def _cut_sum(tracer: MethodTracer, join: fx.Node, skip: Skip, factor: float) -> None:
    """`main + shortcut` becomes `main + factor * shortcut`, or `main`."""
    (short,) = skip.shortcut
    keys = ["input", "other"]
    both: list[Any] = [join.args[i] if i < len(join.args) else join.kwargs[keys[i]] for i in (0, 1)]
    main, shortcut = both[1 - short], both[short]
    graph, values = join.graph, tracer.values
    with graph.inserting_before(join):
        if factor:
            both[short] = graph.call_function(operator.mul, (shortcut, factor)) if factor != 1 else shortcut
            join.args = (*both, *join.args[2:])
            join.kwargs = {k: v for k, v in join.kwargs.items() if k not in keys}
            return
        if alpha := join.kwargs.get("alpha"):
            main = graph.call_function(operator.mul, (main, alpha)) if short == 0 else main
        elif values[main].shape != values[join].shape:
            main = graph.call_method("expand_as", (main, shortcut))
        elif len(main.users) > 1:  # whoever overwrites the sum must not overwrite its part
            main = graph.call_function(torch.clone, (main,))
    join.replace_all_uses_with(main)
    graph.erase_node(join)
    for node in _chain(tracer, main):
        if node.op == "call_module" and _module(tracer, node).__class__.__name__ in DROPS:
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            graph.erase_node(node)
            break


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


def _cut_concatenation(tracer: MethodTracer, join: fx.Node, skip: Skip, factor: float, masked: bool) -> None:
    """Of each older map, only the first channels are passed on."""
    maps: list[Any] = list(join.args[0] if join.args else join.kwargs["tensors"])  # type: ignore[arg-type, call-overload]
    dim: Any = join.kwargs.get("dim", join.args[1] if len(join.args) > 1 else 0)
    widths = tuple(tracer.values[each].shape[dim] for each in maps)
    kept = [each if factor or i not in skip.shortcut else None for i, each in enumerate(maps)]
    join.target, join.args, join.kwargs = concatenate, (kept, widths, skip.shortcut, factor, dim, masked), {}


def reached(model: nn.Module, example: Tensor) -> set[str]:
    """The parameters from which a gradient flows back, in eval mode; read off autograd's graph."""
    names = {id(p): name for name, p in model.named_parameters()}
    wanted = [p for p in model.parameters() if not p.requires_grad]
    for parameter in wanted:
        parameter.requires_grad_(True)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            outputs = tree_leaves(_plain(call(model, example)))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter in wanted:
            parameter.requires_grad_(False)
    found, visited = set(), set()
    stack = [t.grad_fn for t in outputs if isinstance(t, Tensor) and t.grad_fn is not None]
    while stack:
        node = stack.pop()
        if node in visited:
            continue
        visited.add(node)
        if (variable := getattr(node, "variable", None)) is not None and id(variable) in names:
            found.add(names[id(variable)])
        stack.extend(each for each, _ in node.next_functions if each is not None)
    return found


def _plain(output: Any) -> Any:
    return list(vars(output).values()) if hasattr(output, "__dataclass_fields__") else output


def _drop_dead(model: nn.Module, example: Tensor, dead: set[str]) -> None:
    """Take out the modules and parameters that only served what was cut."""
    everything = {name for name, _ in model.named_parameters()}

    def within(prefix: str) -> set[str]:
        return {name for name in everything if name.startswith(f"{prefix}.")}

    gone: set[str] = set()
    for name, _ in list(model.named_modules()):  # outer modules come first
        inner = within(name)
        if name and inner and inner <= dead and not any(name.startswith(f"{g}.") for g in gone):
            gone.add(name)
    _go_around(model, example, gone)
    for name in sorted(gone):
        parent, _, child = name.rpartition(".")
        holder = model.get_submodule(parent)
        holder._modules[child] = nn.Identity() if isinstance(holder, (nn.Sequential, nn.ModuleList)) else None
    for name in dead:
        if not any(name.startswith(f"{g}.") for g in gone):
            parent, _, child = name.rpartition(".")
            model.get_submodule(parent)._parameters[child] = None


def _go_around(model: nn.Module, example: Tensor, dead: set[str]) -> None:
    """Where unused modules are still called, pass on what they were given."""
    places: set[Place] = set()
    place = methods_of(model)
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda *_: places.add(found) if (found := place(sys._getframe(1))) else None
        )
        for name in dead
    ]
    with frozen(model), torch.no_grad():
        call(model, example)
    for hook in hooks:
        hook.remove()
    places = {p for p in places if not isinstance(model.get_submodule(p[0]), nn.Sequential)}
    if not places:
        return
    seen = observe(model, example, places)

    def bypass(tracer: MethodTracer, owner: str) -> None:
        for node in tracer.graph.nodes:
            if node.op == "call_module" and f"{owner}.{node.target}".lstrip(".") in dead:
                node.replace_all_uses_with(node.args[0])

    for name, method in places:
        edit = partial(bypass, owner=name)
        graft(model.get_submodule(name), method, *_retrace(model, seen, (name, method), edit)[1:])


def replay(model: nn.Module, recipe: list[dict[str, Any]], example: Tensor | None = None) -> nn.Module:
    """Do to a model what a recipe says was done to another of its kind; SurgeryError if it is not of its kind."""
    for step in recipe:
        if step["surgery"] not in ("remove", "scale"):
            raise SurgeryError(f"the recipe asks for a surgery '{step['surgery']}' that this version does not know")
        skips = check(step, find_skips(model, example), type(model).__name__)
        model = scale_skips(model, step["factor"], skips, example, step["keep_keys"])
        record = [*vars(model)["surgery_recipe"][:-1], dict(step)]
        object.__setattr__(model, "surgery_recipe", record)
    return model
