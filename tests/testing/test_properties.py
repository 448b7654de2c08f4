"""Properties of the package on drawn problems."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import solvers
from pararnn_solvers.solvers.step_length import full_step
from pararnn_solvers.testing import strategies as ours
from pararnn_solvers.testing.oracles import DIFFERENCES, DUAL, ask

METHODS = {name: name for name in solvers.METHODS} | {
    "relaxation": prs.relaxation(0.7),
    "newton(chunk=3)": prs.newton(chunk=3),
    "windowed(length=4)": prs.windowed(length=4),
    "hutchinson": prs.quasi_newton(prs.hutchinson(probes=2, seed=3)),
}
# Those for which the prefix is exact: they solve everything in T iterations that does not overflow.
FULL_STEPS = [
    name
    for name, method in METHODS.items()
    if getattr(solvers.load(method), "step_length", full_step) is full_step
]
DOUBLE = st.just(np.float64)


def solve(problem, **options):
    return prs.solve(*problem[:4], steps=problem.steps, **options)


def rollout(problem):
    return prs.rollout(*problem[:4], steps=problem.steps)


@given(ours.smooth_steps())
def test_dual_blocks_of_smooth_steps_are_those_of_differences(step):
    h, x, *theta = np.random.default_rng(0).uniform(-1, 1, (2 + len(step.parameters), 7, 3))
    oracles = ask(lambda h: step(h, x, theta), h, np.eye(3))
    assert oracles.agree(DUAL, DIFFERENCES)


def allowed(problem, h):
    """Distance to the rollout, (T, 1, ...), for residuals within the default tolerance.

    ``e_t = L e_{t-1} + tolerance + rounding``.
    """
    eps = float(np.finfo(h.dtype).eps)
    largest = 1 + np.max(np.abs(h), initial=0)
    amount = (eps**0.75 + 64 * eps) * largest
    error = amount * np.cumsum(problem.lipschitz ** np.arange(len(h)))
    return error.reshape(-1, *[1] * (h.ndim - 1))


def assert_is_rollout(problem, h):
    expected = rollout(problem)
    assert h.dtype == problem.h0.dtype
    assert np.all(np.abs(h - expected) <= allowed(problem, expected))


def is_defined_far_away(problem):
    x = None if problem.x is None else problem.x[0]
    far = 1e3 * np.ones_like(problem.h0)
    with np.errstate(all="ignore"):
        values = [problem.recurrence.step(h, x, problem.theta) for h in (far, -far)]
    return np.isfinite(values).all()


@pytest.mark.parametrize("method", METHODS)
def test_contractive_problems_are_solved_by_every_method(method):
    @given(ours.contractive_problems())
    def check(problem):
        if method == "picard":  # its sums leave the states for which a step is drawn
            assume(is_defined_far_away(problem))
        assert_is_rollout(problem, solve(problem, method=METHODS[method], max_iter=200).h)

    check()


# In double: 2**16 steps' worth of growth leave nothing of float32.
@pytest.mark.parametrize("method", FULL_STEPS)
def test_marginal_and_expansive_problems_are_solved_with_full_steps(method):
    @given(ours.marginal_problems(dtypes=DOUBLE) | ours.expansive_problems(10, dtypes=DOUBLE))
    def check(problem):
        solution = solve(problem, method=METHODS[method])
        assert_is_rollout(problem, solution.h)
        if method not in ("windowed", "windowed(length=4)"):
            assert solution.n_iter <= problem.steps

    check()


def fixed(step, theta, T, d):
    """A problem of one of the drawn kinds, with all values fixed."""
    rng = np.random.default_rng(0)
    x, h0 = rng.uniform(-1, 1, (T, d)), rng.uniform(-1, 1, d)
    return ours.Problem(prs.Recurrence(step), x, h0, theta, T, None, "fixed")


HARD = {
    "grow": fixed(ours.grow, np.full(2, 4.0), 40, 2),
    "sine": fixed(ours.sine, np.full(2, 4.0), 40, 2),
    "rotate": fixed(ours.rotate, np.array([0.5]), 200, 2),
    "hold": fixed(ours.hold, None, 200, 2),
}


# Neither far guesses nor growth are easy for what takes no full steps; and 100 iterations are too
# few for full steps with another A, which settle one state each.
STALLED, MAX_ITER = prs.Status.STALLED, prs.Status.MAX_ITER
KNOWN_BAD = {
    ("grow", "levenberg_marquardt"): STALLED,
    ("grow", "anderson"): MAX_ITER,
    ("sine", "damped_newton"): STALLED,
    ("sine", "levenberg_marquardt"): MAX_ITER,
    ("sine", "relaxation"): MAX_ITER,
    ("sine", "anderson"): MAX_ITER,
    ("rotate", "quasi_newton"): MAX_ITER,
    ("rotate", "hutchinson"): MAX_ITER,
    ("rotate", "picard"): MAX_ITER,
    ("rotate", "jacobi"): MAX_ITER,
    ("rotate", "anderson"): MAX_ITER,
    ("hold", "jacobi"): MAX_ITER,
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_solved_is_known_and_says_so(name, method):
    try:
        status = solve(HARD[name], method=METHODS[method]).status
    except prs.ConvergenceError as error:
        status = error.solution.status
    expected = {KNOWN_BAD.get((name, method))} - {None}
    assert status in (expected or {prs.Status.CONVERGED, prs.Status.SEQUENTIAL})


@given(ours.batches())
def test_a_batch_with_lengths_and_resets_is_each_piece_alone(batch):
    problem, lengths, resets = batch
    recurrence, x, h0, theta, steps, *_ = problem
    options = {"steps": steps, "lengths": lengths, "resets": resets}
    for method in ("newton", "quasi_newton", "sequential"):
        solution = prs.solve(recurrence, x, h0, theta, method=method, **options)
        for index in np.ndindex(*lengths.shape):
            T, h = int(lengths[index]), solution.h[(slice(None), *index)]
            starts = [0, *np.flatnonzero(resets[(slice(1, T), *index)]) + 1]
            for start, stop in zip(starts, [*starts[1:], T], strict=True):
                piece = None if x is None else x[(slice(start, stop), *index)]
                alone = problem._replace(x=piece, h0=h0[index], steps=stop - start)
                if stop > start:
                    assert_is_rollout(alone, h[start:stop])
            assert np.all(h[T:] == (h[T - 1] if T else h0[index]))


@given(ours.batches(), st.integers(0, 99))
def test_gradients_of_a_batch_pass_the_dot_test(batch, seed):
    """``<gradients(w), v> = <w, jvp(v)>`` with lengths and resets."""
    problem, lengths, resets = batch
    solution = solve(problem, lengths=lengths, resets=resets, method="sequential")
    rng, dtype = np.random.default_rng(seed), problem.h0.dtype
    w, dh0 = (
        rng.standard_normal(shape).astype(dtype) for shape in (solution.h.shape, problem.h0.shape)
    )
    dx = None if problem.x is None else rng.standard_normal(problem.x.shape).astype(dtype)
    found = prs.gradients(solution, w)
    left = np.vdot(found.h0, dh0) + (0 if dx is None else np.vdot(found.x, dx))
    right = np.vdot(w, prs.jvp(solution, dx=dx, dh0=dh0))
    size = np.linalg.norm(w) * (1 + np.linalg.norm(dh0)) * 10
    assert abs(left - right) <= 256 * np.finfo(dtype).eps * size


@given(ours.marginal_problems() | ours.expansive_problems(), st.sampled_from(sorted(METHODS)))
def test_converged_means_that_the_residual_is_within_the_tolerance(problem, method):
    try:
        solution = solve(problem, method=METHODS[method])
    except prs.ConvergenceError as error:
        solution = error.solution
    h = solution.h
    previous = np.concatenate([problem.h0[None], h[:-1]])
    residual = np.abs(h - problem.recurrence.step(previous, problem.x, problem.theta))
    eps = float(np.finfo(h.dtype).eps)
    largest = np.abs(h).max(axis=-1, keepdims=True)
    rounding = 16 * eps * (1 + np.abs(previous).max(axis=-1, keepdims=True) * 4)
    small = (residual <= eps**0.75 * (1 + largest) + rounding).all(axis=(0, -1))
    assert np.all(small | (solution.sequence_status != prs.Status.CONVERGED))
