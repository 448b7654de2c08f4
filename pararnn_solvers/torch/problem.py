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
from pararnn_solvers import api, arrays
from pararnn_solvers.distributed import require_one_process
from pararnn_solvers.errors import ConvergenceError, InvalidInput
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.sequences import masked
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.solvers.stopping import Stopping
from pararnn_solvers.stepping import with_any_program
from pararnn_solvers.system import System
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

    Examples
    --------
    >>> Statistics().solves
    0
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
    any_size : bool
        Whether ``compiled=None`` lets kernels run in solves of any size, as where many are to come.
    """

    recurrence: Recurrence
    rebuild: Callable[[Any], Any]
    on_failure: str = "raise"
    options: dict[str, Any] = field(default_factory=dict)
    any_size: bool = False
    statistics: Statistics = field(default_factory=Statistics, init=False)
    key: int = field(default_factory=lambda: next(_numbers), init=False)
    _kernels: dict[Any, bool | None] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.on_failure not in ON_FAILURE:
            raise InvalidInput(f"on_failure is {self.on_failure!r}; expected one of {ON_FAILURE}")
        require_one_process("a layer or operator of PyTorch", self.options)
        _known[self.key] = self

    def __reduce__(self) -> tuple[Any, ...]:
        given = self.recurrence, self.rebuild, self.on_failure, self.options, self.any_size
        return type(self), given

    def compiled(self, system: System) -> bool | None:
        """Return the option ``compiled`` for the equations of some steps."""
        chosen: bool | None = self.options.get("compiled")
        if chosen is not None or not self.any_size or 0 in system.shape:
            return chosen
        where = arrays.is_device_array(system.h0), system.h0.dtype
        if where not in self._kernels:
            backend = self.options.get("backend", "auto")
            with arrays.device_of(system.h0):
                found = with_any_program(api.with_one_batch_axis(system), backend)
            self._kernels[where] = found.is_compiled or None
        return self._kernels[where]

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
        compiled = self.compiled(make_system(*arguments, where.get("steps")))
        options = {**self.options, "compiled": compiled}
        try:
            solution = prs.solve(*arguments, **where, **options)
        except ConvergenceError as error:
            counts.iterations += error.solution.n_iter
            counts.failures += 1
            if self.on_failure == "raise":
                raise
            solution = prs.solve(*arguments, **where, **{**options, "method": "sequential"})
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
        backend = self.options.get("backend", "auto")
        flat = api.compiled_or_not(system, sequences, backend, self.compiled(given))
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
