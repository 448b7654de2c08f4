"""Vector mathematics: accurate, right at the edges of its range, and truly vectorized."""

import math
import os
import platform
import re
import subprocess
import sys
from functools import cache

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pararnn_solvers.compiled.vector_math import FUNCTIONS
from tests.compiled.references import EXACT, arguments, reference, ulps

DTYPES = [np.float32, np.float64]
LIMIT = {np.float32: 2.0**20, np.float64: 2.0**49}
# Units in the last place, as the docstrings say.
BOUND = {
    "exp": 0.8,
    "expm1": 1.2,
    "log": 1,
    "log1p": 1.5,
    "tanh": 1.5,
    "sigmoid": 1.6,
    "softplus": 1.8,
    "sin": 1,
    "cos": 1,
    "erf": 1.2,
    "sqrt": 0.5,
    "pow": 1,
}
NAN, INF = math.nan, math.inf


@cache
def loop(name):
    f = FUNCTIONS[name]
    if name == "pow":

        @numba.njit(error_model="numpy", fastmath={"contract"})
        def kernel(x, y, out):
            for i in range(x.size):
                out[i] = f(x[i], y[i])
    else:

        @numba.njit(error_model="numpy", fastmath={"contract"})
        def kernel(x, out):
            for i in range(x.size):
                out[i] = f(x[i])

    return kernel


def evaluate(name, *x):
    out = np.empty_like(x[0])
    loop(name)(*x, out)
    return out


def values(name, dtype, *x):
    return evaluate(name, *(np.array(part, dtype) for part in np.broadcast_arrays(*x)))


every = pytest.mark.parametrize("name", FUNCTIONS)
both = pytest.mark.parametrize("dtype", DTYPES)


@every
@both
def test_error_is_within_the_stated_bound(name, dtype):
    if dtype is np.float64 and not EXACT:
        pytest.skip("a long double is a double here")
    x = arguments(name, dtype, 4_000 if name == "erf" else 20_000, LIMIT[dtype])
    error = ulps(evaluate(name, *x), reference(name, *x))
    worst = np.argmax(error)
    assert error[worst] <= BOUND[name], [part[worst] for part in x]


SPECIAL = {
    "exp": [(-INF, 0), (-0.0, 1), (0, 1), (INF, INF), (-1e30, 0), (1e30, INF)],
    "expm1": [(-INF, -1), (-0.0, -0.0), (0, 0), (INF, INF), (-1e30, -1), (1e30, INF)],
    "log": [(-INF, NAN), (-1, NAN), (-0.0, -INF), (0, -INF), (1, 0), (INF, INF)],
    "log1p": [(-INF, NAN), (-2, NAN), (-1, -INF), (-0.0, -0.0), (0, 0), (INF, INF)],
    "tanh": [(-INF, -1), (-0.0, -0.0), (0, 0), (INF, 1), (-1e30, -1), (1e30, 1)],
    "sigmoid": [(-INF, 0), (0, 0.5), (-0.0, 0.5), (INF, 1), (-1e30, 0), (1e30, 1)],
    "softplus": [(-INF, 0), (INF, INF), (-1e30, 0), (1e30, 1e30)],
    "sin": [(-INF, NAN), (-0.0, -0.0), (0, 0), (INF, NAN)],
    "cos": [(-INF, NAN), (-0.0, 1), (0, 1), (INF, NAN)],
    "erf": [(-INF, -1), (-0.0, -0.0), (0, 0), (INF, 1), (-1e30, -1), (1e30, 1)],
    "sqrt": [(-INF, NAN), (-1, NAN), (-0.0, -0.0), (0, 0), (4, 2), (INF, INF)],
}


@pytest.mark.parametrize("name", SPECIAL)
@both
def test_special_values(name, dtype):
    x, expected = np.array([*SPECIAL[name], (NAN, NAN)], dtype).T
    actual = values(name, dtype, x)
    np.testing.assert_array_equal(actual, expected)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))


