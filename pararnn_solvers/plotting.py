"""Pictures of solutions, by matplotlib, which is imported when the first one is drawn."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pararnn_solvers.solvers.solution import Solution

BLUE, GREY = "#0072B2", "#6b6b6b"  # Okabe-Ito blue; a grey that reads on light and dark
MOST_LINES = 64


def plot_convergence(solution: Solution, ax: Any = None) -> Any:
    """Draw ``|F|`` (maximum norm) of each sequence against the iteration, on a logarithmic axis.

    Parameters
    ----------
    solution : Solution
    ax : matplotlib axes, optional
        Drawn on a new figure if not given.

    Returns
    -------
    The axes.

    Notes
    -----
    Of more than 64 sequences, 64 evenly spaced in the order of their last residual are drawn, the
    best and the worst among them. Exact zeros are drawn at the lower edge. The dashed line is the
    tolerance of the largest state. With a moving window each point is the window's, so the
    residual rises whenever new steps enter it.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if ax is None:
        ax = Figure(figsize=(4.2, 2.8), layout="constrained").subplots()
    norms = np.asarray(solution.residual_norms, float).reshape(solution.n_iter + 1, -1)
    order = np.argsort(norms[-1])
    ranks = np.linspace(0, len(order) - 1, min(MOST_LINES, len(order)))
    shown = order[np.round(ranks).astype(int)]
    usable = norms[np.isfinite(norms) & (norms > 0)]
    floor = usable.min() / 10 if usable.size else 1e-16
    # Matplotlib's margins overflow near the end of float64.
    lines = np.where(np.isfinite(norms), np.clip(norms, floor, 1e280), np.nan)
    style = {"color": BLUE, "linewidth": 1.2, "alpha": 1.0 if len(shown) == 1 else 0.5}
    marker = "o" if solution.n_iter <= 30 else ""
    ax.plot(lines[:, shown], marker=marker, markersize=3.5, **style)
    if solution.h.size:
        tolerance = float(np.max(solution.stopping.tolerance(solution.h)))
        if 0 < tolerance < 1e280:
            ax.axhline(tolerance, color=GREY, linewidth=1.0, linestyle="--", zorder=1)
            ax.annotate(
                "tolerance", (0.01, tolerance), xycoords=("axes fraction", "data"),
                xytext=(0, 2), textcoords="offset points", ha="left", color=GREY, fontsize=8,
            )  # fmt: skip
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("iteration")
    ax.set_ylabel("residual, maximum norm")
    ax.set_title(f"{solution.method}: {solution.status.name.lower()}", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
    return ax


def solution_html(solution: Solution) -> str:
    """Return the table of a solution beside a small convergence picture, for a notebook."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{label}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for label, text in solution.rows()
    )
    return (
        "<div style='display:flex;flex-wrap:wrap;gap:1.5em;align-items:center'>"
        f"<table>{rows}</table>{figure_svg(plot_convergence(solution).figure)}</div>"
    )


def figure_svg(figure: Any) -> str:
    """Return a figure as an inline SVG element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
