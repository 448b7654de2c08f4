"""Whether ``method="auto"`` chooses well: ``python tests/benchmarks/auto.py [compiled] [numpy]``.

*numpy*: milliseconds for 4096 steps (median of five turns) by multiple shooting, Newton's method
and stepping, against the numbers that one step computes. The thresholds for steps evaluated by
NumPy come from here.

*compiled*: for a grid of sizes, milliseconds of the rollout, of shooting with the best of some
chunks, and of ``method="auto"``, and the time of the last over the better of the others. All
methods take turns; figures are the least of the turns, which other work on the machine disturbs
least. Data are those of ``pararnn_solvers.bench``, in float32; *long* is a GRU that forgets 1/1000
a step. ``--json FILE`` keeps all times. With ``--threads 1`` times are those of the processor: they
tell what a choice is worth even where other work takes the cores.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from itertools import product

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.bench.cases import Case, build
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.linear import threads

T = 4096
METHODS = {"newton(chunk=48)": prs.newton(chunk=48), "newton": "newton", "sequential": "sequential"}

CELLS = {"gru": "gru", "long": "gru", "lstm": "lstm", "logistic": "logistic", "dense": "dense"}
CHANNELS = (1, 2, 4, 8, 16, 32, 64, 128, 512)
UNITS = (32, 64, 128, 256)
LENGTHS = (1 << 12, 1 << 15, 1 << 18)
BATCHES = (1, 8)
MOST = 1 << 22  # states of all channels and sequences
PIECES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # chunks, cut to an odd number of tiles
SHORT = 1.0  # milliseconds, below which the choice costs as much as the solve
HOPELESS = 2.0  # times as slow as the best of the first turn: not timed again


def tanh_network(rng, n):
    return lambda h, x, a: np.tanh(a * h + x), rng.standard_normal((T, n)), np.zeros(n), 0.5


def cell_driven(cell, components):
    def problem(rng, n):
        theta = cell.init(rng, 16, n // components, dtype=np.float32)
        x = rng.standard_normal((T, 16)).astype(np.float32)
        return cell.recurrence, cell.project(x, theta), np.zeros(n, np.float32), theta

    return problem


def milliseconds(call):
    """Return the time of the second of two calls: cores that others left idle are slow to wake."""
    clock = time.perf_counter if threads.num_threads() > 1 else time.thread_time
    call()
    start = clock()
    call()
    return 1e3 * (clock() - start)


def print_numpy():
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
            problem = (recurrence, *data)
            calls = [
                partial(prs.solve, *problem, method=method, compiled=False)
                for method in METHODS.values()
            ]
            times = np.median([[milliseconds(call) for call in calls] for _ in range(5)], axis=0)
            print(f"| {name} | {n} | " + " | ".join(f"{t:.0f}" for t in times) + " |", flush=True)


def cases(kinds):
    """Return the grid."""
    found = []
    for kind in kinds:
        sizes = UNITS if kind == "dense" else CHANNELS
        lengths = LENGTHS[:2] if kind == "dense" else LENGTHS
        for n, steps, batch in product(sizes, lengths, BATCHES):
            if n * steps * batch <= MOST:
                forget = 7.0 if kind == "long" else 0.0
                shape = () if batch == 1 else (batch,)
                found.append((kind, Case("", "", CELLS[kind], steps, n, shape, forget=forget)))
    return found


def chunks(steps):
    """Return lengths of chunks, odd multiples of 16."""
    return sorted({16 * (max(1, round(steps / p / 16)) | 1) for p in PIECES if steps >= 32 * p})


def solver(problem, method):
    case = problem.case
    steps = case.steps if problem.u is None else None
    options = dict(steps=steps, method=method, compiled=True)
    return partial(
        prs.solve, case.model.recurrence, problem.u, problem.h0, problem.theta, **options
    )


def measure(case, repeats):
    """Return times of every method, (turns, methods), and what auto said."""
    problem = build(case)
    methods = {"auto": "auto", "sequential": "sequential"}
    methods |= {str(S): prs.newton(chunk=S) for S in chunks(case.steps)}
    calls = {name: solver(problem, method) for name, method in methods.items()}
    solution = calls["auto"]()
    for name, call in list(calls.items()):
        try:
            call()
        except prs.ConvergenceError:
            del calls[name]
    first = {name: milliseconds(call) for name, call in calls.items()}
    limit = HOPELESS * min(first.values())
    calls = {name: c for name, c in calls.items() if name[0] in "as" or first[name] <= limit}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats):  # each starts with another, as every call pays for the one before
        for name in np.roll(list(calls), turn * len(calls) // repeats).tolist():
            times[name].append(milliseconds(calls[name]))
    return times, solution


def print_compiled(kinds, repeats, file):
    print("| | channels | batch | T | rollout | shooting (chunk) | auto | over the best | choice |")
    print("|---" * 9 + "|")
    kept, worst = [], {}
    for kind, case in cases(kinds):
        times, solution = measure(case, repeats)
        least = {name: min(t) for name, t in times.items()}
        best = min((name for name in times if name != "auto"), key=least.__getitem__)
        shot = min((name for name in times if name.isdigit()), key=least.__getitem__, default="")
        ratio = least["auto"] / least[best]
        batch = int(np.prod(case.batch))
        shown = f"{least[shot]:.1f} ({shot})" if shot else "—"
        print(
            f"| {kind} | {case.channels} | {batch} | {case.steps} | {least['sequential']:.1f} | "
            f"{shown} | {least['auto']:.1f} | {ratio:.2f} | {solution.method} |",
            flush=True,
        )
        kept.append(
            dict(kind=kind, channels=case.channels, batch=batch, T=case.steps, times=times,
                 ratio=ratio, method=solution.method, note=solution.note)
        )  # fmt: skip
        if least[best] >= SHORT:
            worst.setdefault(kind, []).append(ratio)
    for kind, ratios in worst.items():
        print(
            f"{kind}: auto over the best, where that takes {SHORT:g} ms at least: "
            f"median {np.median(ratios):.2f}, greatest {max(ratios):.2f}, "
            f"{sum(r > 1.15 for r in ratios)} of {len(ratios)} above 1.15",
            flush=True,
        )
    if file:
        with open(file, "w", encoding="utf-8") as out:
            json.dump(kept, out, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("tables", nargs="*", default=["compiled", "numpy"])
    parser.add_argument("--kinds", nargs="+", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=threads.num_threads())
    parser.add_argument("--json")
    arguments = parser.parse_args()
    threads.set_num_threads(arguments.threads)
    if "compiled" in arguments.tables:
        print_compiled(arguments.kinds, arguments.repeats, arguments.json)
    if "numpy" in arguments.tables:
        print_numpy()


if __name__ == "__main__":
    main()
