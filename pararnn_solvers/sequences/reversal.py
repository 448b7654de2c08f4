"""Time the other way around, for the backward direction of a bidirectional recurrence."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.sequences.arguments import check_lengths
from pararnn_solvers.typing import Array


def reversed_within(x: Any, lengths: Any = None) -> Array:
    """Return sequences reversed in time, each within its length; the padding stays where it is.

    For the backward direction of a bidirectional recurrence. It is its own inverse, and its own
    transpose: gradients go back through it by ``reversed_within(dx, lengths)``.

    Parameters
    ----------
    x : array, shape (T, *batch, ...)
        Inputs or states, of NumPy or CuPy, or anything with DLPack.
    lengths : integers, shape (*batch), optional
        None reverses all T steps. Where x is.

    Returns
    -------
    array, shape of x
        A copy.

    Raises
    ------
    InvalidInput
        As :func:`~pararnn_solvers.solve` with these lengths.

    Examples
    --------
    >>> x = np.array([[1, 4], [2, 5], [3, 0]])
    >>> reversed_within(x, [3, 2])
    array([[3, 5],
           [2, 4],
           [1, 0]])

    Both directions of a padded batch, side by side::

        ahead = solve(cell, x, h0, theta, lengths=lengths)
        back = solve(cell, reversed_within(x, lengths), h0, theta, lengths=lengths)
        y = np.concatenate([ahead.h, reversed_within(back.h, lengths)], axis=-1)
        last = np.concatenate([ahead.final, back.final], axis=-1)
    """
    x = arrays.from_any(x)
    if x.ndim == 0:
        raise InvalidInput("x is a scalar; expected shape (T, *batch, ...)")
    with arrays.device_of(x):
        if lengths is None:
            return np.ascontiguousarray(x[::-1], like=x)
        lengths = arrays.from_any(lengths)
        shape = (*x.shape[: lengths.ndim + 1], 0)
        counts = check_lengths(lengths, shape, x)
        t = arrays.namespace(x).arange(len(x)).reshape(-1, *[1] * counts.ndim)
        source = np.where(t < counts, counts - 1 - t, t)
        source = source.reshape(*source.shape, *[1] * (x.ndim - source.ndim))
        return np.take_along_axis(x, source, 0)
