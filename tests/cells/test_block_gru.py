"""The GRU of several heads, held to its equations and to the cells it contains."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.cells import block_gru as cell
from pararnn_solvers.cells import diagonal_gru
from tests.cells.common import M, draw, matrix, sigma

K, HEADS = 3, 4


def problem(seed=0, batch=(2,), k=K, heads=HEADS):
    rng = np.random.default_rng(seed)
    theta = cell.init(rng, M, k * heads, heads)
    return (
        theta,
        rng.standard_normal((*batch, 3 * k * heads)),
        rng.uniform(-1, 1, (*batch, k * heads)),
    )


def test_a_step_is_the_equations_of_each_head():
    theta, u, h = problem(batch=())
    new = cell.step(h, u, theta).reshape(K, HEADS)
    parts, drives = h.reshape(K, HEADS), u.reshape(3, K, HEADS)
    for j in range(HEADS):
        A_z, A_r, A_c = theta.A[..., j]
        z = sigma(A_z @ parts[:, j] + drives[0, :, j])
        r = sigma(A_r @ parts[:, j] + drives[1, :, j])
        c = np.tanh(A_c @ (r * parts[:, j]) + drives[2, :, j])
        np.testing.assert_allclose(new[:, j], (1 - z) * parts[:, j] + z * c, atol=4e-16)


def test_heads_of_one_channel_are_the_diagonal_gru():
    theta, u, h = problem(k=1, heads=12)
    as_diagonal = diagonal_gru.Theta(theta.A[:, 0, 0], theta.B, theta.b)
    expected = diagonal_gru.step(h, u, as_diagonal)
    np.testing.assert_allclose(cell.step(h, u, theta), expected, rtol=0, atol=1e-15)


def test_heads_do_not_couple():
    theta, u, h = problem(batch=())
    J = matrix(lambda state: cell.step(state, u, theta), h).reshape(K, HEADS, K, HEADS)
    for i, j in np.ndindex(HEADS, HEADS):
        within = J[:, i, :, j]
        assert (within != 0).all() if i == j else (within == 0).all()


def test_the_recurrence_has_blocks_of_the_size_of_a_head():
    theta, u, h = problem()
    assert cell.recurrence(theta).block_size == K
    assert cell.recurrence(theta).linearize(h, u, theta)[1].shape == (2, K, K, HEADS)


def test_heads_too_large_for_kernels_are_solved_all_the_same():
    made = draw("block_gru")
    theta = cell.init(np.random.default_rng(0), M, 24, heads=2)
    u, h0 = cell.project(made.x, theta), cell.initial_state(theta, (2,))
    solution = prs.solve(cell.recurrence(theta), u, h0, theta, method="newton")
    expected = prs.rollout(cell.recurrence(theta), u, h0, theta)
    np.testing.assert_allclose(solution.h, expected, rtol=0, atol=1e-10)


def test_initial_parameters():
    theta = cell.init(np.random.default_rng(0), 8, 160, heads=4)
    assert theta.A.shape == (3, 40, 40, 4)
    assert theta.A.std() == pytest.approx(np.sqrt(2 / (5 * 40)), rel=0.02)
    assert theta.B.std() == pytest.approx(np.sqrt(2 / (8 + 160)), rel=0.05)
    np.testing.assert_allclose(theta.b[0], np.linspace(0, -1, 160))
    radius = max(np.abs(np.linalg.eigvals(theta.A[2, :, :, j])).max() for j in range(4))
    assert radius < 1  # about sqrt(2/5): the linearized candidate contracts
