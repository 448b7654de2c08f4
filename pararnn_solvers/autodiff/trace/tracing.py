"""The scalar operations of one step, found by calling it once on traced arrays.

What is traced: ufuncs with a derivative rule, :mod:`pararnn_solvers.functions`, ``where``,
``clip``, ``select``; slices of whole components, ``concatenate``, ``stack``, ``split``,
``reshape`` to and from ``(..., k, n)``; sums and products over components; writing into a copy.
With one channel (``k = d``) moreover whatever NumPy does with object arrays by ``+`` and ``*``:
any index, ``matmul``, ``dot``, ``roll``, ``cumsum``, ... Everything else, and every mixing of
channels, raises :class:`NotTraceable`.

Leaves of theta: a float array whose last axis is a multiple of n has a value for each channel; any
other float is one number for all channels. Other leaves (integers, text, truth values) are part
of the program: a trace holds for these values only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.trace import (  # noqa: F401  (they register functions)
    derivative,
    functions,
    joining,
    products,
)
from pararnn_solvers.autodiff.trace.arrays import Context
from pararnn_solvers.autodiff.trace.graph import Graph, Node, function_named, reachable
from pararnn_solvers.autodiff.trace.inputs import Input, argument, parameters
from pararnn_solvers.errors import NotTraceable

__all__ = ["Input", "Trace", "Vjp", "evaluate", "trace"]


class Vjp(NamedTuple):
    """Products of adjoints with the derivatives of a step.

    ``h[i]``, ``x[j]`` and ``theta[p]`` are ``sum_i adjoint_i d f_i / d .`` with respect to the
    entries of the trace's ``states``, ``drives`` and ``parameters``, in each channel and for one
    step: what is shared has to be summed over the channels, and theta over the steps.
    """

    adjoints: tuple[Node, ...]
    h: list[Node]
    x: list[Node]
    theta: list[Node]


@dataclass(frozen=True, eq=False)
class Trace:
    """The operations of a step in one channel.

    Attributes
    ----------
    graph : Graph
        Derivatives add nodes to it, so one thread at a time may ask for them.
    outputs : tuple of k Node
        Components of the next state.
    states, drives, parameters : tuples of Node
        Inputs: the k components of h, all of x, and those of theta that the outputs depend on.
        The ``value`` of each is its :class:`Input`.
    constants : tuple of (str, object)
        Path and value of the leaves of theta that became part of the program.
    channels : int
        n.
    dtype : dtype
        Of the state.
    """

    graph: Graph
    outputs: tuple[Node, ...]
    states: tuple[Node, ...]
    drives: tuple[Node, ...]
    parameters: tuple[Node, ...]
    constants: tuple[tuple[str, Any], ...]
    channels: int
    dtype: np.dtype[Any]

    @property
    def inputs(self) -> tuple[Node, ...]:
        """States, drives and parameters."""
        return (*self.states, *self.drives, *self.parameters)

    def jacobian(self) -> list[list[Node]]:
        """Return the k x k derivatives of the outputs by the states."""
        return derivative.forward(self.outputs, self.states)

    def vjp(self) -> Vjp:
        """Return products of adjoints with the derivatives by states, drives and parameters."""
        k, p = len(self.states), len(self.states) + len(self.drives)
        adjoints = tuple(
            self.graph.input(Input(f"adjoint{i}", "adjoint", 0, (i,), self.channels))
            for i in range(k)
        )
        found = derivative.reverse(self.outputs, adjoints, self.inputs)
        return Vjp(adjoints, found[:k], found[k:p], found[p:])

    def values(self, h: Any, x: Any, theta: Any, adjoint: Any = None) -> dict[str, Any]:
        """Return the values of all inputs by name, as views."""
        leaves = tree.flatten(theta)[0]
        arrays = {"h": h, "x": x, "adjoint": adjoint}
        nodes = [*self.inputs, *(self.vjp().adjoints if adjoint is not None else ())]
        inputs: list[Input] = [node.value for node in nodes]
        return {
            i.name: i.pick(leaves[i.leaf] if i.group == "theta" else arrays[i.group])
            for i in inputs
        }


def trace(step: Callable[..., Any], h: Any, x: Any, theta: Any, block_size: int) -> Trace:
    """Call a step on traced arrays, and return the operations it took.

    Parameters
    ----------
    step : callable
        ``step(h, x, theta)``.
    h : array, shape (..., d)
        Of which only the last axis and the dtype matter; as of ``x``.
    x : array, shape (..., m), or None
    theta : nested containers
        Only shapes of floats matter; other leaves are used as they are.
    block_size : int
        k; the state has ``n = d/k`` channels.

    Raises
    ------
    NotTraceable
        The message says what `step` does that cannot be traced.

    Notes
    -----
    Cost: about 10 microseconds for each operation.

    Examples
    --------
    >>> trace(lambda h, x, a: np.tanh(a * h + x), np.ones(5), np.ones(5), np.ones(5), 1).outputs
    (tanh(add(x0, multiply(h0, theta))),)
    """
    d, dtype = h.shape[-1], np.dtype(h.dtype)
    context = Context(Graph(), d // block_size, dtype)
    state = argument(context, "h", d)
    drive = None if x is None else argument(context, "x", x.shape[-1])
    leaves, constants = parameters(context, theta)
    try:
        out = context.array(step(state, drive, tree.flatten(theta)[1](leaves)))
    except NotTraceable:
        raise
    except Exception as error:
        raise NotTraceable(
            f"step raises {type(error).__name__} on traced arrays: {error}"
        ) from error
    if out.shape != (d,):
        raise NotTraceable(f"step returns shape {out.shape} for a state of shape {(d,)}")
    outputs = tuple(context.graph.number(node) for node in out.cells)
    used = [node for node in reachable(outputs) if node.op == "input"]
    return Trace(
        context.graph,
        outputs,
        tuple(state.cells),
        () if drive is None else tuple(drive.cells),
        tuple(node for node in used if node.value.group == "theta"),
        constants,
        context.channels,
        dtype,
    )


def evaluate(outputs: list[Node], values: Mapping[str, Any], dtype: Any = np.float64) -> list[Any]:
    """Evaluate nodes by NumPy, operation by operation.

    Parameters
    ----------
    outputs : list of Node
    values : mapping
        By name of the input, arrays that broadcast together; see :meth:`Trace.values`.
    dtype : dtype
        Of the constants.

    Returns
    -------
    list of arrays
    """
    known: dict[int, Any] = {}
    for node in reachable(outputs):
        if node.op == "input":
            known[node.id] = values[str(node.value)]
        elif node.op == "constant":
            known[node.id] = node.value if node.boolean else np.dtype(dtype).type(node.value)
        else:
            known[node.id] = function_named(node.op)(*(known[arg.id] for arg in node.args))
    return [known[node.id] for node in outputs]
