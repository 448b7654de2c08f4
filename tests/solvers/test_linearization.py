"""Each linearization is what it says: a part, an estimate or a multiple of the exact Jacobian."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.bidiagonal import block_matvec
from pararnn_solvers.solvers.iterate import Iterate
from pararnn_solvers.solvers.linearization import extract_blocks
from pararnn_solvers.system import System
from tests.strategies import block_tanh, dense_tanh


def iterate_of(case, seed=1, **fields):
    """An iterate at random states, with one batch axis."""
    recurrence = case.recurrence
    if not isinstance(recurrence, prs.Recurrence):
        recurrence = prs.Recurrence(recurrence)
    system = System(recurrence, case.x, case.h0, case.theta, case.steps)
    h = np.random.default_rng(seed).standard_normal(system.shape)
    return Iterate(system, h, system.evaluate(system.previous(h)), **fields)


def dense_of(blocks):
    """The matrices (..., d, d) of blocks, entry by entry from the definition of the layout."""
    k, n = blocks.shape[-2:]
    dense = np.zeros((*blocks.shape[:-3], k * n, k * n))
    for i, j, c in np.ndindex(k, k, n):
        dense[..., i * n + c, j * n + c] = blocks[..., i, j, c]
    return dense


def exact_matrices(iterate):
    """df/dh as dense matrices, by central differences."""
    previous = iterate.system.previous(iterate.h)
    step, d = iterate.system.recurrence.step, previous.shape[-1]
    columns = []
    for v in np.eye(d) * 1e-5:
        up, down = (step(previous + s * v, iterate.system.x, iterate.system.theta) for s in (1, -1))
        columns.append((up - down) / 2e-5)
    return np.stack(columns, axis=-1)


CASES = {
    "diagonal": block_tanh(k=1, n=6, T=5, batch=(2,)),
    "blocks": block_tanh(k=3, n=2, T=5, batch=(2,)),
    "dense": dense_tanh(d=6, T=5, batch=(2,)),
}


@pytest.mark.parametrize("case", CASES)
def test_exact_is_the_jacobian(case):
    iterate = iterate_of(CASES[case])
    # Central differences: eps / 1e-5 from rounding, 1e-10 from the third derivative.
    np.testing.assert_allclose(dense_of(prs.exact(iterate)), exact_matrices(iterate), atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("case", CASES)
def test_block_diagonal_keeps_the_entries_that_couple_one_channel(case, k):
    iterate = iterate_of(CASES[case])
    blocks = prs.block_diagonal(k)(iterate)
    assert blocks.shape == (5, 2, k, k, 6 // k)
    i, j = np.indices((6, 6))
    same_channel = i % (6 // k) == j % (6 // k)
    expected = np.where(same_channel, exact_matrices(iterate), 0)
    np.testing.assert_allclose(dense_of(blocks), expected, atol=1e-9)


DIVISORS = [(K, k, d) for d in (1, 4, 6, 12) for K in range(1, d + 1) for k in range(1, d + 1)]


@pytest.mark.parametrize(("K", "k", "d"), [t for t in DIVISORS if t[2] % t[0] == t[2] % t[1] == 0])
def test_extraction_between_all_block_sizes(K, k, d):
    blocks = np.random.default_rng(0).standard_normal((2, K, K, d // K))
    i, j = np.indices((d, d))
    expected = np.where(i % (d // k) == j % (d // k), dense_of(blocks), 0)
    extracted = extract_blocks(blocks, k)
    assert extracted.shape == (2, k, k, d // k)
    np.testing.assert_array_equal(dense_of(extracted), expected)


def test_block_diagonal_of_ones_own():
    case = CASES["dense"]
    own = prs.block_diagonal(
        1, jacobian=lambda h, x, W: np.diag(W) * (1 - np.tanh(h @ W.T + x) ** 2)
    )
    iterate = iterate_of(case)
    np.testing.assert_allclose(own(iterate), prs.diagonal(iterate), rtol=1e-12, atol=1e-15)


def test_a_block_size_that_does_not_divide_is_refused():
    with pytest.raises(prs.InvalidInput, match=r"block_diagonal\(4\) on states of size 6"):
        prs.block_diagonal(4)(iterate_of(CASES["dense"]))


def test_hutchinson_is_unbiased():
    """Exact in expectation over all sign vectors; here the mean over 4000 draws."""
    case = dense_tanh(d=6, T=3, batch=(1,))
    iterate = iterate_of(case)
    exact, diagonal = dense_of(prs.exact(iterate)), prs.diagonal(iterate)
    off = exact * (1 - np.eye(6))
    # Entry i has variance sum_{j != i} A_ij^2 / probes.
    deviation = np.sqrt((off**2).sum(axis=-1) / 4000).reshape(diagonal.shape)
    estimate = prs.hutchinson(probes=4000, seed=0)(iterate)
    assert (np.abs(estimate - diagonal) < 5 * deviation + 1e-12).all()
    assert np.abs(estimate - diagonal).max() > 0.1 * deviation.max()


def test_hutchinson_is_exact_for_a_diagonal_and_repeatable():
    iterate = iterate_of(CASES["diagonal"])
    assert prs.hutchinson() == prs.hutchinson(probes=1, seed=0)
    np.testing.assert_allclose(prs.hutchinson()(iterate), prs.exact(iterate), rtol=1e-13)
    dense = iterate_of(CASES["dense"])
    later = iterate_of(CASES["dense"], number=1)
    first = prs.hutchinson(seed=4)(dense)
    np.testing.assert_array_equal(first, prs.hutchinson(seed=4)(dense))
    assert (first != prs.hutchinson(seed=5)(dense)).any()
    assert (first != prs.hutchinson(seed=4)(later)).any()


def test_scaled():
    iterate = iterate_of(CASES["blocks"])
    np.testing.assert_allclose(prs.scaled(0.25)(iterate), 0.75 * prs.exact(iterate), rtol=1e-15)
    np.testing.assert_array_equal(prs.scaled(0)(iterate), prs.exact(iterate))
    np.testing.assert_array_equal(prs.scaled(1, prs.diagonal)(iterate), 0 * prs.diagonal(iterate))


@given(st.floats(0.01, 2), st.sampled_from(sorted(CASES)), st.integers(0, 100))
def test_clipped_bounds_the_norm_and_leaves_smaller_blocks(bound, case, seed):
    iterate = iterate_of(CASES[case], seed)
    A, clipped = prs.exact(iterate), prs.clipped(bound)(iterate)
    norm, clipped_norm = (np.abs(B).sum(axis=-2).max(axis=-2) for B in (A, clipped))
    assert (clipped_norm <= bound * (1 + 1e-12)).all()
    small = np.broadcast_to((norm <= bound)[..., None, None, :], A.shape)
    np.testing.assert_array_equal(clipped[small], A[small])
    # A scaled block keeps its direction.
    np.testing.assert_allclose(
        clipped * norm[..., None, None, :], A * clipped_norm[..., None, None, :], atol=1e-12
    )


def test_clipped_to_one_unless_told():
    assert prs.clipped() == prs.clipped(bound=1.0, base=prs.exact)


def test_clipped_diagonal_is_the_clipped_diagonal():
    iterate = iterate_of(CASES["diagonal"])
    clipped = prs.clipped(0.2)(iterate)
    np.testing.assert_allclose(clipped, np.clip(prs.exact(iterate), -0.2, 0.2), rtol=1e-14)


def test_frozen_keeps_the_first_blocks():
    calls = []

    def base(iterate):
        calls.append(iterate.number)
        return prs.exact(iterate)

    iterate = iterate_of(CASES["blocks"])
    first = prs.frozen(base)(iterate)
    later = iterate_of(CASES["blocks"], seed=2, blocks=first, number=1)
    assert prs.frozen(base)(later) is first
    assert calls == [0]


@pytest.mark.parametrize("case", CASES)
def test_secant_maps_the_last_change_of_state_to_the_change_of_f(case):
    last = iterate_of(CASES[case], seed=1)
    A = prs.exact(last)
    now = iterate_of(CASES[case], seed=2, blocks=A, previous=last)
    updated = prs.secant()(now)
    dh = now.system.previous(now.h) - last.system.previous(last.h)
    df = now.f - last.f
    np.testing.assert_allclose(block_matvec(updated, dh)[1:], df[1:], atol=1e-12)
    assert (updated[1:] != A[1:]).any()
    # The first state before all is h0, which does not change: no update there.
    np.testing.assert_array_equal(updated[0], A[0])


def test_secant_changes_blocks_by_rank_one_at_most():
    last = iterate_of(CASES["blocks"], seed=1)
    A = prs.exact(last)
    now = iterate_of(CASES["blocks"], seed=2, blocks=A, previous=last)
    change = np.moveaxis(prs.secant()(now) - A, -1, 0)
    assert (np.linalg.matrix_rank(change, tol=1e-10) <= 1).all()


def test_identity_and_zero():
    iterate = iterate_of(CASES["dense"])
    v = np.random.default_rng(3).standard_normal((5, 2, 6))
    np.testing.assert_array_equal(block_matvec(prs.identity(iterate), v), v)
    np.testing.assert_array_equal(block_matvec(prs.zero(iterate), v), 0 * v)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: prs.block_diagonal(0), "k is 0; expected a whole number >= 1"),
        (lambda: prs.block_diagonal(2.5), "k is 2.5; expected a whole number >= 1"),
        (lambda: prs.block_diagonal(True), "k is True; expected a whole number >= 1"),
        (lambda: prs.block_diagonal(1, 3), r"jacobian is 3; expected a function jacobian\("),
        (lambda: prs.hutchinson(0), "probes is 0; expected a whole number >= 1"),
        (lambda: prs.hutchinson(1.5), "probes is 1.5; expected a whole number >= 1"),
        (lambda: prs.hutchinson(seed=-1), "seed is -1; expected a whole number >= 0"),
        (lambda: prs.scaled(2.0), r"s is 2.0; expected a number from 0 \(Newton\) to 1"),
        (lambda: prs.scaled(-0.1), "s is -0.1; expected a number from 0"),
        (lambda: prs.scaled("0.3"), "s is '0.3'; expected a number from 0"),
        (lambda: prs.scaled(0.3, "exact"), "base is 'exact'; expected a linearization such as"),
        (lambda: prs.clipped(-1), "bound is -1; expected a finite number >= 0"),
        (lambda: prs.clipped(np.ones(3)), "bound is .*; expected a finite number >= 0"),
        (lambda: prs.clipped(1, 2), "base is 2; expected a linearization such as"),
        (lambda: prs.frozen(0.5), "base is 0.5; expected a linearization such as"),
        (lambda: prs.secant(prs.frozen), r"base is frozen itself; .*call it, frozen\("),
    ],
)
def test_parameters_out_of_range_are_refused(wrong, message):
    with pytest.raises(prs.InvalidInput, match=message):
        wrong()


MADE = [
    lambda: prs.block_diagonal(2),
    lambda: prs.block_diagonal(2, abs),
    lambda: prs.hutchinson(2),
    lambda: prs.hutchinson(2, seed=1),
    lambda: prs.scaled(0.3),
    lambda: prs.scaled(0.3, prs.diagonal),
    lambda: prs.clipped(),
    lambda: prs.clipped(0.5),
    lambda: prs.frozen(),
    lambda: prs.secant(prs.frozen(prs.clipped())),
]


def test_linearizations_are_values():
    for i, make in enumerate(MADE):
        assert [other() == make() for other in MADE] == [j == i for j in range(len(MADE))]
        assert hash(make()) == hash(make())
        assert pickle.loads(pickle.dumps(make())) == make()
    with pytest.raises(AttributeError):
        prs.scaled(0.3).s = 0.4


def test_linearizations_keep_float32():
    case = dense_tanh(d=6, T=3, batch=(1,), dtype=np.float32)
    system = System(prs.Recurrence(case.recurrence), case.x, case.h0, case.theta, 3)
    h = np.ones(system.shape, np.float32)
    iterate = Iterate(system, h, system.evaluate(system.previous(h)))
    for linearization in (
        prs.exact,
        prs.diagonal,
        prs.hutchinson(2),
        prs.scaled(0.3),
        prs.scaled(np.float64(0.3)),
        prs.clipped(0.1),
        prs.clipped(np.float64(0.5)),
        prs.frozen(prs.clipped(np.float64(0.5))),
        prs.secant(),
        prs.identity,
        prs.zero,
    ):
        assert linearization(iterate).dtype == np.float32


def test_a_block_of_just_the_bound_is_left_as_it_is():
    step = prs.Recurrence(lambda h, x, a: a * h, block_size=1)
    system = System(step, None, np.ones((1, 2)), np.array([0.5, 0.75]), 3)
    iterate = Iterate(system, np.ones(system.shape))
    A = prs.clipped(0.5)(iterate)
    np.testing.assert_array_equal(A[..., 0, 0, :], np.full((3, 1, 2), 0.5))


def test_clipped_to_nothing_is_jacobis():
    iterate = iterate_of(CASES["blocks"])
    np.testing.assert_array_equal(prs.clipped(0)(iterate), np.zeros_like(prs.exact(iterate)))
