"""Equations whose drives carry marks: further columns, by which their step selects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import alignment, threads
from pararnn_solvers.recurrence import Recurrence, as_blocks
from pararnn_solvers.sequences.masks import PADDED, RESET, Sequences
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array

SHARED_FROM = 1 << 22  # bytes of drives that threads copy together


def with_marks(system: System, sequences: Sequences) -> System:
    """Return the equations with marks beside the drives, and the recurrence that reads them."""
    inner, d, m = system.recurrence, system.h0.shape[-1], sequences.columns
    marks = sequences.marks(system.h0.dtype)
    n, first = channels(inner, d), m or 0
    if sequences.resets is not None:
        go_on = far(system.h0.dtype)
        require_near(system.h0, go_on / 2)
        columns = np.where(sequences.resets, system.h0, marks * go_on)
        np.copyto(columns, go_on, where=marks == 0)
        width, step = d, returning_at_resets(inner.step, m, go_on / 2, sequences.padded is not None)
    else:
        per_channel = m is not None and m % n == 0
        columns, width = marks, n if per_channel else 1 + (n > 1 and (first + 1) % n == 0)
        read = n if per_channel else 1
        step = ending_in_padding(inner.step, m, read, d // n if read > 1 else 1)
    x = system.x
    if x is None:
        x = np.empty_like(marks, shape=(*marks.shape[:-1], 0))
    x = with_columns(x, columns, width)
    if m and sequences.padded is not None and len(x):
        filler = sequences.filler(x[0, ..., :m])
        if sequences.real is None:
            filler = np.zeros_like(filler)
        np.copyto(x[..., :m], filler[None], where=sequences.padded)
    jacobian = inner.jacobian
    if callable(jacobian):
        jacobian = masked_jacobian(jacobian, sequences, d)
    recurrence = Recurrence(step, inner.block_size, jacobian, fast_math=inner.fast_math)
    return replace(system, recurrence=recurrence, x=x, steps=None)


def with_shared_marks(sequences: Sequences, flat: System) -> System | None:
    """Return the same equations with a mark of one column and the start in theta, if possible.

    Drives that are no whole number of columns for each channel enter kernels as numbers for
    all channels, and a start beside them could not be one for each channel. Possible where all
    sequences start from the same state.

    Parameters
    ----------
    sequences, flat : Sequences, System
        Of :func:`masked`, the system with one batch axis.
    """
    h0, inner = flat.h0, sequences.recurrence
    if sequences.resets is None or sequences.columns is None or not len(h0):
        return None
    if not bool((h0 == h0[:1]).all()):
        return None
    m, n = sequences.columns, channels(inner, h0.shape[-1])
    width = 1 + (n > 1 and (m + 1) % n == 0)
    assert flat.x is not None
    marks = sequences.marks(h0.dtype).reshape(*flat.x.shape[:-1], 1)
    x = with_columns(flat.x[..., :m], marks, width)
    step = started_anew(ending_in_padding(inner.step, m, 1, 1), inner.step, m)
    recurrence = Recurrence(step, inner.block_size, fast_math=inner.fast_math)
    return replace(flat, recurrence=recurrence, x=x, theta=(flat.theta, h0[0]))


def channels(recurrence: Recurrence, d: int) -> int:
    """Return the channels of which a trace sees x have a number of columns, or not.

    Where nothing is declared these are all entries: those between matrix products.
    """
    return d if recurrence.block_size is None else recurrence.structure(d)[1]


def far(dtype: Any) -> float:
    """Return what stands for no start: finite, and beyond any state."""
    return float(np.ldexp(1.0, np.finfo(dtype).maxexp - 28))


def require_near(h0: Array, bound: float) -> None:
    """Raise InvalidInput if a start is so great that it would be read as a mark."""
    if h0.size and float(np.abs(h0).max()) >= bound:
        raise InvalidInput(
            f"h0 has entries of {float(np.abs(h0).max()):.1e}; with resets, expected less than "
            f"{bound:.1e}, beyond which {h0.dtype} stands for marks"
        )


def with_columns(x: Array, columns: Array, width: int) -> Array:
    """Return x with further columns, repeated to a width."""
    m = x.shape[-1]
    shape = (*x.shape[:-1], m + width)
    if arrays.is_device_array(columns):
        joined = np.empty_like(columns, shape=shape, order="C")
    else:
        joined = alignment.empty(shape, columns.dtype)

    def fill(part: slice) -> None:
        joined[part][..., :m] = x[part]
        joined[part][..., m:] = columns[part]

    if arrays.is_device_array(columns) or joined.nbytes < SHARED_FROM:
        fill(slice(None))
    else:  # as long as a kernel's own pass
        cuts = np.linspace(0, len(x), threads.num_threads() + 1).astype(int).tolist()
        parts = zip(cuts, cuts[1:], strict=False)
        threads.run([partial(fill, slice(start, stop)) for start, stop in parts])
    return joined


# ---- steps with marks, whose closures hold functions and numbers only: equal ones are then known
# again once they have been compiled.


def returning_at_resets(
    step: Callable[..., Any], m: int | None, near: float, ends: bool
) -> Callable[..., Any]:
    """Return the step that begins at the start beside the drives, where there is one."""
    first = m or 0

    def returning(h: Any, u: Any, theta: Any) -> Any:
        start = u[..., first:]
        h = np.where(np.abs(start) < near, start, h)
        return step(h, None if m is None else u[..., :m], theta)

    def returning_and_ending(h: Any, u: Any, theta: Any) -> Any:
        f = returning(h, u, theta)
        return np.where(u[..., first:] > -near, f, np.zeros_like(h))

    return returning_and_ending if ends else returning


def ending_in_padding(
    step: Callable[..., Any], m: int | None, width: int, copies: int
) -> Callable[..., Any]:
    """Return the step that is 0 where the first `width` columns beside the drives say padding."""
    first = m or 0

    def ending(h: Any, u: Any, theta: Any) -> Any:
        mark = u[..., first : first + width]
        if copies > 1:
            mark = np.concatenate([mark] * copies, axis=-1)
        f = step(h, None if m is None else u[..., :m], theta)
        return np.where(mark > PADDED / 2, f, np.zeros_like(h))

    return ending


def started_anew(
    ending: Callable[..., Any], step: Callable[..., Any], m: int
) -> Callable[..., Any]:
    """Return the marked step that begins at ``theta[1]`` where the mark says so."""

    def started(h: Any, u: Any, theta: Any) -> Any:
        theta, start = theta
        h = np.where(u[..., m : m + 1] > RESET / 2, start, h)
        return ending(h, u, theta)

    return started


def masked_jacobian(
    jacobian: Callable[..., Any], sequences: Sequences, d: int
) -> Callable[..., Any]:
    """Return the user's Jacobian as blocks that are 0 where the state before has no effect."""
    m, first, restarts = sequences.columns, sequences.columns or 0, sequences.resets is not None

    def blocks(h: Any, u: Any, theta: Any) -> Any:
        column = u[..., first : first + 1]
        carries = column > PADDED / 2
        if restarts:
            near = far(h.dtype) / 2
            carries = column > near
            start = u[..., first:]
            h = np.where(np.abs(start) < near, start, h)
        found = as_blocks(jacobian(h, None if m is None else u[..., :m], theta), h)
        return np.where(carries[..., None, None], found, np.zeros_like(found))

    return blocks
