"""What becomes of mutants: each meets, in a process of its own, the tests that reach its line."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from itertools import accumulate
from pathlib import Path
from typing import Any

from tests.mutation.children import FAILED, forked
from tests.mutation.codes import exchanged
from tests.mutation.mutants import Mutant

KILLED, SURVIVED, UNREACHED, SLOW = "killed", "survived", "not reached", "out of time"
RESULTS = (KILLED, SLOW, SURVIVED, UNREACHED)
RUN = Path(__file__).with_name("run.py")
IMPORT = ""  # the name that coverage gives to what runs before the tests
OUT_OF_TIME = (-signal.SIGXCPU, -signal.SIGKILL, -signal.SIGALRM)  # others, as of a crash, kill


class Instead(MetaPathFinder):
    """Finds another source in the place of a module's own."""

    def __init__(self, path: str, source: str) -> None:
        self.path, self.source = str(Path(path).resolve()), source

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.origin == self.path:
            spec.loader = loader = SourceFileLoader(name, self.path)
            loader.get_code = lambda _: compile(self.source, self.path, "exec")  # type: ignore
            return spec
        return None


class Trials:
    """A plug-in of pytest: in place of running the tests once, runs them for each mutant."""

    def __init__(self, wanted: list[Mutant], seconds: float, keep: Callable[..., None]) -> None:
        self.wanted, self.limit, self.keep = wanted, seconds, keep
        self.functions: list[types.FunctionType] = []
        self.caches: list[Any] = []
        self.taken: dict[str, float] = {}
        self.kills: Counter[tuple[Any, ...]] = Counter()  # by a test: in a module, on a line
        self.watched = self.watch()

    def pytest_sessionstart(self) -> None:
        few_examples()

    def pytest_runtestloop(self, session: Any) -> bool:
        reached = self.reached(session.items, {mutant.path for mutant in self.wanted})
        session.items[:] = self.repeatable(session.items)
        self.functions = [f for f in gc.get_objects() if type(f) is types.FunctionType]
        self.caches = [f for f in gc.get_objects() if isinstance(f, functools._lru_cache_wrapper)]
        gc.freeze()  # nothing that is there need be copied by a child
        for mutant in self.wanted:
            result = UNREACHED
            for codes, names in self.attempts(mutant, reached[mutant.path]):
                items = [item for item in session.items if item.nodeid in names]
                result, by = self.trial(mutant, codes, self.affordable(items, mutant))
                if result == KILLED:
                    self.kills.update([(by, mutant.path, mutant.line), (by, mutant.path)])
                    break
            self.keep(mutant, result)
        return True

    def attempts(self, mutant: Mutant, reached: dict[int, list[str]]) -> Iterator[tuple[Any, Any]]:
        """Yield codes to exchange, if any, and the tests to run.

        What the import runs is tried in a fresh interpreter: constants and decorators, but also
        defaults of functions that it makes, which are in no code. There any test may tell: first
        those that reach the module, then those that only see what it left elsewhere.
        """
        known = {IMPORT, *self.taken}
        names = {name for line in mutant.lines for name in reached.get(line, ())} & known
        codes = exchanged(mutant)
        if codes and names - {IMPORT}:
            yield codes, names
        if IMPORT in names or not codes:
            every = {name for some in reached.values() for name in some} & self.taken.keys()
            yield from (({}, some) for some in (every, self.taken.keys() - every) if some)

    def repeatable(self, items: list[Any]) -> list[Any]:
        """Return the tests that pass in a child, too, where they run for the second time."""

        def once_only() -> str:
            return "\n".join(item.nodeid for item in items if not passes(item))

        status, failed = forked(once_only, 60 + 20 * sum(self.taken.values()))
        if status not in (0, 1):
            sys.exit(f"these tests cannot run twice in a process: {failed or status}")
        if failed:
            print(f"left out, since they pass only once in a process:\n{failed}", flush=True)
        self.taken = {k: v for k, v in self.taken.items() if k not in failed.splitlines()}
        return [item for item in items if item.nodeid in self.taken]

    def affordable(self, items: list[Any], mutant: Mutant) -> list[Any]:
        """Return the quickest tests, as many as there is time for; those first that may kill soon.

        A test that killed on the same line may kill again, and so may, less likely, one that
        killed in the same module.
        """

        def chance(item: Any) -> float:
            module, line = (item.nodeid, mutant.path), (item.nodeid, mutant.path, mutant.line)
            kills = 0.1 + self.kills[module] + 10 * self.kills[line]
            return kills / (0.001 + self.taken[item.nodeid])

        items.sort(key=lambda item: self.taken[item.nodeid])
        total = accumulate(self.taken[item.nodeid] for item in items)
        some = [item for item, sum_ in zip(items, total, strict=True) if sum_ <= self.limit / 3]
        return sorted(some or items[:1], key=chance, reverse=True)

    def watch(self) -> Any:
        """Start to note which lines run: at first, until tests run, on import."""
        import coverage

        files = [str(Path(mutant.path).resolve()) for mutant in self.wanted]
        watched = coverage.Coverage(data_file=None, config_file=False, include=files)
        watched.start()
        return watched

    def reached(self, items: list[Any], paths: set[str]) -> dict[str, dict[int, list[str]]]:
        """Run all tests; return which of them, or the import, reach each line of each module."""
        watched, failed = self.watched, []
        for path in paths:
            with contextlib.suppress(ImportError):  # in vain where an extra is missing
                importlib.import_module(".".join(Path(path).with_suffix("").parts))
        for item in items:
            watched.switch_context(item.nodeid)
            before = time.process_time()
            failed += [item.nodeid] * (not passes(item))
            self.taken[item.nodeid] = time.process_time() - before
        watched.stop()
        if failed:
            sys.exit(f"these tests fail as it is: {', '.join(failed)}")
        data = watched.get_data()
        return {path: data.contexts_by_lineno(str(Path(path).resolve())) for path in paths}

    def trial(self, mutant: Mutant, codes: Any, items: list[Any]) -> tuple[str, str]:
        """Run tests on a mutant in a child until one fails; return the result, and which."""
        status, by = forked(lambda: self.tried(mutant, codes, items), 20 * self.limit)
        if status == FAILED:
            sys.exit(f"{mutant.path}:{mutant.line} cannot be tried: {by}")
        if status == 0:
            return SURVIVED, ""
        return (SLOW, "") if status in OUT_OF_TIME else (KILLED, by)

    def tried(self, mutant: Mutant, codes: Any, items: list[Any]) -> str:
        """Return the test that fails, or nothing."""
        seconds = int(self.limit)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        if codes:
            for function in self.functions:
                function.__code__ = codes.get(function.__code__, function.__code__)
            for cached in self.caches:
                if getattr(cached.__wrapped__, "__code__", None) in codes.values():
                    cached.cache_clear()
            for item in items:
                signal.alarm(10 + int(20 * self.taken[item.nodeid]))  # ends what waits for ever
                if not passes(item):
                    return str(item.nodeid)
            return ""
        names = [item.nodeid for item in items]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "source.py")
            source.write_text(mutant.source, encoding="utf-8")
            if "jit" in mutant.source:
                os.environ["NUMBA_CACHE_DIR"] = folder  # what is kept there is of other kernels
            command = [sys.executable, str(RUN), "--instead", mutant.path, str(source), *names]
            try:
                found = subprocess.run(
                    command, stdout=subprocess.PIPE, text=True, timeout=5 * self.limit
                )
                slow = found.returncode in OUT_OF_TIME
            except subprocess.TimeoutExpired:
                slow = True
        if slow:
            os.kill(os.getpid(), signal.SIGKILL)
        failed = [line for line in found.stdout.splitlines() if line in names]
        return [*failed, "the import"][0] if found.returncode else ""