@both
def test_special_values_of_pow_are_those_of_c(dtype):
    """Every pair of: zeros, infinities, NaN, ones, odd and even integers, halves, extremes."""
    info = np.finfo(dtype)
    positive = [0.0, info.smallest_subnormal, 0.5, 1.0, 1.5, 2.0, 3.0, 2.0**info.nmant + 1]
    positive += [2.0 ** (info.nmant + 1) + 2, info.max, INF]
    each = np.array([*positive, *(-x for x in positive), NAN], dtype)
    x, y = (part.ravel() for part in np.meshgrid(each, each))
    actual = values("pow", dtype, x, y)
    with np.errstate(all="ignore"):
        expected = reference("pow", x, y).astype(dtype)
    known = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), ~known)
    np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))
    np.testing.assert_allclose(actual, expected, rtol=info.eps, atol=info.smallest_subnormal)


@pytest.mark.parametrize("name", ["exp", "expm1", "softplus"])
@both
def test_the_last_finite_value_and_the_last_nonzero_one(name, dtype):
    """Ten numbers on either side of every threshold: overflow, subnormal results, underflow."""
    info = np.finfo(dtype)
    subnormal = np.longdouble(info.smallest_subnormal)
    edges = np.log([info.max, info.smallest_normal, subnormal, subnormal / 2], dtype=np.longdouble)
    x = np.outer([*edges, *-edges], 1 + np.arange(-10, 11) * info.eps / 2).astype(dtype).ravel()
    error = ulps(evaluate(name, x), reference(name, x))
    assert np.max(error) <= BOUND[name]


@both
def test_sigmoid_is_accurate_or_zero_where_its_result_is_subnormal(dtype):
    x = -np.linspace(80, 110, 1001) if dtype is np.float32 else -np.linspace(700, 750, 1001)
    x = x.astype(dtype)
    expected = reference("sigmoid", x)
    found = evaluate("sigmoid", x)
    accurate = ulps(found, expected) <= BOUND["sigmoid"]
    assert accurate[expected >= np.finfo(dtype).smallest_normal].all()
    assert (accurate | (found == 0)).all()
    assert (np.diff(found) <= 0).all()


@pytest.mark.parametrize("name", ["log", "sqrt", "expm1", "log1p", "tanh", "sin", "erf"])
@both
def test_subnormal_arguments_are_not_lost(name, dtype):
    x = np.arange(1, 100).astype(dtype) * np.finfo(dtype).smallest_subnormal
    error = ulps(evaluate(name, x), reference(name, x))
    assert np.max(error) <= BOUND[name]
    if name in ("expm1", "log1p", "tanh", "sin"):
        np.testing.assert_array_equal(evaluate(name, x), x)


@pytest.mark.parametrize("name", ["sin", "cos"])
@both
def test_angles_beyond_the_limit_are_nan_rather_than_wrong(name, dtype):
    limit = dtype(LIMIT[dtype])
    beyond = np.nextafter(limit, dtype(INF))
    x = np.array([-np.finfo(dtype).max, -beyond, -limit, limit, beyond, np.finfo(dtype).max])
    np.testing.assert_array_equal(np.isnan(evaluate(name, x)), [1, 1, 0, 0, 1, 1])


