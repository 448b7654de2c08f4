"""The equations of a trajectory, whole, in part and condensed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import system as systems
from pararnn_solvers.system import System
from tests.strategies import block_tanh, contractive_recurrences, dense_tanh, rollout, rounding


def system_of(case):
    recurrence = case.recurrence
    if not isinstance(recurrence, prs.Recurrence):
        recurrence = prs.Recurrence(recurrence)
    return System(recurrence, case.x, case.h0, case.theta, case.steps)


@given(contractive_recurrences())
def test_the_rollout_has_no_residual(case):
    residual = system_of(case).residual(rollout(case))
    assert np.max(np.abs(residual), initial=0) <= rounding(case)


@given(contractive_recurrences())
def test_residuals_and_linearization_agree(case):
    system = system_of(case)
    h = np.random.default_rng(0).standard_normal(system.shape).astype(case.h0.dtype)
    residual, blocks = system.residual(h), system.linearize(h)
    np.testing.assert_allclose(residual, system.residual(h), atol=rounding(case))
    k, n = system.recurrence.structure(system.shape[-1])
    assert blocks.shape == (*system.shape[:-1], k, k, n)
    assert residual.dtype == blocks.dtype == case.h0.dtype


@pytest.mark.parametrize("slab", [1, 100, 1000, 10**9])
def test_slabs_do_not_change_the_blocks(slab, monkeypatch):
    system = system_of(dense_tanh(T=23, batch=(2,)))
    h = np.ones(system.shape)
    expected = system.linearize(h)
    monkeypatch.setattr(systems, "SLAB_BYTES", slab)
    np.testing.assert_allclose(system.linearize(h), expected, rtol=1e-14)
    assert [s.start for s in system.slabs(4)][0] == 0
    assert sum(s.stop - s.start for s in system.slabs(4)) == 23


def test_reduction_is_applied_slab_by_slab(monkeypatch):
    system = system_of(dense_tanh(T=23, batch=(2,)))
    monkeypatch.setattr(systems, "SLAB_BYTES", 1000)
    seen = []

    def reduce(blocks):
        seen.append(len(blocks))
        return blocks[..., :1, :1, :]

    blocks = system.linearize(np.ones(system.shape), reduce=reduce)
    assert blocks.shape == (23, 2, 1, 1, 1)
    assert len(seen) > 1
    assert sum(seen) == 23


@given(contractive_recurrences(batches=st.just((3,))), st.data())
def test_a_part_has_the_residuals_of_the_part(case, data):
    system = system_of(case)
    start = data.draw(st.integers(0, case.steps - 1))
    stop = data.draw(st.integers(start + 1, case.steps))
    sequences = np.array(data.draw(st.lists(st.booleans(), min_size=3, max_size=3)))
    h = np.random.default_rng(0).standard_normal(system.shape).astype(case.h0.dtype)
    part = system.part(h, start, stop, sequences)
    expected = system.residual(h)[start:stop, sequences]
    residual = part.residual(h[start:stop, sequences])
    np.testing.assert_allclose(residual, expected, atol=rounding(case))
    expected = system.residual(h)[start:stop]
    residual = system.part(h, start, stop).residual(h[start:stop])
    np.testing.assert_allclose(residual, expected, atol=rounding(case))


@pytest.mark.parametrize("chunk", [2, 3, 5, 11, 12])
@pytest.mark.parametrize("autonomous", [False, True])
def test_the_condensed_system_is_solved_by_the_ends_of_chunks(chunk, autonomous):
    case = block_tanh(k=2, n=2, T=12, batch=(3,), x=not autonomous)
    coarse = system_of(case).condense(chunk)
    ends = rollout(case)[chunk - 1 :: chunk][: (12 - 1) // chunk]
    assert coarse.shape == ends.shape
    np.testing.assert_allclose(coarse.residual(ends), 0, atol=rounding(case))


def test_the_condensed_jacobian_is_the_product_of_the_blocks():
    case = block_tanh(k=2, n=2, T=7, batch=(3,))
    system = system_of(case)
    coarse = system.condense(3)
    ends = np.random.default_rng(0).standard_normal(coarse.shape)
    G = coarse.linearize(ends)
    h, product = case.h0, None
    for t in range(3):
        h, A = case.recurrence.linearize(h, case.x[t], case.theta)
        product = A if product is None else np.einsum("bijn,bjkn->bikn", A, product)
    np.testing.assert_allclose(G[0], product, rtol=1e-13, atol=1e-15)


def test_evaluations_are_counted_in_states():
    system = system_of(dense_tanh(T=10, batch=(2,)))
    system.residual(np.ones(system.shape))
    assert system.tally.steps == 20
    system.part(np.ones(system.shape), 5, 10, np.array([True, False])).residual(np.ones((5, 1, 4)))
    assert system.tally.steps == 25
    system.condense(3).residual(np.ones((3, 2, 4)))
    assert system.tally.steps == 25 + 3 * 3 * 2


def test_the_state_before_all_is_h0():
    system = system_of(dense_tanh(T=3, batch=(2,)))
    h = np.arange(24.0).reshape(3, 2, 4)
    np.testing.assert_array_equal(system.previous(h)[0], system.h0)
    np.testing.assert_array_equal(system.previous(h)[1:], h[:-1])
    assert system.previous(h[:0]).shape == (0, 2, 4)


def test_overflow_in_a_step_is_silent():
    system = System(
        prs.Recurrence(lambda h, x, _: np.exp(h) - np.exp(h)), None, np.ones(1), None, 3
    )
    assert np.isnan(system.residual(np.full((3, 1), 1e4))[1:]).all()
