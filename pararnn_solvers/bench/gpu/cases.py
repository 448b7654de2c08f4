"""What is computed on the GPU: the cases by name, in the order in which they run."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

from pararnn_solvers.bench.cases import Case
from pararnn_solvers.errors import InvalidInput

COPY, SCAN, MAP, SOLVE, GRADIENT = "copy", "scan", "map", "solve", "solve + gradients"
OURS = {"scan": SCAN, "forward": SOLVE, "gradient": GRADIENT}
"""What of this package the others are compared with, by task."""

SCANS = {"linear-1": 1, "linear-2": 2}
"""Linear recurrences of a given Jacobian: cells of cases with the task ``"scan"``, and their k."""

LOOPS = ("PyTorch loop", "torch.compile loop", "PyTorch graph")
KERNELS = (COPY, MAP, "rollout", "shooting", "newton pass", "newton", SOLVE)
FORWARD = (*KERNELS, *LOOPS, "pararnn-torch", "jax.lax.scan", "JAX Newton")
BACKWARD = (COPY, "adjoint", SOLVE, GRADIENT, *LOOPS, "jax.lax.scan")
LINEAR = (COPY, SCAN, "accelerated-scan", "JAX associative_scan")
DENSE = (COPY, "GEMM", SOLVE, *LOOPS, "torch.nn.GRU", "jax.lax.scan")
GRID = (COPY, MAP, "rollout", "shooting", "newton", SOLVE, "pararnn-torch")

LANES = {1: ((), 1), 64: ((), 64), 2048: ((8,), 256), 16384: ((8,), 2048)}
"""Lanes of the grid -> the batch and the channels that make them."""
GRID_STEPS = tuple(1 << power for power in range(8, 21, 2))
MOST_STATES = 1 << 26
"""Steps times lanes of the grid: 1 GiB of drives and states."""


class Row(NamedTuple):
    """A case, and who computes it."""

    case: Case
    among: tuple[str, ...]


def grid() -> list[Row]:
    """Return the diagonal GRU at every length and number of lanes that fits."""
    return [
        Row(
            Case(
                f"grid-{lanes}-2^{int(math.log2(steps))}",
                f"diagonal GRU, {described(batch, channels)}",
                "gru",
                steps,
                channels,
                batch,
            ),
            GRID,
        )
        for (lanes, (batch, channels)), steps in itertools.product(LANES.items(), GRID_STEPS)
        if lanes * steps <= MOST_STATES
    ]


def described(batch: tuple[int, ...], channels: int) -> str:
    """Return the lanes in words."""
    sequences = f"batch {batch[0]} × " if batch else ""
    return f"{sequences}{channels} channel{'s' * (channels > 1)}"


def row(
    among: tuple[str, ...], name: str, title: str, cell: str, steps: int, channels: int,
    batch: tuple[int, ...] = (), task: str = "forward", dtype: str = "float32",
) -> Row:  # fmt: skip
    """Return a case and who computes it."""
    whole = f"{title}, {described(batch, channels)}"
    return Row(Case(name, whole, cell, steps, channels, batch, dtype, task), among)


ROWS = {
    row.case.name: row
    for row in (
        row(LINEAR, "scan-lanes", "scan k = 1", "linear-1", 4096, 1024, (8,), "scan"),
        row(LINEAR, "scan-one", "scan k = 1", "linear-1", 1 << 24, 1, (), "scan"),
        row(LINEAR, "scan-2", "scan k = 2", "linear-2", 4096, 512, (8,), "scan"),
        row(FORWARD, "gru", "ParaGRU", "gru", 4096, 2048, (8,)),
        row(FORWARD, "gru-512", "ParaGRU", "gru", 512, 2048, (8,)),
        row(FORWARD, "lstm-512", "ParaLSTM", "lstm", 512, 2048, (8,)),
        row(FORWARD, "gru-512-small", "ParaGRU", "gru", 512, 256),
        row(FORWARD, "lstm-512-small", "ParaLSTM", "lstm", 512, 256),
        row(BACKWARD, "gru-gradient", "ParaGRU and gradient", "gru", 4096, 2048, (8,), "gradient"),
        row(DENSE, "dense", "dense GRU", "dense", 2048, 512, (8,)),
        *grid(),
        row(FORWARD, "lstm", "ParaLSTM", "lstm", 4096, 2048, (8,)),
        row(
            BACKWARD, "lstm-gradient", "ParaLSTM and gradient", "lstm", 4096, 2048, (8,), "gradient"
        ),
        row(KERNELS, "gru-float64", "ParaGRU", "gru", 4096, 1024, (8,), dtype="float64"),
    )
}
"""The rows by the names of their cases; what time is short for comes last."""


def choose(names: list[str] | None) -> list[Row]:
    """Return the rows of these names, or all.

    Raises
    ------
    InvalidInput
    """
    for name in names or ():
        if name not in ROWS:
            raise InvalidInput(f"--case is {name!r}; expected one of {', '.join(ROWS)}")
    return [ROWS[name] for name in dict.fromkeys(names or ROWS)]


def components(case: Case) -> int:
    """Return the components of a state."""
    return SCANS[case.cell] if case.task == "scan" else case.model.components


def least_bytes(case: Case) -> int:
    """Return the bytes that a case moves at least: inputs read once, results written once.

    A gradient reads drives and states once more, and writes the gradient by the drives. What does
    not grow with the steps is left out, and so are matrices, which a dense recurrence reads again.
    """
    k = components(case)
    if case.task == "scan":
        numbers = k * k + 2 * k
    else:
        gates = case.model.gates
        numbers = gates + k if case.task == "forward" else 3 * gates + 2 * k
    itemsize = 8 if case.dtype == "float64" else 4
    return numbers * itemsize * case.lanes * case.steps
