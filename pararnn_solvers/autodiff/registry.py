"""What dual arrays evaluate beyond the table of elementwise rules: filled on import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["ARRAY_FUNCTIONS", "PLAIN_ARRAY", "REMEDY", "TAKE_DTYPE", "UFUNCS", "implements"]

# Filled by the modules views, array_functions, joining, products, reductions, linear_algebra.
ARRAY_FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {}
UFUNCS: dict[tuple[str, str], Callable[..., Any]] = {}  # (ufunc name, method), beyond RULES
TAKE_DTYPE: set[Callable[..., Any]] = set()  # functions whose dtype= and the like are passed on

REMEDY = "rewrite step without it or pass jacobian='cs', '2-point' or a callable to Recurrence"
PLAIN_ARRAY = (
    "writing a traced state into a plain array loses its derivative: build the result with "
    "np.stack / np.concatenate / np.where, start from np.empty_like(h), or pass jacobian="
)

Implementation = Callable[..., Any]


def implements(*functions: Any) -> Callable[[Implementation], Implementation]:
    """Let dual arrays evaluate these NumPy functions by the decorated one."""

    def register(implementation: Implementation) -> Implementation:
        ARRAY_FUNCTIONS.update(dict.fromkeys(functions, implementation))
        return implementation

    return register
