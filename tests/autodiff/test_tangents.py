"""Tangents with unit axes mean the same as those in full, whatever is done to their values."""

import itertools
import math

import numpy as np
import pytest

from pararnn_solvers.autodiff.tangents import (
    accumulate,
    full,
    index_tangent,
    lift,
    reshape_tangent,
    scaled,
    shift,
)

P = 2  # directions


def factorizations(size, ndim):
    """All shapes of so many axes with so many entries."""
    axes = itertools.product(range(1, size + 1), repeat=ndim)
    return [shape for shape in axes if math.prod(shape) == size]


def with_unit_axes(shape):
    """A tangent of this shape for every choice of the axes along which it does not vary."""
    rng = np.random.default_rng(0)
    for kept in itertools.product((True, False), repeat=len(shape)):
        yield rng.normal(size=(P, *(n if keep else 1 for n, keep in zip(shape, kept, strict=True))))


SHAPES = [shape for ndim in range(1, 5) for shape in factorizations(12, ndim)]


@pytest.mark.parametrize(
    "old", [(12,), (1, 12), (3, 4), (4, 3), (2, 1, 6), (2, 3, 2), (1, 3, 4, 1)]
)
def test_reshaping_equals_reshaping_in_full(old):
    for new, t in itertools.product(SHAPES, with_unit_axes(old)):
        expected = full(t, old).reshape(P, *new)
        np.testing.assert_array_equal(full(reshape_tangent(t, old, new), new), expected)


def test_reshaping_keeps_unit_axes_beside_what_changes():
    """The seeds of many sequences stay as small as one, while their channels are cut in parts."""
    assert reshape_tangent(np.ones((P, 1, 6)), (50, 6), (50, 2, 3)).shape == (P, 1, 2, 3)
    assert reshape_tangent(np.ones((P, 6, 1)), (6, 50), (2, 3, 50)).shape == (P, 2, 3, 1)
    assert reshape_tangent(np.ones((P, 4, 1, 5)), (4, 6, 5), (4, 2, 3, 5)).shape == (P, 4, 1, 1, 5)


INDICES = [
    (),
    (1,),
    (..., 1),
    (0, ...),
    (slice(1, 3), None),
    (None, ..., slice(None, None, -1)),
    (1, slice(None), 2),
    (..., 0, None, slice(0, 2)),
    (-1, ..., None),
    (np.int64(1), slice(2), -1),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_equals_indexing_in_full(index):
    shape = (3, 2, 4)
    for t in with_unit_axes(shape):
        expected = full(t, shape)[(slice(None), *index)]
        part = index_tangent(t, index, shape)
        np.testing.assert_array_equal(full(part, expected.shape[1:]), expected)


def test_sums_are_taken_in_owned_memory_only():
    out, owned, others = np.zeros((3, 2)), np.ones((P, 3, 2)), np.full((P, 1, 2), 4.0)
    total, own = accumulate((others, False), owned, True, out)
    assert total is owned
    assert own
    np.testing.assert_array_equal(total, np.full((P, 3, 2), 5.0))
    total, own = accumulate((others, True), np.ones((P, 3, 1)), True, out)
    assert own  # being new
    assert not np.shares_memory(total, others)
    np.testing.assert_array_equal(total, np.full((P, 3, 2), 5.0))
    np.testing.assert_array_equal(others, 4.0)  # too small for the sum, so left alone
    narrow = np.ones((P, 3, 2), np.float32)
    total, _ = accumulate((narrow, True), owned, False, out)
    assert total.dtype == np.float64
    np.testing.assert_array_equal(narrow, 1.0)
    assert accumulate(None, owned, False, out) == (owned, False)


@pytest.mark.parametrize("directions", [1, 2])
def test_a_product_with_a_partial_derivative(directions):
    values = [np.arange(6.0).reshape(2, 3)]
    tangent, factor = np.full((directions, 1, 3), 2.0), np.arange(1.0, 7.0).reshape(2, 3)
    expected = np.stack([2 * factor] * directions)
    product = scaled(tangent, memory := factor.copy(), values[0], values)
    np.testing.assert_array_equal(product, expected)
    assert np.shares_memory(product, memory) == (directions == 1)
    # A partial derivative that is the argument itself stays as it is.
    argument = values[0].copy()
    np.testing.assert_array_equal(scaled(tangent, values[0], values[0], values)[0], 2 * argument)
    np.testing.assert_array_equal(values[0], argument)
    tangent[0, 0, 1] = np.inf
    selected = scaled(tangent, factor > 4, values[0], values)
    np.testing.assert_array_equal(selected[0], [[0, 0, 0], [0, np.inf, 2]])
    assert scaled(np.ones((1, 2), np.float32), np.ones(2), np.ones(2, np.float32), []).dtype == "f4"
    # A number has no memory to use again.
    assert scaled(np.ones(1), np.float64(2), np.float64(3), []) == 2


def test_axes_of_a_tangent():
    assert shift(0) == 1
    assert shift(-1) == -1
    assert shift((0, 2, -2)) == (1, 3, -2)
    assert lift(np.ones((P, 3)), 1).shape == (P, 3)
    assert lift(np.ones((P, 3)), 3).shape == (P, 1, 1, 3)
