"""Every backend solves the same linear recurrence, by the same rules."""

from __future__ import annotations

import contextlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.linear import load, numba_split, threads

EPS_FACTOR = 32
TOL = {np.float64: 1e-12, np.float32: 2e-4, np.float16: 2e-2}

# (batch, k, n): one lane, few lanes, whole vectors, vectors with a tail, small blocks, dense.
SHAPES = [
    ((), 1, 1),
    ((2,), 1, 2),
    ((2,), 1, 4),
    ((3,), 1, 1),
    ((2, 1), 1, 21),
    ((1,), 2, 1),
    ((2,), 2, 2),
    ((3,), 2, 19),
    ((2,), 3, 1),
    ((), 3, 5),
    ((2,), 4, 16),
    ((), 5, 2),
    ((), 5, 3),
    ((2,), 5, 1),
    ((), 17, 1),
    ((), 1, 300),
]
LENGTHS = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 70]


@contextlib.contextmanager
def pool_of(n):
    """Every call on ``n`` threads, however small it is."""
    before = threads.num_threads()
    threads.set_num_threads(n)
    try:
        with mock.patch.object(numba_split, "DISPATCH_BYTES", 0):
            yield
    finally:
        threads.set_num_threads(before)


def numba_in_pieces(blocks, rhs, *, adjoint=False):
    with pool_of(3):
        return load("numba")(blocks, rhs, adjoint=adjoint)


SCANS = {
    "sequential": load("sequential"),
    "numba": load("numba"),
    "numba in pieces of time": numba_in_pieces,
    "scipy": load("scipy"),
}
every_scan = pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
causal_scan = pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS)
either_way = pytest.mark.parametrize("adjoint", [False, True], ids=["forward", "adjoint"])
examples = settings(max_examples=40, deadline=None, derandomize=True)


def system(T, batch, k, n, dtype=np.float64, seed=0, scale=1.2):
    rng = np.random.default_rng(seed)
    blocks = rng.uniform(-scale, scale, (T, *batch, k, k, n)) / k
    rhs = rng.normal(size=(T, *batch, k * n))
    blocks[:1] = np.nan  # A_1 is not used
    return blocks.astype(dtype), rhs.astype(dtype)


def textbook(blocks, rhs, adjoint):
    """Matrices and vectors of every lane, in float64: written apart from every backend."""
    T, *batch, k, _, n = blocks.shape
    A = np.moveaxis(blocks.astype(np.float64), -1, 0)
    b = np.moveaxis(rhs.astype(np.float64).reshape(T, *batch, k, n), -1, 0)
    h = b.copy()
    for c in np.ndindex(n, *batch):
        at = [(c[0], t, *c[1:]) for t in range(T)]
        if adjoint:
            for t in range(T - 2, -1, -1):
                h[at[t]] = b[at[t]] + A[at[t + 1]].T @ h[at[t + 1]]
        else:
            for t in range(1, T):
                h[at[t]] = b[at[t]] + A[at[t]] @ h[at[t - 1]]
    return np.moveaxis(h, 0, -1).reshape(rhs.shape)


def magnitude(blocks, rhs, adjoint):
    """Return the solution with absolute values throughout: what rounding errors scale with."""
    blocks = np.abs(blocks.astype(np.float64))
    return textbook(blocks, np.abs(rhs.astype(np.float64)), adjoint)


systems = st.builds(
    lambda T, shape, dtype, seed: system(T, *shape, dtype=dtype, seed=seed),
    T=st.sampled_from(LENGTHS),
    shape=st.sampled_from(SHAPES),
    dtype=st.sampled_from([np.float64, np.float32]),
    seed=st.integers(0, 2**32 - 1),
)


@every_scan
@given(problem=systems, adjoint=st.booleans())
@examples
def test_solution_is_the_textbook_one(scan, problem, adjoint):
    blocks, rhs = problem
    h = scan(blocks, rhs, adjoint=adjoint)
    assert h.shape == rhs.shape and h.dtype == rhs.dtype and h.flags.c_contiguous
    bound = EPS_FACTOR * blocks.shape[-2] * len(rhs) * np.finfo(rhs.dtype).eps
    error = np.abs(h - textbook(blocks, rhs, adjoint))
    assert np.all(error <= bound * magnitude(blocks, rhs, adjoint))


@every_scan
@given(problem=systems)
@examples
def test_residual_is_rounding(scan, problem):
    blocks, rhs = problem
    h = scan(blocks, rhs).astype(np.float64)
    T, *batch, k, _, n = blocks.shape
    steps = (T - 1, *batch, k, n)
    state = h[:-1].reshape(steps)
    product = np.einsum("t...ijc,t...jc->t...ic", blocks[1:].astype(np.float64), state)
    residual = h[1:] - product.reshape(T - 1, *batch, k * n) - rhs[1:]
    assert np.array_equal(h[0], rhs[0])
    bound = EPS_FACTOR * k * np.finfo(rhs.dtype).eps * magnitude(blocks, rhs, False)[1:]
    assert np.all(np.abs(residual) <= bound)


