"""NumPy's functions on traced arrays.

With one channel, whatever moves, sums or multiplies entries is NumPy's own function on the object
array of nodes. With several, a function has to say where the channel axis goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from pararnn_solvers.autodiff.trace.arrays import (
    ARRAY_FUNCTIONS,
    Context,
    Traced,
)
from pararnn_solvers.autodiff.trace.channels import as_cells, refuse_large
from pararnn_solvers.errors import NotTraceable

__all__ = ["by_cells", "context_of", "implements"]

_function: Any


def implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let traced arrays evaluate these NumPy functions by the decorated one."""

    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        ARRAY_FUNCTIONS.update(dict.fromkeys(functions, implementation))
        return implementation

    return register


def arrays_in(tree: Any) -> list[Traced]:
    """List the traced arrays in nested lists, tuples and dicts."""
    if isinstance(tree, Traced):
        return [tree]
    tree = tree.values() if isinstance(tree, dict) else tree
    if isinstance(tree, (list, tuple)) or type(tree).__name__ == "dict_values":
        return [found for leaf in tree for found in arrays_in(leaf)]
    return []


def context_of(*args: Any) -> Context:
    """Return the context of the first traced array among arguments."""
    return arrays_in(args)[0].context


# --- one channel: NumPy's function on the cells -----------------------------------------------


def _to_cells(tree: Any) -> Any:
    if isinstance(tree, Traced):
        return tree.cells
    return type(tree)(map(_to_cells, tree)) if isinstance(tree, (list, tuple)) else tree


def _from_cells(context: Context, value: Any) -> Any:
    cells = as_cells(value)
    refuse_large(cells.shape, "an array")
    if cells.flags.writeable:  # plain numbers that joined the nodes
        cells.flat = context.graph.alike(context.graph.lift(entry) for entry in cells.ravel())
    return Traced(context, cells)


def by_cells(function: Any, numbers: bool = False) -> Callable[..., Any]:
    """Return NumPy's function on the cells (as `numbers`), for arrays without a channel axis."""
    name = f"{getattr(function, '__module__', None) or 'numpy'}.{function.__name__}"

    def implementation(*args: Any, **kwargs: Any) -> Any:
        lift = context_of(args, kwargs).lift
        if lift and any(isinstance(a, np.ndarray) for a in args):
            return function(*(lift(a) if isinstance(a, np.ndarray) else a for a in args), **kwargs)
        if any(a.channel is not None for a in arrays_in([args, kwargs])):
            raise NotTraceable(f"step calls {name}, which may mix channels")
        if numbers:
            args = (args[0].astype(args[0].context.dtype), *args[1:])
        given = {key: _to_cells(value) for key, value in kwargs.items()}
        return _from_cells(context_of(args, kwargs), function(*_to_cells(args), **given))

    return implementation


for _function in (
    *(np.roll, np.flip, np.flipud, np.fliplr, np.rot90, np.repeat, np.tile, np.take, np.kron),
    *(np.diagonal, np.dot, np.vdot, np.inner, np.outer, np.tensordot),
    *(np.vstack, np.hstack, np.dstack, np.column_stack, np.append, np.broadcast_to),
):
    ARRAY_FUNCTIONS[_function] = by_cells(_function)
for _function in (np.cumsum, np.trace):
    ARRAY_FUNCTIONS[_function] = by_cells(_function, numbers=True)  # which count what is true


@implements(np.diag)
def _diag(v: Any, k: int = 0) -> Any:
    out = by_cells(np.diag)(v, k)  # numbers, as zeros join the nodes
    return out != 0 if v.dtype == bool else out


@implements(np.diff)
def _diff(a: Any, n: int = 1, axis: int = -1, **ends: Any) -> Any:
    if ends:  # of truth values these are refused, as nothing is subtracted from them
        return by_cells(np.diff)(a, n, axis, **ends)
    change, rows = np.not_equal if a.dtype == bool else np.subtract, np.moveaxis(a, axis, 0)
    for _ in range(n):
        rows = change(rows[1:], rows[:-1])
    return np.moveaxis(rows, 0, axis)


# --- shapes ------------------------------------------------------------------------------------


@implements(np.shape)
def _shape(a: Any) -> Any:
    return a.shape


@implements(np.ndim)
def _ndim(a: Any) -> Any:
    return a.ndim


@implements(np.size)
def _size(a: Any, axis: Any = None) -> Any:
    return a.size if axis is None else a.shape[axis]


@implements(np.result_type)
def _result_type(*args: Any) -> Any:
    return np.result_type(*(a.dtype if isinstance(a, Traced) else a for a in args))


@implements(np.reshape)
def _reshape(a: Traced, /, shape: Any, order: str = "C", *, copy: Any = None) -> Traced:
    new = (
        np.broadcast_to(0, a.shape).reshape(shape).shape
    )  # resolves -1, and refuses what NumPy does
    n = a.context.channels
    if order != "C":
        raise NotTraceable(f"step calls numpy.reshape with order={order!r}")
    if a.channel is None:
        return Traced(a.context, a.cells.reshape(new))
    if a.channel != a.ndim - 1 or not new or new[-1] % n:
        raise NotTraceable(
            f"step reshapes {a.shape} to {new}; with {n} channels, the last axis has to keep a "
            f"multiple of {n} entries"
        )
    return Traced(a.context, a.cells.reshape(*new[:-1], new[-1] // n), len(new) - 1)


def _by_reshape(function: Any) -> Callable[..., Any]:
    def implementation(a: Any, *args: Any, **kwargs: Any) -> Any:
        return np.reshape(a, function(np.broadcast_to(0, a.shape), *args, **kwargs).shape)

    return implementation


for _function in (np.ravel, np.squeeze, np.atleast_1d, np.atleast_2d, np.atleast_3d):
    ARRAY_FUNCTIONS[_function] = _by_reshape(_function)


def _by_permutation(function: Any) -> Callable[..., Any]:
    def implementation(a: Any, *args: Any, **kwargs: Any) -> Any:
        # The shape 0, 1, 2, ... of an empty array, permuted, is the permutation.
        axes = function(np.empty(range(a.ndim)), *args, **kwargs).shape
        channel = None if a.channel is None else axes.index(a.channel)
        return Traced(a.context, a.cells.transpose(axes), channel)

    return implementation


for _function in (
    *(np.transpose, np.permute_dims, np.swapaxes, np.moveaxis, np.rollaxis),
    *(np.matrix_transpose, np.linalg.matrix_transpose),
):
    ARRAY_FUNCTIONS[_function] = _by_permutation(_function)


@implements(np.expand_dims)
def _expand_dims(a: Traced, axis: Any) -> Traced:
    cells = np.expand_dims(a.cells, axis)
    new = normalize_axis_tuple(axis, cells.ndim)
    kept = [i for i in range(cells.ndim) if i not in new]
    return Traced(a.context, cells, None if a.channel is None else kept[a.channel])
