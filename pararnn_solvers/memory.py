"""Whether arrays would fit, asked before anything of their size is allocated."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from pararnn_solvers.errors import InsufficientMemory
from pararnn_solvers.system import System


def available_memory() -> int:
    """Return the bytes that can be allocated without swapping.

    Where the system does not say, all of its memory; where it does not say that either, no limit.
    """
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return sys.maxsize


def require_memory(needed: int, task: str, system: System, remedy: str) -> None:
    """Raise InsufficientMemory if so many bytes are not free."""
    free = available_memory()
    if needed > free:
        raise InsufficientMemory(
            f"{task} on {' × '.join(map(str, system.shape))} states needs about "
            f"{needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free; {remedy}"
        )


def blocks_memory(system: System) -> int:
    """Return the bytes of the exact blocks of all steps."""
    k, n = system.recurrence.structure(system.shape[-1])
    return int(np.prod(system.shape[:-1])) * k * k * n * system.h0.itemsize


def require_blocks(system: System, task: str) -> None:
    """Raise InsufficientMemory if the exact blocks of all steps, and as much again, do not fit."""
    remedy = "declare a block_size, or take fewer sequences or steps at a time"
    require_memory(2 * blocks_memory(system), task, system, remedy)
