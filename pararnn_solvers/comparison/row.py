"""What one method needed with one backend, as numbers and as texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.measure import Quartiles, quartiles, significant
from pararnn_solvers.solvers.stopping import Status
from pararnn_solvers.typing import Array

USABLE = tuple(status.name for status in Status if status.success)


@dataclass(frozen=True)
class Row:
    """What a method needed with a backend; None is what could not be measured.

    Attributes
    ----------
    method, backend : str
        The backend is empty for the rollout, which solves no linear recurrence.
    status : str
        The name of a :class:`Status`, that of the worst sequence; ``"NOT APPLICABLE"`` or
        ``"FAILED"`` where there is no solution.
    note : str
        Why there is none, what may help, or what an automatic choice decided.
    iterations : int
        For the sequence that took most.
    evaluations : float
        Of `step` per state: with tangents counts once.
    seconds : tuple of three floats
        Quartiles over the turns; the second is the median.
    repeats : int
        Turns in which it was called.
    first_call : float
        Seconds of the first call, which imports and compiles what is needed.
    memory : int
        Bytes allocated at the peak of a call, beyond what was allocated before.
    error : float
        Greatest difference to the states of the rollout (maximum norm, units of the state).
    residual : float
        Greatest ``|F_t|`` of the returned states, likewise.
    compiled : bool
        Whether kernels made from `step` ran.
    residual_norms : tuple of floats
        The residual after each iteration, from that of the guess on.
    """

    method: str
    backend: str
    status: str
    note: str = ""
    iterations: int | None = None
    evaluations: float | None = None
    seconds: Quartiles | None = None
    repeats: int = 0
    first_call: float | None = None
    memory: int | None = None
    error: float | None = None
    residual: float | None = None
    compiled: bool | None = None
    residual_norms: tuple[float, ...] = ()

    @property
    def success(self) -> bool:
        """Whether the states can be used as the trajectory."""
        return self.status in USABLE

    @property
    def label(self) -> str:
        """The method, with its backend if it has one."""
        return f"{self.method}, {self.backend}" if self.backend else self.method

    def with_times(self, seconds: Array) -> Row:
        """Return the row with the quartiles of what was measured, NaN where it was not."""
        count = int(np.isfinite(seconds).sum())
        return replace(self, seconds=quartiles(seconds), repeats=count)

    def with_memory(self, memory: int) -> Row:
        """Return the row with the bytes of its peak."""
        return replace(self, memory=memory)

    def record(self) -> dict[str, Any]:
        """Return the numbers by name, of which a file of tables has a column each."""
        low, median, high = self.seconds or (None, None, None)
        return {
            "method": self.method,
            "backend": self.backend,
            "status": self.status,
            "iterations": self.iterations,
            "evaluations": self.evaluations,
            "seconds": median,
            "seconds_25": low,
            "seconds_75": high,
            "repeats": self.repeats,
            "first_call": self.first_call,
            "memory": self.memory,
            "error": self.error,
            "residual": self.residual,
            "compiled": self.compiled,
            "note": self.note,
        }

    def cells(self) -> list[str]:
        """Return the texts of a printed table, in the order of ``HEADER``."""
        return [
            self.method,
            self.backend or "-",
            self.status.lower().replace("_", " "),
            "-" if self.iterations is None else str(self.iterations),
            "-" if self.evaluations is None else f"{self.evaluations:.1f}",
            "-" if self.seconds is None else spread(self.seconds),
            "-" if self.first_call is None else f"{self.first_call:.2f} s",
            "-" if self.memory is None else size(self.memory),
            "reference" if not self.backend else number(self.error),
            number(self.residual),
        ]


HEADER = ("method", "backend", "status", "iterations", "evaluations", "time", "first call",
          "memory", "error", "residual")  # fmt: skip


def number(value: float | None) -> str:
    """Return a number with the digits that a comparison of orders of magnitude needs."""
    return "-" if value is None else f"{value:.1e}"


class Unit(NamedTuple):
    """A unit, its name, and from where on it is used."""

    size: float
    name: str


SECONDS = (Unit(1, "s"), Unit(1e-3, "ms"), Unit(1e-6, "µs"))
BYTES = (Unit(2**30, "GiB"), Unit(2**20, "MiB"), Unit(2**10, "KiB"), Unit(1, "B"))


def fitting(value: float, units: tuple[Unit, ...]) -> Unit:
    """Return the largest unit that a value has at least one of, or the smallest there is."""
    return next((unit for unit in units if value >= unit.size), units[-1])


def spread(seconds: Quartiles) -> str:
    """Return the median with the other quartiles in parentheses.

    Examples
    --------
    >>> spread((0.0119, 0.0123, 0.013))
    '12.3 (11.9–13.0) ms'
    """
    unit = fitting(seconds[1], SECONDS)
    low, median, high = (significant(value / unit.size, 3) for value in seconds)
    return f"{median} ({low}–{high}) {unit.name}"


def size(count: int) -> str:
    """Return a number of bytes.

    Examples
    --------
    >>> size(0), size(1536), size(5 << 20)
    ('0 B', '1.50 KiB', '5.00 MiB')
    """
    unit = fitting(count, BYTES)
    return f"{count if unit.size == 1 else significant(count / unit.size, 3)} {unit.name}"
