"""Simplifications of scalar operations which do not change their value.

Each entry of ``SIMPLIFY`` takes the operands, nodes of :mod:`.graph`, and
returns what equals the operation, or None. Exact in floating point but for the sign of zero, and
for integer powers, which become products (NumPy's ``power`` may differ in the last bit). Nothing
is dropped which might be NaN: ``0 * x`` and ``x - x`` stay.

They also reduce the operations to fewer: ``square``, ``reciprocal``, ``clip``, ``greater`` and the
like are expressed by others and never reach a graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pararnn_solvers.autodiff.trace.graph import Node

__all__ = ["COMMUTATIVE", "CONNECTIVES", "PREDICATES", "SIMPLIFY"]

CONNECTIVES = frozenset({"logical_and", "logical_or", "logical_xor", "logical_not"})
PREDICATES = CONNECTIVES | set(
    "equal not_equal less less_equal greater greater_equal isnan isinf isfinite signbit".split()
)
# Not maximum and minimum: where they are equal, the first operand has the derivative.
COMMUTATIVE = frozenset(
    "add multiply equal not_equal logical_and logical_or logical_xor hypot logaddexp "
    "logaddexp2".split()
)

_MAX_POWER = 16


def _opposite(a: Node) -> Any:
    """Return ``-a`` if ``a`` is written with a minus sign, otherwise None."""
    if a.op == "negative":
        return a.args[0]
    if a.is_constant() and a.value < 0:
        return -a.value
    if a.op == "multiply" and a.args[0].is_constant() and a.args[0].value < 0:
        return -a.args[0].value * a.args[1]
    return None


def _add(a: Node, b: Node) -> Any:
    if a.is_constant():
        a, b = b, a
    if b.is_constant(0):
        return a
    if a is b:
        return 2 * a
    for first, second in ((a, b), (b, a)):
        opposite = _opposite(second)
        if opposite is not None:
            return first - opposite
    return None


def _subtract(a: Node, b: Node) -> Any:
    if b.is_constant(0):
        return a
    if a.is_constant(0):
        return -b
    opposite = _opposite(b)
    return None if opposite is None else a + opposite


def _multiply(a: Node, b: Node) -> Any:
    if b.is_constant():
        a, b = b, a
    if a.is_constant(1):
        return b
    if a.is_constant(-1):
        return -b
    if b.op == "negative":
        return -a.value * b.args[0] if a.is_constant() else -(a * b.args[0])
    return -(a.args[0] * b) if a.op == "negative" else None


def _divide(a: Node, b: Node) -> Any:
    if b.is_constant() and _is_power_of_two(b.value):
        return a * (1 / b.value)  # which is as exact
    if b.op == "negative":
        return -(a / b.args[0])
    return -(a.args[0] / b) if a.op == "negative" else None


def _is_power_of_two(value: float) -> bool:
    mantissa, exponent = math.frexp(value)
    return abs(mantissa) == 0.5 and abs(exponent) < 100


def _negative(a: Node) -> Any:
    if a.op == "negative":
        return a.args[0]
    if a.op == "subtract":
        return a.args[1] - a.args[0]
    if a.op == "multiply" and a.args[0].is_constant():
        return -a.args[0].value * a.args[1]
    return None


def _power(a: Node, b: Node) -> Any:
    if not b.is_constant():
        return None
    exponent = b.value
    if exponent == 0.5:
        return np.sqrt(a)  # ufuncs of an instance of Node are typed as Any
    if exponent not in range(-_MAX_POWER, _MAX_POWER + 1):
        return None
    if exponent < 0:
        return 1 / a**-exponent
    if exponent == 0:
        return 1
    half = a ** (exponent // 2)
    return half * half * a if exponent % 2 else half * half


def _absolute(a: Node) -> Any:
    if a.op == "negative":
        return np.abs(a.args[0])
    return a if a.boolean or a.op == "absolute" else None


def _where(condition: Node, a: Node, b: Node) -> Any:
    if condition.is_constant():
        return a if condition.value else b
    if condition.op == "logical_not":
        return np.where(condition.args[0], b, a)  # type: ignore[call-overload]
    return a if a is b else None


def _connective(absorbing: bool) -> Callable[[Node, Node], Any]:
    def simplify(a: Node, b: Node) -> Any:
        if b.is_constant():
            a, b = b, a
        if a.is_constant():
            return a if a.value == absorbing else b
        return a if a is b else None

    return simplify


def _logical_not(a: Node) -> Any:
    if a.op == "logical_not":
        return a.args[0]
    opposite = {"equal": "not_equal", "not_equal": "equal"}.get(a.op)  # true of NaN, too
    return a.graph.apply(opposite, *a.args) if opposite else None


SIMPLIFY: dict[str, Callable[..., Any]] = {
    "add": _add,
    "subtract": _subtract,
    "multiply": _multiply,
    "divide": _divide,
    "negative": _negative,
    "power": _power,
    "absolute": _absolute,
    "where": _where,
    "logical_and": _connective(absorbing=False),
    "logical_or": _connective(absorbing=True),
    "logical_not": _logical_not,
    # What others express.
    "float_power": np.power,
    "positive": lambda a: a,
    "conjugate": lambda a: a,
    "square": lambda a: a * a,
    "reciprocal": lambda a: 1 / a,
    "fabs": np.abs,
    "greater": lambda a, b: b < a,
    "greater_equal": lambda a, b: b <= a,
    "clip": lambda a, low, high: np.minimum(np.maximum(a, low), high),
    "expit": lambda a: a.graph.apply("sigmoid", a),
    "deg2rad": lambda a: math.pi / 180 * a,
    "radians": lambda a: math.pi / 180 * a,
    "rad2deg": lambda a: 180 / math.pi * a,
    "degrees": lambda a: 180 / math.pi * a,
}
