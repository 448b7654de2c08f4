"""The functions that a step may call are NumPy's and SciPy's, in both precisions.

On this machine the C library stands in for CUDA's: what is tested is how the functions are put
together, which of them is called, special values, and that nothing passes through the other
precision; not the errors of CUDA's own functions.
"""

import functools

import numpy as np
import pytest
from scipy import special

from pararnn_solvers.compiled.cuda_program import FUNCTIONS
from pararnn_solvers.functions import sigmoid, softplus
from pararnn_solvers.linear import cuda

TWO = "arctan2 copysign floor_divide fmax fmin fmod heaviside hypot logaddexp logaddexp2 maximum"
TWO = [*TWO.split(), *"minimum pow remainder xlog1py xlogy".split()]
TRUTHS = ["isfinite", "isinf", "isnan", "signbit"]
ONE = sorted(FUNCTIONS - set(TWO) - set(TRUTHS))
SPECIAL = {"ndtr": special.ndtr, "logit": special.logit, "entr": special.entr, "erf": special.erf}
SPECIAL |= {"erfc": special.erfc, "xlogy": special.xlogy, "xlog1py": special.xlog1py}
SPECIAL |= {"sigmoid": sigmoid, "softplus": softplus, "exp10": lambda x: np.power(10, x)}
DTYPES = {np.float32: "float", np.float64: "double"}
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=DTYPES.values())


@functools.cache
def code(dtype, fast=0):
    lines = [f"typedef {DTYPES[dtype]} real;", f"#define FAST_MATH {fast}"]
    lines.append(cuda.source("functions.cu"))
    for name in sorted(FUNCTIONS):
        lines.append(
            f'extern "C" __global__ void of_{name}(const real* a, const real* b, real* out, int n)'
            "\n{ const int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
            f"  if (i < n) out[i] = step::{name}(a[i]{', b[i]' * (name in TWO)}); }}"
        )
    return "\n".join(lines)


