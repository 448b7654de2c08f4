"""Levenberg-Marquardt: the damped least-squares step, and when it is taken."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers.bidiagonal import BlockBidiagonal
from pararnn_solvers.linear import load
from pararnn_solvers.solvers.iterate import Iterate, sequence_norm
from pararnn_solvers.solvers.trust_region import damped_least_squares, trust_region
from pararnn_solvers.system import System
from tests.strategies import attempt, block_systems, dense_tanh, solve


def matrix_of_sequence(blocks):
    """I - S A as a dense matrix, column by column, for blocks (T, k, k, n)."""
    T, k, _, n = blocks.shape
    units = np.eye(T * k * n).reshape(-1, T, k * n)
    return np.stack([BlockBidiagonal(blocks).matvec(v).ravel() for v in units], axis=-1)


@given(block_systems(dtypes=st.just(np.float64)), st.floats(-12, 3))
def test_the_step_solves_the_normal_equations(system, log_damping):
    blocks, F = system
    damping = 10**log_damping * np.arange(1, blocks.shape[1] + 1)
    delta = damped_least_squares(BlockBidiagonal(blocks), F, damping)
    for b in range(blocks.shape[1]):
        M = matrix_of_sequence(blocks[:, b])
        stacked = np.vstack([M, np.sqrt(damping[b]) * np.eye(len(M))])
        expected = np.linalg.lstsq(stacked, np.append(-F[:, b], np.zeros(len(M))))[0]
        # Normal equations square the condition of M.
        allowed = 1e-14 * np.linalg.cond(M) ** 2 * max(1, np.abs(expected).max())
        assert np.abs(delta[:, b].ravel() - expected).max() <= allowed


@given(block_systems())
def test_without_damping_it_is_newtons_step_and_keeps_the_dtype(system):
    blocks, F = system
    delta = damped_least_squares(BlockBidiagonal(blocks), F, np.zeros(blocks.shape[1]))
    assert delta.dtype == F.dtype
    newton = load("sequential")(blocks.astype(float), -F.astype(float))
    condition = max(np.linalg.cond(matrix_of_sequence(A)) for A in blocks.swapaxes(0, 1))
    allowed = (1e-14 * condition**2 + 2 * np.finfo(F.dtype).eps) * max(1, np.abs(newton).max())
    assert np.abs(delta - newton).max() <= allowed


def test_what_is_not_finite_gets_no_step_and_leaves_the_rest():
    rng = np.random.default_rng(0)
    blocks, F = 0.3 * rng.standard_normal((6, 3, 2, 2, 2)), rng.standard_normal((6, 3, 4))
    expected = damped_least_squares(BlockBidiagonal(blocks), F, np.ones(3))
    F = F.copy()
    F[2, 1, 0] = np.nan  # component 0 of channel 0 of sequence 1
    delta = damped_least_squares(BlockBidiagonal(blocks), F, np.ones(3))
    np.testing.assert_array_equal(delta[:, [0, 2]], expected[:, [0, 2]])
    np.testing.assert_array_equal(delta[:, 1, 1::2], expected[:, 1, 1::2])
    assert np.isnan(delta[:, 1, 0::2]).any()


def test_the_merit_falls_in_every_accepted_step():
    case = dense_tanh(d=6, T=60, lipschitz=3.0)
    merit = []

    def watch(state):
        previous = np.concatenate([case.h0[None, None], state.h[:-1]])
        F = state.h - case.recurrence(previous, case.x[:, None], case.theta)
        merit.append(np.linalg.norm(F))

    attempt(case, method="levenberg_marquardt", callback=watch)
    assert len(merit) > 5
    assert (np.diff(merit) <= 1e-12).all()
    assert merit[-1] < 0.9 * merit[0]


def first_step(h, damping):
    case = dense_tanh(d=6, T=30, batch=(2,), lipschitz=3.0)
    system = System(prs.Recurrence(case.recurrence), case.x, case.h0, case.theta, 30)
    f = system.evaluate(system.previous(h))
    iterate = Iterate(system, h, f, damping=damping)
    iterate = Iterate(system, h, f, blocks=prs.exact(iterate), damping=damping)
    return iterate, trust_region(iterate, load("sequential"))


def test_each_sequence_has_a_damping_of_its_own():
    """From the same states, hardly damped and much: one step is refused, the other taken."""
    h = 0.1 * np.random.default_rng(1).standard_normal((30, 2, 6))
    iterate, moved = first_step(h, np.array([1e-12, 1e3]))
    before, after = sequence_norm(iterate.residual), sequence_norm(moved.residual)
    np.testing.assert_array_equal(moved.h[:, 0], h[:, 0])  # refused
    assert moved.damping[0] == 4e-12
    assert after[1] < before[1]  # taken, and predicted well
    assert moved.damping[1] == 250.0


def gain_ratio(iterate, delta):
    """Return by how much ``|F|^2 / 2`` falls, beside the fall of ``|F + M delta|^2 / 2``."""
    F, linear = iterate.residual, iterate.residual + iterate.matrix.matvec(delta)
    trial = iterate.moved(iterate.h + delta)
    phi, after, model = (np.square(v).sum(axis=(0, 2)) / 2 for v in (F, trial.residual, linear))
    return (phi - after) / (phi - model), trial


def test_the_gain_ratio_decides_whether_to_step_and_what_becomes_of_the_damping():
    scan, seen = load("sequential"), set()
    for seed, damping in itertools.product(range(12), [1e-6, 1e-2, 1.0]):
        h = 0.4 * np.random.default_rng(seed).standard_normal((30, 2, 6))
        iterate, _ = first_step(h, np.full(2, damping))
        moved = trust_region(iterate, scan, factor=1.5)
        delta = damped_least_squares(iterate.matrix, iterate.residual, iterate.damping)
        rho, trial = gain_ratio(iterate, delta)
        for b in range(2):
            assert abs(rho[b] - 0.25) > 1e-6 and abs(rho[b] - 1e-4) > 1e-6
            region = int(rho[b] > 1e-4) + int(rho[b] > 0.25)
            seen.add(region)
            expected = damping * [1.5, 1, 1 / 1.5][region]
            np.testing.assert_allclose(moved.damping[b], expected, rtol=1e-14)
            np.testing.assert_array_equal(moved.h[:, b], (trial.h if region else h)[:, b])
            np.testing.assert_allclose(moved.f[:, b], (trial.f if region else iterate.f)[:, b])
        assert not moved.stalled.any()
    assert seen == {0, 1, 2}


def test_the_gain_ratio_is_that_of_the_model_however_wrong():
    """Blocks that are wrong by more and more lead past both limits in small steps."""
    scan, near = load("sequential"), []
    case = dense_tanh(d=6, T=30, batch=(2,))
    system = System(prs.Recurrence(case.recurrence), case.x, case.h0, case.theta, 30)
    start = Iterate(system, 0.4 * np.ones((30, 2, 6)))
    for wrong in np.linspace(0, 2, 81):
        blocks = prs.exact(start) + wrong * np.eye(6)[..., None]
        iterate = Iterate(system, start.h, start.f, blocks=blocks, damping=np.ones(2))
        delta = damped_least_squares(iterate.matrix, iterate.residual, iterate.damping)
        rho, _ = gain_ratio(iterate, delta)
        expected = np.where(rho > 0.25, 0.5, np.where(rho > 1e-4, 1.0, 2.0))
        np.testing.assert_allclose(trust_region(iterate, scan, factor=2.0).damping, expected)
        near += [*rho]
    assert min(np.abs(np.array(near) - 0.27)) < 0.02


def test_a_system_that_is_singular_to_rounding_gets_no_step():
    """``M^T M`` has entries of 2**140, beside which I vanishes."""
    blocks = np.full((4, 2, 1, 1, 1), 0.5)
    blocks[:, 1] = 2.0**70
    delta = damped_least_squares(BlockBidiagonal(blocks), np.ones((4, 2, 1)), np.zeros(2))
    assert np.isfinite(delta[:, 0]).all()
    assert np.isnan(delta[:, 1]).all()


def test_a_damping_beyond_its_limit_stalls():
    h = np.zeros((30, 2, 6))
    _, moved = first_step(h, np.array([1e-2, 2e12 * 5]))
    assert not moved.stalled[0]
    assert moved.stalled[1]


def test_the_first_damping_and_the_last():
    """States that are not finite are refused, which multiplies the damping by four."""
    wild = np.full((30, 2, 6), np.nan)
    iterate, moved = first_step(wild, None)
    np.testing.assert_array_equal(moved.damping, 4e-2)
    _, moved = first_step(wild, np.array([0.25e12, 0.25e12 + 0.125]))
    np.testing.assert_array_equal(moved.stalled, [False, True])
    with pytest.raises(TypeError, match="positional"):  # a damping is named
        trust_region(iterate, load("sequential"), 1e-2)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"initial": -1}, "initial is -1; expected a finite number > 0"),
        ({"initial": 0.0}, "initial is 0.0; expected a finite number > 0"),
        ({"factor": 1}, "factor is 1; expected a number > 1"),
        ({"largest": np.inf}, "largest is inf; expected a finite number > 0"),
    ],
)
def test_parameters_out_of_range_are_refused(parameters, message):
    iterate, _ = first_step(np.zeros((30, 2, 6)), np.ones(2))
    with pytest.raises(prs.InvalidInput, match=message):
        trust_region(iterate, load("sequential"), **parameters)


@pytest.mark.parametrize("damping", [1e-6, 1e-2, 1.0])
def test_it_converges_whatever_the_first_damping(damping):
    case = dense_tanh(T=30, batch=(2,))
    assert solve(case, method=prs.levenberg_marquardt(damping)).status is prs.Status.CONVERGED
