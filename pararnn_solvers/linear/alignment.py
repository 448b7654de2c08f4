"""Arrays that start where a cache line does, in memory that was in use before if there is some.

A vector of 64 bytes that crosses from one line into the next takes two accesses, and one that was
just stored so is not forwarded to a load: kernels run up to twice as fast without. Memory that is
new to the process is cleared by the system page by page as it is first written, which takes as
long as a kernel; so what large arrays leave behind is kept for the next ones.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64  # bytes
LARGE = 1 << 20  # bytes of an array whose memory is kept
KEPT = 1 << 26  # bytes at most that wait to be used again

_waiting: deque[NDArray[np.uint8]] = deque()  # whose operations are atomic: no lock


def empty(shape: Any, dtype: Any) -> NDArray[Any]:
    """Return a new array, not initialized, C-contiguous, that starts a cache line."""
    dtype = np.dtype(dtype)
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    size = int(count) * dtype.itemsize
    raw = _borrowed(size + LINE) if size >= LARGE else np.empty(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    array: NDArray[Any] = raw[start : start + size].view(dtype).reshape(shape)
    return array


class _Loan:
    """Memory that waits again when the last array in it is gone."""

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self.memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self, waiting: Any = _waiting, too_late: Any = sys.is_finalizing) -> None:
        if too_late():  # the names of this module may be gone
            return
        waiting.append(self.memory)
        with suppress(IndexError, RuntimeError):  # another thread was faster
            while sum(memory.size for memory in tuple(waiting)) > KEPT:
                waiting.popleft()


def _borrowed(size: int) -> NDArray[np.uint8]:
    """Return memory of at least so many bytes, and not of twice as many."""
    for _ in range(len(_waiting)):
        try:
            memory = _waiting.popleft()
        except IndexError:  # another thread was faster
            break
        if size <= memory.size < 2 * size:
            return np.asarray(_Loan(memory))
        _waiting.append(memory)
    return np.asarray(_Loan(np.empty(size, np.uint8)))


def forget() -> None:
    """Give back the memory that waits to be used again."""
    _waiting.clear()


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
