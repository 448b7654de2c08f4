"""A graph of scalar operations in which equal expressions are one node.

Nodes are made by :meth:`Graph.apply` only, which simplifies (see
:mod:`.simplify`), orders the operands of commutative operations, and then
looks the operation up: common subexpressions never exist twice. A node answers to Python's
operators, to NumPy's ufuncs and to :mod:`pararnn_solvers.functions`, so that the derivative rules
in ``RULES`` apply to nodes as they stand.

Operations are named as in ``RULES``, except ``"input"``, ``"constant"`` and ``"where"``.

References
----------
Filliatre and Conchon (2006), "Type-safe modular hash-consing".
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from pararnn_solvers import functions
from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.autodiff.trace.simplify import COMMUTATIVE, CONNECTIVES, PREDICATES, SIMPLIFY
from pararnn_solvers.errors import NotTraceable

__all__ = ["TRUTH", "Graph", "Node", "function_named", "reachable"]

MOST_COMPONENTS = 8  # of a channel that is compiled: its Jacobian has the square of it
MAX_NODES = 8192  # beyond this, compiled straight-line code is no longer the faster way
TRUTH = (
    "step asks whether a traced value is true, as if, and, or, max and min do; "
    "use np.where, np.maximum or np.minimum instead"
)
_BITWISE = {
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "bitwise_xor": "logical_xor",
    "invert": "logical_not",
}
_OF_TRUTHS = {  # what NumPy does to truth values alone
    **dict.fromkeys(("add", "maximum", "fmax"), "logical_or"),
    **dict.fromkeys(("multiply", "minimum", "fmin"), "logical_and"),
    "absolute": "absolute",
}
_OF_NUMBERS = PREDICATES | {"divide"}  # to which truth values are 0 and 1


class Node(NDArrayOperatorsMixin):
    """One scalar operation: ``op`` of the nodes ``args``.

    Attributes
    ----------
    op : str
        ``"input"``, ``"constant"``, ``"where"`` or a key of ``RULES``.
    args : tuple of Node
        Empty for inputs and constants.
    value : object
        Of an input, its description; of a constant, a float or a bool; otherwise None.
    id : int
        Greater than the id of every argument.
    boolean : bool
        Whether the value is true or false, not a number.
    """

    __slots__ = ("args", "boolean", "graph", "id", "op", "value")

    def __init__(self, graph: Graph, op: str, args: tuple[Node, ...], value: Any) -> None:
        self.graph, self.op, self.args, self.value = graph, op, args, value
        self.id = graph.size
        self.boolean = _is_boolean(op, args, value)

    def is_constant(self, value: float | None = None) -> bool:
        """Tell whether this is a constant, or that constant."""
        return self.op == "constant" and (value is None or self.value == value)

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Node:
        if method != "__call__" or kwargs:
            raise NotTraceable(f"numpy.{ufunc.__name__}.{method} of a traced scalar")
        return self.graph.apply(ufunc.__name__, *args)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Node:
        if func not in (np.where, np.clip) or len(args) != 3:
            raise NotTraceable(f"numpy.{func.__name__} of a traced scalar")
        return self.graph.apply(func.__name__, *args)

    def __pararnn_primitive__(self, name: str, function: Callable[[Any], Any]) -> Node:
        return self.graph.apply(name, self)

    def __bool__(self) -> bool:
        raise NotTraceable(TRUTH)

    def conjugate(self) -> Node:
        """Return the node itself, which is real: ``np.vdot`` of arrays of objects asks."""
        return self

    def __hash__(self) -> int:
        return self.id

    def __repr__(self) -> str:
        return self.describe(depth=5)

    def describe(self, depth: int) -> str:
        """Write the expression out, at most ``depth`` operations deep: shared nodes repeat."""
        if self.op in ("input", "constant"):
            return str(self.value)
        args = ", ".join(arg.describe(depth - 1) for arg in self.args) if depth else "..."
        return f"{self.op}({args})"


class Graph:
    """The nodes of one trace."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[Any, ...], Node] = {}

    @property
    def size(self) -> int:
        """Number of nodes made so far."""
        return len(self._nodes)

    def input(self, value: Any) -> Node:
        """Return the node of an input described by ``value`` (hashable): one node for each."""
        return self._intern("input", (), value)

    def constant(self, value: Any) -> Node:
        """Return the node of a number or truth value."""
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value[()]
        if isinstance(value, (bool, np.bool)):
            return self._intern("constant", (), bool(value))
        if isinstance(value, (int, float, np.integer, np.floating)):
            return self._intern("constant", (), float(value))
        raise NotTraceable(f"step computes with {type(value).__name__} objects, not real numbers")

    def lift(self, value: Any) -> Node:
        """Return a node as it is, anything else as a constant."""
        return value if isinstance(value, Node) else self.constant(value)

    def apply(self, name: str, *args: Any) -> Node:
        """Return the node of ``name`` applied to nodes or numbers, simplified.

        Raises
        ------
        NotTraceable
            If there is no rule for ``name``, or the graph has grown beyond ``MAX_NODES``.
        """
        nodes = tuple(self.lift(a) for a in args)
        if name in _BITWISE:
            if not all(node.boolean for node in nodes):
                raise NotTraceable(f"numpy.{name} of numbers")
            name = _BITWISE[name]
        if name != "where" and name not in RULES:
            raise NotTraceable(f"{name} has no derivative rule")
        name, nodes = self._converted(name, nodes)
        if all(node.op == "constant" for node in nodes):
            return self.constant(evaluate_constant(name, nodes))
        simpler = SIMPLIFY[name](*nodes) if name in SIMPLIFY else None
        if simpler is not None:
            return self.lift(simpler)
        if name in COMMUTATIVE:
            nodes = tuple(sorted(nodes, key=_canonical_order))
        return self._intern(name, nodes)

    def _converted(self, name: str, nodes: tuple[Node, ...]) -> tuple[str, tuple[Node, ...]]:
        """Return an operation and its operands as truths or numbers, as NumPy converts them."""
        if name == "where":
            condition, *branches = nodes
            return name, (self._truth(condition), *self.alike(branches))
        if name in CONNECTIVES:
            return name, tuple(self._truth(node) for node in nodes)
        if name in _OF_NUMBERS or not all(node.boolean for node in nodes):
            return name, tuple(self.number(node) for node in nodes)
        if name not in _OF_TRUTHS:  # an error in NumPy, or integers, or of half precision
            raise NotTraceable(f"{name} of truth values alone; make numbers of them by astype")
        return _OF_TRUTHS[name], nodes

    def number(self, node: Node) -> Node:
        """Return 1 for true and 0 for false; numbers stay."""
        if not node.boolean:
            return node
        if node.op == "constant":
            return self.constant(float(node.value))
        return self._intern("where", (node, self.constant(1.0), self.constant(0.0)))

    def alike(self, nodes: Iterable[Node]) -> list[Node]:
        """Return nodes as numbers, unless all are true or false: entries have one type."""
        nodes = list(nodes)
        return nodes if all(n.boolean for n in nodes) else [self.number(n) for n in nodes]

    def _truth(self, node: Node) -> Node:
        return node if node.boolean else self.apply("not_equal", node, 0.0)

    def _intern(self, op: str, args: tuple[Node, ...], value: Any = None) -> Node:
        # The text of a constant tells 0.0 from -0.0 and True from 1.0, and NaN equals itself.
        key = (op, *(node.id for node in args), repr(value) if op == "constant" else value)
        node = self._nodes.get(key)
        if node is None:
            if self.size >= MAX_NODES:
                raise NotTraceable(f"step takes more than {MAX_NODES} scalar operations")
            node = self._nodes[key] = Node(self, op, args, value)
        return node


