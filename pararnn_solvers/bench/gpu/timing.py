"""Times on a GPU: every contestant is checked, then all take turns between CUDA events.

Before each call a large array is written: it pushes what the call reads out of the cache, and while
the GPU writes it, the host queues the call. So a kernel is timed without what launching it takes
the host. A call that waits for the GPU at its beginning, as end-to-end solves and JAX do here, is
timed with all that the host does.

A turn calls every contestant once, each turn starting with the next one, so that changes of clocks
and temperature meet all alike; ratios are taken within a turn. Nobody may use up the time of all:
who is slow is timed once, and marked.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.bench.contestants import Contestant, NotComparable, Variant
from pararnn_solvers.bench.gpu import work as works
from pararnn_solvers.bench.gpu.cases import COPY, OURS, Row, least_bytes
from pararnn_solvers.bench.gpu.contestants import CONTESTANTS
from pararnn_solvers.bench.gpu.work import Work
from pararnn_solvers.linear import cuda
from pararnn_solvers.measure import Quartiles

FLUSHED_BYTES = 1 << 30
"""Bytes written before a call, a sixteenth of the free memory at most: 0.2 ms of a H200."""
SLOW = 0.5
"""Seconds of a call that is not repeated."""
TURNS_SECONDS = 6.0
"""Seconds for the turns of a case; the turn that has begun is finished."""


@dataclass(frozen=True)
class Result:
    """What became of a contestant in a case.

    Parameters
    ----------
    status : {"timed", "wrong", "not installed", "not comparable", "failed", "not run"}
    reason : str
        Why it is not timed, or a remark on how it was.
    seconds : tuple of three floats, optional
        Quartiles of the time of a call.
    of_copy, ratio : tuple of three floats, optional
        Quartiles of a copy's time over its own, and of its time over this package's, for as many
        steps.
    runs : int
        Times that were taken.
    first_call : float, optional
        Seconds of the first call by the host's clock, in which compilers run.
    error : float, optional
        As `work.error` measures it.
    steps : int, optional
        Steps that were timed.
    times : tuple of floats
        All times, turn by turn: those of one case were taken together. NaN where it took no part.
    """

    contestant: str
    status: str
    reason: str = ""
    seconds: Quartiles | None = None
    of_copy: Quartiles | None = None
    ratio: Quartiles | None = None
    runs: int = 0
    first_call: float | None = None
    error: float | None = None
    steps: int | None = None
    times: tuple[float, ...] = ()


class Entrant(NamedTuple):
    """A contestant whose answer is right, and what it took to get it the first two times."""

    name: str
    call: Callable[[], Any]
    steps: int
    first_call: float
    second_call: float
    error: float
    note: str


class Limits(NamedTuple):
    """How many turns a case may have, and when no more contestants are admitted."""

    repeats: int
    deadline: float = np.inf


def run_case(
    row: Row, limits: Limits, contestants: dict[str, Contestant] | None = None
) -> list[Result]:
    """Check and time those who compute a case; results come in the order of the contestants.

    Parameters
    ----------
    limits : Limits
        With the deadline by ``time.monotonic``.
    """
    field = CONTESTANTS if contestants is None else contestants
    if time.monotonic() > limits.deadline:
        return [late(name) for name in field if name in row.among]
    forget()
    work = works.prepare(works.make(row.case))
    short: dict[int, Work] = {}  # by steps

    def of_length(steps: int | None) -> Work:
        if steps is None or steps >= row.case.steps:
            return work
        if steps not in short:
            short[steps] = works.shortened(work, steps)
        return short[steps]

    clock = Clock()
    admitted = [
        admit(name, one, lambda one=one: of_length(one.longest), clock, limits.deadline)  # type: ignore[misc]
        for name, one in field.items()
        if name in row.among
    ]
    entrants = [one for one in admitted if isinstance(one, Entrant)]
    timed = iter(summarize(entrants, turns(entrants, limits.repeats, clock), row))
    return [next(timed) if isinstance(one, Entrant) else one for one in admitted]


def admit(
    name: str, contestant: Contestant, work: Callable[[], Work], clock: Clock, deadline: float
) -> Entrant | Result:
    """Return the fastest way of a contestant whose answers are right, or why there is none."""
    missing = contestant.missing()
    if missing:
        return Result(name, "not installed", f"needs {', '.join(missing)}")
    if time.monotonic() > deadline:
        return late(name)
    try:
        given = work()
        variants = contestant.variants(given)  # type: ignore[arg-type]
        ways = [enter(name, way, given, clock) for way in variants]
        wrong = next((way for way in ways if not way.error <= given.case.allowed), None)
    except NotComparable as reason:
        return Result(name, "not comparable", str(reason))
    except Exception as reason:  # the others must not suffer from what a library raises
        text = " ".join(f"{type(reason).__name__}: {reason}".split())
        return Result(name, "failed", text)
    if wrong is None:
        return min(ways, key=lambda way: way.second_call)
    note = f"off by {wrong.error:.1e}, allowed {given.case.allowed:.0e}"
    return Result(name, "wrong", f"{note} {wrong.note}".strip(), error=wrong.error)


def late(name: str) -> Result:
    """Return the result of a contestant that there was no time for."""
    return Result(name, "not run", "the time was up")


def enter(name: str, way: Variant, work: Work, clock: Clock) -> Entrant:
    """Call a variant for the first time and measure its error; then once more, for its time."""
    poison(work)
    start = time.perf_counter()
    result = way.call()
    clock.wait()
    seconds = time.perf_counter() - start
    parts = way.collect(result)
    off = 0.0 if parts is None else works.error(work, parts)
    note = way.note(result)
    del result, parts  # the next call may take their memory
    return Entrant(name, way.call, work.case.steps, seconds, clock.time(way.call), off, note)


def poison(work: Work) -> None:
    """Leave NaN in memory that this package's results may get, so that gaps in them show."""
    xp = cuda.cupy()
    left = [xp.full(v.shape, np.nan, v.dtype) for v in (work.x, work.h0)]
    left += [xp.full((work.case.steps, *work.h0.shape), np.nan, work.h0.dtype)]
    del left


