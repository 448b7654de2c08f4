"""Arrays that start where a cache line does.

A vector of 64 bytes that crosses from one line into the next takes two accesses, and one that was
just stored so is not forwarded to a load: kernels run up to twice as fast without.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64  # bytes


def empty(shape: Any, dtype: Any) -> NDArray[Any]:
    """Return a new array, not initialized, C-contiguous, that starts a cache line."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    array: NDArray[Any] = raw[start : start + size].view(dtype).reshape(shape)
    return array


def zeros(shape: Any, dtype: Any) -> NDArray[Any]:
    """Return the same, filled with zeros."""
    array = empty(shape, dtype)
    array[...] = 0
    return array


def copy(array: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of an array that starts a cache line."""
    new = empty(array.shape, array.dtype)
    new[...] = array
    return new


class _Memory:
    """What NumPy asks for to share memory."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        where = (array.ctypes.data, False)
        self.__array_interface__ = {**array.__array_interface__, "data": where}


def as_writable(array: NDArray[Any]) -> NDArray[Any]:
    """View an array as if it could be written: for those who promise not to."""
    view: NDArray[Any] = np.asarray(_Memory(array))
    return view
