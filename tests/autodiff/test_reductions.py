import itertools

import numpy as np
import pytest

from pararnn_solvers.autodiff import Dual, tangent_of
from pararnn_solvers.errors import NotDifferentiable

A = np.random.default_rng(0).normal(size=(3, 4, 5))
WITH_ZEROS = np.where(A > 1, 0, A)
AXES = (None, 0, -1, (0, 2), (-1, 0))


@pytest.mark.parametrize("function", [np.sum, np.mean, np.prod, np.max, np.min, np.ptp, np.amax])
@pytest.mark.parametrize(("axis", "keepdims"), list(itertools.product(AXES, (False, True))))
def test_reduction(function, axis, keepdims, check):
    if function is np.ptp and isinstance(axis, tuple):
        function = _ptp  # of complex arrays, NumPy's own takes one axis only
    check(lambda a: function(a, axis=axis, keepdims=keepdims), A, rtol=1e-12)


def _ptp(a, axis, keepdims):
    return np.max(a, axis, keepdims=keepdims) - np.min(a, axis, keepdims=keepdims)


@pytest.mark.parametrize("function", [np.var, np.std, np.nansum, np.amin])
@pytest.mark.parametrize(("axis", "keepdims"), list(itertools.product(AXES, (False, True))))
def test_reduction_without_a_complex_step(function, axis, keepdims, check):
    check(lambda a: function(a, axis=axis, keepdims=keepdims), A, analytic=False)


def test_ddof(check):
    check(lambda a: np.var(a, -1, ddof=1) + a.std(axis=-1, ddof=2), A, analytic=False)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_products_with_zero_factors(axis, check):
    check(lambda a: np.prod(a, axis=axis), WITH_ZEROS, rtol=1e-12)
    check(lambda a: np.cumprod(a, axis=axis), WITH_ZEROS, rtol=1e-12)


@pytest.mark.parametrize("name", ["add", "multiply", "maximum", "minimum"])
@pytest.mark.parametrize(("axis", "keepdims"), [(0, False), (-1, True), (None, False)])
def test_reduce_methods(name, axis, keepdims, check):
    check(lambda a: getattr(np, name).reduce(a, axis=axis, keepdims=keepdims), A, rtol=1e-12)


@pytest.mark.parametrize(("axis", "keepdims"), [(0, False), (-1, True), ((0, 1), False)])
def test_logsumexp(axis, keepdims, check):
    def function(a):
        if isinstance(a, np.ndarray) and isinstance(axis, tuple):
            return np.log(np.sum(np.exp(a), axis=axis, keepdims=keepdims))
        return np.logaddexp.reduce(a, axis=axis, keepdims=keepdims)

    check(function, A, analytic=False)


def test_accumulate_methods(check):
    check(lambda a: np.add.accumulate(a, 1) * np.multiply.accumulate(a), A, rtol=1e-12)
    check(np.add.accumulate, A)


@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.maximum, np.minimum, np.logaddexp])
def test_reduce_takes_the_first_axis_unless_told(ufunc, check):
    check(ufunc.reduce, A, analytic=False)


def test_the_range_of_entries_has_one_axis_less():
    assert np.ptp(Dual(A, np.ones((1, 1, 1, 1))), 1).shape == (3, 5)


@pytest.mark.parametrize("axis", [-1, 0, (0, 1), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_norm(axis, keepdims, check):
    check(lambda a: np.linalg.norm(a, axis=axis, keepdims=keepdims), A, analytic=False)


@pytest.mark.parametrize("order", [1, 2, np.inf, -np.inf])
def test_vector_norms(order, check):
    check(lambda a: np.linalg.norm(a, order, axis=-1), A, analytic=False)


@pytest.mark.parametrize("shape", [(2, 3), (3, 1), (1, 2, 2)])
@pytest.mark.parametrize("function", [np.sum, np.mean, np.var, np.max, np.prod])
def test_a_tangent_that_does_not_vary_counts_for_every_entry(function, shape):
    value, unit = np.arange(1.0, np.prod(shape) + 1).reshape(shape), np.full((1,) * len(shape), 3.0)
    for axis in (None, *range(len(shape))):
        narrow = function(Dual(value, unit[None]), axis=axis)
        whole = function(Dual(value, np.broadcast_to(unit, (1, *shape))), axis=axis)
        np.testing.assert_allclose(tangent_of(narrow, 1), tangent_of(whole, 1), atol=1e-13)


def test_a_sum_over_no_entries_does_not_vary():
    out = np.sum(Dual(np.zeros((0, 3)), np.ones((2, 1, 3))), axis=0)
    np.testing.assert_array_equal(tangent_of(out, 2), np.zeros((2, 3)))


def test_nan_counts_as_zero_in_nansum():
    h = Dual(np.array([1.0, np.nan, 3.0]), np.array([[2.0, 5.0, 7.0]]))
    np.testing.assert_array_equal([np.nansum(h).value, *np.nansum(h).tangent], [4, 9])


def test_norm_of_zero_has_derivative_zero():
    out = np.linalg.norm(Dual(np.zeros((2, 3)), np.ones((1, 3))), axis=-1)
    np.testing.assert_array_equal(out.tangent, np.zeros((1, 2)))


def test_the_frobenius_norm(check):
    check(lambda a: np.linalg.norm(a, "fro", axis=(0, 2)), A, analytic=False)


@pytest.mark.parametrize(
    ("order", "axis"), [("nuc", None), (2, None), (1, None), (np.inf, None), (3, -1), ("fro", -1)]
)
def test_norms_without_a_rule_are_refused(order, axis):
    with pytest.raises(NotDifferentiable, match=f"ord={order!r}"):
        np.linalg.norm(Dual(np.eye(2), np.ones((1, 2, 2))), order, axis)


def test_extremum_follows_the_first_of_equal_entries():
    h = Dual(np.array([1.0, 3.0, 3.0]), np.eye(3))
    np.testing.assert_array_equal(h.max().tangent, [0, 1, 0])
    np.testing.assert_array_equal((-h).min().tangent, [0, -1, 0])


def test_options_without_a_rule_are_refused():
    h = Dual(A, np.ones((1, 1, 1, 1)))
    with pytest.raises(NotDifferentiable, match=r"numpy\.sum with dtype="):
        np.sum(h, dtype=np.float32)
    with pytest.raises(NotDifferentiable, match=r"numpy\.max with initial="):
        np.max(h, initial=0.0)
    assert np.sum(h, axis=0, dtype=None, out=None).shape == (4, 5)
