"""Whole steps, as a user writes them, against the complex step."""

import numpy as np
import pytest

from pararnn_solvers.autodiff import Dual, complex_step, pushforward, tangent_of
from pararnn_solvers.functions import gelu, sigmoid, silu, softplus

T, N = 5, 3
RNG = np.random.default_rng(0)


def weights(*shape):
    return RNG.normal(size=shape)


Wz, Wr, Wh, Uz, Ur, Uh = weights(6, N, N)
W4, U4 = weights(N, 4 * N), weights(N, 4 * N)
X = weights(T, N)
a, b, c, peep = weights(4, N)
F, Q, H = weights(N, N), np.eye(N), weights(2, N)


def gru(h):
    z = sigmoid(h @ Wz.T + X @ Uz.T)
    r = sigmoid(h @ Wr.T + X @ Ur.T)
    return (1 - z) * h + z * np.tanh((r * h) @ Wh.T + X @ Uh.T)


def diagonal_gru(h):
    z, r = sigmoid(a * h + X), sigmoid(b * h - X)
    return z * h + (1 - z) * np.tanh(c * (r * h) + X)


def lstm(h):
    cell, y = np.split(h, 2, axis=-1)
    i, f, o, g = np.split(y @ W4 + X @ U4, 4, axis=-1)
    cell = sigmoid(f + peep * cell) * cell + sigmoid(i) * np.tanh(g)
    return np.concatenate([cell, sigmoid(o) * np.tanh(cell)], axis=-1)


def lorenz(s):
    x, y, z = s[..., 0], s[..., 1], s[..., 2]
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], axis=-1)


def runge_kutta_4(s, dt=0.05):
    k1 = lorenz(s)
    k2 = lorenz(s + dt / 2 * k1)
    k3 = lorenz(s + dt / 2 * k2)
    k4 = lorenz(s + dt * k3)
    return s + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def riccati(s):
    P = s.reshape(*s.shape[:-1], N, N)
    P = F @ P @ F.T + Q
    S = H @ P @ H.T + np.eye(2)
    K = P @ H.T @ np.linalg.inv(S)
    return ((np.eye(N) - K @ H) @ P).reshape(s.shape)


def riccati_by_solve(s):
    P = s.reshape(*s.shape[:-1], N, N)
    P = np.einsum("ij,...jk,lk->...il", F, P, F) + Q
    S = H @ P @ H.T + np.eye(2)
    K = np.swapaxes(np.linalg.solve(np.swapaxes(S, -1, -2), H @ np.swapaxes(P, -1, -2)), -1, -2)
    return (P - K @ H @ P).reshape(*s.shape[:-1], -1)


def attention(h):
    scores = h[..., :, None] * h[..., None, :] / np.sqrt(h.shape[-1])
    scores = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    scores = scores / scores.sum(axis=-1, keepdims=True)
    return np.matmul(scores, h[..., None])[..., 0]


def layer_norm(h):
    centred = h - h.mean(axis=-1, keepdims=True)
    return gelu(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)) + silu(h)


def van_der_pol_in_place(h):
    out = np.empty_like(h)
    out[..., 0] = h[..., 0] + 0.1 * h[..., 1]
    out[..., 1] = h[..., 1] + 0.1 * ((1 - h[..., 0] ** 2) * h[..., 1] - h[..., 0])
    return out


def heat(h):
    padded = np.concatenate([h[..., :1], h, h[..., -1:]], axis=-1)
    return h + 0.1 * np.diff(padded, n=2, axis=-1) + 0.1 * (np.roll(h, 1, -1) - h) * softplus(h)


STEPS = [
    (gru, N),
    (diagonal_gru, N),
    (lstm, 2 * N),
    (runge_kutta_4, 3),
    (riccati, N * N),
    (riccati_by_solve, N * N),
    (attention, 4),
    (layer_norm, 4),
    (van_der_pol_in_place, 2),
    (heat, 6),
]


def state(step, d):
    h = np.random.default_rng(1).normal(size=(T, d))
    if step in (riccati, riccati_by_solve):  # covariances
        root = h.reshape(T, N, N)
        h = (root @ np.swapaxes(root, -1, -2)).reshape(T, d)
    return h


@pytest.mark.parametrize(("step", "d"), STEPS, ids=[s.__name__ for s, _ in STEPS])
def test_step_equals_its_complex_step(step, d):
    h = state(step, d)
    value, tangent = pushforward(step, h, np.eye(d))
    np.testing.assert_array_equal(value, step(h))
    expected = complex_step(step, h, np.eye(d))[1]
    np.testing.assert_allclose(tangent, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize(("step", "d"), STEPS, ids=[s.__name__ for s, _ in STEPS])
def test_small_and_full_tangents_agree(step, d):
    h = state(step, d)
    seeds = np.random.default_rng(2).normal(size=(2, d))
    small = step(Dual(h, seeds))
    whole = step(Dual(h, np.broadcast_to(seeds[:, None], (2, T, d)).copy()))
    np.testing.assert_allclose(tangent_of(small, 2), tangent_of(whole, 2), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("step", [diagonal_gru, runge_kutta_4, van_der_pol_in_place])
def test_float32_stays_float32(step):
    constants = {k: globals()[k] for k in ("X", "a", "b", "c")}
    try:
        globals().update({k: v.astype(np.float32) for k, v in constants.items()})
        d = 2 if step is van_der_pol_in_place else 3
        value, tangent = pushforward(step, state(step, d).astype(np.float32), np.eye(d))
    finally:
        globals().update(constants)
    assert value.dtype == tangent.dtype == np.float32


def test_a_nan_stays_in_its_step():
    h = state(diagonal_gru, N)
    h[2, 1] = np.nan
    value, tangent = pushforward(diagonal_gru, h, np.ones((1, N)))
    assert np.isnan(value).sum() == np.isnan(tangent).sum() == 1
