"""How much memory a solve needs, by the method that makes it."""

from __future__ import annotations

import math
from typing import Any

from pararnn_solvers.memory import blocks_memory, require_memory
from pararnn_solvers.solvers.iterate import Iterate
from pararnn_solvers.solvers.linearization import exact
from pararnn_solvers.solvers.newton import Newton
from pararnn_solvers.solvers.step_length import anderson_mixing
from pararnn_solvers.solvers.trust_region import trust_region
from pararnn_solvers.system import System

# Trajectories alive at once in an iteration: states, residual, those of the iterate before,
# direction, previous states, temporaries of `step`.
TRAJECTORIES = 8


def required_memory(system: System, method: Any) -> int:
    """Estimate the peak of a solve in bytes, from the blocks that the method uses for one step.

    What ``auto`` will choose is not known yet: only its trajectories are counted.
    """
    states = math.prod(system.shape) * system.h0.itemsize
    if not isinstance(method, Newton) or 0 in system.shape:
        return TRAJECTORIES * states
    first = system.part(system.h0[None], 0, 1)
    if method.linearization is exact:  # and need not be evaluated
        blocks = blocks_memory(first)
    else:
        blocks = method.linearization(Iterate(first, first.h0[None])).nbytes
    open_steps = -(-min(method.window or system.shape[0], system.shape[0]) // method.chunk)
    # Two sets of blocks: the new ones are computed while the last ones are remembered.
    needed = TRAJECTORIES * states + 2 * open_steps * blocks
    step_length = getattr(method.step_length, "function", method.step_length)
    if step_length is trust_region:  # the bands, their factors and copies in float64
        needed += 5 * open_steps * blocks // system.h0.itemsize * 8
    if isinstance(step_length, anderson_mixing):  # the history, and its differences
        needed += 4 * (step_length.m + 1) * states * open_steps // system.shape[0]
    return needed


def check_memory(system: System, method: Any) -> None:
    """Raise InsufficientMemory if the solve would not fit."""
    remedy = "declare a block_size, or use windowed(newton(), length) or quasi_newton()"
    require_memory(required_memory(system, method), str(method), system, remedy)
