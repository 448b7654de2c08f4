"""What the checks of ``pararnn_solvers.testing`` take on a small cell, a method and a backend.

Run ``python tests/benchmarks/checks.py``. Each is run once before it is timed, so that what it
compiles is on disk. Prints the seconds of the least of three runs, with the three checks that take
most of them.
"""

from __future__ import annotations

import time

import numpy as np

from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.testing import check_backend, check_method, check_recurrence


def cell_case(cell, channels):
    """Return a cell of `channels` channels with 16 steps of 3 sequences."""
    rng = np.random.default_rng(0)
    theta = cell.init(rng, 3, channels)
    h0 = cell.initial_state(theta, (3,))
    return cell.recurrence, cell.project(rng.standard_normal((16, 3, 3)), theta), h0, theta


CASES = {
    "check_recurrence, diagonal GRU of 4 channels": lambda: check_recurrence(
        *cell_case(diagonal_gru, 4)
    ),
    "check_recurrence, diagonal LSTM of 4 channels": lambda: check_recurrence(
        *cell_case(diagonal_lstm, 4)
    ),
    "check_method, newton": lambda: check_method("newton"),
    "check_backend, sequential": lambda: check_backend("sequential"),
    "check_backend, numba": lambda: check_backend("numba"),
}


def timed(check):
    """Return the seconds of a run, and its results."""
    start = time.perf_counter()
    results = check()
    return time.perf_counter() - start, results


def main():
    """Print a row for each case."""
    for name, check in CASES.items():
        check()
        seconds, results = min((timed(check) for _ in range(3)), key=lambda run: run[0])
        slowest = sorted(results, key=lambda result: -result.seconds)[:3]
        most = ", ".join(f"{result.name} {result.seconds:.2f}" for result in slowest)
        print(f"{name}: {seconds:.2f} s for {len(results)} checks ({most})")


if __name__ == "__main__":
    main()
