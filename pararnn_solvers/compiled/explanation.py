"""Which kernels a step has, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pararnn_solvers.autodiff.trace.graph import MOST_COMPONENTS
from pararnn_solvers.autodiff.trace.staged import trace_staged
from pararnn_solvers.compiled.dense import compile_dense
from pararnn_solvers.compiled.program import program
from pararnn_solvers.errors import NotTraceable

__all__ = ["describe_kernels"]


def describe_kernels(
    step: Callable[..., Any], h: Any, x: Any, theta: Any, block_size: int, traced: bool
) -> str:
    """Return what ``solve`` can run in the place of a step; nothing if it is the step itself.

    ``traced``: whether the step was, with this block size.
    """
    reason = ""
    if h.dtype.itemsize < 4:
        return f"kernels: none: states are {h.dtype}"
    if traced and block_size <= MOST_COMPONENTS:
        try:
            program(step, h, x, theta, block_size).require_functions()
            return "kernels: rollout, multiple shooting, Newton, gradients"
        except NotTraceable as error:
            reason = f"kernels: none: {error}"
    elif traced:
        reason = f"kernels: none: at most {MOST_COMPONENTS} components are compiled"
    if block_size != h.shape[-1] or h.shape[-1] == 1:
        return reason
    try:
        dense = compile_dense(trace_staged(step, h, x, theta))
    except NotTraceable:
        return reason
    count = len(dense.in_step)
    return f"kernels: rollout and multiple shooting, with {count} product(s) a step\n\n{dense.text}"
