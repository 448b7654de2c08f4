"""Sine and cosine: see `vector_math`."""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated, no-any-return"
from __future__ import annotations

import math
from typing import Any

from pararnn_solvers.compiled.arithmetic import (
    either,
    exact_product,
    exact_sum,
    fmadd,
    like,
    magnitude,
    polynomial,
    strict,
    where,
)
from pararnn_solvers.compiled.bits import bit, nearest
from pararnn_solvers.compiled.coefficients import COS, SIN

# pi/2 as a sum of four numbers.
A32, B32, C32, D32 = 1.5707964, -4.371139e-08, -1.7151245e-15, 1.0562999e-23
A64, B64, C64, D64 = (
    1.5707963267948966,
    6.123233995736766e-17,
    -1.4973849048591698e-33,
    5.612805891193611e-50,
)
LIMIT_32, LIMIT_64 = 2.0**20, 2.0**49

_sin_tail = polynomial(*SIN)
_cos_tail = polynomial(*COS)


@strict
def _reduced(x: Any) -> tuple[Any, Any, Any]:
    """Return an integer n and ``r + low = x - n pi/2``, at most about ``pi / 4``.

    Cody and Waite (1980), with exact products: ``x - n a`` has no rounding error for the first
    part a of pi/2, and the floating-point number nearest to a multiple of pi/2 among those up to
    the limit is so far from it that the four parts together leave it all its digits.
    """
    n = nearest(x * like(x, 2 / math.pi))
    p, p_low = exact_product(n, either(x, A32, A64))
    r = (x - p) - p_low
    p, p_low = exact_product(n, either(x, B32, B64))
    r, low = exact_sum(r, -p)
    r, lost = exact_sum(r, -p_low)
    low += lost
    p, p_low = exact_product(n, either(x, C32, C64))
    r, lost = exact_sum(r, -p)
    low += lost
    return n, r, low - fmadd(n, either(x, D32, D64), p_low)


@strict
def _quarter_turn(x: Any, first: Any) -> Any:
    """Return ``sin(x + first pi/2)``."""
    n, r, low = _reduced(x)
    n += first
    z = r * r
    half = like(x, 0.5) * z
    sine = r + fmadd(r * z, _sin_tail(z), low * (like(x, 1.0) - half))
    most = like(x, 1.0) - half
    lost = (like(x, 1.0) - most) - half
    cosine = most + (lost + fmadd(z * z, _cos_tail(z), -(r * low)))
    value = where(bit(n, 0), cosine, sine)
    value = where(bit(n, 1), -value, value)
    return where(magnitude(x) <= either(x, LIMIT_32, LIMIT_64), value, like(x, math.nan))


@strict
def sin(x: Any) -> Any:
    """Sine.

    Measured: within 0.83 ulp in float32, 0.79 in float64.
    NaN where ``|x|`` exceeds ``2**20`` (float32) or ``2**49`` (float64).
    """
    zero = like(x, 0.0)
    return where(x == zero, x, _quarter_turn(x, zero))


@strict
def cos(x: Any) -> Any:
    """Cosine.

    Measured: within 0.80 ulp in float32, 0.79 in float64.
    NaN where ``|x|`` exceeds ``2**20`` (float32) or ``2**49`` (float64).
    """
    return _quarter_turn(x, like(x, 1.0))
