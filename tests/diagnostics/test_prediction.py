"""Forecasts: what they say of problems of known character, and what the page says of them."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import problems
from pararnn_solvers.diagnostics import METHODS, predict
from pararnn_solvers.diagnostics.prediction import extrapolate, speedup
from tests.diagnostics import confusion

PAGE = Path(__file__).parents[2] / "docs" / "diagnostics.md"


def of(problem, **options):
    return predict(*problem[:4], steps=problem.steps, **options)


def test_chaos_is_not_to_be_parallelized():
    found = of(problems.load("logistic_chaotic", length=3000))
    assert found.exponent == pytest.approx(np.log(2), abs=0.01)
    assert found.method == "sequential"
    assert found.advice == (
        "largest Lyapunov exponent +0.69 per step: do not parallelize this; sequential is exact "
        "and faster"
    )
    assert not found.forecasts["newton"].status.success
    assert found.forecasts["newton"].iterations == np.inf
    assert found.forecasts["auto"].status is prs.Status.SEQUENTIAL


def test_what_forgets_is():
    found = of(problems.load("diagonal_gru", length=3000))
    assert found.method == "newton"
    assert found.forecasts["newton"].iterations == 4
    assert "perturbations are forgotten within about 1" in found.advice
    assert "is expected to take 4 iteration(s)" in found.advice
    text = str(found)
    assert "from the first 128" in text
    for name in (*METHODS, "sequential", "auto"):
        assert f"  {name}" in text


def test_growth_of_a_linear_recurrence_is_harmless():
    found = of(problems.load("linear_expansive", length=3000))
    assert found.exponent > 0
    assert found.forecasts["newton"].iterations == 1
    assert "perturbations change by exp(+" in found.advice


def test_why_not_is_said():
    found = of(problems.load("logistic_periodic", length=3000))
    assert found.method == "sequential"
    assert "plain Newton's method is not expected to converge" in found.advice


def test_batches_and_short_trajectories_are_predicted():
    step = lambda h, x, a: np.tanh(a * h + x)  # noqa: E731
    x = np.random.default_rng(0).standard_normal((20, 3, 2))
    found = predict(step, x, np.zeros((3, 2)), 0.5)
    assert (found.steps, found.probed) == (20, 20)
    made = prs.solve(step, x, np.zeros((3, 2)), 0.5, method="newton").n_iter
    assert found.forecasts["newton"].iterations == made
    with pytest.raises(prs.InvalidInput, match="probe is 4; expected a whole number >= 16"):
        predict(step, x, np.zeros((3, 2)), 0.5, probe=4)


def test_the_limit_is_that_of_the_solve():
    problem = problems.load("tanh_network_0.9", length=1000)
    few, many = (of(problem, max_iter=n).forecasts["quasi_newton"] for n in (20, 100))
    assert few.status is prs.Status.MAX_ITER
    assert 40 < many.iterations < 70


def test_counts_are_continued():
    assert extrapolate([5, 5, 5], 20) == 5
    assert extrapolate([16, 32, 64], 32) == 64 * 32
    assert extrapolate([5, 6, 7], 32) == 12
    assert extrapolate([8, 12, 14], 2**30) == pytest.approx(16)
    assert extrapolate([1, 1, 1], 1) == 1


def test_speedups_count_steps_one_after_another():
    assert speedup(METHODS["newton"], 4, 1024) == 1024 / (4 * 11)
    assert speedup(METHODS["windowed"], 128, 1024) == 1024 / (128 * 6)
    assert speedup(METHODS["shooting"], 2, 1024) == 1024 / (2 * (16 + 6) + 16)
    assert speedup(METHODS["newton"], np.inf, 1024) == 0


def rows_of_the_page():
    table = PAGE.read_text(encoding="utf-8").split("<!-- table -->")[1].split("<!-- end -->")[0]
    tables = [block.splitlines() for block in table.strip().split("\n\n") if block[0] == "|"]
    return [[[c.strip() for c in line.split("|")[1:-1]] for line in t[2:]] for t in tables]


def test_the_page_has_all_problems_and_counts_them_right():
    rows, methods, advice = rows_of_the_page()
    assert [row[0] for row in rows] == list(problems.PROBLEMS)
    for i, label in enumerate(confusion.NAMES):
        pairs = [row[2 + i].split(" / ") for row in rows]
        kinds = Counter(tuple(cell[0].isdigit() for cell in pair) for pair in pairs)
        order = [(True, True), (False, False), (True, False), (False, True)]
        assert methods[i][:5] == [label, *(str(kinds[kind]) for kind in order)]
    pays = Counter((row[-2] != "sequential", row[-1] != "sequential") for row in rows)
    assert [line[1:] for line in advice] == [
        [str(pays[said, True]), str(pays[said, False])] for said in (True, False)
    ]


@pytest.mark.parametrize(
    "name", ["linear_rotation", "diagonal_gru", "observer_lorenz", "flow_sprott_b", "van_der_pol"]
)
def test_the_page_is_not_stale(name):
    """Statuses and advice as printed, counts within a tenth."""
    printed = next(row for row in rows_of_the_page()[0] if row[0] == name)
    fresh = confusion.row(name).cells()
    assert fresh[-2:] == printed[-2:]
    for new, old in zip(fresh[2:-2], printed[2:-2], strict=True):
        words = [re.sub(r"\d+", "n", cell) for cell in (new, old)]
        assert words[0] == words[1], (new, old)
        counts = [np.array(re.findall(r"\d+", cell), float) for cell in (new, old)]
        assert (np.abs(counts[0] - counts[1]) <= 1 + 0.1 * counts[1]).all(), (new, old)
