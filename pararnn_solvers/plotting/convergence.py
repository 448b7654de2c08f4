"""How the residual falls: of the sequences of one solution, or of several methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.plotting.theme import GREY, axes, legend, letters, palette, series, tidy
from pararnn_solvers.typing import Array

if TYPE_CHECKING:
    from pararnn_solvers.solvers.solution import Solution

MOST_LINES = 64
LINEAR_UP_TO = 60
"""Iterations beyond which the axis becomes logarithmic."""
HIGHEST = 1e280  # matplotlib's margins overflow near the end of float64
ROOM = 1e4
"""How far above the greatest first residual of several methods the picture reaches."""


def plot_convergence(solutions: Any, ax: Any = None) -> Any:
    """Draw ``|F|`` (maximum norm) against the iteration, on a logarithmic axis.

    Parameters
    ----------
    solutions : Solution, Comparison, or mapping from labels to Solutions
        Of one solution each sequence has a line; of several, each solution has: that of its
        greatest residual.
    ax : matplotlib axes, optional
        Drawn on a new figure if not given.

    Returns
    -------
    The axes.

    Notes
    -----
    Of more than 64 sequences, 64 evenly spaced in the order of their last residual are drawn, the
    best and the worst among them. Exact zeros are drawn at the lower edge. The dashed line is the
    tolerance of the largest state. A cross ends what did not converge. With a moving window each
    point is the window's, so the residual rises whenever new steps enter it. Of several solutions,
    those without an iteration, such as rollouts, are left out; a residual that grows by more than
    four orders of magnitude leaves the picture.

    Examples
    --------
    >>> import pararnn_solvers as prs
    >>> problem = prs.problems.load("gru", length=20)[:4]
    >>> methods = ("newton", "chord")
    >>> ax = plot_convergence({name: prs.solve(*problem, method=name) for name in methods})
    >>> [line.get_label() for line in ax.lines]
    ['newton', 'chord']
    """
    ax = axes(ax)
    ax.set_yscale("log")
    if isinstance(solutions, Mapping) or not hasattr(solutions, "residual_norms"):
        several(ax, histories(solutions))
    else:
        sequences(ax, solutions)
    return tidy(ax, "iteration", "residual, maximum norm")


def sequences(ax: Any, solution: Solution) -> None:
    """Draw the sequences of one solution, and the tolerance."""
    from matplotlib.ticker import MaxNLocator

    norms = np.asarray(solution.residual_norms, float).reshape(solution.n_iter + 1, -1)
    order = np.argsort(norms[-1])
    ranks = np.linspace(0, len(order) - 1, min(MOST_LINES, len(order)))
    shown = order[np.round(ranks).astype(int)]
    alpha = 1.0 if len(shown) == 1 else 0.5
    marker = "o" if solution.n_iter <= 30 else ""
    lines = drawable(norms)[:, shown]
    ax.plot(lines, marker=marker, color=palette(ax)[0], alpha=alpha, linewidth=1.2, markersize=3.5)
    allowed = solution.stopping.tolerance(solution.h)  # where the states are
    tolerance = float(allowed.max()) if allowed.size else 0.0
    if 0 < tolerance < HIGHEST:
        ax.axhline(tolerance, color=GREY, linewidth=1.0, linestyle="--", zorder=1)
        ax.annotate(
            "tolerance", (0.01, tolerance), xycoords=("axes fraction", "data"),
            xytext=(0, 2), textcoords="offset points", ha="left", color=GREY, fontsize=letters(ax),
        )  # fmt: skip
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    title = f"{solution.method}: {solution.status.name.lower()}"
    ax.set_title(title, fontsize=letters(ax))


class History(NamedTuple):
    """The residual of one method after each iteration."""

    label: str
    norms: Array
    success: bool


def histories(solutions: Any) -> list[History]:
    """Return what there is to draw of a comparison or of a mapping.

    Raises
    ------
    InvalidInput
    """
    if isinstance(solutions, Mapping):
        pairs = [(str(label), one) for label, one in solutions.items()]
    elif isinstance(solutions, Iterable):
        backends = {row.backend for row in solutions if row.backend}
        pairs = [(row.method if len(backends) == 1 else row.label, row) for row in solutions]
    else:
        raise InvalidInput(
            f"solutions is {type(solutions).__name__}; expected a Solution, a Comparison, or a "
            "dict from labels to Solutions"
        )
    found = []
    for label, one in pairs:
        norms = np.asarray(one.residual_norms, float)
        norms = norms.max(axis=tuple(range(1, norms.ndim)), initial=0)
        found.append(History(label, norms, one.success))
    return [history for history in found if len(history.norms) > 1]


def several(ax: Any, found: list[History]) -> None:
    """Draw one line for each method, with a mark at its end."""
    from matplotlib.ticker import MaxNLocator

    for i, history in enumerate(found):
        look = series(ax, i)
        lines = drawable(history.norms)
        last = int(np.flatnonzero(np.isfinite(lines)).max(initial=0))
        few = len(lines) <= LINEAR_UP_TO  # a moving window's many must not hide the others
        look |= {"linewidth": 1.2, "zorder": 2} if few else {"linewidth": 0.6, "zorder": 1.5}
        marked = None if len(lines) <= 30 else [0, last]
        ax.plot(lines, label=history.label, **look, markersize=3.5, markevery=marked)
        if not history.success:
            ax.plot([last], lines[[last]], "x", color=look["color"], markersize=7, zorder=4)
    top = ROOM * max((history.norms[0] for history in found), default=1.0)
    if ax.dataLim.y1 > top > 0:
        ax.set_ylim(top=top)
    if max((len(history.norms) for history in found), default=0) > LINEAR_UP_TO:
        ax.set_xscale("symlog", linthresh=1)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlim(left=0)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(ax, len(found))


def drawable(norms: Array) -> Array:
    """Return what a logarithmic axis can show: zeros at its lower edge, gaps for what overflowed.

    Parameters
    ----------
    norms : array, shape (n_iter + 1, ...)
    """
    usable = norms[np.isfinite(norms) & (norms > 0)]
    floor = usable.min() / 10 if usable.size else 1e-16
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(norms), np.clip(norms, floor, HIGHEST), np.nan)
