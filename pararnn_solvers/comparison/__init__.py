"""Solvers side by side on one problem: what each needs, and how far it is from the rollout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from pararnn_solvers import api, arrays
from pararnn_solvers.checks import require_number, require_whole
from pararnn_solvers.comparison.entrants import admit, examine, line_up
from pararnn_solvers.comparison.row import Row
from pararnn_solvers.comparison.table import Comparison
from pararnn_solvers.distributed import require_one_process
from pararnn_solvers.errors import BackendUnavailable, InvalidInput
from pararnn_solvers.measure import peak_memory, turns
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

__all__ = ["METHODS", "Comparison", "Row", "compare"]

METHODS = ("newton", "damped_newton", "quasi_newton", "levenberg_marquardt", "windowed", "auto")
"""What is compared when no methods are named."""
OPTIONS = ("steps", "lengths", "resets", "guess", "atol", "rtol", "max_iter", "compiled")
"""Arguments of ``solve`` that are the same for all."""


def compare(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    methods: Sequence[Any] = METHODS,
    backends: Sequence[Any] = ("auto",),
    repeats: int = 5,
    budget: float = 1.0,
    progress: bool = False,
    **options: Any,
) -> Comparison:
    """Return what each method needs with each backend, and its error against the rollout.

    Nothing that one method does ends the comparison: one that fails is a row with its status, one
    that cannot be applied (a backend that is not installed, blocks that would not fit in memory) a
    row with the reason. Only what the rollout cannot use either is an error.

    Parameters
    ----------
    recurrence, x, h0, theta
        As for :func:`solve`.
    methods : sequence of str or methods
        Names out of ``solvers.METHODS`` or values such as ``newton(chunk=64)``.
    backends : sequence of str or scans
        As for :func:`solve`. Each method is run with each.
    repeats : int
        Turns to time; in a turn each row is called once, and each turn starts with the next row.
    budget : float
        Seconds: a row that has taken so long in all is left out of later turns; of one whose
        single call takes longer, no memory is given.
    progress : bool
        Show a progress bar on stderr.
    **options
        `steps`, `lengths`, `resets`, `guess`, `atol`, `rtol`, `max_iter`, `compiled` of
        :func:`solve`.

    Returns
    -------
    Comparison
        Its first row is the rollout, ``sequential()``, with which all others are compared.

    Raises
    ------
    InvalidInput
        The problem, or the name of a method, a backend or an option, is not what was expected.

    Notes
    -----
    Each row is called once apart, which imports and compiles what rows before it did not; then at
    most `repeats` times; and, unless that takes longer than `budget`, once more with its memory
    traced, which is up to four times slower. Its seconds are the median and the quartiles of the
    `repeats`. Its memory is the greatest sum of what Python and NumPy have
    allocated during a call, beyond what was allocated before, states included, as tracemalloc
    counts it; not what LAPACK takes from the system itself. None is given for arrays on a device.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> x = np.sin(np.arange(1000.0))[:, None]
    >>> step = prs.Recurrence(lambda h, x, a: np.tanh(a * h + x), block_size=1)
    >>> found = prs.compare(step, x, np.zeros(1), 0.5, methods=["newton", "jacobi"], repeats=1)
    >>> [(row.method, row.status, row.iterations) for row in found]
    [('sequential()', 'SEQUENTIAL', 0), ('newton()', 'CONVERGED', 4), ('jacobi()', 'CONVERGED', 21)]
    """
    require_whole("repeats", repeats)
    require_number("budget", budget, lambda seconds: seconds > 0, "seconds, more than 0")
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise InvalidInput(f"compare was given {unknown}; expected options out of {list(OPTIONS)}")
    methods, backends = listed(methods), listed(backends)
    for backend in backends:
        require_one_process("compare", {"backend": backend})
        with suppress(BackendUnavailable):  # which becomes a row; a wrong name does not
            api.load_backend(backend)
    field = line_up((recurrence, x, h0, theta), methods, backends, options)
    with counter(len(field) * (1 + repeats), progress) as tick:
        rollout, states = examine(field[0], None)
        truth = arrays.on_host(states)
        tick()
        rows = [rollout]
        for entrant in field[1:]:
            rows.append(admit(entrant, truth))
            tick()
        timed = [i for i, row in enumerate(rows) if row.first_call is not None]
        seconds = turns([ticking(field[i].solve, tick) for i in timed], repeats, budget)
    for column, i in enumerate(timed):
        rows[i] = rows[i].with_times(seconds[:, column])
        if not arrays.is_device_array(states) and np.nanmedian(seconds[:, column]) <= budget:
            rows[i] = rows[i].with_memory(peak_memory(field[i].solve))
    return Comparison(tuple(rows), describe(truth), repeats)


def listed(values: Any) -> list[Any]:
    """Return several values, or the one that was given without a list, as a list."""
    return [values] if isinstance(values, str) or not isinstance(values, Iterable) else [*values]


def describe(h: Array) -> str:
    """Return what was solved, by the shape of its trajectory."""
    T, *batch, d = h.shape
    sequences = f" × {math.prod(batch)} sequences" if batch else ""
    return f"{T} steps{sequences} × {d} states, {h.dtype}"


@contextmanager
def counter(total: int, progress: bool) -> Iterator[Callable[[], object]]:
    """Yield what counts the calls, on a progress bar if so asked."""
    if not progress:
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="call", leave=False) as bar:
        yield bar.update


def ticking(call: Callable[[], Any], tick: Callable[[], object]) -> Callable[[], Any]:
    """Return a call that counts."""

    def counted() -> None:
        call()
        tick()

    return counted
