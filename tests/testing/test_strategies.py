"""What strategies draw is what they say, small, and shrinks to something readable."""

import importlib
import pkgutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from scipy import special

import pararnn_solvers as prs
from pararnn_solvers import Recurrence, cells
from pararnn_solvers.autodiff import pushforward
from pararnn_solvers.autodiff.rules import RULES
from pararnn_solvers.testing import strategies as ours
from pararnn_solvers.testing.draws import trees
from pararnn_solvers.testing.expressions import (
    SMOOTH,
    SmoothStep,
    bound,
    evaluate,
    extremes,
    fitted,
    formula,
    function,
)

SPACE = {name: function(name) for name in SMOOTH}
QUICK = settings(max_examples=2000, database=None, derandomize=True)


# Jumps, kinks, steps, and what leaves float32.
NOT_SMOOTH = (
    "remainder fmod absolute fabs copysign maximum minimum fmax fmin clip heaviside float_power"
)


def test_every_smooth_rule_is_used():
    constant = {name for name, rule in RULES.items() if not any(rule)}
    arithmetic = {"add", "subtract", "multiply"}
    assert set(SMOOTH) == set(RULES) - constant - arithmetic - set(NOT_SMOOTH.split())


@pytest.mark.parametrize("name", SMOOTH)
def test_bounds_of_smooth_functions_hold_and_are_met(name):
    value = function(name)
    domains = SMOOTH[name]
    for part in (domains, tuple((0.7 * low + 0.3 * high, high) for low, high in domains)):
        axes = [np.linspace(*interval, 1001 if len(part) == 2 else 400_001) for interval in part]
        grid = np.meshgrid(*axes, indexing="ij")
        found = value(*grid)
        assert np.all(np.isfinite(found))
        low, high, *slopes = extremes(name, part)
        np.testing.assert_allclose([found.min(), found.max()], [low, high], rtol=1e-5, atol=1e-6)
        assert low <= found.min() + 1e-7 and found.max() - 1e-7 <= high
        for axis, slope in enumerate(slopes):
            steepest = np.abs(np.gradient(found, axes[axis], axis=axis)).max()
            assert 0.97 * slope - 1e-9 <= steepest <= slope * (1 + 1e-6) + 1e-9


def test_arguments_are_fitted_into_domains():
    variables = {"h": (-1.0, 1.0), "x": (-1.0, 1.0)}
    assert formula(fitted(("log", "h"), variables)) == "log(h + 2.0)"
    assert formula(fitted(("arcsin", ("add", "h", "x")), variables)) == "arcsin(0.45*(h + x))"
    assert formula(fitted(("logit", "h"), variables)) == "logit(0.2*h + 0.5)"
    assert fitted(("tanh", "h"), variables) == ("tanh", "h")
    with pytest.raises(ValueError, match="an argument of log is in .* fit the tree first"):
        bound(("log", "h"), variables)


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
    np.testing.assert_array_equal(eval(formula(step.tree), SPACE | names), value)
    _, slope = pushforward(lambda h: step(h, x, theta), h, np.ones((1, 50)))
    assert np.abs(slope).max() <= 0.8 * (1 + 1e-6)
    assert np.abs(value).max() <= 1


def drawn(strategy, examples):
    """Return so many examples."""
    found = []

    @settings(max_examples=examples, database=None, derandomize=True, phases=[Phase.generate])
    @given(strategy)
    def collect(example):
        found.append(example)

    collect()
    return found


def test_every_function_is_drawn():
    text = " ".join(map(str, drawn(trees(("h", "x")).map(formula), 1000)))
    assert not [name for name in SMOOTH if f"{name}(" not in text]


@pytest.mark.parametrize("name", SMOOTH)
def test_steps_of_every_function_keep_float32(name):
    variables = {"h": (-1.0, 1.0), "x": (-1.0, 1.0)}
    step = SmoothStep(fitted((name, "h", "x")[: 1 + len(SMOOTH[name])], variables))
    h, x = np.full((2, 3), 0.25, np.float32)
    assert step(h, x, ()).dtype == np.float32


def test_formulas_have_the_parentheses_they_need():
    tree = ("subtract", "h", ("add", "x", ("multiply", ("subtract", "a", "h"), "x")))
    assert formula(tree) == "h - (x + (a - h)*x)"
    assert evaluate(tree, {"h": 1.0, "x": 2.0, "a": 3.0}) == 1 - (2 + (3 - 1) * 2)
    assert bound(tree, dict.fromkeys("hxa", (-1, 1))) == (-4, 4, 2)
    assert formula(("multiply", 0.35, ("multiply", 0.75, "h"))) == "0.35*(0.75*h)"
    assert formula(("add", "x", ("add", "h", "h"))) == "x + (h + h)"
    assert formula(("add", ("add", "h", "h"), ("multiply", "a", "h"))) == "h + h + a*h"


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
    ends = [
        prs.rollout(*problem[:2], h, problem.theta, steps=problem.steps)[-1] for h in (h0, other)
    ]
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


