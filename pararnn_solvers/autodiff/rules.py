"""The one table of elementwise derivatives, keyed by the name of the ufunc.

``RULES[name]`` holds one entry for each argument of the function: ``None`` where the derivative is
zero everywhere it exists, otherwise a callable ``partial(v, *args)`` of the value ``v`` and the
arguments. A partial derivative that is boolean selects: a tangent passes where it is true and
becomes 0, whatever its value, where it is false. (A product would turn an unselected infinity
into NaN.)

The entries use operators, NumPy ufuncs and :mod:`pararnn_solvers.functions` only, so that they
apply to arrays and to traced scalars alike, and Python constants only, so that float32 remains
float32. They reuse ``v`` where they can: ``tanh' = 1 - v*v`` costs no exponential.

Conventions where the derivative does not exist: ``abs`` and ``hypot`` have 0 at the origin;
``maximum`` and ``minimum`` of equal arguments follow the first; ``clip`` follows its argument on
the bounds; ``power`` has 0 with respect to the exponent where the base is 0.

References
----------
Griewank and Walther (2008), *Evaluating Derivatives*, 2nd ed., table 2.3 and section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.functions import ndtr, sigmoid

__all__ = ["RULES"]

Partial = Callable[..., Any]

_LN2 = math.log(2)
_LN10 = math.log(10)
_DEGREE = math.pi / 180
_TWO_OVER_ROOT_PI = 2 / math.sqrt(math.pi)
_NORMAL_PEAK = 1 / math.sqrt(2 * math.pi)


def _one(*_: Any) -> int:
    return 1


def _minus_one(*_: Any) -> int:
    return -1


def _normal_density(a: Any) -> Any:
    return _NORMAL_PEAK * np.exp(-0.5 * a * a)


def _power_base(v: Any, a: Any, b: Any) -> Any:
    if isinstance(b, (int, float)):
        return b * a ** (b - 1) if b else 0
    # 0**0 is 1 in a neighbourhood of exponents only by convention: its slope is 0, not 0 * inf.
    return np.where(b == 0, 0, b * a ** (b - 1))


def _power_exponent(v: Any, a: Any, b: Any) -> Any:
    return np.where(a == 0, 0, v * np.log(a))


def _silu(v: Any, a: Any) -> Any:
    s = sigmoid(a)
    return s + v * (1 - s)


_ARITHMETIC: dict[str, tuple[Partial | None, ...]] = {
    "add": (_one, _one),
    "subtract": (_one, _minus_one),
    "multiply": (lambda v, a, b: b, lambda v, a, b: a),
    "divide": (lambda v, a, b: 1 / b, lambda v, a, b: -v / b),
    "power": (_power_base, _power_exponent),
    "float_power": (_power_base, _power_exponent),
    "remainder": (_one, lambda v, a, b: -np.floor(a / b)),
    "fmod": (_one, lambda v, a, b: -np.trunc(a / b)),
    "negative": (_minus_one,),
    "positive": (_one,),
    "conjugate": (_one,),
    "reciprocal": (lambda v, a: -v * v,),
    "square": (lambda v, a: 2 * a,),
    "sqrt": (lambda v, a: 0.5 / v,),
    "cbrt": (lambda v, a: 1 / (3 * v * v),),
    "hypot": (
        lambda v, a, b: np.where(v == 0, 0, a / v),
        lambda v, a, b: np.where(v == 0, 0, b / v),
    ),
}

_EXPONENTIAL: dict[str, tuple[Partial | None, ...]] = {
    "exp": (lambda v, a: v,),
    "exp2": (lambda v, a: _LN2 * v,),
    "exp10": (lambda v, a: _LN10 * v,),
    "expm1": (lambda v, a: v + 1,),
    "log": (lambda v, a: 1 / a,),
    "log2": (lambda v, a: 1 / (_LN2 * a),),
    "log10": (lambda v, a: 1 / (_LN10 * a),),
    "log1p": (lambda v, a: 1 / (1 + a),),
    "logaddexp": (lambda v, a, b: np.exp(a - v), lambda v, a, b: np.exp(b - v)),
    "logaddexp2": (lambda v, a, b: np.exp2(a - v), lambda v, a, b: np.exp2(b - v)),
    "xlogy": (lambda v, a, b: np.log(b), lambda v, a, b: a / b),
    # 1.0 * b: of truth values NumPy's logarithm is in half precision.
    "xlog1py": (lambda v, a, b: np.log1p(1.0 * b), lambda v, a, b: a / (1 + b)),
    "entr": (lambda v, a: -1 - np.log(a),),
}

_TRIGONOMETRIC: dict[str, tuple[Partial | None, ...]] = {
    "sin": (lambda v, a: np.cos(a),),
    "cos": (lambda v, a: -np.sin(a),),
    "tan": (lambda v, a: 1 + v * v,),
    "arcsin": (lambda v, a: 1 / np.sqrt((1 - a) * (1 + a)),),
    "arccos": (lambda v, a: -1 / np.sqrt((1 - a) * (1 + a)),),
    "arctan": (lambda v, a: 1 / (1 + a * a),),
    "arctan2": (lambda v, a, b: b / (a * a + b * b), lambda v, a, b: -(a / (a * a + b * b))),
    "sinh": (lambda v, a: np.cosh(a),),
    "cosh": (lambda v, a: np.sinh(a),),
    "tanh": (lambda v, a: 1 - v * v,),
    "arcsinh": (lambda v, a: 1 / np.hypot(1, a),),
    "arccosh": (lambda v, a: 1 / np.sqrt((a - 1) * (a + 1)),),
    "arctanh": (lambda v, a: 1 / ((1 - a) * (1 + a)),),
    "deg2rad": (lambda v, a: _DEGREE,),
    "radians": (lambda v, a: _DEGREE,),
    "rad2deg": (lambda v, a: 1 / _DEGREE,),
    "degrees": (lambda v, a: 1 / _DEGREE,),
}

_SELECTING: dict[str, tuple[Partial | None, ...]] = {
    "absolute": (lambda v, a: np.sign(a),),
    "fabs": (lambda v, a: np.sign(a),),
    "copysign": (lambda v, a, b: np.copysign(1, a) * np.copysign(1, b), None),
    "maximum": (lambda v, a, b: a >= b, lambda v, a, b: a < b),
    "minimum": (lambda v, a, b: a <= b, lambda v, a, b: a > b),
    "fmax": (
        lambda v, a, b: np.logical_or(a >= b, np.isnan(b)),
        lambda v, a, b: np.logical_or(a < b, np.isnan(a)),
    ),
    "fmin": (
        lambda v, a, b: np.logical_or(a <= b, np.isnan(b)),
        lambda v, a, b: np.logical_or(a > b, np.isnan(a)),
    ),
    "clip": (
        lambda v, a, low, high: np.logical_and(a >= low, a <= high),
        lambda v, a, low, high: np.logical_and(a < low, low <= high),
        lambda v, a, low, high: np.logical_or(a > high, low > high),
    ),
    "heaviside": (None, lambda v, a, b: a == 0),
}

# The functions of pararnn_solvers.functions, and scipy.special's under its own names.
_SPECIAL: dict[str, tuple[Partial | None, ...]] = {
    "sigmoid": (lambda v, a: v * (1 - v),),
    "expit": (lambda v, a: v * (1 - v),),
    "log_expit": (lambda v, a: -np.expm1(v),),
    "logit": (lambda v, a: 1 / (a * (1 - a)),),
    "softplus": (lambda v, a: sigmoid(a),),
    "silu": (_silu,),
    "gelu": (lambda v, a: ndtr(a) + a * _normal_density(a),),
    "erf": (lambda v, a: _TWO_OVER_ROOT_PI * np.exp(-a * a),),
    "erfc": (lambda v, a: -_TWO_OVER_ROOT_PI * np.exp(-a * a),),
    "erfcx": (lambda v, a: 2 * a * v - _TWO_OVER_ROOT_PI,),
    "erfinv": (lambda v, a: np.exp(v * v) / _TWO_OVER_ROOT_PI,),
    "ndtr": (lambda v, a: _normal_density(a),),
    "log_ndtr": (lambda v, a: _NORMAL_PEAK * np.exp(-0.5 * a * a - v),),
    "ndtri": (lambda v, a: np.exp(0.5 * v * v) / _NORMAL_PEAK,),
}

# Piecewise constant: the result carries no derivative and is a plain array.
_CONSTANT: dict[str, tuple[Partial | None, ...]] = {
    **dict.fromkeys(
        "sign floor ceil rint trunc isnan isinf isfinite signbit logical_not spacing".split(),
        (None,),
    ),
    **dict.fromkeys(
        "equal not_equal less less_equal greater greater_equal "
        "logical_and logical_or logical_xor floor_divide".split(),
        (None, None),
    ),
}

RULES: dict[str, tuple[Partial | None, ...]] = {
    **_ARITHMETIC,
    **_EXPONENTIAL,
    **_TRIGONOMETRIC,
    **_SELECTING,
    **_SPECIAL,
    **_CONSTANT,
}
