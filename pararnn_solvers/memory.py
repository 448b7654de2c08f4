"""Whether arrays would fit, asked before anything of their size is allocated."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pararnn_solvers import arrays
from pararnn_solvers.errors import InsufficientMemory
from pararnn_solvers.system import System


def available_memory(enough: int = sys.maxsize) -> int:
    """Return the bytes that can be allocated without swapping.

    Where the system does not say, all of its memory; where it does not say that either, no limit.
    What is unused is known at once; what else could be freed is read, which takes longer, only
    if that is not `enough`.
    """
    known = getattr(os, "sysconf_names", {})
    page = os.sysconf("SC_PAGE_SIZE") if "SC_PAGE_SIZE" in known else 0
    if "SC_AVPHYS_PAGES" in known and (unused := page * os.sysconf("SC_AVPHYS_PAGES")) >= enough:
        return unused
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in known:
        return page * os.sysconf("SC_PHYS_PAGES")
    return sys.maxsize


def free_memory(array: Any, enough: int = sys.maxsize) -> int:
    """Return the bytes that can be allocated where an array is; on the host, `enough` will do.

    On a device, which must be the current one: what CUDA has left, and what CuPy's pool keeps.
    """
    if not arrays.is_device_array(array):
        return available_memory(enough)
    cupy = arrays.namespace(array)
    free, _ = cupy.cuda.runtime.memGetInfo()
    return int(free + cupy.get_default_memory_pool().free_bytes())


def require_memory(needed: int, task: str, system: System, remedy: str) -> None:
    """Raise InsufficientMemory if so many bytes are not free."""
    free = free_memory(system.h0, needed)
    if needed > free:
        raise InsufficientMemory(
            f"{task} on {states(system)} states needs about "
            f"{needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free; {remedy}"
        )


def states(system: System) -> str:
    """Write the shape of a trajectory as a product."""
    return " × ".join(map(str, system.shape))


def where_arrays_are(system: System, task: str) -> AbstractContextManager[Any]:
    """Return the context of all work on a system.

    Its device is current, and InsufficientMemory is raised where that is full. Nothing of this for
    arrays on the host.
    """
    return _on_device(system, task) if arrays.is_device_array(system.h0) else nullcontext()


@contextmanager
def _on_device(system: System, task: str) -> Iterator[None]:
    try:
        with arrays.device_of(system.h0):
            yield
    except MemoryError as error:
        # A traceback would keep alive what was allocated so far, for as long as someone keeps it.
        for link in (error, error.__cause__):
            if link is not None:
                traceback.clear_frames(link.__traceback__)
        if isinstance(error, InsufficientMemory):
            raise
        full = error
    else:
        return
    with arrays.device_of(system.h0):
        free = free_memory(system.h0)
    raise InsufficientMemory(
        f"{task} on {states(system)} states does not fit on {arrays.place(system.h0)}, "
        f"{free / 2**30:.3g} GiB are free: {full}; declare a block_size, use windowed(newton(), "
        "length), or take fewer sequences at a time"
    ) from full


def blocks_memory(system: System) -> int:
    """Return the bytes of the exact blocks of all steps."""
    k, n = system.recurrence.structure(system.shape[-1])
    return math.prod(system.shape[:-1]) * k * k * n * system.h0.itemsize


def require_blocks(system: System, task: str) -> None:
    """Raise InsufficientMemory if the exact blocks of all steps, and as much again, do not fit."""
    remedy = "declare a block_size, or take fewer sequences or steps at a time"
    require_memory(2 * blocks_memory(system), task, system, remedy)
