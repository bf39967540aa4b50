"""Re-parameterise sums of parallel convolutions into one convolution each (Ding et al., RepVGG, CVPR 2021).

Such sums are found by meaning, not by class name: each module's forward is traced with its children as single
calls, and each value on the way is described, where possible, as an affine map of earlier ones. What follows
a sum, such as squeeze-excite or an activation, stays as it is.
"""

import inspect
import operator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx, nn

from lightleak.surgery import affine
from lightleak.surgery.affine import Affine
from lightleak.surgery.copies import copied
from lightleak.surgery.graft import graft
from lightleak.surgery.joins import ADDITIONS
from lightleak.surgery.observe import refuse_scripted
from lightleak.surgery.recipe import note, recipe
from lightleak.surgery.through import SurgeryError

NOTHING_IN_EVAL_MODE = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True)
class Term:
    """How a value depends on an earlier one: by an affine map or unchanged (no map), and over how many layers."""

    map: Affine | None = None
    summed: bool = False
    layers: int = 0


# For each value, the earlier ones that determine it, earliest first.
Values = dict[fx.Node, dict[fx.Node, Term]]


@dataclass(frozen=True)
class Description:
    """How a module's output depends on its input in eval mode, and its traced forward; empty if unknown."""

    term: Term | None = None
    graph: fx.Graph = field(default_factory=fx.Graph)
    values: Values = field(default_factory=dict)


Known = dict[nn.Module, Description]


def fuse(model: nn.Module) -> nn.Module:
    """A copy of the model with one convolution for each sum of convolution, batch norm and identity branches.

    RepVGG and MobileOne become plain networks. In eval mode, outputs and input gradients are equal up to
    rounding; batch statistics are frozen into the weights, so fuse after training. The new convolution is
    `reparam_conv` in the module that owned the sum; classes, methods and all other names stay. Raises
    SurgeryError where the model has no such sum.
    """
    refuse_scripted(model)
    # The twin's forwards are traced, which may leave marks on it; its parameters are the model's own.
    twin = copied(model, {id(p): p for p in model.parameters()}).eval()
    fused = copied(model)
    partner = dict(zip(twin.modules(), fused.modules()))
    known: Known = {}
    blocks, alive = [], set(fused.modules())
    for name, module in twin.named_modules():
        owner, description = partner[module], _describe(module, known)
        if owner not in alive or not (convolutions := _rewrite(module, description, known)):
            continue  # it went with its parent, or has no sum
        _build(owner, description.graph, convolutions)
        blocks.append(name)
        alive = set(fused.modules())
    if not blocks:
        raise SurgeryError(
            f"{type(model).__name__} has no parallel convolution and batch norm branches to fuse; "
            "RepVGG and MobileOne have them, and a fused model has none left"
        )
    note(fused, {"surgery": "fuse", "blocks": blocks})
    return fused


def fuse_again(model: nn.Module, step: dict[str, Any]) -> nn.Module:
    """Fuse a model as a step of a recipe says; SurgeryError if its sums are elsewhere."""
    fused = fuse(model)
    if (blocks := recipe(fused)[-1]["blocks"]) != step["blocks"]:
        raise SurgeryError(
            f"the recipe belongs to another network: {type(model).__name__} has {len(blocks)} modules to fuse, "
            f"from '{blocks[0]}', the recipe names {len(step['blocks'])}"
        )
    return fused


def _build(owner: nn.Module, graph: fx.Graph, convolutions: dict[str, nn.Conv2d]) -> None:
    """Let a module run the rewritten graph, and take out the branches that it does not use any more."""
    for name, convolution in convolutions.items():
        setattr(owner, name, convolution.train(owner.training))
    graft(owner, "forward", graph, graph)
    used = {str(node.target) for node in graph.nodes if node.op in ("call_module", "get_attr")}
    for name, child in list(owner.named_children()):
        if (
            name not in used
            and not any(u.startswith(f"{name}.") for u in used)
            and any(True for _ in child.parameters())
        ):
            owner._modules[name] = None


# Finding the sums


