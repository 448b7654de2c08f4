"""Recurrences whose kernels the tests share: each one more is seconds of compiling."""

from typing import Any, NamedTuple

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.api import with_one_batch_axis
from pararnn_solvers.compiled.program import program
from pararnn_solvers.functions import sigmoid
from pararnn_solvers.validation import make_system
from tests.strategies import Case, block_tanh

CHANNELS = [2, 3, 7, 8, 15, 16, 17, 33, 64]
LENGTHS = [0, 1, 2, 15, 16, 17, 33, 100]
BATCHES = [(), (1,), (5,), (2, 3)]


class Gates(NamedTuple):
    w: Any
    bias: Any


def cell_step(h, x, theta):
    """Two components; of the drives, shared by all channels, one is not used."""
    gates, n = theta["gates"], h.shape[-1] // theta["components"]
    c, y = h[..., :n], h[..., n:]
    forget = sigmoid(gates.w[0] * y + x[..., :1] + gates.bias)
    c = forget * c + (1 - forget) * np.tanh(gates.w[1] * y + theta["rate"] * x[..., 2:3])
    return np.concatenate([c, np.tanh(c) * theta["scale"][1]], axis=-1)


def cell(n=3, T=12, batch=(), dtype=np.float64, seed=0):
    """A gated cell: theta is nested, with numbers for all channels and leaves that are none.

    With ``|x| <= 1``, ``|w| <= 0.2`` and ``|c| <= 1`` it forgets.
    """
    rng = np.random.default_rng(seed)
    theta = {
        "gates": Gates([rng.uniform(-0.2, 0.2, n).astype(dtype) for _ in "fc"], dtype(0.1)),
        "rate": 0.7,
        "scale": np.array([2.0, 0.8], dtype) if n != 2 else np.array([2.0, 0.8, 3.0], dtype),
        "components": 2,
        "name": "cell",
    }
    m = 4 if n == 3 else 3  # a multiple of n would be drives of each channel
    x = rng.uniform(-1, 1, (T, *batch, m)).astype(dtype)
    h0 = rng.uniform(-1, 1, (*batch, 2 * n)).astype(dtype)
    return Case(prs.Recurrence(cell_step, block_size=2), x, h0, theta, T, 0.9)


def diagonal(n=3, **options):
    return block_tanh(k=1, n=n, **options)


def autonomous(n=3, **options):
    """Three components, no drives, single precision."""
    return block_tanh(k=3, n=n, x=False, **{"dtype": np.float32, **options})


FAMILIES = {"diagonal": diagonal, "cell": cell, "autonomous": autonomous}


def system_of(case):
    """Return the equations with one batch axis, as kernels take them."""
    return with_one_batch_axis(make_system(*case[:5]))


def program_of(case):
    system = system_of(case)
    k, _ = system.recurrence.structure(system.shape[-1])
    return program(system.recurrence.step, system.h0, system.x, system.theta, k)
