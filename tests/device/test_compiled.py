"""Solves by CUDA kernels: what the kernels of the host find, and nothing large is copied.

The kernels are compiled by g++ and run on the (fake) device of `tests/cuda_on_cpu`.
"""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import compilation
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.linear import cuda
from pararnn_solvers.solvers import shooting
from tests.cuda_on_cpu.fake_array import copies
from tests.device.cases import on_device, to_host

LARGEST = 1000  # bytes that may cross at once: parameters of a probe, statuses, norms of sequences
METHODS = {
    "auto": "auto",
    "sequential": "sequential",
    "newton": "newton",
    "shooting": prs.newton(chunk=40),
    "windowed": prs.windowed(prs.newton(), 64),
    "quasi_newton": "quasi_newton",
    "picard": prs.picard(),
}
T, B, N = 240, 3, 5


def gru(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    theta = diagonal_gru.init(rng, N, N)
    theta = type(theta)(*(a.astype(dtype) for a in theta))
    x = rng.standard_normal((T, B, 3 * N)).astype(dtype)
    return diagonal_gru.recurrence, x, np.zeros((B, N), dtype), theta


def lstm(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    theta = diagonal_lstm.init(rng, N, N)
    theta = type(theta)(*(a.astype(dtype) for a in theta))
    x = rng.standard_normal((T, B, 3 * N)).astype(dtype)
    return diagonal_lstm.recurrence, x, np.zeros((B, 2 * N), dtype), theta


def elman(dtype=np.float64, seed=0, d=N):
    rng = np.random.default_rng(seed)
    W = (rng.standard_normal((d, d)) / (2 * d**0.5)).astype(dtype)
    x = rng.standard_normal((T, B, d)).astype(dtype)
    return prs.Recurrence(lambda h, x, W: np.tanh(h @ W + x)), x, np.zeros((B, d), dtype), W


def solve_both(device, problem, **options):
    recurrence, *arrays = problem
    host = prs.solve(recurrence, *arrays, compiled=True, **options)
    moved = on_device(device, arrays)
    found = prs.solve(recurrence, *moved, compiled=True, **options)
    return host, found


def assert_only_small_copies():
    assert max([*copies.to_host, *copies.to_device], default=0) <= LARGEST


def close(found, host, dtype=np.float64):
    np.testing.assert_allclose(found, host, atol=100 * np.finfo(dtype).eps ** 0.75)


@pytest.mark.parametrize("problem", [gru, lstm], ids=["gru", "lstm"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_finds_the_same_by_kernels_of_either(device, name, problem):
    host, found = solve_both(device, problem(), method=METHODS[name], max_iter=300)
    assert_only_small_copies()
    assert found.compiled and host.compiled
    assert found.success and host.success
    assert type(found.residual_norms) is np.ndarray
    close(found.h.get(), host.h)


@pytest.mark.parametrize("problem", [gru, lstm], ids=["gru", "lstm"])
@pytest.mark.parametrize("name", ["auto", "newton", "sequential", "shooting", "windowed"])
def test_in_single_precision_kernels_find_the_rollout_of_the_step(device, name, problem):
    recurrence, *arrays = problem(np.float32)
    expected = prs.rollout(recurrence, *arrays, compiled=False)
    moved = on_device(device, arrays)
    found = prs.solve(recurrence, *moved, method=METHODS[name], compiled=True)
    assert found.success and found.compiled and found.h.dtype == np.float32
    close(found.h.get(), expected, np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", ["auto", "sequential", prs.newton(chunk=40)], ids=str)
def test_dense_steps_find_the_same_by_kernels_of_either(device, method, dtype):
    host, found = solve_both(device, elman(dtype), method=method)
    assert found.compiled and found.success
    assert found.h.dtype == dtype
    close(found.h.get(), host.h, dtype)


def rotating(d=12, steps=240):
    """A dense recurrence that never forgets; the second of its sequences has nothing to."""
    rng = np.random.default_rng(0)
    W = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = 0.1 * rng.standard_normal((steps, 2, d)) * [[1], [0]]
    return prs.Recurrence(lambda h, x, W: np.tanh(h @ W + x)), x, np.zeros((2, d)), W


@pytest.mark.parametrize("method", ["newton", "quasi_newton"])
def test_dense_methods_of_whole_trajectories_find_the_same(device, method):
    """Which are array operations, on a device too."""
    host, found = solve_both(device, elman(d=12), method=method)
    assert_only_small_copies()
    assert found.n_iter == host.n_iter
    np.testing.assert_allclose(found.residual_norms, host.residual_norms, rtol=1e-6, atol=1e-13)
    close(found.h.get(), host.h)


@pytest.mark.parametrize(("largest", "method"), [(64, "newton()"), (8, "linearization=diagonal")])
def test_dense_chunks_that_do_not_forget_are_corrected(device, monkeypatch, largest, method):
    monkeypatch.setattr(shooting, "LARGEST_BLOCK", largest)
    host, found = solve_both(device, rotating(), method=prs.newton(chunk=10))
    assert (
        max([*copies.to_host, *copies.to_device], default=0) <= 24 * 48
    )  # three words of each chunk
    assert found.compiled and found.success and host.success
    assert method in host.note and found.note == host.note
    assert found.n_iter == host.n_iter >= 2
    np.testing.assert_allclose(found.residual_norms, host.residual_norms, rtol=1e-6, atol=1e-13)
    close(found.h.get(), host.h)
    close(host.h, prs.rollout(*rotating(), compiled=False))


@pytest.mark.parametrize("max_iter", [1, 2])
def test_dense_chunks_are_corrected_as_often_as_they_may_be(max_iter):
    with pytest.raises(prs.ConvergenceError) as caught:
        options = {"method": prs.newton(chunk=10), "compiled": True, "max_iter": max_iter}
        prs.solve(*rotating(), atol=0.0, rtol=0.0, **options)
    assert caught.value.solution.n_iter == max_iter


def test_a_dense_rollout_that_overflows_is_told():
    recurrence = prs.Recurrence(lambda h, x, W: h @ W + x)
    x, W = np.ones((700, 2, 40)) * [[1], [0]], np.full((40, 40), 0.1)
    with pytest.raises(prs.ConvergenceError) as caught:
        prs.solve(recurrence, x, np.zeros((2, 40)), W, method="sequential", compiled=True)
    solution = caught.value.solution
    assert solution.compiled
    assert [s.name for s in solution.sequence_status] == ["DIVERGED", "SEQUENTIAL"]


def test_dense_chunks_that_forget_need_no_correction(device):
    _, found = solve_both(device, elman(d=12), method=prs.newton(chunk=40))
    assert not found.note and found.n_iter == 1


@pytest.mark.parametrize("problem", [gru, lstm], ids=["gru", "lstm"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_are_those_of_the_host(device, dtype, problem):
    host, found = solve_both(device, problem(dtype))
    weights = np.random.default_rng(1).standard_normal(host.h.shape).astype(dtype)
    moved = device.asarray(weights)
    copies.clear()
    expected, ours = prs.gradients(host, weights), prs.gradients(found, moved)
    assert_only_small_copies()
    for a, b in zip(to_host(ours.theta), expected.theta, strict=True):
        np.testing.assert_allclose(a, b, atol=1e4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(ours.x.get(), expected.x, atol=1e3 * np.finfo(dtype).eps)
    np.testing.assert_allclose(ours.h0.get(), expected.h0, atol=1e3 * np.finfo(dtype).eps)


def test_rollout_by_kernels(device):
    recurrence, *arrays = gru()
    found = prs.rollout(recurrence, *on_device(device, arrays), compiled=True)
    assert_only_small_copies()
    close(found.get(), prs.rollout(recurrence, *arrays))


def test_parameters_that_are_numbers_serve_host_and_device_in_turn(device):
    def step(h, x, a):
        return np.tanh(a * h + x) * 0.75

    x, h0 = np.random.default_rng(0).standard_normal((60, 2)), np.zeros(2)
    moved, start = device.asarray(x), device.asarray(h0)
    for a in (0.5, 0.25):
        host = prs.solve(prs.Recurrence(step, 1), x, h0, a, compiled=True)
        found = prs.solve(prs.Recurrence(step, 1), moved, start, a, compiled=True)
        close(found.h.get(), host.h)
        ours, expected = prs.gradients(found, found.h), prs.gradients(host, host.h)
        close(ours.theta.get(), expected.theta)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"picard"}))
def test_a_sequence_that_overflows_leaves_the_others(device, name):
    x = np.full((T, B, N), 0.1)
    x[20, 1] = 1e200
    problem = prs.Recurrence(lambda h, x, a: a * h * h + x, 1), x, np.zeros((B, N)), 0.5
    with pytest.warns(prs.ConvergenceWarning):
        host, found = solve_both(
            device, problem, method=METHODS[name], on_failure="warn", max_iter=300
        )
    assert found.sequence_status.tolist() == host.sequence_status.tolist()
    assert [status.success for status in found.sequence_status] == [True, False, True]
    close(found.h.get()[:, ::2], host.h[:, ::2])


def test_what_cannot_be_compiled_runs_as_it_is(device):
    def step(h, x, _):
        return 0.5 * np.sort(h, axis=-1) + x

    x, h0 = np.random.default_rng(0).standard_normal((40, 3)), np.zeros(3)
    moved = on_device(device, (x, h0))
    assert not prs.solve(step, *moved).compiled
    with pytest.raises(prs.NotTraceable):
        prs.solve(step, *moved, compiled=True)


def test_dense_steps_for_which_no_multiprocessor_has_room_run_as_they_are(device, monkeypatch):
    monkeypatch.setattr(compilation, "COMPILE_FROM", 1)
    monkeypatch.setattr(cuda, "attribute", lambda *_: 64)
    rng = np.random.default_rng(0)
    x, W = rng.standard_normal((40, 24)), rng.standard_normal((24, 24)) / 8

    def step(h, x, W):
        return np.tanh(h @ W + x)

    moved = on_device(device, (x, np.zeros(24), W))
    assert not prs.solve(step, *moved).compiled
    with pytest.raises(prs.NotTraceable, match="do not fit"):
        prs.solve(step, *moved, compiled=True)


def test_a_backend_of_the_users_is_not_passed_over(device):
    from pararnn_solvers.linear import cupy_scan

    recurrence, *arrays = gru()
    moved = on_device(device, arrays)
    found = prs.solve(recurrence, *moved, method="newton", backend=cupy_scan.scan)
    assert not found.compiled
    with pytest.raises(prs.InvalidInput, match="kernels solve linear recurrences themselves"):
        prs.solve(recurrence, *moved, backend=cupy_scan.scan, compiled=True)
    assert prs.solve(recurrence, *moved, backend="cupy", compiled=True).compiled


def test_a_nan_in_the_inputs_is_found(device):
    recurrence, x, *rest = gru()
    x[100, 1, 2] = np.nan
    moved = on_device(device, (x, *rest))
    for method in METHODS.values():
        with pytest.raises(prs.InvalidInput, match=r"x is nan at index \(100, 1, 2\)"):
            prs.solve(recurrence, *moved, method=method, compiled=True)
