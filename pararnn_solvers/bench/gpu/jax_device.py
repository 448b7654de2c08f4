"""JAX on the GPU: ``lax.scan``, Newton's method by ``associative_scan``, and that scan alone.

JAX has streams of its own. Its calls wait for the device before they begin and until they are done,
so that events around them measure them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers.bench import jax_newton, jax_scan
from pararnn_solvers.bench.cases import drives, state, weights
from pararnn_solvers.bench.contestants import NotComparable, Variant
from pararnn_solvers.bench.gpu.cases import components
from pararnn_solvers.bench.gpu.work import Work, parts_of, shaped
from pararnn_solvers.bench.models import Parts
from pararnn_solvers.linear import cuda

PLATFORM = "gpu"
UNROLL = (1, 8)


def device() -> Any:
    """Return the first GPU.

    Raises
    ------
    NotComparable
        JAX was installed without support of GPUs.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # others need memory, too
    import jax

    try:
        return jax.devices(PLATFORM)[0]
    except RuntimeError as cause:
        text = str(cause).splitlines()[0]
        raise NotComparable(f"JAX has no GPU: {text}") from cause


def variant(
    work: Work, function: Callable[..., Any], data: Any, collect: Any, note: str
) -> Variant:
    """Return the compiled call of a function of the data."""
    place = device()
    import jax

    precision = jax_scan.enable_x64(work.case.dtype == "float64")
    compiled = jax.jit(function)
    # Otherwise products of float32 have 10 bits, which would not be right.
    exact = partial(jax.default_matmul_precision, "highest")
    with precision():
        placed = jax.device_put(data, place)

    def call() -> Any:
        cuda.cupy().cuda.runtime.deviceSynchronize()
        with precision(), exact():
            return jax.block_until_ready(compiled(*placed))

    return Variant(call, collect, lambda _: note)


def recurrence(work: Work, solve: Callable[..., Parts], note: str) -> Variant:
    """Return the trajectory by a function of h0, drives and weights, or its gradient."""
    import jax

    data = state(work.problem), drives(work.problem), weights(work.problem)
    if work.case.task != "gradient":
        return variant(work, solve, data, partial(states_of, work), note)
    function = jax.grad(partial(jax_scan.loss, solve), (0, 1, 2))
    return variant(work, function, data, partial(gradients_of, work), note)


def states_of(work: Work, states: Parts) -> Parts:
    """Return states as `work.error` compares them."""
    return shaped(work, [np.asarray(part) for part in states])


def gradients_of(work: Work, found: Any) -> Parts:
    """Return gradients as `work.error` compares them."""
    dh0, du, (da, *_) = found
    return shaped(work, [np.asarray(v) for v in (da, *du, *dh0)])


def scan(work: Work) -> list[Variant]:
    """Return ``lax.scan`` over precomputed drives."""
    device()
    return [
        recurrence(work, partial(jax_scan.rollout, work.problem, unroll=unroll), f"unroll={unroll}")
        for unroll in UNROLL
    ]


def newton(work: Work) -> list[Variant]:
    """Return Newton's method on the whole trajectory."""
    device()
    if work.case.cell == "dense" or work.case.task == "gradient":
        raise NotComparable("compared by trajectories of diagonal cells only")
    return [recurrence(work, partial(jax_newton.solve, work.problem), "associative_scan")]


def associative(work: Work) -> list[Variant]:
    """Return ``associative_scan`` of given linear maps."""
    device()
    (blocks,), k = work.problem.theta, components(work.case)
    columns = [tuple(blocks[..., i, j, :] for i in range(k)) for j in range(k)]
    data = (columns, parts_of(work.problem.u, k))
    return [variant(work, compose_all, data, partial(states_of, work), "")]


def compose_all(columns: Any, rhs: Any) -> Any:
    """Return the states of a linear recurrence."""
    import jax

    return jax.lax.associative_scan(jax_newton.compose, (columns, rhs))[1]