def few_examples() -> None:
    """Let Hypothesis draw little, the same each time; a counterexample kills, however large."""
    from hypothesis import Phase, settings

    options: dict[str, Any] = {"deadline": None, "derandomize": True, "database": None}
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutation", max_examples=10, phases=phases, **options)
    settings.load_profile("mutation")


def passes(item: Any) -> bool:
    """Run one test, alone; tell whether it passes or is skipped."""
    from _pytest.runner import runtestprotocol

    return not any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def run_instead(path: str, source: str, names: list[str]) -> int:
    """Run tests with another source in the place of a module's; print the one that fails."""
    import pytest

    class First:
        def pytest_sessionstart(self) -> None:
            few_examples()

        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            order = {name: i for i, name in enumerate(names)}
            items[:] = sorted(
                (item for item in items if item.nodeid in order), key=lambda i: order[i.nodeid]
            )

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                print("\n" + report.nodeid)

    sys.meta_path.insert(0, Instead(path, Path(source).read_text(encoding="utf-8")))
    files = sorted({name.partition("::")[0] for name in names})
    # With assertions as they are: pytest's own finder would come before this one.
    options = ["-x", "-q", "--assert=plain", "--tb=no", "-p", "no:cacheprovider", *files]
    return int(pytest.main(options, plugins=[First()]))
