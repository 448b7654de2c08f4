import numpy as np
import pytest

from pararnn_solvers.autodiff import Dual
from pararnn_solvers.errors import NotDifferentiable

A = np.random.default_rng(0).normal(size=(3, 4, 5))
B = np.random.default_rng(1).normal(size=(3, 4, 5))
M = np.random.default_rng(2).normal(size=(4, 4))
V = np.random.default_rng(3).normal(size=6)
ROWS = np.array([[0, 2, 1, 1, 0]])
C = np.ones((3, 2, 5))
MASK = A[:, 0] > 0


def row(function, *args, **kwargs):
    """One case: the NumPy function, applied to the arrays by a closure over its options."""
    return lambda *arrays: function(*arrays, *args, **kwargs)


# name of the function -> [(closure, arrays)]
VIEWS = {
    np.reshape: [
        (row(np.reshape, (12, 5)), A),
        (row(np.reshape, (3, 20)), A),
        (row(np.reshape, (3, 4, 5, 1)), A),
        (row(np.reshape, (3, 2, 2, 5)), A),
        (row(np.reshape, (-1, 10)), A),
        (row(np.reshape, (3, 4, -1)), A),
        (row(np.reshape, 60), A),
    ],
    np.ravel: [(np.ravel, A)],
    np.transpose: [(np.transpose, A), (row(np.transpose, (1, -1, 0)), A)],
    np.permute_dims: [(row(np.permute_dims, (2, 0, 1)), A)],
    np.swapaxes: [(row(np.swapaxes, 0, -1), A), (row(np.swapaxes, -2, -1), A)],
    np.matrix_transpose: [(np.matrix_transpose, A)],
    np.linalg.matrix_transpose: [(np.linalg.matrix_transpose, A)],
    np.moveaxis: [(row(np.moveaxis, 0, -1), A), (row(np.moveaxis, (0, -1), (1, 0)), A)],
    np.rollaxis: [(row(np.rollaxis, 2), A), (row(np.rollaxis, 0, 3), A), (row(np.rollaxis, -1), A)],
    np.expand_dims: [(row(np.expand_dims, i), A) for i in (0, 1, -1, (0, 2), (-1, 0))],
    np.squeeze: [(np.squeeze, A[:, :1, None]), (row(np.squeeze, -2), A[:, :1]), (np.squeeze, A)],
    np.flip: [(row(np.flip, i), A) for i in (None, 0, -1, (0, 1))],
    np.flipud: [(np.flipud, A)],
    np.fliplr: [(np.fliplr, A)],
    np.rot90: [(row(np.rot90), A), (row(np.rot90, 3, (1, -1)), A)],
    np.diagonal: [(row(np.diagonal), A), (row(np.diagonal, 1, -1, 0), A)],
    np.linalg.diagonal: [(np.linalg.diagonal, A), (row(np.linalg.diagonal, offset=-1), A)],
    np.broadcast_to: [(row(np.broadcast_to, (2, 3, 4, 5)), A), (row(np.broadcast_to, (4, 6)), V)],
    np.broadcast_arrays: [(np.broadcast_arrays, A[:, :1], V[:5])],
    np.atleast_1d: [(np.atleast_1d, V), (np.atleast_1d, V[0])],
    np.atleast_2d: [(np.atleast_2d, V), (np.atleast_2d, V[0], A)],
    np.atleast_3d: [(np.atleast_3d, V), (np.atleast_3d, M)],
    np.copy: [(np.copy, A)],
}
JOINS = {
    np.concatenate: [
        *((lambda a, b, i=i: np.concatenate([a, b], i), A, B) for i in (0, 1, -1, None)),
        (lambda a, b: np.concatenate([a, C, b], axis=1), A, B),
    ],
    np.concat: [(lambda a, b: np.concat((a, b), axis=-1), A, B)],
    np.append: [(np.append, A, B), (row(np.append, axis=1), A, B)],
    np.stack: [
        *((lambda a, b, i=i: np.stack([a, b], axis=i), A, B) for i in (0, 1, -1, -2)),
        (lambda a, b: np.stack([a, b]), A, B),
    ],
    np.hstack: [
        *((lambda a: np.hstack([a, 2 * a]), a) for a in (A, M, V)),
        (lambda a: np.hstack([a]), A),
    ],
    np.vstack: [(lambda a, b: np.vstack([a, b]), A, B), (lambda v: np.vstack([v, v]), V)],
    np.dstack: [(lambda a, b: np.dstack([a, b]), A, B), (lambda v: np.dstack([v, v]), V)],
    np.column_stack: [(lambda v: np.column_stack([v, 2 * v, np.ones((6, 2))]), V)],
    np.split: [
        (row(np.split, 2, axis=1), A),
        (row(np.split, [1, 3], -1), A),
        (row(np.split, 3), A),
    ],
    np.array_split: [
        (row(np.array_split, 3, axis=-1), A),
        (row(np.array_split, 2), A),
        (row(np.array_split, [2, 1]), V),
    ],
    np.hsplit: [(row(np.hsplit, 2), a) for a in (A, M, V)],
    np.vsplit: [(row(np.vsplit, 3), A)],
    np.dsplit: [(row(np.dsplit, [2]), A)],
}
SELECTIONS = {
    np.where: [
        (lambda a, b: np.where(A > 0, a, b), A, B),
        (lambda a, b: np.where(A > 0, a, b), A, V[:5]),
        (lambda v: np.where(A > 0, v, 1.0), V[:5]),
        (lambda v: np.where(v > 0, 0, v * v), V),
    ],
    np.select: [
        (lambda a, b: np.select([A > 1, A > 0], [a, a * b], b), A, B),
        (lambda a: np.select([A > 0], [a * a]), A),
    ],
    np.nan_to_num: [(np.nan_to_num, A)],
    np.polyval: [(lambda x: np.polyval([2.0, -1.0, 3.0], x), A), (np.polyval, V[:3], A)],
    np.take: [(row(np.take, [2, 0, 0], axis=1), A), (row(np.take, [[7, 0]]), A)],
    np.take_along_axis: [(row(np.take_along_axis, ROWS[None], 1), A)],
    np.sort: [(row(np.sort), A), (row(np.sort, axis=0), A)],
    np.delete: [(row(np.delete, 1, axis=1), A)],
}
LINEAR = {
    np.cumsum: [(row(np.cumsum, i), A) for i in (None, 0, -1)],
    np.diff: [
        (np.diff, A),
        (row(np.diff, 2, 0), A),
        (row(np.diff, 0), A),
        (row(np.diff, prepend=2.0), A),
        (row(np.diff, 2, 1, append=3.0), A),
        (lambda a, b: np.diff(a, axis=-2, prepend=b[:, :2], append=b[:, :1]), A, B),
    ],
    np.roll: [
        (row(np.roll, 1, -1), A),
        (row(np.roll, (1, 2), axis=(0, 1)), A),
        (row(np.roll, 2), A),
    ],
    np.trace: [(np.trace, A), (row(np.trace, 1, 0, -1), A)],
    np.linalg.trace: [(np.linalg.trace, A)],
    np.tril: [(np.tril, A)],
    np.triu: [(row(np.triu, 1), A)],
    np.diag: [(np.diag, V), (row(np.diag, 1), M), (row(np.diag, -1), V)],
    np.repeat: [(row(np.repeat, 2, axis=1), A), (row(np.repeat, 2), V)],
    np.resize: [(row(np.resize, (2, 4)), V)],
    np.tile: [(row(np.tile, (2, 1, 2)), A)],
    np.pad: [
        (row(np.pad, 1), A),
        (row(np.pad, ((0, 0), (1, 0), (0, 2))), A),
        (row(np.pad, 2, mode="wrap"), V),
    ],
}
REAL_ONLY = {
    np.clip: [
        (row(np.clip, -0.5, 0.5), A),
        (row(np.clip, None, 0.5), A),
        (row(np.clip, -0.5, None), A),
        (row(np.clip, a_min=-0.5, a_max=0.5), A),
        (np.clip, A, -np.abs(B), np.abs(B) + 1),
    ],
    np.interp: [(row(np.interp, [-1.0, 0.0, 1.5], [2.0, 0.0, 1.0]), V)],
    np.real: [(np.real, V)],
    np.conj: [(np.conj, V)],
}
CASES = [
    (f"{function.__name__}-{i}", analytic, *case)
    for table, analytic in ((VIEWS, 1), (JOINS, 1), (SELECTIONS, 1), (LINEAR, 1), (REAL_ONLY, 0))
    for function, cases in table.items()
    for i, case in enumerate(cases)
]
CASE_IDS = [case[0] for case in CASES]

