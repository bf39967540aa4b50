"""What each signal of an observed run was computed from, and which of the signals that meet went around layers."""

import operator
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

from lightleak.surgery.observe import Observation, Seen
from lightleak.surgery.through import Edge, outputs_of


def signals_of(join: Seen) -> list[Edge]:
    """The operands' places in autograd's graph: a function and the index of its output."""
    return list(zip(join.operands, join.outputs))


class Flow:
    """What each signal of autograd's graph was computed from, as sets of signals stored as integers."""

    def __init__(self, seen: Observation):
        self.seen = seen
        self.number: dict[Edge, int] = {}
        self.nodes: list[Edge] = []
        self.behind: list[int] = []
        self.parents: list[list[int]] = []
        answers = [(each.grad_fn, each.output_nr) for each in outputs_of(seen.output)]
        for join in seen.joins:
            for signal in (*signals_of(join), (join.result, 0)):
                self._walk(signal)
        for signal in answers:
            self._walk(signal)
        self.answer = union([self.of(signal) for signal in answers])  # everything that the answer is computed from
        self.layers = sum(1 << number for node, number in self.number.items() if node[0] in seen.layers)

    def _walk(self, start: Edge) -> None:
        stack = [start] if start[0] is not None else []
        while stack:
            node = stack[-1]
            if node in self.number:
                stack.pop()
                continue
            inputs = self.inputs(node)
            missing = [each for each in inputs if each not in self.number]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            self.number[node] = len(self.nodes)
            self.nodes.append(node)
            numbers = [self.number[each] for each in inputs]
            self.parents.append(numbers)
            all_behind = 1 << self.number[node]
            for number in numbers:
                all_behind |= self.behind[number]
            self.behind.append(all_behind)

    def inputs(self, node: Edge) -> list[Edge]:
        """What a value was computed from; of a checkpoint, what its inside was computed from."""
        if node in self.seen.inner:
            return [self.seen.inner[node]]
        return [each for each in node[0].next_functions if each[0] is not None]

    def of(self, node: Edge) -> int:
        """Everything that a signal was computed from, itself included."""
        return self.behind[self.number[node]] if node in self.number else 0

    def members(self, nodes: int) -> list[int]:
        """The numbers in a set, inputs before what was computed from them."""
        found = []
        while nodes:
            lowest = nodes & -nodes
            found.append(lowest.bit_length() - 1)
            nodes ^= lowest
        return found

    def depth(self, nodes: int) -> int:
        """The longest chain of weight layers within a set."""
        if not nodes & self.layers:
            return 0
        longest: dict[int, int] = {}
        for number in self.members(nodes):  # inputs carry smaller numbers
            before = max((longest.get(p, 0) for p in self.parents[number]), default=0)
            longest[number] = before + (self.layers >> number & 1)
        return max(longest.values())

    def modules(self, nodes: int) -> list[str]:
        """The modules that computed a set, in order."""
        inside = (self.seen.inside.get(self.nodes[number][0]) for number in self.members(nodes))
        return list(dict.fromkeys(name for name in inside if name is not None))

    def all_pooled(self, node: Edge) -> bool:
        """Whether everything that reached a value was pooled to one token on the way."""
        stack, visited = [self.number[node]] if node in self.number else [], set()
        while stack:
            number = stack.pop()
            if number in visited or self.nodes[number][0] in self.seen.pooled:
                continue
            visited.add(number)
            if not self.parents[number]:
                return False
            stack.extend(self.parents[number])
        return bool(visited)


def union(sets: Iterable[int]) -> int:
    """Everything in any of the sets."""
    return reduce(operator.or_, sets, 0)


@dataclass(frozen=True)
class Verdict:
    """Which operands of a join went around layers, or why none did."""

    shortcut: tuple[int, ...] = ()
    reason: str = ""


def around_sum(
    flow: Flow, owner: str | None, sets: list[int], signals: list[int], extra: Sequence[int], difference: bool = False
) -> Verdict:
    """Which operands of a sum went around layers: those that passed fewer unshared layers, at most half as many.

    `owner`: the module that adds; without one, only layers with weights count.
    """
    shared = reduce(operator.and_, (sets[i] for i in signals))
    main = max(signals, key=lambda i: flow.depth(sets[i] & ~shared) + extra[i])
    verdicts = {i: _around_one(flow, owner, sets, i, main, extra, difference) for i in signals if i != main}
    shortcut = [i for v in verdicts.values() for i in v.shortcut]
    if shortcut:
        return Verdict(tuple(sorted(set(shortcut))))
    return next(iter(verdicts.values()))


