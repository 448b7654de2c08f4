"""What a call takes: seconds in turns with others, bytes at its peak; and how to write them."""

from __future__ import annotations

import math
import platform
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pararnn_solvers.linear import alignment
from pararnn_solvers.typing import Array

PAUSE = 0.03
"""Seconds between calls, in which the threads of the library that was called go to sleep: those of
OpenBLAS wait busily for 2**26 cycles, and would take a core from whoever is timed next."""
WARM = 0.15
"""Seconds for which a call is repeated before it is timed: idle cores are slow to wake."""
Quartiles = tuple[float, float, float]
"""25 %, 50 %, 75 %."""


def stopwatch(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds a call takes, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def turns(calls: Sequence[Callable[[], Any]], repeats: int, budget: float = math.inf) -> Array:
    """Return the seconds of each call (columns) in each turn (rows).

    A turn times each once and starts with the next one, so that what else the machine does meets
    all alike. A short call is repeated before it is timed, as if in a loop: what others left
    in caches, and cores that had gone to sleep, would take longer than it does. A call that has
    used up its budget of seconds is left out of later turns: NaN.
    """
    seconds = np.full((repeats, len(calls)), np.nan)
    for turn in range(repeats):
        for i in np.roll(np.arange(len(calls)), -turn).tolist():
            if np.nansum(seconds[:, i]) < budget:
                time.sleep(PAUSE)
                seconds[turn, i] = warm(calls[i])
    return seconds


def warm(call: Callable[[], Any]) -> float:
    """Return the seconds of a call, the last of as many in a row as take 150 ms together."""
    began = time.perf_counter()
    while True:
        seconds = stopwatch(call)[0]
        if time.perf_counter() - began >= WARM:
            return seconds


def quartiles(values: Array) -> Quartiles:
    """Return the quartiles of the values that are not NaN."""
    low, middle, high = np.nanpercentile(values, [25, 50, 75])
    return float(low), float(middle), float(high)


def peak_memory(call: Callable[[], Any]) -> int:
    """Return the bytes that a call has allocated at its peak, beyond those that were before it.

    Counted by tracemalloc: what Python and NumPy allocate, from any thread. What libraries take
    from the system themselves (LAPACK's workspace, machine code) is not seen. Memory that the
    package keeps for later use is given back first, so that it counts where it is used. Slow:
    never time this call.
    """
    alignment.forget()
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        call()
        return max(0, tracemalloc.get_traced_memory()[1] - before)
    finally:
        if not was_tracing:
            tracemalloc.stop()


def significant(value: float, digits: int) -> str:
    """Return a number with that many significant digits at least, and no exponent."""
    if not 0 < value < math.inf:
        return str(value)
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(value)))}f}"


def processor() -> str:
    """Return the name of the processor, or what Python calls its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
