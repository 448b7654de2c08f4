"""Chunks that are joined on the device are the rollout, and report what the CPU's chunks do."""

from dataclasses import replace

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.compiled import cuda_shooting, numba_kernels, shooting, shooting_policy
from pararnn_solvers.linear.cupy_scan import scan
from pararnn_solvers.solvers.compiled_shooting import CompiledShooting
from pararnn_solvers.solvers.stopping import Stopping
from pararnn_solvers.system import Tally
from tests.compiled.cuda.on_device import FAMILIES, problem
from tests.cuda_on_cpu import fake_cupy, raw_module
from tests.strategies import Case

ATOL = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-5}
SHAPES = [
    ("diagonal", 1, (), 200, 48),
    ("diagonal", 1, (), 1, 48),
    ("diagonal", 33, (2,), 90, 64),
    ("single gru", 1, (), 333, 64),
    ("cell", 3, (2,), 150, 50),
    ("autonomous", 3, (), 70, 33),
]


def rolled_out(p):
    h = np.empty(p.system.shape, p.system.h0.dtype)
    numba_kernels.rollout(p.cpu, p.system.x, p.system.h0, h)
    return h


def shoot(device, p, S, way=cuda_shooting.shoot, atol=None, **options):
    h = device.empty(p.system.shape, p.system.h0.dtype)
    atol = ATOL[h.dtype] if atol is None else atol
    return way(p.gpu, p.x, p.h0, h, S, atol, 0.0, **options), h.get()


def residual(p, h):
    return np.abs(p.system.residual(h)).max(axis=(0, 2), initial=0)


@pytest.mark.parametrize(("family", "n", "batch", "T", "S"), SHAPES)
@pytest.mark.parametrize("method", ["until they meet", "newton"])
def test_chunks_are_the_rollout(device, family, n, batch, T, S, method):
    p = problem(device, FAMILIES[family](n=n, T=T, batch=batch))
    if method == "newton":
        shot, h = shoot(device, p, S, cuda_shooting.shoot_newton, scan=scan, max_iter=20)
    else:
        shot, h = shoot(device, p, S)
    atol = ATOL[h.dtype]
    assert shot.joined.all() and not shot.diverged.any() and shot.finite is True
    np.testing.assert_allclose(h, rolled_out(p), rtol=0, atol=atol / (1 - p.case.lipschitz))
    rounding = 64 * np.finfo(h.dtype).eps
    assert (np.abs(residual(p, h) - shot.norms[-1]) <= atol / 2 + rounding).all()
    assert shot.norms.dtype == h.dtype and shot.norms.shape[1] == h.shape[1]
    assert h.shape[0] * h.shape[1] <= shot.evaluations


@pytest.mark.parametrize(("family", "n", "batch", "T", "S"), [SHAPES[0], SHAPES[4]])
def test_the_account_is_that_of_the_cpu(device, family, n, batch, T, S):
    p = problem(device, FAMILIES[family](n=n, T=T, batch=batch))
    shot, h = shoot(device, p, S)
    same = np.empty_like(h)
    expected = shooting.shoot(p.cpu, p.system.x, p.system.h0, same, S, ATOL[h.dtype], 0.0)
    np.testing.assert_array_equal(shot.joined, expected.joined)
    np.testing.assert_array_equal(shot.diverged, expected.diverged)
    np.testing.assert_allclose(shot.norms[0], expected.norms[0], rtol=1e-12)
    assert shot.norms.shape == expected.norms.shape
    # There whole rows meet, or many lanes in steps of 16; here each lane by itself.
    assert T * h.shape[1] < shot.evaluations <= expected.evaluations


def linear(h, x, a):
    return a * h + x


def slowly(device, a=1.0, T=400, n=1, batch=1):
    """Remembers for ever, or as long as ``a ** steps`` lasts."""
    x = np.random.default_rng(0).standard_normal((T, batch, n))
    a = np.full(1, a)
    case = Case(prs.Recurrence(linear, block_size=1), x, np.zeros((batch, n)), a, T, 0.9)
    return problem(device, case)


