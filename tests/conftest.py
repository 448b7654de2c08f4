"""Hypothesis profiles: ``dev`` at the desk, ``ci`` the same draws each time, ``thorough``.

Compiled kernels are kept from one run of the tests to the next, apart from the user's own.
"""

import getpass
import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from tests.cuda_on_cpu.fixtures import device, thread_order  # noqa: F401

_kernels = Path(tempfile.gettempdir()) / f"pararnn_solvers_tests_{getpass.getuser()}"
os.environ.setdefault("PARARNN_SOLVERS_CACHE", str(_kernels))

settings.register_profile("dev", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True, database=None)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev"))


@pytest.fixture
def untraced():
    """Skip a test of speed or memory where coverage or a debugger looks at every line."""
    monitors = getattr(sys, "monitoring", None)  # from Python 3.12 on
    if sys.gettrace() or (monitors and any(map(monitors.get_tool, range(6)))):
        pytest.skip("a tracer is at work, and takes time and memory")


OF_PYTORCH = (
    "pararnn_solvers/torch/*.py",
    "tests/torch/[!_t]*.py",
    "tests/bench/stand_in.py",
    "tests/gallery/two_processes.py",
)


class WithoutPyTorch:
    """Leaves out modules, collected for their doctests, that cannot be imported without PyTorch."""

    def pytest_ignore_collect(self, collection_path):
        if importlib.util.find_spec("torch") is None:
            return any(map(collection_path.match, OF_PYTORCH)) or None
        return None


def pytest_configure(config):
    config.pluginmanager.register(WithoutPyTorch())