PLAIN = {
    np.shape: np.shape,
    np.ndim: np.ndim,
    np.size: np.size,
    np.result_type: lambda a: np.result_type(a, np.float32),
    np.can_cast: lambda a: np.can_cast(a, np.float64),
    np.isclose: lambda a: np.isclose(a, A),
    np.allclose: lambda a: np.allclose(a, A),
    np.array_equal: lambda a: np.array_equal(a, A),
    np.array_equiv: lambda a: np.array_equiv(a, A),
    np.all: lambda a: np.all(a, axis=0),
    np.any: np.any,
    np.count_nonzero: np.count_nonzero,
    np.argmax: lambda a: np.argmax(a, axis=-1),
    np.argmin: np.argmin,
    np.argsort: np.argsort,
    np.flatnonzero: np.flatnonzero,
    np.argwhere: np.argwhere,
    np.searchsorted: lambda a: np.searchsorted([0.0, 1.0], a),
    np.digitize: lambda a: np.digitize(a, [0.0, 1.0]),
    np.iscomplexobj: np.iscomplexobj,
    np.isrealobj: np.isrealobj,
    np.iscomplex: np.iscomplex,
    np.isreal: np.isreal,
    np.isposinf: np.isposinf,
    np.isneginf: np.isneginf,
    np.round: lambda a: np.round(a, 1),
    np.around: np.around,
    np.fix: np.fix,
    np.imag: np.imag,
    np.nonzero: lambda a: np.concatenate(np.nonzero(a)),
}


