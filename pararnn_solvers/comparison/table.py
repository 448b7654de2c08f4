"""The result of a comparison: rows of numbers, and the forms in which they can be had."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers import __version__, plotting
from pararnn_solvers.linear import threads
from pararnn_solvers.measure import Quartiles, processor, quartiles, significant
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
LEFT = 3
"""Columns of words, set to the left."""


@dataclass(frozen=True)
class Comparison:
    """Rows for each method and backend, that of the rollout first.

    Prints as a table, whose times are medians over the turns with their quartiles in parentheses.

    Attributes
    ----------
    rows : tuple of Row
    problem : str
        What was solved.
    repeats : int
        Turns that were asked for.

    Examples
    --------
    >>> import numpy as np, pararnn_solvers as prs
    >>> p = prs.problems.load('diagonal_gru', length=50)
    >>> found = prs.compare(*p[:4], methods=['newton', 'jacobi'], repeats=1)
    >>> [row.status for row in found]
    ['SEQUENTIAL', 'CONVERGED', 'CONVERGED']
    """

    rows: tuple[Row, ...]
    problem: str
    repeats: int

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Row:
        return self.rows[i]

    def plot(self, ax: Any = None) -> Any:
        """Draw the residual of each method against the iteration; return the axes."""
        return plotting.plot_convergence(self, ax=ax)

    def to_markdown(self) -> str:
        """Return the table and its notes in Markdown."""
        marks = ["---"] * LEFT + ["---:"] * (len(HEADER) - LEFT)
        rows = [HEADER, marks, *([text.replace("|", "\\|") for text in r.cells()] for r in self)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        notes = [f"- {label}: {text}" for label, text in self.notes()]
        return "\n".join([*lines, *([""] if notes else []), *notes])

    def to_csv(self) -> str:
        """Return the numbers, a row a line: seconds, bytes, evaluations per state."""
        file = io.StringIO()
        writer = csv.DictWriter(file, fieldnames=list(self.rows[0].record()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.record() for row in self)
        return file.getvalue()

    def to_json(self) -> str:
        """Return the numbers and residual histories; what is not finite becomes null."""
        rows = [{**row.record(), "residual_norms": row.residual_norms} for row in self]
        report = {
            "version": __version__,
            "problem": self.problem,
            "processor": processor(),
            "threads": threads.num_threads(),
            "repeats": self.repeats,
            "units": {
                "seconds, seconds_25, seconds_75, first_call": "s; quartiles over the turns",
                "memory": "bytes; of Python and NumPy at the peak of a call, by tracemalloc",
                "evaluations": "of step, per state",
            },
            "rows": [{name: finite(value) for name, value in row.items()} for row in rows],
        }
        return json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False)

    def to_dataframe(self) -> Any:
        """Return the numbers as a pandas DataFrame.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError(
                "to_dataframe needs pandas, which is not installed: pip install pandas; to_csv() "
                "and to_json() do without"
            ) from None
        return pandas.DataFrame([row.record() for row in self])

    def notes(self) -> list[tuple[str, str]]:
        """Return what there is to say about rows beside their numbers, as (labels, text)."""
        about: dict[str, list[str]] = {}
        for row in self:
            if row.note:
                about.setdefault(row.note, []).append(row.label)
        return [("; ".join(labels), text) for text, labels in about.items()]

    def __repr__(self) -> str:
        table = [HEADER, *(row.cells() for row in self)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [self.problem, *("  " + aligned(row, widths) for row in table)]
        return "\n".join(lines + [f"  {label}: {text}" for label, text in self.notes()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in HEADER)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row.cells())}</tr>"
            for row in self
        )
        notes = "".join(
            f"<br>{html.escape(label)}: {html.escape(text)}" for label, text in self.notes()
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<small>{html.escape(self.problem)}{notes}</small>"
        )


def aligned(row: Any, widths: list[int]) -> str:
    """Return one line of a table: words to the left, numbers to the right."""
    cells = [
        text.ljust(width) if i < LEFT else text.rjust(width)
        for i, (text, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


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


def finite(value: Any) -> Any:
    """Return a value in which numbers that are not finite, which JSON lacks, are None."""
    if isinstance(value, tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
