"""Sums and products over the axes of traced arrays, none of which may run over the channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from pararnn_solvers.autodiff.trace.arrays import ARRAY_FUNCTIONS, UFUNCS, Traced
from pararnn_solvers.autodiff.trace.channels import as_cells
from pararnn_solvers.autodiff.trace.functions import by_cells, context_of, implements
from pararnn_solvers.errors import NotTraceable

__all__: list[str] = []

for _name in ("matmul", "vecdot", "matvec", "vecmat"):  # NumPy 2.2 has them all
    if hasattr(np, _name):
        UFUNCS[_name, "__call__"] = by_cells(getattr(np, _name))


@implements(np.einsum)
def _einsum(subscripts: Any, *operands: Any, optimize: Any = None) -> Any:
    context = context_of(operands)
    arrays = [context.array(a) for a in operands]
    if context.lift and any(isinstance(a, np.ndarray) for a in operands):
        return np.einsum(subscripts, *arrays)
    if all(a.dtype == bool for a in arrays):  # sums of products hold where one is not zero
        return np.einsum(subscripts, *(a.astype(context.dtype) for a in arrays)) != 0
    if all(a.channel is None for a in arrays):
        return by_cells(np.einsum)(subscripts, *arrays)
    terms, arrow, output = str(subscripts).replace(" ", "").partition("->")
    letter = _channel_letter(terms.split(","), arrays)
    if not arrow or letter is None or output.count(letter) != 1 or "." in output.split(letter)[1]:
        raise NotTraceable(f"step calls numpy.einsum({subscripts!r}), which may mix channels")
    cells = as_cells(np.einsum(subscripts, *(a.cells for a in arrays)))
    return Traced(context, cells, cells.ndim - len(output) + output.index(letter))


def _channel_letter(terms: list[str], arrays: list[Traced]) -> str | None:
    """Return the one letter that stands for the channel axes and for nothing else, if any."""
    letters = set()
    for term, a in zip(terms, arrays, strict=True):
        if a.channel is not None:
            after = a.ndim - a.channel  # counted from the end: what the ellipsis covers is open
            closed = term.rpartition(".")[2]
            letters.add(closed[-after] if after <= len(closed) else None)
    letter = letters.pop()
    if letters or letter is None:
        return None
    expected = [int(a.channel is not None) for a in arrays]
    return letter if [term.count(letter) for term in terms] == expected else None


def _reduction(name: str, function: str) -> Callable[..., Any]:
    def implementation(a: Traced, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
        if options:
            raise NotTraceable(f"step calls numpy.{function} with {', '.join(options)}=")
        axes = normalize_axis_tuple(range(a.ndim) if axis is None else axis, a.ndim)
        if a.channel in axes:
            instead = "; use np.where" if name.startswith("logical") else ""
            raise NotTraceable(
                f"step calls numpy.{function} over an axis of several channels{instead}"
            )
        if name in ("add", "multiply"):
            a = a.astype(a.context.dtype)  # which counts what is true
        combine = np.frompyfunc(lambda p, q: a.context.graph.apply(name, p, q), 2, 1)
        cells = a.cells
        for i in sorted(axes, reverse=True):
            cells = as_cells(combine.reduce(cells, axis=i, keepdims=keepdims))
        kept = [i for i in range(a.ndim) if keepdims or i not in axes]
        return Traced(a.context, cells, None if a.channel is None else kept.index(a.channel))

    return implementation


def _along_first(reduction: Callable[..., Any]) -> Callable[..., Any]:
    """Give a reduction the default axis of a ufunc's ``reduce``."""

    def implementation(a: Traced, axis: Any = 0, **options: Any) -> Any:
        return reduction(a, axis, **options)

    return implementation


_REDUCTIONS: dict[str, tuple[Any, ...]] = {
    "add": (np.sum,),
    "multiply": (np.prod,),
    "maximum": (np.max, np.amax),
    "minimum": (np.min, np.amin),
    "logical_and": (np.all,),
    "logical_or": (np.any,),
}
for _name, _functions in _REDUCTIONS.items():
    _implementation = _reduction(_name, _functions[0].__name__)
    ARRAY_FUNCTIONS.update(dict.fromkeys(_functions, _implementation))
    UFUNCS[_name, "reduce"] = _along_first(_implementation)


@implements(np.mean)
def _mean(a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    total = np.sum(a, axis=axis, keepdims=keepdims)
    return total / (a.size // total.size)
