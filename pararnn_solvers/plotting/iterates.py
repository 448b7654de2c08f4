"""Iterates on their way to the trajectory: their errors in time, and the states themselves.

Any solve shows its iterates to a callback::

    iterates = []
    sol = solve(..., callback=lambda state: iterates.append(state.h.copy()))
    plot_errors(iterates, rollout(...))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pararnn_solvers import arrays
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.plotting.theme import axes, colorbar, ink, letters, shades, tidy
from pararnn_solvers.typing import Array

COLUMNS = 480
"""Columns of a heat map at most: more steps than that are taken together."""
HIGHEST = 1e2
"""Errors above are drawn as this, so that an overflow does not use up all colours."""


def plot_errors(iterates: Sequence[Any], exact: Any, ax: Any = None, *, tol: float = 1e-8) -> Any:
    """Draw the error of every iterate at every step as an image: the exact prefix grows.

    Parameters
    ----------
    iterates : sequence of arrays, each (T, *batch, d)
        From the guess on.
    exact : array, shape (T, *batch, d)
        The rollout.
    ax : matplotlib axes, optional
    tol : float
        A step is exact where the error (maximum norm, units of the state) is at most this.

    Returns
    -------
    The axes.

    Notes
    -----
    The line is where the exact prefix ends in each iterate. Many steps are drawn by the greatest
    error among neighbours.

    Examples
    --------
    >>> exact = np.ones((4, 1))
    >>> ax = plot_errors([np.zeros((4, 1)), exact], exact)
    >>> ax.images[0].get_array().shape  # iterates, steps
    (2, 4)
    """
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    ax = axes(ax)
    h, truth = flattened(iterates, exact)
    with np.errstate(all="ignore"):
        error = np.abs(h - truth).max(axis=2, initial=0)
    error = np.where(np.isfinite(error), error, np.inf)
    smallest = float(np.finfo(truth.dtype).eps)
    T, last = error.shape[1], len(error) - 1
    shown = np.clip(coarse(error), smallest, HIGHEST)
    image = ax.imshow(
        shown, aspect="auto", origin="lower", interpolation="nearest", cmap="cividis",
        norm=LogNorm(smallest, max(2 * smallest, float(shown.max(initial=0)))),
        extent=(0, T, -0.5, last + 0.5),
    )  # fmt: skip
    prefix = np.cumprod(error <= tol, axis=1).sum(axis=1)
    edges = np.arange(len(error) + 1) - 0.5
    for color, width in (("black", 2.4), ("white", 1.2)):
        ax.stairs(prefix, edges, orientation="horizontal", baseline=None, color=color,
                  linewidth=width)  # fmt: skip
    colorbar(ax, image, "error")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(0, T)
    return tidy(ax, "step", "iteration", grid="")


def plot_iterates(
    iterates: Sequence[Any], exact: Any, ax: Any = None, *, component: int | tuple[int, int] = 0
) -> Any:
    """Draw iterates, from faint to strong, approaching the trajectory.

    Parameters
    ----------
    iterates : sequence of arrays, each (T, *batch, d)
        From the guess on. Those to be drawn: of many, pick some.
    exact : array, shape (T, *batch, d)
        The rollout.
    ax : matplotlib axes, optional
    component : int or pair of ints
        Of the states, batch axes and d taken together, against time; a pair is drawn against each
        other.

    Returns
    -------
    The axes.

    Examples
    --------
    >>> exact = np.ones((4, 2))
    >>> ax = plot_iterates([np.zeros((4, 2)), exact], exact, component=(0, 1))
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('component 0', 'component 1')
    """
    from matplotlib.lines import Line2D

    ax = axes(ax)
    h, truth = flattened(iterates, exact)
    pair = isinstance(component, tuple)
    across, up = component if isinstance(component, tuple) else (0, component)
    steps = np.arange(1, len(truth) + 1)
    for states, shade in zip(h, shades(ax, len(h)), strict=True):
        ax.plot(states[:, across] if pair else steps, states[:, up], color=shade, linewidth=1)
    ax.plot(truth[:, across] if pair else steps, truth[:, up], ":", color=ink(ax), linewidth=1.8)
    ax.set_ylim(around(truth[:, up]))
    if pair:
        ax.set_xlim(around(truth[:, across]))
    ends = {"first iterate": shades(ax, len(h))[0], "last iterate": shades(ax, len(h))[-1]}
    handles = [Line2D([], [], color=shade, label=name) for name, shade in ends.items()]
    handles.append(Line2D([], [], color=ink(ax), linestyle=":", linewidth=1.8, label="rollout"))
    ax.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3,
              frameon=False, fontsize=letters(ax), handlelength=1.6)  # fmt: skip
    x = f"component {across}" if pair else "step"
    return tidy(ax, x, f"component {up}" if pair else "state", grid="")


def around(values: Array) -> tuple[float, float]:
    """Return limits of an axis around a trajectory; a wild iterate may leave the picture."""
    low, high = float(values.min()), float(values.max())
    room = 0.35 * (high - low) or 1.0
    return low - room, high + room


def flattened(iterates: Sequence[Any], exact: Any) -> tuple[Array, Array]:
    """Return the iterates, shape (n, T, batch * d), and the truth, shape (T, batch * d).

    Raises
    ------
    InvalidInput
        They are not of one size.
    """
    truth = np.asarray(arrays.on_host(exact))
    truth = truth.reshape(len(truth), -1)
    states = [np.asarray(arrays.on_host(one)) for one in iterates]
    wrong = [one.shape for one in states if one.size != truth.size or len(one) != len(truth)]
    if wrong or not states:
        raise InvalidInput(
            f"iterates are {len(states)} arrays, with shapes such as "
            f"{wrong[0] if wrong else None}; expected at least one, each as large as exact, "
            f"which has shape {np.shape(exact)}; with multiple shooting they are states at the "
            "ends of chunks: pass exact[chunk - 1::chunk]"
        )
    return np.stack([one.reshape(truth.shape) for one in states]), truth


def coarse(error: Array) -> Array:
    """Return the greatest error of neighbouring steps, so that few columns are left."""
    T = error.shape[1]
    if T <= COLUMNS:
        return error
    edges = np.linspace(0, T, COLUMNS, endpoint=False).astype(int)
    return np.maximum.reduceat(error, edges, axis=1)
