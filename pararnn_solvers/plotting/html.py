"""Pictures inside the tables of a notebook."""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING, Any

from pararnn_solvers.plotting.convergence import plot_convergence

if TYPE_CHECKING:
    from pararnn_solvers.solvers.solution import Solution


def solution_html(solution: Solution) -> str:
    """Return the table of a solution beside a small convergence picture, for a notebook.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> p = prs.problems.load('diagonal_gru', length=50)
    >>> sol = prs.solve(*p[:4], method='newton')
    >>> solution_html(sol)[:5]
    '<div '
    """
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
    """Return a figure as an inline SVG element.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> figure_svg(Figure()).startswith('<svg')
    True
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
