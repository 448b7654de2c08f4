"""Speed of the compiled linear scans, against copying memory and against plain loops.

Run ``python tests/benchmarks/scan.py``, or with ``--json FILE`` to keep the figures. Everything
that is compared is timed in one run, turn by turn, and shown as the median of the ratios of the
turns, with their quartiles.

*share of copy* is the bandwidth of the scan over the bandwidth of a copy. A scan moves every
element of ``blocks`` and ``rhs`` in and every element of ``h`` out once: S bytes. The copy moves S
bytes too, S/2 in and S/2 out, by ``numpy.copyto`` or by one such call per thread, whichever is
faster in the median. All arrays together are about 150 MB. *in place* writes to memory that is
there already; *public* is ``scan`` as users call it, whose result is new memory that the system
must first clear, against a copy whose result is new memory too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numba
import numpy as np

from pararnn_solvers.linear import load, numba_scan, threads

MEGABYTES = 150
DIAGONAL = [(1, (), lanes) for lanes in (256, 4096)]
COUPLED = [(2, (), 256), (2, (16,), 16), (2, (256,), 1), (3, (), 256), (4, (), 64)]


@numba.njit(error_model="numpy", fastmath={"contract"})
def plain_loop(A, b, h):
    state = b[0]
    h[0] = state
    for t in range(1, b.size):
        state = A[t] * state + b[t]
        h[t] = state


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def turns(calls, repeats):
    """Return seconds of every call (columns) in every turn (rows), after one turn unrecorded."""
    return np.array([[timed(call) for call in calls] for _ in range(repeats + 1)])[1:]


def system(T, batch, k, n, dtype):
    rng = np.random.default_rng(0)
    blocks = rng.uniform(-0.9, 0.9, (T, *batch, k, k, n)).astype(dtype)
    blocks /= k
    return blocks, rng.normal(size=(T, *batch, k * n)).astype(dtype)


def canonical(blocks, rhs):
    k, n = blocks.shape[-2:]
    A = blocks.reshape(len(rhs), -1, k, k, n)
    return A, rhs.reshape(len(rhs), -1, k, n)


def threaded_copy(source, target):
    cuts = np.linspace(0, source.size, threads.num_threads() + 1).astype(int)
    parts = [slice(*cut) for cut in zip(cuts[:-1], cuts[1:], strict=True)]
    threads.run([partial(np.copyto, target[part], source[part]) for part in parts])


def quartiles(ratios):
    return [float(q) for q in np.percentile(ratios, [50, 25, 75])]


def share_of_copy(k, batch, n, dtype, adjoint, repeats):
    lanes = k * n * int(np.prod(batch))
    T = MEGABYTES * 10**6 // (np.dtype(dtype).itemsize * lanes * (k + 2))
    blocks, rhs = system(T, batch, k, n, dtype)
    A, b = canonical(blocks, rhs)
    h = np.empty_like(b)
    half = np.ones((blocks.nbytes + 2 * rhs.nbytes) // 2, np.uint8)
    target = np.ones_like(half)
    seconds = turns(
        [
            partial(numba_scan.solve, A, b, h, adjoint),
            partial(np.copyto, target, half),
            partial(threaded_copy, half, target),
            partial(numba_scan.scan, blocks, rhs, adjoint=adjoint),
            partial(np.copy, half),
            lambda: threaded_copy(half, np.empty_like(half)),
        ],
        repeats,
    )
    fastest = [
        1 + np.median(seconds[:, 1:3], 0).argmin(),
        4 + np.median(seconds[:, 4:], 0).argmin(),
    ]
    return {
        "GB/s copied": round(2e-9 * half.nbytes / np.median(seconds[:, fastest[0]]), 1),
        "in place": quartiles(seconds[:, fastest[0]] / seconds[:, 0]),
        "public": quartiles(seconds[:, fastest[1]] / seconds[:, 3]),
    }


def one_lane(dtype, adjoint, repeats, T=1 << 22):
    blocks, rhs = system(T, (), 1, 1, dtype)
    A, b = canonical(blocks, rhs)
    h = np.empty_like(b)
    flat = blocks.reshape(-1), rhs.reshape(-1)
    third = np.ones(3 * rhs.nbytes // 2, np.uint8)
    target = np.ones_like(third)
    seconds = turns(
        [
            partial(numba_scan.solve, A, b, h, adjoint),
            partial(plain_loop, *flat, h.reshape(-1)),
            partial(numba_scan.scan, blocks, rhs, adjoint=adjoint),
            lambda: plain_loop(*flat, np.empty_like(flat[1])),
            partial(threaded_copy, third, target),
        ],
        repeats,
    )
    return {
        "ns/step": round(1e9 * np.median(seconds[:, 0]) / T, 3),
        "in place": quartiles(seconds[:, 1] / seconds[:, 0]),
        "public": quartiles(seconds[:, 3] / seconds[:, 2]),
        "a threaded copy of the same bytes": quartiles(seconds[:, 1] / seconds[:, 4]),
    }


def dense(d, dtype, adjoint, repeats):
    T = MEGABYTES * 10**6 // (np.dtype(dtype).itemsize * d * (d + 2))
    problem = system(T, (), d, 1, dtype)
    scans = [partial(load(name), *problem, adjoint=adjoint) for name in ("numba", "sequential")]
    seconds = turns(scans, repeats)
    return {
        "µs/step": round(1e6 * np.median(seconds[:, 0]) / T, 3),
        "public": quartiles(seconds[:, 1] / seconds[:, 0]),
    }


FIRST_CALL = """
import sys, time
import numpy as np
start = time.perf_counter()
import numba, scipy.linalg  # Numba imports the second on its first use
imported = time.perf_counter()
if "{what}" == "nothing":
    @numba.njit
    def first(A, b): pass
    numba.core.registry.cpu_target.target_context.refresh()
    numba.core.registry.cpu_target.typing_context.refresh()
