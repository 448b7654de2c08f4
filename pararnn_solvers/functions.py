"""Activation functions of recurrent cells, written so that neither tail overflows or cancels.

Each accepts float32 and float64 arrays (NumPy or CuPy) and keeps their dtype, and complex arrays,
so that a complex step through it is exact. An argument of another kind, such as a dual array or
a traced symbol, evaluates the function itself: see :func:`primitive`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["gelu", "primitive", "sigmoid", "silu", "softplus"]


def primitive(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Equal ``function``, except on arguments which say for themselves how to evaluate it.

    An argument whose class defines ``__pararnn_primitive__(self, name, function)`` is asked
    instead; dual arrays and traced symbols look the derivative up in
    ``pararnn_solvers.autodiff.RULES`` under ``name``, the name of ``function``.

    Parameters
    ----------
    function : callable
        Elementwise, of one array.

    Returns
    -------
    callable
        The dispatching function.
    """
    name = function.__name__

    @functools.wraps(function)
    def dispatch(x: Any) -> Any:
        hook = getattr(type(x), "__pararnn_primitive__", None)
        if hook is not None:
            return hook(x, name, function)
        return function(x if hasattr(x, "dtype") else np.asarray(x))

    return dispatch


def _exp(temporary: Any) -> Any:
    """``exp``, in the same memory where that is a real array: large temporaries cost most."""
    in_place = temporary.ndim > 0 and temporary.dtype.kind == "f"
    return np.exp(temporary, out=temporary if in_place else None)


@primitive
def sigmoid(x: Any) -> Any:
    """Logistic function ``1 / (1 + exp(-x))``, relatively accurate in both tails.

    Parameters
    ----------
    x : array_like, any shape
        float32, float64 or complex; the dtype is kept.

    Returns
    -------
    array, same shape
        NaN where ``x`` is NaN; 0 and 1 at minus and plus infinity.

    Examples
    --------
    >>> print(f"{sigmoid(-100.0):.6e}")
    3.720076e-44
    """
    if x.dtype.kind == "c":
        right = x.real >= 0
        decay = np.exp(np.where(right, -x, x))
        return np.where(right, 1, decay) / (1 + decay)
    # Two exponentials, exp(min(x, 0)) and exp(-max(x, 0)), are cheaper than one branch.
    out = _exp(np.minimum(x, 0))
    total = _exp(-np.maximum(x, 0))
    total += out
    out /= total
    return out


@primitive
def softplus(x: Any) -> Any:
    """Smooth rectifier ``log(1 + exp(x))``, relatively accurate in both tails.

    Parameters
    ----------
    x : array_like, any shape
        float32, float64 or complex; the dtype is kept.

    Returns
    -------
    array, same shape
        NaN where ``x`` is NaN; 0 and infinity at minus and plus infinity.

    Examples
    --------
    >>> print(f"{softplus(-100.0):.6e}", softplus(1000.0))
    3.720076e-44 1000.0
    """
    if x.dtype.kind == "c":
        right = x.real >= 0
        return np.where(right, x, 0) + _complex_log1p(np.exp(np.where(right, -x, x)))
    out = np.log1p(_exp(-np.abs(x)))
    out += np.maximum(x, 0)
    return out


def _complex_log1p(x: Any) -> Any:
    """``log(1 + x)``; NumPy's own loses the real part of a small complex ``x``."""
    out = np.empty_like(x)
    out.real = np.log1p(x.real * (2 + x.real) + x.imag * x.imag) / 2
    out.imag = np.arctan2(x.imag, 1 + x.real)
    return out


@primitive
def silu(x: Any) -> Any:
    """Sigmoid linear unit ``x * sigmoid(x)``, also called swish.

    Parameters
    ----------
    x : array_like, any shape
        float32, float64 or complex; the dtype is kept.

    Returns
    -------
    array, same shape
        NaN where ``x`` is NaN; 0 and infinity at minus and plus infinity.

    Examples
    --------
    >>> print(f"{silu(-100.0):.6e}")
    -3.720076e-42
    """
    return _times_decaying(x, sigmoid(x))


@primitive
def gelu(x: Any) -> Any:
    """Gaussian error linear unit ``x * Phi(x)``, ``Phi`` the normal distribution function.

    This is the exact form, not its approximation by ``tanh``.

    Parameters
    ----------
    x : array_like, any shape
        float32, float64 or complex; the dtype is kept.

    Returns
    -------
    array, same shape
        NaN where ``x`` is NaN; 0 and infinity at minus and plus infinity.

    References
    ----------
    Hendrycks and Gimpel (2016), "Gaussian error linear units", arXiv 1606.08415.

    Examples
    --------
    >>> print(f"{gelu(-10.0):.6e}")
    -7.619853e-23
    """
    return _times_decaying(x, ndtr(x))


def _times_decaying(x: Any, factor: Any) -> Any:
    """``x * factor``, and 0 where ``x`` is minus infinity and ``factor`` 0."""
    if x.dtype.kind == "c":
        return x * factor
    return np.maximum(x, np.finfo(factor.dtype).min) * factor


@primitive
def ndtr(x: Any) -> Any:
    """Distribution function of the standard normal law, SciPy's or CuPy's ``ndtr``."""
    library = "cupyx.scipy" if type(x).__module__.startswith("cupy") else "scipy"
    return importlib.import_module(f"{library}.special").ndtr(x)
