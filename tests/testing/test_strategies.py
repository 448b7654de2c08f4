"""What strategies draw is what they say, small, and shrinks to something readable."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import Recurrence, functions
from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.testing import strategies as ours
from pararnn_solvers.testing.expressions import SMOOTH, SmoothStep, bound, evaluate, formula

QUICK = settings(max_examples=2000, database=None, derandomize=True)


@pytest.mark.parametrize("name", SMOOTH)
def test_bounds_of_smooth_functions_hold_and_are_met(name):
    a = np.linspace(-20, 20, 400_001)
    value = getattr(functions, name, None) or getattr(np, name)
    (constant, factor), slope = SMOOTH[name]
    assert name in RULES
    assert np.all(np.abs(value(a)) <= constant + factor * np.abs(a))
    slopes = np.abs(np.gradient(value(a), a))
    assert 0.99 * slope <= slopes.max() <= slope * (1 + 1e-9)


@given(ours.shapes(max_T=50, max_numbers=60))
def test_shapes_are_bounded(shape):
    assert shape.T * int(np.prod(shape.batch)) * shape.k * shape.n <= 60


@pytest.mark.parametrize("max_numbers", [12, 40])
def test_problems_are_bounded_and_can_be_solved(max_numbers):
    @given(ours.problems(max_numbers=max_numbers))
    def check(problem):
        assert problem.steps * problem.h0.size <= max_numbers
        solution = prs.solve(*problem[:4], steps=problem.steps, method="sequential")
        assert solution.h.shape == (problem.steps, *problem.h0.shape)
        assert solution.h.dtype == problem.h0.dtype

    check()


@given(ours.block_systems(max_numbers=40))
def test_block_systems_fit_and_do_not_grow(system):
    blocks, rhs = system
    assert rhs.size <= 40
    assert blocks.dtype == rhs.dtype
    assert blocks.shape[-2] * blocks.shape[-1] == rhs.shape[-1]
    assert np.abs(blocks).sum(axis=-2).max() <= 1 + 1e-6


@given(ours.smooth_steps(), st.integers(0, 99))
def test_smooth_steps_have_the_promised_slope_and_are_printed_as_they_compute(step, seed):
    rng = np.random.default_rng(seed)
    h, x, *theta = rng.uniform(-1, 1, (2 + len(step.parameters), 50))
    value = step(h, x, theta)
    names = {**dict(zip(step.parameters, theta, strict=True)), "h": h, "x": x}
    space = {name: getattr(functions, name, None) or getattr(np, name) for name in SMOOTH}
    np.testing.assert_allclose(eval(formula(step.tree), space | names), value)
    slope = step(h + 1e-30j, x, theta).imag / 1e-30
    assert np.abs(slope).max() <= 0.8 + 1e-12
    assert np.abs(value).max() <= 1


def test_formulas_have_the_parentheses_they_need():
    tree = ("subtract", "h", ("add", "x", ("multiply", ("subtract", "a", "h"), "x")))
    assert formula(tree) == "h - (x + (a - h)*x)"
    assert evaluate(tree, {"h": 1.0, "x": 2.0, "a": 3.0}) == 1 - (2 + (3 - 1) * 2)
    assert bound(tree, {"h": 1, "x": 1, "a": 1}) == (4, 2)


@given(ours.contractive_problems())
def test_contractive_problems_contract_along_their_trajectory(problem):
    h = prs.rollout(*problem[:4], steps=problem.steps)
    previous = np.concatenate([problem.h0[None], h[:-1]])
    _, blocks = problem.recurrence.linearize(previous, problem.x, problem.theta)
    assert np.abs(blocks).sum(axis=-2).max() <= problem.lipschitz * (1 + 1e-5)
    assert np.abs(h).max() <= 1


@given(ours.marginal_problems(dtypes=st.just(np.float64)))
def test_marginal_problems_keep_distances(problem):
    h0, other = problem.h0, problem.h0 + 1
    ends = [prs.rollout(*problem[:2], h, problem.theta)[-1] for h in (h0, other)]
    apart = np.linalg.norm(ends[1] - ends[0], axis=-1)
    np.testing.assert_allclose(apart, np.sqrt(h0.shape[-1]))


def test_expansive_problems_expand():
    def grows(problem):
        ends = [prs.rollout(*problem[:2], problem.h0 + e, problem.theta)[-1] for e in (0, 1e-3)]
        return problem.steps > 1 and np.max(np.abs(ends[1] - ends[0])) > 4e-3

    find(ours.expansive_problems(), grows, settings=QUICK)


def test_the_least_problem_is_small_and_readable():
    least = find(ours.contractive_problems(), lambda problem: problem.steps >= 3, settings=QUICK)
    assert least.steps == 3
    assert least.h0.shape == (1,)
    assert repr(least.recurrence.step) == "step(h, x, (a,)) = tanh(0.8*(a*h + x))"
    assert np.all(least.x == 0.5) and least.h0 == 0.5 and least.theta[0] == 0.5
    assert "tanh(0.8*(a*h + x))" in repr(least)


@pytest.mark.parametrize("kind", [ours.marginal_problems, ours.expansive_problems])
def test_other_problems_shrink_too(kind):
    least = find(kind(), lambda problem: problem.steps >= 3, settings=QUICK)
    assert least.steps == 3 and least.h0.shape == (1,)


def test_types_are_registered():
    least = find(st.from_type(Recurrence), lambda recurrence: True, settings=QUICK)
    assert isinstance(least.step, SmoothStep) and least.block_size == 1
    assert find(st.from_type(ours.Problem), lambda problem: True, settings=QUICK).steps == 1


def test_drives_and_batches_have_every_kind():
    stiff = find(
        ours.drives(4, (), 1), lambda x: 0 < abs(x[1, 0]) < abs(x[0, 0]) / 500, settings=QUICK
    )
    assert stiff[2, 0] == 500 * stiff[1, 0] * 2
    find(ours.drives(4, (), 1), lambda x: x[0, 0] != 0 and not x[1:].any(), settings=QUICK)
    found = find(ours.batches(), lambda b: b.resets.any() and 0 < b.lengths.max(), settings=QUICK)
    assert found.problem.steps == 1


def test_without_hypothesis_the_message_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import pararnn_solvers.testing.strategies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs Hypothesis" in done.stderr and "pip install 'hypothesis>=6.100'" in done.stderr
