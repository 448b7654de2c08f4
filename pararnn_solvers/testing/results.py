"""What a check says: a result, a failure that names the defect, and a run of many checks."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pararnn_solvers.errors import InvalidInput

Outcome = Literal["passed", "failed", "skipped", "expected"]
Check = tuple[str, Callable[[], str | None]]
ON_FAILURE = ("raise", "warn", "return")


class CheckFailed(AssertionError):
    """A promise that was not kept.

    Attributes
    ----------
    promised, seen, remedy : str
        What holds for every correct object of this kind; the offending index and both values;
        what to do.

    Examples
    --------
    >>> CheckFailed('f keeps shapes', 'shape (3,)', 'return (..., d)').remedy
    'return (..., d)'
    """

    def __init__(self, promised: str, seen: str, remedy: str) -> None:
        super().__init__(f"promised: {promised}\nseen:     {seen}\nremedy:   {remedy}")
        self.promised, self.seen, self.remedy = promised, seen, remedy

    def __reduce__(self) -> tuple[type[CheckFailed], tuple[str, str, str]]:
        return type(self), (self.promised, self.seen, self.remedy)


class Inapplicable(Exception):
    """A check has nothing to look at here; the message says why. The check is skipped.

    Examples
    --------
    >>> str(Inapplicable('there is no jacobian= to compare'))
    'there is no jacobian= to compare'
    """


class CheckWarning(UserWarning):
    """What ``on_failure="warn"`` emits for each failed check.

    Examples
    --------
    >>> issubclass(CheckWarning, UserWarning)
    True
    """


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    Attributes
    ----------
    name : str
    outcome : {"passed", "failed", "skipped", "expected"}
        ``expected``: failed, and listed in ``expected_failures``.
    message : str
        What a failure, or the reason to skip, says; for some checks what was measured.
    seconds : float

    Examples
    --------
    >>> CheckResult('shapes', 'passed', '', 0.1).outcome
    'passed'
    """

    name: str
    outcome: Outcome
    message: str
    seconds: float


class CheckFailures(AssertionError):
    """Some checks failed; each says what was promised, what was seen, and what to do.

    Attributes
    ----------
    results : list of CheckResult
        Of all checks.

    Examples
    --------
    >>> failed = CheckResult('shapes', 'failed', 'what was seen', 0.1)
    >>> str(CheckFailures([failed])).splitlines()[0]
    '1 of 1 checks failed'
    """

    def __init__(self, results: list[CheckResult]) -> None:
        failed = [result for result in results if result.outcome == "failed"]
        texts = [f"{result.name}\n{result.message}" for result in failed]
        super().__init__(f"{len(failed)} of {len(results)} checks failed\n\n" + "\n\n".join(texts))
        self.results = results

    def __reduce__(self) -> tuple[type[CheckFailures], tuple[list[CheckResult]]]:
        return type(self), (self.results,)


def run(
    checks: Iterable[Check],
    expected_failures: Mapping[str, str] | None = None,
    on_failure: str = "raise",
    callback: Callable[[CheckResult], object] | None = None,
) -> list[CheckResult]:
    """Run checks one after another, all of them, and return their results.

    Parameters
    ----------
    checks : iterable of (str, callable)
        A check returns None or what it measured, raises CheckFailed, or Inapplicable.
    expected_failures : mapping of str to str, optional
        From names to reasons. One of these that passes fails: the reason has gone.
    on_failure : {"raise", "warn", "return"}
        After all have run: raise CheckFailures, warn of each, or only return.
    callback : callable, optional
        Is given each result as it comes.
    """
    if on_failure not in ON_FAILURE:
        raise InvalidInput(f"on_failure is {on_failure!r}; expected one of {list(ON_FAILURE)}")
    checks, expected = list(checks), dict(expected_failures or {})
    require_known("expected_failures", expected, [name for name, _ in checks])
    results = []
    for check in checks:
        results.append(_result(check, expected))
        if callback is not None:
            callback(results[-1])
    return _reported(results, on_failure)


def require_known(argument: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise InvalidInput if a name is not that of a check."""
    known = list(known)
    for name in names:
        if name not in known:
            raise InvalidInput(f"{argument} has {name!r}; expected names among {known}")


def chosen(
    checks: Mapping[str, Callable[..., str | None]], names: Iterable[str] | None
) -> list[str]:
    """Return the names of the checks to run, in their order: all if none are given."""
    if names is None:
        return list(checks)
    if isinstance(names, str):
        raise InvalidInput(f"checks is {names!r}; expected several names: [{names!r}]")
    names = set(names)
    require_known("checks", sorted(names), checks)
    return [name for name in checks if name in names]


def _result(check: Check, expected: Mapping[str, str]) -> CheckResult:
    name, function = check
    start = time.perf_counter()
    outcome, message = _outcome(function)
    if name in expected:
        if outcome == "failed":
            outcome, message = "expected", f"{expected[name]}\n{message}"
        elif outcome == "passed":
            outcome = "failed"
            message = (
                f"promised: this check fails: {expected[name]}\nseen:     it passes\n"
                "remedy:   take it out of expected_failures"
            )
    return CheckResult(name, outcome, message, time.perf_counter() - start)


def _outcome(function: Callable[[], str | None]) -> tuple[Outcome, str]:
    try:
        return "passed", function() or ""
    except Inapplicable as reason:
        return "skipped", str(reason)
    except CheckFailed as failure:
        return "failed", str(failure)
    except Exception as error:
        return "failed", (
            "promised: what is checked runs without an error\n"
            f"seen:     {type(error).__name__}: {error}\n"
            "remedy:   see the message; call the same function by hand for the traceback"
        )


def _reported(results: list[CheckResult], on_failure: str) -> list[CheckResult]:
    failed = [result for result in results if result.outcome == "failed"]
    if failed and on_failure == "raise":
        raise CheckFailures(results)
    if on_failure == "warn":
        for result in failed:
            warnings.warn(f"{result.name}\n{result.message}", CheckWarning, stacklevel=4)
    return results