@pytest.mark.parametrize(
    ("name", "analytic", "function", "arrays"),
    [(n, a, f, rest) for n, a, f, *rest in CASES],
    ids=CASE_IDS,
)
def test_array_function_equals_the_reference(name, analytic, function, arrays, check):
    check(function, *arrays, analytic=bool(analytic))


@pytest.mark.parametrize("function", PLAIN.values(), ids=[f.__name__ for f in PLAIN])
def test_functions_of_the_value_alone_are_plain(function):
    out = function(Dual(A, np.ones((2, 1, 1, 1))))
    assert not isinstance(out, Dual)
    np.testing.assert_array_equal(out, function(A))


def test_where_of_one_argument_is_nonzero():
    np.testing.assert_array_equal(np.where(Dual(V, np.ones((1, 6)))), np.where(V))


@pytest.mark.skipif(not hasattr(np, "unstack"), reason="NumPy 2.1")
def test_functions_of_later_versions(check):
    check(lambda a: np.unstack(a, axis=1), A)
    check(np.unstack, A)
    h = Dual(V.copy(), np.ones((1, 6)))
    assert np.astype(h, np.float32).tangent.dtype == np.float32
    assert np.astype(h, float, copy=False) is h
    copies = np.astype(h, float), np.reshape(h, (2, 3), copy=True)
    for out in copies:
        out[...] = 0
    np.testing.assert_array_equal([h.value, h.tangent[0]], [V, np.ones(6)])
    with pytest.raises(ValueError, match="avoid creating a copy"):
        np.reshape(np.reshape(h, (2, 3)).T, 6, copy=False)


@pytest.mark.parametrize("like", [np.zeros_like, np.ones_like, np.empty_like])
def test_constant_likes_are_dual_so_that_a_state_can_be_written_to_them(like):
    h = Dual(V, np.eye(6))
    out = like(h)
    out[:] = h * h
    np.testing.assert_array_equal(out.tangent, np.diag(2 * V))
    assert not isinstance(like(h, dtype=int), Dual)
    assert like(h, dtype=np.float32).dtype == np.float32
    assert like(h, shape=(2, 3)).tangent.shape[0] == 6


