"""``pararnn-solvers solve``: solve, tell, compare, write."""

from __future__ import annotations

import itertools
import sys
import time
import traceback
import warnings
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pararnn_solvers import api, arrays, linear, tree
from pararnn_solvers.cli.arguments import PROGRAM
from pararnn_solvers.cli.files import check_destination, write_whole
from pararnn_solvers.cli.problem import Problem, build_problem
from pararnn_solvers.cli.references import parse_method
from pararnn_solvers.cli.report import Iterations, as_json, describe, summarize
from pararnn_solvers.compilation import COMPILE_FROM
from pararnn_solvers.distributed import require_one_process
from pararnn_solvers.errors import (
    ConvergenceError,
    ConvergenceWarning,
    InvalidInput,
    NotTraceable,
    PararnnError,
)
from pararnn_solvers.linear import cuda
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.typing import Array

FIRST_CALL = 2048
"""Steps of the solve that only compiles."""

Say = Callable[[str], None]


def run_solve(args: Namespace) -> int:
    """Solve what the arguments describe, and return the exit status."""
    output = args.output and check_destination(args.output, (".npy",), "--output", args.force)
    plot = args.plot and check_destination(
        args.plot, (".png", ".svg", ".pdf"), "--plot", args.force
    )
    options = solver_options(args)
    problem = build_problem(args)
    say: Say = (lambda text: None) if args.json else partial(print, flush=True)
    say(describe(problem, args.method, args.backend))
    try:
        solution, times = solve_and_time(problem, options, say)
    except InvalidInput as error:
        if not problem.assumed:
            raise
        raise InvalidInput(f"{error}; h0 was taken to be {problem.assumed}") from error
    except (PararnnError, BrokenPipeError, MemoryError):
        raise
    except Exception as error:
        print_traceback(error, problem)
        return 1
    states = arrays.on_host(solution.h)
    if output and solution.success:
        write_whole(output, lambda file: np.save(file, states))
    if plot:
        write_plot(plot, solution)
    difference = None
    if solution.success and (problem.builtin if args.compare is None else args.compare):
        h, times["step_loop"] = timed(lambda: step_loop(problem))
        difference = float(np.max(np.abs(h - states), initial=0))
    say(summarize(solution, times, difference))
    written = {"output": output if solution.success else None, "plot": plot or None}
    for path in filter(None, written.values()):
        say(f"  wrote       {path}")
    if args.json:
        print(as_json(problem, solution, times, difference, written))
    if not solution.success:
        raise ConvergenceError(solution.message, solution)
    return 0


def solver_options(args: Namespace) -> dict[str, Any]:
    """Return the keyword arguments of ``solve``."""
    if args.backend not in ("auto", *linear.BACKENDS):
        linear.discover_backends()
    require_one_process("the command", {"backend": args.backend})
    api.load_backend(args.backend)  # refuses unknown names before anything is read
    method = parse_method(args.method)
    return {
        "method": method,
        "backend": args.backend,
        "atol": args.atol,
        "rtol": args.rtol,
        "max_iter": args.max_iter,
    }


def solve_and_time(
    problem: Problem, options: dict[str, Any], say: Say
) -> tuple[Solution, dict[str, float]]:
    """Return the solution, converged or not, and the seconds of the first call and of the solve."""
    few = problem.first(FIRST_CALL)

    def warm_up() -> None:
        compiled = True if int(np.prod(problem.shape)) >= COMPILE_FROM else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the solve proper will tell
            try:
                solve(few, options, on_failure="warn", compiled=compiled)
            except NotTraceable:  # nor will the solve proper compile it
                solve(few, options, on_failure="warn")

    _, first = timed(warm_up)
    say(f"  first call  {first:.2f} s on {few.shape[0]} steps, to import and compile\n")
    callback = Iterations(say, problem.shape[0])

    def attempt() -> Solution:
        try:
            return solve(problem, options, callback=callback)
        except ConvergenceError as error:
            return error.solution

    solution, seconds = timed(attempt)
    return solution, {"first_call": first, "solve": seconds}


def solve(problem: Problem, options: dict[str, Any], **more: Any) -> Solution:
    """Call the package's ``solve``; for the backend cupy, on copies of the arrays on a device."""
    x, h0, theta = problem.x, problem.h0, problem.theta
    if options["backend"] == "cupy":
        x, h0, theta = on_device(x, h0, theta)
    return api.solve(
        problem.recurrence,
        x,
        h0,
        theta,
        steps=problem.steps,
        **options,
        **more,
    )


def on_device(x: Any, h0: Any, theta: Any) -> tuple[Any, Any, Any]:
    """Return copies of the arrays on the current device."""
    copy = cuda.cupy().asarray
    leaves, rebuild = tree.flatten(theta)
    theta = rebuild([copy(a) if isinstance(a, np.ndarray) else a for a in leaves])
    return None if x is None else copy(x), copy(h0), theta


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a function returns, and the seconds it took."""
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def step_loop(problem: Problem) -> Array:
    """Return the trajectory by the plainest loop: NumPy, one step after another."""
    from tqdm import tqdm

    step, theta, h = problem.recurrence.step, problem.theta, problem.h0
    states = np.empty(problem.shape, h.dtype)
    inputs: Any = itertools.repeat(None) if problem.x is None else problem.x
    steps = tqdm(
        range(len(states)),
        desc="step loop",
        unit="step",
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    with np.errstate(all="ignore"):
        for t, x in zip(steps, inputs, strict=False):
            states[t] = h = step(h, x, theta)
    return states


def write_plot(path: Path, solution: Solution) -> None:
    """Draw the convergence of a solve into a file."""
    figure = solution.plot().figure
    kind = path.suffix[1:].lower()
    write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=200))


def print_traceback(error: Exception, problem: Problem) -> None:
    """Print where the user's step failed, without the frames of the package that called it."""
    code = getattr(problem.recurrence.step, "__code__", None)
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code is not code:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames or error.__traceback__)
    ours = not (frames or hasattr(error, "__notes__"))  # a call that step refuses leaves no frame
    who = "unexpected" if ours else f"{problem.model} raised"
    print(f"{PROGRAM}: error: {who} {type(error).__name__} (see above)", file=sys.stderr)
