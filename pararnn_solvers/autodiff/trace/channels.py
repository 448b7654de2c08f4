"""The channel axis of traced arrays: which indices keep it, and which arrays share it.

An axis of ``r*n`` entries, r components of n channels, is represented by r cells. A position on it
is one in the array, counted from the front, or from the end where arrays are broadcast together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pararnn_solvers.errors import NotTraceable

__all__ = ["as_cells", "cell_index", "common_channel", "refuse_large"]

MAX_CELLS = 1024  # an array with more entries per channel is not straight-line code


def cell_index(
    index: tuple[Any, ...], shape: tuple[int, ...], channel: int, n: int
) -> tuple[tuple[Any, ...], int | None]:
    """Return the index of the cells, and the channel axis of what it selects.

    Parameters
    ----------
    index : tuple
        As given to an array of this `shape`.
    channel, n : int
        Its channel axis, and the number of channels.

    Raises
    ------
    NotTraceable
        If the index takes other than whole components.
    """
    spread: list[Any] = []
    missing = len(shape) - sum(i is not None and i is not Ellipsis for i in index)
    for i in index if any(i is Ellipsis for i in index) else (*index, Ellipsis):
        spread += [slice(None)] * missing if i is Ellipsis else [i]
    axis = position = 0
    found, out = None, list[Any]()
    for i in spread:
        if i is not None and axis == channel:
            i, found = _whole_components(i, shape[axis], n), position
        elif i is not None and not isinstance(i, (int, np.integer, slice)):
            raise NotTraceable(
                "step indexes by an array; where there are several channels, only integers and "
                "slices are traced"
            )
        out.append(i)
        axis += i is not None
        position += not isinstance(i, (int, np.integer))
    return tuple(out), found


def _whole_components(index: Any, size: int, n: int) -> slice:
    if isinstance(index, slice):
        start, stop, step = index.indices(size)
        if step == 1 and start % n == stop % n == 0:
            return slice(start // n, stop // n)
    raise NotTraceable(
        f"step takes {index} of an axis of {size} entries, {size // n} component(s) of {n} "
        f"channels; only slices between multiples of {n} are the same in every channel"
    )


def common_channel(arrays: list[Any]) -> int | None:
    """Return the channel axis of arrays that are broadcast together, counted from the end.

    Raises
    ------
    NotTraceable
        If their channel axes differ, or one meets an ordinary axis.
    """
    found = {a.channel - a.ndim for a in arrays if a.channel is not None}
    if not found:
        return None
    axis: int = found.pop()
    others = [a for a in arrays if a.channel is None and a.ndim >= -axis]
    if found or any(a.shape[axis] != 1 for a in others):
        shapes = " and ".join(str(a.shape) for a in arrays)
        raise NotTraceable(f"step combines arrays of shapes {shapes} across channels")
    return axis


def refuse_large(shape: tuple[int, ...], what: str) -> None:
    """Raise NotTraceable if an array has too many cells to be written out."""
    if math.prod(shape) > MAX_CELLS:
        raise NotTraceable(
            f"step uses {what} of {math.prod(shape)} entries per channel; at most {MAX_CELLS} are "
            "traced"
        )


def as_cells(value: Any) -> Any:
    """View a node as an array of rank 0; arrays stay."""
    if isinstance(value, np.ndarray):
        return value
    cells = np.empty((), object)
    cells[()] = value
    return cells
