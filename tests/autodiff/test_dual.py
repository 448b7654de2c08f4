import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import special

from pararnn_solvers.autodiff import Dual, pushforward, tangent_of, value_of
from pararnn_solvers.errors import InvalidInput, NotDifferentiable, PararnnError

SHAPE = (3, 4, 5)
A = np.random.default_rng(0).normal(size=SHAPE)
TANGENT = np.random.default_rng(1).normal(size=(2, *SHAPE))


def dual(tangent=TANGENT):
    return Dual(A.copy(), tangent.copy())


# --- construction and attributes ---------------------------------------------------------------


def test_attributes_are_those_of_the_value():
    h = dual()
    assert (h.shape, h.ndim, h.size, h.dtype, len(h)) == (SHAPE, 3, 60, A.dtype, 3)
    assert h.T.shape == (5, 4, 3)
    assert "Dual(value=" in repr(h)
    assert h.real is h


def test_missing_axes_of_a_tangent_count_as_one():
    h = Dual(A, np.ones((2, 5)))
    assert h.tangent.shape == (2, 1, 1, 5)
    assert tangent_of(h, 2).shape == (2, *SHAPE)


def test_numbers_and_lists_make_arrays():
    h = Dual([1.0, 2.0], [[3.0, 4.0]])
    assert isinstance(h.value, np.ndarray)
    assert isinstance(h.tangent, np.ndarray)
    assert Dual(2.0, [1.0, 3.0]).shape == ()
    assert Dual(A, TANGENT).value is A


def test_tangents_have_the_type_of_the_value():
    h = Dual(A.astype(np.float32), TANGENT)
    assert tangent_of(h, 2).dtype == tangent_of(h[0] * 1.0, 2).dtype == np.float32
    assert tangent_of(out := dual(), 2) is out.tangent  # no copy of what is right


def test_tangent_of_plain_results_is_zero():
    np.testing.assert_array_equal(tangent_of(A, 2), np.zeros((2, *SHAPE)))
    np.testing.assert_array_equal(tangent_of(1.0, 2), np.zeros(2))
    assert value_of(A) is A
    assert value_of(Dual(A, TANGENT)) is A


METHODS = [
    lambda h: h.sum(),
    lambda h: h.sum(-1),
    lambda h: h.sum(axis=(0, 1), keepdims=True),
    lambda h: h.mean(axis=0),
    lambda h: h.prod(-1),
    lambda h: h.max(axis=1),
    lambda h: h.min(),
    lambda h: h.cumsum(axis=1),
    lambda h: h.cumprod(0),
    lambda h: h.reshape(12, 5),
    lambda h: h.reshape((4, -1)),
    lambda h: h.reshape(-1),
    lambda h: h.transpose(),
    lambda h: h.transpose(1, 0, 2),
    lambda h: h.transpose((1, 0, 2)),
    lambda h: h.swapaxes(0, 1),
    lambda h: h[:, :1].squeeze(1),
    lambda h: h.ravel(),
    lambda h: h.flatten(),
    lambda h: h.copy(),
    lambda h: copy.copy(h),
    lambda h: h.trace(),
    lambda h: h.diagonal(),
    lambda h: h.repeat(2, axis=0),
    lambda h: h.take([1, 1], axis=-1),
    lambda h: h.dot(np.arange(5.0)),
    lambda h: h.T,
    lambda h: sum(row.sum() for row in h),
    lambda h: h.astype(np.complex128) if h.dtype.kind == "c" else h.astype(np.float64),
    lambda h: +h - -h,
    lambda h: 2 - h,
    lambda h: 2 / (3 + h * h),
    lambda h: np.ones(5) @ h.swapaxes(-1, -2),
    lambda h: h * [1.0, 2.0, 3.0, 4.0, 5.0],
    lambda h: np.add([1.0, 2.0, 3.0, 4.0, 5.0], h),
]


@pytest.mark.parametrize("function", METHODS, ids=range(len(METHODS)))
def test_methods_and_operators(function, check):
    check(function, A, rtol=1e-12)


