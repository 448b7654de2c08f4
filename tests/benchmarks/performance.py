"""Where the time of a compiled recurrence goes: ``python tests/benchmarks/performance.py``.

Prints the numbers of ``docs/performance.md``; with ``--figures DIR`` it draws its pictures there.
What is compared takes turns; figures are the least of the turns. Data are those of
``pararnn_solvers.bench``, in float32 where nothing else is said.

*channels*: ns per step and channel of ``solve``, by the number of channels.
*chunks*: ns per step of one channel, by the length of chunks.
*vectors*: ns per step and vector of a rollout, and of the map, by how many vectors a step has; one
thread, and data that stay in the second-level cache.
*floors*: ns per step and channel of 512 channels, from memory, beside what moving the bytes takes
at the speed of a copy, and what so many steps take that stay in the cache, shared by all threads.
*memory*: how much a solve adds to the greatest resident size of a process.
*first*: seconds of the first solve in a process, with an empty and with a filled cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.bench import numba_loop, numba_map
from pararnn_solvers.bench.cases import Case, build
from pararnn_solvers.compiled import numba_kernels as kernels
from pararnn_solvers.compiled import shooting_policy
from pararnn_solvers.compiled.program import program
from pararnn_solvers.linear import alignment, threads

STATES = 1 << 21  # of all channels, in a large problem
CACHED = 1 << 15  # and in one that stays in the cache
AGAIN = 30  # times, so that data come from the cache
WIDTH, HEIGHT = 6.4, 3.7  # inches
# Okabe and Ito's colours, which the colour-blind tell apart.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"


def nanoseconds(calls, repeats):
    """Return the least over the turns of each call, in ns: what other processes disturb least."""
    for call in calls:
        call()
    turns = []
    for _ in range(repeats):
        turns.append([])
        for call in calls:
            start = time.perf_counter()
            call()
            turns[-1].append(1e9 * (time.perf_counter() - start))
    return np.min(turns, axis=0)


def solver(problem, method):
    steps = problem.case.steps if problem.u is None else None
    data = problem.case.model.recurrence, problem.u, problem.h0, problem.theta
    return partial(prs.solve, *data, steps=steps, method=method, compiled=True)


def program_of(problem):
    """Return what kernels take: program, x, h0, with one batch axis."""
    case = problem.case
    h0 = problem.h0.reshape(1, -1)
    u = None if problem.u is None else problem.u.reshape(case.steps, 1, -1)
    return program(case.model.recurrence.step, h0, u, problem.theta, case.model.components), u, h0


# --- ns per step and channel, by the number of channels ------------------------------------------


def channels(repeats):
    """Return rows (channels, rollout, shooting, auto, map, loop)."""
    rows = []
    for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512):
        T = min(1 << 20, STATES // n)
        problem = build(Case("", "", "gru", T, n))
        made, u, h0 = program_of(problem)
        remembered = shooting_policy.forgetting(made, u, h0, T)
        S, _ = shooting_policy.best_chunk(made, 1, T, remembered)
        answer = prs.solve(problem.case.model.recurrence, u[:, 0], h0[0], problem.theta).h
        problem = problem._replace(answer=(answer,))
        maps = [v.call for v in numba_map.apply(problem)]
        calls = [solver(problem, method) for method in ("sequential", prs.newton(chunk=S), "auto")]
        times = nanoseconds([*calls, partial(numba_loop.trajectory, problem), *maps], repeats)
        times /= T * n
        rows.append((n, *times[:3], times[4:].min(), times[3]))
        print("| " + " | ".join(f"{v:.3g}" for v in rows[-1]) + " |", flush=True)
    return np.array(rows)


def draw_channels(ax, rows):
    n, rollout, shooting, _, floor, loop = rows.T
    ax.plot(n, loop, color=GREY, marker="s", label="plain Numba loop, one thread")
    ax.plot(n, rollout, color=BLUE, marker="o", label="rollout")
    ax.plot(n, shooting, color=ORANGE, marker="^", label="shooting")
    ax.plot(n, floor, color="black", linestyle="--", marker=".", label="map: f without recurrence")
    ax.set_xscale("log", base=2)
    logarithmic(ax.yaxis)
    ax.set_xticks(n, [f"{int(v)}" for v in n])
    ax.set_xlabel("channels")
    ax.set_ylabel("ns per step and channel")


# --- ns per step of one channel, by the length of chunks -----------------------------------------


def chunks(repeats):
    """Return for both recurrences (S, ns), how long they remember, and ns of the rollout."""
    T, found = 1 << 20, {}
    for name, forget in (("GRU", 0.0), ("GRU that forgets 1/1000 a step", 7.0)):
        problem = build(Case("", "", "gru", T, 1, forget=forget))
        made, u, h0 = program_of(problem)
        remembered = shooting_policy.forgetting(made, u, h0, T).steps
        lengths = [16 * (2**i | 1) for i in range(0, 15)]
        calls = [solver(problem, prs.newton(chunk=S)) for S in lengths]
        times = nanoseconds([solver(problem, "sequential"), *calls], repeats) / T
        found[name] = lengths, times[1:], remembered, times[0]
        print(f"{name}: {remembered:.0f} steps, rollout {times[0]:.1f} ns a step")
        for S, ns in zip(lengths, times[1:], strict=True):
            print(f"| {S} | {ns:.2f} |", flush=True)
    return found


def draw_chunks(ax, found):
    looks = ((ORANGE, "o"), (BLUE, "s"))
    rollout = min(last for *_, last in found.values())
    for (name, (S, ns, steps, _)), (color, marker) in zip(found.items(), looks, strict=True):
        ax.plot(S, ns, color=color, marker=marker, label=name)
        ax.axvline(steps, color=color, linestyle=":", linewidth=1.2)
        ax.annotate(
            f"forgotten in\n{steps:.0f} steps", (steps, 0.85), color=color, fontsize=9, va="center",
            xycoords=("data", "axes fraction"), xytext=(3, 0), textcoords="offset points",
        )  # fmt: skip
    ax.axhline(rollout, color=GREY, linestyle="--", linewidth=1.2, label="rollout")
    ax.set_xscale("log", base=2)
    logarithmic(ax.yaxis)
    ax.set_xlabel("steps in a chunk")
    ax.set_ylabel("ns per step")


# --- ns per vector, by how many are in flight ----------------------------------------------------


def vectors(repeats):
    """Return for each cell rows (vectors in flight, rollout, map), ns per step and vector."""
    before, found = threads.num_threads(), {}
    threads.set_num_threads(1)
    for cell in ("gru", "lstm", "logistic"):
        found[cell] = []
        for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32):
            n, T = 16 * count, CACHED // (16 * count)
            problem = build(Case("", "", cell, T, n))
            calls = [*on_kernels(problem, T), *on_kernels(problem, 2)]
            rollout, mapped, *rest = nanoseconds(calls, 20 * repeats)
            ns = np.array([rollout, mapped]) - rest  # what a call costs besides
            found[cell].append((count, *ns / ((T - 2) * count)))
            print(
                f"| {cell} | " + " | ".join(f"{v:.3g}" for v in found[cell][-1]) + " |", flush=True
            )
        found[cell] = np.array(found[cell])
    threads.set_num_threads(before)
    return found


def on_kernels(problem, T):
    """Return calls of the rollout and of the map, of the first steps, to arrays that exist."""
    made, u, h0 = program_of(problem)
    u = None if u is None else u[:T]
    h = alignment.empty((T, *h0.shape), h0.dtype)
    kernels.rollout(made, u, h0, h)
    x, previous = None if u is None else u[:, 0], h[:, 0].copy()
    return [
        partial(kernels.rollout, made, u, h0, h),
        partial(kernels.apply, made, previous, x, 0),
    ]


def draw_vectors(ax, found):
    looks = {"gru": (ORANGE, "o", "GRU"), "lstm": (BLUE, "s", "LSTM"),
             "logistic": (GREEN, "^", "logistic map")}  # fmt: skip
    for cell, rows in found.items():
        color, marker, label = looks[cell]
        count, ns, floor = rows.T
        ax.plot(count, ns, color=color, marker=marker, label=label)
        least = min(floor.min(), ns.min())
        ax.plot(count, np.maximum(ns[0] / count, least), color=color, linestyle=":", linewidth=1.2)
    ax.plot([], [], color=GREY, linestyle=":", label="bound: latency / vectors, or throughput")
    ax.set_xscale("log", base=2)
    logarithmic(ax.yaxis)
    ticks = (1, 2, 4, 8, 16, 32)
    ax.set_xticks(ticks, [str(v) for v in ticks])
    ax.set_xlabel("vectors of 16 channels in a step")
    ax.set_ylabel("ns per step and vector")


# --- floors: bytes and arithmetic ----------------------------------------------------------------


def linear_step(h, x, a):
    return a * h + x


def floors(repeats):
    """Return rows (name, rollout, bytes at the speed of a copy, steps from the cache, ...)."""
    n, found = 512, []
    T = STATES // n
    half = np.ones(128 << 20, np.uint8)
    target = np.ones_like(half)
    cuts = np.linspace(0, half.size, threads.num_threads() + 1).astype(int)
    parts = [slice(*cut) for cut in zip(cuts[:-1], cuts[1:], strict=True)]

    def copy():
        threads.run([partial(np.copyto, target[part], half[part]) for part in parts])

    for name, cell, dtype in (
        ("a h + x", "linear", "float32"),
        ("logistic", "logistic", "float32"),
        ("GRU", "gru", "float32"),
        ("LSTM", "lstm", "float32"),
        ("GRU float64", "gru", "float64"),
    ):
        case = Case("", "", cell, T, n, dtype=dtype)
        made, u, h0 = linear(T, n) if cell == "linear" else program_of(build(case))
        h = alignment.empty((T, *h0.shape), h0.dtype)
        few = CACHED // n
        calls = [partial(kernels.rollout, made, u, h0, h), copy]
        for steps in (few, 2):
            x = None if u is None else u[:steps].copy()
            cached = partial(kernels.rollout, made, x, h0, h[:steps].copy())
            calls.append(partial(several, cached, AGAIN))
        ns = nanoseconds(calls, 3 * repeats)
        moved = ((0 if u is None else u.nbytes) + h.nbytes) / (T * n)
        rate = 2 * half.nbytes / ns[1]
        # The few steps are computed by one thread.
        arithmetic = (ns[2] - ns[3]) / (AGAIN * (few - 2) * n) / threads.num_threads()
        found.append((name, ns[0] / (T * n), moved / rate, arithmetic, moved, rate))
        print("| " + " | ".join(v if isinstance(v, str) else f"{v:.3g}" for v in found[-1]) + " |")
    return found


def linear(T, n):
    rng = np.random.default_rng(0)
    u = rng.standard_normal((T, 1, n), dtype=np.float32)
    h0, a = np.zeros((1, n), np.float32), rng.uniform(0, 0.9, n).astype(np.float32)
    return program(linear_step, h0, u, a, 1), u, h0


def several(call, times):
    for _ in range(times):
        call()


def draw_floors(ax, found):
    names = [row[0] for row in found]
    for i, (_, rollout, copied, arithmetic, _, _) in enumerate(found):
        ax.plot([max(copied, arithmetic), rollout], [i, i], color=GREY, linewidth=1.2, zorder=1)
        ax.plot(rollout, i, color=ORANGE, marker="o", markersize=7)
        ax.plot(copied, i, color=BLUE, marker="s", fillstyle="none", markersize=7)
        ax.plot(arithmetic, i, color="black", marker="|", markersize=13, markeredgewidth=2)
    for label, style in (
        ("rollout", {"color": ORANGE, "marker": "o"}),
        ("its bytes, copied", {"color": BLUE, "marker": "s", "fillstyle": "none"}),
        ("the same steps from the cache", {"color": "black", "marker": "|", "markersize": 11}),
    ):
        ax.plot([], [], linestyle="", label=label, **style)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    logarithmic(ax.xaxis)
    ax.set_xlabel("ns per step and channel")


# --- memory and first calls, in processes of their own -------------------------------------------

CHILD = """
import resource, sys, time
start = time.perf_counter()
import numba, scipy.linalg
numba_seconds = time.perf_counter() - start
import numpy as np
import pararnn_solvers as prs
from pararnn_solvers.bench.cases import Case, build

