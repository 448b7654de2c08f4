"""What ``Recurrence.explain`` tells of a step: whether it is traced, and as what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pararnn_solvers.autodiff.trace.graph import Node
from pararnn_solvers.autodiff.trace.source import Source, source
from pararnn_solvers.autodiff.trace.tracing import Trace, trace
from pararnn_solvers.errors import NotTraceable

__all__ = ["Explanation", "explain", "jacobian_outputs", "step_outputs"]


READABLE = 200  # operations, beyond which nobody reads the source


@dataclass(frozen=True)
class Explanation:
    """Whether and how a step is traced; ``print`` it.

    Attributes
    ----------
    traced : bool
    reason : str
        Why not, or empty.
    trace : Trace or None
        The graph.
    step, linearization : Source or None
        The next state; the next state and its Jacobian.
    kernels : str
        What a solve can run in the place of the step.
    """

    traced: bool
    reason: str = ""
    trace: Trace | None = None
    step: Source | None = None
    linearization: Source | None = None
    kernels: str = ""

    def __str__(self) -> str:
        if not self.traced:
            return f"not traced: {self.reason}\n{self.kernels}".rstrip()
        assert self.trace is not None and self.step is not None and self.linearization is not None
        n, k = self.trace.channels, len(self.trace.states)
        lines = [
            f"traced: {k} component(s) in each of {n} channel(s), {self.trace.dtype}",
            f"operations: {self.step.operations} for the step, "
            f"{self.linearization.operations} with its Jacobian",
            f"functions: {', '.join(self.linearization.functions) or 'none'}",
        ]
        for path, value in self.trace.constants:
            lines.append(f"constant: {path} = {value!r}")
        lines += [self.kernels] if self.kernels else []
        text = self.linearization.function("step")
        if self.linearization.operations > READABLE:
            text = "(print .linearization.function('step') for its source)"
        return "\n".join([*lines, "", text]).rstrip()


def explain(step: Callable[..., Any], h: Any, x: Any, theta: Any, block_size: int) -> Explanation:
    """Trace a step, and say what became of it; parameters as of :func:`trace`."""
    try:
        traced = trace(step, h, x, theta, block_size)
        outputs = step_outputs(traced)
        both = {**outputs, **jacobian_outputs(traced)}
        return Explanation(
            True, "", traced, source(outputs, traced.dtype), source(both, traced.dtype)
        )
    except NotTraceable as error:
        return Explanation(False, str(error))


def step_outputs(traced: Trace) -> dict[str, Node]:
    """Name the components of the next state: ``f0``, ``f1``, ..."""
    return {f"f{i}": node for i, node in enumerate(traced.outputs)}


def jacobian_outputs(traced: Trace) -> dict[str, Node]:
    """Name the entries ``df_i/dh_j`` of the Jacobian: ``A0_0``, ``A0_1``, ..."""
    rows = traced.jacobian()
    return {f"A{i}_{j}": node for i, row in enumerate(rows) for j, node in enumerate(row)}
