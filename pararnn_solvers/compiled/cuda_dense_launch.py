"""How the kernel of a dense recurrence is launched: which rows and channels a thread has.

A thread has a tile of rows and channels; threads side by side have the channels of a block, and
those one above the other further rows. Blocks that share the channels of the same rows are a team.
:func:`plan` chooses by what a step takes of a multiprocessor: the products' arithmetic, or reading
their operands from the first cache and shared memory, or the latency of the second cache; or, if
that is more, what that one delivers of the matrices; and what it costs to exchange operands.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pararnn_solvers.autodiff.trace.staged import StagedTrace
from pararnn_solvers.compiled.cuda_dense import DenseCudaProgram
from pararnn_solvers.compiled.cuda_dense_data import Data
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.linear import cuda
from pararnn_solvers.typing import Array

__all__ = ["Launch", "launch", "plan", "require_room", "step_time"]

THREADS, WARP = 256, 32  # of a block, as in dense.cu
WARPS = THREADS // WARP
# Rows and channels of a thread, and how many of its 255 registers cells may take.
TILES = ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2))
REGISTERS = 144
COLUMNS = (8, 16, 32, 64, 128, 256)  # threads side by side

# What a multiprocessor does, in cycles, to choose by: no GPU has measured it yet. From NVIDIA's
# figures for an H200: 128 fused multiply-adds of float32 a cycle, 64 of float64, one line of 128
# bytes from the first cache or shared memory, and, with all others, about 24 from the second cache.
CLOCK = 1.7e9  # cycles of a second
FUSED = {4: 4.0, 8: 2.0}  # warps of multiply-adds, by bytes of a number
STREAMED = 24.0  # bytes of matrices
STAGE = 25.0  # of a warp, for what happens in a cell between products
WAITING = 1500.0  # of a step, for what it begins and ends with
LATENCY = 300.0  # of the second cache
EXCHANGE = 2000.0  # of blocks that hand each other operands


class Launch(NamedTuple):
    """How rows and channels are shared out.

    Attributes
    ----------
    rows, channels : int
        Of a thread.
    columns : int
        Threads side by side along the channels.
    blocks : int
        Of a team: all channels of ``team_rows`` rows.
    team_rows : int
    cycles : float
        What a step of a multiprocessor takes, about.
    """

    rows: int
    channels: int
    columns: int
    blocks: int
    team_rows: int
    cycles: float


def plan(program: DenseCudaProgram, rows: int) -> Launch:
    """Return the cheapest way to take so many rows through a step."""
    sms = cuda.multiprocessors()
    options = launches(program, sms, cuda.attribute("MaxSharedMemoryPerBlockOptin"))
    if not options:
        raise NotTraceable(
            f"states of {program.trace.channels} channels do not fit in a multiprocessor's memory"
        )
    return min(options, key=lambda option: waves(option, rows, sms) * option.cycles)


def require_room(program: DenseCudaProgram) -> DenseCudaProgram:
    """Return a program, or raise NotTraceable if no block has room for one row of it."""
    plan(program, 1)
    return program


@lru_cache(maxsize=64)
def launches(program: DenseCudaProgram, sms: int, room: int) -> tuple[Launch, ...]:
    """List how rows and channels can be shared out, with so many bytes of shared memory."""
    options = _options(program, sms)
    return tuple(option for option in options if shared_bytes(program, option) <= room)


def waves(option: Launch, rows: int, sms: int) -> int:
    """Return how many times all multiprocessors are filled."""
    teams, together = -(-rows // option.team_rows), max(1, sms // option.blocks)
    return max(1, -(-teams // together))


def step_time(program: DenseCudaProgram, rows: int) -> float:
    """Return about how many seconds one step of so many rows takes."""
    option = plan(program, rows)
    return waves(option, rows, cuda.multiprocessors()) * option.cycles / CLOCK


def shared_bytes(program: DenseCudaProgram, option: Launch) -> int:
    """Return the shared memory of a block: operands, norms, and where rows are."""
    trace = program.trace
    line = option.team_rows + _pack(trace, option.rows)
    numbers = len(program.slots) * trace.channels * line + 2 * option.team_rows
    return 16 * option.team_rows + numbers * trace.dtype.itemsize


def _pack(trace: StagedTrace, rows: int) -> int:
    return min(rows, 16 // trace.dtype.itemsize)


def _options(program: DenseCudaProgram, sms: int) -> Iterator[Launch]:
    n, size = program.trace.channels, program.trace.dtype.itemsize
    words = program.numbers * size // 4
    for rows, channels in TILES:
        if rows * channels > 1 and rows * channels * words > REGISTERS:
            continue
        for columns in COLUMNS:
            width = columns * channels
            blocks = -(-n // width)
            # Threads are not mostly idle, and read whole lines of matrices.
            idle, broken = width >= 2 * n and columns > COLUMNS[0], width < min(n, WARP)
            if not (idle or broken) and blocks <= sms:
                cycles = _cycles(program, rows, channels, blocks)
                team_rows = rows * (THREADS // columns)
                yield Launch(rows, channels, columns, blocks, team_rows, cycles)


def _cycles(program: DenseCudaProgram, rows: int, channels: int, blocks: int) -> float:
    """Return what a step of a block takes, all others working too."""
    trace = program.trace
    size = trace.dtype.itemsize
    computing, read, waiting = WARPS * rows * channels * STAGE, 0.0, WAITING
    together = 16 if rows * channels < 4 else 8 if rows * channels < 16 else 4  # as in dense.cu
    for _, product in program.in_step:
        K, N = product.shape
        G = N // trace.channels
        loads = channels * G * size / 4 + rows / _pack(trace, rows)
        multiplying = WARPS * K * max(rows * channels * G / FUSED[size], loads)
        computing += max(multiplying, K / together * LATENCY)
        read += K * N * size / blocks
    if blocks > 1:
        waiting += program.levels * EXCHANGE
    return max(computing, read / STREAMED) + waiting


def launch(
    data: Data,
    h: Array,
    state: tuple[Array, ...],
    y: Array,
    steps: int,
    tolerance: Array | None,
) -> None:
    """March all rows at most so many steps.

    Parameters
    ----------
    state : arrays
        States (rows, d), position, left, met (rows,), and gap (rows, 2): changed.
    y : array
        Products of the inputs of these steps, each (steps, rows, N).
    tolerance : array, shape (2,), optional
    """
    xp, program = cuda.cupy(), data.program
    trace, rows = program.trace, len(state[0])
    chosen, real = plan(program, rows), trace.dtype.type
    name = f"march<{chosen.rows}, {chosen.channels}>"
    kernel = cuda.kernel(program.code, name, cooperative=chosen.blocks > 1)
    table = data.table(steps * rows)
    atol, rtol = (-1.0, -1.0) if tolerance is None else tolerance
    # Blocks that wait for each other must all be running: one has room on each multiprocessor, and
    # a cooperative launch starts with all of them, whatever other streams have launched.
    together = -(-rows // chosen.team_rows)
    if chosen.blocks > 1:
        together = min(together, cuda.multiprocessors() // chosen.blocks)
    numbers = 2 * len(program.slots) * trace.channels * chosen.team_rows
    exchange = xp.empty(together * numbers if chosen.blocks > 1 else 1, trace.dtype)
    bits = np.uint32 if trace.dtype.itemsize == 4 else np.uint64
    shared = shared_bytes(program, chosen)
    x = data.x if data.x.size else xp.zeros(1, trace.dtype)
    for begin in range(0, rows, together * chosen.team_rows):
        end = min(rows, begin + together * chosen.team_rows)
        teams = -(-(end - begin) // chosen.team_rows)
        norms = xp.zeros(teams * 6 * chosen.team_rows, bits)
        arrived = xp.zeros(teams, np.uint64)
        args = (x, y, data.theta, data.matrices, table, h, *state, exchange, norms, arrived)
        sizes = map(np.int64, (begin, end, rows, data.batch, trace.channels, steps))
        more = (real(atol), real(rtol), *sizes, np.int32(chosen.columns), np.int32(chosen.blocks))
        cuda.launch(kernel, teams * chosen.blocks, THREADS, (*args, *more), shared)