def test_full_like():
    h = Dual(V, np.eye(6))
    np.testing.assert_array_equal(np.full_like(h, 2.0).tangent, np.zeros((6, 1)))
    np.testing.assert_array_equal(np.full_like(h, h[1]).tangent[1] * np.ones(6), np.ones(6))
    rows = np.full_like(h, h, shape=(2, 6), dtype=np.float32)
    assert rows.dtype == rows.tangent.dtype == np.float32
    np.testing.assert_array_equal(rows.value, np.full_like(V, V, shape=(2, 6), dtype=np.float32))
    rows[0] = 1  # as into any array that is new
    np.testing.assert_array_equal(rows.tangent[:, 0], np.zeros((6, 6)))
    np.testing.assert_array_equal(rows.tangent[:, 1], np.eye(6))
    with pytest.raises(NotDifferentiable, match="writing a traced state into a plain array"):
        np.full_like(V, h[1])


def test_what_is_not_finite_is_replaced_by_a_constant():
    h = Dual(np.array([1.0, np.nan, -np.inf]), np.array([[2.0, 3.0, 5.0]]))
    other = np.nan_to_num(h, nan=7.0)
    np.testing.assert_array_equal(other.value[:2], [1, 7])
    np.testing.assert_array_equal(other.tangent, [[2, 0, 0]])
    assert np.isnan(h.value[1])
    assert np.nan_to_num(h, copy=False, nan=7.0) is h
    np.testing.assert_array_equal(h.value, other.value)
    np.testing.assert_array_equal(h.tangent, [[2, 0, 0]])


def test_at_the_ends_of_an_interpolation_the_slope_is_that_within():
    h = Dual(np.array([0.0, 3.0, -0.1, 3.1]), np.eye(4))
    out = np.interp(h, [0.0, 1.0, 3.0], [5.0, 6.0, 2.0])
    np.testing.assert_array_equal(np.diag(out.tangent), [1, -2, 0, 0])


def test_a_stable_sort_keeps_the_order_of_equals():
    values = np.arange(1000) % 3 * 1.0
    names = np.arange(1000.0)[None]
    out = np.sort(Dual(values, names), stable=True)
    np.testing.assert_array_equal(out.tangent[0], np.argsort(values, stable=True))


def test_no_differences_are_the_array_itself():
    h = Dual(V.copy(), np.eye(6))
    assert np.diff(h, 0) is h and np.diff(h, 0, prepend=1.0) is h


def test_a_diagonal_shows_what_is_written_later(check):
    def function(m):
        out = m * 1.0
        diagonal = np.diag(out)
        out[...] = m * m
        return diagonal

    check(function, M)


def test_copyto():
    h = Dual(V, np.eye(6))
    out = np.empty_like(h)
    np.copyto(out, 2 * h)
    np.testing.assert_array_equal(out.tangent, 2 * np.eye(6))
    with pytest.raises(NotDifferentiable, match="writing a traced state into a plain array"):
        np.copyto(V.copy(), h)


def test_tangents_stay_small_where_they_can():
    h = Dual(np.zeros((7, 4, 6)), np.ones((2, 6)))
    W = np.ones((6, 5))
    for out in (
        h + 1,
        h * np.ones(6),
        h @ W,
        h[2:],
        h[..., :3],
        h.reshape(7, 4, 2, 3),
        h.reshape(28, 6),
        h.transpose(1, 0, 2),
        np.concatenate([h, h], axis=-1),
        np.stack([h[..., 0], h[..., 1]], axis=-1),
        np.sum(h, axis=-1),
        np.einsum("...j,jk->...k", h, W),
        np.einsum("tbj,jk->tbk", h, W),
        np.split(h, 2, axis=-1)[1],
    ):
        assert out.tangent.size <= 2 * 12, out.shape


def test_pad_and_reshape_name_what_they_do_not_support():
    h = Dual(A, np.ones((1, 1, 1, 1)))
    with pytest.raises(NotDifferentiable, match="mode='mean'"):
        np.pad(h, 1, mode="mean")
    with pytest.raises(NotDifferentiable, match="order='F'"):
        np.reshape(h, 60, order="F")
    with pytest.raises(NotDifferentiable, match="first argument only"):
        np.interp(0.5, Dual(np.arange(2.0), np.ones((1, 2))), [0.0, 1.0])
    with pytest.raises(ValueError, match="same shape"):
        np.stack([h, A[0]])
    with pytest.raises(ValueError, match="equal division"):
        np.split(h, 2)
    with pytest.raises(ValueError, match="shorter"):
        np.select([A > 0, A > 1], [h])
