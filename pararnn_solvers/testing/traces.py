"""Checks of the traced graph: what kernels are made of."""

# ruff: noqa: D401  (first lines are promises, not commands)

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pararnn_solvers.autodiff.trace.graph import MOST_COMPONENTS
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.testing.context import Context, require_close
from pararnn_solvers.testing.diagnosis import dense
from pararnn_solvers.testing.oracles import HALF
from pararnn_solvers.testing.results import Inapplicable
from pararnn_solvers.typing import Array

DEFECT = "step computes something else when it is traced"
REMEDY = "let step do the same for all kinds of arrays: no isinstance, no hasattr, no try"


def trace_is_the_step(context: Context) -> None:
    """The graph that kernels are made of computes what step computes.

    Proves: traced, evaluated operation by operation in float64, step gives at 15 states what it
    gives on arrays, to rounding; and, where channels do not couple, its derivative graph what the
    oracles give.

    Costs: 1 call of step on traced arrays, some 10 microseconds for each operation.

    A failure means: step computes something else on other kinds of arrays: it asks for types, or
    takes a branch that a trace cannot see.
    """
    h, x = context.wide.samples
    try:
        got, blocks = evaluated(context, h, x)
    except NotTraceable as reason:
        raise Inapplicable(f"step cannot be traced, so it is not compiled: {reason}") from None
    require_close(
        "a trace of step computes what step computes",
        got,
        context.wide.call(h, x),
        context.wide.rounding(np.float64),
        names=("traced", "on arrays"),
        remedy=REMEDY,
        defect=DEFECT,
        scale=float(np.max(np.abs(h))),
    )
    if blocks is not None:
        require_close(
            "the derivative of the trace is that of step",
            dense(blocks),
            context.jacobian,
            context.tolerance(HALF),
            axes="step sequence row column",
            names=("traced", "by oracles"),
            remedy=REMEDY,
            defect=DEFECT,
            scale=float(context.oracles.noise.max()) / HALF,
        )


def evaluated(context: Context, h: Array, x: Array | None) -> tuple[Array, Array | None]:
    """Return what a trace gives for states, and its blocks, if it has any.

    Dense steps are traced as stages between products of matrices where they cannot be otherwise.
    """
    from pararnn_solvers.autodiff.trace.staged import trace_staged
    from pararnn_solvers.autodiff.trace.tracing import evaluate, trace

    step, theta = context.recurrence.step, context.wide.system.theta
    k, n = context.recurrence.structure(context.size)
    try:
        if k > MOST_COMPONENTS:
            raise NotTraceable(f"{k} components of a channel; at most {MOST_COMPONENTS} are traced")
        traced = trace(step, h, x, theta, k)
    except NotTraceable:
        if n > 1:
            raise
        return trace_staged(step, h, x, theta).apply(h, x, theta), None
    slopes = [node for row in traced.jacobian() for node in row]
    values = evaluate([*traced.outputs, *slopes], traced.values(h, x, theta))
    values = [np.broadcast_to(value, (*h.shape[:-1], n)) for value in values]
    blocks = np.stack(values[k:], axis=-2).reshape(*h.shape[:-1], k, k, n)
    return np.concatenate(values[:k], axis=-1), blocks


CHECKS: dict[str, Callable[[Context], str | None]] = {"trace_is_the_step": trace_is_the_step}
