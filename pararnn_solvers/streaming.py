"""A trajectory in pieces: solved chunk by chunk, in memory that does not grow with its length."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from pararnn_solvers import arrays
from pararnn_solvers.api import solve, with_one_batch_axis
from pararnn_solvers.checks import all_finite
from pararnn_solvers.distributed import require_one_process
from pararnn_solvers.errors import (
    ConvergenceError,
    ConvergenceWarning,
    InvalidInput,
    PararnnError,
)
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.solvers.solution import Solution
from pararnn_solvers.stepping import with_any_program
from pararnn_solvers.typing import Array
from pararnn_solvers.validation import as_recurrence, make_system

__all__ = ["stream"]

OPTIONS = frozenset(inspect.signature(solve).parameters) - {"recurrence", "x", "h0", "theta"}
OF_THE_WHOLE = {
    "steps": "the chunks have as many steps as they have; for a recurrence without input, each "
    "chunk is a number of steps",
    "lengths": "sequences of a stream end where it does; leave it out",
    "resets": "no chunk but the first knows h0; cut the stream where sequences begin",
}
"""Options of ``solve`` that say something about a trajectory as a whole."""


def stream(
    recurrence: Recurrence | Callable[..., Any],
    chunks: Iterable[Any],
    h0: Any,
    theta: Any = None,
    **options: Any,
) -> Iterator[Solution]:
    """Solve chunks of x one after another, each from the true end of the one before.

    The trajectories ``solution.h`` of all chunks, concatenated, are that of ``solve`` for the
    concatenated x, to the tolerance; for ``method="sequential"`` bit for bit, where ``solve`` runs
    compiled as this does.

    Parameters
    ----------
    recurrence : Recurrence or callable
        ``step(h, x, theta)``, as of :func:`solve`.
    chunks : iterable of arrays, shape (T_i, *batch, m), or of whole numbers T_i
        Of any lengths, 0 too; taken one at a time, when its solution is asked for. Numbers are the
        steps of a recurrence without input.
    h0 : array, shape (*batch, d)
        Initial states of the first chunk.
    theta : nested containers of arrays, optional
    **options
        Those of :func:`solve` but ``steps``, ``lengths`` and ``resets``; they hold for each chunk,
        an array as ``guess`` for none. With ``compiled=None`` kernels run if `step` can be traced,
        whatever the size of the chunks: how a stream is cut does not decide what computes it.

    Yields
    ------
    Solution
        One for each chunk, as soon as it is asked for. Memory stays bounded if they are dropped:
        a solution holds its chunk, and the stream holds no more than one state a sequence.

    Raises
    ------
    InvalidInput
        At once for arguments other than chunks. Then by name of the chunk, counted from 0: for an
        iterable without chunks, such as one that was used up before; for one whose batch, m, dtype
        or place differ from those before; for one to start where the one before overflowed.
    ConvergenceError
        With ``on_failure="raise"``, the default. A stream that has raised is at its end.

    Notes
    -----
    Cost: that of ``solve`` for each chunk. Kernels are compiled once, and a step is traced once
    unless it refers to what may change unnoticed, such as an array outside of theta: then for each
    chunk, a millisecond.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> chunks = (np.ones((T, 1)) for T in (2, 0, 3))
    >>> solutions = prs.stream(lambda h, x, _: h + x, chunks, np.zeros(1), compiled=False)
    >>> [solution.h.ravel().tolist() for solution in solutions]
    [[1.0, 2.0], [], [3.0, 4.0, 5.0]]
    """
    for name, remedy in OF_THE_WHOLE.items():
        if options.get(name) is not None:
            raise InvalidInput(f"a stream has no {name}: {remedy}")
    require_one_process("stream", options)
    if unknown := sorted(options.keys() - OPTIONS):
        known = ", ".join(sorted(OPTIONS - OF_THE_WHOLE.keys()))
        raise InvalidInput(f"stream has no option {', '.join(unknown)}; expected any of {known}")
    guess = options.get("guess")
    if not (guess is None or isinstance(guess, str) or callable(guess)):
        raise InvalidInput("guess is an array, and chunks differ; pass a name or a function")
    compiled = options.pop("compiled", None)
    nothing = _nothing(recurrence, h0, theta, compiled, options)
    given: Any = chunks
    if getattr(given, "ndim", None) == nothing.h.ndim:
        raise InvalidInput(
            f"chunks is one array of shape {tuple(given.shape)}; expected an iterable of such "
            "arrays: pass [x], or np.array_split(x, pieces)"
        )
    if not isinstance(chunks, Iterable):
        raise InvalidInput(f"chunks is {chunks!r}; expected an iterable of arrays (T, *batch, m)")
    start = nothing.system.h0.copy()
    return _solutions(_Stream(recurrence, theta, options, compiled), iter(chunks), start)


def _nothing(
    recurrence: Any, h0: Any, theta: Any, compiled: bool | None, options: dict[str, Any]
) -> Solution:
    """Solve for no steps, which checks all that does not depend on a chunk."""
    apart = {"guess", "callback", "progress"}
    checked = {name: value for name, value in options.items() if name not in apart}
    unless_sure = None if compiled in (True, None) else compiled  # with True, it would be traced
    still = replace(as_recurrence(recurrence), step=_stay, jacobian=None, vjp=None)
    return solve(still, None, h0, theta, steps=0, compiled=unless_sure, **checked)


def _stay(h: Any, x: Any, theta: Any) -> Any:
    """Return the states: a step for which there need be no x."""
    return h


def _solutions(stream: _Stream, chunks: Iterator[Any], h: Array) -> Iterator[Solution]:
    """Yield the solution of each chunk, holding neither the solution nor the chunk."""
    before, number = "", -1
    while True:
        try:
            x = next(chunks)
        except StopIteration:
            break
        number += 1
        try:
            solution = stream.solved(number, x, h, before)
        except PararnnError as error:
            error.args = (f"chunk {number}: {error}",)
            raise
        except Exception as error:  # of step, or of a callback
            error.add_note(f"raised in chunk {number} of a stream")
            raise
        before = "" if solution.success else solution.message
        if len(solution.h):
            h = solution.h[-1].copy()
        del x
        holder = [solution]
        del solution
        yield holder.pop()
    if number < 0:
        raise InvalidInput(
            "chunks has no chunk 0: it is empty, or an iterator that was used up before; expected "
            "at least one array (T, *batch, m), which may have T = 0, or number of steps"
        )


@dataclass
class _Stream:
    """What holds for all chunks.

    Attributes
    ----------
    compiled : bool, optional
        Decided by the first chunk that has steps.
    like : (shape, dtype), optional
        Of the first chunk; empty without input.
    """

    recurrence: Any
    theta: Any
    options: dict[str, Any]
    compiled: bool | None
    like: tuple[()] | tuple[tuple[int, ...], Any] | None = None

    def solved(self, number: int, chunk: Any, h: Array, before: str) -> Solution:
        """Return the solution of a chunk from the states h.

        Parameters
        ----------
        chunk : array or int
            Its x, or its number of steps.
        before : str
            What went wrong in the chunk before, if anything.
        """
        if chunk is None:
            raise InvalidInput("x is None; expected an array (T, *batch, m), or a number of steps")
        autonomous = isinstance(chunk, Integral)
        x, steps = (None, chunk) if autonomous else (arrays.from_any(chunk), None)
        self.require_alike(x)
        if before and not all_finite(h):
            raise InvalidInput(
                f"it starts from states that are not finite, where chunk {number - 1} ended "
                f"({before}); stop there, or solve that chunk otherwise"
            )
        if self.compiled is None and (steps if x is None else x.size):
            self.compiled = self.can_compile(x, h, steps)
        options = {**self.options, "compiled": self.compiled, "steps": steps}
        warns = options.get("on_failure") == "warn"
        if warns:
            options["on_failure"] = "raise"
        try:
            return solve(self.recurrence, x, h, self.theta, **options)
        except ConvergenceError as error:
            if not warns:
                raise
            warnings.warn(f"chunk {number}: {error}", ConvergenceWarning, stacklevel=3)
            return error.solution

    def require_alike(self, x: Array | None) -> None:
        """Raise InvalidInput unless a chunk is like the first one but for its length."""
        found = () if x is None else (x.shape, x.dtype)
        if self.like is None:
            self.like = found
        if x is None or not self.like:
            if found != self.like:
                raise InvalidInput(
                    "chunk 0 and it are an array and a number of steps, or the other way round; "
                    "expected arrays (T, *batch, m) throughout, or numbers"
                )
            return
        shape, dtype = self.like
        if x.shape[1:] != shape[1:] or x.ndim != len(shape) or x.dtype != dtype:
            sizes = "".join(f", {size}" for size in shape[1:])
            raise InvalidInput(
                f"x has shape {x.shape} and dtype {x.dtype}, and that of chunk 0 had shape {shape} "
                f"and dtype {dtype}; expected (T{sizes}) and {dtype} for every chunk"
            )

    def can_compile(self, x: Array | None, h: Array, steps: int | None) -> bool:
        """Tell whether kernels can run in place of the step."""
        system = with_one_batch_axis(make_system(self.recurrence, x, h, self.theta, steps))
        with arrays.device_of(h):
            return with_any_program(system, self.options.get("backend", "auto")).is_compiled
