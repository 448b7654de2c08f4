"""How many iterations it takes: against the length, a gain, a block size, a tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.plotting.theme import axes, legend, log_ticks, series, tidy

DECADES = 20
"""Ratio of the largest value to the smallest from which on an axis is logarithmic."""


def plot_iterations(
    values: Sequence[float],
    iterations: Mapping[str, Sequence[float | None]] | Sequence[float | None],
    ax: Any = None,
    *,
    label: str = "",
) -> Any:
    """Draw iterations to convergence against what was varied, a line for each method.

    Parameters
    ----------
    values : sequence of floats
        Lengths, gains, block sizes, tolerances: what the horizontal axis is.
    iterations : mapping from labels to sequences, or one sequence
        One number for each value; None or NaN where the method did not converge.
    ax : matplotlib axes, optional
    label : str
        What was varied, with its unit.

    Returns
    -------
    The axes, logarithmic in what spans a factor of 20 and more.

    Notes
    -----
    A cross at the upper edge is where a method did not converge.

    Examples
    --------
    >>> ax = plot_iterations([10, 1000], {"newton": [3, 3], "picard": [9, None]}, label="steps T")
    >>> ax.get_xscale(), ax.get_yscale()
    ('log', 'linear')
    """
    ax = axes(ax)
    lines = iterations if isinstance(iterations, Mapping) else {"": iterations}
    x = np.asarray(values, float)
    counts = {name: np.array(line, float) for name, line in lines.items()}
    for name, count in counts.items():
        if count.shape != x.shape:
            raise InvalidInput(
                f"{name or 'iterations'} has {count.size} numbers for {x.size} values; expected "
                "one for each: None where the method did not converge"
            )
    for i, (name, count) in enumerate(counts.items()):
        look = series(ax, i)
        ax.plot(x, count, label=name, **look, linewidth=1.2, markersize=4)
        failed = np.isnan(count)
        if failed.any():
            height = 1 - 0.045 * i  # of one method below that of another
            ax.plot(x[failed], np.full(failed.sum(), height), "x", color=look["color"],
                    markersize=6, transform=ax.get_xaxis_transform(), clip_on=False)  # fmt: skip
    scale(ax, x, np.concatenate([*counts.values(), []]))
    legend(ax, len(counts))
    return tidy(ax, label, "iterations")


def scale(ax: Any, x: Any, y: Any) -> None:
    """Make axes logarithmic where numbers span orders of magnitude; else begin counts at 0."""
    from matplotlib.ticker import MaxNLocator

    if spans(x):
        ax.set_xscale("log")
    if spans(y):
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        log_ticks(ax.yaxis, y)
    else:
        top = np.nanmax(y, initial=1)
        ax.set_ylim(0, 1.15 * top)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))


def spans(values: Any) -> bool:
    """Tell whether positive numbers reach over a factor of 20."""
    usable = values[np.isfinite(values)]
    return bool(usable.size and usable.min() > 0 and usable.max() >= DECADES * usable.min())
