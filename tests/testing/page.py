"""The page of all checks, from their docstrings, and the table of mutants that they catch.

``python -m tests.testing.page`` writes ``docs/checks.md``.
"""

import importlib
import inspect
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "checks.md"
KINDS = {
    "recurrences": ("Recurrences", "check_recurrence"),
    "methods": ("Methods", "check_method"),
    "backends": ("Backends", "check_backend"),
}
FILE = "`tests/testing/mutants/{}.py`"
FILES = {"recurrences": f"{FILE.format('recurrences')} and `derivatives.py`"}
PARTS = ("Proves", "Costs", "A failure means")
HEAD = """\
# All checks

Made from the docstrings of the checks by `python -m tests.testing.page`; a test compares it with
them. How to use them: [Testing](testing.md).
"""


def parts(check):
    """Return the promise of a check, and what its docstring says under each of PARTS."""
    promise, *paragraphs = inspect.getdoc(check).split("\n\n")
    said = {}
    for paragraph in paragraphs:
        name, _, text = paragraph.partition(": ")
        if name in PARTS:
            said[name] = " ".join(text.split())
    return " ".join(promise.split()), said


def entry(name, check):
    """Return a check as a list item."""
    promise, said = parts(check)
    lines = [f"### `{name}`", "", promise, ""]
    lines += [f"- *{part}:* {said[part]}" for part in PARTS]
    return "\n".join([*lines, ""])


def section(kind):
    """Return the checks of a kind, and the table of its mutants."""
    title, function = KINDS[kind]
    checks = importlib.import_module(f"pararnn_solvers.testing.{kind}").CHECKS
    mutants = importlib.import_module(f"tests.testing.mutants.{kind}").MUTANTS
    rows = [f"| {mutant.wrong} | `{mutant.caught_by}` |" for mutant in mutants]
    return "\n".join(
        [
            f"## {title}: `{function}`",
            "",
            *(entry(name, check) for name, check in checks.items()),
            f"What is wrong in the {len(mutants)} mutants of {FILES.get(kind, FILE.format(kind))}, "
            "and what says so:",
            "",
            "| wrong | caught by |",
            "|---|---|",
            *rows,
            "",
        ]
    )


def page():
    """Return the page."""
    return "\n".join([HEAD, *map(section, KINDS)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
