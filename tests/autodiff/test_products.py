import numpy as np
import pytest

from pararnn_solvers.autodiff import Dual, pushforward, tangent_of
from pararnn_solvers.errors import NotDifferentiable


def arrays(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


MATMUL_SHAPES = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((3,), (5, 6, 3, 2)),
    ((5, 2, 3), (3, 4)),
    ((2, 3), (5, 3, 4)),
    ((6, 5, 2, 3), (3, 4)),
    ((2, 3), (6, 5, 3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((6, 5, 2, 3), (5, 3, 4)),
    ((6, 1, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (6, 1, 3, 4)),
    ((6, 5, 2, 3), (3,)),
    ((1, 3), (3, 3)),  # a p axis of the same size as others must not be confused with them
    ((3, 3), (3,)),
    ((3, 3, 3), (3, 3)),
    ((3, 3), (3, 3, 3)),
]


@pytest.mark.parametrize("shapes", MATMUL_SHAPES, ids=str)
def test_matmul(shapes, check):
    check(lambda a, b: a @ b, *arrays(*shapes))


@pytest.mark.parametrize("shapes", [s for s in MATMUL_SHAPES if len(s[1]) < 3], ids=str)
def test_dot(shapes, check):
    check(np.dot, *arrays(*shapes))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (np.dot, ((), (3,))),
        (np.dot, ((2, 3), ())),
        (np.dot, ((2, 3), (4, 3, 2))),
        (np.linalg.matmul, ((2, 3), (3, 2))),
        (np.inner, ((2, 3), (4, 3))),
        (np.inner, ((3,), (3,))),
        (np.outer, ((2,), (3,))),
        (np.linalg.outer, ((2,), (3,))),
        (np.kron, ((2, 3), (2,))),
        (np.tensordot, ((2, 3, 4), (3, 4, 5))),
        (lambda a, b: np.tensordot(a, b, axes=1), ((2, 3), (3, 4))),
        (lambda a, b: np.tensordot(a, b, axes=([0], [1])), ((2, 3), (4, 2))),
        (lambda a, b: np.linalg.tensordot(a, b, axes=1), ((2, 3), (3, 4))),
        (np.cross, ((4, 3), (3,))),
        (lambda a, b: np.cross(a, b, axis=0), ((3, 4), (3, 4))),
        (np.linalg.cross, ((4, 3), (4, 3))),
        (np.convolve, ((4,), (3,))),
        (np.add.outer, ((2, 3), (4,))),
        (np.multiply.outer, ((2,), (3, 4))),
        (lambda a, b: np.linalg.multi_dot([a, b, a]), ((2, 3), (3, 2))),
    ],
)
def test_other_products(function, shapes, check):
    check(function, *arrays(*shapes))


@pytest.mark.parametrize("function", [np.vdot, np.vecdot, np.linalg.vecdot, np.correlate])
def test_products_that_conjugate_complex_numbers(function, check):
    check(function, *arrays((3,), (3,)), analytic=False)


@pytest.mark.skipif(not hasattr(np, "matvec"), reason="NumPy 2.2")
def test_vecdot_matvec_and_vecmat(check):
    check(np.vecdot, *arrays((5, 2, 3), (5, 1, 3)), analytic=False)
    check(np.linalg.vecdot, *arrays((5, 2, 3), (5, 1, 3)), analytic=False)
    check(np.matvec, *arrays((5, 2, 3), (5, 3)), analytic=False)
    check(np.matvec, *arrays((2, 3), (5, 3)), analytic=False)
    check(np.vecmat, *arrays((5, 3), (3, 2)), analytic=False)


@pytest.mark.parametrize("n", [-2, -1, 0, 1, 3])
def test_matrix_power(n, check):
    check(lambda a: np.linalg.matrix_power(a, n), *arrays((2, 3, 3)), rtol=1e-11)


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,j->i", ((2, 3), (3,))),
        ("ij,...j->...i", ((2, 3), (5, 4, 3))),
        ("...i,...i", ((5, 3), (4, 5, 3))),
        ("...i,...i->...", ((5, 3), (3,))),
        ("i...,i...->i...", ((3, 4), (3, 4))),
        ("ij,jk", ((2, 3), (3, 4))),
        ("ji", ((2, 3),)),
        ("ii->i", ((3, 3),)),
        ("ii", ((3, 3),)),
        ("ij,jj->ij", ((2, 3), (3, 3))),
        ("...ii->...", ((2, 3, 3),)),
        ("ij->", ((2, 3),)),
        ("ij->j", ((2, 3),)),
        ("i,j->ij", ((2,), (3,))),
        ("i,j->i", ((2,), (3,))),
        ("tbj,ij->tbi", ((4, 5, 3), (2, 3))),
        ("bi,bij,bj->b", ((4, 3), (4, 3, 2), (4, 2))),
        (" a b , b c -> a c ", ((2, 3), (3, 4))),
        ("zy,yx->zx", ((2, 3), (3, 4))),
    ],
)
@pytest.mark.parametrize("optimize", [False, True])
def test_einsum(subscripts, shapes, optimize, check):
    check(lambda *a: np.einsum(subscripts, *a, optimize=optimize), *arrays(*shapes))


@pytest.mark.parametrize("subscripts", ["ii->i", "ii", "bii->b", "ii,i->i", "i,ii->i"])
@pytest.mark.parametrize("unit", [0, 1, (0, 1)])
def test_einsum_of_a_diagonal_along_which_the_tangent_does_not_vary(subscripts, unit):
    inputs = subscripts.partition("->")[0].split(",")
    operands = arrays(*([3] * len(labels) for labels in inputs))
    i = next(i for i, labels in enumerate(inputs) if "ii" in labels)
    (t,) = arrays((2, *operands[i].shape))
    t = t.mean(axis=tuple(np.add(unit, operands[i].ndim - 1).ravel()), keepdims=True)
    operands[i], whole = Dual(operands[i], t), Dual(operands[i], t + np.zeros(operands[i].shape))
    expected = np.einsum(subscripts, *(whole if o is operands[i] else o for o in operands))
    found = np.einsum(subscripts, *operands)
    np.testing.assert_allclose(tangent_of(found, 2), tangent_of(expected, 2), rtol=1e-14)


def test_einsum_by_lists_is_refused():
    with pytest.raises(NotDifferentiable, match="string of subscripts"):
        np.einsum(Dual(np.ones(3), np.ones((1, 3))), [0], [0])


def test_parameters_of_a_network_are_differentiated_over_leading_axes():
    h, W = arrays((7, 4, 3), (3, 2))
    seeds = np.eye(6).reshape(6, 3, 2)
    out = np.tanh(h @ Dual(W, seeds))
    expected = np.einsum("tbi,tbj->ijtb", h, 1 - np.tanh(h @ W) ** 2, optimize=False)
    for j in range(2):
        slope = 1 - np.tanh(h @ W)[..., j] ** 2
        expected = h.transpose(2, 0, 1) * slope
        np.testing.assert_allclose(tangent_of(out, 6)[j::2][..., j], expected, rtol=1e-14)


def test_one_direction_per_column_gives_the_matrix():
    (W,) = arrays((5, 3))
    value, tangent = pushforward(lambda h: h @ W.T, np.zeros((2, 4, 3)), np.eye(3))
    np.testing.assert_array_equal(tangent, np.broadcast_to(W.T[:, None, None], (3, 2, 4, 5)))
    value, tangent = pushforward(lambda h: W @ h, np.zeros(3), np.eye(3))
    np.testing.assert_array_equal(tangent, W.T)
