"""Properties of the package on drawn problems."""

import numpy as np
from hypothesis import assume, given

import pararnn_solvers as prs
from pararnn_solvers.testing import strategies as ours


@given(ours.smooth_steps())
def test_dual_blocks_of_smooth_steps_are_those_of_the_complex_step(step):
    h, x, *theta = np.random.default_rng(0).uniform(-1, 1, (2 + len(step.parameters), 7, 3))
    made = [
        prs.Recurrence(step, block_size=1, jacobian=jacobian).linearize(h, x, theta)[1]
        for jacobian in (None, "cs")
    ]
    np.testing.assert_allclose(*made, rtol=1e-11, atol=1e-13)


def allowed(problem, h):
    """Distance to the trajectory for residuals within the default tolerance and rounding."""
    eps = float(np.finfo(h.dtype).eps)
    return (eps**0.75 * (1 + np.abs(h).max()) + 64 * eps) / (1 - problem.lipschitz)


@given(ours.contractive_problems())
def test_solutions_of_contractive_problems_are_rollouts(problem):
    for method in ("auto", "newton", "quasi_newton"):
        solution = prs.solve(*problem[:4], method=method)
        error = np.abs(solution.h - prs.rollout(*problem[:4])).max()
        assert error <= allowed(problem, solution.h)


@given(ours.batches())
def test_a_padded_sequence_is_solved_as_if_alone(batch):
    problem, lengths, _ = batch
    recurrence, x, h0, theta, *_ = problem
    solution = prs.solve(recurrence, x, h0, theta, lengths=lengths, method="newton")
    for index in np.ndindex(*lengths.shape):
        T = int(lengths[index])
        got = solution.h[(slice(None), *index)]
        last = h0[index]
        if T:
            alone = prs.rollout(recurrence, x[(slice(T), *index)], last, theta)
            assert np.abs(got[:T] - alone).max() <= allowed(problem, alone)
        assert np.all(got[T:] == (got[T - 1] if T else last))


@given(ours.marginal_problems() | ours.expansive_problems())
def test_converged_means_that_the_residual_is_within_the_tolerance(problem):
    try:
        solution = prs.solve(*problem[:4], method="newton")
    except prs.ConvergenceError as error:
        solution = error.solution
    assume(solution.success)
    h = solution.h
    previous = np.concatenate([problem.h0[None], h[:-1]])
    residual = np.abs(h - problem.recurrence.step(previous, problem.x, problem.theta))
    eps = float(np.finfo(h.dtype).eps)
    largest = np.abs(h).max(axis=-1, keepdims=True)
    rounding = 16 * eps * (1 + np.abs(previous).max(axis=-1, keepdims=True) * 4)
    assert np.all(residual <= eps**0.75 * (1 + largest) + rounding)
