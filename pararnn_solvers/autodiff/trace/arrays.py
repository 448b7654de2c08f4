"""Traced arrays: what a ``step`` is called with to learn which scalar operations it takes.

A traced array stands for an array of numbers. Its ``cells`` are an object array of nodes, with
NumPy's own indexing. An axis that runs over ``r*n`` entries, r components of n channels, is called
the channel axis and has only r cells: what happens in one channel happens in all. Hence it can be
cut and joined at multiples of n and combined entry by entry, and nothing else: whatever would mix
channels raises :class:`NotTraceable`. With one channel (``n = 1``) every axis is an ordinary one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from pararnn_solvers.autodiff.array_methods import ArrayMethods
from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.autodiff.trace.channels import (
    as_cells,
    cell_index,
    common_channel,
    refuse_large,
)
from pararnn_solvers.autodiff.trace.graph import TRUTH, Graph, Node
from pararnn_solvers.errors import NotTraceable

__all__ = [
    "ARRAY_FUNCTIONS",
    "UFUNCS",
    "Context",
    "Traced",
    "as_cells",
    "elementwise",
    "refuse_large",
]

ARRAY_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}  # filled on import
UFUNCS: dict[tuple[str, str], Callable[..., Any]] = {}  # (name, method), beyond RULES
_BITWISE = {"bitwise_and", "bitwise_or", "bitwise_xor", "invert"}
_NUMBER = (
    "step converts a traced value to a plain number or array, as float, math.* and np.array do; "
    "use NumPy's functions, and np.stack in place of np.array"
)


class Context(NamedTuple):
    """What the arrays of one trace share: the graph, n, and the type of the state.

    In a staged trace ``lift`` makes of an array of numbers one that enters the program as data,
    as if it were part of theta.
    """

    graph: Graph
    channels: int
    dtype: np.dtype[Any]
    lift: Callable[[Any], Traced] | None = None

    def array(self, value: Any) -> Traced:
        """Return a traced array as it is, and numbers as an array of constants."""
        if isinstance(value, Traced):
            return value
        if isinstance(value, Node):
            return Traced(self, as_cells(value))
        if isinstance(value, (list, tuple)) and any(isinstance(v, Traced) for v in value):
            stacked: Any = np.stack(value)
            return stacked  # type: ignore[no-any-return]
        value, n = np.asarray(value), self.channels
        if self.lift is not None and value.ndim:
            return self.lift(value)
        channel = None
        if n > 1 and value.ndim and value.shape[-1] % n == 0:
            channel = value.ndim - 1
            value = self._first_channel(value)
        refuse_large(value.shape, "an array of constants")
        cells: Any = np.empty(value.shape, object)
        cells.flat = [self.graph.constant(number) for number in value.ravel().tolist()]
        return Traced(self, cells, channel)

    def _first_channel(self, value: Any) -> Any:
        """One channel of an array (..., r*n) that is the same in all."""
        n = self.channels
        parts = value.reshape(*value.shape[:-1], value.shape[-1] // n, n)
        if len({part.tobytes() for part in np.moveaxis(parts, -1, 0)}) > 1:
            raise NotTraceable(
                f"step uses an array of shape {value.shape} which differs between channels and is "
                "not part of theta; pass it in theta"
            )
        return parts[..., 0]


class Traced(ArrayMethods, NDArrayOperatorsMixin):
    """An array whose entries are nodes of a graph.

    Parameters
    ----------
    context : Context
    cells : ndarray of Node, or a function that returns it
        As many as the array has entries, and one for every n along the channel axis.
    channel : int, optional
        The channel axis.
    extent : tuple of int, optional
        Shape of the cells, where they are made on first use.
    """

    __slots__ = ("_cells", "channel", "context", "extent")
    __array_priority__ = 1000.0

    def __init__(
        self,
        context: Context,
        cells: Any,
        channel: int | None = None,
        extent: tuple[int, ...] | None = None,
    ) -> None:
        self.context, self._cells, self.channel = context, cells, channel
        self.extent = cells.shape if extent is None else extent

    @property
    def cells(self) -> Any:
        """Nodes of the array."""
        if callable(self._cells):
            self._cells = self._cells()
        return self._cells

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that is traced, without leading axes."""
        n = self.context.channels
        return tuple(s * n if i == self.channel else s for i, s in enumerate(self.extent))

    @property
    def ndim(self) -> int:
        """Rank."""
        return len(self.extent)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the state, or bool."""
        known = not callable(self._cells) and self._cells.size > 0
        boolean = known and self._cells.flat[0].boolean
        return np.dtype(bool) if boolean else self.context.dtype

    # --- NumPy's protocols --------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", None)
        if out is not None:
            result = getattr(ufunc, method)(*args, **kwargs)
            if not isinstance(out[0], Traced):
                raise NotTraceable(_NUMBER)
            if out[0].dtype == bool != result.dtype:
                raise NotTraceable(
                    f"step writes what numpy.{ufunc.__name__} gives into truth values"
                )
            out[0][...] = result
            return out[0]
        name = ufunc.__name__
        if (name, method) in UFUNCS:
            return UFUNCS[name, method](*args, **kwargs)
        if method != "__call__" or kwargs or (name not in RULES and name not in _BITWISE):
            call = f"numpy.{name}" + ("" if method == "__call__" else f".{method}")
            options = f" with {', '.join(kwargs)}=" if kwargs else ""
            raise NotTraceable(f"step calls {call}{options}, which has no rule for traced arrays")
        return elementwise(self.context, name, *args)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        implementation = ARRAY_FUNCTIONS.get(func)
        if implementation is None:
            raise NotTraceable(
                f"step calls {func.__module__}.{func.__name__}, which has no rule for traced arrays"
            )
        return implementation(*args, **kwargs)

    def __pararnn_primitive__(self, name: str, function: Callable[[Any], Any]) -> Traced:
        return elementwise(self.context, name, self)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise NotTraceable(_NUMBER)

    def __float__(self) -> float:
        raise NotTraceable(_NUMBER)

    __int__ = __index__ = __complex__ = __float__

    def __bool__(self) -> bool:
        raise NotTraceable(TRUTH)

    # --- indexing -----------------------------------------------------------------------------

    def __len__(self) -> int:
        if not self.extent:
            raise TypeError("len() of a traced scalar")
        return self.shape[0]

    def __iter__(self) -> Iterator[Traced]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Traced:
        index, channel = self._resolve(index)
        return Traced(self.context, as_cells(self.cells[index]), channel)

    def __setitem__(self, index: Any, value: Any) -> None:
        target, new = self[index], self.context.array(value)
        common_channel([target, new])
        if np.broadcast_shapes(target.shape, new.shape) != target.shape:
            raise ValueError(f"cannot write shape {new.shape} into shape {target.shape}")
        if (target.dtype == bool) != (new.dtype == bool):
            new = elementwise(self.context, "not_equal", new, 0.0)
            new = new if target.dtype == bool else new.astype(self.context.dtype)
        # A 0-d object array would itself become the entry.
        self.cells[self._resolve(index)[0]] = new.cells if new.ndim else new.cells[()]

    def _resolve(self, index: Any) -> tuple[Any, int | None]:
        """Return the index of the cells, and the channel axis of what it selects."""
        index = index if isinstance(index, tuple) else (index,)
        if any(isinstance(i, Traced) for i in index):
            raise NotTraceable("step indexes by a traced value; use np.where")
        if self.channel is None:
            return index, None
        return cell_index(index, self.shape, self.channel, self.context.channels)

    # --- copies -------------------------------------------------------------------------------

    def astype(self, dtype: Any, **_: Any) -> Traced:
        """Convert truth values to numbers; numbers keep the type of the state."""
        dtype = np.dtype(dtype)
        if self.dtype == bool and dtype.kind == "f":
            return elementwise(self.context, "where", self, 1.0, 0.0)
        if dtype != self.dtype:
            raise NotTraceable(f"step converts from {self.dtype} to {dtype}")
        return self.copy()

    def copy(self, order: Any = "C") -> Traced:
        """Return an array that can be written to."""
        return Traced(self.context, self.cells.copy(), self.channel)

    __copy__ = copy


def elementwise(context: Context, name: str, *args: Any) -> Traced:
    """Apply an operation entry by entry."""
    arrays = [context.array(a) for a in args]
    ndim = len(np.broadcast_shapes(*(a.shape for a in arrays)))
    channel = common_channel(arrays)
    grid = np.broadcast(*(a.cells for a in arrays))
    refuse_large(grid.shape, "an array")
    cells: Any = np.empty(grid.shape, object)
    cells.flat = [context.graph.apply(name, *nodes) for nodes in grid]
    return Traced(context, cells, None if channel is None else channel + ndim)
