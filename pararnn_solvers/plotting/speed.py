"""How long it takes: rows of a comparison, lengths of a trajectory, cases of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.plotting.theme import GREY, axes, legend, letters, log_ticks, series, tidy

Quartiles = Any
"""Three numbers: 25 %, 50 %, 75 %."""


def plot_times(comparison: Any, ax: Any = None) -> Any:
    """Draw the seconds of each row of a comparison: median, and quartiles as a bar.

    Parameters
    ----------
    comparison : Comparison
    ax : matplotlib axes, optional

    Returns
    -------
    The axes. Open marks are rows that did not converge; rows without times are named only.

    Examples
    --------
    >>> import pararnn_solvers as prs
    >>> problem = prs.problems.load("gru", length=20)[:4]
    >>> ax = plot_times(prs.compare(*problem, methods=["newton"], repeats=1))
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['sequential()', 'newton(), numba']
    """
    ax = axes(ax)
    rows = list(comparison)
    for y, row in enumerate(rows):
        if row.seconds is not None:
            fill = "full" if row.success else "none"
            dot(ax, y, row.seconds, {**series(ax, 0), "fillstyle": fill})
    label_rows(ax, [row.label for row in rows])
    ax.set_xscale("log")
    log_ticks(ax.xaxis, [row.seconds for row in rows if row.seconds is not None])
    tidy(ax, "seconds", "", grid="x")
    ax.spines["left"].set_visible(False)
    return ax


def plot_speed(measured: Mapping[str, Mapping[int, Any]], ax: Any = None) -> Any:
    """Draw seconds against the length of the trajectory, a line for each method or backend.

    Parameters
    ----------
    measured : mapping from labels to mappings from lengths T to seconds
        Seconds, or their three quartiles, which are drawn as a band. See :func:`speeds`.
    ax : matplotlib axes, optional

    Returns
    -------
    The axes, both logarithmic.

    Examples
    --------
    >>> ax = plot_speed({"loop": {100: 1e-3, 1000: (9e-3, 1e-2, 2e-2)}})
    >>> ax.get_xscale()
    'log'
    """
    ax = axes(ax)
    for i, (label, points) in enumerate(measured.items()):
        lengths = sorted(points)
        values = np.array([np.broadcast_to(points[T], 3) for T in lengths], float)
        look = series(ax, i)
        ax.plot(lengths, values[:, 1], label=label, **look, linewidth=1.2, markersize=4)
        ax.fill_between(lengths, values[:, 0], values[:, 2], color=look["color"], alpha=0.25,
                        linewidth=0)  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    legend(ax, len(measured))
    return tidy(ax, "steps T", "seconds")


def speeds(comparisons: Mapping[int, Any]) -> dict[str, dict[int, Quartiles]]:
    """Return what :func:`plot_speed` draws, from comparisons by the length of their trajectories.

    Rows that did not converge are left out.

    Examples
    --------
    >>> import pararnn_solvers as prs
    >>> problem = prs.problems.load("gru", length=20)[:4]
    >>> list(speeds({20: prs.compare(*problem, methods=["newton"], repeats=1)}))
    ['sequential()', 'newton(), numba']
    """
    found: dict[str, dict[int, Quartiles]] = {}
    for T, comparison in comparisons.items():
        for row in comparison:
            if row.success and row.seconds is not None:
                found.setdefault(row.label, {})[T] = row.seconds
    return found


def plot_bench(report: Any, ax: Any = None) -> Any:
    """Draw what ``pararnn-solvers bench --json FILE`` measured: a row a case, a mark a library.

    Parameters
    ----------
    report : str, path, or the object in such a file
    ax : matplotlib axes, optional

    Returns
    -------
    The axes, in nanoseconds per step and channel; bars reach from quartile to quartile.

    Examples
    --------
    >>> case = {"name": "lstm", "results": [{"contestant": "map", "ns": [1.0, 2.0, 3.0]}]}
    >>> ax = plot_bench({"cases": [case]})
    >>> ax.get_xlabel()
    'ns per step and channel'
    """
    if isinstance(report, (str, Path)):
        report = json.loads(Path(report).read_text(encoding="utf-8"))
    if not isinstance(report, Mapping) or "cases" not in report:
        raise InvalidInput(
            "report has no cases; expected what pararnn-solvers bench --json FILE writes"
        )
    ax = axes(ax)
    looks: dict[str, dict[str, Any]] = {}
    drawn = []
    for y, case in enumerate(report["cases"]):
        for result in case["results"]:
            spread = nanoseconds(case, result)
            if spread is not None:
                above = {"zorder": 4 - 0.1 * len(looks)}  # the first one is hidden by none
                look = looks.setdefault(result["contestant"], series(ax, len(looks)) | above)
                dot(ax, y, spread, look)
                drawn.append(spread)
    for name, look in looks.items():
        ax.plot([], [], linestyle="", label=name, **look)
    label_rows(ax, [case["name"].replace("-", " ") for case in report["cases"]])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    log_ticks(ax.xaxis, drawn)
    legend(ax, len(looks))
    tidy(ax, "ns per step and channel", "", grid="x")
    ax.spines["left"].set_visible(False)
    return ax


def nanoseconds(case: Mapping[str, Any], result: Mapping[str, Any]) -> Quartiles | None:
    """Return the quartiles of a result per step and channel; None if it was not timed."""
    if result.get("ns") is not None:
        return result["ns"]
    if result.get("seconds") is None:
        return None
    numbers = case["steps"] * case["channels"] * int(np.prod(case["batch"]))
    return [1e9 * seconds / numbers for seconds in result["seconds"]]


def dot(ax: Any, y: float, spread: Quartiles, look: Mapping[str, Any]) -> None:
    """Draw a median and its quartiles in a row."""
    low, middle, high = spread
    ax.plot([low, high], [y, y], color=look["color"], linewidth=1.4, zorder=2)
    ax.plot([middle], [y], linestyle="", **{"markersize": 5, "zorder": 3, **look})


def label_rows(ax: Any, labels: list[str]) -> None:
    """Write what the rows are, the first one on top, and stripe them."""
    ax.set_yticks(range(len(labels)), labels, fontsize=letters(ax))
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    for row in range(0, len(labels), 2):
        ax.axhspan(row - 0.5, row + 0.5, color=GREY, alpha=0.08, linewidth=0)
