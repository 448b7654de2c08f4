"""What a check says: a result, a failure that names the defect, and a run of many checks."""

from __future__ import annotations

import difflib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pararnn_solvers.errors import InvalidInput

Outcome = Literal["passed", "failed", "skipped", "expected"]
Check = tuple[str, Callable[[], str | None]]
ON_FAILURE = ("raise", "warn", "return")
MOST_SHOWN = 3  # failures in full: what comes after follows from them, more often than not
MOST_LETTERS = 250  # of the error of somebody's function
ERROR = "what is checked runs without an error"


class CheckFailed(AssertionError):
    """A promise that was not kept.

    Attributes
    ----------
    promised, seen, remedy : str
        What holds for every correct object of this kind; the offending index and both values;
        what to do.
    defect : str
        The name of the bug, where it can be told from others; then it is the first line.

    Examples
    --------
    >>> print(CheckFailed('f keeps shapes', 'shape (3,)', 'return (..., d)', 'an axis is lost'))
    defect:   an axis is lost
    promised: f keeps shapes
    seen:     shape (3,)
    remedy:   return (..., d)
    """

    def __init__(self, promised: str, seen: str, remedy: str, defect: str = "") -> None:
        parts = {"defect": defect, "promised": promised, "seen": seen, "remedy": remedy}
        lines = [f"{name + ':':<10}{text}" for name, text in parts.items() if text]
        super().__init__("\n".join(lines))
        self.promised, self.seen, self.remedy, self.defect = promised, seen, remedy, defect

    def __reduce__(self) -> tuple[type[CheckFailed], tuple[str, str, str, str]]:
        return type(self), (self.promised, self.seen, self.remedy, self.defect)


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

    Checks run in an order in which causes come before what follows from them: the first line names
    the first that failed, and no more than three are shown in full.

    Attributes
    ----------
    results : list of CheckResult
        Of all checks.

    Examples
    --------
    >>> failed = CheckResult('shapes', 'failed', 'seen:     shape (3,)', 0.1)
    >>> str(CheckFailures([failed])).splitlines()[0]
    '1 of 1 checks failed: shapes: shape (3,)'
    """

    def __init__(self, results: list[CheckResult]) -> None:
        failed = [result for result in results if result.outcome == "failed"]
        alike: dict[str, list[str]] = {}
        for result in failed:
            alike.setdefault(result.message, []).append(result.name)
        texts = [f"{listed(names)}\n{message}" for message, names in alike.items()]
        others = [f"{listed(n)}: {headline(m)}" for m, n in list(alike.items())[MOST_SHOWN:]]
        if others:
            others = ["these failed as well; mend the first ones first:", *others]
        first = f"{failed[0].name}: {headline(failed[0].message)}" if failed else ""
        parts = [f"{len(failed)} of {len(results)} checks failed: {first}", *texts[:MOST_SHOWN]]
        super().__init__("\n\n".join([*parts, *(["\n".join(others)] if others else [])]))
        self.results = results

    def __reduce__(self) -> tuple[type[CheckFailures], tuple[list[CheckResult]]]:
        return type(self), (self.results,)


def listed(names: list[str]) -> str:
    """Write the first few names, and how many more there are."""
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(names[:MOST_SHOWN]) + more


def headline(message: str) -> str:
    """Return one line that says what is wrong: the defect, or what was seen."""
    lines = dict(line.partition(":")[::2] for line in message.splitlines() if ":" in line)
    return (lines.get("defect") or lines.get("seen") or message).strip().partition("\n")[0]


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
    __tracebackhide__ = True
    if on_failure not in ON_FAILURE:
        raise InvalidInput(f"on_failure is {on_failure!r}; expected one of {list(ON_FAILURE)}")
    if not isinstance(expected_failures, (Mapping, type(None))):
        raise InvalidInput(
            f"expected_failures is {expected_failures!r}; expected a mapping from names of checks "
            "to reasons: {'name': 'why it fails'}"
        )
    if callback is not None and not callable(callback):
        raise InvalidInput(f"callback is {callback!r}; expected a function of a CheckResult")
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
            near = difflib.get_close_matches(str(name), known, 1, 0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidInput(f"{argument} has {name!r}; {hint}expected names among {known}")


def chosen(
    checks: Mapping[str, Callable[..., str | None]], names: Iterable[str] | None
) -> list[str]:
    """Return the names of the checks to run, in their order: all if none are given."""
    if names is None:
        return list(checks)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InvalidInput(f"checks is {names!r}; expected several names: [{names!r}]")
    names = set(names)
    if not names:
        raise InvalidInput("checks is empty: nothing would be checked; leave it out to run all")
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
            f"promised: {ERROR}\n"
            f"seen:     {type(error).__name__}: {brief(error)}\n"
            "remedy:   see the message; call the same function by hand for the traceback"
        )


def brief(error: Exception) -> str:
    """Return the first line of an error, cut where it is long."""
    line = next(iter(str(error).splitlines()), "")
    return line if len(line) <= MOST_LETTERS else line[:MOST_LETTERS] + " ..."


def _reported(results: list[CheckResult], on_failure: str) -> list[CheckResult]:
    __tracebackhide__ = True
    failed = [result for result in results if result.outcome == "failed"]
    if failed and on_failure == "raise":
        raise CheckFailures(results)
    if on_failure == "warn":
        for result in failed:
            warnings.warn(f"{result.name}\n{result.message}", CheckWarning, stacklevel=4)
    return results


def explained(check: Callable[[], str | None], form: Callable[[], str | None]) -> str | None:
    """Run a check; if it ends in an error, the check of the form may say better what is wrong.

    All checks of what cannot be called then fail in the same words, which are shown once.
    """
    try:
        return check()
    except (CheckFailed, Inapplicable):
        raise
    except Exception:
        form()
        raise


def require_dtypes(dtypes: Any) -> tuple[Any, ...]:
    """Return dtypes as a tuple; raise InvalidInput unless they are some of floating point."""
    try:
        found = tuple(dtypes)
        kinds = {np.dtype(dtype).kind for dtype in found}
    except TypeError:
        kinds = set()
    if not kinds or not kinds <= {"f", "V"}:  # V: bfloat16 of ml_dtypes
        raise InvalidInput(
            f"dtypes is {dtypes!r}; expected several of floating point: (np.float32,)"
        )
    return found
