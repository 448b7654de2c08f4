"""Functions which source is written for in terms of others, after differentiation.

Their own derivative rules are better than what the chain rule would make of the parts, so they
stay whole in the graph until then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.autodiff.trace.graph import Node, reachable

__all__ = ["lower"]


def _times_decaying(name: str) -> Callable[..., Node]:
    # The greatest negative number in place of minus infinity: -inf * 0 would be NaN.
    def expand(lowest: float, a: Node) -> Node:
        apply = a.graph.apply
        return apply("multiply", apply("maximum", a, lowest), apply(name, a))

    return expand


_EXPANSIONS: dict[str, Callable[..., Any]] = {
    "silu": _times_decaying("sigmoid"),
    "gelu": _times_decaying("ndtr"),
    "log_expit": lambda _, a: -a.graph.apply("softplus", -a),
}


def lower(outputs: list[Node], dtype: np.dtype[Any]) -> list[Node]:
    """Return equal nodes without ``silu``, ``gelu`` and ``log_expit``."""
    order = reachable(outputs)
    if not any(node.op in _EXPANSIONS for node in order):
        return outputs
    lowest = float(np.finfo(dtype).min)
    new: dict[int, Node] = {}
    for node in order:
        args = [new[arg.id] for arg in node.args]
        if node.op in _EXPANSIONS:
            new[node.id] = _EXPANSIONS[node.op](lowest, *args)
        else:
            new[node.id] = node.graph.apply(node.op, *args) if args else node
    return [new[node.id] for node in outputs]
