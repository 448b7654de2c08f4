"""The compiled backend: tiles, threads, processes and its cache."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pararnn_solvers.linear import load, numba_scan, numba_split, threads


@pytest.fixture(params=[1, 2, 5])
def workers(request):
    before = threads.num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


def system(T, batch, k, n, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(-0.9, 0.9, (T, *batch, k, k, n)).astype(dtype) / dtype(k)
    return blocks, rng.normal(size=(T, *batch, k * n)).astype(dtype)


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize(
    ("T", "batch", "k", "n"),
    [(50_001, (), 1, 1), (9_001, (), 1, 4), (9, (3,), 1, 501), (8, (2, 3), 2, 70), (6, (9,), 7, 1)],
)
def test_large_systems_in_many_tiles_on_any_number_of_threads(
    monkeypatch, workers, adjoint, T, batch, k, n
):
    monkeypatch.setattr(numba_scan, "TILE_BYTES", 1 << 12)
    monkeypatch.setattr(numba_scan, "THREAD_BYTES", 1 << 8)
    monkeypatch.setattr(numba_scan, "ROW_BYTES", 1 << 8)
    monkeypatch.setattr(numba_split, "DISPATCH_BYTES", 0)
    blocks, rhs = system(T, batch, k, n)
    h = numba_scan.scan(blocks, rhs, adjoint=adjoint)
    reference = load("sequential")(blocks, rhs, adjoint=adjoint)
    np.testing.assert_allclose(h, reference, rtol=1e-11, atol=1e-11)
    assert np.array_equal(h, numba_scan.scan(blocks, rhs, adjoint=adjoint))


def test_lanes_do_not_depend_on_the_other_sequences():
    blocks, rhs = system(40, (7,), 2, 32)
    together = numba_scan.scan(blocks, rhs)
    for q in range(7):
        assert np.array_equal(numba_scan.scan(blocks[:, q], rhs[:, q]), together[:, q])


def test_calls_from_many_python_threads_at_once(monkeypatch):
    monkeypatch.setattr(numba_scan, "THREAD_BYTES", 1 << 8)
    monkeypatch.setattr(numba_scan, "ROW_BYTES", 1 << 8)
    monkeypatch.setattr(numba_split, "DISPATCH_BYTES", 0)
    problems = [system(2_000, (), 1, n, seed=s) for s, n in enumerate([1, 4, 33, 64] * 6)]
    expected = [load("sequential")(*problem) for problem in problems]
    with ThreadPoolExecutor(4) as callers:
        solved = list(callers.map(lambda problem: numba_scan.scan(*problem), problems))
    for h, reference in zip(solved, expected, strict=True):
        np.testing.assert_allclose(h, reference, rtol=1e-11, atol=1e-11)


def python(source, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no os.fork on this platform")
def test_a_forked_child_solves_too():
    run = python(
        """
        import os, sys, warnings
        import numpy as np
        from pararnn_solvers.linear import load, numba_scan, threads
        threads.set_num_threads(3)
        numba_scan.THREAD_BYTES = numba_scan.ROW_BYTES = 1
        blocks, rhs = np.full((500, 1, 1, 64), 0.5), np.ones((500, 64))
        reference = load("sequential")(blocks, rhs)
        assert np.allclose(numba_scan.scan(blocks, rhs), reference)
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads running
        child = os.fork()
        same = np.allclose(numba_scan.scan(blocks, rhs), reference)
        if child == 0:
            os._exit(0 if same else 3)
        assert same
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        """
    )
    assert run.returncode == 0, run.stderr


def test_a_cold_cache_compiles_in_silence(tmp_path):
    run = python(
        """
        import numpy as np
        from pararnn_solvers.linear import load
        load("numba")(np.full((9, 1, 1, 1), 0.5), np.ones((9, 1)))
        """,
        NUMBA_CACHE_DIR=str(tmp_path),
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    # One kernel: neither the adjoint nor other shapes were compiled.
    assert len(list(tmp_path.rglob("*.nbc"))) == 1
