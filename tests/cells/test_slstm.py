"""The sLSTM: the trajectory of the paper's cell, in a state that Newton's method prefers."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.cells import slstm as cell
from pararnn_solvers.functions import softplus
from tests.cells.common import M, N, draw, sigma


def parts_of(u, a, y):
    i, f, z, o = (a[g] * y + part for g, part in enumerate(np.split(u, 4, axis=-1)))
    return i, f, np.tanh(z), sigma(o)


def unstabilized(u, a):
    """The outputs of the paper's eqs. 8 to 14 (sigmoid forget gate), as they stand."""
    C = N_ = y = np.zeros(u[0].shape[-1] // 4)
    outputs = []
    for u_t in u:
        i, f, z, o = parts_of(u_t, a, y)
        C, N_ = sigma(f) * C + np.exp(i) * z, sigma(f) * N_ + np.exp(i)
        y = o * C / N_
        outputs.append(y)
    return np.array(outputs)


def stabilized_step(h, u, a):
    """The paper's eqs. 15 to 17: state ``[c | n | m | y]``, scaled by a running maximum.

    As in the authors' program, an empty memory (n = 0) takes the scale of what is written.
    """
    c, n, m, y = np.split(h, 4, axis=-1)
    i, f, z, o = (a[g] * y + part for g, part in enumerate(np.split(u, 4, axis=-1)))
    kept = m - softplus(-f)
    new = np.where(n == 0, i, np.maximum(kept, i))
    write, keep = np.exp(i - new), np.exp(kept - new)
    c, n = keep * c + write * np.tanh(z), keep * n + write
    return np.concatenate([c, n, new, prs.sigmoid(o) * c / n], axis=-1)


def trajectory(u, theta):
    return prs.rollout(cell.recurrence, u, cell.initial_state(theta), theta)


def test_outputs_are_those_of_the_cell_without_stabilizer():
    theta = draw("slstm").theta
    u = np.random.default_rng(1).standard_normal((60, 4 * N))
    found = cell.output(trajectory(u, theta))
    np.testing.assert_allclose(found, unstabilized(u, theta.a), rtol=0, atol=1e-14)


@pytest.mark.parametrize("scale", [1.0, 30.0, 200.0])
def test_outputs_are_those_of_the_stabilized_cell(scale):
    """Beyond these gates, about -500 in the first step, theirs overflows."""
    theta = draw("slstm").theta
    u = np.random.default_rng(1).standard_normal((60, 4 * N))
    u[:, :N] *= scale
    expected = prs.rollout(stabilized_step, u, np.zeros(4 * N), theta.a)[:, 3 * N :]
    np.testing.assert_allclose(cell.output(trajectory(u, theta)), expected, rtol=0, atol=1e-12)


def test_the_second_component_is_the_logarithm_of_the_normalizer():
    theta = draw("slstm").theta
    u = np.random.default_rng(1).standard_normal((20, 4 * N))
    h = trajectory(u, theta)
    y = np.concatenate([np.zeros((1, N)), cell.output(h)[:-1]])
    normalizer, found = np.zeros(N), []
    for u_t, y_t in zip(u, y, strict=True):
        i, f, _, _ = parts_of(u_t, theta.a, y_t)
        normalizer = sigma(f) * normalizer + np.exp(i)
        found.append(np.log(normalizer))
    np.testing.assert_allclose(h[:, N : 2 * N], found, rtol=0, atol=1e-14)


def test_cells_are_means_of_what_was_written():
    made = draw("slstm", T=200)
    h = prs.rollout(made.recurrence, 10 * made.u, cell.initial_state(made.theta, (2,)), made.theta)
    assert np.abs(h[..., :N]).max() <= 1
    assert np.abs(cell.output(h)).max() <= 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gates_beyond_the_range_of_exponentials_give_no_nan(dtype):
    made = draw("slstm", T=3, dtype=dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for sign in (1, -1):
            f, blocks = made.recurrence.linearize(made.h0, sign * 1e4 * made.u[0], made.theta)
            assert np.isfinite(f).all()
            assert np.isfinite(blocks).all()


@pytest.mark.parametrize("T", [64, 512, 2048])
@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_newton_prefers_this_state(T, bias):
    """5 to 9 iterations, where the state with a maximum takes 6 to 38."""
    n, rng = 16, np.random.default_rng(0)
    theta = cell.init(rng, M, n)._replace(a=0.2 * rng.standard_normal((4, n)))
    u = rng.standard_normal((T, 2, 4 * n))
    u[..., n : 2 * n] += bias
    ours = prs.solve(
        cell.recurrence, u, cell.initial_state(theta, (2,)), theta, method="newton", compiled=False
    )
    theirs = prs.solve(
        prs.Recurrence(stabilized_step, block_size=4),
        *(u, np.zeros((2, 4 * n)), theta.a),
        method="newton",
        compiled=False,
    )
    print(f"sLSTM, T = {T}, forget bias {bias}: {ours.n_iter} and {theirs.n_iter} iterations")
    assert ours.n_iter <= 9
    assert theirs.n_iter > ours.n_iter
    np.testing.assert_allclose(cell.output(ours.h), theirs.h[..., 3 * n :], rtol=0, atol=1e-8)


def test_initial_parameters():
    theta = cell.init(np.random.default_rng(0), 64, 512, heads=4)
    assert theta.B.shape == (4, 4, 16, 128)
    assert not theta.a.any()
    np.testing.assert_allclose(theta.b[1], np.linspace(3, 6, 512))
    assert not theta.b[[0, 2, 3]].any()
    assert theta.B.std() == pytest.approx(np.sqrt(2 / (16 + 128)), rel=0.05)
