"""A compiled solve needs its inputs, its outputs, and little more."""

import subprocess
import sys

import pytest

resource = pytest.importorskip("resource")

ALLOWED = 64 << 20  # bytes beside inputs and outputs
CHILD = """
import resource, sys
import numpy as np
import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru

def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

T, n, method = map(int, sys.argv[1:])
rng = np.random.default_rng(0)
theta = diagonal_gru.init(rng, 1, n, dtype=np.float32)
x = rng.standard_normal((T, 3 * n), dtype=np.float32)
h0 = np.zeros(n, np.float32)
method = prs.newton(chunk=method) if method else "sequential"

def solve(x):
    return prs.solve(diagonal_gru.recurrence, x, h0, theta, method=method, compiled=True).h

solve(x[: T // 64])  # compiles
before = peak()
h = solve(x)
print(peak() - before, h.nbytes)
"""


@pytest.mark.parametrize(
    ("T", "n", "chunk"),
    [(1 << 22, 1, 0), (1 << 22, 1, 65552), (1 << 17, 32, 0), (1 << 17, 32, 8192)],
)
def test_the_peak_is_what_goes_in_and_out(T, n, chunk):
    """Inputs are there before: what is added is the output, and what else is needed."""
    command = [sys.executable, "-c", CHILD, str(T), str(n), str(chunk)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=100)
    added, output = map(int, run.stdout.split())
    assert output == 4 * T * n
    assert added <= output + ALLOWED
