"""Dense recurrences of many kinds, for the tests of their traces and of their kernels."""

import numpy as np

from pararnn_solvers.functions import sigmoid


def elman(h, x, p):
    W, V, b = p
    return np.tanh(h @ W + x @ V + b)


def gru(h, x, p):
    """PyTorch's equations: the bias of the candidate inside its gate."""
    n = h.shape[-1]
    u, q = x @ p["V"] + p["b"], h @ p["W"].T
    r = sigmoid(u[..., :n] + q[..., :n])
    z = sigmoid(u[..., n : 2 * n] + q[..., n : 2 * n])
    c = np.tanh(u[..., 2 * n :] + r * (q[..., 2 * n :] + p["b_n"]))
    return (1 - z) * c + z * h


def minimal_gated_unit(h, x, p):
    (U_f, U_h), (V_f, V_h) = p
    f = sigmoid(h @ U_f + x @ V_f)
    return (1 - f) * h + f * np.tanh((f * h) @ U_h + x @ V_h)


def lstm(h, x, p):
    W, V, b = p
    n = h.shape[-1] // 2
    c, y = h[..., :n], h[..., n:]
    i, f, g, o = np.split(y @ W + x @ V + b, 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.concatenate([c, sigmoid(o) * np.tanh(c)], axis=-1)


def residual(h, x, p):
    """An antisymmetric network: its matrix is computed from theta in the step."""
    W, V, dt = p
    return h + dt * (np.tanh(h @ (W - W.T - 0.5 * np.eye(len(W)))) + x @ V - h)


def layers(h, x, p):
    """A perceptron in each step, wide and narrow."""
    A, V, B, C = p
    return np.tanh(np.maximum(np.tanh(h @ A) @ B + np.tanh(x) @ V, -0.9) @ C)


def stacked(h, x, p):
    """Two layers, the second one fed with the new state of the first."""
    a, b = np.split(h, 2, axis=-1)
    a = np.tanh(a @ p[0] + x @ p[1])
    b = np.tanh(b @ p[2] + a @ p[3])
    return np.concatenate([a, b], axis=-1)


def side_by_side(h, x, p):
    """State and inputs in one row, where the inputs are not as many as channels."""
    return np.tanh(np.concatenate([h, x], axis=-1) @ p[0] + p[1])


def autonomous(h, x, W):
    return np.tanh(h @ W)


def weights(rng, *shapes, scale=0.5, dtype=np.float64):
    """Return random matrices with singular values of about `scale`, and vectors."""
    return [
        (scale * rng.normal(size=s) / np.sqrt(s[0] if len(s) > 1 else 1)).astype(dtype)
        for s in shapes
    ]


def dense(name, rng, n=6, m=4, dtype=np.float64):
    """Return step, d, m (None without inputs) and theta of the recurrence of a name."""

    def w(*shapes):
        return weights(rng, *shapes, dtype=dtype)

    if name == "gru":
        W, V, b, b_n = w((n, 3 * n), (m, 3 * n), (3 * n,), (n,))
        return gru, n, m, {"W": np.ascontiguousarray(W.T), "V": V, "b": b, "b_n": b_n}
    if name == "minimal gated unit":
        made = w((n, n), (n, n), (m, n), (m, n))
        return minimal_gated_unit, n, m, (tuple(made[:2]), made[2:])
    if name == "residual":
        return residual, n, m, (*w((n, n), (m, n)), 0.3)
    if name == "stacked":
        return stacked, 2 * n, m, w((n, n), (m, n), (n, n), (n, n))
    if name == "autonomous":
        return autonomous, n, None, w((n, n))[0]
    step, d, shapes = {
        "elman": (elman, n, [(n, n), (m, n), (n,)]),
        "lstm": (lstm, 2 * n, [(n, 4 * n), (m, 4 * n), (4 * n,)]),
        "layers": (layers, 2 * n, [(2 * n, 3 * n), (m, n), (3 * n, n), (n, 2 * n)]),
        "side by side": (side_by_side, n, [(n + m, n), (n,)]),
    }[name]
    return step, d, m, w(*shapes)


DENSE = [
    *("elman", "gru", "minimal gated unit", "lstm", "residual", "layers", "stacked"),
    *("side by side", "autonomous"),
]


def by_numpy(step, x, h0, theta, steps=None):
    """Return the trajectory, step by step."""
    h = np.empty((len(x) if steps is None else steps, *h0.shape), h0.dtype)
    state = h0
    with np.errstate(all="ignore"):
        for t in range(len(h)):
            state = h[t] = step(state, None if x is None else x[t], theta)
    return h
