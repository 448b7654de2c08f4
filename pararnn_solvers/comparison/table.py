"""The result of a comparison: rows of numbers, and the forms in which they can be had."""

from __future__ import annotations

import csv
import html
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pararnn_solvers import __version__, plotting
from pararnn_solvers.comparison.row import HEADER, Row
from pararnn_solvers.linear import threads
from pararnn_solvers.measure import processor

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
    >>> row = Row("newton()", "numba", "CONVERGED", iterations=3, error=1e-12)
    >>> print(Comparison((row,), "9 steps", 1).to_csv().splitlines()[1])
    newton(),numba,CONVERGED,3,,,,,0,,,1e-12,,,
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


def finite(value: Any) -> Any:
    """Return a value in which numbers that are not finite, which JSON lacks, are None."""
    if isinstance(value, tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
