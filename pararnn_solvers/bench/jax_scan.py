"""JAX: ``lax.scan`` over precomputed drives, compiled, in its best form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pararnn_solvers.bench.cases import (
    Problem,
    drives,
    join,
    state,
    states_shape,
    weights,
)
from pararnn_solvers.bench.contestants import Variant
from pararnn_solvers.bench.models import Library, Parts
from pararnn_solvers.typing import Array

UNROLL = (1, 8, 16)


def library() -> Library:
    """Return JAX's functions."""
    import jax

    return Library(jax.nn.sigmoid, jax.numpy.tanh)


def scan(problem: Problem) -> list[Variant]:
    """Return ``lax.scan`` at each unrolling; its gradient also with recomputed activations."""
    if problem.case.task == "gradient":
        ways: list[dict[str, Any]] = [{"unroll": unroll} for unroll in UNROLL[:2]]
        ways.append({"unroll": 1, "checkpoint": True})
    else:
        ways = [{"unroll": unroll} for unroll in UNROLL]
    return [variant(problem, partial(rollout, problem, **way), described(way)) for way in ways]


def described(way: dict[str, Any]) -> str:
    """Return the options of a scan as a remark."""
    return f"unroll={way['unroll']}" + (", checkpoint" if "checkpoint" in way else "")


def rollout(
    problem: Problem, h0: Parts, u: Parts, w: Parts, *, unroll: int, checkpoint: bool = False
) -> Parts:
    """Return the components of all states."""
    import jax

    step, lib = problem.case.model.step, library()

    def body(h: Parts, u_t: Parts) -> tuple[Parts, Parts]:
        h = step(lib, h, u_t, w)
        return h, h

    body_or_lean = jax.checkpoint(body, prevent_cse=False) if checkpoint else body
    states: Parts = jax.lax.scan(
        body_or_lean, h0, u or None, length=problem.case.steps, unroll=unroll
    )[1]
    return states


def loss(solve: Callable[..., Parts], h0: Parts, u: Parts, w: Parts) -> Any:
    """Return ``0.5 * sum(h**2)``."""
    import jax.numpy as jnp

    return sum(jnp.sum(jnp.square(h)) for h in solve(h0, u, w)) / 2


def variant(problem: Problem, solve: Callable[..., Parts], note: str) -> Variant:
    """Return the compiled call of a function of h0, u and weights, or of its gradient."""
    import jax

    precision = enable_x64(problem.case.dtype == "float64")
    if problem.case.task == "gradient":
        compiled = jax.jit(jax.value_and_grad(partial(loss, solve), (0, 1, 2)))
    else:
        compiled = jax.jit(solve)
    with precision():
        data = jax.device_put(
            (state(problem), drives(problem), weights(problem)), jax.devices("cpu")[0]
        )

    def call() -> Any:
        with precision():
            return jax.block_until_ready(compiled(*data))

    collect = partial(gradients if problem.case.task == "gradient" else trajectory, problem)
    return Variant(call, collect, lambda result: note)


def enable_x64(wanted: bool) -> Callable[[], Any]:
    """Return a context in which float64 stays float64; another one where that is not wanted."""
    import jax

    if hasattr(jax, "enable_x64"):
        return partial(jax.enable_x64, wanted)
    import jax.experimental  # where it was at first

    return partial(jax.experimental.enable_x64, wanted)


def trajectory(problem: Problem, result: Parts) -> tuple[Array, ...]:
    """Return the states in one array."""
    return (join(result, states_shape(problem)),)


def gradients(problem: Problem, result: Any) -> tuple[Array, ...]:
    """Return the gradients by the weights, the drives and h0."""
    _, (dh0, du, dw) = result
    assert problem.u is not None
    da = join(dw[:1], problem.weights[0].shape)
    return da, join(du, problem.u.shape), join(dh0, problem.h0.shape)
