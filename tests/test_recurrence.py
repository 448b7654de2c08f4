"""A recurrence and its derivatives in every structure."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.recurrence import as_blocks
from tests.strategies import block_tanh, dense_tanh

# Of one derivative, relative to numbers of order one.
ACCURACY = {None: 1e-14, "cs": 1e-14, "3-point": 1e-9, "2-point": 1e-6}


@pytest.mark.parametrize("jacobian", ACCURACY)
@pytest.mark.parametrize(("k", "n"), [(1, 4), (2, 3), (4, 1)])
@pytest.mark.parametrize("lead", [(), (3,), (5, 2), (0, 2)])
def test_blocks_are_the_derivatives(jacobian, k, n, lead):
    case = block_tanh(k=k, n=n)
    rng = np.random.default_rng(0)
    h, x = rng.standard_normal((*lead, k * n)), rng.standard_normal((*lead, k * n))
    f, blocks = prs.Recurrence(case.recurrence.step, k, jacobian).linearize(h, x, case.theta)
    np.testing.assert_allclose(f, case.recurrence.step(h, x, case.theta), rtol=1e-15)
    slope = (1 - f * f).reshape(*lead, k, 1, n)
    np.testing.assert_allclose(blocks, slope * case.theta, atol=ACCURACY[jacobian])


@pytest.mark.parametrize("jacobian", ACCURACY)
def test_a_dense_jacobian_is_one_block(jacobian):
    case = dense_tanh(d=5)
    h = np.random.default_rng(0).standard_normal((3, 5))
    recurrence = prs.Recurrence(case.recurrence, jacobian=jacobian)
    f, blocks = recurrence.linearize(h, np.zeros((3, 5)), case.theta)
    assert blocks.shape == (3, 5, 5, 1)
    expected = (1 - f * f)[..., None] * case.theta
    np.testing.assert_allclose(blocks[..., 0], expected, atol=ACCURACY[jacobian])


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 100), st.booleans())
def test_tangents_are_products_with_the_blocks(k, n, seed, callable_jacobian):
    case = block_tanh(k=k, n=n)
    rng = np.random.default_rng(seed)
    h, v = rng.standard_normal((2, k * n)), rng.standard_normal((3, 2, k * n))
    recurrence = case.recurrence
    if callable_jacobian:
        blocks = lambda h, x, a: case.recurrence.linearize(h, x, a)[1]  # noqa: E731
        recurrence = prs.Recurrence(recurrence.step, k, blocks)
    f, products = recurrence.tangent(v, h, None, case.theta)
    _, A = case.recurrence.linearize(h, None, case.theta)
    expected = np.einsum("bijn,pbjn->pbin", A, v.reshape(3, 2, k, n)).reshape(3, 2, k * n)
    np.testing.assert_allclose(products, expected, atol=1e-14)
    np.testing.assert_allclose(f, case.recurrence.step(h, None, case.theta), rtol=1e-15)


def test_a_jacobian_may_be_given_in_three_forms():
    h = np.zeros((7, 2, 6))
    rng = np.random.default_rng(0)
    diagonal, matrices = rng.standard_normal((7, 2, 6)), rng.standard_normal((7, 2, 6, 6))
    blocks = rng.standard_normal((7, 2, 3, 3, 2))
    np.testing.assert_array_equal(as_blocks(diagonal, h)[..., 0, 0, :], diagonal)
    np.testing.assert_array_equal(as_blocks(matrices, h)[..., 0], matrices)
    assert as_blocks(blocks, h) is blocks


@pytest.mark.parametrize(
    "shape", [(7, 2, 5), (7, 2, 6, 5), (7, 6), (7, 2, 3, 3, 3), (7, 2, 2, 3, 1)]
)
def test_other_shapes_of_a_jacobian_are_refused(shape):
    with pytest.raises(prs.InvalidInput, match=r"jacobian returned shape .*expected .*diagonal"):
        as_blocks(np.zeros(shape), np.zeros((7, 2, 6)))


def test_structures():
    step = lambda h, x, theta: h  # noqa: E731
    assert prs.Recurrence(step).structure(6) == (6, 1)
    assert prs.Recurrence(step, 1).structure(6) == (1, 6)
    assert prs.Recurrence(step, 2).structure(6) == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3,), "step is int; expected step"),
        ((abs, 0), "block_size is 0; expected a whole number >= 1"),
        ((abs, -2), "block_size is -2"),
        ((abs, 2.0), "block_size is 2.0; expected a whole number >= 1, as an int"),
        ((abs, True), "block_size is True"),
        ((abs, "2"), "block_size is '2'"),
        ((abs, 1, "4-point"), r"jacobian is '4-point'; expected a function .*one of .*'cs'"),
        ((abs, 1, 3), r"jacobian is 3; expected a function jacobian\(h, x, theta\)"),
        ((abs, 1, ["cs"]), r"jacobian is \['cs'\]; expected a function"),
        ((abs, 1, np.zeros(2)), r"jacobian is array.*; expected a function"),
        ((abs, 1, None, 3), r"vjp is 3; expected a function vjp\(h, x, theta, lam\), or None"),
        ((abs, 1, None, "cs"), "vjp is 'cs'; expected a function"),
    ],
)
def test_what_cannot_be_a_recurrence_is_refused(arguments, message):
    with pytest.raises(prs.InvalidInput, match=message):
        prs.Recurrence(*arguments)


def test_a_recurrence_is_a_value():
    assert prs.Recurrence(abs, 1) == prs.Recurrence(abs, 1)
    assert hash(prs.Recurrence(abs, 1)) == hash(prs.Recurrence(abs, 1))
    assert prs.Recurrence(abs, np.int64(2)).structure(6) == (2, 3)
    with pytest.raises(AttributeError):
        prs.Recurrence(abs).block_size = 2
