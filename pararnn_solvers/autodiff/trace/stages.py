"""A staged trace cut in stages: what is computed in each channel before which products."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pararnn_solvers.autodiff.trace.graph import Node, reachable
from pararnn_solvers.autodiff.trace.source import PYTHON, Dialect, Source, function_calls, source
from pararnn_solvers.autodiff.trace.staged import StagedTrace

__all__ = ["Stage", "Stored", "cut"]


class Stored(NamedTuple):
    """The value that an earlier stage has written, as an input of a later one."""

    name: str
    number: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Stage:
    """What happens in each channel before the products of one level, or at the end of a step.

    Attributes
    ----------
    level : int
    code : Source
    outputs : int
        How many values it writes for each channel.
    first : int
        The number of the first of them among all that are stored; 0 at the end of the step.
    """

    level: int
    code: Source
    outputs: int
    first: int

    @property
    def inputs(self) -> tuple[Node, ...]:
        """What it reads."""
        return self.code.arguments


def cut(
    trace: StagedTrace, dialect: Dialect = PYTHON
) -> tuple[tuple[Stage, ...], dict[int, int], int]:
    """Cut a trace before the products of each level.

    Parameters
    ----------
    trace : StagedTrace
    dialect : Dialect, optional
        In which the code of stages is written.

    Returns
    -------
    stages : tuple of Stage
        The last one computes the next state.
    operands : dict of int to int
        For the products whose row is not part of the state, by their number: the number of the
        first stored value in it.
    stored : int
        How many values the stages store.
    """
    stages, operands, known, stored = list[Stage](), dict[int, int](), dict[int, Node](), 0
    levels = sorted({product.level for product in trace.products} - {0})
    for level in levels:
        outputs = list[Node]()
        for number, product in enumerate(trace.products):
            if product.level == level and not _is_part_of_state(product.operand):
                operands[number] = stored + len(outputs)
                outputs += product.operand
        later = [node for p in trace.products if p.level > level for node in p.operand]
        outputs += _shared(outputs, [*trace.outputs, *later], known)
        if outputs:
            stages.append(Stage(level, _code(trace, outputs, known, dialect), len(outputs), stored))
            for number, node in enumerate(outputs, stored):
                if node.args:
                    known[node.id] = trace.graph.input(Stored(f"stored{number}", number))
            stored += len(outputs)
    last = max(levels, default=0) + 1
    code = _code(trace, trace.outputs, known, dialect)
    stages.append(Stage(last, code, len(trace.outputs), 0))
    return tuple(stages), operands, stored


def _is_part_of_state(operand: Sequence[Node]) -> bool:
    inputs = [node.value for node in operand if getattr(node.value, "group", "") == "h"]
    places = [place for i in inputs for place in i.position]
    whole = len(places) == len(operand)
    return whole and places == list(range(min(places), max(places) + 1))


def _shared(outputs: Sequence[Node], later: Sequence[Node], known: dict[int, Node]) -> list[Node]:
    """List what is computed by function calls now and needed later, besides the outputs.

    What takes only arithmetic is computed again: that costs less than memory.
    """
    now, done = {node.id for node in reachable(outputs)}, {*known, *(n.id for n in outputs)}
    found, seen, waiting = dict[int, Node](), set[int](), list(later)
    while waiting:
        node = waiting.pop()
        if node.id in seen or node.id in done:
            continue
        seen.add(node.id)
        if node.id in now and not node.boolean and function_calls(reachable([node])):
            found[node.id] = node
        else:
            waiting += node.args
    return [found[i] for i in sorted(found)]


def _code(
    trace: StagedTrace, outputs: Iterable[Node], known: dict[int, Node], dialect: Dialect
) -> Source:
    """Write the source of some nodes, starting from those that are known."""
    new: dict[int, Node] = {}
    outputs = list(outputs)
    for node in reachable(outputs):
        args = [new[arg.id] for arg in node.args]
        made = node.graph.apply(node.op, *args) if args else node
        new[node.id] = known.get(node.id, made)
    return source({f"f{i}": new[node.id] for i, node in enumerate(outputs)}, trace.dtype, dialect)
