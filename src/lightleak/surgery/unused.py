"""Remove modules whose output nothing reads after a cut, so that weight decay, DP noise and DDP ignore dead weights."""

import sys
from functools import partial

from torch import Tensor, nn

from lightleak.surgery.graft import graft
from lightleak.surgery.observe import Place, call, frozen, methods_of, observe, undone
from lightleak.surgery.through import Edge, Through, outputs_of
from lightleak.surgery.trace import MethodTracer, graphs_of


def reached(model: nn.Module, example: Tensor) -> set[str]:
    """The parameters that a gradient reaches in eval mode, read off autograd's graph."""
    names = {id(p): name for name, p in model.named_parameters()}
    still = [p for p in model.parameters() if not p.requires_grad]
    with undone(model):
        for parameter in still:
            parameter.requires_grad_(True)
        try:
            with Through() as through:
                outputs = outputs_of(call(model, example))
            for each in outputs:
                through.notice(each)
        finally:
            for parameter in still:
                parameter.requires_grad_(False)
    found, visited = set(), set()
    stack: list[Edge] = [(each.grad_fn, each.output_nr) for each in outputs if each.grad_fn is not None]
    while stack:
        edge = stack.pop()
        if edge in visited:
            continue
        visited.add(edge)
        if (variable := getattr(edge[0], "variable", None)) is not None and id(variable) in names:
            found.add(names[id(variable)])
        inner = through.inner.get(edge)
        before: list[Edge] = [inner] if inner else list(edge[0].next_functions)
        stack.extend(each for each in before if each[0] is not None)
    return found


def drop_unused(model: nn.Module, example: Tensor, dead: set[str]) -> None:
    """Remove the modules and parameters that served only what was cut."""
    if not dead:
        return
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
        in_list = isinstance(holder, (nn.Sequential, nn.ModuleList))
        setattr(holder, child, nn.Identity() if in_list else None)
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
    with frozen(model):
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
        graft(model.get_submodule(name), method, *graphs_of(model, seen, (name, method), edit)[1:])