KINDS = {
    "dense, nothing declared": lambda p: p.recurrence.block_size is None,
    "no x": lambda p: p.x is None,
    "blocks of 3": lambda p: p.recurrence.block_size == 3,
    "a stiff drive": lambda p: p.steps > 2 and is_stiff(p.x),
    "a drive that ends": lambda p: p.steps > 2 and p.x is not None and not p.x[1:].any(),
    "float32": lambda p: p.h0.dtype == np.float32,
    "two batch axes": lambda p: p.h0.ndim == 3,
}


def is_stiff(x):
    return x is not None and 0 < np.abs(x[1::2]).max() < np.abs(x[::2]).min() / 100


def test_contractive_problems_have_every_kind():
    problems = drawn(ours.contractive_problems(), 300)
    assert {kind for kind in KINDS if any(map(KINDS[kind], problems))} == set(KINDS)


def mixes_sequences(recurrence, x, h0, theta, steps):
    """A solver with a planted bug: from the third step on, sequences see their neighbour."""
    h = prs.rollout(recurrence, x, h0, theta, steps=steps)
    if h.ndim > 2:
        h[2:] = np.roll(h[2:], 1, axis=1)
    return h


def test_a_planted_bug_shrinks_to_a_small_readable_example():
    def shows(problem):
        return not np.array_equal(
            mixes_sequences(*problem[:5]), prs.rollout(*problem[:4], steps=problem.steps)
        )

    least = find(ours.contractive_problems(), shows, settings=QUICK)
    assert least.steps == 3
    assert least.h0.shape == (3, 1)
    assert "tanh(0.8*(a*h + x))" in repr(least)
    assert len(repr(least)) < 600


def test_a_wrong_derivative_shrinks_to_the_function_alone():
    """Planted: the derivative of log2 without its factor."""

    def shows(step):
        h, x, *theta = np.full((2 + len(step.parameters), 1), 0.25)
        rules = RULES | {"log2": (lambda v, a: 1 / a,)}
        with mock.patch.dict(RULES, rules):
            wrong = pushforward(lambda h: step(h, x, theta), h, np.ones((1, 1)))[1]
        return not np.allclose(wrong, pushforward(lambda h: step(h, x, theta), h, [[1.0]])[1])

    least = find(ours.smooth_steps(), shows, settings=QUICK)
    assert "log2(h + 2.0)" in str(least)
    assert len(str(least)) < 70


def test_types_are_registered():
    least = find(st.from_type(Recurrence), lambda recurrence: True, settings=QUICK)
    assert isinstance(least.step, SmoothStep) and least.block_size == 1
    found = find(st.from_type(ours.Problem), lambda problem: problem.steps > 2, settings=QUICK)
    assert found.steps == 3 and found.h0.shape == (1,)


def test_drives_and_batches_have_every_kind():
    stiff = find(
        ours.drives(4, (), 1), lambda x: 0 < abs(x[1, 0]) < abs(x[0, 0]) / 500, settings=QUICK
    )
    assert stiff[2, 0] == 500 * stiff[1, 0] * 2
    find(ours.drives(4, (), 1), lambda x: x[0, 0] != 0 and not x[1:].any(), settings=QUICK)
    batches = drawn(ours.batches(), 100)
    assert any(batch.resets.any() and batch.lengths.max() > 1 for batch in batches)
    assert any(batch.lengths.min() == 0 < batch.lengths.max() for batch in batches)
    assert any(batch.problem.x is None for batch in batches)


def test_without_hypothesis_the_message_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import pararnn_solvers.testing.strategies"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs Hypothesis" in done.stderr and "pip install 'hypothesis>=6.100'" in done.stderr


MODULES = {
    module.name: importlib.import_module(f"pararnn_solvers.cells.{module.name}")
    for module in pkgutil.iter_modules(cells.__path__)
}
NAMES = {
    "np": np, "prs": prs, "special": special, "Recurrence": Recurrence, "strategies": ours,
    **MODULES,
}  # fmt: skip


@settings(max_examples=40)
@given(ours.problems())
def test_what_is_printed_makes_the_problem_again(problem):
    again = eval(repr(problem), NAMES)
    expected, got = (
        prs.rollout(*case[:4], steps=case.steps, compiled=False) for case in (problem, again)
    )
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)
    assert again.recurrence.block_size == problem.recurrence.block_size
    assert again[4:] == problem[4:]
