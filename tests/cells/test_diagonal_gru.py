"""The diagonal GRU, held to its equations."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_gru as cell

M, N = 6, 4


def problem(T=9, batch=(2,), heads=2, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    theta = cell.init(rng, M, N, heads, dtype)
    x = rng.standard_normal((T, *batch, M)).astype(dtype)
    return theta, cell.project(x, theta), rng.uniform(-1, 1, (*batch, N)).astype(dtype)


def eps(dtype):
    return float(np.finfo(dtype).eps)


def sigma(v):
    return 1 / (1 + np.exp(-v))


def test_a_step_is_the_equations():
    theta, u, h = problem(T=1)
    u_z, u_r, u_c = np.split(u[0], 3, axis=-1)
    z, r = sigma(theta.a[0] * h + u_z), sigma(theta.a[1] * h + u_r)
    expected = (1 - z) * h + z * np.tanh(theta.a[2] * (h * r) + u_c)
    np.testing.assert_allclose(cell.step(h, u[0], theta), expected, rtol=0, atol=4e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_it_solves(batch, dtype):
    theta, u, h0 = problem(batch=batch, dtype=dtype)
    solution = prs.solve(cell.recurrence, u, h0, theta)
    assert solution.success
    expected = prs.rollout(cell.recurrence, u, h0, theta)
    assert (np.abs(solution.h - expected) <= 2 * solution.error_bound() + 64 * eps(dtype)).all()


@pytest.mark.parametrize("T", [256, 512])
@pytest.mark.parametrize(("dtype", "count"), [(np.float32, 3), (np.float64, 4)])
def test_newton_takes_the_published_number_of_iterations(dtype, count, T):
    rng = np.random.default_rng(0)
    theta = cell.init(rng, 32, 32, heads=4, dtype=dtype)
    u = cell.project(rng.standard_normal((T, 2, 32)).astype(dtype), theta)
    h0 = cell.initial_state(theta, (2,))
    assert h0.shape == (2, 32)
    assert prs.solve(cell.recurrence, u, h0, theta, method="newton").n_iter == count


def test_states_stay_in_the_unit_interval():
    theta, u, h0 = problem(T=200)
    h = prs.rollout(cell.recurrence, 10 * u, h0, theta)
    assert np.abs(h).max() <= 1


def test_saturated_gates_give_no_nan():
    theta, u, h0 = problem()
    f, blocks = cell.recurrence.linearize(h0, 1e4 * u[0], theta)
    assert np.isfinite(f).all()
    assert np.isfinite(blocks).all()


@pytest.mark.parametrize("batch", [(), (3,)])
def test_products_are_those_of_dual_arrays(batch):
    theta, u, h0 = problem(batch=batch)
    solution = prs.solve(cell.recurrence, u, h0, theta, method="sequential")
    dh = np.random.default_rng(1).standard_normal(solution.h.shape)
    by_vjp = prs.gradients(solution, dh)
    plain = prs.Recurrence(cell.step, block_size=1)
    by_duals = prs.gradients(prs.solve(plain, u, h0, theta, method="sequential"), dh)
    np.testing.assert_allclose(by_vjp.x, by_duals.x, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(by_vjp.h0, by_duals.h0, rtol=1e-11, atol=1e-13)
    for ours, theirs in zip(by_vjp.theta, by_duals.theta, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-13)


def test_the_first_product_is_by_the_state():
    theta, u, h = problem(T=1)
    lam = np.random.default_rng(1).standard_normal(h.shape)
    dh, _, _ = cell.vjp(h, u[0], theta, lam)
    _, blocks = cell.recurrence.linearize(h, u[0], theta)
    np.testing.assert_allclose(dh, blocks[..., 0, 0, :] * lam, rtol=1e-12)


def test_each_head_sees_its_own_inputs():
    theta, _, _ = problem(heads=2)
    x = np.zeros((1, M))
    x[0, : M // 2] = 1.0  # inputs of the first head
    u = (cell.project(x, theta) - theta.b.ravel()).reshape(3, N)
    assert (u[:, : N // 2] != 0).all()
    np.testing.assert_array_equal(u[:, N // 2 :], 0)


def test_the_projection_is_a_matrix_product():
    theta, _, _ = problem(heads=1)
    x = np.random.default_rng(1).standard_normal((7, 2, M))
    expected = np.concatenate([x @ B[0] + b for B, b in zip(theta.B, theta.b, strict=True)], -1)
    np.testing.assert_allclose(cell.project(x, theta), expected, rtol=1e-13)


def test_initial_parameters_follow_the_published_rule():
    theta = cell.init(np.random.default_rng(0), 64, 512, heads=4, dtype=np.float32)
    assert [leaf.dtype for leaf in theta] == [np.float32] * 3
    assert theta.a.shape == (3, 512)
    assert theta.B.shape == (3, 4, 16, 128)
    deviation = 2 / np.sqrt(5 * 512)
    assert theta.a.std() == pytest.approx(deviation, rel=0.1)  # 1536 draws: 2 % each
    assert np.abs(theta.B).max() <= np.sqrt(6 / (16 + 128))
    assert theta.B.std() == pytest.approx(np.sqrt(2 / (16 + 128)), rel=0.05)
    np.testing.assert_allclose(theta.b[0], np.linspace(0, -1, 512), rtol=1e-6)
    np.testing.assert_array_equal(theta.b[1:], 0)


def test_equal_generators_give_equal_parameters():
    first, second = (cell.init(np.random.default_rng(3), M, N) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
