"""The matrix I - S A, held to its entries."""

import numpy as np
import pytest
from hypothesis import given

from pararnn_solvers.bidiagonal import BlockBidiagonal, block_matvec
from pararnn_solvers.linear import load
from tests.strategies import block_systems

SCAN = load("sequential")


def dense(blocks):
    """I - S A of every sequence, shape (batch, T*d, T*d), from the definition of the layout."""
    T, batch, k, _, n = blocks.shape
    d = k * n
    M = np.zeros((batch, T, d, T, d), blocks.dtype)
    for t, b in np.ndindex(T, batch):
        M[b, t, :, t] = np.eye(d)
    for t, b, i, j, c in np.ndindex(T, batch, k, k, n):
        if t:
            M[b, t, i * n + c, t - 1, j * n + c] = -blocks[t, b, i, j, c]
    return M.reshape(batch, T * d, T * d)


def apply(M, v):
    T, batch, d = v.shape
    flat = v.swapaxes(0, 1).reshape(batch, T * d, 1)
    return (M @ flat).reshape(batch, T, d).swapaxes(0, 1)


def tolerance(v):
    return 64 * float(np.finfo(v.dtype).eps) * max(1, float(np.abs(v).max()))


@given(block_systems())
def test_products_are_those_of_the_dense_matrix(system):
    blocks, v = system
    M = dense(blocks)
    matrix = BlockBidiagonal(blocks)
    np.testing.assert_allclose(matrix.matvec(v), apply(M, v), atol=tolerance(v))
    transposed = apply(M.swapaxes(1, 2), v)
    np.testing.assert_allclose(matrix.rmatvec(v), transposed, atol=tolerance(v))


@given(block_systems())
def test_solving_undoes_the_product(system):
    blocks, v = system
    matrix = BlockBidiagonal(blocks)
    solved = matrix.solve(v, SCAN)
    np.testing.assert_allclose(matrix.matvec(solved), v, atol=tolerance(solved))
    solved = matrix.solve_adjoint(v, SCAN)
    np.testing.assert_allclose(matrix.rmatvec(solved), v, atol=tolerance(solved))


@given(block_systems())
def test_dot_test(system):
    """``<M^-1 v, g> = <v, M^-T g>``."""
    blocks, v = system
    g = np.random.default_rng(1).standard_normal(v.shape).astype(v.dtype)
    matrix = BlockBidiagonal(blocks)
    left, right = matrix.solve(v, SCAN), matrix.solve_adjoint(g, SCAN)
    scale = np.abs(left).max() * np.abs(g).max() * v.size
    assert abs(np.vdot(left, g) - np.vdot(v, right)) <= 64 * np.finfo(v.dtype).eps * scale


@given(block_systems())
def test_the_first_block_has_no_effect(system):
    blocks, v = system
    other = blocks.copy()
    other[0] = np.nan
    for name in ("matvec", "rmatvec"):
        a, b = (getattr(BlockBidiagonal(x), name)(v) for x in (blocks, other))
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("k", "n"), [(1, 4), (4, 1), (2, 2), (3, 5)])
@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("adjoint", [False, True])
def test_block_products(k, n, lead, adjoint):
    rng = np.random.default_rng(0)
    blocks, v = rng.standard_normal((*lead, k, k, n)), rng.standard_normal((*lead, k * n))
    expected = np.zeros((*lead, k, n))
    for i, j in np.ndindex(k, k):
        A = blocks[..., j, i, :] if adjoint else blocks[..., i, j, :]
        expected[..., i, :] += A * v.reshape(*lead, k, n)[..., j, :]
    product = block_matvec(blocks, v, adjoint=adjoint)
    np.testing.assert_allclose(product, expected.reshape(*lead, k * n), atol=1e-14)


def test_products_leave_their_argument_alone():
    v = np.ones((3, 1, 2))
    BlockBidiagonal(np.ones((3, 1, 1, 1, 2))).matvec(v)
    BlockBidiagonal(np.ones((3, 1, 1, 1, 2))).rmatvec(v)
    np.testing.assert_array_equal(v, 1)
