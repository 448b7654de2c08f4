"""Pictures of solvers at work, by matplotlib, which is imported when the first one is drawn.

Every ``plot_*`` draws on the axes ``ax``, or on a new figure of a column's width, and returns the
axes. ``CAPTIONS`` has a text for each that can be pasted under it. Colours suit the background of
the axes, light or dark; ``style("light")`` and ``style("dark")`` set both for a block of code.
"""

from __future__ import annotations

from pararnn_solvers.plotting.captions import CAPTIONS
from pararnn_solvers.plotting.convergence import plot_convergence
from pararnn_solvers.plotting.counts import plot_iterations
from pararnn_solvers.plotting.html import figure_svg, solution_html
from pararnn_solvers.plotting.iterates import plot_errors, plot_iterates
from pararnn_solvers.plotting.lyapunov import local_growth, plot_lyapunov
from pararnn_solvers.plotting.sparsity import plot_sparsity
from pararnn_solvers.plotting.speed import plot_bench, plot_speed, plot_times, speeds
from pararnn_solvers.plotting.theme import BLUE, GREY, palette, style

__all__ = [
    "BLUE",
    "CAPTIONS",
    "GREY",
    "figure_svg",
    "local_growth",
    "palette",
    "plot_bench",
    "plot_convergence",
    "plot_errors",
    "plot_iterates",
    "plot_iterations",
    "plot_lyapunov",
    "plot_sparsity",
    "plot_speed",
    "plot_times",
    "solution_html",
    "speeds",
    "style",
]
