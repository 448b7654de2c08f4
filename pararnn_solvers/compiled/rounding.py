"""Vector functions that are exact: signs, greatest and least, whole numbers, what is a number."""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, no-any-return, misc, var-annotated"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import intrinsic

from pararnn_solvers.compiled.arithmetic import (
    Emit,
    emit_llvm,
    like,
    magnitude,
    strict,
    where,
    with_sign,
)


def _exact(name: str) -> Any:
    """Return the function ``llvm.name`` of one number."""

    @intrinsic
    def function(typing: Any, x: Any) -> tuple[Any, Emit]:
        return x(x), emit_llvm(name)

    return function


@strict
def maximum(a: Any, b: Any) -> Any:
    """Greater of two, NaN if either is."""
    return where((a >= b) | (a != a), a, b)


@strict
def minimum(a: Any, b: Any) -> Any:
    """Lesser of two, NaN if either is."""
    return where((a <= b) | (a != a), a, b)


@strict
def fmax(a: Any, b: Any) -> Any:
    """Greater of two, or the one that is a number."""
    return where((a >= b) | (b != b), a, b)


@strict
def fmin(a: Any, b: Any) -> Any:
    """Lesser of two, or the one that is a number."""
    return where((a <= b) | (b != b), a, b)


@strict
def sign(a: Any) -> Any:
    """-1, 0, 1 or NaN."""
    zero, one = like(a, 0.0), like(a, 1.0)
    return where(a > zero, one, where(a < zero, -one, a))


@strict
def isnan(a: Any) -> Any:
    """Whether NaN."""
    return a != a


@strict
def isfinite(a: Any) -> Any:
    """Whether neither infinite nor NaN."""
    return a - a == like(a, 0.0)


@strict
def isinf(a: Any) -> Any:
    """Whether infinite."""
    return (a == a) & (a - a != like(a, 0.0))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": magnitude,
    "fabs": magnitude,
    "ceil": _exact("ceil"),
    "copysign": with_sign,
    "floor": _exact("floor"),
    "fmax": fmax,
    "fmin": fmin,
    "isfinite": isfinite,
    "isinf": isinf,
    "isnan": isnan,
    "maximum": maximum,
    "minimum": minimum,
    "rint": _exact("rint"),
    "sign": sign,
    "trunc": _exact("trunc"),
}
