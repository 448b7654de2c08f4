"""Derivatives by hand that are wrong in one term, each with what the check has to call it.

A GRU, an LSTM, a dense network and a pendulum; every mutant changes one factor, sign or argument.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.cells import diagonal_lstm
from tests.cells import common
from tests.strategies import dense_tanh

T, BATCH = 12, (3,)


class Mutant(NamedTuple):
    """A wrong recurrence with its data; `says` is in the message of the check that catches it."""

    name: str
    wrong: str
    objects: tuple[Any, ...]
    caught_by: str
    says: str


def drawn(cell):
    case = common.draw(cell, T=T, batch=BATCH)
    return case.u, case.h0, case.theta


GRU, LSTM = drawn("diagonal_gru"), drawn("diagonal_lstm")
_network = dense_tanh(d=4, T=T, batch=BATCH)
DENSE = (_network.x, _network.h0, _network.theta)
N = GRU[1].shape[-1]


class Gates(NamedTuple):
    """What a GRU computes on its way, and the slopes of it."""

    h: Any
    a: Any
    z: Any
    r: Any
    c: Any
    dz: Any
    dr: Any
    dc: Any


def gru_step(h, u, theta):
    g = gates(h, u, theta)
    return (1 - g.z) * h + g.z * g.c


def gates(h, u, theta):
    n, a = h.shape[-1], theta.a
    z, r = (prs.sigmoid(a[i] * h + u[..., i * n : (i + 1) * n]) for i in (0, 1))
    c = np.tanh(a[2] * (h * r) + u[..., 2 * n :])
    return Gates(h, a, z, r, c, z * (1 - z), r * (1 - r), 1 - c**2)


def gru(keep=None, update=None, candidate=None):
    """Return a GRU with the sum of three terms as Jacobian, some of them wrong."""
    right = (
        lambda g: 1 - g.z,
        lambda g: (g.c - g.h) * g.dz * g.a[0],
        lambda g: g.z * g.dc * g.a[2] * (g.r + g.h * g.dr * g.a[1]),
    )
    terms = [term or own for term, own in zip((keep, update, candidate), right, strict=True)]

    def jacobian(h, u, theta):
        found = gates(h, u, theta)
        return sum(term(found) for term in terms)

    return prs.Recurrence(gru_step, 1, jacobian), *GRU


def gru_of_other_drives(h, u, theta):
    recurrence, *_ = gru()
    return recurrence.jacobian(h, np.roll(u, 1, axis=0), theta)


def lstm(**wrong):
    """Return an LSTM with its Jacobian by rows, parts of it replaced."""

    def jacobian(h, u, theta):
        n, a, p = h.shape[-1] // 2, theta.a, theta.p
        c, y = h[..., :n], h[..., n:]
        f = prs.sigmoid(a[0] * y + p[0] * c + u[..., :n])
        g = np.tanh(a[1] * y + u[..., n : 2 * n])
        new = f * c + (1 - f) * g
        o, t = prs.sigmoid(a[2] * y + p[1] * new + u[..., 2 * n :]), np.tanh(new)
        df, dg, do, dt = f * (1 - f), 1 - g**2, o * (1 - o), 1 - t**2
        parts = {"peephole": p[0], "kept": 1 - f, "dt": dt, "through": None}
        parts |= {name: value(t) for name, value in wrong.items()}
        cc = f + df * parts["peephole"] * (c - g)
        cy = df * a[0] * (c - g) + parts["kept"] * dg * a[1]
        through = cc if parts["through"] is None else parts["through"]
        yc = do * p[1] * through * t + o * parts["dt"] * cc
        yy = do * (a[2] + p[1] * cy) * t + o * parts["dt"] * cy
        rows = [(cc, cy), (yc, yy)][:: -1 if "rows" in wrong else 1]
        return np.stack([np.stack(row, axis=-2) for row in rows], axis=-3)

    return prs.Recurrence(diagonal_lstm.step, 2, jacobian), *LSTM


def dense(h, x, W):
    return np.tanh(h @ W.T + x)


def slope(h, x, W):
    return 1 - dense(h, x, W) ** 2


def network(jacobian=None, vjp=None):
    return prs.Recurrence(dense, jacobian=jacobian, vjp=vjp), *DENSE


def network_vjp(change: Callable[..., Any]):
    """Return a network whose vjp= is what `change` makes of (dh, dx, dW) and the arguments."""

    def vjp(h, x, W, lam):
        g = lam * slope(h, x, W)
        dW = g.reshape(-1, 4).T @ h.reshape(-1, 4)
        return change(g @ W, g, dW, h=h, W=W, lam=lam, g=g)

    return network(vjp=vjp)


def writing(dh, dx, dW, *, lam, **_):
    lam *= 0
    return dh, dx, dW


def of_last_state(dh, dx, dW, *, g, h, **_):
    return dh, dx, np.outer(g.reshape(-1, 4)[-1], h.reshape(-1, 4)[-1])


def of_new_states(dh, dx, dW, *, g, h, W, **_):
    return dh, dx, g.reshape(-1, 4).T @ np.tanh(h).reshape(-1, 4)


def dense_gates(h, x, W):
    d = h.shape[-1]
    z, r = (prs.sigmoid(h @ W[i].T + x[..., i * d : (i + 1) * d]) for i in (0, 1))
    return z, r, np.tanh((r * h) @ W[2].T + x[..., 2 * d :])


def dense_gru(h, x, W):
    z, _, c = dense_gates(h, x, W)
    return (1 - z) * h + z * c


def gru_network(reset=lambda r: r * (1 - r), candidate=lambda c: 1 - c**2):
    """Return a GRU with matrices, and its Jacobian with these slopes."""

    def jacobian(h, x, W):
        z, r, c = dense_gates(h, x, W)
        through = r[..., None] * np.eye(4) + (h * reset(r))[..., None] * W[1]  # d(r h)/dh
        dz, dc = (z * (1 - z))[..., None] * W[0], candidate(c)[..., None] * (W[2] @ through)
        return (1 - z)[..., None] * np.eye(4) + (c - h)[..., None] * dz + z[..., None] * dc

    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((T, *BATCH, 12)), rng.standard_normal((*BATCH, 4))
    return prs.Recurrence(dense_gru, jacobian=jacobian), x, h0, rng.standard_normal((3, 4, 4)) / 2


def swing(h, x, theta):
    n = h.shape[-1] // 2
    angle, speed = h[..., :n], h[..., n:]
    force = x - theta["friction"] * speed - np.sin(angle)
    return np.concatenate([angle + 0.1 * speed, speed + 0.1 * force], axis=-1)


def pendulum(force=lambda q: -np.cos(q), friction=1.0, dt=0.1):
    def jacobian(h, x, theta):
        n = h.shape[-1] // 2
        q, one = h[..., :n], np.ones_like(h[..., :n])
        kept = one - 0.1 * friction * theta["friction"]
        rows = [[one, dt * one], [0.1 * force(q), kept]]
        return np.stack([np.stack(row, axis=-2) for row in rows], axis=-3)

    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((T, *BATCH, 3)), rng.standard_normal((*BATCH, 6))
    return prs.Recurrence(swing, 2, jacobian), x, h0, {"friction": np.array([0.8, 0.5, 0.3])}


TERMS = [
    ("GRU: 1 - c", "the slope of tanh is 1 - c", "is written as 1 - v; it is 1 - v**2",
     gru(candidate=lambda g: g.z * (1 - g.c) * g.a[2] * (g.r + g.h * g.dr * g.a[1]))),
    ("GRU: tanh's slope", "the slope of sigmoid is that of tanh", "is written as 1 - v**2",
     gru(update=lambda g: (g.c - g.h) * (1 - g.z**2) * g.a[0])),
    ("GRU: z for 1 - z", "z h in place of (1 - z) h",
     "the derivative of h*(1 - sigmoid(x0 + h*theta.a[0])) by h is written as sigmoid(",
     gru(keep=lambda g: g.z)),
    ("GRU: no path", "the term (1 - z) h is left out", "by h is left out",
     gru(keep=lambda g: 0 * g.z)),
    ("GRU: other weight", "the weight of the reset gate in place of the update gate's",
     "by h is written as theta.a[1]; it is theta.a[0]",
     gru(update=lambda g: (g.c - g.h) * g.dz * g.a[1])),
    ("GRU: other gate", "the slope of the reset gate in place of the update gate's",
     "the slope of sigmoid(x0 + h*theta.a[0]) is written as that at x1 + h*theta.a[1]",
     gru(update=lambda g: (g.c - g.h) * g.dr * g.a[0])),
    ("GRU: half", "half of the update gate's term", "is 0.5 times what it should be",
     gru(update=lambda g: 0.5 * (g.c - g.h) * g.dz * g.a[0])),
    ("GRU: factor h", "h is left out beside the slope of the reset gate",
     "the factor h is left out",
     gru(candidate=lambda g: g.z * g.dc * g.a[2] * (g.r + g.dr * g.a[1]))),
    ("GRU: weight left out", "the candidate's weight is left out",
     "the factor theta.a[2] is left out",
     gru(candidate=lambda g: g.z * g.dc * (g.r + g.h * g.dr * g.a[1]))),
    ("GRU: neighbour's weight", "the weight of the next channel", "of the neighbouring channel",
     gru(update=lambda g: (g.c - g.h) * g.dz * np.roll(g.a[0], 1))),
    ("GRU: stale drive", "the drive of the step before", "with x of the step before",
     (prs.Recurrence(gru_step, 1, gru_of_other_drives), *GRU)),
    ("GRU: float32", "the Jacobian is rounded to float32", "right to 7 digits only",
     (prs.Recurrence(gru_step, 1, lambda h, u, theta:
                     gru()[0].jacobian(h, u, theta).astype(np.float32).astype(h.dtype)), *GRU)),
    ("LSTM: peephole", "the peephole is left out", "h0*theta.p[0] is taken for a constant",
     lstm(peephole=lambda t: 0.0)),
    ("LSTM: 1 - f", "the factor 1 - f is left out", "is left out", lstm(kept=lambda t: 1.0)),
    ("LSTM: 1 - t", "the slope of tanh is 1 - t", "is written as 1 - v",
     lstm(dt=lambda t: 1 - t)),
    ("LSTM: chain", "the chain rule ends at the new c", "no chain rule",
     lstm(through=lambda t: 1.0)),
    ("LSTM: rows", "the rows of c and y are exchanged", "rows in another order",
     lstm(rows=lambda t: None)),
    ("network: W.T", "W.T in place of W", "by h3 is written as theta[3][0]; it is theta[0][3]",
     network(lambda h, x, W: slope(h, x, W)[..., None] * W.T)),
    ("network: columns", "slopes multiply columns", "is written as that at",
     network(lambda h, x, W: slope(h, x, W)[..., None, :] * W)),
    ("network: drive", "the slope without the drive", "at its argument without x",
     network(lambda h, x, W: slope(h, 0 * x, W)[..., None] * W)),
    ("network: mean", "a mean over the sequences", "a mean over the sequences",
     network(lambda h, x, W: (slope(h, x, W)[..., None] * W).mean(
         axis=-3, keepdims=True) + 0 * h[..., None] if h.ndim > 1
         else slope(h, x, W)[..., None] * W)),
    ("dense GRU: reset", "the reset gate's derivative is left out",
     "is taken for a constant: its derivative is left out",
     gru_network(reset=lambda r: 0 * r)),
    ("dense GRU: 1 - r", "the slope of the reset gate is 1 - r",
     "is written as 1 - v; it is v*(1 - v)", gru_network(reset=lambda r: 1 - r)),
    ("dense GRU: sign", "the reset gate's derivative has the other sign", "has the wrong sign",
     gru_network(reset=lambda r: r * (r - 1))),
    ("dense GRU: 1 - c", "the slope of tanh is 1 - c", "is written as 1 - v; it is 1 - v**2",
     gru_network(candidate=lambda c: 1 - c)),
    ("pendulum: sin", "sin in place of cos",
     "the slope of sin(h0) is written as -sin(a); it is cos(a)",
     pendulum(force=lambda q: np.sin(q))),
    ("pendulum: sign", "the force has the other sign",
     "the derivative of sin(h0) has the wrong sign", pendulum(force=np.cos)),
    ("pendulum: dt", "dt is left out", "the factor 0.1 is left out", pendulum(dt=1.0)),
    ("pendulum: friction", "friction is left out",
     "h1*theta['friction'] is taken for a constant", pendulum(friction=0.0)),
]  # fmt: skip

PRODUCTS = [
    ("vjp: exchanged", "vjp= returns (dx, dh, dtheta)", "dh and dx are exchanged",
     network_vjp(lambda dh, dx, dW, **_: (dx, dh, dW))),
    ("vjp: transposed", "dtheta of vjp= is transposed", "dtheta: transposed",
     network_vjp(lambda dh, dx, dW, **_: (dh, dx, dW.T))),
    ("vjp: zero", "dtheta of vjp= is zero", "dtheta: zero",
     network_vjp(lambda dh, dx, dW, **_: (dh, dx, 0 * dW))),
    ("vjp: last state", "dtheta of vjp= is that of the last state", "not summed over all of them",
     network_vjp(of_last_state)),
    ("vjp: tanh", "dtheta of vjp= has tanh(h) for h", "is written as tanh(h",
     network_vjp(of_new_states)),
    ("vjp: slope of dx", "dx of vjp= leaves out the slope of tanh", "the slope of tanh(",
     network_vjp(lambda dh, dx, dW, *, lam, **_: (dh, lam, dW))),
    ("vjp: slope of dh", "dh of vjp= leaves out the slope of tanh", "the slope of tanh(",
     network_vjp(lambda dh, dx, dW, *, lam, W, **_: (lam @ W, dx, dW))),
    ("vjp: list for dh", "dh of vjp= is a list", "a list where h has shape",
     network_vjp(lambda dh, dx, dW, **_: (list(dh), dx, dW))),
]  # fmt: skip


def broken(*_):
    raise KeyError("gate")


MUTANTS = [
    Mutant("NaN", "NaN in jacobian=", network(lambda h, x, W: np.nan * W + h[..., None]),
           "jacobian_is_the_derivative", "the derivative is not finite"),
    Mutant("NaN in vjp=", "NaN in dtheta of vjp=, seen from a gradient",
           network_vjp(lambda dh, dx, dW, **_: (dh, dx, np.nan * dW)),
           "gradients_are_those_of_the_rollout", "gives nan"),
    Mutant("three axes", "jacobian= takes three axes only (and steps one by one)",
           network(lambda h, x, W: np.stack([slope(*s, W)[..., None] * W for s in zip(
               h, x, strict=True)]) if h.ndim == 3 else broken()),
           "jacobian_is_the_derivative", "for h of shape (2, 4)"),
    Mutant("jacobian= raises", "an error in jacobian=", network(broken),
           "jacobian_is_the_derivative", "jacobian= ends in an error"),
    Mutant("vjp= raises", "an error in vjp=", network(vjp=broken),
           "vjp_is_the_transpose", "KeyError for h of shape (5, 3, 4): 'gate'"),
    Mutant("relu", "the slope of relu is 1 (jacobian=)",
           (prs.Recurrence(lambda h, x, a: np.maximum(a * h + x, 0), 1, lambda h, x, a: a + 0 * h),
            *DENSE[:2], np.array([0.5, -0.4, 0.3, 0.7])),
           "jacobian_is_the_derivative", "is written as 1; it is 1 where it is the larger"),
    *(Mutant(name, f"{wrong} (jacobian=)", objects, "jacobian_is_the_derivative", says)
      for name, wrong, says, objects in TERMS),
    *(Mutant(name, wrong, objects, "vjp_is_the_transpose", says)
      for name, wrong, says, objects in PRODUCTS),
    Mutant("vjp: writes", "vjp= writes into lam", network_vjp(writing),
           "inputs_are_not_mutated", "vjp writes into lam"),
]  # fmt: skip
