"""A trajectory longer than memory: ``python tests/benchmarks/out_of_core.py --folder /a/disk``.

A scalar GRU in float32 is solved from one file into another, in a process of its own, whose peak of
memory is the system's (``ru_maxrss``, pages of mapped files included). Then once more: that process
is killed by SIGKILL on its way and started again, and the two files are compared. All files are
removed at the end. 10**9 steps read 4 GB and write 4 GB; the disk needs room for 12.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import pararnn_solvers as prs

SLICE = 1 << 22  # numbers that are made, or read, at once
THETA = np.array([[0.5, 0.3, 0.8], [1.0, 0.7, 1.2], [-0.5, 0.1, 0.0]], np.float32)


def step(h, x, theta):
    """Return the next state of a GRU of one unit, its input weights inside."""
    a, w, b = theta
    z = prs.sigmoid(a[0] * h + w[0] * x + b[0])
    r = prs.sigmoid(a[1] * h + w[1] * x + b[1])
    return h + z * (np.tanh(a[2] * (r * h) + w[2] * x + b[2]) - h)


def solve(folder, path, method):
    """Solve, and print what it took: in a process of its own."""
    cell, h0 = prs.Recurrence(step, block_size=1), np.zeros(1, np.float32)
    theta, few = tuple(THETA), np.ones((1 << 17, 1), np.float32)
    prs.solve(cell, few, h0, theta, method=method)  # imports and compiles
    start, before = time.perf_counter(), time.process_time()
    found = prs.solve_to(path, cell, folder / "x.npy", h0, theta, method=method)
    told = {
        "seconds": time.perf_counter() - start,
        "processor": time.process_time() - before,
        "resumed": found.resumed,
        "steps": found.steps,
        "kilobytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }
    print(json.dumps(told))


def begin(options, path):
    """Start that process."""
    command = [sys.executable, __file__, "--method", options.method, "--child", str(path)]
    command += ["--folder", str(path.parent)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process):
    """Return what it printed, and print it for people."""
    output, _ = process.communicate()
    if process.returncode:
        sys.exit(f"the solve ended with status {process.returncode}")
    told = json.loads(output)
    steps = told["steps"] - told["resumed"]
    print(
        f"  {steps:,} steps in {told['seconds']:.1f} s ({told['processor']:.1f} s of processors): "
        f"{steps / told['seconds'] / 1e6:.1f} million a second; "
        f"at most {told['kilobytes'] * 1024 / 1e9:.2f} GB of memory",
        flush=True,
    )
    return told


def make_source(folder, steps):
    """Write the inputs, a slice at a time."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (steps, 1)}
    with open(folder / "x.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for i, t in enumerate(range(0, steps, SLICE)):
            size = min(SLICE, steps - t)
            np.random.default_rng(i).standard_normal(size, np.float32).tofile(file)
        os.fsync(file.fileno())  # not while the solve is timed


def digest(path):
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def killed(options, path, share):
    """Start a solve and kill it once a checkpoint has this share of the steps."""
    process, known = begin(options, path), path.with_name(path.name + ".checkpoint")
    while process.poll() is None:
        if known.exists() and json.loads(known.read_text())["steps"] >= share * options.steps:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.01)
    sys.exit("the solve ended before it could be killed: take more steps")


def run(folder, options):
    """Measure, kill, resume, compare."""
    print(f"{options.steps:,} steps of a scalar GRU, float32, method {options.method}", flush=True)
    make_source(folder, options.steps)
    first, second = folder / "h.npy", folder / "h2.npy"
    finished(begin(options, first))
    expected = digest(first)
    first.unlink()
    killed(options, second, options.kill)
    told = finished(begin(options, second))
    print(f"  that was after SIGKILL and {told['resumed']:,} steps")
    same = digest(second) == expected
    print(f"  the files are {'the same, byte for byte' if same else 'NOT THE SAME'}")
    return not same


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=lambda text: int(float(text)), default=10**9)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--kill", type=float, default=0.4, help="share of the steps done by then")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return solve(options.folder, options.child, options.method)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        return run(Path(folder), options)


if __name__ == "__main__":
    sys.exit(main())
