"""Vectors in kernels compute what NumPy computes with arrays, special values included.

Each expression is one text that is evaluated twice: on vectors in a kernel, and on arrays.
"""

import re

import numpy as np
import pytest
from numba.core.registry import cpu_target

from pararnn_solvers.compiled import reductions, vectors
from pararnn_solvers.compiled.rounding import FUNCTIONS
from pararnn_solvers.linear.jit import jitted
from pararnn_solvers.linear.simd import load, store, widest, width

NAN, INF = np.nan, np.inf
DTYPES = [np.float32, np.float64]
both = pytest.mark.parametrize("dtype", DTYPES)

ARITHMETIC = ["a + b", "a - b", "a * b", "a / b", "-a", "a + 2", "2.5 - a", "a * 0.1", "1 / a"]
MASKS = [
    "a < b",
    "a <= b",
    "a > b",
    "a >= b",
    "a == b",
    "a != b",
    "0 < a",
    "a >= 1.5",
    "(a < b) & (b < 1)",
    "(a < b) | (b < 1)",
    "(a < b) ^ (b < 1)",
    "(a < b) == (b < 1)",
    "negated(a < b)",
    "select(a < b, b < 1, a > 0)",
    "isnan(a)",
    "isinf(a)",
    "isfinite(a)",
    "isfinite(a) & negated(isnan(b))",
]
CHOICES = [
    "select(a < b, a, b)",
    "select(a < b, 1, b)",
    "select(a < b, a, 0.1)",
    "select(a != a, 0.0, a)",
    "select(a < b, select(b < 0, a, b), 3)",
    "full(a, 0.1)",
    "full(a, b)",
]
ONE = ["abs", "fabs", "ceil", "floor", "rint", "sign", "trunc"]
TWO = ["copysign", "fmax", "fmin", "maximum", "minimum"]
ROUNDING = [f"{name}(a)" for name in ONE] + [f"{name}(a, b)" for name in TWO]
EXPRESSIONS = [*ARITHMETIC, *CHOICES, *ROUNDING, *(f"select({mask}, 1, 0)" for mask in MASKS)]


@jitted
def negated(mask):
    return not mask


IN_KERNELS = {**FUNCTIONS, "negated": negated, "select": vectors.select, "full": vectors.full}
IN_NUMPY = {
    **{name: getattr(np, name) for name in FUNCTIONS},
    "negated": np.logical_not,
    "select": np.where,
    "full": np.full_like,
}


def assembled(lines):
    """Compile a kernel of some lines in a loop over vectors ``a`` and ``b``, or over numbers."""
    space = {**IN_KERNELS, "np": np, "load": load, "store": store, "width": width}
    exec("\n    ".join(["def kernel(x, y, out):", *lines]), space)
    return jitted(space["kernel"])


def values(dtype):
    """Every pair of special values and of some others, in whole vectors."""
    info = np.finfo(dtype)
    each = [0.0, info.smallest_subnormal, info.smallest_normal, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5]
    each += [1 / info.eps - 0.5, 2 / info.eps, info.max, INF]
    each = np.array([*each, *(-x for x in each), NAN, -NAN], dtype)
    a, b = (part.ravel() for part in np.meshgrid(each, each))
    missing = -len(a) % 16
    return np.concatenate([a, a[:missing]]), np.concatenate([b, b[:missing]])


def assert_same(actual, expected, signs=True):
    np.testing.assert_array_equal(actual, expected)
    if signs:
        known = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual[known]), np.signbit(expected[known]))


@pytest.fixture(scope="module")
def on_vectors():
    lines = ["for i in range(0, x.size, np.int64(width(x))):", "    a, b = load(x, i), load(y, i)"]
    lines += [f"    store(out[{j}], i, {text})" for j, text in enumerate(EXPRESSIONS)]
    return assembled(lines)


@both
def test_an_expression_of_vectors_is_that_of_arrays(dtype, on_vectors):
    a, b = values(dtype)
    out = np.full((len(EXPRESSIONS), len(a)), 7, dtype)
    on_vectors(a, b, out)
    with np.errstate(all="ignore"):
        for text, found in zip(EXPRESSIONS, out, strict=True):
            expected = eval(text, {**IN_NUMPY, "a": a, "b": b})
            # Which of two zeros is greater, and the sign of sign(-0), NumPy does not promise.
            signs = not text.startswith(("maximum", "minimum", "fmax", "fmin", "sign("))
            assert found.dtype == dtype
            try:
                assert_same(found, np.asarray(expected, dtype), signs)
            except AssertionError as error:
                raise AssertionError(text) from error


