"""What all pictures have in common: colours, sizes, and which background they are drawn on.

Colours are those of Okabe and Ito (2008, "Color universal design"), which people who lack one kind
of cone tell apart; each series has a marker of its own as well. Images use cividis (Nuñez,
Anderton & Renslow 2018), whose lightness rises evenly for them, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pararnn_solvers.errors import InvalidInput

BLUE, GREY = "#0072B2", "#6b6b6b"  # of Okabe and Ito; a grey that reads on light and dark
PALETTES = {
    "light": ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9"),
    "dark": ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#FFFFFF", "#F0E442", "#D55E00"),
}
"""Colours of series, in the order in which they are used; the last two are faint on white."""
BACKGROUNDS = {"light": "#ffffff", "dark": "#14181e"}
INKS = {"light": "#1a1a1a", "dark": "#e6e6e6"}
MARKERS = "os^Dv*P"
COLUMN, HEIGHT, POINTS = 3.4, 2.4, 8
"""Inches of a column of a journal and of a picture in it; size of its letters."""

SIZES: Any = {
    "figure.figsize": (COLUMN, HEIGHT),
    "figure.constrained_layout.use": True,
    "font.size": POINTS,
    **dict.fromkeys(("axes.titlesize", "axes.labelsize", "legend.fontsize"), POINTS),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "figure.titlesize"), POINTS),
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "savefig.dpi": 200,
}


@contextmanager
def style(theme: str = "light") -> Iterator[None]:
    """Draw the figures of a block of code at column width, with 8-point letters, light or dark.

    Parameters
    ----------
    theme : {"light", "dark"}

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> with style("dark"):
    ...     figure, ax = plt.subplots()
    >>> ax.get_facecolor()[0] < 0.1
    True
    """
    import matplotlib
    from matplotlib.rcsetup import cycler

    if theme not in PALETTES:
        raise InvalidInput(f"theme is {theme!r}; expected one of {list(PALETTES)}")
    ink, background = INKS[theme], BACKGROUNDS[theme]
    colours: Any = {
        **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), background),
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), ink),
        **dict.fromkeys(("xtick.color", "ytick.color", "axes.titlecolor"), ink),
        "axes.prop_cycle": cycler(color=PALETTES[theme]),
    }
    with matplotlib.rc_context({**SIZES, **colours}):
        yield


def axes(ax: Any) -> Any:
    """Return the axes that were given, or new ones of a column's width in the current colours."""
    if ax is not None:
        return ax
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SIZES):
        ax = Figure().subplots()
    ax.tick_params(labelsize=POINTS)  # of ticks that are yet to come
    return ax


def theme_of(ax: Any) -> str:
    """Return whether axes are light or dark, by what is behind them."""
    for patch in (ax.patch, ax.figure.patch):
        red, green, blue, alpha = patch.get_facecolor()
        if alpha > 0.5:
            return "light" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "dark"
    return "light"


def palette(ax: Any) -> tuple[str, ...]:
    """Return the colours of series that suit the background of axes.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> palette(Figure().subplots())[0]
    '#0072B2'
    """
    return PALETTES[theme_of(ax)]


def ink(ax: Any) -> str:
    """Return the colour of what is written on axes."""
    return INKS[theme_of(ax)]


def letters(ax: Any) -> float:
    """Return the size of what is written on axes, in points."""
    return float(ax.xaxis.label.get_size())


def series(ax: Any, i: int) -> dict[str, Any]:
    """Return the colour and the marker of the i-th series on axes."""
    colours = palette(ax)
    return {"color": colours[i % len(colours)], "marker": MARKERS[i % len(MARKERS)]}


def shades(ax: Any, count: int) -> list[Any]:
    """Return colours from faint to strong, for things in an order."""
    from matplotlib import colormaps

    ends = (0.85, 0.0) if theme_of(ax) == "light" else (0.25, 1.0)
    return [colormaps["cividis"](level) for level in np.linspace(*ends, count)]


def diverging(ax: Any) -> Any:
    """Return a colour map from blue over the background to vermillion, for signed numbers."""
    from matplotlib.colors import LinearSegmentedColormap

    theme = theme_of(ax)
    low = "#0072B2" if theme == "light" else "#56B4E9"
    colours = [low, BACKGROUNDS[theme], "#D55E00"]
    return LinearSegmentedColormap.from_list("pararnn_signed", colours)


def tidy(ax: Any, x: str = "", y: str = "", grid: str = "y") -> Any:
    """Name the axes, remove what carries no information, and return them."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis=grid, color=GREY, alpha=0.25, linewidth=0.6)
    return ax


def legend(ax: Any, count: int) -> None:
    """Put the legend of so many series above the axes, where it hides nothing."""
    if count > 1:
        ax.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2,
            frameon=False, fontsize=letters(ax), handlelength=1.6, columnspacing=1.2,
            borderaxespad=0.2, labelspacing=0.3,
        )  # fmt: skip


def log_ticks(axis: Any, values: Any) -> None:
    """Write a few plain numbers on a logarithmic axis that spans less than two decades."""
    from matplotlib.ticker import LogLocator, NullFormatter

    usable = np.asarray(values, float)
    usable = usable[np.isfinite(usable) & (usable > 0)]
    if usable.size and usable.max() < 100 * usable.min():
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def colorbar(ax: Any, image: Any, label: str, **options: Any) -> None:
    """Put the scale of an image beside the axes."""
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.06, **options)
    bar.set_label(label, size=letters(ax))
    bar.ax.tick_params(labelsize=letters(ax), width=0.6)
    bar.outline.set_linewidth(0.6)
