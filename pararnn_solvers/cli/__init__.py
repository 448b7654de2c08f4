"""The command ``pararnn-solvers``: what it returns to the shell, and how it fails.

Exit status: 0 solved; 1 the solve failed; 2 the arguments cannot be used as they are; 130 Ctrl-C;
141 nobody reads what is printed any more.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from pararnn_solvers.cli.arguments import PROGRAM, parse
from pararnn_solvers.errors import (
    BackendUnavailable,
    InvalidInput,
    NotDifferentiable,
    PararnnError,
)

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments after the name of the program; by default those of the process.

    Examples
    --------
    >>> main(["solve", "--limit", "0"])  # on stderr: expected a whole number of at least 1 ...
    2
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an old terminal must not end a solve
            stream.reconfigure(errors="backslashreplace")
    try:
        status = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, where a closed pipe is still handled
        return status
    except BrokenPipeError:
        # What is left in the buffer would raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        complain("interrupted; no file is left half-written")
        return 130
    except (InvalidInput, NotDifferentiable, BackendUnavailable) as error:
        complain(error)
        return 2
    except (PararnnError, MemoryError, OSError) as error:
        complain(error)
        return 1


def run(argv: list[str]) -> int:
    """Do what the arguments ask for."""
    try:
        args = parse(argv)
    except SystemExit:  # --help and --version end like this; errors do not
        return 0
    # Here and not above: --help and wrong use should not wait for them.
    if args.command == "info":
        from pararnn_solvers.cli.info import print_info

        return print_info(args.json)
    if args.command == "compare":
        from pararnn_solvers.cli.compare import run_compare

        return run_compare(args)
    if args.command == "bench":
        from pararnn_solvers.cli.bench import run_bench

        return run_bench(args)
    if args.command == "plan":
        from pararnn_solvers.cli.plan import run_plan

        return run_plan(args)
    if args.command == "reproduce":
        from pararnn_solvers.cli.reproduce import run_reproduce

        return run_reproduce(args)
    from pararnn_solvers.cli.solve import run_solve

    return run_solve(args)


def complain(reason: object) -> None:
    """Print one line on stderr."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    print(f"{PROGRAM}: error: {text}", file=sys.stderr)
