"""The compiled backend: tiles, threads, processes and its cache."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pararnn_solvers.linear import load, numba_rows, numba_scan, numba_split, threads


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


def times_covered(pieces, B, n):
    """Return how many pieces have each lane."""
    covered = np.zeros((B, n), int)
    for q_lo, q_hi, lo, hi in pieces:
        covered[q_lo:q_hi, lo:hi] += 1
    return covered


@given(st.integers(1, 20), st.integers(1, 500), st.sampled_from([4, 8]), st.integers(1, 9))
@example(B=3, n=40, itemsize=8, workers=3)
def test_workers_share_all_lanes_as_evenly_as_sequences_or_vectors_allow(B, n, itemsize, workers):
    shares, vector = numba_scan._shares(B, n, itemsize, workers), 64 // itemsize
    assert (times_covered(shares, B, n) == 1).all()
    assert len(shares) <= workers
    for q_lo, q_hi, lo, hi in shares:
        if B >= workers:
            assert (lo, hi) == (0, n) and q_hi - q_lo < B / workers + 1
        else:
            assert (q_lo, q_hi) == (0, B) and hi - lo < n / workers + vector
            assert lo % vector == 0


@given(
    *(st.integers(least, most) for least, most in [(0, 5), (1, 20), (0, 9), (1, 500), (1, 2000)])
)
@example(first=0, sequences=3, lo=0, channels=100, lanes=40)  # fewer than a tile has at least
@example(first=0, sequences=3, lo=0, channels=100, lanes=150)  # one sequence and no more
def test_tiles_cover_a_share_and_are_small(first, sequences, lo, channels, lanes):
    share = first, first + sequences, lo, lo + channels
    tiles = numba_scan._tiles(share, lanes)
    covered = times_covered(tiles, share[1], share[3])
    assert (covered[first:, lo:] == 1).all() and covered.sum() == sequences * channels
    assert all((b - a) * (d - c) <= max(lanes, 64) for a, b, c, d in tiles)


def test_a_step_of_a_tile_fills_the_cache_and_no_more(monkeypatch):
    """State, blocks and right-hand side of one sequence more would not fit."""
    tiles, k, n = [], 3, 70
    monkeypatch.setattr(numba_scan, "_kernel", lambda *_: lambda *given: tiles.append(given[4]))
    numba_scan.scan(*system(2, (50,), k, n))
    q_lo, q_hi, lo, hi = tiles[0]
    of_a_sequence = n * (k + k * k + k) * 8
    assert (lo, hi) == (0, n) and len(tiles) > 1
    assert (q_hi - q_lo) * of_a_sequence <= numba_scan.TILE_BYTES
    assert (q_hi - q_lo + 1) * of_a_sequence > numba_scan.TILE_BYTES


@pytest.mark.parametrize(
    ("T", "batch", "k", "n"),
    [
        (64, (), 1, 64),  # one thread
        (64, (), 1, 1 << 13),  # as many as have enough in all
        (256, (), 1, 1 << 13),  # as many as have enough in each step
        (1024, (), 1, 1 << 11),  # only one has
        (256, (1 << 12,), 2, 4),  # all there are
    ],
)
def test_a_thread_is_started_if_it_has_enough_to_do(monkeypatch, T, batch, k, n):
    started = []
    monkeypatch.setattr(threads, "run", lambda tasks: started.append(len(tasks)))
    monkeypatch.setattr(threads, "num_threads", lambda: 8)
    blocks, rhs = np.empty((T, *batch, k, k, n)), np.empty((T, *batch, k * n))
    numba_scan.scan(blocks, rhs)
    touched = blocks.nbytes + 2 * rhs.nbytes  # the solution is as large

    def enough(workers):
        share = touched / workers
        return share >= numba_scan.THREAD_BYTES and share / T >= numba_scan.ROW_BYTES

    assert started == [max([1, *filter(enough, range(2, 9))])]


def test_arrays_that_may_be_written_or_not_share_one_kernel():
    blocks, rhs = system(9, (), 1, 33)
    numba_scan.scan(blocks, rhs)
    compiled = list(numba_rows.rows.signatures)
    for array in (blocks, rhs):
        array.flags.writeable = False
        numba_scan.scan(blocks, rhs)
    assert numba_rows.rows.signatures == compiled


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
