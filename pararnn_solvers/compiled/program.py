"""A step as the functions that kernels are made of, each printed from its graph and compiled.

Every function takes tuples of vectors: the state, the drives and the parameters that the step
uses, and for some a fourth, a direction. They return one.
"""

from __future__ import annotations

import linecache
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, ClassVar

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.trace.graph import Node, reachable
from pararnn_solvers.autodiff.trace.source import Dialect, source
from pararnn_solvers.autodiff.trace.tracing import Input, Trace, trace
from pararnn_solvers.compiled import cache, rounding, vector_math
from pararnn_solvers.compiled.addresses import Place
from pararnn_solvers.compiled.vectors import full, select
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.linear import alignment
from pararnn_solvers.linear.jit import inlined
from pararnn_solvers.typing import Array

FUNCTIONS: dict[str, Callable[..., Any]] = {**vector_math.FUNCTIONS, **rounding.FUNCTIONS}
"""What a compiled step may call."""

FUNCTION = 25.0  # operations of arithmetic that one of them takes, about

_NAMES = {**FUNCTIONS, "full": full, "select": select, "inf": math.inf, "nan": math.nan}
_known: dict[str, Any] = {}
_compilable: set[str] = set()
_lock = Lock()


def literal(value: float | bool, dtype: np.dtype[Any]) -> str:
    """Write a constant: it adopts the type of the vector that it meets."""
    with np.errstate(over="ignore", under="ignore"):
        return repr(value) if isinstance(value, bool) else str(dtype.type(value))


VECTORS = Dialect(literal, "select({condition}, {a}, {b})", argument="full(h[0], {a})")


@dataclass(frozen=True, eq=False)
class Program:
    """A traced step and its derivatives as source, and the values of its parameters.

    Parameters
    ----------
    trace : Trace
    theta : array, flat
        Shared parameters, then n values of each of those that channels have for themselves.

    Attributes
    ----------
    drives, parameters : tuple of Input
        What the step uses of x and of theta.
    kernels, shooting, gradients, wavefront : str
        Modules that run such a program: passes over a trajectory, chunks of time and their choice,
        the reversed pass, all Newton iterations in one pass (empty: there is none).
    """

    trace: Trace
    theta: Array
    kernels: ClassVar[str] = "pararnn_solvers.compiled.numba_kernels"
    shooting: ClassVar[str] = "pararnn_solvers.compiled.shooting_policy"
    gradients: ClassVar[str] = "pararnn_solvers.compiled.gradients"
    wavefront: ClassVar[str] = "pararnn_solvers.compiled.wavefront"

    @property
    def k(self) -> int:
        """Components of a state."""
        return len(self.trace.states)

    @property
    def n(self) -> int:
        """Channels."""
        return self.trace.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the state."""
        return self.trace.dtype

    @cached_property
    def operations(self) -> float:
        """Operations of arithmetic that the step of a channel takes, at least 1."""
        nodes = [node for node in reachable(self.trace.outputs) if node.args]
        return sum(FUNCTION if node.op in FUNCTIONS else 1.0 for node in nodes) or 1.0

    @property
    def has_limits(self) -> bool:
        """Whether it calls functions that are NaN where NumPy's are not: for large arguments."""
        called = (rf"\b{name}\(" for name in vector_math.LIMITED)
        return any(re.search(call, self.step_source) for call in called)

    @cached_property
    def drives(self) -> tuple[Input, ...]:
        """The inputs x that the step uses, those shared by all channels first."""
        used = {node.id for node in reachable(self.trace.outputs)}
        found = [node.value for node in self.trace.drives if node.id in used]
        return tuple(sorted(found, key=lambda i: (i.channels > 0, i.position)))

    @cached_property
    def parameters(self) -> tuple[Input, ...]:
        """The entries of theta that the step uses, those shared by all channels first."""
        return _parameters(self.trace)

    @cached_property
    def drive_places(self) -> tuple[Place, ...]:
        """Where the drives are in a row of x."""
        return tuple(
            Place(0, i.position[0], True) if i.channels else Place(i.position[0], 0, False)
            for i in self.drives
        )

    @cached_property
    def parameter_places(self) -> tuple[Place, ...]:
        """Where the parameters are in ``theta``."""
        shared = sum(not i.channels for i in self.parameters)
        return tuple(
            Place(shared, j - shared, True) if i.channels else Place(j, 0, False)
            for j, i in enumerate(self.parameters)
        )

    def with_parameters(self, theta: Any) -> Program:
        """Return the same program, sources and all, with the values of other parameters."""
        other = object.__new__(type(self))
        vars(other).update(vars(self), theta=_packed(self.parameters, self.dtype, theta))
        return other

    def require_functions(self) -> None:
        """Raise NotTraceable unless the step and all its derivatives can be compiled."""
        if self.step_source not in _compilable:  # it determines the others
            _compilable.update({self.step_source, self.jacobian_source, self.adjoint_source})

    @cached_property
    def step_source(self) -> str:
        """``advance(h, x, theta)``: the next state."""
        return self._write("advance", self.trace.outputs)

    @cached_property
    def tangent_source(self) -> str:
        """``advance(h, x, theta)`` of states followed by k x k tangents G: ``f``, ``A G``."""
        k, graph = self.k, self.trace.graph
        rows = self.trace.jacobian()
        G = [
            [graph.input(self._input(f"G{i}_{j}", "h", k + i * k + j)) for j in range(k)]
            for i in range(k)
        ]
        AG = [_dot(graph, row, [G[i][j] for i in range(k)]) for row in rows for j in range(k)]
        return self._write("advance", [*self.trace.outputs, *AG])

    @cached_property
    def jacobian_source(self) -> str:
        """``linearize(h, x, theta)``: the next state, and its k x k derivatives."""
        rows = self.trace.jacobian()
        return self._write("linearize", [*self.trace.outputs, *(a for row in rows for a in row)])

    @cached_property
    def newton_source(self) -> str:
        """``correct(h, x, theta, delta)``: ``f + A delta``, and ``f``."""
        graph = self.trace.graph
        delta = [graph.input(self._input(f"delta{j}", "direction", j)) for j in range(self.k)]
        rows = zip(self.trace.outputs, self.trace.jacobian(), strict=True)
        moved = [graph.apply("add", f, _dot(graph, row, delta)) for f, row in rows]
        return self._write("correct", [*moved, *self.trace.outputs])

    @cached_property
    def adjoint_source(self) -> str:
        """``pull_back(h, x, theta, lam)``: lam times the derivatives by h, x and theta."""
        vjp = self.trace.vjp()
        states, drives, parameters = self.trace.states, self.trace.drives, self.trace.parameters
        by_name = {
            str(node.value): product
            for node, product in zip(
                [*states, *drives, *parameters], [*vjp.h, *vjp.x, *vjp.theta], strict=True
            )
        }
        wanted = [*(node.value for node in states), *self.drives, *self.parameters]
        return self._write("pull_back", [by_name[i.name] for i in wanted])

    def _input(self, name: str, group: str, position: int) -> Input:
        return Input(name, group, 0, (position,), self.n)

    def _write(self, name: str, outputs: Sequence[Node]) -> str:
        """Print a function of tuples that returns the values of some nodes."""
        named = {f"r{i}": node for i, node in enumerate(outputs)}
        text = source(named, self.dtype, VECTORS)
        missing = [function for function in text.functions if function not in FUNCTIONS]
        if missing:
            raise NotTraceable(f"step calls {', '.join(missing)}: no vector function computes it")
        slots = {
            **{i.name: f"x[{j}]" for j, i in enumerate(self.drives)},
            **{i.name: f"theta[{j}]" for j, i in enumerate(self.parameters)},
        }
        lines = [f"def {name}(h, x, theta{', direction' * (name in _FOUR)}):"]
        for node in text.arguments:
            i = node.value
            lines.append(f"    {i.name} = {slots[i.name] if i.name in slots else _slot(i)}")
        lines += [f"    {line}" for line in text.lines]
        results = [
            f"full(h[0], {name})" if node.op == "constant" else name for name, node in named.items()
        ]
        return "\n".join([*lines, f"    return ({', '.join(results)},)", ""])