def _around_one(
    flow: Flow, owner: str | None, sets: list[int], a: int, b: int, extra: Sequence[int], difference: bool
) -> Verdict:
    a, b = sorted((a, b))
    only = {a: sets[a] & ~sets[b], b: sets[b] & ~sets[a]}
    depth = {i: flow.depth(only[i]) + extra[i] for i in (a, b)}
    short, main = sorted((a, b), key=depth.__getitem__)
    low, high = depth[short], depth[main]
    if low < high:
        if low > 1 and 2 * low > high:
            return Verdict(reason=f"parallel branches, {low} and {high} layers deep")
        return Verdict((short,))
    if low:
        return Verdict(reason=f"parallel branches, both {low} layer{'s' * (low > 1)} deep")
    if owner is not None:
        outside = {i: [n for n in flow.modules(only[i]) if n != owner] for i in (a, b)}
        if bool(outside[a]) != bool(outside[b]):  # around modules without weights, such as pooling
            if difference:
                return Verdict(reason="a difference around no layer: what a filter or pooling took away")
            return Verdict((a if outside[b] else b,))
    return Verdict(reason="arithmetic within a module, around no layer")


def around_concatenation(flow: Flow, join: Seen, channels: int, sets: list[int], signals: list[int]) -> Verdict:
    """Which operands of a concatenation went into the computation of another operand."""
    if join.dim != channels:
        return Verdict(reason=f"joins along dimension {join.dim}, not the channels")
    shortcut = _older(flow, join, sets, signals)
    return Verdict(shortcut, "" if shortcut else "parallel branches, none computed from another")


def around_rows(flow: Flow, join: Seen, sets: list[int]) -> tuple[int, ...]:
    """Which maps joined along rows or tokens went into the computation of another one.

    Class tokens beside patches are no such maps: what is meant has the same size, and is often summed afterwards.
    """
    alike = len(set(join.widths)) == 1 and join.widths[0] > 1
    return _older(flow, join, sets, [i for i, nodes in enumerate(sets) if nodes]) if alike else ()


def _older(flow: Flow, join: Seen, sets: list[int], signals: list[int]) -> tuple[int, ...]:
    """The operands from which another one was computed, through at least one layer."""
    found = []
    for i in signals:
        bit = 1 << flow.number[signals_of(join)[i]]
        if any(sets[j] & bit and flow.depth(sets[j] & ~sets[i]) for j in signals if j != i):
            found.append(i)
    return tuple(found)


PRODUCTS = ("Mul", "Div", "Bmm", "Mm", "Mv", "Dot", "Baddbmm", "Convolution", "ScaledDotProduct", "GridSampler", "Pow")


@dataclass(frozen=True)
class Unseen:
    """A place in autograd's graph where signals meet, though no observed call joined them."""

    operation: str  # "maximum", "mul"
    product: bool  # one signal weighs the other; no sum
    result: Edge
    sets: tuple[int, ...]
    verdict: Verdict


def unseen(flow: Flow) -> list[Unseen]:
    """Other places where a signal goes around layers before the output: autograd's graph compared with the joins.

    Every value with two sources is looked at, whoever computed it. What was watched is left out, and so is what meets
    without having gone around any layer.
    """
    watched = {_meeting(flow, join) for join in flow.seen.joins}
    standing_in = {node for node, _ in flow.seen.inner}
    found = []
    for number in flow.members(flow.answer):
        function = flow.nodes[number][0]
        parents = list(dict.fromkeys(flow.parents[number]))
        if len(parents) < 2 or function in watched or function in standing_in or function in flow.seen.layers:
            continue
        sets = [flow.behind[parent] for parent in parents]
        if not any(one & ~two & flow.layers for one in sets for two in sets):
            continue
        verdict = around_sum(flow, None, sets, list(range(len(sets))), [0] * len(sets))
        if verdict.shortcut:
            operation = re.sub(r"^.*::|Backward\w*$", "", function.name())
            product = operation.startswith(PRODUCTS)
            found.append(Unseen(operation.lower(), product, flow.nodes[number], tuple(sets), verdict))
    return found


def _meeting(flow: Flow, join: Seen) -> Any:
    """The function in autograd's graph that joined: written into a part of another signal, it lies behind the part."""
    number = flow.number.get((join.result, 0))
    while number is not None and len(flow.parents[number]) == 1:
        number = flow.parents[number][0]
    return join.result if number is None else flow.nodes[number][0]
