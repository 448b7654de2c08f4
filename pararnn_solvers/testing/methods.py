"""Checks of a method that somebody wrote: it solves systems, by the rules of `solvers.Method`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers import solvers
from pararnn_solvers.api import load_backend
from pararnn_solvers.solvers.newton import Newton
from pararnn_solvers.solvers.step_length import full_step
from pararnn_solvers.testing import (
    method_arrays,
    method_batches,
    method_conduct,
    method_form,
    method_solutions,
    method_statuses,
)
from pararnn_solvers.testing.method_problems import Subject
from pararnn_solvers.testing.results import (
    Check,
    CheckResult,
    chosen,
    explained,
    require_dtypes,
    run,
)

ALL: dict[str, Callable[[Subject], str | None]] = {
    **method_form.CHECKS,
    **method_solutions.CHECKS,
    **method_statuses.CHECKS,
    **method_batches.CHECKS,
    **method_conduct.CHECKS,
    **method_arrays.CHECKS,
}
FIRST = (
    "solutions_are_well_formed",
    "inputs_are_not_mutated",
    "dtype_is_kept",
    "solution_is_the_rollout",
    "max_iter_is_obeyed",
    "a_solved_guess_takes_no_iteration",
    "batch_is_each_sequence_alone",
)
CHECKS = {**{name: ALL[name] for name in FIRST}, **ALL}
"""Name of every check of a method -> the check, in the order in which they run: what may be the
cause of other failures comes first."""

DTYPES = (np.float32, np.float64)


def check_method(
    method: str | solvers.Method,
    *,
    full_steps: bool | None = None,
    newton: bool | None = None,
    backend: Any = "auto",
    compiled: bool = False,
    dtypes: Iterable[Any] = DTYPES,
    checks: Iterable[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    on_failure: str = "raise",
    callback: Callable[[CheckResult], object] | None = None,
) -> list[CheckResult]:
    """Check that a method solves recurrences by the rules of :class:`solvers.Method`.

    Parameters
    ----------
    method : str or method
        What ``prs.solve(method=...)`` takes: a name, a value such as ``newton(chunk=64)``, or any
        object with ``solve(system, guess, scan, stopping, observe)``.
    full_steps, newton : bool, optional
        Whether the method takes full steps, which make the prefix exact, and whether it is Newton's
        with the exact A, which solves linear recurrences in one iteration. None: as a
        :class:`Newton` value says; of any other object both are expected.
    backend, compiled
        As of :func:`~pararnn_solvers.solve`; by default no kernels are compiled.
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
    InvalidInput
        For what is no method.

    Notes
    -----
    Cost: some 120 solves of at most 33 steps for each dtype.

    Examples
    --------
    >>> results = check_method("newton", checks=["max_iter_is_obeyed"])
    >>> results[0].outcome
    'passed'
    """
    options = {"full_steps": full_steps, "newton": newton, "backend": backend, "compiled": compiled}
    __tracebackhide__ = True  # of pytest: what is raised speaks for itself
    bound = dict(method_checks(method, dtypes=dtypes, **options))
    selected = [(name, bound[name]) for name in chosen(CHECKS, checks)]
    return run(selected, expected_failures, on_failure, callback)


def method_checks(
    method: str | solvers.Method,
    *,
    full_steps: bool | None = None,
    newton: bool | None = None,
    backend: Any = "auto",
    compiled: bool = False,
    dtypes: Iterable[Any] = DTYPES,
) -> Iterator[Check]:
    """Yield the checks of a method, each a name and a function without arguments.

    Examples
    --------
    >>> dict(method_checks("newton"))["linear_recurrences_take_one_iteration"]()
    """
    loaded = solvers.load(method)
    load_backend(backend)  # an unknown one is an error here, and no failure of the method
    subject = Subject(
        loaded,
        require_dtypes(dtypes),
        {"backend": backend, "compiled": compiled},
        no_full_steps=reason(loaded, full_steps, "step_length", full_step, "take full steps"),
        no_newton=reason(loaded, newton, "is_plain", True, "use the exact A and full steps"),
        window=getattr(loaded, "window", None),
    )
    form = partial(method_form.solutions_are_well_formed, subject)
    return (
        (name, partial(explained, partial(check, subject), form)) for name, check in CHECKS.items()
    )


def reason(method: Any, declared: bool | None, field: str, value: Any, what: str) -> str:
    """Return why a promise is not made: as it was declared, or as a Newton value says."""
    if declared is None:
        declared = not isinstance(method, Newton) or getattr(method, field) == value
    return "" if declared else f"{method} does not {what}"