_DIRECTIONS = ("direction", "adjoint")
_FOUR = ("correct", "pull_back")


def _slot(i: Input) -> str:
    array = "direction" if i.group in _DIRECTIONS else "h"
    return f"{array}[{i.position[0]}]"


def _dot(graph: Any, row: Sequence[Node], vector: Sequence[Node]) -> Node:
    total = graph.constant(0.0)
    for a, v in zip(row, vector, strict=True):
        total = graph.apply("add", total, graph.apply("multiply", a, v))
    found: Node = total
    return found


def compile_source(text: str) -> Any:
    """Return the function that a source defines, to be inlined in kernels: one for each text."""
    with _lock:
        if text not in _known:
            key = cache.digest(text)
            name = f"<step {key[:12]}>"
            linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
            namespace = {**_NAMES, "__name__": __name__}
            exec(compile(text, name, "exec"), namespace)  # noqa: S102
            function: Any = namespace[text[4 : text.index("(")]]
            _known[text] = inlined(cache.unique(function, key))
        return _known[text]


def _parameters(traced: Trace) -> tuple[Input, ...]:
    found = [node.value for node in traced.parameters]
    return tuple(sorted(found, key=lambda i: (i.channels > 0, i.leaf, i.position)))


def program(step: Callable[..., Any], h: Any, x: Any, theta: Any, block_size: int) -> Program:
    """Trace a step and gather its parameters; arguments and errors as of ``trace``."""
    traced = trace(step, h, x, theta, block_size)
    return Program(traced, _packed(_parameters(traced), traced.dtype, theta))


def _packed(parameters: Sequence[Input], dtype: np.dtype[Any], theta: Any) -> Array:
    """Return the values of ``Program.parameters``, aligned."""
    leaves = tree.flatten(theta)[0]
    values = [np.ravel(i.pick(leaves[i.leaf])) for i in parameters]
    packed = alignment.empty(sum(value.size for value in values), dtype)
    if values:
        np.concatenate(values, out=packed, casting="unsafe")  # integers, too
    return packed
