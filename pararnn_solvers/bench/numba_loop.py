"""Plain loops as one writes them for Numba: time outside, channels inside, the C library's exp."""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, no-any-return"
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from pararnn_solvers.bench.cases import Problem, states_shape
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.typing import Array

compiled = njit(nogil=True, error_model="numpy", fastmath={"contract"})


@compiled
def sigmoid(x: Any, one: Any) -> Any:
    """Return the logistic function; `one` is 1 in the type of x, so that nothing is promoted."""
    return one / (one + math.exp(-x))


@compiled
def gru(u: Array, h0: Array, a: Array, out: Array) -> None:
    """Write the states (T, B, n) of a diagonal GRU; u (T, B, 3 n), h0 (B, n), a (3, n)."""
    T, B, n = out.shape
    one = h0.dtype.type(1)
    h = h0.copy()
    for t in range(T):
        for b in range(B):
            for i in range(n):
                z = sigmoid(a[0, i] * h[b, i] + u[t, b, i], one)
                r = sigmoid(a[1, i] * h[b, i] + u[t, b, n + i], one)
                c = math.tanh(a[2, i] * h[b, i] * r + u[t, b, 2 * n + i])
                h[b, i] += z * (c - h[b, i])
                out[t, b, i] = h[b, i]


@compiled
def lstm(u: Array, h0: Array, a: Array, p: Array, out: Array) -> None:
    """Write the states (T, B, 2 n) of a diagonal LSTM; u (T, B, 3 n), a (3, n), p (2, n)."""
    T, B, n = out.shape[0], out.shape[1], out.shape[2] // 2
    one = h0.dtype.type(1)
    h = h0.copy()
    for t in range(T):
        for b in range(B):
            for i in range(n):
                c, y = h[b, i], h[b, n + i]
                f = sigmoid(a[0, i] * y + p[0, i] * c + u[t, b, i], one)
                g = math.tanh(a[1, i] * y + u[t, b, n + i])
                c = f * c + (one - f) * g
                o = sigmoid(a[2, i] * y + p[1, i] * c + u[t, b, 2 * n + i], one)
                y = o * math.tanh(c)
                h[b, i], h[b, n + i] = c, y
                out[t, b, i], out[t, b, n + i] = c, y


@compiled
def dense(u: Array, h0: Array, W: Array, b_reset: Array, out: Array) -> None:
    """Write the states (T, B, d) of PyTorch's GRU; u (T, B, 3 d), W (d, 3 d)."""
    T, B, d = out.shape
    one = h0.dtype.type(1)
    h = h0.copy()
    for t in range(T):
        products = np.dot(h, W)
        for b in range(B):
            for i in range(d):
                r = sigmoid(u[t, b, i] + products[b, i], one)
                z = sigmoid(u[t, b, d + i] + products[b, d + i], one)
                c = math.tanh(u[t, b, 2 * d + i] + r * (products[b, 2 * d + i] + b_reset[i]))
                h[b, i] = c + z * (h[b, i] - c)
                out[t, b, i] = h[b, i]


@compiled
def logistic(h0: Array, rate: Array, out: Array) -> None:
    """Write the states (T, B, n) of the logistic map."""
    T, B, n = out.shape
    one = h0.dtype.type(1)
    h = h0.copy()
    for t in range(T):
        for b in range(B):
            for i in range(n):
                h[b, i] = rate[i] * h[b, i] * (one - h[b, i])
                out[t, b, i] = h[b, i]


@compiled
def gru_backward(u: Array, h0: Array, a: Array, h: Array, da: Array, du: Array, dh: Array) -> None:
    """Write the gradients of ``0.5 * sum(h**2)``: da (3, n), du as u, dh (B, n) by h0."""
    T, B, n = h.shape
    one = h0.dtype.type(1)
    da[:], dh[:] = 0, 0
    for t in range(T - 1, -1, -1):
        for b in range(B):
            for i in range(n):
                s = h[t - 1, b, i] if t > 0 else h0[b, i]
                z = sigmoid(a[0, i] * s + u[t, b, i], one)
                r = sigmoid(a[1, i] * s + u[t, b, n + i], one)
                c = math.tanh(a[2, i] * s * r + u[t, b, 2 * n + i])
                lam = h[t, b, i] + dh[b, i]
                dz = lam * (c - s) * z * (one - z)
                dc = lam * z * (one - c * c)
                dr = dc * a[2, i] * s * r * (one - r)
                dh[b, i] = lam * (one - z) + dz * a[0, i] + dr * a[1, i] + dc * a[2, i] * r
                da[0, i] += dz * s
                da[1, i] += dr * s
                da[2, i] += dc * s * r
                du[t, b, i], du[t, b, n + i], du[t, b, 2 * n + i] = dz, dr, dc


LOOPS: dict[str, Callable[..., None]] = {
    "gru": gru, "lstm": lstm, "dense": dense, "logistic": logistic
}  # fmt: skip


def loop(problem: Problem) -> list[Variant]:
    """Return the compiled loop, forwards, or forwards and backwards."""
    if problem.case.task == "gradient" and problem.case.cell != "gru":
        raise NotComparable(f"no backward loop is written for {problem.case.cell}")
    call = gradient if problem.case.task == "gradient" else trajectory
    return [Variant(lambda: call(problem), tuple)]


def flat(v: Array, axes: int) -> Array:
    """View with all batch axes in one; `axes` of them lead."""
    return v.reshape(*v.shape[:axes], -1, v.shape[-1])


def trajectory(problem: Problem) -> tuple[Array, ...]:
    """Return the states."""
    states = np.empty(states_shape(problem), problem.h0.dtype)
    given = [] if problem.u is None else [flat(problem.u, 1)]
    LOOPS[problem.case.cell](*given, flat(problem.h0, 0), *problem.weights, flat(states, 1))
    return (states,)


def gradient(problem: Problem) -> tuple[Array, ...]:
    """Return the gradients by the weights, the drives and h0."""
    (h,) = trajectory(problem)
    (a,), u, h0 = problem.weights, problem.u, problem.h0
    assert u is not None
    da, du, dh0 = np.empty_like(a), np.empty_like(u), np.empty_like(h0)
    gru_backward(
        flat(u, 1), flat(h0, 0), a, flat(h, 1), da, flat(du, 1), flat(dh0, 0)
    )  # fmt: skip
    return da, du, dh0
