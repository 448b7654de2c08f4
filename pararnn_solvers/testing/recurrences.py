"""Checks of a recurrence that somebody wrote: what solvers take for granted, looked at closely."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.testing import (
    character,
    contract,
    derivatives,
    digits,
    gradients,
    mixing,
    products,
    solutions,
    structure,
    traces,
)
from pararnn_solvers.testing.context import Context, make_context
from pararnn_solvers.testing.results import (
    Check,
    CheckFailed,
    CheckResult,
    Inapplicable,
    chosen,
    run,
)

CHECKS: dict[str, Callable[[Context], str | None]] = {
    **contract.CHECKS,
    **character.CHECKS,
    **mixing.CHECKS,
    **digits.CHECKS,
    **derivatives.CHECKS,
    **products.CHECKS,
    **structure.CHECKS,
    **traces.CHECKS,
    **solutions.CHECKS,
    **gradients.CHECKS,
}
"""Name of every check of a recurrence -> the check, in the order in which they run: what may be
the cause of other failures comes first."""


def check_recurrence(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    rtol: float | None = None,
    checks: Iterable[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    on_failure: str = "raise",
    callback: Callable[[CheckResult], object] | None = None,
) -> list[CheckResult]:
    """Check that a recurrence is what solvers take it for, near the trajectory of some data.

    Parameters
    ----------
    recurrence : Recurrence or callable
        ``step(h, x, theta)``, or a Recurrence that says more about it.
    x : array, shape (T, *batch, m), or None
        As of :func:`~pararnn_solvers.solve`; typical data. At most 16 steps of 3 sequences are
        used.
    h0 : array, shape (*batch, d)
    theta : nested containers of arrays, optional
    steps : int, optional
        T where x is None.
    rtol : float, optional
        The least relative tolerance of any comparison, where rounding of step is more than
        ``64 + d`` units in the last place. Every check has its own bound otherwise.
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
        With ``on_failure="raise"``: says for each failure what was promised, what was seen (which
        step, sequence, component; both values), and what to do.
    InvalidInput
        For arguments that ``solve`` would refuse, too.

    Notes
    -----
    Cost: some ``7 d + 700`` calls of step on at most 48 states, 13 solves among them, and one
    compilation if step can be compiled (then kept on disk). Passing proves no theorem: the
    recurrence is looked at near the states of this data only.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> cell = prs.Recurrence(lambda h, x, a: np.tanh(a * h + x), block_size=1)
    >>> x, h0, a = np.ones((6, 2)), np.zeros(2), np.array([0.5, -0.5])
    >>> results = check_recurrence(cell, x, h0, a, checks=["oracles_agree"])
    >>> results[0].outcome
    'passed'
    >>> wrong = prs.Recurrence(cell.step, jacobian=lambda h, x, a: -a * (1 - cell.step(h, x, a)**2))
    >>> try:
    ...     check_recurrence(wrong, x, h0, a, checks=["jacobian_is_the_derivative"])
    ... except AssertionError as failure:
    ...     print(str(failure).splitlines()[3])
    defect:   wrong sign: all entries have the other sign
    """
    __tracebackhide__ = True  # of pytest: what is raised speaks for itself
    names = chosen(CHECKS, checks)
    bound = dict(recurrence_checks(recurrence, x, h0, theta, steps=steps, rtol=rtol))
    selected = [(name, bound[name]) for name in names]
    return run(selected, expected_failures, on_failure, callback)


def recurrence_checks(
    recurrence: Recurrence | Callable[..., Any],
    x: Any,
    h0: Any,
    theta: Any = None,
    *,
    steps: int | None = None,
    rtol: float | None = None,
) -> Iterator[Check]:
    """Yield the checks of a recurrence, each a name and a function without arguments.

    A function returns None or what it measured; it raises CheckFailed, or Inapplicable with the
    reason why there is nothing to check. Arguments are those of :func:`check_recurrence`.

    Examples
    --------
    >>> import numpy as np
    >>> checks = dict(recurrence_checks(lambda h, x, a: a * h, None, np.ones(1), 0.5, steps=4))
    >>> checks["block_size_is_the_structure"]()
    """
    context = make_context(recurrence, x, h0, theta, steps, rtol)
    return ((name, partial(quietly, check, context)) for name, check in CHECKS.items())


def quietly(check: Callable[[Context], str | None], context: Context) -> str | None:
    """Run a check; what overflows in it ends in a message, not in NumPy's warnings.

    If step cannot be called at all, every check says so in the same words.
    """
    with np.errstate(all="ignore"):
        try:
            return check(context)
        except (CheckFailed, Inapplicable):
            raise
        except Exception as error:
            raise contract.refusal(context) or error from None


def parametrize_with_checks(cases: Iterable[tuple[Any, ...]]) -> Any:
    """Return a decorator that makes one pytest test of each check of each recurrence.

    The test takes one argument, ``check``, and calls it. What does not apply is skipped, with the
    reason. Needs pytest.

    Parameters
    ----------
    cases : iterable of (recurrence, x, h0, theta) or (recurrence, None, h0, theta, steps)

    Examples
    --------
    >>> import numpy as np
    >>> def decay(h, x, a):
    ...     return a * h + x
    >>> @parametrize_with_checks([(decay, np.ones((6, 1)), np.zeros(1), 0.5)])
    ... def test_decay(check):
    ...     check()
    >>> test_decay.pytestmark[0].kwargs["ids"][0]
    'decay-shapes_and_dtypes_are_kept'
    """
    import pytest

    functions, ids = [], []
    for number, case in enumerate(cases):
        if not (isinstance(case, tuple) and len(case) in (4, 5)):
            raise InvalidInput(
                f"cases[{number}] is {type(case).__name__}; expected a tuple (recurrence, x, h0, "
                "theta), with steps after it where x is None"
            )
        steps = case[4] if len(case) == 5 else None
        for name, check in recurrence_checks(*case[:4], steps=steps):
            functions.append(partial(skipping, check))
            ids.append(f"{label(case[0])}-{name}")
    return pytest.mark.parametrize("check", functions, ids=ids)


def skipping(check: Callable[[], str | None]) -> None:
    """Run a check as a test of pytest: skip what is inapplicable, fail without a traceback."""
    import pytest

    ends = None
    try:
        check()
    except Inapplicable as reason:
        ends = partial(pytest.skip, str(reason))
    except CheckFailed as failure:
        ends = partial(pytest.fail, str(failure), pytrace=False)
    if ends is not None:
        ends()  # here, where no other exception is being handled, which pytest would show


def label(recurrence: Any) -> str:
    """Name a recurrence by its step, and by its module where the step is just ``step``."""
    step = getattr(recurrence, "step", recurrence)
    name = getattr(step, "__name__", type(step).__name__)
    if name == "step":
        name = getattr(step, "__module__", name).rpartition(".")[2]
    return str(name).strip("<>")
