"""The options of each command, and what can be refused by its form."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

from pararnn_solvers import linear, solvers


def add_problem(group: Any) -> None:
    """Add what says which equations to solve."""
    group.add_argument(
        "--input",
        metavar="FILE",
        help="the inputs x, time first: .npy, .npz (x, optionally h0; other arrays are not read), "
        ".csv, .txt or - for stdin. With --recurrence .csv, .txt and stdin are numbers, a row a "
        "step, separated by commas or white space, after an optional line of column names; "
        "without it .txt and stdin are text, a byte a step",
    )
    group.add_argument(
        "--recurrence",
        metavar="MODULE_OR_FILE.py:NAME",
        help="a function step(h, x, theta), or a Recurrence",
    )
    group.add_argument(
        "--theta",
        metavar="FILE",
        help="the parameters: .npy (an array), .npz (a dict of arrays) or .json (nested dicts, "
        "lists of numbers become arrays); default None",
    )
    group.add_argument(
        "--h0",
        metavar="NUMBERS_OR_FILE",
        help="initial state: numbers separated by commas, or a .npy file of shape (*batch, d); "
        "default zeros, as many as x has columns",
    )
    group.add_argument(
        "--steps", type=whole, metavar="T", help="steps of a recurrence without input (x is None)"
    )
    group.add_argument("--limit", type=whole, metavar="N", help="use the first N steps of x only")
    group.add_argument(
        "--block-size",
        type=whole,
        metavar="K",
        help="channels of K components that do not couple; 1: a diagonal Jacobian",
    )
    group.add_argument(
        "--dtype",
        choices=["float32", "float64"],
        help="convert x, h0 and theta to it; default: as stored in .npy and .npz, float64 for "
        "numbers in text, float32 for text",
    )


def add_solver(group: Any) -> None:
    """Add the choices of the solver."""
    group.add_argument(
        "--method",
        default="auto",
        help=f"{', '.join(solvers.METHODS)}; with arguments: 'newton(chunk=64)', "
        "'windowed(newton(), 256)', 'quasi_newton(clipped(0.9))'; default auto",
    )
    group.add_argument(
        "--backend",
        default="auto",
        help=f"of the linear recurrences: auto, {', '.join(linear.BACKENDS)}; default auto",
    )
    add_stopping(group)


def add_stopping(group: Any) -> None:
    """Add when an iteration stops."""
    for name in ("--atol", "--rtol"):
        group.add_argument(
            name,
            type=tolerance,
            metavar="TOL",
            help="stop where |F_t| <= atol + rtol |h_t| at every step (maximum norm); "
            "default eps**0.75",
        )
    group.add_argument(
        "--max-iter", type=whole, default=100, metavar="N", help="most iterations; default 100"
    )


def add_results(group: Any) -> None:
    """Add what is written, printed and compared."""
    group.add_argument("--output", metavar="H.npy", help="write the states (T, *batch, d)")
    group.add_argument(
        "--plot",
        metavar="FILE",
        help="draw the residual against the iteration: .png, .svg or .pdf; also of a failed solve",
    )
    group.add_argument("--force", action="store_true", help="overwrite --output and --plot")
    group.add_argument(
        "--json", action="store_true", help="print one JSON object on stdout and nothing else"
    )
    group.add_argument(
        "--compare",
        action=argparse.BooleanOptionalAction,
        help="compare with a plain NumPy loop over the steps, and time it; default: only for the "
        "text that ships with Python",
    )


def add_compare(parser: Any) -> None:
    """Add the problem by name, what is compared on it, and the forms of the table."""
    parser.add_argument("problem", nargs="?", metavar="PROBLEM", help="a name out of --list")
    parser.add_argument("--list", action="store_true", help="list the problems, and stop")
    parser.add_argument(
        "--length", type=whole, metavar="T", help="steps of PROBLEM; default those of its source"
    )
    parser.add_argument(
        "--seed", type=seed, metavar="N", help="of the numbers drawn for PROBLEM; default 0"
    )
    add_problem(parser.add_argument_group("a recurrence of your own"))
    group = parser.add_argument_group("what is compared")
    group.add_argument(
        "--method",
        action="append",
        metavar="METHOD",
        help=f"repeatable: {', '.join(solvers.METHODS)}; with arguments: 'newton(chunk=64)'; "
        "default six of them",
    )
    group.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help=f"repeatable: auto, {', '.join(linear.BACKENDS)}; default auto. With cupy alone the "
        "arrays are moved to the device",
    )
    group.add_argument(
        "--repeats", type=whole, default=5, metavar="N", help="turns to time; default 5"
    )
    group.add_argument(
        "--budget",
        type=tolerance,
        default=1.0,
        metavar="SECONDS",
        help="a row that has taken so long is left out of later turns; of slower calls no memory "
        "is given; default 1",
    )
    add_stopping(group)
    group = parser.add_argument_group("what to do with the result")
    forms = group.add_mutually_exclusive_group()
    for form in ("json", "csv", "markdown"):
        text = f"print the table as {form} on stdout and nothing else"
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=text)
    group.add_argument(
        "--plot", metavar="FILE", help="draw residuals and times: .png, .svg or .pdf"
    )
    group.add_argument("--force", action="store_true", help="overwrite --plot")


def add_bench(parser: Any) -> None:
    """Add the options of the benchmark."""
    parser.add_argument(
        "--backend",
        choices=["numba", "cupy"],
        default="numba",
        help="numba: on the CPU (the default); cupy: on a GPU",
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help="a training step in PyTorch instead: the layer of this package against torch.nn.GRU, "
        "loops and pararnn-torch",
    )
    parser.add_argument("--list", action="store_true", help="list cases and contestants, and stop")
    parser.add_argument(
        "--case", action="append", metavar="NAME", help="run this case; repeatable; default all"
    )
    parser.add_argument(
        "--repeats", type=whole, metavar="N", help="turns to time; default 5, on a GPU 20 at most"
    )
    parser.add_argument(
        "--threads",
        type=whole,
        metavar="N",
        help="bind the process to N processors, and use as many threads; default all",
    )
    parser.add_argument(
        "--seconds",
        type=whole,
        metavar="N",
        help="with cupy: begin nothing new after N seconds, and say what was left out; default 400",
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures: .json")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw the medians: .png, .svg or .pdf; with cupy a folder, new or without pictures",
    )
    parser.add_argument("--force", action="store_true", help="overwrite --json and --plot")


def add_plan(parser: Any) -> None:
    """Add the sizes of a model and of its training."""
    parser.add_argument(
        "--params", type=float, metavar="N", help="the nearest of 400e6, 1e9, 2.9e9 and 7e9"
    )
    sizes = {
        "width": "channels of each layer",
        "layers": "each a recurrent and a gated MLP block",
        "heads": "of the input matrices; default 2",
        "inner": "width of the gated MLP; default 8/3 of the width, rounded up to 256s",
        "vocabulary": "default 50432",
    }
    for name, text in sizes.items():
        parser.add_argument(f"--{name}", type=whole, metavar="N", help=text)
    parser.add_argument("--cell", metavar="NAME", help="diagonal_gru (default) or diagonal_lstm")
    settings = {
        "length": (2048, "steps of a sequence"),
        "batch": (1, "sequences on each device"),
        "iterations": (3, "of Newton's method, to compare with one pass"),
        "devices": (1, "over which weights, gradients and moments are split"),
    }
    for name, (value, text) in settings.items():
        parser.add_argument(
            f"--{name}", type=whole, default=value, metavar="N", help=f"{text}; default {value}"
        )
    parser.add_argument(
        "--precision", choices=["mixed", "float32"], default="mixed", help="default mixed"
    )
    parser.add_argument(
        "--keep",
        choices=["all", "inputs"],
        default="all",
        help="what a layer keeps for the backward pass; with inputs it runs twice; default all",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def add_reproduce(parser: Any) -> None:
    """Add the names of published figures, and the form of the table."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="see --list; or: all")
    parser.add_argument("--list", action="store_true", help="list the names, and stop")
    parser.add_argument("--json", action="store_true", help="as one JSON array")


def number(text: str, kind: Callable[[str], Any], expected: str, least: float) -> Any:
    """Return the number that `text` stands for, if it is finite and at least `least`."""
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected {expected}, received {text!r}")
    return value


def whole(text: str) -> int:
    """Parse a positive integer."""
    result: int = number(text, int, "a whole number of at least 1", 1)
    return result


def seed(text: str) -> int:
    """Parse a number that random generators start from."""
    result: int = number(text, int, "a whole number of at least 0", 0)
    return result


def tolerance(text: str) -> float:
    """Parse a number that a residual can be compared with."""
    result: float = number(text, float, "a number >= 0 such as 1e-8", 0)
    return result
