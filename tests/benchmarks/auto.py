"""Where stepping is faster: ``python tests/benchmarks/auto.py`` prints a table.

Milliseconds for 4096 steps (median of five turns) by multiple shooting, Newton's method and
stepping, against the numbers that one step computes. The thresholds of ``method="auto"`` come from
here; they hold for steps evaluated by NumPy.
"""

from __future__ import annotations

import time

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm

T = 4096
METHODS = {"newton(chunk=48)": prs.newton(chunk=48), "newton": "newton", "sequential": "sequential"}


def tanh_network(rng, n):
    return lambda h, x, a: np.tanh(a * h + x), rng.standard_normal((T, n)), np.zeros(n), 0.5


def cell_driven(cell, components):
    def problem(rng, n):
        theta = cell.init(rng, 16, n // components, dtype=np.float32)
        x = rng.standard_normal((T, 16)).astype(np.float32)
        return cell.recurrence, cell.project(x, theta), np.zeros(n, np.float32), theta

    return problem


def milliseconds(problem):
    turns = []
    for _ in range(5):
        turns.append([])
        for method in METHODS.values():
            start = time.perf_counter()
            prs.solve(*problem, method=method)
            turns[-1].append(1e3 * (time.perf_counter() - start))
    return np.median(turns, axis=0)


def main():
    problems = {
        "tanh": tanh_network,
        "GRU": cell_driven(diagonal_gru, 1),
        "LSTM": cell_driven(diagonal_lstm, 2),
    }
    print("| recurrence | numbers in a step | " + " | ".join(METHODS) + " |")
    print("|---" * (2 + len(METHODS)) + "|")
    for name, make in problems.items():
        for n in (32, 128, 256, 512, 2048, 4096):
            recurrence, *data = make(np.random.default_rng(0), n)
            if not isinstance(recurrence, prs.Recurrence):
                recurrence = prs.Recurrence(recurrence, block_size=1)
            times = milliseconds((recurrence, *data))
            print(f"| {name} | {n} | " + " | ".join(f"{t:.0f}" for t in times) + " |", flush=True)


if __name__ == "__main__":
    main()