@every_scan
@given(problem=systems, seed=st.integers(0, 2**32 - 1))
@examples
def test_adjoint_is_the_transpose(scan, problem, seed):
    blocks, v = problem
    g = np.random.default_rng(seed).normal(size=v.shape).astype(v.dtype)
    h, lam = scan(blocks, v), scan(blocks, g, adjoint=True)
    left, right = np.vdot(h.astype(np.float64), g), np.vdot(v.astype(np.float64), lam)
    size = np.vdot(magnitude(blocks, v, False), np.abs(g))
    assert abs(left - right) <= EPS_FACTOR * len(v) * np.finfo(v.dtype).eps * size


@every_scan
@either_way
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_diagonal_is_the_same_embedded_in_blocks(scan, adjoint, dtype):
    blocks, rhs = system(33, (2,), 1, 6, dtype)
    T, B, d = rhs.shape
    diagonal = blocks[:, :, 0, 0]
    as_pairs = np.zeros((T, B, 2, 2, d // 2), dtype)
    as_dense = np.zeros((T, B, d, d, 1), dtype)
    for i in range(2):
        as_pairs[:, :, i, i] = diagonal[:, :, i * (d // 2) : (i + 1) * (d // 2)]
    for i in range(d):
        as_dense[:, :, i, i, 0] = diagonal[:, :, i]
    h = scan(blocks, rhs, adjoint=adjoint)
    for embedded in (as_pairs, as_dense):
        np.testing.assert_allclose(scan(embedded, rhs, adjoint=adjoint), h, rtol=TOL[dtype])


@every_scan
@either_way
@pytest.mark.parametrize("shape", SHAPES)
def test_without_coupling_the_solution_is_the_right_hand_side(scan, adjoint, shape):
    blocks, rhs = system(20, *shape)
    assert np.array_equal(scan(np.zeros_like(blocks), rhs, adjoint=adjoint), rhs)


@causal_scan
@given(
    shape=st.sampled_from(SHAPES),
    T=st.sampled_from([2, 9, 40, 70]),
    at=st.floats(0, 0.999),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.sampled_from(["blocks", "rhs"]),
    adjoint=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@examples
def test_nan_and_inf_stay_in_their_lane_and_after_their_step(
    scan, shape, T, at, bad, where, adjoint, seed
):
    batch, k, n = shape
    blocks, rhs = system(T, *shape, seed=seed)
    clean = scan(blocks, rhs, adjoint=adjoint).reshape(T, *batch, k, n)
    t = 1 + int(at * (T - 1))
    lane = tuple(np.random.default_rng(seed).integers(size) for size in (*batch, n))
    sequence, channel = lane[:-1], lane[-1]
    if where == "blocks":
        blocks[(t, *sequence, slice(None), slice(None), channel)] = bad
    else:
        rhs.reshape(T, *batch, k, n)[(t, *sequence, slice(None), channel)] = bad
    h = scan(blocks, rhs, adjoint=adjoint).reshape(T, *batch, k, n)
    # In the adjoint, A_t first enters lam_{t-1}.
    solved_before = slice(t + (where == "rhs"), None) if adjoint else slice(0, t)
    spoilt = np.zeros(h.shape, bool)
    spoilt[(slice(None), *sequence, slice(None), channel)] = True
    spoilt[solved_before] = False
    assert np.array_equal(h[~spoilt], clean[~spoilt])
    assert not np.isfinite(h[spoilt]).any()


@causal_scan
@either_way
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("lanes", [1, 4])
def test_overflow_of_products_does_not_reach_a_finite_recurrence(scan, adjoint, dtype, lanes):
    T, large = 64, np.finfo(dtype).max ** 0.4
    blocks = np.full((T, 1, 1, lanes), large, dtype)  # products of three overflow
    rhs = np.zeros((T, lanes), dtype)
    rhs[T // 2, -1] = 1 / large
    h = scan(blocks, rhs, adjoint=adjoint)
    reference = load("sequential")(blocks, rhs, adjoint=adjoint)
    assert np.isfinite(reference).sum() > T // 2
    np.testing.assert_allclose(h, reference, rtol=1e-5)


@causal_scan
@either_way
@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("first", range(36, 46))
def test_overflow_inside_a_piece_whose_product_is_small(scan, adjoint, lanes, first):
    T = 96
    blocks, rhs = np.full((T, 1, 1, lanes), 0.5), np.zeros((T, lanes))
    rhs[-1 if adjoint else 0] = 1e300
    blocks[..., 0] = 1.0
    for s in range(first, first + 4):  # up by 1e160, down by 1e170, and again
        blocks[T - s if adjoint else s, ..., 0] = (1e160, 1e-170)[(s - first) % 2]
    h = scan(blocks, rhs, adjoint=adjoint)
    reference = load("sequential")(blocks, rhs, adjoint=adjoint)
    assert not np.isfinite(reference[0 if adjoint else -1, 0])
    assert np.array_equal(np.isfinite(h), np.isfinite(reference))
    finite = np.isfinite(reference)
    np.testing.assert_allclose(h[finite], reference[finite], rtol=1e-12)


@every_scan
@either_way
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_subnormal_states_are_not_flushed(scan, adjoint, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    T, rhs = 24, np.zeros((24, 1), dtype)
    rhs[-1 if adjoint else 0] = 1024 * tiny
    blocks = np.full((T, 1, 1, 1), 0.5, dtype)
    h = scan(blocks, rhs, adjoint=adjoint).ravel()[:: -1 if adjoint else 1]
    assert np.array_equal(h[:11], tiny * 2.0 ** np.arange(10, -1, -1))


@every_scan
@either_way
def test_any_layout_is_read_and_nothing_is_written(scan, adjoint):
    blocks, rhs = system(12, (4,), 2, 6)
    expected = scan(blocks, rhs, adjoint=adjoint)
    for arrays in (
        (np.asfortranarray(blocks), np.asfortranarray(rhs)),
        (np.repeat(blocks, 2, axis=1)[:, ::2], np.repeat(rhs, 2, axis=2)[..., ::2]),
        (blocks[::-1].copy()[::-1], rhs[::-1].copy()[::-1]),
    ):
        copies = [x.copy() for x in arrays]
        for x in arrays:
            x.flags.writeable = False
        h = scan(*arrays, adjoint=adjoint)
        np.testing.assert_allclose(h, expected, rtol=1e-13, atol=1e-13)
        assert h.flags.c_contiguous and h.flags.writeable
        assert not any(np.shares_memory(h, x) for x in arrays)
        assert all(
            np.array_equal(x, y, equal_nan=True) for x, y in zip(arrays, copies, strict=True)
        )


@every_scan
@either_way
@pytest.mark.parametrize("shape", SHAPES)
def test_half_precision_is_stored_and_computed_in_single(scan, adjoint, shape):
    blocks, rhs = system(17, *shape, dtype=np.float16)
    h = scan(blocks, rhs, adjoint=adjoint)
    assert h.dtype == np.float16
    wide = scan(blocks.astype(np.float32), rhs.astype(np.float32), adjoint=adjoint)
    assert np.array_equal(h, wide.astype(np.float16))


@every_scan
def test_half_precision_overflows_to_infinity_in_silence(scan):
    blocks, rhs = np.full((3, 1, 1, 1), 300, np.float16), np.full((3, 1), 300, np.float16)
    assert np.isinf(scan(blocks, rhs).ravel()[1:]).all()


@every_scan
@either_way
@pytest.mark.parametrize(
    ("T", "batch", "k", "n"), [(0, (2,), 2, 3), (4, (0,), 1, 3), (4, (2,), 1, 0), (1, (2,), 3, 1)]
)
def test_empty_and_single_step_systems(scan, adjoint, T, batch, k, n):
    blocks, rhs = system(T, batch, k, n)
    assert np.array_equal(scan(blocks, rhs, adjoint=adjoint), rhs)


@every_scan
@pytest.mark.parametrize(
    ("blocks", "rhs", "message"),
    [
        (np.ones((3, 1, 1, 1)), np.ones((3, 1), np.float32), "one dtype, got float64 and float32"),
        (np.ones((3, 1, 1, 1), int), np.ones((3, 1), int), "float64, float32 or float16, got int"),
        (np.ones((3, 1)), np.ones((3, 1)), r"blocks\[..., None, None, :\]"),
        (np.ones((3, 1, 1, 1)), np.ones(3), r"\(T, \*batch, k\*n\)"),
        (np.ones((1, 1, 3)), np.ones(3), r"\(T, \*batch, k\*n\)"),
        (np.ones((3, 0, 0, 2)), np.ones((3, 0)), r"square blocks with k >= 1"),
        (np.ones((3, 2, 1, 1, 1)), np.ones((3, 4, 1)), r"leading axes \(3, 4\), blocks has"),
        (np.ones((3, 2, 3, 1)), np.ones((3, 2)), r"square blocks"),
        (np.ones((3, 2, 2, 3)), np.ones((3, 5)), r"k \* n = 5"),
        ([[[[1.0]]]], np.ones((1, 1)), "blocks must be a numpy.ndarray, got list"),
    ],
)
def test_bad_arguments_are_named_with_a_remedy(scan, blocks, rhs, message):
    with pytest.raises(InvalidInput, match=message):
        scan(blocks, rhs)
