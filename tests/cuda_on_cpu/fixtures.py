"""The fixture `device`: a test that takes it runs as if there were a GPU."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cuda_on_cpu import fake_cupy, raw_module


@pytest.fixture
def device() -> Iterator[Any]:
    """The double of CuPy, installed; device 0 is current and no copy has been counted."""
    with fake_cupy.installed() as cupy, cupy.cuda.Device(0):
        fake_cupy.copies.clear()
        yield cupy


@pytest.fixture(params=raw_module.SCHEDULES, ids=["forward", "reverse", "shuffled"])
def thread_order(request) -> Iterator[int]:
    """Kernels run under each order of threads."""
    with raw_module.schedule(request.param):
        yield request.param
