import subprocess
import sys

import numpy as np
import pytest
from scipy import special

from pararnn_solvers.functions import gelu, sigmoid, silu, softplus

ALL = [sigmoid, softplus, silu, gelu]
GRID = np.concatenate([np.linspace(-700, 700, 2001), np.linspace(-2, 2, 401), [0.0, -0.0]])
EPS = {np.float32: 1.2e-7, np.float64: 2.3e-16}


def exactly(function, x):
    """The function in extended precision, each tail by the form which does not cancel there."""
    x = np.asarray(x, np.longdouble)
    decay = np.exp(-np.abs(x))
    sigma = np.where(x >= 0, 1, decay) / (1 + decay)
    if function is sigmoid:
        return sigma
    if function is silu:
        return x * sigma
    return np.maximum(x, 0) + np.log1p(decay)


@pytest.mark.parametrize("function", [sigmoid, softplus, silu])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_relative_accuracy_in_both_tails(function, dtype):
    x = GRID.astype(dtype)
    x = x[np.abs(x) < (80 if dtype is np.float32 else 700)]
    out = function(x)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, exactly(function, x).astype(dtype), rtol=6 * EPS[dtype])


def test_gelu_is_the_exact_form():
    x = np.linspace(-30, 30, 301)
    np.testing.assert_allclose(gelu(x), x * special.erfc(-x / np.sqrt(2)) / 2, rtol=2e-13)
    assert gelu(x.astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_limits_and_nan_without_warnings(function, dtype):
    right = 1 if function is sigmoid else np.inf
    out = function(np.array([-np.inf, np.inf, np.nan, -1e30, 1e30], dtype))
    np.testing.assert_array_equal(out[:3], [0, right, np.nan])
    assert out[3] == 0
    assert out[4] == (1 if function is sigmoid else dtype(1e30))


@pytest.mark.parametrize("function", ALL)
def test_scalars_lists_and_empty_arrays(function):
    for x in (0.5, np.float32(0.5), np.array(0.5), [0.5, 1.0], np.zeros((0, 3)), 1):
        assert np.shape(function(x)) == np.shape(x)
    assert function(np.float32(0.5)).dtype == np.float32


@pytest.mark.parametrize("function", ALL)
def test_the_argument_is_left_alone(function):
    x = np.linspace(-3, 3, 7)
    function(x)
    np.testing.assert_array_equal(x, np.linspace(-3, 3, 7))


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_step_gives_the_derivative(function, dtype):
    x = np.linspace(-30, 30, 121)
    step = 1e-20 if dtype is np.complex64 else 1e-30
    out = function((x + 1j * step).astype(dtype))
    assert out.dtype == dtype
    sigma, tail = special.expit(x), special.expit(-x)
    density = np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    derivative = {
        sigmoid: sigma * tail,
        softplus: sigma,
        silu: sigma * (1 + x * tail),
        gelu: special.ndtr(x) + x * density,
    }[function]
    tolerance = 1e-5 if dtype is np.complex64 else 1e-13
    np.testing.assert_allclose(out.imag / step, derivative, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        out.real, function(x), rtol=1e-4 if dtype is np.complex64 else 1e-12, atol=1e-37
    )


def test_importing_the_module_does_not_import_scipy():
    code = (
        "import sys, pararnn_solvers.functions, pararnn_solvers.autodiff;"
        "sys.exit('scipy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
