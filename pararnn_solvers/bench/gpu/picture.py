"""The pictures of a benchmark on a GPU: the named cases against a copy, and the grid of lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pararnn_solvers.bench.gpu.cases import COPY, GRADIENT, MAP, ROWS, SCAN, SOLVE
from pararnn_solvers.bench.gpu.contestants import CONTESTANTS
from pararnn_solvers.bench.gpu.report import Results
from pararnn_solvers.bench.gpu.timing import Result
from pararnn_solvers.bench.picture import REST, ROW, label_rows
from pararnn_solvers.plotting import GREY

# Okabe and Ito's colours. Filled circles and squares of warm colours are this package.
MARKS: dict[str, dict[str, Any]] = {
    COPY: {"color": "black", "marker": "|", "markersize": 13, "markeredgewidth": 2},
    MAP: {"color": "black", "marker": "x"},
    "GEMM": {"color": "black", "marker": "+"},
    SCAN: {"color": "#D55E00", "marker": "o", "markersize": 9},
    "rollout": {"color": "#E69F00", "marker": "s"},
    "shooting": {"color": "#E69F00", "marker": "D"},
    "newton pass": {"color": "#E69F00", "marker": "v", "fillstyle": "none"},
    "adjoint": {"color": "#E69F00", "marker": "<"},
    "newton": {"color": "#D55E00", "marker": "v"},
    SOLVE: {"color": "#D55E00", "marker": "o", "markersize": 9},
    GRADIENT: {"color": "#D55E00", "marker": "P", "markersize": 9},
    "PyTorch loop": {"color": "#CC79A7", "marker": "X"},
    "torch.compile loop": {"color": "#CC79A7", "marker": "s", "fillstyle": "none"},
    "PyTorch graph": {"color": "#CC79A7", "marker": "^", "fillstyle": "none"},
    "torch.nn.GRU": {"color": "#CC79A7", "marker": "P"},
    "accelerated-scan": {"color": "#0072B2", "marker": "s"},
    "pararnn-torch": {"color": "#0072B2", "marker": "D", "fillstyle": "none"},
    "jax.lax.scan": {"color": "#009E73", "marker": "^"},
    "JAX Newton": {"color": "#009E73", "marker": "v", "fillstyle": "none"},
    "JAX associative_scan": {"color": "#009E73", "marker": "D"},
}
WIDTH, GRID_HEIGHT = 7.2, 2.9
"""Inches: the width of both, the height of a row of the grid's panels."""


def draw(results: Results) -> dict[str, Any]:
    """Return the figures that there are results for, by the names of their files."""
    named = {name: found for name, found in results.items() if not in_grid(name)}
    grid = {name: found for name, found in results.items() if in_grid(name)}
    figures = {}
    if named:
        figures["cases"] = draw_cases(named)
    if grid:
        figures["grid"] = draw_grid(grid)
    return figures


def in_grid(name: str) -> bool:
    """Tell whether a case is one of the grid."""
    return name.startswith("grid-")


def draw_cases(results: Results) -> Any:
    """Return a figure of times over that of a copy: medians, and bars between quartiles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, REST + ROW * (1 + len(results))), layout="constrained")
    ax = figure.subplots()
    for row, found in enumerate(results.values()):
        for one in found:
            if one.of_copy is not None:
                low, middle, high = (1 / value for value in one.of_copy)
                ax.plot(
                    [low, high], [row, row], color=MARKS[one.contestant]["color"], linewidth=1.2
                )
                ax.plot([middle], [row], **style(one.contestant))
    label_rows(ax, [ROWS[name].case for name in results])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("time / time of a copy of as many bytes (less is better)")
    ax.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    legend(figure, [one for found in results.values() for one in found if one.of_copy])
    return figure


def draw_grid(results: Results) -> Any:
    """Return a figure of ps per step and lane against steps, a panel for each number of lanes."""
    from matplotlib.figure import Figure

    lanes = sorted({ROWS[name].case.lanes for name in results})
    rows = -(-len(lanes) // 2)
    figure = Figure(figsize=(WIDTH, REST + GRID_HEIGHT * rows), layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False, sharex=True).ravel()
    for ax, count in zip(axes, lanes, strict=False):
        panel(ax, {name: f for name, f in results.items() if ROWS[name].case.lanes == count})
        ax.set_title(f"{count} lane{'s' * (count > 1)}", fontsize=10)
    for ax in axes[len(lanes) :]:
        ax.set_visible(False)
    legend(figure, [one for found in results.values() for one in found if one.seconds])
    figure.supxlabel("steps", fontsize=10)
    figure.supylabel("ps per step and lane (less is better)", fontsize=10)
    return figure


def panel(ax: Any, results: Results) -> None:
    """Draw a line for each contestant through the lengths of one number of lanes."""
    for contestant in CONTESTANTS:
        points = sorted(
            (one.steps, 1e12 * one.seconds[1] / one.steps / ROWS[name].case.lanes)
            for name, found in results.items()
            for one in found
            if one.contestant == contestant and one.seconds and one.steps
        )
        if points:
            look = {**style(contestant), "linestyle": "-", "linewidth": 1, "markersize": 5}
            ax.plot(*zip(*points, strict=True), **look)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.grid(color=GREY, alpha=0.3, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)


def style(contestant: str) -> dict[str, Any]:
    """Return how a contestant's mark looks."""
    return {"linestyle": "", "markersize": 6, "zorder": 3, **MARKS[contestant]}


def legend(figure: Any, results: Sequence[Result]) -> None:
    """Name the marks of those who have a time."""
    from matplotlib.lines import Line2D

    shown = {one.contestant for one in results}
    figure.legend(
        handles=[
            Line2D([], [], label=name, **{**style(name), "markersize": 7})
            for name in CONTESTANTS
            if name in shown
        ],
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize=9,
    )