def test_operators_of_real_numbers(check):
    check(lambda h: abs(h), A, analytic=False)
    check(lambda h: (2 + abs(h)) % 1.7, np.array([0.3, 1.0]), analytic=False)
    check(lambda h: divmod(h, 0.7)[1], np.array([0.3, 1.0]), analytic=False)
    check(lambda h: h.clip(-0.5, 0.5) + h.var(axis=0) + h.std(), A, analytic=False)
    check(lambda h: h.clip(min=0.0) + h.clip(max=0.1), A, analytic=False)
    assert isinstance(dual() // 1, np.ndarray)
    whole = divmod(dual(), 0.7)[0]
    assert isinstance(whole, np.ndarray)
    np.testing.assert_array_equal(whole, A // 0.7)


@pytest.mark.parametrize("exponent", [2, 1, 0.5, -1, 0, 3, -2, 1.5, -0.5, 2.0])
def test_powers_are_those_of_numpy_to_the_last_bit(exponent, check):
    h = np.abs(A) + 1
    np.testing.assert_array_equal((Dual(h, TANGENT) ** exponent).value, h**exponent)
    check(lambda h: h**exponent, h, analytic=False)


def test_comparisons_and_predicates_are_plain():
    h = dual()
    for out in (h > 0, h == h, h != 1, 0 <= h, h.argmax(), h.any(), h.round(1), np.isfinite(h)):
        assert not isinstance(out, Dual)


def test_astype():
    out = dual().astype(np.float32)
    assert out.dtype == out.tangent.dtype == np.float32
    assert out.astype("float32", copy=False) is out
    assert out.astype("float32") is not out
    assert out.astype(dtype=np.float64, copy=False).tangent.dtype == np.float64
    with pytest.raises(NotDifferentiable, match=r"astype\(int64\)"):
        dual().astype(np.int64)


# --- indexing ----------------------------------------------------------------------------------

INDICES = [
    0,
    -1,
    np.int64(1),
    slice(1, None),
    slice(None, None, -1),
    slice(5, 2),
    None,
    Ellipsis,
    (Ellipsis, 0),
    (Ellipsis, slice(1, 3)),
    (Ellipsis, None, 2),
    (0, Ellipsis, None),
    (slice(None), 1, None, slice(0, 5, 2)),
    (1, 2, 3),
    [0, 2, 2],
    np.array([[0, 1], [2, 0]]),
    (Ellipsis, [0, 1, 1]),
    (slice(None), [0, 1, 1]),
    ([0, 1], [1, 2]),
    ([0, 1], slice(None), [1, 2]),
    (slice(None), [[0], [1]], [1, 2, 3]),
    (0, slice(None), [1, 2]),
    ([0, 1], Ellipsis, [1, 2]),
    (None, [0, 1], slice(None), 2),
    A > 0,
    A[:, 0, 0] > 0,
    (slice(None), A[0, :, 0] > 0),
    (A[:, :, 0] > 0, 1),
    (Ellipsis, A[0] > 0),
    True,
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index, check):
    check(lambda h: h[index], A)


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("start", [np.copy, np.zeros_like, lambda h: 2 * h, lambda h: h + 1])
def test_writing_at_an_index(index, start, check):
    def function(h):
        out = start(h)
        out[index] = out[index] * h[index] + h[1, 2, 3]
        return out * h

    check(function, A)


@settings(max_examples=100, deadline=None)
@given(hnp.basic_indices(SHAPE, allow_newaxis=True, allow_ellipsis=True))
def test_any_basic_index(check, index):
    check(lambda h: h[index], A)


@settings(max_examples=50, deadline=None)
@given(hnp.integer_array_indices(SHAPE, result_shape=hnp.array_shapes(max_dims=2, max_side=3)))
def test_any_integer_array_index(check, index):
    check(lambda h: h[index], A)


# --- writing -----------------------------------------------------------------------------------


def written_to_a_copy(h):
    out = h.copy()
    out[..., 0] = h[..., 1] * h[..., 0]
    out[..., 1] += out[..., 0]
    out[0] = 1
    return out * h


def written_through_a_view(h):
    out = 2 * h
    v = out[..., 0]
    v += h[..., 1]
    v *= v
    return out + h


def a_view_taken_before_writing(h):
    out = np.zeros_like(h)
    row = out[1]
    out[...] = h * h
    return row * row + out


def views_of_views(h):
    out = h + h
    v = out[1:].swapaxes(-1, -2)
    w = out.reshape(12, 5)
    v[0] = h[0].T * 3
    w[::2] *= h.reshape(12, 5)[::2]
    out[0] += v[1].T
    return out + w[:4] + v[1].T


def written_after_an_alias_of_the_tangent(h):
    out = h.copy()
    out[0] = h[1] * h[1]
    other = out + 1
    kept = other * 1.0
    out[...] = h * 5
    other[0] = 7 * h[0]
    return out * other + kept


def overlapping(h):
    out = h * h
    out[1:] = out[:-1]
    out[...] = out[..., ::-1]
    return out


def by_columns(h):
    out = np.empty_like(h)
    for i in range(h.shape[-1]):
        out[..., i] = np.sin(h[..., i - 1]) if i % 2 else 0.5
    return out


def in_place_operators(h):
    out = h * 1.0
    out += h
    out *= 2
    out -= out[0]
    out /= 3 + h * h
    out **= 2
    np.multiply(out, h, out=out)
    total = out.sum()
    total += 1
    return out * total


def flipped_and_diagonal(h):
    out = h * 2
    np.flip(out, 0)[0] = h[0]
    np.moveaxis(out, -1, 0)[1] = h[..., 2]
    return out + np.diagonal(out).sum()


@pytest.mark.parametrize(
    "function",
    [
        written_to_a_copy,
        written_through_a_view,
        a_view_taken_before_writing,
        views_of_views,
        written_after_an_alias_of_the_tangent,
        overlapping,
        by_columns,
        in_place_operators,
        flipped_and_diagonal,
    ],
)
def test_writing_does_what_it_does_in_numpy(function, check):
    check(function, A, rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_random_programs_of_views_and_writes(check, program):
    def function(h):
        pool = [h * 1.0, h.copy()]
        for action, i, j in program:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            if action == 0:
                pool.append(a.reshape(3, 4)[::-1])
            elif action == 1:
                pool.append(a.T.reshape(4, 3).swapaxes(0, 1))
            elif action == 2:
                pool.append(a + 0.5)
            elif action == 3:
                pool.append(np.where(h.real > 0, a, b))
            elif action == 4:
                a[1:] = b[:-1]
            elif action == 5:
                a[..., 0] += b[..., 1]
            elif action == 6:
                a *= 0.5
            else:
                a[0] = h[j % 3]
        return np.concatenate([a * a for a in pool])

    x = np.random.default_rng(0).normal(size=(3, 4))
    try:
        check(function, x, rtol=1e-12)
    except NotDifferentiable as error:
        assert "writing into this view" in str(error)


def test_the_tangent_given_is_not_written_to():
    tangent = TANGENT.copy()
    out = Dual(A.copy(), tangent)
    out[...] = 0
    np.testing.assert_array_equal(tangent, TANGENT)


def test_only_the_first_write_copies_the_tangent():
    out = dual()
    out[0] = 1
    tangent = out.tangent
    out[1] = 2
    assert out.tangent is tangent
    kept = out + 1  # shares the tangent
    out[2] = 3
    assert out.tangent is not tangent
    np.testing.assert_array_equal(kept.tangent[:, 2], TANGENT[:, 2])


def test_writing_into_a_view_whose_tangent_is_none_is_refused():
    out = Dual(np.asfortranarray(A), TANGENT)
    flat = out.T.reshape(-1)
    assert np.shares_memory(flat.value, out.value)
    with pytest.raises(NotDifferentiable, match="write into an array, not a reshape"):
        flat[0] = 1
    out.T[0] = 1  # which views both
    np.testing.assert_array_equal(out.tangent[..., 0], 0)


def test_an_index_beyond_the_axes_is_named_by_those_of_the_value():
    with pytest.raises(IndexError, match="array is 3-dimensional, but 4 were indexed"):
        dual()[[0], 1, 2, 0]


def test_writing_into_the_argument_is_refused():
    def step(h):
        h[..., 0] = 1
        return h

    def step_in_place(h):
        h += 1
        return h

    def step_through_a_view(h):
        h[..., 0:2] *= 2
        return h

    for function in (step, step_in_place, step_through_a_view):
        with pytest.raises(InvalidInput, match=r"write into a copy: out = h\.copy\(\)"):
            pushforward(function, A.copy(), np.eye(5))


# --- what cannot be differentiated says so -----------------------------------------------------


def test_writing_into_a_plain_array_names_the_remedy():
    out = np.empty(SHAPE)
    for write in (
        lambda: out.__setitem__(0, dual()[0]),
        lambda: np.asarray(dual()),
        lambda: np.array([dual(), dual()]),
        lambda: np.add(A, dual(), out=out),
        lambda: out.__iadd__(dual()),
    ):
        with pytest.raises(NotDifferentiable, match=r"np\.stack / np\.concatenate / np\.where"):
            write()
    # NumPy puts an error of its own in front when one entry is written.
    with pytest.raises(ValueError, match="setting an array element") as caught:
        out[0, 0, 0] = dual()[0, 0, 0]
    assert "loses its derivative" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda h: np.linalg.eig(h), r"numpy\.linalg\.eig "),
        (lambda h: np.median(h), r"numpy\.median "),
        (lambda h: np.gcd(h, h), r"numpy\.gcd "),
        (lambda h: np.piecewise(h, [A > 0], [1.0]), r"numpy\.piecewise "),
        (lambda h: np.add(h, 1, dtype=np.float32), r"numpy\.add with dtype= "),
        (lambda h: np.add(h, 1, where=A > 0), r"numpy\.add with where= "),
        (lambda h: np.hypot.reduce(h), r"numpy\.hypot\.reduce "),
        (lambda h: np.modf(h), r"numpy\.modf "),
        (lambda h: special.gammaln(h), r"scipy\.special\.gammaln "),
    ],
)
def test_unknown_functions_are_named(function, name):
    with pytest.raises(NotDifferentiable, match=name + "has no derivative rule here") as caught:
        function(dual())
    assert "jacobian='cs'" in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, PararnnError)


def test_conversion_to_numbers_and_truth_values():
    h = Dual(np.array(1.0), np.ones((1,)))
    for convert in (float, int, complex):
        with pytest.raises(NotDifferentiable, match="loses its derivative"):
            convert(h)
    with pytest.raises(TypeError, match=r"np\.where"):
        bool(h)
    with pytest.raises(TypeError, match=r"np\.where"):
        max(h, h * 2) if h else None


def test_direct_iteration_unpacks_rows():
    x, y, z = dual()
    np.testing.assert_array_equal(z.tangent, TANGENT[:, 2])
