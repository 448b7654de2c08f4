"""The fixture `device`: a test that takes it runs as if there were a GPU, or on one.

Where a folder's `conftest.py` imports `pytest_generate_tests` from here, each test that takes
`device` runs twice: on the double, and under the marker `gpu` on a real device. Tests of the marker
`double` need what only that has: it counts copies, limits memory, has three multiprocessors and a
second device.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from pararnn_solvers.errors import BackendUnavailable
from pararnn_solvers.linear import cuda
from tests.cuda_on_cpu import fake_cupy, raw_module

DEVICES = ["double", pytest.param("gpu", marks=pytest.mark.gpu)]


def pytest_generate_tests(metafunc) -> None:
    """Run tests on the double, and on a real device."""
    if "device" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("double")
        metafunc.parametrize("device", DEVICES[:1] if alone else DEVICES, indirect=True)


@pytest.fixture
def device(request) -> Iterator[Any]:
    """CuPy's double, installed, or CuPy; device 0 is current and no copy has been counted."""
    if getattr(request, "param", "double") == "gpu":
        yield from on_gpu()
        return
    with fake_cupy.installed() as cupy, cupy.cuda.Device(0):
        fake_cupy.copies.clear()
        yield cupy


def on_gpu() -> Iterator[Any]:
    """CuPy, device 0 current; skips with the reason where it cannot be used."""
    try:
        cupy = cuda.cupy()
    except BackendUnavailable as reason:
        pytest.skip(str(reason))
    with cupy.cuda.Device(0):
        fake_cupy.copies.clear()
        yield cupy


@pytest.fixture(params=raw_module.SCHEDULES, ids=["forward", "reverse", "shuffled"])
def thread_order(request) -> Iterator[int]:
    """Kernels run under each order of threads; a GPU has its own."""
    if request.node.get_closest_marker("gpu") and request.param != raw_module.FORWARD:
        pytest.skip("a GPU orders threads itself")
    with raw_module.schedule(request.param):
        yield request.param
