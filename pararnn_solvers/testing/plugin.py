"""A pytest plug-in: fixtures ``backend`` and ``rng``, marker ``gpu``, a line about solves.

Installed with the package (entry point ``pytest11``); ``-p no:pararnn_solvers`` leaves it out.
It imports nothing but pytest until one of these is used:

``backend``
    The name of a backend, one test for each of ``--pararnn-backends`` (default
    ``sequential,numba``): what ``solve(..., backend=backend)`` and ``linear.load(backend)`` take. A
    backend that cannot run here is skipped, with the reason.
``rng``
    A NumPy generator seeded by the name of the test alone: the same numbers in every run, in any
    order of tests, under pytest-xdist as well.
``@pytest.mark.gpu``
    Skips the test, with the reason, where CuPy cannot run.

Fixtures of your own with these names win, as always in pytest. At the end of a run in which
anything was solved, a line says how many solves, iterations and failures there were, and how long
they took; workers of pytest-xdist are added up. Solves inside processes that a test starts are not
counted.
"""

from __future__ import annotations

import sys
import zlib
from functools import cache
from typing import Any

import pytest

NAMES = ("solves", "iterations", "failures", "seconds")
BEFORE = pytest.StashKey[dict[str, float]]()
WORKERS = pytest.StashKey[list[dict[str, float]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--pararnn-backends``."""
    parser.getgroup("pararnn_solvers").addoption(
        "--pararnn-backends",
        default="sequential,numba",
        metavar="NAMES",
        help="backends for which tests with the fixture `backend` run (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and the fixture `backend` for the backends of this run."""
    config.addinivalue_line("markers", "gpu: needs an NVIDIA GPU and CuPy")
    config.stash[BEFORE], config.stash[WORKERS] = solved(), []
    names = [name.strip() for name in config.getoption("--pararnn-backends").split(",")]
    if not all(names):
        raise pytest.UsageError("--pararnn-backends: expected names with commas between them")
    config.pluginmanager.register(_backends(names), "pararnn_solvers.backends")


def _backends(names: list[str]) -> Any:
    class Backends:
        """Holds a fixture: its parameters are known only once options are read."""

        @pytest.fixture(params=names)
        def backend(self, request: pytest.FixtureRequest) -> str:
            """Name of a backend, out of ``--pararnn-backends``."""
            from pararnn_solvers import linear
            from pararnn_solvers.errors import BackendUnavailable, InvalidInput

            linear.discover_backends()
            try:
                linear.load(request.param)
            except BackendUnavailable as unavailable:
                pytest.skip(str(unavailable))
            except InvalidInput as unknown:
                pytest.fail(f"--pararnn-backends: {unknown}", pytrace=False)
            return str(request.param)

    return Backends()


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Any:
    """NumPy generator seeded by the test's node id."""
    import numpy as np

    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@cache
def why_no_gpu() -> str | None:
    """Return None where CuPy runs, or else the reason why not."""
    from pararnn_solvers import linear
    from pararnn_solvers.errors import BackendUnavailable

    try:
        linear.load("cupy")
    except BackendUnavailable as unavailable:
        return str(unavailable)
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test of marker ``gpu`` where there is none."""
    if item.get_closest_marker("gpu") is not None and (reason := why_no_gpu()) is not None:
        pytest.skip(reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send a worker's statistics to the process that started it (pytest-xdist)."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["pararnn_solvers"] = statistics(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add those of a worker that has ended."""
    sent = getattr(node, "workeroutput", {}).get("pararnn_solvers")
    if sent is not None:
        node.config.stash[WORKERS].append(sent)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Write the line, if anything was solved."""
    parts = [statistics(config), *config.stash[WORKERS]]
    total = {name: sum(part[name] for part in parts) for name in parts[0]}
    if total["solves"]:
        terminalreporter.write_line(
            "pararnn_solvers: {solves:.0f} solves, {iterations:.0f} iterations, "
            "{failures:.0f} failures, {seconds:.2f} s in solves".format(**total)
        )


def statistics(config: pytest.Config) -> dict[str, float]:
    """Return what this process has solved since the run began."""
    before, now = config.stash[BEFORE], solved()
    return {name: now[name] - before[name] for name in now}


def solved() -> dict[str, float]:
    """Return what this process has solved; nothing, if it has not imported the package."""
    api = sys.modules.get("pararnn_solvers.api")
    nothing: dict[str, float] = dict.fromkeys(NAMES, 0)
    return nothing if api is None else dict(api.STATISTICS)
