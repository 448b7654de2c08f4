"""The method that is chosen when none is named."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers import arrays, memory
from pararnn_solvers.growth import growth_rate
from pararnn_solvers.linear import Scan
from pararnn_solvers.solvers.compiled_shooting import CompiledShooting
from pararnn_solvers.solvers.methods import newton, windowed
from pararnn_solvers.solvers.newton import Newton
from pararnn_solvers.solvers.sequential import Sequential, finish_sequentially, sequential
from pararnn_solvers.solvers.slabs import Slabs
from pararnn_solvers.solvers.solution import Solution, completed
from pararnn_solvers.solvers.stopping import Status, Stopping
from pararnn_solvers.solvers.unsolved import Observer
from pararnn_solvers.system import System

PROBE_STEPS = 100
WINDOW = 256
FEWEST_CHUNKS = 16
SHORTEST_CHUNK = 16


@dataclass(frozen=True)
class Limits:
    """From where on stepping is faster than all steps at once: numbers in a step, rows of a block.

    Parameters
    ----------
    shooting, newton : int
        Numbers in a step from which stepping beats either method.
    block : int
        Rows of the largest blocks that Newton's method gets.
    """

    shooting: int
    newton: int
    block: int


ON_HOST = Limits(shooting=2048, newton=256, block=16)
# An estimate, not yet measured on any: launching an operation takes some 5 us, in which a device
# computes some 10**5 numbers.
ON_DEVICE = Limits(shooting=1 << 18, newton=1 << 16, block=64)


@dataclass(frozen=True)
class Auto:
    """A stated policy, not a method.

    Where `step` is compiled, a cost model chooses between stepping and multiple shooting
    (``compiled.shooting_policy``, ``compiled.dense_policy``). It counts vectors of numbers, or rows
    of a dense recurrence, that a thread computes one after another: a step waits for the latency of
    two at least, and chunks of time side by side hide it and occupy the other threads.

    1. If chunks would not be faster even if they met at once, ``sequential``: the channels and
       sequences of a step fill the vectors, or there are too few steps.
    2. Chunks at the beginning tell after how many steps what came before is forgotten. If states
       that are close part, ``sequential``.
    3. Otherwise multiple shooting with the chunk that makes it cheapest, if that takes less time
       than stepping: a chunk that forgets is run again until it meets what is stored; chunks that
       do not are corrected by Newton's method.

    Sequences that this does not solve are finished step by step.

    Where `step` runs as it is, at most 16 steps are made one by one. Of more, the largest Lyapunov
    exponent is estimated on the first 100.

    1. If a perturbation would grow along the whole trajectory by more than ``1 / sqrt(eps)``,
       Newton's method has hardly a basin: ``sequential``, exact to rounding.
    2. If a perturbation falls below ``eps`` within 1/16 of the trajectory and one step computes
       fewer than 2048 numbers (batch x d), multiple shooting with chunks of as many steps as that
       takes, but at least 16: the chunks forget where they began.
    3. If one step computes at least 256 numbers, or the blocks are larger than 16 x 16,
       ``sequential``: a call of `step` for each step of time costs less than blocks at all steps
       (``tests/benchmarks/auto.py``).
    4. If the blocks of all steps would fill more than a quarter of the memory that is free, a
       moving window of 256 steps.
    5. Otherwise Newton's method.

    On a device, launching the operations of a step takes most of its time: the numbers there are
    2**18 in place of 2048, 2**16 in place of 256, and blocks of 64 x 64.

    Where ranks share the steps and `step` is compiled on all, each slab is solved alone by this
    policy, and then run again from the state that arrives until it meets what is stored: if it
    never does, that takes as long as stepping. Otherwise 1 and 5 alone, with the exponent of the
    first steps.

    Sequences that 2 or 5 does not solve are given to a moving window, which makes progress in
    every iteration; `max_iter` limits each of the two by itself, so that `n_iter` may exceed it.
    ``Solution.note`` says what was chosen and why. A callback sees that second solve, of those
    sequences alone, from iteration 0.
    """

    def solve(
        self,
        system: System,
        guess: Any,
        scan: Scan,
        stopping: Stopping,
        observe: Observer | None = None,
    ) -> Solution:
        """Choose, and solve by what was chosen."""
        method, why = choose(system)
        solution = method.solve(system, guess, scan, stopping, observe)
        solution = replace(solution, method=str(method), note=f"auto: {why}")
        if solution.success or isinstance(method, (Sequential, Slabs)) or system.ranks.several:
            return solution
        if isinstance(method, CompiledShooting):
            return finish_sequentially(solution, stopping)
        if solution.status is Status.STOPPED or method.window is not None:
            return solution
        return finish_windowed(solution, scan, stopping, observe)


def choose(system: System) -> tuple[Newton | Sequential | CompiledShooting | Slabs, str]:
    """Return the method for a system, and the reason."""
    if system.ranks.several:
        return choose_over_ranks(system)
    if system.is_compiled:
        return choose_compiled(system)
    T = system.shape[0]
    if T <= SHORTEST_CHUNK:
        return sequential(), f"{T} steps are too few to be worth more than stepping"
    limits = ON_DEVICE if arrays.is_device_array(system.h0) else ON_HOST
    exponent = largest_exponent(system)
    digits = -float(np.log(np.finfo(system.h0.dtype).eps))
    rate = f"perturbations change by exp({exponent:+.2g}) a step"
    if exponent * T > digits / 2:
        return sequential(), f"{rate}, exp({exponent * T:+.0f}) over all {T}"
    forgotten = max(SHORTEST_CHUNK, digits / -exponent) if exponent < 0 else np.inf
    numbers = math.prod(system.shape[1:])
    if forgotten * FEWEST_CHUNKS <= T and numbers < limits.shooting:
        return newton(chunk=int(np.ceil(forgotten))), f"{rate} and are forgotten within a chunk"
    k, _ = system.recurrence.structure(system.shape[-1])
    if numbers >= limits.newton:
        return sequential(), f"{numbers} numbers in each step keep the processor busy"
    if k > limits.block:
        return sequential(), f"blocks of {k} x {k} cost more than stepping"
    if memory.blocks_memory(system) > memory.free_memory(system.h0) / 4:
        return windowed(newton(), WINDOW), "the blocks of all steps would not fit in memory"
    return newton(), rate


def choose_over_ranks(system: System) -> tuple[Newton | Sequential | Slabs, str]:
    """Return the method where ranks share the steps: the rank of the first ones estimates."""
    if system.ranks.all(np.array([system.is_compiled]))[0]:
        return Slabs(Auto()), "compiled slabs are run again from what arrives until they meet"
    first = bool(system.steps_before == 0 and system.shape[0])
    found = largest_exponent(system.alone(system.h0)) if first else -np.inf
    exponent = float(system.ranks.greatest(np.array([found]))[0])
    digits, T = -float(np.log(np.finfo(system.h0.dtype).eps)), system.steps_in_all
    why = f"perturbations change by exp({exponent:+.2g}) a step, over {T} steps on all ranks"
    return (sequential() if exponent * T > digits / 2 else newton()), why


def choose_compiled(system: System) -> tuple[CompiledShooting | Sequential, str]:
    """Return the method where kernels run: stepping, or shooting where that must be faster."""
    from pararnn_solvers.compiled.shooting_policy import AT_ONCE, MANY  # imports Numba

    T, batch, _ = system.shape
    if 0 in system.shape:
        return sequential(), "there is nothing to compute"
    program = system.program or system.dense
    policy = importlib.import_module(program.shooting)
    if policy.best_chunk(program, batch, T, AT_ONCE)[1] >= 1:
        if policy.best_chunk(program, batch, MANY, AT_ONCE)[1] >= 1:
            return sequential(), "the channels and sequences of a step fill the processor"
        return sequential(), f"{T} steps are too few for chunks to pay"
    given = (system.x, system.h0) if system.dense is None else (system.x, system.h0, system.theta)
    memory = policy.forgetting(program, *given, T)
    if memory.steps == np.inf:
        return sequential(), f"perturbations change by exp({memory.rate:+.2g}) a step"
    forgotten = f"what came before is forgotten in {memory.steps:.0f} steps"
    chunk, cost = policy.best_chunk(program, batch, T, memory)
    if cost >= 1:
        return sequential(), f"{forgotten}; chunks would not pay"
    return CompiledShooting(chunk, bool(memory.steps <= chunk)), forgotten


def finish_windowed(
    solution: Solution, scan: Scan, stopping: Stopping, observe: Observer | None
) -> Solution:
    """Solve the sequences that are not solved yet by a moving window, the others kept."""
    left = np.array([not status.success for status in solution.sequence_status])
    system, h, method = solution.system, solution.h, windowed(newton(), WINDOW)
    part = system.part(h, 0, len(h), left)
    rest = method.solve(part, None, scan, stopping, observe)
    return replace(
        completed(solution, rest, left),
        method=f"{solution.method}, then {method}",
        note=f"{solution.note}; {left.sum()} sequence(s) ended as {solution.status.name} and "
        f"were given to a moving window",
    )


def largest_exponent(system: System) -> float:
    """Estimate the largest Lyapunov exponent per step on the first 100 steps.

    Of the sequence where it is greatest. It can err either way: too high by a transient, too low
    where growth begins after the steps probed (the Sprott B flow is taken for contracting).

    Source: Benettin et al. 1980; for parallel evaluation Gonzalez et al. 2025 (arXiv 2508.16817).
    """
    rates = growth_rate(system, min(PROBE_STEPS, system.shape[0]))
    return float(np.max(arrays.on_host(rates), initial=-np.inf))


def auto() -> Auto:
    """Choose by a stated policy; see :class:`Auto`.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(50.0))[:, None]
    >>> step = lambda h, x, a: np.tanh(a * h + x)
    >>> prs.solve(step, x, np.zeros(1), 0.5, method=prs.auto()).method
    'newton()'
    """
    return Auto()
