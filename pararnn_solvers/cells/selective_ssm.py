"""A selective state space (Mamba's S6): diagonal, with decays made from the inputs, and linear.

Each of n channels has N states, component-major ``h (N, n)``. With ``v = E x``::

    delta = softplus(W_d W_r v + b_d)      (n)        step lengths
    A     = -exp(A_log)                    (N, n)
    h'    = exp(delta A) h + (delta v) (W_B v)
    y     = (W_C v) h + D v                           over the N states

All but the second last line depends on x alone. `project` makes the drives
``u = [exp(delta A) | (delta v) (W_B v)]``, hence `step` is ``u_a h + u_b``: one Newton iteration.
`output` needs x and theta beside the states.

Source: Gu & Dao 2023 (arXiv 2312.00752), algorithm 2; ``B`` is discretized by Euler's rule, as in
the authors' program.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells.parameters import require_heads, require_inputs, summed, zero_state
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.functions import sigmoid, softplus
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

SHORTEST, LONGEST = 1e-3, 1e-1  # step lengths at the start


class Theta(NamedTuple):
    """Parameters: of inputs m, channels n, states N a channel, rank R of the step lengths.

    ``E (m, n)``, ``A_log (N, n)``, ``W_B`` and ``W_C (n, N)``, ``W_r (n, R)``, ``W_d (R, n)``,
    ``b_d`` and ``D (n)``. None acts in the recurrence.
    """

    E: Array
    A_log: Array
    W_B: Array
    W_C: Array
    W_r: Array
    W_d: Array
    b_d: Array
    D: Array


def step(h: Any, u: Any, theta: Theta) -> Any:
    """Return the next states (..., N n) from states (..., N n) and drives (..., 2 N n)."""
    d = h.shape[-1]
    return u[..., :d] * h + u[..., d:]


def vjp(h: Array, u: Array, theta: Theta, lam: Array) -> tuple[Array, Array, Theta]:
    """Return lam times the derivatives of `step` by h, by u, and by theta (zero)."""
    zeros = Theta(*(np.zeros_like(leaf) for leaf in theta))
    return lam * u[..., : h.shape[-1]], np.concatenate([lam * h, lam], axis=-1), zeros


recurrence = Recurrence(step, block_size=1, vjp=vjp)


def init(
    rng: np.random.Generator,
    inputs: int,
    channels: int,
    *,
    states: int = 16,
    rank: int | None = None,
    dtype: Any = np.float64,
) -> Theta:
    """Draw parameters for inputs of size m and n channels of N states.

    As in the paper (section 3.6), ``A = -1, ..., -N`` (S4D-Real), step lengths log-uniform between
    0.001 and 0.1, ``D = 1`` and rank ``n/16``; ``E`` is Xavier uniform.
    """
    rank = max(1, channels // 16) if rank is None else rank
    require_heads(1, inputs=inputs, channels=channels, states=states, rank=rank)

    def uniform(bound: float, *shape: int) -> Array:
        return rng.uniform(-bound, bound, size=shape).astype(dtype)

    lengths = np.exp(rng.uniform(np.log(SHORTEST), np.log(LONGEST), size=channels))
    scale = 1 / np.sqrt(channels)
    return Theta(
        E=uniform(np.sqrt(6 / (inputs + channels)), inputs, channels),
        A_log=np.repeat(np.log(np.arange(1, states + 1))[:, None], channels, axis=1).astype(dtype),
        W_B=uniform(scale, channels, states),
        W_C=uniform(scale, channels, states),
        W_r=uniform(scale, channels, rank),
        W_d=uniform(1 / np.sqrt(rank), rank, channels),
        b_d=np.log(np.expm1(lengths)).astype(dtype),  # softplus of it is the length
        D=np.ones(channels, dtype),
    )


def projected(x: Array, theta: Theta) -> tuple[Array, ...]:
    """Return ``v``, ``W_r v``, the argument of softplus, ``W_B v``, decays, all of (rows, ...)."""
    require_inputs(x, theta.E.shape[0])
    v = x.reshape(-1, x.shape[-1]) @ theta.E
    low = v @ theta.W_r
    raw = low @ theta.W_d + theta.b_d
    decay = np.exp(-softplus(raw)[:, None, :] * np.exp(theta.A_log))
    return v, low, raw, v @ theta.W_B, decay


def project(x: Array, theta: Theta) -> Array:
    """Return the drives (..., 2 N n) of inputs (..., m), for all steps at once."""
    v, _, raw, Bv, decay = projected(x, theta)
    increment = (softplus(raw) * v)[:, None, :] * Bv[:, :, None]
    both = np.stack([decay, increment], axis=1)
    return both.reshape(*x.shape[:-1], 2 * theta.A_log.size)


def project_vjp(x: Array, theta: Theta, du: Array) -> tuple[Array, Theta]:
    """Return du times the derivatives of `project` by x, and by theta summed over all inputs."""
    v, low, raw, Bv, decay = projected(x, theta)
    delta, rate = softplus(raw), np.exp(theta.A_log)
    by_decay, by_increment = np.moveaxis(du.reshape(-1, 2, *theta.A_log.shape), 1, 0)
    along = -by_decay * decay * rate
    length = np.einsum("tcn,tc->tn", by_increment, Bv)
    dBv = np.einsum("tcn,tn->tc", by_increment, delta * v)
    draw = (along.sum(axis=1) + length * v) * sigmoid(raw)
    dlow = draw @ theta.W_d.T
    dv = length * delta + dlow @ theta.W_r.T + dBv @ theta.W_B.T
    dtheta = Theta(
        E=x.reshape(len(v), -1).T @ dv,
        A_log=np.einsum("tcn,tn->cn", along, delta),
        W_B=v.T @ dBv,
        W_C=np.zeros_like(theta.W_C),
        W_r=v.T @ dlow,
        W_d=low.T @ draw,
        b_d=summed(draw),
        D=np.zeros_like(theta.D),
    )
    return (dv @ theta.E.T).reshape(x.shape), dtheta


def output(h: Array, x: Array | None = None, theta: Theta | None = None) -> Array:
    """Return what a layer above sees, (..., n), of states (..., N n) and inputs (..., m)."""
    x, theta = require_context(x, theta)
    v = x @ theta.E
    states = h.reshape(*h.shape[:-1], *theta.A_log.shape)
    y: Array = np.einsum("...c,...cn->...n", v @ theta.W_C, states) + theta.D * v
    return y


def output_vjp(
    dy: Array, h: Array, x: Array | None = None, theta: Theta | None = None
) -> tuple[Array, Array, Theta]:
    """Return dy times the derivatives of `output` by h, by x, and by theta summed over all."""
    x, theta = require_context(x, theta)
    rows = x.reshape(-1, x.shape[-1])
    v, dy = rows @ theta.E, dy.reshape(-1, dy.shape[-1])
    dC = np.einsum("tn,tcn->tc", dy, h.reshape(-1, *theta.A_log.shape))
    dh = (v @ theta.W_C)[:, :, None] * dy[:, None, :]
    dv = dC @ theta.W_C.T + theta.D * dy
    zeros = Theta(*(np.zeros_like(leaf) for leaf in theta))
    dtheta = zeros._replace(E=rows.T @ dv, W_C=v.T @ dC, D=summed(dy * v))
    return dh.reshape(h.shape), (dv @ theta.E.T).reshape(x.shape), dtheta


def require_context(x: Array | None, theta: Theta | None) -> tuple[Array, Theta]:
    """Raise InvalidInput unless there are inputs and parameters, which `output` reads."""
    if x is None or theta is None:
        raise InvalidInput(
            "the output of a selective state space depends on its inputs and parameters; "
            "call output(h, x, theta)"
        )
    require_inputs(x, theta.E.shape[0])
    return x, theta


def initial_state(theta: Theta, batch: tuple[int, ...] = ()) -> Array:
    """Return zeros (*batch, N n)."""
    return zero_state(theta.A_log.size, theta.A_log, batch)