def test_chunks_that_are_shorter_than_memory_need_several_passes(device):
    p = slowly(device, a=0.9)
    shot, h = shoot(device, p, 100)  # and 0.9**245 is the tolerance
    assert shot.joined.all()
    assert 400 + 300 + 200 <= shot.evaluations < 1000
    np.testing.assert_allclose(h, rolled_out(p), rtol=0, atol=1e-9)


def test_what_does_not_forget_is_given_up_and_newton_solves_it(device):
    p = slowly(device)
    shot, h = shoot(device, p, 20)
    assert not shot.joined.any() and not shot.diverged.any()
    assert shot.evaluations <= (shooting.MOST_EVALUATIONS + 1) * 400
    assert shot.norms[-1, 0] > 1e-3
    shot, h = shoot(device, p, 20, cuda_shooting.shoot_newton, scan=scan, max_iter=5)
    assert shot.joined.all() and len(shot.norms) <= 4
    np.testing.assert_allclose(h, rolled_out(p), rtol=0, atol=1e-9)


def test_sequences_are_joined_one_by_one(device):
    p = slowly(device, batch=3)
    x = p.system.x.copy()
    x[:, 1] = 0  # this one is right from the start
    p = p._replace(x=device.asarray(x))
    shot, _ = shoot(device, p, 20)
    np.testing.assert_array_equal(shot.joined, [False, True, False])


def test_a_guess_that_is_the_trajectory_leaves_nothing_to_do(device):
    p = slowly(device, T=100)
    truth = rolled_out(p)
    shot, h = shoot(device, p, 20, guess=device.asarray(truth[19::20]))
    assert shot.joined.all() and shot.evaluations == 100
    np.testing.assert_array_equal(h, truth)


def squaring(h, x, a):
    return a * h * h + x


@pytest.mark.parametrize("n", [1, 40])
def test_only_what_is_infinite_diverges(device, n):
    """An overflow ends a sequence; that of a guess, where the trajectory has none, does not."""
    T, S = 120, 30
    x = np.full((T, 2, n), 0.01)
    x[45, 1, -1] = 1e3
    case = Case(prs.Recurrence(squaring, block_size=1), x, np.zeros((2, n)), np.ones(1), T, 0.9)
    p = problem(device, case)
    guess = np.full((3, 2, n), 3.0)  # from which every chunk overflows
    with np.errstate(all="ignore"):
        shot, h = shoot(device, p, S, guess=device.asarray(guess))
        truth = rolled_out(p)
    np.testing.assert_array_equal(shot.diverged, [False, True])
    np.testing.assert_array_equal(shot.joined, [True, False])
    assert shot.finite is False and np.isnan(shot.norms[-1, 1])
    np.testing.assert_allclose(h[:, 0], truth[:, 0], rtol=1e-12)
    np.testing.assert_allclose(h[:45, 1], truth[:45, 1], rtol=1e-12)


@pytest.mark.parametrize(("family", "n", "batch", "T", "S"), [SHAPES[0], SHAPES[2]])
def test_every_order_of_threads_gives_the_same_bits(device, family, n, batch, T, S, thread_order):
    p = problem(device, FAMILIES[family](n=n, T=T, batch=batch, lipschitz=0.95))
    shot, h = shoot(device, p, S)
    with raw_module.schedule(raw_module.FORWARD):
        other, same = shoot(device, p, S)
    np.testing.assert_array_equal(h, same)
    np.testing.assert_array_equal(shot.norms, other.norms)
    assert shot.evaluations == other.evaluations


