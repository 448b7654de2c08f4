"""Anchors of recurrent networks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pararnn_solvers import problems
from pararnn_solvers.api import solve
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.diagnostics import lyapunov_exponent
from pararnn_solvers.reproduction.anchor import Row, iterations_to_merit
from pararnn_solvers.solvers.solution import Solution

CELLS = {"ParaGRU": (diagonal_gru, 1), "ParaLSTM": (diagonal_lstm, 2)}
LENGTHS = (256, 512, 1024, 2048)
DRAWS = (1 / math.sqrt(3), 1.0)
THRESHOLD = 0.01  # what an estimate over 900 steps may be wrong by
GAINS = (0.5, 0.8, 1.0, 1.2, 1.6)


def solve_cell(name: str, T: int, dtype: Any, seed: int = 0) -> Solution:
    """Solve four sequences of 64 channels in four heads, from the authors' initialization."""
    cell, k = CELLS[name]
    rng = np.random.default_rng(seed)
    theta = cell.init(rng, 64, 64, heads=4, dtype=dtype)
    x = rng.standard_normal((T, 4, 64)).astype(dtype)
    u, h0 = cell.project(x, theta), np.zeros((4, 64 * k), dtype)
    return solve(cell.recurrence, u, h0, theta, method="newton")


def cells_of_language_models() -> Iterator[Row]:
    """Count iterations of ParaGRU and ParaLSTM at four lengths, in both precisions."""
    for name in CELLS:
        for T in LENGTHS:
            counts = [solve_cell(name, T, dtype).n_iter for dtype in (np.float32, np.float64)]
            ours = f"{counts[0]} in float32, {counts[1]} in float64"
            yield Row(f"{name}, T = {T}", "3 to 4", ours, all(3 <= n <= 4 for n in counts))


def solve_tanh_network(gain: float, method: str, T: int = 65536) -> Solution:
    """Solve a tanh network of 32 units, four inputs of noise, weights ``N(0, gain^2/32)``."""
    problem = problems.tanh_network(gain, length=T, dtype=np.float32)
    return solve(*problem[:4], method=method)


def tanh_network() -> Iterator[Row]:
    """Count iterations of Newton's and of the diagonal quasi-Newton method.

    How the source draws its weights is not known here, so that two usual draws bracket it:
    PyTorch's, uniform between ``-1/sqrt(32)`` and ``1/sqrt(32)``, has the deviation of gain
    ``1/sqrt(3)``; normal weights of variance 1/32 have gain 1.
    """
    for method, theirs in (("newton", 6), ("quasi_newton", 30)):
        counts = [solve_tanh_network(gain, method).n_iter for gain in DRAWS]
        ours = f"{counts[0]} (gain 0.58), {counts[1]} (gain 1)"
        yield Row(method, str(theirs), ours, counts[0] - 1 <= theirs <= counts[1] + 1)


def mean_field() -> Iterator[Row]:
    """Count iterations against the gain, beside the largest Lyapunov exponent."""
    for gain in GAINS:
        for seed in (0, 1):
            problem = problems.mean_field_rnn(gain, length=1000, seed=seed)
            exponent = float(lyapunov_exponent(*problem[:4], discard=100, chunk=30))
            count = iterations_to_merit(problem, max_iter=150)
            iterations = math.inf if count is None else count
            theirs, agrees = expected(exponent, iterations)
            ours = f"{count or 'more than 150'} (exponent {exponent:+.3f})"
            yield Row(f"gain {gain}, seed {seed}", theirs, ours, agrees)


def expected(exponent: float, iterations: float) -> tuple[str, bool]:
    """Return what the source says of this exponent, and whether the iterations agree.

    Examples
    --------
    >>> expected(-0.2, 4), expected(0.002, 37), expected(0.05, 60)
    (('few, O(log T)', True), ('between', True), ('no gain', False))
    """
    if exponent < -THRESHOLD:
        return "few, O(log T)", iterations <= 10
    if exponent > THRESHOLD:
        return "no gain", iterations > 150
    return "between", iterations > 5