ODD, EVEN = ["tanh", "sin", "erf"], ["cos"]
RISING = ["exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "erf", "sqrt"]
WIDTH = {np.float32: 32, np.float64: 64}


@pytest.mark.parametrize("name", ODD + EVEN)
@both
@given(data=st.data())
def test_symmetry(name, dtype, data):
    x = np.array([data.draw(st.floats(width=WIDTH[dtype], allow_nan=False))], dtype)
    sign = -1 if name in ODD else 1
    np.testing.assert_array_equal(evaluate(name, -x), sign * evaluate(name, x))


@pytest.mark.parametrize("name", RISING)
@both
@given(data=st.data())
def test_monotonic_to_within_its_error(name, dtype, data):
    floats = st.floats(width=WIDTH[dtype], allow_nan=False, min_value=0)
    low, high = sorted([data.draw(floats), data.draw(floats)])
    below, above = values(name, dtype, [low, high])
    # Each may be off by the bound, in the opposite direction.
    assert below <= above or below - above <= 2 * BOUND[name] * np.spacing(above)
    if name in ("tanh", "sigmoid", "erf"):
        assert above <= 1


@every
@both
def test_a_vector_and_its_remainder_have_the_same_bits(name, dtype):
    """Elements in vectors and those left over at the end do not differ."""
    x = tuple(part[:67] for part in arguments(name, dtype, 100, LIMIT[dtype]))
    alone = [evaluate(name, *(part[i : i + 1] for part in x))[0] for i in range(67)]
    np.testing.assert_array_equal(evaluate(name, *x), alone)


@both
def test_liberties_of_the_caller_do_not_reach_the_functions(dtype):
    tanh = FUNCTIONS["tanh"]

    @numba.njit(fastmath=True)
    def kernel(x, out):
        for i in range(x.size):
            out[i] = tanh(x[i])

    (x,) = arguments("tanh", dtype, 1000, INF)
    out = np.empty_like(x)
    kernel(x, out)
    np.testing.assert_array_equal(out, evaluate("tanh", x))


PACKED = {
    "x86": r"\bv?(?:mul|sqrt|fn?m\w+)p[sd]\b.*[xyz]mm",
    "arm": r"\b(?:fml[as]|fmul|fsqrt)\s+v\d+\.[42][sd]",
}
MACHINE = {"x86_64": "x86", "amd64": "x86", "aarch64": "arm", "arm64": "arm"}
HERE = MACHINE.get(platform.machine().lower())


@every
@both
def test_the_loop_is_vectorized(name, dtype):
    kernel = loop(name)
    evaluate(name, *arguments(name, dtype, 10, LIMIT[dtype]))
    (signature,) = [s for s in kernel.signatures if s[0].dtype == numba.from_dtype(np.dtype(dtype))]
    code = kernel.inspect_llvm(signature)
    element = "float" if dtype is np.float32 else "double"
    assert re.search(rf"call[^\n]*<\d+ x {element}> @llvm\.(fmuladd|sqrt)\.", code)
    assert not re.search(rf"call[^@\n]*\b{element}>? @(?!llvm\.)", code)
    if dtype is np.float32:
        assert "double" not in code
    if HERE:
        assert re.search(PACKED[HERE], kernel.inspect_asm(signature))


def test_a_kernel_compiles_in_a_second_or_so():
    """The slowest of them, from scratch, with all that it is made of."""
    code = """
import time
import numba
from pararnn_solvers.compiled.vector_math import FUNCTIONS
f = FUNCTIONS["pow"]
numba.njit("void(f8[::1])")(lambda x: None)
start = time.perf_counter()
@numba.njit("void(f8[::1], f8[::1])", error_model="numpy")
def kernel(x, out):
    for i in range(x.size):
        out[i] = f(x[i], x[i])
print(time.perf_counter() - start)
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(out.stdout) < 5  # 1.0 on an idle core


@pytest.mark.skipif(HERE != "x86", reason="names a processor of this architecture")
@pytest.mark.skipif("NUMBA_CPU_NAME" in os.environ, reason="is inside itself")
@pytest.mark.parametrize("processor", ["x86-64", "haswell"])
def test_other_processors(processor):
    """The oldest, which has no fused multiply-add, and one without AVX-512."""
    features = {"x86-64": "+sse2", "haswell": "+avx2,+fma,+bmi,+bmi2,+sse4.1,+sse4.2"}[processor]
    environment = os.environ | {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    # Old square roots are no faster in vectors, which LLVM knows.
    chosen = "test_error_is or test_special or vectorized and not sqrt"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen]
    command.append(__file__)
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:]
