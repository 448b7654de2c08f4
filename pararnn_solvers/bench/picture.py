"""The picture of a benchmark: one row a case, one mark a contestant, logarithmic."""

from __future__ import annotations

from typing import Any

from pararnn_solvers.bench.cases import CASES, Case
from pararnn_solvers.bench.contestants import CONTESTANTS, FLOOR, OURS
from pararnn_solvers.bench.report import Results
from pararnn_solvers.plotting import GREY

# Okabe and Ito's colours, which the colour-blind tell apart, and a shape for each as well.
MARKS: dict[str, dict[str, Any]] = {
    OURS: {"color": "#D55E00", "marker": "o", "markersize": 10, "zorder": 2.5},
    FLOOR: {"color": "black", "marker": "|", "markersize": 13, "markeredgewidth": 2},
    "Numba loop": {"color": "#0072B2", "marker": "s"},
    "jax.lax.scan": {"color": "#009E73", "marker": "^"},
    "JAX Newton": {"color": "#009E73", "marker": "v", "fillstyle": "none"},
    "pararnn-torch": {"color": "#CC79A7", "marker": "D", "fillstyle": "none"},
    "torch.nn.GRU": {"color": "#CC79A7", "marker": "P"},
    "PyTorch loop": {"color": "#CC79A7", "marker": "X"},
    "NumPy loop": {"color": "#56B4E9", "marker": "o", "fillstyle": "none"},
}
ROW, REST, WIDTH = 0.36, 1.45, 6.4
"""Inches: the height of a row, that of all but the rows, the width."""


def draw(results: Results) -> Any:
    """Return a figure of medians of ns per step and channel; bars reach from quartile to quartile.

    Parameters
    ----------
    results : mapping
        From names of cases to their results.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, REST + ROW * len(results)), layout="constrained")
    ax = figure.subplots()
    for row, found in enumerate(results.values()):
        for result in found:
            if result.ns is not None:
                mark(ax, row, result.contestant, result.ns)
    label_rows(ax, [CASES[name] for name in results])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("ns per step and channel (less is better)")
    ax.grid(axis="x", color=GREY, alpha=0.3, linewidth=0.6)
    ax.spines[["top", "right", "left"]].set_visible(False)
    shown = {one.contestant for found in results.values() for one in found if one.ns is not None}
    figure.legend(
        handles=[handle(name) for name in CONTESTANTS if name in shown],
        loc="outside upper center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    return figure


def mark(ax: Any, row: int, name: str, ns: tuple[float, float, float]) -> None:
    """Draw one result."""
    low, middle, high = ns
    style = MARKS.get(name, {"color": GREY, "marker": "."})
    ax.plot([low, high], [row, row], color=style["color"], linewidth=1.2, zorder=2)
    ax.plot([middle], [row], linestyle="", **{"markersize": 6, "zorder": 3, **style})


def label_rows(ax: Any, cases: list[Case]) -> None:
    """Write what the cases are, the first one on top, and stripe the rows."""
    ax.set_yticks(range(len(cases)), [label(case) for case in cases], fontsize=9)
    ax.set_ylim(len(cases) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    for row in range(0, len(cases), 2):
        ax.axhspan(row - 0.5, row + 0.5, color=GREY, alpha=0.08, linewidth=0)


def label(case: Case) -> str:
    """Return a short name of a case for the axis."""
    return case.name.replace("-", " ")


def handle(name: str) -> Any:
    """Return the legend's mark of a contestant."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="", label=name, **{**MARKS[name], "markersize": 7})
