"""How much memory a solve needs, told before anything of that size is allocated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from pararnn_solvers.errors import InsufficientMemory
from pararnn_solvers.solvers.iterate import Iterate
from pararnn_solvers.solvers.newton import Newton
from pararnn_solvers.system import System

# Trajectories alive at once in an iteration: states, residual, those of the iterate before,
# direction, previous states, temporaries of `step`.
TRAJECTORIES = 8


def available_memory() -> int:
    """Return the bytes that can be allocated without swapping; all memory where unknown."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def blocks_memory(system: System) -> int:
    """Return the bytes of the exact blocks of all steps."""
    k, n = system.recurrence.structure(system.shape[-1])
    return int(np.prod(system.shape[:-1])) * k * k * n * system.h0.itemsize


def required_memory(system: System, method: Any) -> int:
    """Estimate the peak of a solve in bytes, from the blocks that the method uses for one step."""
    states = int(np.prod(system.shape)) * system.h0.itemsize
    if not isinstance(method, Newton) or 0 in system.shape:
        return TRAJECTORIES * states
    first = system.part(system.h0[None], 0, 1, np.ones(system.shape[1], bool))
    iterate = Iterate(first, first.h0[None], first.h0[None])
    open_steps = min(method.window or system.shape[0], system.shape[0]) // method.chunk
    # Two sets of blocks: the new ones are computed while the last ones are remembered.
    return TRAJECTORIES * states + 2 * open_steps * method.linearization(iterate).nbytes


def check_memory(system: System, method: Any) -> None:
    """Raise InsufficientMemory if the solve would not fit."""
    needed, free = required_memory(system, method), available_memory()
    if needed > free:
        raise InsufficientMemory(
            f"{method} on {' × '.join(map(str, system.shape))} states needs about "
            f"{needed / 2**30:.3g} GiB, {free / 2**30:.3g} GiB are free; declare a block_size, "
            "or use windowed(newton(), length) or quasi_newton()"
        )
