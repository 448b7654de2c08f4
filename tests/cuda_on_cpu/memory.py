"""Memory of the fake device: each array between pages that may not be touched.

An access before or behind an array faults at once, in the thread that made it; what alignment
leaves between the array and those pages is filled with a pattern and checked after each launch.
"""

import ctypes
import math
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
GUARD = 64 * PAGE  # on either side; takes addresses, no memory
ALIGNMENT = 16  # of an array's end; CuPy aligns its start to 512 bytes
POISON = 0xA5
_PROT_NONE = 0
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
_libc = ctypes.CDLL(None, use_errno=True)


class OutOfBounds(RuntimeError):
    """A kernel wrote beside an array."""


class Allocation:
    """One array's bytes, poisoned, and the gaps around them."""

    def __init__(self, size: int, device: int) -> None:
        self.size, self.device = size, device
        room = math.ceil(max(size, 1) / PAGE) * PAGE
        self._map = mmap.mmap(-1, room + 2 * GUARD, flags=_FLAGS)
        self._bytes = np.frombuffer(self._map, np.uint8)
        base = self._bytes.ctypes.data
        padded = math.ceil(size / ALIGNMENT) * ALIGNMENT
        start = GUARD + room - padded
        for guard in (base, base + GUARD + room):
            if _libc.mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(GUARD), _PROT_NONE):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.inside = self._bytes[start : start + size]
        self._before = self._bytes[GUARD:start]
        self._behind = self._bytes[start + size : GUARD + room]
        self._bytes[GUARD : GUARD + room] = POISON
        self.address = base + start

    def check(self) -> None:
        """Raise OutOfBounds if something was written beside the array."""
        for gap, where in ((self._before, "before"), (self._behind, "behind")):
            if (gap != POISON).any():
                gap[:] = POISON
                raise OutOfBounds(
                    f"a kernel wrote {where} an array of {self.size} bytes (address "
                    f"{self.address:#x})"
                )
