"""The exponential function and its relatives: see `vector_math`."""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated, no-any-return"
from __future__ import annotations

from typing import Any

from pararnn_solvers.compiled.arithmetic import (
    clamp,
    either,
    fmadd,
    like,
    magnitude,
    polynomial,
    strict,
    where,
    with_sign,
)
from pararnn_solvers.compiled.bits import nearest, power_of_two
from pararnn_solvers.compiled.coefficients import ERF, EXP, LOG_ERFC, TANH

LOG2_E = 1.4426950408889634
# log(2) in two parts. The first ends in so many zeros that its product with an exponent is exact.
LN2_HIGH_32, LN2_LOW_32 = 0.693145751953125, 1.4286068e-06
LN2_HIGH_64, LN2_LOW_64 = 0.6931471805598903, 5.497923018708371e-14

_exp_tail = polynomial(*EXP)
_tanh_tail = polynomial(*TANH)
_erf_tail = polynomial(*ERF)
_log_erfc = polynomial(*LOG_ERFC)


@strict
def reduced(x: Any) -> tuple[Any, Any, Any]:
    """Return an integer n and ``r + low = x - n log(2)``, at most about ``log(2) / 2``."""
    n = nearest(x * like(x, LOG2_E))
    a = fmadd(n, either(x, -LN2_HIGH_32, -LN2_HIGH_64), x)
    b = either(x, -LN2_LOW_32, -LN2_LOW_64)
    r = fmadd(n, b, a)
    return n, r, fmadd(n, b, a - r)


@strict
def series(r: Any, low: Any) -> tuple[Any, Any]:
    """Return ``exp(r + low)`` as a sum of two, for what `reduced` returns."""
    one = like(r, 1.0)
    s = one + r
    rest = fmadd(r * r, _exp_tail(r), (one - s) + r + low)
    value = s + rest
    return value, rest - (value - s)


@strict
def scaled(value: Any, n: Any) -> Any:
    """Return ``value * 2**n`` in two steps, neither of which leaves the normal numbers."""
    half = nearest(n * like(n, 0.5))
    return value * power_of_two(half) * power_of_two(n - half)


@strict
def exp_in_range(x: Any) -> Any:
    """Return ``exp(x)`` where that is a normal number."""
    n, r, low = reduced(x)
    return series(r, low)[0] * power_of_two(n)


@strict
def exp(x: Any) -> Any:
    """Exponential function.

    Measured: within 0.76 ulp.
    Results below the normal numbers are rounded twice; all others are within 0.66.
    """
    n, r, low = reduced(clamp(x, either(x, -104.0, -746.0), either(x, 89.0, 710.0)))
    return scaled(series(r, low)[0], n)


@strict
def expm1(x: Any) -> Any:
    """``exp(x) - 1`` without cancellation near 0.

    Measured: within 1.03 ulp in float32, 1.10 in float64.
    """
    bounded = clamp(x, like(x, -40.0), either(x, 89.0, 710.0))
    n, r, low = reduced(bounded)
    tail = r * r * _exp_tail(r)
    p = r + tail
    p_low = (r - p) + tail + low
    # Half of everything: 2**n itself may be too large where the result is not.
    scale = power_of_two(n - like(x, 1.0))
    whole, part = scale - like(x, 0.5), scale * p
    half = whole + part
    half += fmadd(scale, p_low, part - (half - whole))
    return where(magnitude(x) < either(x, 2.0**-25, 2.0**-54), x, half + half)


@strict
def tanh(x: Any) -> Any:
    """Hyperbolic tangent: a polynomial below 1/2, ``1 - 2 / (exp(2 |x|) + 1)`` above.

    Measured: within 1.48 ulp in float32, 1.50 in float64.
    """
    a = clamp(magnitude(x), like(x, 0.0), like(x, 20.0))
    z = a * a
    near = fmadd(a * z, _tanh_tail(z), a)
    # What is subtracted from 1 is at most 1/2, so that its errors count at most half.
    far = like(x, 1.0) - like(x, 2.0) / (exp_in_range(a + a) + like(x, 1.0))
    return with_sign(where(a < like(x, 0.55), near, far), x)


@strict
def sigmoid(x: Any) -> Any:
    """Logistic function ``1 / (1 + exp(-x))``, relatively accurate in both tails.

    Measured: within 1.55 ulp.
    0 below -88 (float32) and -709 (float64), where results are subnormal.
    """
    zero, one = like(x, 0.0), like(x, 1.0)
    least = either(x, -88.0, -709.0)
    a = clamp(-x, either(x, -87.0, -708.0), -least)
    n = nearest(a * like(x, LOG2_E))
    r = fmadd(n, either(x, -LN2_HIGH_32, -LN2_HIGH_64), a)
    r = fmadd(n, either(x, -LN2_LOW_32, -LN2_LOW_64), r)
    t = fmadd(r * r, _exp_tail(r), r)
    # 1 + 2**n (1 + t), and what is lost of it in two roundings, which comes back to first order.
    scale = power_of_two(n)
    s = one + scale
    d = fmadd(t, scale, s)
    lost = fmadd(t, scale, s - d) + ((one - s) + scale)
    q = one / d
    return where(x < least, zero, fmadd(-q * q, lost, q))


@strict
def erf(x: Any) -> Any:
    """Error function: a polynomial below 1, ``1 - exp(polynomial)`` above.

    Measured: within 1.08 ulp in float32, 1.06 in float64.
    """
    a = clamp(magnitude(x), like(x, 0.0), either(x, 4.0, 6.0))
    near = fmadd(a, _erf_tail(a * a), a)
    # At 1 the complement is 0.16, so that its errors count for a sixth and less.
    far = like(x, 1.0) - exp_in_range(_log_erfc(a))
    return with_sign(where(a < like(x, 1.0), near, far), x)