what, cell, steps, channels, method = sys.argv[1:]
problem = build(Case("", "", cell, int(steps), int(channels)))
method = prs.newton(chunk=int(method)) if method.isdigit() else method

def solve(p):
    model, T = p.case.model, len(p.u)
    return prs.solve(model.recurrence, p.u, p.h0, p.theta, method=method, compiled=True)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

if what == "memory":
    few = problem._replace(u=problem.u[: len(problem.u) // 16])
    solve(few)  # compiles, and starts threads
    before = peak()
    h = solve(problem).h
    print(peak() - before, h.nbytes, problem.u.nbytes)
else:
    from numba import njit
    njit(lambda v: v + 1)(1)  # Numba's own start
    start = time.perf_counter()
    solve(problem)
    print(numba_seconds, time.perf_counter() - start)
"""


def child(*arguments, cache=None):
    environment = dict(os.environ, **({"PARARNN_SOLVERS_CACHE": cache} if cache else {}))
    command = [sys.executable, "-c", CHILD, *map(str, arguments)]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [float(v) for v in run.stdout.split()]


def memory():
    print("| recurrence | method | inputs, MB | outputs, MB | added at the peak, MB |")
    print("|---" * 5 + "|")
    for cell, steps, n in (("gru", 1 << 22, 1), ("gru", 1 << 18, 16), ("dense", 1 << 15, 64)):
        for method in ("sequential", steps // 32 + 16 if cell == "gru" else steps // 8):
            added, outputs, inputs = child("memory", cell, steps, n, method)
            shown = f"newton(chunk={method})" if isinstance(method, int) else method
            print(
                f"| {cell}, {n} | {shown} | {inputs / 1e6:.0f} | {outputs / 1e6:.0f} | "
                f"{added / 1e6:.0f} |",
                flush=True,
            )


def first(repeats):
    print("| recurrence | method | imports of Numba and SciPy | cold | warm |")
    print("|---" * 5 + "|")
    for cell, n, method in (
        ("gru", 1, "sequential"), ("gru", 1, "auto"), ("gru", 64, "sequential"),
        ("lstm", 1, "auto"), ("lstm", 64, "sequential"), ("dense", 128, "auto"),
    ):  # fmt: skip
        turns = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as cache:
                call = partial(child, "first", cell, 1 << 15, n, method, cache=cache)
                cold, warm = call(), call()
                turns.append((warm[0], cold[1], warm[1]))
        shown = " | ".join(f"{v:.2f}" for v in np.min(turns, axis=0))
        print(f"| {cell}, {n} | {method} | {shown} |", flush=True)


# --- all ----------------------------------------------------------------------------------------

PICTURES = {
    "channels": (channels, draw_channels),
    "chunks": (chunks, draw_chunks),
    "vectors": (vectors, draw_vectors),
    "floors": (floors, draw_floors),
}


def logarithmic(axis):
    """Scale an axis, and label it in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


def picture(draw, data, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    ax = figure.subplots()
    draw(ax, data)
    ax.grid(color=GREY, alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=160)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("parts", nargs="*", default=[*PICTURES, "memory", "first"])
    parser.add_argument("--figures", type=Path, help="folder for the pictures")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    for part in arguments.parts:
        print(f"\n{part}")
        if part == "memory":
            memory()
        elif part == "first":
            first(min(3, arguments.repeats))
        else:
            measure, draw = PICTURES[part]
            data = measure(arguments.repeats)
            if arguments.figures:
                picture(draw, data, arguments.figures / f"performance-{part}.png")


if __name__ == "__main__":
    main()