@both
def test_rounding_functions_of_numbers_are_numpys(dtype):
    """In scalar code: the same functions, one number at a time."""
    calls = [*ROUNDING, "isnan(a)", "isinf(a)", "isfinite(a)"]
    lines = ["for i in range(x.size):", "    a, b = x[i], y[i]"]
    kernel = assembled([*lines, *(f"    out[{j}, i] = {text}" for j, text in enumerate(calls))])
    a, b = values(dtype)
    out = np.full((len(calls), len(a)), 7, dtype)
    kernel(a, b, out)
    with np.errstate(all="ignore"):
        for text, found in zip(calls, out, strict=True):
            expected = eval(text, {**IN_NUMPY, "a": a, "b": b})
            signs = not text.startswith(("maximum", "minimum", "fmax", "fmin", "sign("))
            assert_same(found, np.asarray(expected, dtype), signs)


def test_every_function_of_the_table_was_tried():
    tried = {text.partition("(")[0] for text in [*ROUNDING, *MASKS]}
    assert tried >= set(FUNCTIONS)


second_of_three = vectors.taker(1, 1)
last_two_of_three = vectors.taker(1, 2)
none_of_three = vectors.taker(0, 0)


@pytest.fixture(scope="module")
def reducing():
    @jitted
    def kernel(x, y, out, tuples):
        for i in range(0, x.size, np.int64(width(x))):
            a, b = load(x, i), load(y, i)
            positive = reductions.farthest(vectors.full(a, 0.0), a)
            row = i // np.int64(width(x))
            out[0, row] = reductions.total(a)
            out[1, row] = reductions.greatest(positive)
            out[2, row] = 1.0 if vectors.all_true(a < b) else 0.0
            out[3, row] = 1.0 if vectors.all_true(a == a) else 0.0
            store(tuples[0], i, reductions.farthest(positive, b))
            triple = (a, b, positive)
            store(tuples[1], i, vectors.plus((a, b), (b, b))[0])
            store(tuples[2], i, vectors.minus((a, b), (b, a))[1])
            store(tuples[3], i, second_of_three(triple)[0])
            store(tuples[4], i, last_two_of_three(triple)[1])
            store(tuples[5], i, none_of_three(triple)[0])
            store(tuples[6], i, reductions.spoil(vectors.blank(x), (a, b)))

    return kernel


def reduce(reducing, a, b):
    size = 64 // a.itemsize
    out, tuples = np.full((4, len(a) // size), 7, a.dtype), np.full((7, len(a)), 7, a.dtype)
    reducing(a, b, out, tuples)
    return out, tuples


@both
def test_vectors_are_reduced_and_taken_from_tuples(dtype, reducing):
    a, b = values(dtype)
    out, tuples = reduce(reducing, a, b)
    rows, others = (v.reshape(-1, 64 // a.itemsize) for v in (a, b))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(out[1], np.abs(rows).max(axis=1))  # NaN wins
        np.testing.assert_array_equal(out[2], (rows < others).all(axis=1))
        np.testing.assert_array_equal(out[3], (rows == rows).all(axis=1))
        expected = [np.maximum(np.abs(a), np.abs(b)), a + b, b - a, b, np.abs(a), a]
        expected.append(np.where(np.isfinite(a + b), 0, np.nan))
    for found, array in zip(tuples, expected, strict=True):
        np.testing.assert_array_equal(found, array)


@both
def test_a_total_is_the_sum_by_halves(dtype, reducing):
    rng, size = np.random.default_rng(0), 64 // np.dtype(dtype).itemsize
    a = rng.standard_normal(size * 10).astype(dtype)
    out, _ = reduce(reducing, a, a + 1)
    sums = a.reshape(-1, size)
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    np.testing.assert_array_equal(out[0], sums[:, 0])
    assert (out[2] == 1).all()


@both
@pytest.mark.parametrize("place", [0, 1, 6, 7, -1])
def test_one_element_decides(dtype, place, reducing):
    size = 64 // np.dtype(dtype).itemsize
    a, b = np.zeros(size, dtype), np.ones(size, dtype)
    b[place] = 0
    assert reduce(reducing, a, b)[0][2, 0] == 0
    for value in (NAN, -NAN, -INF, 5):
        a[place] = value
        assert_same(reduce(reducing, a, b)[0][1], np.abs(a[[place]]))
    a[place] = NAN
    assert reduce(reducing, a, b)[0][3, 0] == 0


@pytest.mark.skipif(
    "+avx512f" not in cpu_target.target_context.codegen().magic_tuple()[2].split(","),
    reason="the processor has no vectors of 64 bytes",
)
def test_a_loop_fills_the_widest_vectors_if_it_is_told_to():
    def doubled(x, out):
        widest()
        for i in range(x.size):
            out[i] = x[i] + x[i]

    kernel, x = jitted(doubled), np.arange(1000, dtype=np.float32)
    out = np.empty_like(x)
    kernel(x, out)
    np.testing.assert_array_equal(out, 2 * x)
    assert re.search(r"vaddps.*zmm", kernel.inspect_asm(kernel.signatures[0]))
