"""The arguments of the command line: which there are, and what can be refused by their form."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from pararnn_solvers import __version__, linear, solvers
from pararnn_solvers.errors import InvalidInput

PROGRAM = "pararnn-solvers"

DESCRIPTION = """\
Solve a nonlinear recurrence h_t = f(h_{t-1}, x_t; theta) for all steps t at once, by Newton's
method and its relatives."""

EXAMPLES = """\
examples:
  pararnn-solvers
      drive a diagonal GRU over the English text that ships with Python, and compare with a loop
  pararnn-solvers --plot convergence.png
      the same, with a picture of how the residual falls
  pararnn-solvers solve --input book.txt --no-compare --json
      the same recurrence over your own text; one JSON object on stdout
  pararnn-solvers solve --recurrence model.py:step --input x.csv --h0 0,0 --output h.npy
      your own step(h, x, theta), written in NumPy, over the rows of x.csv
  pararnn-solvers solve --recurrence model.py:step --input x.npy --theta theta.npz \\
      --block-size 1 --method "windowed(newton(), 256)" --compare
  pararnn-solvers compare two_well_langevin --method newton --method "newton(chunk=64)"
      methods side by side on a model problem: iterations, time, memory, error
  pararnn-solvers bench --case 64-channels --plot bench.png
      this package against Numba, JAX and PyTorch, as far as they are installed
  pararnn-solvers bench --backend cupy --json gpu.json --plot gpu
      the benchmark on a GPU, with its figures and pictures
  pararnn-solvers plan --params 7e9 --length 2048 --devices 64
      parameters, FLOPs and memory of training a language model of diagonal GRUs
  pararnn-solvers reproduce observers
      published figures computed again, theirs beside ours; --list lists them
  pararnn-solvers info
      versions, backends, threads

exit status: 0 solved, 1 the solve failed, 2 wrong use, 130 interrupted"""

SOLVE = f"""\
{DESCRIPTION}

Without --input and --recurrence: a diagonal GRU (ParaGRU) with random weights over the English
text that ships with Python, one step a byte. With --input FILE.txt alone: over that text."""

COMPARE = """\
Run several methods, with one or several backends, on one problem: status, iterations, evaluations,
time (median and quartiles over turns that all take), memory at the peak, error against the rollout,
residual. The problem is a name out of --list, or what --input and --recurrence say as for "solve".
Without any: a diagonal GRU over 10000 bytes of English text."""

BENCH = """\
Time this package against what else computes a recurrence on this machine: loops in NumPy, Numba and
PyTorch, torch.nn.GRU, jax.lax.scan, Newton's method in JAX, and pararnn-torch; and against the
map, one evaluation of f at given states, which is the floor. Those that are installed take turns;
"pip install pararnn_solvers[bench]" brings JAX and PyTorch. All cases take a few minutes.

With --backend cupy: on a GPU, kernels and solves of this package against a copy of as many bytes,
the map, PyTorch's loops and cuDNN, accelerated-scan, pararnn-torch and JAX; and which targets are
met. Takes less than eight minutes; other cases and contestants: see --backend cupy --list.

With --train: a training step, forward and backward, of this package's layer for PyTorch against
torch.nn.GRU of equal width, loops of the same cell under autograd, and pararnn-torch."""


PLAN = """\
Parameters, FLOPs, bytes and memory of training a language model: layers of a diagonal cell and a
gated MLP. Without --params or --width and --layers: the four sizes of the ParaRNN paper. What is
assumed, and how it compares with measured runs, is in docs/scaling.md."""

REPRODUCE = """\
Compute published figures again and print theirs beside ours, each row with whether they agree and
by what. Exit status 1 if one does not. Without a name, or with --list: what there is."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, raised like every other wrong use."""

    def error(self, message: str) -> NoReturn:
        """Raise InvalidInput."""
        raise InvalidInput(f"{message}; see: {self.prog} --help")


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the parsed arguments; without a command they are those of ``solve``.

    Raises
    ------
    InvalidInput
    SystemExit
        After ``--help`` or ``--version``.
    """
    if not argv or (argv[0].startswith("-") and argv[0] not in ("-h", "--help", "--version")):
        argv = ["solve", *argv]
    return build_parser().parse_args(with_negative_states(argv))


def with_negative_states(argv: list[str]) -> list[str]:
    """Join ``--h0 -1,2`` to ``--h0=-1,2``, which argparse would take for two options."""
    joined: list[str] = []
    for word in argv:
        if joined and joined[-1] == "--h0" and re.match(r"-[\d.]", word):
            joined[-1] = f"--h0={word}"
        else:
            joined.append(word)
    return joined


def build_parser() -> Parser:
    """Return the parser of all commands."""
    layout: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = Parser(PROGRAM, description=DESCRIPTION, epilog=EXAMPLES, **layout)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(
        dest="command", metavar="command", title="commands", required=True
    )
    solve = commands.add_parser(
        "solve",
        help=f"solve a recurrence (what is meant without a command; see: {PROGRAM} solve --help)",
        description=SOLVE,
        epilog=EXAMPLES,
        **layout,
    )
    add_problem(solve.add_argument_group("the recurrence"))
    add_solver(solve.add_argument_group("how to solve it"))
    add_results(solve.add_argument_group("what to do with the result"))
    text = "methods and backends side by side on one problem"
    add_compare(commands.add_parser("compare", help=text, description=COMPARE, **layout))
    text = "time this package against plain loops, PyTorch and JAX, where installed"
    bench = commands.add_parser("bench", help=text, description=BENCH, **layout)
    add_bench(bench)
    text = "what training a language model takes: parameters, FLOPs, bytes, memory"
    add_plan(commands.add_parser("plan", help=text, description=PLAN, **layout))
    text = "published figures computed again, theirs beside ours"
    reproduce = commands.add_parser("reproduce", help=text, description=REPRODUCE, **layout)
    reproduce.add_argument("names", nargs="*", metavar="NAME", help="see --list; or: all")
    reproduce.add_argument("--list", action="store_true", help="list the names, and stop")
    reproduce.add_argument("--json", action="store_true", help="as one JSON array")
    text = "print versions, backends (and why one is unavailable) and threads"
    info = commands.add_parser("info", help=text, description=text, **layout)
    info.add_argument("--json", action="store_true", help="as one JSON object")
    return parser


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
        "--seed", type=int, metavar="N", help="of the numbers drawn for PROBLEM; default 0"
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
        help="a row that has taken so long is left out of later turns; default 1",
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


def tolerance(text: str) -> float:
    """Parse a number that a residual can be compared with."""
    result: float = number(text, float, "a number >= 0 such as 1e-8", 0)
    return result
