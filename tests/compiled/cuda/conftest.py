"""Tests of this folder run on the double of CuPy, and on a GPU where there is one."""

import pytest

from pararnn_solvers.compiled import cuda_launch
from tests.cuda_on_cpu.fixtures import pytest_generate_tests  # noqa: F401


@pytest.fixture(autouse=True)
def one_tile(monkeypatch):
    """Only one size of tiles is compiled for; a test compares the others with it."""
    monkeypatch.setattr(cuda_launch, "STAGED_TILES", (8,))