def call(device, name, a, b=None, fast=0):
    a = np.asarray(a)
    b = a if b is None else b
    out = device.empty(a.shape, a.dtype)
    names = tuple(f"of_{other}" for other in sorted(FUNCTIONS))
    kernel = cuda.kernel(code(a.dtype.type, fast), f"of_{name}", names=names)
    arguments = [device.asarray(a), device.asarray(b), out, np.int32(a.size)]
    cuda.launch(kernel, -(-a.size // 32), 32, arguments)
    return out.get()


def exact(name, *arguments):
    """In float64, or in long double where SciPy knows it."""
    function = SPECIAL.get(name) or getattr(np, {"pow": "power"}.get(name, name))
    with np.errstate(all="ignore"):
        if name in SPECIAL:
            return function(*(a.astype(np.float64) for a in arguments))
        return function(*(a.astype(np.longdouble) for a in arguments))


def samples(dtype):
    rng = np.random.default_rng(0)
    most = float(np.log(np.finfo(dtype).max))
    tails = np.linspace(-1.1, 1.1, 301) * most
    whole = np.arange(-4, 5)
    parts = [rng.normal(size=200), rng.uniform(-1, 1, 200), tails, whole, [np.inf, -np.inf, np.nan]]
    return np.concatenate([np.asarray(part, np.float64) for part in parts]).astype(dtype)


def assert_close(found, expected, dtype, units=4.0, absolute=0.0):
    with np.errstate(all="ignore"):
        expected, info = expected.astype(dtype), np.finfo(dtype)
        atol = absolute * info.eps + info.smallest_normal
        np.testing.assert_allclose(found, expected, rtol=units * info.eps, atol=atol)


@dtypes
@pytest.mark.parametrize("name", ONE)
def test_functions_of_one_number(device, name, dtype):
    a = samples(dtype)
    if name == "ndtr":  # whose argument is rounded: as many units as its square
        a = a[~(np.abs(a) > 4)]
    if name in ("cos", "sin", "tan"):  # NumPy's own
        a = a[~(np.abs(a) > 1e3)]
    units = {"ndtr": 16, "exp10": 128, "logit": 64, "erfc": 64}.get(name, 4)  # SciPy's erfc
    assert_close(call(device, name, a), exact(name, a), dtype, units)


@dtypes
@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_numbers(device, name, dtype):
    a = samples(dtype)
    b = np.random.default_rng(1).permutation(a)
    a, b = np.concatenate([a, a, [0, 0, 3, -3, 0]]), np.concatenate([b, a, [0, np.nan, 0, 0, -2]])
    a, b = a.astype(dtype), b.astype(dtype)
    expected = exact(name, a, b)
    if name in ("fmod", "remainder", "floor_divide"):  # of these very numbers
        function = getattr(np, name)
        with np.errstate(all="ignore"):
            expected = function(a, b)
    absolute = 4.0 if name.startswith("logaddexp") else 0.0  # where its terms cancel
    assert_close(call(device, name, a, b), expected, dtype, absolute=absolute)


@dtypes
@pytest.mark.parametrize("name", TRUTHS)
def test_predicates(device, name, dtype):
    a = samples(dtype)
    expected = getattr(np, name)(a)
    usual = ~np.isnan(a) if name == "signbit" else ...  # NaN has no sign to speak of
    np.testing.assert_array_equal(call(device, name, a)[usual], expected[usual])


@dtypes
def test_signs_of_zero(device, dtype):
    zeros = np.array([0.0, -0.0], dtype)
    for name in ("abs", "tanh", "expm1", "log1p", "sqrt", "arctan", "rint", "floor"):
        expected = np.signbit(getattr(np, name)(zeros))
        np.testing.assert_array_equal(np.signbit(call(device, name, zeros)), expected)


@dtypes
def test_sigmoid_and_softplus_in_both_tails(device, dtype):
    """Relative accuracy down to where numbers lose digits themselves."""
    most = -float(np.log(np.finfo(dtype).smallest_normal))
    x = np.linspace(-most, most, 4001).astype(dtype)
    long = x.astype(np.longdouble)
    decay = np.exp(-np.abs(long))
    expected = {
        "sigmoid": np.where(long < 0, decay, 1) / (1 + decay),
        "softplus": np.maximum(long, 0) + np.log1p(decay),
    }
    for name, values in expected.items():
        found = call(device, name, x)
        error = np.abs(found - values) / np.abs(values)
        assert error.max() <= 3 * np.finfo(dtype).eps
    x = np.array([-np.inf, np.inf, np.nan, -1e30, 1e30], dtype)
    np.testing.assert_array_equal(call(device, "sigmoid", x), np.array([0, 1, np.nan, 0, 1], dtype))
    np.testing.assert_array_equal(
        call(device, "softplus", x), np.array([0, np.inf, np.nan, 0, 1e30], dtype)
    )


def test_fast_functions_are_off_by_what_is_said(device):
    """On this machine by emulated errors as large as the device's are said to be."""
    x = np.linspace(-20, 20, 4001).astype(np.float32)
    eps = np.finfo(np.float32).eps
    for name, least, most in [
        ("tanh", 2.0**-12, 2.0**-11 + eps),
        ("exp", eps, (2 + 1.173 * 20) * eps),
        ("sigmoid", eps, (6 + 1.173 * 20) * eps),
    ]:
        expected = exact(name, x)
        error = np.abs(call(device, name, x, fast=1) - expected)[x != 0] / np.abs(expected)[x != 0]
        assert least < error.max() <= most, name
    ends = np.array([-np.inf, -300, 0, 300, np.inf, np.nan], np.float32)
    limits = {"exp": [0, 0, 1, np.inf, np.inf], "tanh": [-1, -1, 0, 1, 1]}
    for name, expected in (limits | {"sigmoid": [0, 0, 0.5, 1, 1]}).items():
        np.testing.assert_array_equal(call(device, name, ends, fast=1), [*expected, np.nan])


def test_every_function_has_a_test():
    assert set(ONE) | set(TWO) | set(TRUTHS) == FUNCTIONS
    assert not FUNCTIONS.isdisjoint(SPECIAL)
