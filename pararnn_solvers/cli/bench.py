"""``pararnn-solvers bench``: this package against what else computes a recurrence."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pararnn_solvers.bench import picture, report
from pararnn_solvers.bench.cases import choose
from pararnn_solvers.bench.timing import run_case
from pararnn_solvers.cli.files import check_destination, write_whole
from pararnn_solvers.cli.info import gather, version_of
from pararnn_solvers.errors import PararnnError
from pararnn_solvers.linear import threads

INTRODUCTION = """\
Turns: {repeats}; threads: {threads}. Medians over the turns, quartiles in parentheses. A
contestant is timed only after its answer agreed with a NumPy loop; the first call, in which
compilers run, is not in the medians. "map" applies f once to given states: the floor."""


def run_bench(args: Namespace) -> int:
    """Run what the arguments ask for, and return the exit status."""
    if args.list:
        print(report.listing())
        return 0
    cases = choose(args.case)
    json_file = args.json and check_destination(args.json, (".json",), "--json", args.force)
    plot = args.plot and check_destination(
        args.plot, (".png", ".svg", ".pdf"), "--plot", args.force
    )
    results = {}
    with limited(args.threads):
        print(INTRODUCTION.format(repeats=args.repeats, threads=threads.num_threads()))
        for case in cases:
            say(f"{case.name} ...")
            results[case.name] = run_case(case, args.repeats)
            print(f"\n{report.table(case, results[case.name])}", flush=True)
        environment = {**gather(), "pararnn-torch": version_of(("pararnn-torch",))}
    if json_file:
        text = report.as_json(results, args.repeats, environment)
        write_whole(json_file, lambda file: file.write(f"{text}\n".encode()))
    if plot:
        write_plot(plot, results)
    for path in filter(None, (json_file, plot)):
        print(f"wrote {path}")
    failed = report.failures(results)
    if failed:
        raise PararnnError(f"this package gave no right answer in: {'; '.join(failed)}")
    return 0


def say(text: str) -> None:
    """Tell who waits at a terminal what is going on."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def write_plot(path: Path, results: Any) -> None:
    """Draw the results into a file."""
    figure = picture.draw(results)
    kind = path.suffix[1:].lower()
    write_whole(path, lambda file: figure.savefig(file, format=kind, dpi=200))


@contextmanager
def limited(count: int | None) -> Iterator[None]:
    """Let all libraries use this many threads, or leave everything as it is.

    The process is bound to as many processors where the system can do that, since not every
    library has a setting. Threads of this process that exist already are bound, too.
    """
    if count is None:
        yield
        return
    before = threads.num_threads()
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    threads.set_num_threads(count)
    bind(set(sorted(allowed)[:count]))
    try:
        yield
    finally:
        bind(allowed)
        threads.set_num_threads(before)


def bind(processors: set[int]) -> None:
    """Bind every thread of this process to these processors; to none in particular if empty."""
    tasks = Path("/proc/self/task")
    if not processors or not tasks.is_dir():
        return
    for task in tasks.iterdir():
        try:
            os.sched_setaffinity(int(task.name), processors)
        except OSError:  # it has ended meanwhile
            continue
