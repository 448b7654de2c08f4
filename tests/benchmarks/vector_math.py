"""Errors and speed of vector mathematics, against long double and against NumPy and SciPy.

Run ``python -m tests.benchmarks.vector_math`` in the root of the repository; prints Markdown.

*ulp* is the greatest error found on ``tests.compiled.references.arguments``, in units in the last
place. *ns* is the time of one element on one core, in a loop over 4096 elements that stay in the
cache; NumPy writes to memory that is there already, as the loop does. The two alternate in one
run, and figures are medians over the turns: of the times, and of their ratios.
"""

from __future__ import annotations

import argparse
import os
import time

import numba
import numpy as np
import scipy.special

from pararnn_solvers.compiled.vector_math import FUNCTIONS
from tests.compiled.references import arguments, reference, ulps

ELEMENTS, CALLS = 4096, 25
LIMIT = {np.float32: 2.0**20, np.float64: 2.0**49}
OTHERS = {
    "erf": ("scipy erf", scipy.special.erf),
    "sigmoid": ("scipy expit", scipy.special.expit),
    "softplus": ("numpy logaddexp", lambda x, out: np.logaddexp(x, x.dtype.type(0), out=out)),
}


def loop(function, arity):
    """Return the compiled loop over one or two arrays."""
    if arity == 2:

        @numba.njit(error_model="numpy", fastmath={"contract"})
        def kernel(x, y, out):
            for i in range(x.size):
                out[i] = function(x[i], y[i])
    else:

        @numba.njit(error_model="numpy", fastmath={"contract"})
        def kernel(x, out):
            for i in range(x.size):
                out[i] = function(x[i])

    return kernel


def greatest_error(kernel, name, dtype, samples):
    x = arguments(name, dtype, samples, LIMIT[dtype])
    out = np.empty_like(x[0])
    kernel(*x, out)
    return max(  # in pieces: a reference takes memory
        np.max(ulps(out[part], reference(name, *(each[part] for each in x))))
        for part in (slice(i, i + 100_000) for i in range(0, out.size, 100_000))
    )


def timed(call, *x):
    start = time.perf_counter()
    for _ in range(CALLS):
        call(*x)
    return (time.perf_counter() - start) / CALLS / ELEMENTS * 1e9


def speed(kernel, other, name, dtype, turns):
    """Return ns of ours, ns of the other and the ratio other/ours: medians over the turns."""
    rng = np.random.default_rng(0)
    x = 3 * rng.normal(size=(2, ELEMENTS)).astype(dtype)
    if name in ("log", "log1p", "sqrt", "pow"):
        x[0] = np.abs(x[0])
    x = (*(x if name == "pow" else x[:1]), np.empty(ELEMENTS, dtype))
    times = np.array([(timed(kernel, *x), timed(other, *x)) for _ in range(turns + 1)])[1:]
    return (*np.median(times, axis=0), np.median(times[:, 1] / times[:, 0]))


def main():
    """Print one row for each function and type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=300_000, help="of each kind, for errors")
    parser.add_argument("--turns", type=int, default=101)
    options = parser.parse_args()
    processor = os.environ.get("NUMBA_CPU_NAME") or numba.core.codegen.ll.get_host_cpu_name()
    print(f"Processor {processor}, NumPy {np.__version__}, Numba {numba.__version__}.\n")
    print("| function | dtype | ulp | ns | NumPy or SciPy, ns | times as fast |")
    print("|---|---|---|---|---|---|")
    for name, function in FUNCTIONS.items():
        kernel = loop(function, 2 if name == "pow" else 1)
        known = ("numpy", np.power) if name == "pow" else ("numpy", getattr(np, name, None))
        label, other = OTHERS.get(name, known)
        for dtype in LIMIT:
            samples = options.samples // (5 if name == "erf" else 1)
            error = greatest_error(kernel, name, dtype, samples)
            ours, theirs, ratio = speed(kernel, other, name, dtype, options.turns)
            print(
                f"| {name} | {dtype.__name__} | {error:.2f} | {ours:.2f} "
                f"| {theirs:.2f} ({label}) | {ratio:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
