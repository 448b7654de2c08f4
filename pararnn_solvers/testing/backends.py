"""Checks of a backend that somebody wrote: it solves linear recurrences, by the rules of `Scan`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import Scan, load
from pararnn_solvers.testing import backend_conduct, backend_solutions
from pararnn_solvers.testing.backend_conduct import results_are_new_arrays
from pararnn_solvers.testing.backend_systems import Subject
from pararnn_solvers.testing.results import (
    Check,
    CheckResult,
    chosen,
    explained,
    require_dtypes,
    run,
)

FIRST = ("results_are_new_arrays", "inputs_are_not_mutated", "equal_inputs_give_equal_bits")
CHECKS: dict[str, Callable[[Subject], str | None]] = {
    **{name: backend_conduct.CHECKS[name] for name in FIRST},
    **backend_solutions.CHECKS,
    **backend_conduct.CHECKS,
}
"""Name of every check of a backend -> the check, in the order in which they run: what may be the
cause of other failures comes first."""

DTYPES = (np.float32, np.float64)


def check_backend(
    scan: str | Scan,
    *,
    dtypes: Iterable[Any] = DTYPES,
    checks: Iterable[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    on_failure: str = "raise",
    callback: Callable[[CheckResult], object] | None = None,
) -> list[CheckResult]:
    """Check that a backend solves linear recurrences by the rules of :class:`linear.Scan`.

    Parameters
    ----------
    scan : str or callable
        A registered name, or ``scan(blocks, rhs, *, adjoint=False)``. It is given NumPy arrays:
        wrap a backend for devices in one that copies to them and back.
    dtypes : iterable of dtype
        float32 and float64 by default.
    checks : iterable of str, optional
        Names of those to run; all by default.
    expected_failures : mapping of str to str, optional
        From names of checks to reasons why they fail. One that passes fails.
    on_failure : {"raise", "warn", "return"}
    callback : callable, optional
        Is given each :class:`CheckResult` as it comes.

    Returns
    -------
    list of CheckResult

    Raises
    ------
    CheckFailures
        With ``on_failure="raise"``: says what was promised, what was seen, and what to do.
    InvalidInput, BackendUnavailable
        The backend is unknown, or cannot run here.

    Notes
    -----
    Cost: about a thousand scans of at most 4097 steps, and their solutions in long double.
    Solutions are compared within the rounding errors that any order of sums and products may make.

    Examples
    --------
    >>> results = check_backend("sequential", checks=["first_block_is_never_used"])
    >>> results[0].outcome
    'passed'
    """
    __tracebackhide__ = True  # of pytest: what is raised speaks for itself
    bound = dict(backend_checks(scan, dtypes=dtypes))
    selected = [(name, bound[name]) for name in chosen(CHECKS, checks)]
    return run(selected, expected_failures, on_failure, callback)


def backend_checks(scan: str | Scan, *, dtypes: Iterable[Any] = DTYPES) -> Iterator[Check]:
    """Yield the checks of a backend, each a name and a function without arguments.

    Examples
    --------
    >>> dict(backend_checks("sequential"))["subnormals_are_kept"]()
    """
    if isinstance(scan, str):
        scan = load(scan)
    if isinstance(scan, type) or not callable(scan):
        raise InvalidInput(f"scan is {scan!r}; expected a registered name or a function")
    subject = Subject(scan, require_dtypes(dtypes))
    form = partial(results_are_new_arrays, subject)
    return (
        (name, partial(explained, partial(check, subject), form)) for name, check in CHECKS.items()
    )
