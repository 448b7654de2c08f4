"""What an operator of PyTorch cannot take: a recurrence, the nesting of its theta, the options.

Operators take tensors and numbers. So everything else is a `Problem`, known by a number.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pararnn_solvers as prs
from pararnn_solvers import api
from pararnn_solvers.errors import ConvergenceError, InvalidInput
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.sequences import masked
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Stopping
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import make_system

__all__ = ["Problem", "Statistics", "known"]

ON_FAILURE = ("raise", "sequential")
_numbers = itertools.count()
_known: weakref.WeakValueDictionary[int, Problem] = weakref.WeakValueDictionary()


@dataclass
class Statistics:
    """What became of the solves so far; ``layer.statistics.reset()`` starts anew.

    Attributes
    ----------
    solves : int
        Of one layer and direction each, those by rollout included.
    iterations : int
        Of all solves together.
    failures : int
        Solves that did not converge.
    fallbacks : int
        Those of them that were computed step by step instead (``on_failure="sequential"``).
    """

    solves: int = 0
    iterations: int = 0
    failures: int = 0
    fallbacks: int = 0

    def reset(self) -> None:
        """Set all counts to 0."""
        self.__init__()  # type: ignore[misc]


@dataclass(frozen=True, eq=False)
class Problem:
    """A recurrence to be solved for any tensors, with a number by which operators know it.

    The number is of this process. A problem that is copied or unpickled has one of its own, and
    statistics of its own that start at 0.

    Parameters
    ----------
    recurrence : Recurrence
    rebuild : callable
        From the leaves of theta to theta.
    on_failure : {"raise", "sequential"}
        What to do where the method fails: raise, or compute the sequences step by step.
    options : dict
        Further ones of :func:`pararnn_solvers.solve`.
    """

    recurrence: Recurrence
    rebuild: Callable[[Any], Any]
    on_failure: str = "raise"
    options: dict[str, Any] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics, init=False)
    key: int = field(default_factory=lambda: next(_numbers), init=False)

    def __post_init__(self) -> None:
        if self.on_failure not in ON_FAILURE:
            raise InvalidInput(f"on_failure is {self.on_failure!r}; expected one of {ON_FAILURE}")
        _known[self.key] = self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.recurrence, self.rebuild, self.on_failure, self.options)

    def solve(self, x: Array | None, h0: Array, leaves: list[Array], **where: Any) -> Array:
        """Return the trajectory of arrays, and count.

        Parameters
        ----------
        **where
            ``lengths``, ``resets`` and ``steps``.
        """
        arguments = (self.recurrence, x, h0, self.rebuild(leaves))
        counts = self.statistics
        counts.solves += 1
        try:
            solution = prs.solve(*arguments, **where, **self.options)
        except ConvergenceError as error:
            counts.iterations += error.solution.n_iter
            counts.failures += 1
            if self.on_failure == "raise":
                raise
            options = {**self.options, "method": "sequential"}
            solution = prs.solve(*arguments, **where, **options)
            counts.fallbacks += 1
        counts.iterations += solution.n_iter
        h: Array = solution.h
        return h

    def solution(
        self, h: Array, x: Array | None, h0: Array, leaves: list[Array], **where: Any
    ) -> Solution:
        """Return the account of a trajectory that :meth:`solve` returned, for its derivatives.

        Made anew, so that nothing needs to be kept between the passes but what PyTorch keeps.
        """
        given = make_system(self.recurrence, x, h0, self.rebuild(leaves), where.pop("steps"))
        system, sequences = masked(given, **where)
        compiled, backend = self.options.get("compiled"), self.options.get("backend", "auto")
        flat = api.compiled_or_not(system, sequences, backend, compiled)
        if flat.recurrence is system.recurrence:
            system = replace(system, program=flat.program)
        scan = api.load_backend(backend, system.h0)[1]
        return Solution(h, h[:0], h[:0], 0, system, scan, Stopping(), sequences=sequences)


def known(key: int) -> Problem:
    """Return the problem of a number.

    Raises
    ------
    InvalidInput
        It does not exist any more, or only in another process.
    """
    found = _known.get(key)
    if found is None:
        raise InvalidInput(
            f"the recurrence number {key} is not known in this process; expected that of a layer "
            "that is alive: trace or compile the model again where it runs"
        )
    return found
