"""The commands of the command line: their texts, and the parser that knows them."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from pararnn_solvers import __version__
from pararnn_solvers.cli.options import (
    add_bench,
    add_compare,
    add_plan,
    add_problem,
    add_reproduce,
    add_results,
    add_solver,
)
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
    add_reproduce(commands.add_parser("reproduce", help=text, description=REPRODUCE, **layout))
    text = "print versions, backends (and why one is unavailable) and threads"
    info = commands.add_parser("info", help=text, description=text, **layout)
    info.add_argument("--json", action="store_true", help="as one JSON object")
    return parser
