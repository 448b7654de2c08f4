"""``pararnn-solvers bench``: this package against what else computes a recurrence."""

from __future__ import annotations

import os
import sys
import time
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
from pararnn_solvers.errors import InvalidInput, PararnnError
from pararnn_solvers.linear import cuda, threads

INTRODUCTION = """\
Turns: {repeats}; threads: {threads}. Medians over the turns, quartiles in parentheses. A
contestant is timed only after its answer agreed with a NumPy loop; the first call, in which
compilers run, is not in the medians. "map" applies f once to given states: the floor."""

TRAINING = """\
Turns: {repeats}; threads: {threads}. Medians over the turns, quartiles in parentheses. A step is
the forward and the backward pass, by inputs and weights, without an optimizer. A contestant that
computes the same is timed only after its gradients agreed with a loop in float64."""

ON_GPU = """\
{card}, CuPy {CuPy}. Turns: {repeats} at most. Medians over the turns, quartiles in parentheses,
times by CUDA events with a cold cache. A contestant is timed only after its answer agreed with a
loop in float64 on some lanes, and with one step from each state on all. "copy" reads and writes as
many bytes as the case must: the floor; "map" applies f once to given states: the second."""
ON_GPU_PACKAGES = ("triton", "accelerated-scan", "pararnn-torch", "nvidia-cudnn-cu13", "jaxlib")
REPEATS, REPEATS_ON_GPU, SECONDS_ON_GPU = 5, 20, 400


def run_bench(args: Namespace) -> int:
    """Run what the arguments ask for, and return the exit status."""
    if args.train:
        return run_training(args)
    if args.backend == "cupy":
        return run_on_gpu(args)
    if args.seconds is not None:
        raise InvalidInput("--seconds is of the benchmark on a GPU; add --backend cupy")
    repeats = args.repeats or REPEATS
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
        print(INTRODUCTION.format(repeats=repeats, threads=threads.num_threads()))
        for case in cases:
            say(f"{case.name} ...")
            results[case.name] = run_case(case, repeats)
            print(f"\n{report.table(case, results[case.name])}", flush=True)
        environment = {**gather(), "pararnn-torch": version_of(("pararnn-torch",))}
    if json_file:
        write_text(json_file, report.as_json(results, repeats, environment))
    if plot:
        write_plot(plot, picture.draw(results))
    for path in filter(None, (json_file, plot)):
        print(f"wrote {path}")
    return finish(report.failures(results))


def run_training(args: Namespace) -> int:
    """Time a training step in PyTorch, and return the exit status."""
    from pararnn_solvers.bench import train

    unfit = {"--backend": args.backend != "numba", "--seconds": args.seconds, "--list": args.list}
    unfit |= {"--case": args.case, "--plot": args.plot}
    if named := [name for name, given in unfit.items() if given]:
        raise InvalidInput(f"{' and '.join(named)} cannot be used with --train; leave one out")
    json_file = args.json and check_destination(args.json, (".json",), "--json", args.force)
    repeats = args.repeats or REPEATS
    with limited(args.threads):
        print(TRAINING.format(repeats=repeats, threads=threads.num_threads()))
        say(f"{train.CASE.name} ...")
        results = train.run(train.CASE, repeats)
        print(f"\n{train.text(train.CASE, results)}", flush=True)
        environment = {**gather(), "pararnn-torch": version_of(("pararnn-torch",))}
    if json_file:
        write_text(json_file, train.as_json(train.CASE, results, repeats, environment))
        print(f"wrote {json_file}")
    return finish(report.failures({train.CASE.name: results}))


def say(text: str) -> None:
    """Tell who waits at a terminal what is going on."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def run_on_gpu(args: Namespace) -> int:
    """Run the benchmark on a GPU, and return the exit status."""
    from pararnn_solvers.bench.gpu import cases, machine, targets
    from pararnn_solvers.bench.gpu import picture as pictures
    from pararnn_solvers.bench.gpu import report as reports
    from pararnn_solvers.bench.gpu import timing as timings

    if args.threads is not None:
        raise InvalidInput("--threads is of the benchmark on the CPU; leave it or --backend out")
    if args.list:
        print(reports.listing())
        return 0
    rows = cases.choose(args.case)
    cuda.cupy()  # without a GPU, say so before anything else
    json_file = args.json and check_destination(args.json, (".json",), "--json", args.force)
    folder = args.plot and check_folder(args.plot, args.force)
    limits = timings.Limits(
        args.repeats or REPEATS_ON_GPU, time.monotonic() + (args.seconds or SECONDS_ON_GPU)
    )
    environment = {
        **machine.card(),
        "state before": machine.state(),
        **gather(),
        **{name: version_of((name,)) for name in ON_GPU_PACKAGES},
    }
    print(ON_GPU.format(repeats=limits.repeats, **environment))
    results = {}
    for row in rows:
        say(f"{row.case.name} ...")
        results[row.case.name] = timings.run_case(row, limits)
        print(f"\n{reports.table(row, results[row.case.name])}", flush=True)
        if json_file:  # each time: what was measured must survive what comes
            now = {**environment, "state after": machine.state()}
            write_text(json_file, reports.as_json(results, limits.repeats, now))
    print(f"\n{targets.table(results)}")
    written = [json_file] if json_file else []
    if folder:
        folder.mkdir(exist_ok=True)
        for name, figure in pictures.draw(results).items():
            written.append(folder / f"{name}.png")
            write_plot(written[-1], figure)
    for path in written:
        print(f"wrote {path}")
    return finish(reports.failures(results))


def finish(failed: list[str]) -> int:
    """Return the exit status, if this package was right everywhere.

    Raises
    ------
    PararnnError
    """
    if failed:
        raise PararnnError(f"this package gave no right answer in: {'; '.join(failed)}")
    return 0


def check_folder(name: str, force: bool) -> Path:
    """Return the folder for pictures, which may be new, if nothing in it would be lost.

    Raises
    ------
    InvalidInput
    """
    folder = Path(name).resolve()
    if not (folder.is_dir() or (folder.parent.is_dir() and not folder.exists())):
        raise InvalidInput(
            f"--plot is {name!r}; expected a folder, or a new one in a folder that exists"
        )
    lost = [] if force else [file.name for file in folder.glob("*.png")]
    if lost:
        raise InvalidInput(
            f"--plot is {name!r}, which has {', '.join(sorted(lost))}; pass --force to overwrite, "
            "or name another folder"
        )
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a text and the end of its last line."""
    write_whole(path, lambda file: file.write(f"{text}\n".encode()))


def write_plot(path: Path, figure: Any) -> None:
    """Write a figure into a file."""
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