class Clock:
    """CUDA events around calls, and the array that is written before them."""

    def __init__(self) -> None:
        xp = cuda.cupy()
        free, _ = xp.cuda.Device().mem_info
        self.array = xp.empty(min(FLUSHED_BYTES, free // 16) // 4, np.float32)
        self.events = xp.cuda.Event(), xp.cuda.Event()

    def wait(self) -> None:
        """Wait until the GPU has done everything."""
        cuda.cupy().cuda.runtime.deviceSynchronize()

    def time(self, call: Callable[[], Any]) -> float:
        """Return the seconds of a call."""
        start, end = self.events
        self.wait()
        self.array.fill(0)
        start.record()
        result = call()
        end.record()
        end.synchronize()
        del result
        return float(cuda.cupy().cuda.get_elapsed_time(start, end)) / 1000


def turns(entrants: Sequence[Entrant], repeats: int, clock: Clock) -> np.ndarray[Any, Any]:
    """Return the seconds of each entrant (columns) in each turn (rows); NaN where it sat out.

    Entrants that are slow take part in the first turn only.
    """
    seconds = np.full((repeats, len(entrants)), np.nan)
    start = time.monotonic()
    for turn in range(repeats):
        if turn and time.monotonic() - start > TURNS_SECONDS:
            return seconds[:turn]
        for i in np.roll(np.arange(len(entrants)), -turn).tolist():
            if turn == 0 or entrants[i].second_call < SLOW:
                seconds[turn, i] = clock.time(entrants[i].call)
    return seconds


def summarize(entrants: Sequence[Entrant], seconds: np.ndarray[Any, Any], row: Row) -> list[Result]:
    """Return quartiles of the times, and of their ratios to a copy and to this package."""
    by_step = seconds / [one.steps for one in entrants] if entrants else seconds
    columns = {one.name: by_step[:, i] for i, one in enumerate(entrants)}
    copy, ours = columns.get(COPY), columns.get(OURS[row.case.task])
    return [
        Result(
            one.name,
            "timed",
            one.note,
            quartiles(seconds[:, i]),
            None if copy is None else quartiles(copy / by_step[:, i]),
            None if ours is None else quartiles(by_step[:, i] / ours),
            int(np.isfinite(seconds[:, i]).sum()),
            one.first_call,
            one.error,
            one.steps,
            tuple(seconds[:, i].tolist()),
        )
        for i, one in enumerate(entrants)
    ]


def quartiles(values: np.ndarray[Any, Any]) -> Quartiles:
    """Return the quartiles of those that are numbers."""
    low, middle, high = np.nanpercentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def ratio(above: Result | None, below: Result | None) -> Quartiles | None:
    """Return the quartiles of one time over another, turn by turn and for as many steps."""
    if above is None or below is None or not (above.times and below.times):
        return None
    assert above.steps and below.steps
    pairs = np.array(above.times) / above.steps / (np.array(below.times) / below.steps)
    return quartiles(pairs)


def bandwidth(row: Row, result: Result) -> float | None:
    """Return the bytes a second, each array counted once."""
    if result.seconds is None or result.steps is None:
        return None
    return least_bytes(row.case) * result.steps / row.case.steps / result.seconds[1]


def forget() -> None:
    """Give back what the case before took, in all libraries that keep memory for later."""
    gc.collect()
    cuda.cupy().get_default_memory_pool().free_all_blocks()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.cuda.empty_cache()
        torch._dynamo.reset()  # what was compiled before counts against a limit