def function_named(name: str) -> Callable[..., Any]:
    """Return the function of arrays which ``RULES`` knows by this name."""
    for library in (np, functions):
        if hasattr(library, name):
            found: Callable[..., Any] = getattr(library, name)
            return found
    special: Callable[..., Any] = getattr(importlib.import_module("scipy.special"), name)
    return special


def evaluate_constant(name: str, nodes: Iterable[Node]) -> Any:
    """Evaluate an operation on constants, in float64."""
    with np.errstate(all="ignore"):
        return np.asarray(function_named(name)(*(np.asarray(node.value) for node in nodes)))


def reachable(outputs: Iterable[Node]) -> list[Node]:
    """List the nodes on which ``outputs`` depend, themselves included, arguments first."""
    found: dict[int, Node] = {}
    waiting = list(outputs)
    while waiting:
        node = waiting.pop()
        if node.id not in found:
            found[node.id] = node
            waiting += node.args
    return [found[i] for i in sorted(found)]  # an argument is made before what it enters


def _canonical_order(node: Node) -> tuple[bool, int]:
    return node.op != "constant", node.id


def _is_boolean(op: str, args: tuple[Node, ...], value: Any) -> bool:
    if op == "where":
        return all(arg.boolean for arg in args)
    return op in PREDICATES or isinstance(value, bool)
