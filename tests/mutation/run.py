"""Mutation testing of a folder or module: ``python tests/mutation/run.py pararnn_solvers/solvers``.

One thing at a time is changed in the source (:mod:`tests.mutation.mutants`), and the tests that
reach the changed line are run, quick ones first, until one fails. A mutant that they all pass has
*survived*: a test is missing, or the change makes no difference. Printed are a table and the
changes that survived.

    python tests/mutation/run.py pararnn_solvers/sensitivities --tests tests/test_sensitivities.py
    python tests/mutation/run.py pararnn_solvers/linear --sample 20 --results linear.jsonl

By default the tests are those of the same name: ``tests/solvers`` or ``tests/test_solvers.py``.

How: pytest runs the tests once, while coverage notes which of them reach each line. Then the
process forks for each mutant, and the child changes the code of the functions, so that nothing is
imported again. What the import itself runs (constants, tables, defaults, decorated functions,
kernels) is tried in a fresh interpreter, with the changed source in place of the module; Numba then
compiles afresh.

``--results FILE`` keeps what is known of each mutant; another run with it goes on where that one
stopped. Needs cosmic-ray and coverage (``pip install cosmic-ray coverage``), and a system that
forks.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.mutation.codes import exchanged  # noqa: E402
from tests.mutation.mutants import Mutant, mutants  # noqa: E402
from tests.mutation.trials import (  # noqa: E402
    KILLED,
    RESULTS,
    SURVIVED,
    UNREACHED,
    Trials,
    run_instead,
)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("path", nargs="*", help="modules or folders to change")
    parser.add_argument("--tests", nargs="+", help="where the tests are")
    parser.add_argument("--sample", type=int, help="try so many of each module, drawn with seed 0")
    parser.add_argument(
        "--seconds", type=float, default=20, help="of the processor, a mutant; tests get a third"
    )
    parser.add_argument("--results", type=Path, help="keep them in this file of JSON lines")
    parser.add_argument("--instead", nargs="+", help=argparse.SUPPRESS)  # module, source, tests
    return parser.parse_args()


def tests_of(paths: list[str]) -> list[str]:
    """Return the tests of the same names: of ``package/a/b.py`` in ``tests/a/test_b.py``."""
    found = set()
    for path in map(Path, paths):
        inner = Path("tests", *path.parts[1:])
        named = inner.with_name(f"test_{inner.stem}.py")
        found |= {str(p) for p in (named, inner) if p.exists()}
    return sorted(found)


def table(results: list[tuple[Mutant, str]]) -> str:
    """Return how many mutants of each module met which end, as a table of Markdown."""
    rows = [f"| module | tried | {' | '.join(RESULTS)} |", "|---|" + "---|" * (1 + len(RESULTS))]
    for path in [*sorted({mutant.path for mutant, _ in results}), "all"]:
        ends = Counter(end for mutant, end in results if path in (mutant.path, "all"))
        counts = " | ".join(str(ends[end]) for end in RESULTS)
        rows.append(f"| {path} | {sum(ends.values())} | {counts} |")
    return "\n".join(rows)


def difference(mutant: Mutant) -> str:
    """Return what a mutant changes."""
    old = Path(mutant.path).read_text(encoding="utf-8").splitlines()
    lines = list(difflib.unified_diff(old, mutant.source.splitlines(), lineterm="", n=0))[3:]
    return "\n".join(f"    {line}" for line in lines)


def identity(mutant: Mutant) -> str:
    return f"{mutant.path}:{mutant.line}: {mutant.operator}\n{difference(mutant)}"


def chosen(paths: list[str], sample: int | None) -> list[Mutant]:
    """Return the mutants of some modules, or a sample of those of each."""
    found: list[Mutant] = []
    for path in map(Path, paths):
        for module in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            every = list(mutants(str(module)))
            size = len(every) if sample is None else min(sample, len(every))
            found += random.Random(0).sample(every, size)
    return found


def main() -> int:
    """Try mutants; return how many survived, 1 at most."""
    options = arguments()
    if options.instead:
        return run_instead(options.instead[0], options.instead[1], options.instead[2:])
    for needed in ("cosmic_ray", "coverage"):
        if importlib.util.find_spec(needed) is None:
            sys.exit(f"{needed} is missing; pip install cosmic-ray coverage")
    import pytest

    wanted = chosen(options.path, options.sample)
    known: dict[str, str] = {}
    if options.results and options.results.exists():
        lines = options.results.read_text(encoding="utf-8").splitlines()
        known = dict(json.loads(line) for line in lines)

    def keep(mutant: Mutant, result: str) -> None:
        known[identity(mutant)] = result
        if options.results:
            with options.results.open("a", encoding="utf-8") as file:
                print(json.dumps([identity(mutant), result]), file=file)

    left = [mutant for mutant in wanted if identity(mutant) not in known]
    random.Random(0).shuffle(left)  # so that a run that is stopped has tried a sample
    left.sort(key=lambda mutant: not exchanged(mutant))  # those that take long come last
    print(f"{len(wanted)} mutants, {len(wanted) - len(left)} of them known", flush=True)
    if left:
        tests = options.tests or tests_of(options.path)
        trials = Trials(left, options.seconds, keep)
        # Assertions as they are: rewritten, functions would not be known by their code.
        plain = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=no"]
        pytest.main([*plain, "--assert=plain", *tests], plugins=[trials])
    results = [(mutant, known[identity(mutant)]) for mutant in wanted if identity(mutant) in known]
    for mutant, end in results:
        if end != KILLED:
            print(f"{end}: {identity(mutant)}")
    print(table(results))
    return int(any(end in (SURVIVED, UNREACHED) for _, end in results))


if __name__ == "__main__":
    sys.exit(main())
