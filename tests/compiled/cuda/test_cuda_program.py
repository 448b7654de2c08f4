"""Steps as CUDA C++: readable, typed, and refused where there is no such function."""

import re

import numpy as np
import pytest
from scipy import special

from pararnn_solvers.compiled import cuda_kernels, cuda_program, numba_kernels
from pararnn_solvers.compiled.cuda_program import FUNCTIONS, device_program, literal
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.functions import gelu, sigmoid, softplus
from tests.compiled.cuda.on_device import FAMILIES, problem
from tests.cuda_on_cpu import fake_cupy

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def made(step, theta=None, k=1, n=3, dtype=np.float64):
    h, x = np.zeros((2, k * n), dtype), np.zeros((2, n), dtype)
    return device_program(step, h, x, theta, k)


def evaluated(device, step, h, x, theta=None, fast_math=False):
    program = device_program(step, h, x, theta, 1, fast_math)
    return cuda_kernels.evaluate(program, device.asarray(h), device.asarray(x)).get()


def test_literals_have_the_type_of_the_state():
    assert literal(0.1, F32) == "0.1f"
    assert literal(0.1, F64) == "0.1"
    assert literal(1e300, F32) == "infinity()"
    assert literal(-np.inf, F64) == "-infinity()"
    assert literal(np.nan, F64) == "nan()"
    assert literal(1e10, F32) == "1e+10f"
    assert (literal(True, F32), literal(False, F32)) == ("true", "false")


def test_the_example_of_the_docstring(device):
    text = made(lambda h, x, a: np.tanh(a * h + x), np.ones(3)).step_source
    assert text in cuda_program.__doc__.replace("\n    ", "\n")


def test_every_literal_of_a_float32_step_is_a_float(device):
    program = made(lambda h, x, a: gelu(0.3 * h) + x / 7 + 1e-12, dtype=np.float32)
    numbers = re.findall(r"\d+\.\d*(?:e[+-]?\d+)?.", program.step_source + program.adjoint_source)
    assert "0.3f" in numbers
    assert all(number.endswith("f") for number in numbers)


def tricky(h, x, theta):
    """Selections, connectives, constants and what C binds otherwise than Python."""
    a = np.where((h < 0) & ~(x < h) | (x == 0), np.minimum(h, -x), np.clip(h * x, -0.5, 0.25))
    b = np.where(np.isnan(x), -np.inf, a - (h - (x - 1.5)))
    c = np.where(b < -1, -(x - h), x) ** 3 / (1 + h * h) - np.where(h > x, theta["é"], theta["b"])
    return np.fmax(c, np.nan) + np.where(x > 0.5, 1.0, h) * (h != x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_printed_is_what_was_written(device, dtype):
    rng = np.random.default_rng(0)
    h, x = rng.choice([-2, -1, -0.3, 0, 0.4, 1, 3, np.nan], (2, 4, 400)).astype(dtype)
    theta = {"é": dtype(0.7), "b": dtype(0.1), "name": "not a number"}
    with np.errstate(all="ignore"):
        expected = tricky(h, x, theta)
    found = evaluated(device, tricky, h, x, theta)
    assert found.dtype == expected.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=8 * np.finfo(dtype).eps)


def test_functions_by_their_names(device):
    step = lambda h, x, _: sigmoid(h) + softplus(x) * np.arctan2(h, x) + np.remainder(h, 0.3)  # noqa: E731
    h, x = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_allclose(evaluated(device, step, h, x), step(h, x, None), rtol=1e-14)


def test_a_function_that_the_device_lacks_is_named(device):
    with pytest.raises(NotTraceable, match="erfinv: no device function"):
        made(lambda h, x, _: special.erfinv(h) + x).require_functions()
    assert "erfinv" not in FUNCTIONS


def test_theta_may_be_on_the_device_or_not(device):
    p = problem(device, FAMILIES["cell"](n=3, T=4))
    host = device_program(p.system.recurrence.step, p.h0, p.x, p.system.theta, 2)
    np.testing.assert_array_equal(p.gpu.theta.get(), host.theta.get())
    np.testing.assert_array_equal(p.gpu.theta.get(), p.cpu.theta)
    assert p.gpu.code == host.code


@pytest.mark.double
def test_tracing_copies_nothing_but_parameters(device):
    fake_cupy.copies.clear()
    problem(device, FAMILIES["diagonal"](n=33, T=50))
    assert max(fake_cupy.copies.to_device) == 50 * 33 * 8  # the test's own x
    assert not fake_cupy.copies.to_host


def test_fast_math_changes_float32_only(device):
    h, x = np.random.default_rng(0).normal(size=(2, 5, 3))
    step = lambda h, x, _: np.tanh(h + x)  # noqa: E731
    exact = step(h, x, None)
    np.testing.assert_allclose(evaluated(device, step, h, x, fast_math=True), exact, rtol=1e-15)
    h, x = h.astype(np.float32), x.astype(np.float32)
    np.testing.assert_allclose(evaluated(device, step, h, x, fast_math=True), exact, rtol=1e-3)


def test_the_drives_of_a_row_are_where_the_cpu_finds_them(device):
    """One drive shared by all channels, one not used, and parameters of both kinds."""
    p = problem(device, FAMILIES["cell"](n=3, T=4))
    assert p.gpu.drive_places == p.cpu.drive_places
    assert p.gpu.parameter_places == p.cpu.parameter_places
    h = np.random.default_rng(0).normal(size=p.system.shape)
    found = cuda_kernels.evaluate(p.gpu, device.asarray(h), p.x).get()
    np.testing.assert_allclose(found, numba_kernels.evaluate(p.cpu, h, p.system.x), rtol=1e-13)
