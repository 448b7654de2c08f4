"""How fast a perturbation of a trajectory grows: one tangent vector carried along the rollout."""

from __future__ import annotations

from functools import partial

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.system import System
from pararnn_solvers.typing import Array


def start_vector(state: Array) -> Array:
    """Return the perturbation that estimates begin with: random, of unit length, always the same.

    Parameters
    ----------
    state : array, shape (*batch, d)
    """
    v = arrays.beside(np.random.default_rng(0).standard_normal(state.shape), state)
    normalized: Array = v / np.linalg.norm(v, axis=-1, keepdims=True)
    return normalized


def growth_rate(system: System, steps: int, discard: int = 0) -> Array:
    """Return the mean logarithm of the growth of one perturbation per step, shape (*batch).

    It is carried along the rollout and renormalized in each of `steps` steps, of which the first
    `discard` do not count. In the limit this is the largest Lyapunov exponent. On few steps it can
    err either way: too high by a transient, too low where growth begins later.

    Notes
    -----
    Cost: `steps` calls of `step` with one tangent, one after another; memory of a few states.

    Source: Benettin et al. 1980.
    """
    state = system.h0
    growth = np.zeros_like(state[..., 0], dtype=np.float64)
    with np.errstate(all="ignore"):
        v = start_vector(state)
        for t in range(steps):
            x = None if system.x is None else system.x[t]
            along = partial(system.recurrence.tangent, v[None].astype(state.dtype))
            state, (v,) = system.apply(along, state, x)
            norm = np.linalg.norm(v, axis=-1, keepdims=True)
            if t >= discard:
                growth += np.log(norm[..., 0])
            v = np.where(norm > 0, v / norm, v)
    rate: Array = growth / max(1, steps - discard)
    return rate
