"""A solve that would not fit is refused before anything is allocated."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import memory as free
from pararnn_solvers.solvers import memory
from pararnn_solvers.system import System
from tests.strategies import block_tanh, dense_tanh, solve


def test_available_memory_is_that_of_a_computer():
    assert 2**20 < free.available_memory() < 2**50


def test_without_meminfo_all_memory_counts(monkeypatch):
    monkeypatch.setattr(free, "Path", lambda name: Path("/nowhere"))
    assert 2**20 < free.available_memory() < 2**50


def test_a_solve_that_does_not_fit_is_refused_with_a_remedy(monkeypatch):
    monkeypatch.setattr(free, "available_memory", lambda *enough: 10_000)
    message = (
        r"newton\(\) on 100 × 1 × 4 states needs about .* GiB, .* GiB are free; declare a "
        r"block_size, or use windowed"
    )
    with pytest.raises(prs.InsufficientMemory, match=message):
        solve(dense_tanh(T=100), method="newton")
    with pytest.raises(MemoryError):
        solve(dense_tanh(T=100), method="newton")


def test_a_huge_solve_allocates_nothing_before_it_is_refused():
    T, d = 2**40 // (8 * 4096), 4096  # a trajectory of 1 TiB, as a view of one row
    x = np.broadcast_to(np.zeros((1, d)), (T, d))
    step = prs.Recurrence(lambda h, x, _: 0.5 * h + x, block_size=1)
    tracemalloc.start()
    with pytest.raises(prs.InsufficientMemory):
        memory.check_memory(System(step, x[:, None], np.zeros((1, d))), prs.newton())
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("method", [prs.newton(), prs.quasi_newton(), prs.windowed(length=50)])
@pytest.mark.parametrize(
    "case", [dense_tanh(d=12, T=2000), block_tanh(k=1, n=12, T=2000, batch=(3,))]
)
def test_the_estimate_is_the_peak_within_a_factor(case, method):
    """Enough to refuse what would not fit; not so much that what fits is refused."""
    recurrence = case.recurrence
    if not isinstance(recurrence, prs.Recurrence):
        recurrence = prs.Recurrence(recurrence)
    batch = case.h0.shape[:-1] or (1,)
    x, h0 = case.x.reshape(2000, *batch, 12), case.h0.reshape(*batch, 12)
    needed = memory.required_memory(System(recurrence, x, h0, case.theta), method)
    solve(case, method=method)  # compiled and imported by now
    tracemalloc.start()
    solve(case, method=method)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * needed + 8 * 2**20  # a few slabs of 1 MiB of tangents
    if method.window is None:  # whose estimate counts the whole trajectory as open
        assert peak > needed / 4


def test_cheaper_choices_need_less():
    case = dense_tanh(d=16, T=1000)
    system = System(prs.Recurrence(case.recurrence), case.x[:, None], case.h0[None], case.theta)
    need = {
        name: memory.required_memory(system, method)
        for name, method in {
            "newton": prs.newton(),
            "shooting": prs.newton(chunk=10),
            "window": prs.windowed(length=10),
            "quasi": prs.quasi_newton(),
            "sequential": prs.sequential(),
        }.items()
    }
    assert need["newton"] > 2 * 1000 * 16 * 16 * 8
    for name in ("shooting", "window", "quasi", "sequential"):
        assert need[name] < need["newton"] / 2
    assert free.blocks_memory(system) == 1000 * 16 * 16 * 8


def test_nothing_needs_nothing():
    system = System(prs.Recurrence(lambda h, x, _: h), np.zeros((0, 1, 2)), np.zeros((1, 2)))
    assert memory.required_memory(system, prs.newton()) == 0


def test_a_system_that_does_not_tell_its_memory_sets_no_limit(monkeypatch):
    monkeypatch.setattr(free, "Path", lambda name: Path("/nowhere"))
    monkeypatch.setattr(free.os, "sysconf_names", {})
    assert free.available_memory() > 2**62


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "method", [prs.levenberg_marquardt(), prs.anderson(8, prs.jacobi())], ids=str
)
def test_the_estimate_counts_what_a_step_length_holds(method, dtype):
    case = dense_tanh(d=32, T=2000, dtype=dtype)
    recurrence = prs.Recurrence(case.recurrence)
    x, h0 = case.x.reshape(2000, 1, 32), case.h0.reshape(1, 32)
    needed = memory.required_memory(System(recurrence, x, h0, case.theta), method)
    solve(case, method=method)
    tracemalloc.start()
    solve(case, method=method)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert needed / 4 < peak < 1.5 * needed


def test_the_estimate_is_the_sum_of_what_is_held():
    """Eight trajectories; two sets of blocks of the open steps; and what the step length keeps."""
    T, B, d, W, S = 60, 3, 5, 20, 4
    case = dense_tanh(d=d, T=T, batch=(B,), dtype=np.float32)
    system = System(prs.Recurrence(case.recurrence), case.x, case.h0, case.theta)
    states, dense, diagonal = (B * n * 4 for n in (T * d, d * d, d))
    m = 2

    def need(method):
        return memory.required_memory(system, method)

    assert need("auto") == need(prs.sequential()) == 8 * states
    assert need(prs.newton()) == 8 * states + 2 * T * dense
    assert need(prs.quasi_newton()) == 8 * states + 2 * T * diagonal
    assert need(prs.windowed(length=W)) == 8 * states + 2 * W * dense
    assert need(prs.windowed(length=2 * T)) == need(prs.newton())
    assert need(prs.newton(chunk=S)) == 8 * states + 2 * (T // S) * dense
    assert need(prs.newton(chunk=S + 3)) == 8 * states + 2 * (T // (S + 3) + 1) * dense
    assert isinstance(need(prs.levenberg_marquardt()), int)
    assert isinstance(need(prs.anderson(m, prs.newton())), int)
    more = need(prs.levenberg_marquardt()) - need(prs.newton())
    assert more == 5 * T * 2 * dense  # float64
    mixed = prs.anderson(m, prs.newton())
    assert need(mixed) - need(prs.newton()) == 4 * (m + 1) * states
    in_window = prs.windowed(mixed, W)
    assert need(in_window) - need(prs.windowed(length=W)) == 4 * (m + 1) * states * W // T
