"""``pararnn-solvers compare``: methods and backends side by side on one problem."""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial
from typing import Any, NamedTuple

from pararnn_solvers import linear, plotting, problems, solvers
from pararnn_solvers.cli.arguments import PROGRAM
from pararnn_solvers.cli.files import check_destination, write_whole
from pararnn_solvers.cli.problem import build_problem
from pararnn_solvers.cli.references import parse_method
from pararnn_solvers.cli.solve import on_device
from pararnn_solvers.comparison import METHODS, Comparison, compare
from pararnn_solvers.errors import InvalidInput

DEFAULT, DEFAULT_LENGTH = "english_text", 10000
"""What is solved when nothing is named."""
OF_THEIR_OWN = ("input", "recurrence", "theta", "h0", "steps", "limit", "block_size")
"""Arguments that describe a problem which has no name."""


class Task(NamedTuple):
    """The arguments of a comparison, and what to call them."""

    title: str
    recurrence: Any
    x: Any
    h0: Any
    theta: Any
    steps: int | None
    guess: Any = None


def run_compare(args: Namespace) -> int:
    """Compare what the arguments describe, print the table, and return the exit status."""
    if args.list:
        print(listing())
        return 0
    plot = args.plot and check_destination(
        args.plot, (".png", ".svg", ".pdf"), "--plot", args.force
    )
    methods = [chosen(text) for text in args.method or METHODS]
    backends = args.backend or ["auto"]
    if not {"auto", *linear.BACKENDS}.issuperset(backends):
        linear.discover_backends()
    task = named(args) if args.problem or not given(args) else own(args)
    if set(backends) == {"cupy"}:
        x, h0, theta = on_device(task.x, task.h0, task.theta)
        task = task._replace(x=x, h0=h0, theta=theta)
    if args.form is None:
        print(f"{PROGRAM} compare: {task.title}", flush=True)
    found = compare(
        *task[1:5],
        steps=task.steps,
        guess=task.guess,
        methods=methods,
        backends=backends,
        repeats=args.repeats,
        budget=args.budget,
        atol=args.atol,
        rtol=args.rtol,
        max_iter=args.max_iter,
        progress=sys.stderr.isatty(),
    )
    if plot:
        figure, kind = draw(found), plot.suffix[1:].lower()
        write_whole(plot, lambda file: figure.savefig(file, format=kind, dpi=200))
    print(str(found) if args.form is None else getattr(found, f"to_{args.form}")().rstrip("\n"))
    if plot and args.form is None:
        print(f"wrote {plot}")
    return 0


def chosen(text: str) -> Any:
    """Return a method by its name, which is what its row is called then, or by its call."""
    return text if text in solvers.METHODS else parse_method(text)


def given(args: Namespace) -> list[str]:
    """Return the options that describe a problem without a name."""
    return [f"--{name}".replace("_", "-") for name in OF_THEIR_OWN if getattr(args, name)]


def named(args: Namespace) -> Task:
    """Return a problem out of ``problems.PROBLEMS``.

    Raises
    ------
    InvalidInput
    """
    if options := given(args):
        raise InvalidInput(
            f"{args.problem} is a problem by name, {' and '.join(options)} for another; "
            "leave one out"
        )
    wanted = {"length": args.length, "seed": args.seed, "dtype": args.dtype}
    if args.problem is None:
        wanted["length"] = args.length or DEFAULT_LENGTH
    name = args.problem or DEFAULT
    problem = problems.load(name, **{key: v for key, v in wanted.items() if v is not None})
    start = ", from the guess of its source" if problem.guess is not None else ""
    known = f"{name}: {problem.note}{start}"
    return Task(known, *problem[:4], problem.steps, problem.guess)


def own(args: Namespace) -> Task:
    """Return the problem that --input and --recurrence describe.

    Raises
    ------
    InvalidInput
    """
    if args.length is not None or args.seed is not None:
        raise InvalidInput(
            "--length and --seed are of problems by name; expected --limit, to shorten an input, "
            "or --steps"
        )
    problem = build_problem(args)
    title = f"{problem.model}, input {problem.source}"
    return Task(title, problem.recurrence, problem.x, problem.h0, problem.theta, problem.steps)


def listing() -> str:
    """Return the names of the problems, with what they are."""
    width = max(map(len, problems.PROBLEMS))
    return "\n".join(f"{name:<{width}}  {about(name)}" for name in problems.PROBLEMS)


def about(name: str) -> str:
    """Return the first sentence on a problem, and the parameters behind its name."""
    function: Any = problems.PROBLEMS[name]
    chosen = ""
    if isinstance(function, partial):
        values = [*map(repr, function.args)]
        values += [f"{key}={value!r}" for key, value in function.keywords.items()]
        function, chosen = function.func, f" ({', '.join(values)})"
    first = (function.__doc__ or "").partition("\n\n")[0]
    text = " ".join(first.split()).removeprefix("Return ").rstrip(".")
    return f"{text.replace('``', '')}{chosen}"


def draw(found: Comparison) -> Any:
    """Return a figure of the residuals and, below, of the times."""
    from matplotlib.figure import Figure

    with plotting.style("light"):
        heights = 2.8, 0.6 + 0.2 * len(found)
        figure = Figure(figsize=(4.2, sum(heights)))
        above, below = figure.subplots(2, 1, height_ratios=heights)
        found.plot(ax=above)
        plotting.plot_times(found, ax=below)
    return figure
