"""Derivatives along directions: exact by dual arrays, or by complex steps and differences.

The four functions have one signature, ``(function, h, directions) -> (value, tangent)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers.autodiff.dual import Dual, tangent_of, value_of
from pararnn_solvers.autodiff.tangents import lift
from pararnn_solvers.errors import InvalidInput, NotDifferentiable

__all__ = ["central_difference", "complex_step", "forward_difference", "pushforward"]

# So small that its square vanishes beside 1, and far above the least normal number.
_COMPLEX_STEP = {"f": 1e-20, "d": 1e-30}


def _seeds(h: Any, directions: Any) -> Any:
    """Directions of shape (p, 1, ..., 1, d) and the type of ``h``."""
    if h.dtype.kind != "f":
        raise InvalidInput(f"h has dtype {h.dtype}, not a floating type; pass h.astype(float)")
    seeds = np.asarray(directions, h.dtype, like=h)
    if seeds.ndim < 2 or seeds.shape[-1] not in (1, h.shape[-1]):
        raise InvalidInput(
            f"directions has shape {seeds.shape}, h has shape {h.shape}; pass one direction of "
            f"size {h.shape[-1]} per row, shape (p, {h.shape[-1]})"
        )
    return lift(seeds, h.ndim)


def pushforward(function: Callable[[Any], Any], h: Any, directions: Any) -> tuple[Any, Any]:
    """Value and exact directional derivatives of ``function`` at ``h``, by dual arrays.

    Parameters
    ----------
    function : callable
        ``function(h)``, written with NumPy.
    h : array, shape (..., d)
        float32 or float64.
    directions : array or list of arrays, shape (p, d) or broadcastable to (p, ..., d)
        Leading axes missing after the first are broadcast.

    Returns
    -------
    value : array, shape (..., d)
        ``function(h)``.
    tangent : array, shape (p, ..., d)
        ``tangent[j]`` is the derivative along ``directions[j]``.

    Raises
    ------
    NotDifferentiable
        If ``function`` calls what has no derivative rule; the message names it.

    Notes
    -----
    Cost: one evaluation, on arrays up to ``1 + p`` times the size.

    References
    ----------
    Griewank and Walther (2008), *Evaluating Derivatives*, 2nd ed., chapter 3.

    Examples
    --------
    >>> value, tangent = pushforward(np.sin, np.zeros((4, 2)), np.eye(2))
    >>> tangent.shape, tangent[0, 3]
    ((2, 4, 2), array([1., 0.]))
    """
    seeds = _seeds(h, directions)
    argument = h[...]
    if isinstance(argument, np.ndarray):
        argument.flags.writeable = False
    out = function(Dual(argument, seeds))
    tangent = tangent_of(out, seeds.shape[0])
    # Where step passes h through, its tangent is the directions themselves: not the caller's.
    return value_of(out), tangent.copy() if np.may_share_memory(tangent, seeds) else tangent


def complex_step(function: Callable[[Any], Any], h: Any, directions: Any) -> tuple[Any, Any]:
    """Value and directional derivatives, as the imaginary part at ``h + i*eps*direction``.

    Parameters and results are those of :func:`pushforward`. ``function`` must accept complex
    arrays and be analytic: ``abs``, ``maximum`` and comparisons are not.

    Raises
    ------
    NotDifferentiable
        If ``function`` returns a real array for a complex one.

    Notes
    -----
    The derivative is exact to rounding, there being no difference to cancel. Cost: ``p`` complex
    evaluations and a real one.

    References
    ----------
    Squire and Trapp (1998), "Using complex variables to estimate derivatives of real functions",
    SIAM Review 40(1), 110-112.
    """
    wide = h.astype(np.float32) if h.dtype.itemsize < 4 else h  # there is no half complex type
    seeds = _seeds(wide, directions)
    eps = _COMPLEX_STEP.get(wide.dtype.char, 1e-30)
    parts = []
    for seed in seeds:
        out = function(wide + 1j * (eps * seed))
        if getattr(out, "dtype", np.dtype(float)).kind != "c":
            raise NotDifferentiable(
                "step returned a real array for a complex state, so its complex step is zero: "
                "it takes abs, real or a cast; pass jacobian='2-point', or None to differentiate "
                "exactly"
            )
        parts.append(out.imag / eps)
    value = function(h)
    return value, _stacked(parts, value)


def forward_difference(function: Callable[[Any], Any], h: Any, directions: Any) -> tuple[Any, Any]:
    """Value and directional derivatives by ``(f(h + s*v) - f(h)) / s``.

    Parameters and results are those of :func:`pushforward`.

    Notes
    -----
    The step is one number for each state, ``s = eps**(1/2) * max(1, max|h_i|)`` over its ``d``
    entries: a step for each entry would scale the columns of the Jacobian which one direction
    reveals together differently. Relative error about ``1e-8`` in float64, ``3e-4`` in float32.
    Cost: ``1 + p`` evaluations.
    """
    seeds = _seeds(h, directions)
    step = _step_size(h, 1 / 2)
    value = function(h)
    return value, _stacked([(function(h + step * v) - value) / step for v in seeds], value)


def central_difference(function: Callable[[Any], Any], h: Any, directions: Any) -> tuple[Any, Any]:
    """Value and directional derivatives by ``(f(h + s*v) - f(h - s*v)) / (2*s)``.

    Parameters and results are those of :func:`pushforward`.

    Notes
    -----
    The step is chosen as in :func:`forward_difference`, with ``eps**(1/3)``. Relative error about
    ``1e-10`` in float64, ``2e-5`` in float32. Cost: ``1 + 2*p`` evaluations.
    """
    seeds = _seeds(h, directions)
    step = _step_size(h, 1 / 3)
    value = function(h)
    ends = ((function(h + step * v), function(h - step * v)) for v in seeds)
    return value, _stacked([(up - down) / (2 * step) for up, down in ends], value)


def _step_size(h: Any, power: float) -> Any:
    """One step for each state, shape (..., 1)."""
    largest = np.max(np.abs(h), axis=-1, keepdims=True)
    return np.maximum(largest, 1) * float(np.finfo(h.dtype).eps) ** power


def _stacked(parts: list[Any], value: Any) -> Any:
    return np.stack(parts).astype(value.dtype, copy=False)