else:
    from pararnn_solvers.linear import load
    load("numba")(np.ones({blocks}), np.ones({rhs}))
print(imported - start, time.perf_counter() - imported)
"""


def first_call(what, blocks, rhs):
    """Seconds of the first scan in a new process: uncached, cached, and of imports before it."""
    source = FIRST_CALL.format(what=what, blocks=blocks, rhs=rhs)
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"NUMBA_CACHE_DIR": directory}
        runs = [
            [
                float(x)
                for x in subprocess.check_output(
                    [sys.executable, "-c", source], env=environment, text=True
                ).split()
            ]
            for _ in range(6)
        ]
    warm = np.median(runs[1:], axis=0)
    return {"cold": runs[0][1], "warm": warm[1], "import numba, scipy.linalg": warm[0]}


def show(title, rows):
    print(f"\n{title}")
    for name, figures in rows.items():
        cells = [
            f"{key} {value[0]:.2f} ({value[1]:.2f}-{value[2]:.2f})"
            if isinstance(value, list)
            else f"{key} {value:.3g}"
            for key, value in figures.items()
        ]
        print(f"  {name:34s} " + "   ".join(cells), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    report = {
        "machine": platform.processor() or platform.machine(),
        "threads": threads.num_threads(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }
    print(report)
    ways = [(t, a) for t in (np.float64, np.float32) for a in (False, True)]
    label = "{} {}".format
    way = {w: label(w[0].__name__, "adjoint" if w[1] else "forward") for w in ways}
    report["share of copy"] = {
        f"k={k} batch={batch} n={n} {way[dtype, adjoint]}": share_of_copy(
            k, batch, n, dtype, adjoint, arguments.repeats
        )
        for k, batch, n in DIAGONAL + COUPLED
        for dtype, adjoint in ways
    }
    show("Share of the bandwidth of a copy", report["share of copy"])
    report["one lane"] = {way[w]: one_lane(*w, arguments.repeats) for w in ways}
    show("One lane, T = 2^22: times as fast as a compiled plain loop", report["one lane"])
    report["dense"] = {
        f"d={d} {way[w]}": dense(d, *w, max(5, arguments.repeats // 2))
        for d in (16, 64, 256)
        for w in ways
    }
    show("Dense, one sequence: times as fast as `sequential`", report["dense"])
    report["first call"] = {
        "diagonal, one lane": first_call("scan", (99, 1, 1, 1), (99, 1)),
        "diagonal, 256 lanes": first_call("scan", (99, 1, 1, 256), (99, 256)),
        "k = 2, 256 channels": first_call("scan", (99, 2, 2, 256), (99, 512)),
        "dense, d = 64": first_call("scan", (99, 64, 64, 1), (99, 64)),
        "Numba's own start": first_call("nothing", (), ()),
    }
    show("First call in a new process, seconds", report["first call"])
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
