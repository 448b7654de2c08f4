"""The selective state space, held to the algorithm of its paper."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.cells import selective_ssm as cell
from tests.cells.common import N, draw


def by_algorithm(x, theta, h):
    """Algorithm 2 of the paper for one sequence, written with loops."""
    states, channels = theta.A_log.shape
    y = np.zeros((len(x), channels))
    for t, x_t in enumerate(x):
        v = theta.E.T @ x_t
        delta = np.log1p(np.exp(theta.W_d.T @ (theta.W_r.T @ v) + theta.b_d))
        B, C = theta.W_B.T @ v, theta.W_C.T @ v
        for c in range(channels):
            for s in range(states):
                A = -np.exp(theta.A_log[s, c])
                h[s, c] = np.exp(delta[c] * A) * h[s, c] + delta[c] * B[s] * v[c]
            y[t, c] = C @ h[:, c] + theta.D[c] * v[c]
    return y, h


def test_outputs_are_those_of_the_algorithm():
    made = draw("selective_ssm", T=12)
    h = prs.solve(made.recurrence, made.u, made.h0, made.theta, method="newton").h
    y = cell.output(h, made.x, made.theta)
    for b in range(2):
        start = made.h0[b].reshape(made.theta.A_log.shape).copy()
        expected, last = by_algorithm(made.x[:, b], made.theta, start)
        np.testing.assert_allclose(y[:, b], expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(h[-1, b], last.ravel(), rtol=0, atol=1e-12)


def test_decays_are_contractions_whatever_the_inputs():
    made = draw("selective_ssm")
    d = made.h0.shape[-1]
    for scale in (0.0, 1.0, 100.0):
        decay = cell.project(scale * made.x, made.theta)[..., :d]
        assert (decay >= 0).all()
        assert (decay <= 1).all()


def test_inputs_select_what_is_kept():
    """Larger steps forget more: the decay falls with the step length, at the rate of A."""
    made = draw("selective_ssm")
    d = made.h0.shape[-1]
    longer = made.theta._replace(b_d=made.theta.b_d + 1)
    assert (cell.project(made.x, longer)[..., :d] < made.u[..., :d]).all()
    decay = cell.project(made.x, cell.init(np.random.default_rng(0), 6, N, states=3))
    decay = decay[..., : 3 * N].reshape(9, 2, 3, N)
    np.testing.assert_allclose(decay[..., 1, :], decay[..., 0, :] ** 2, rtol=1e-12)
    np.testing.assert_allclose(decay[..., 2, :], decay[..., 0, :] ** 3, rtol=1e-12)


def test_outputs_need_their_inputs():
    made = draw("selective_ssm")
    with pytest.raises(prs.InvalidInput, match=r"call output\(h, x, theta\)"):
        cell.output(made.h0)
    with pytest.raises(prs.InvalidInput, match=r"expected \(\.\.\., 6\)"):
        cell.output(made.h0, made.x[..., :4], made.theta)


def test_initial_parameters_follow_the_published_rule():
    theta = cell.init(np.random.default_rng(0), 64, 320, states=5)
    assert theta.W_r.shape == (320, 20)
    np.testing.assert_allclose(np.exp(theta.A_log), np.repeat(np.arange(1, 6.0)[:, None], 320, 1))
    np.testing.assert_array_equal(theta.D, 1)
    lengths = np.log1p(np.exp(theta.b_d))
    assert lengths.min() >= 1e-3
    assert 0.097 < lengths.max() <= 1e-1
    assert np.log10(lengths).mean() == pytest.approx(-2, abs=0.1)  # uniform in the logarithm
    assert theta.W_d.std() == pytest.approx(1 / np.sqrt(3 * 20), rel=0.05)
    assert cell.initial_state(theta, (2,)).shape == (2, 5 * 320)
    with pytest.raises(prs.InvalidInput, match="states is 0"):
        cell.init(np.random.default_rng(0), 4, 4, states=0)