@pytest.mark.double
def test_one_look_at_the_device_where_chunks_forget(device):
    p = problem(device, FAMILIES["diagonal"](n=1, T=200))
    h = device.empty(p.system.shape, np.float64)
    fake_cupy.copies.clear()
    cuda_shooting.shoot(p.gpu, p.x, p.h0, h, 48, 1e-10, 0.0)
    assert len(fake_cupy.copies.to_host) == 3  # the account; and two norms
    assert sum(fake_cupy.copies.to_host) < 64 and not fake_cupy.copies.to_device


@pytest.mark.double
def test_chunks_fill_the_device_but_are_not_shorter_than_memory(device):
    threads = 3 * cuda_shooting.IN_FLIGHT  # of the three multiprocessors of the double
    assert cuda_shooting.chunk_length(1 << 20, threads) == 1 << 20
    S = cuda_shooting.chunk_length(1 << 20, 1)
    assert 0.9 * threads <= (1 << 20) / S <= threads
    assert cuda_shooting.chunk_length(1 << 20, 1, memory=5000) >= 5000
    assert cuda_shooting.chunk_length(100, 1, memory=80) == 100


def test_how_soon_a_recurrence_forgets(device):
    for a, steps in [(0.9, np.log(2.2e-16) / np.log(0.9)), (1.0, np.inf), (1.1, np.inf)]:
        p = slowly(device, a=a)
        memory = cuda_shooting.forgetting(p.gpu, p.x, p.h0, 400)
        np.testing.assert_allclose(memory.steps, steps, rtol=0.01)
    p = slowly(device, a=0.0)  # at once
    assert cuda_shooting.forgetting(p.gpu, p.x, p.h0, 400).steps < 64


@pytest.mark.parametrize("forgets", [None, True, False])
def test_the_other_way_is_tried(device, forgets):
    """Of three sequences one is right from the start; none forgets."""
    p = slowly(device, batch=3)
    x = p.system.x.copy()
    x[:, 1] = 0
    system = replace(p.system, x=device.asarray(x), h0=p.h0, program=p.gpu, tally=Tally())
    stopping = Stopping(1e-10, 0.0, max_iter=5)
    found = CompiledShooting(20, forgets).solve(system, None, scan, stopping)
    assert [status.name for status in found.sequence_status] == ["CONVERGED"] * 3
    np.testing.assert_allclose(found.h.get(), np.cumsum(x, axis=0), rtol=0, atol=1e-9)


@pytest.mark.double
def test_shooting_pays_where_lanes_do_not_fill_the_device(device):
    p, memory = slowly(device), shooting_policy.Memory(60.0, np.nan)
    S, share = cuda_shooting.best_chunk(p.gpu, 1, 1 << 20, memory)
    assert 60 <= S < 1 << 12 and share < 0.01
    lanes = 3 * cuda_shooting.IN_FLIGHT
    assert cuda_shooting.best_chunk(p.gpu, lanes, 1 << 20, memory) == (1 << 20, 1.0)
    assert cuda_shooting.best_chunk(p.gpu, 1, 100, memory)[1] >= 1


@pytest.mark.parametrize("a", [0.3, 1.0], ids=["forgets", "remembers"])
@pytest.mark.parametrize("chunk", [64, 299, 300, 1000])
def test_iterations_are_counted_as_on_the_host(device, chunk, a):
    x, h0 = np.random.default_rng(0).standard_normal((300, 2, 3)), np.zeros((2, 3))
    recurrence, options = prs.Recurrence(linear, 1), {"method": prs.newton(chunk=chunk)}
    host = prs.solve(recurrence, x, h0, np.full(3, a), compiled=True, **options)
    arrays = (device.asarray(array) for array in (x, h0, np.full(3, a)))
    found = prs.solve(recurrence, *arrays, compiled=True, **options)
    assert found.n_iter == host.n_iter == int(chunk < 300)
    np.testing.assert_allclose(found.residual_norms[:-1], host.residual_norms[:-1], rtol=1e-9)
    if chunk >= 300:  # one chunk is the rollout
        assert found.n_step_evaluations == host.n_step_evaluations == 600
