"""Speed of single steps: ``python tests/benchmarks/stepper.py``, with PyTorch installed.

Microseconds a step of 256 channels in float32 for 1, 64 and 4096 streams: a compiled stepper of a
diagonal GRU on drives that are there, the same after ``project`` has made them, one whose step
makes them itself by one product, as GRUCell does, and one of a dense GRU with PyTorch's equations,
on drives. Beside them, in a loop under ``torch.no_grad``: ``torch.nn.GRUCell``, which is dense and
makes its drives itself, and the steps of the diagonal GRU written with PyTorch's operations.
PyTorch runs on one thread and on all, and the faster one counts; ``--threads 1`` holds all of them
to one.

What is compared takes turns. Times are medians of the turns; ratios are taken turn by turn, their
medians shown with the quartiles.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru, gru

try:
    import torch
except ImportError:  # as where tests are collected
    torch = None

CHANNELS = 256
STREAMS = (1, 64, 4096)
ASKED = 20  # times as fast as GRUCell, for one stream


def loop(call, count):
    """Return microseconds a call, of so many calls."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return 1e6 * (time.perf_counter() - start) / count


def diagonal_in_torch(theta, u, h):
    """Return what takes a step of the diagonal GRU by PyTorch's operations."""
    a = torch.from_numpy(np.array(theta.a))
    drives, state = torch.from_numpy(u).chunk(3, dim=-1), torch.from_numpy(h)

    def call():
        nonlocal state
        z = torch.sigmoid(a[0] * state + drives[0])
        r = torch.sigmoid(a[1] * state + drives[1])
        c = torch.tanh(a[2] * state * r + drives[2])
        state = state + z * (c - state)

    return call


def with_inputs(h, x, theta):
    """Return the next states of a diagonal GRU, its drives made in the step."""
    a, W, b = theta
    return diagonal_gru.step(h, x @ W + b, diagonal_gru.Theta(a, W, b))


def on_threads(call, count):
    """Return PyTorch's call on so many threads, without gradients."""

    def run():
        torch.set_num_threads(count)
        with torch.no_grad():
            for _ in range(10):
                call()

    return run


def ten(call):
    """Return ten calls, as `on_threads` makes them."""

    def run():
        for _ in range(10):
            call()

    return run


def contestants(streams, threads):
    """Return what each contestant calls for ten steps."""
    rng = np.random.default_rng(0)
    theta = diagonal_gru.init(rng, CHANNELS, CHANNELS, dtype=np.float32)
    dense = gru.init(rng, CHANNELS, CHANNELS, dtype=np.float32)
    x = rng.standard_normal((streams, CHANNELS)).astype(np.float32)
    h0 = np.zeros((streams, CHANNELS), np.float32)
    u, u_dense = diagonal_gru.project(x, theta), gru.project(x, dense)
    ours = prs.stepper(diagonal_gru.recurrence, theta, h0, example=u, compiled=True)
    whole = prs.stepper(diagonal_gru.recurrence, theta, h0, example=u, compiled=True)
    W = np.moveaxis(theta.B[:, 0], 0, 1).reshape(CHANNELS, 3 * CHANNELS)
    inside = prs.Recurrence(with_inputs)
    alone = prs.stepper(inside, (theta.a, W, theta.b.ravel()), h0, example=x, compiled=True)
    ours_dense = prs.stepper(gru.recurrence, dense, h0, example=u_dense, compiled=True)
    cell, inputs, state = torch.nn.GRUCell(CHANNELS, CHANNELS), torch.from_numpy(x), None

    def step_of_cell():
        nonlocal state
        state = cell(inputs, state)

    calls = {
        "stepper": ten(lambda: ours(u)),
        "stepper with project": ten(lambda: whole(diagonal_gru.project(x, theta))),
        "stepper, inputs in its step": ten(lambda: alone(x)),
        "stepper, dense GRU": ten(lambda: ours_dense(u_dense)),
    }
    slow = diagonal_in_torch(theta, u, h0)
    for count in sorted({1, threads}):
        calls[f"GRUCell, {count} thread(s)"] = on_threads(step_of_cell, count)
        calls[f"diagonal GRU in torch, {count} thread(s)"] = on_threads(slow, count)
    return calls


def measure(calls, turns, seconds):
    """Return microseconds a step of each contestant, an entry for each turn."""
    counts = {}
    for name, call in calls.items():
        call()
        counts[name] = max(1, int(seconds * 1e6 / loop(call, 3)))
    rows = [[loop(call, counts[name]) / 10 for name, call in calls.items()] for _ in range(turns)]
    return dict(zip(calls, np.transpose(rows), strict=True))


def report(times):
    """Print times, and how many times as long PyTorch's loops take."""
    for name, turns in times.items():
        low, middle, high = np.percentile(turns, [25, 50, 75])
        print(f"  {name:<36} {middle:10.2f} us   [{low:.2f} ... {high:.2f}]")
    best = {}
    for kind in ("GRUCell", "diagonal GRU in torch"):
        found = [turns for name, turns in times.items() if name.startswith(kind)]
        best[kind] = min(found, key=np.median)
    for ours, theirs in (
        ("stepper", "GRUCell"),
        ("stepper", "diagonal GRU in torch"),
        ("stepper with project", "GRUCell"),
        ("stepper, inputs in its step", "GRUCell"),
        ("stepper, dense GRU", "GRUCell"),
    ):
        low, middle, high = np.percentile(best[theirs] / times[ours], [25, 50, 75])
        print(f"  {theirs + ' / ' + ours:<44} {middle:6.1f}x  [{low:.1f} ... {high:.1f}]")
    return float(np.median(best["GRUCell"] / times["stepper"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=prs.num_threads())
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.05, help="of each turn")
    options = parser.parse_args()
    if torch is None:
        parser.error("PyTorch is not installed; pip install 'pararnn_solvers[bench]'")
    prs.set_num_threads(options.threads)
    print(f"PyTorch {torch.__version__}, {options.threads} thread(s), {CHANNELS} channels, float32")
    for streams in STREAMS:
        print(f"{streams} stream(s)")
        ratio = report(
            measure(contestants(streams, options.threads), options.turns, options.seconds)
        )
        if streams == 1:
            print(f"  asked for at least {ASKED}x: {'reached' if ratio >= ASKED else 'missed'}")


if __name__ == "__main__":
    main()