def _describe(module: nn.Module, known: Known) -> Description:
    """The description of a module from those of its children; each module is looked at once."""
    if module in known:
        return known[module]
    term, graph, values = None, None, {}
    if isinstance(module, NOTHING_IN_EVAL_MODE):
        term = Term()
    elif (map := affine.of_layer(module)) is not None:
        term = Term(map, layers=1)
    elif (graph := _trace(module)) is not None:
        values = _values(module, graph, known)
        source, (result, *_) = next(iter(graph.nodes)), graph.output_node().args
        term = values.get(result, {}).get(source) if isinstance(result, fx.Node) else None
    if module._forward_hooks or module._forward_pre_hooks:  # somebody looks at this place: it stays
        term = None
    known[module] = Description(term, graph, values) if graph else Description(term)
    return known[module]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return True


def _trace(module: nn.Module) -> fx.Graph | None:
    """The module's own forward, each child one call; None where it is a layer or cannot be traced."""
    if type(module).__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential):
        return None
    try:
        optional = list(inspect.signature(module.forward).parameters.values())[1:]
        defaults = {p.name: p.default for p in optional if p.default is not p.empty}
        return _Tracer().trace(module, concrete_args=defaults or None)
    except Exception:  # any code may run here, and whatever it cannot do with a proxy is its own kind of error
        return None


def _values(module: nn.Module, graph: fx.Graph, known: Known) -> Values:
    values: Values = {}
    for node in graph.nodes:
        if _overwrites(module, node):
            return {}
        terms: dict[fx.Node, Term | None] = {}
        sources = [a for a in node.args if isinstance(a, fx.Node)]
        if node.op == "call_module" and len(sources) == len(node.args) == 1 and not node.kwargs:
            child = _describe(module.get_submodule(str(node.target)), known).term
            terms = {base: _chain(term, child) for base, term in values[sources[0]].items() if child}
        elif node.op in ("call_function", "call_method") and node.target in ADDITIONS and not node.kwargs:
            if len(sources) == 1 and 0 in node.args:  # some blocks start their sum at a literal zero
                terms = {base: replace(term, summed=True) for base, term in values[sources[0]].items()}
            elif len(sources) == 2:
                first, second = (values[s] for s in sources)
                terms = {base: _add(first[base], second[base]) for base in first if base in second}
        values[node] = {base: term for base, term in terms.items() if term} | {node: Term()}
    return values


def _chain(first: Term, second: Term) -> Term | None:
    both = first.map and second.map
    map = affine.chain(first.map, second.map) if first.map and second.map else first.map or second.map
    return Term(map, first.summed or second.summed, first.layers + second.layers) if map or not both else None


def _add(first: Term, second: Term) -> Term | None:
    one, two = first.map, second.map
    if not (one or two):
        return None
    map = affine.add(one or affine.identity(two), two or affine.identity(one))  # pyright: ignore[reportArgumentType]
    return Term(map, True, first.layers + second.layers) if map else None


def _overwrites(module: nn.Module, node: fx.Node) -> bool:
    """Whether the node changes in place a value that others read too: more than a description can follow."""
    in_place = node.target is operator.iadd or (node.op == "call_method" and str(node.target).endswith("_"))
    if node.op == "call_module":
        in_place = getattr(module.get_submodule(str(node.target)), "inplace", False)
    return bool(in_place) and any(isinstance(a, fx.Node) and len(a.users) > 1 for a in node.args[:1])


# Writing the convolutions


def _rewrite(module: nn.Module, description: Description, known: Known) -> dict[str, nn.Conv2d]:
    """Put one convolution where each sum was in the graph, the outermost first; return them by name."""
    graph, convolutions = description.graph, {}
    for node, terms in reversed(description.values.items()):
        base, term = next(iter(terms.items()))
        if not term.summed or term.map is None or term.layers < 2 or not node.users:
            continue
        if node.op == "call_module":
            child = known[module.get_submodule(str(node.target))].term
            if child and child.map is term.map:
                continue  # the sum is the child's own, and it will have its turn
        name = "reparam_conv" if not convolutions else f"reparam_conv_{len(convolutions)}"
        while name in module._modules or name in module._parameters or name in module._buffers:
            name += "_"
        convolutions[name] = term.map.module()
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_module(name, (base,)))
        _erase(graph, node)
    return convolutions


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Erase a node that nobody reads, and whatever only it had read."""
    if node.users or node.op == "placeholder":
        return
    sources = node.all_input_nodes
    graph.erase_node(node)
    for source in sources:
        _erase(graph, source)
