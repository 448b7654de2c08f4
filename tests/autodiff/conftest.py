"""The reference that every derivative is held to: one direction at a time, without dual arrays."""

import itertools

import numpy as np
import pytest

from pararnn_solvers.autodiff import Dual, tangent_of, value_of

DIRECTIONS = 3


def by_complex_step(function, arrays, directions):
    moved = [a + 1e-30j * t for a, t in zip(arrays, directions, strict=True)]
    return [out.imag / 1e-30 for out in leaves(function(*moved))]


def by_differences(function, arrays, directions, step=1e-3):
    """Fourth-order central differences: exact to about 1e-11 for functions of moderate size."""

    def at(distance):
        moved = [a + distance * t for a, t in zip(arrays, directions, strict=True)]
        return [np.asarray(out) for out in leaves(function(*moved))]

    ends = zip(at(step), at(-step), at(2 * step), at(-2 * step), strict=True)
    return [(8 * (a - b) - (c - d)) / (12 * step) for a, b, c, d in ends]


def leaves(out):
    return list(out) if isinstance(out, (list, tuple)) else [out]


def tangents(rng, shape):
    """A tangent in full, and one which does not vary along some of its axes."""
    yield rng.normal(size=(DIRECTIONS, *shape))
    yield rng.normal(size=(DIRECTIONS, *(n if rng.random() < 0.5 else 1 for n in shape)))
    yield rng.normal(size=(DIRECTIONS, *(1 for n in shape)))


def check_derivative(function, *arrays, analytic=True, rtol=None, seed=0):
    """Compare dual arrays with the reference for every subset of the arguments."""
    rng = np.random.default_rng(seed)
    reference = by_complex_step if analytic else by_differences
    rtol = rtol or (2e-13 if analytic else 1e-8)
    expected_values = leaves(function(*arrays))
    subsets = itertools.product((False, True), repeat=len(arrays))
    for subset in (s for s in subsets if any(s)):
        for given in zip(*(tangents(rng, np.shape(a)) for a in arrays), strict=True):
            arguments = [
                Dual(a, t) if moves else a
                for a, t, moves in zip(arrays, given, subset, strict=True)
            ]
            outputs = leaves(function(*arguments))
            for out, value in zip(outputs, expected_values, strict=True):
                assert np.shape(value_of(out)) == np.shape(value)
                np.testing.assert_allclose(value_of(out), value, rtol=1e-13, atol=1e-14)
            for j in range(DIRECTIONS):
                directions = [
                    np.broadcast_to(t[j], np.shape(a)) if moves else np.zeros(np.shape(a))
                    for a, t, moves in zip(arrays, given, subset, strict=True)
                ]
                expected = reference(function, arrays, directions)
                for out, derivative in zip(outputs, expected, strict=True):
                    scale = max(1, np.max(np.abs(derivative), initial=0))
                    actual = tangent_of(out, DIRECTIONS)[j]
                    np.testing.assert_allclose(actual, derivative, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="session")
def check():
    return check_derivative
