"""Where a recurrence expands, and what that comes to."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.growth import start_vector
from pararnn_solvers.plotting.theme import GREY, axes, colorbar, diverging, letters, palette, tidy
from pararnn_solvers.typing import Array

STRIP = 0.14
"""The share of the height that the strip takes."""


def plot_lyapunov(growth: Any, ax: Any = None) -> Any:
    """Draw the running Lyapunov exponent over a strip of the local expansion at each step.

    Parameters
    ----------
    growth : array, shape (T,)
        Logarithm of the factor by which a perturbation grows in each step: :func:`local_growth`.
    ax : matplotlib axes, optional

    Returns
    -------
    The axes.

    Notes
    -----
    The exponent at step t is the mean of the first t logarithms: above the dashed line, 0, the
    recurrence has expanded so far. Blue steps contract, red ones expand; the scale of the strip
    ends at its 98th percentile.

    Examples
    --------
    >>> ax = plot_lyapunov([0.5, -0.1, 0.2])
    >>> ax.texts[0].get_text()
    'exponent +0.2'
    """
    growth = np.asarray(arrays.on_host(growth), float)
    if growth.ndim != 1 or not growth.size:
        raise InvalidInput(
            f"growth has shape {growth.shape}; expected (T,): the logarithm of a perturbation's "
            "growth in each step"
        )
    ax = axes(ax)
    T = len(growth)
    running = np.cumsum(growth) / np.arange(1, T + 1)
    finite = growth[np.isfinite(growth)]
    most = float(np.percentile(np.abs(finite), 98)) if finite.size else 1.0
    ax.axhline(0, color=GREY, linewidth=1, linestyle="--", zorder=1)
    ax.plot(np.arange(1, T + 1), running, color=palette(ax)[0], linewidth=1.4)
    ax.margins(y=0.1)
    low, high = ax.get_ylim()
    bottom = low - (high - low) * STRIP / (1 - STRIP)
    image = ax.imshow(
        growth[None], aspect="auto", cmap=diverging(ax), vmin=-(most or 1), vmax=most or 1,
        interpolation="nearest", extent=(0.5, T + 0.5, bottom, low),
    )  # fmt: skip
    ax.set(xlim=(0.5, T + 0.5), ylim=(bottom, high))
    ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= high])
    colorbar(ax, image, "growth in one step")
    ax.annotate(
        f"exponent {running[-1]:+.3g}", (0.98, running[-1]), xycoords=("axes fraction", "data"),
        xytext=(0, 4), textcoords="offset points", ha="right", color=palette(ax)[0],
        fontsize=letters(ax),
    )  # fmt: skip
    return tidy(ax, "step", "running exponent", grid="")


def local_growth(blocks: Any) -> Array:
    """Return the logarithm of the growth of one perturbation in each step of a trajectory.

    Parameters
    ----------
    blocks : array, shape (T, *batch, k, k, n)
        The Jacobians along it, ``sol.system.linearize(sol.h)``. Their mean is
        ``diagnostics.lyapunov_exponent``.

    Returns
    -------
    array, shape (T, *batch); -inf from where on nothing is left of the perturbation

    Notes
    -----
    Cost: T products with a vector, one after another.

    Examples
    --------
    >>> np.exp(local_growth(np.full((3, 1, 1, 1), 2.0)))
    array([2., 2., 2.])
    """
    blocks = arrays.on_host(blocks)
    _, *batch, k, _, n = blocks.shape
    v = start_vector(np.zeros((*batch, k * n), blocks.dtype))
    growth = np.empty(blocks.shape[:-3])
    for t, A in enumerate(blocks):
        v = block_matvec(A, v)
        norm = np.linalg.norm(v, axis=-1)
        with np.errstate(divide="ignore"):
            growth[t] = np.log(norm)
        v = v / np.where(norm > 0, norm, 1)[..., None]
    return growth
