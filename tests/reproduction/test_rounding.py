"""Orders of a linear recurrence agree where nothing grows, and part where perturbations do."""

import numpy as np
import pytest

from pararnn_solvers import problems
from pararnn_solvers.problems import flows
from pararnn_solvers.reproduction import rounding
from pararnn_solvers.system import System


@pytest.mark.parametrize("T", [1, 2, 3, 4, 7, 8, 50])
def test_both_orders_solve_the_linear_recurrence(T):
    rng = np.random.default_rng(T)
    blocks, rhs = rng.normal(size=(T, 2, 2, 3)), rng.normal(size=(T, 6))
    h = np.zeros(6)
    for t in range(T):
        h = np.einsum("ijn,jn->in", blocks[t], h.reshape(2, 3)).ravel() * (t > 0) + rhs[t]
    for solve in rounding.ORDERS.values():
        np.testing.assert_allclose(solve(blocks, rhs)[-1], h, rtol=1e-9)


def test_both_unknowns_are_the_same_iterate():
    problem = problems.flow("abc", length=40)
    system = System(*problem[:4], problem.steps)
    f = system.evaluate(system.previous(problem.guess))
    ways = [
        way(system, problem.guess, f, order)
        for way in rounding.UNKNOWNS.values()
        for order in rounding.ORDERS.values()
    ]
    for way in ways[1:]:
        np.testing.assert_allclose(way, ways[0], rtol=1e-10, atol=1e-10)


def test_where_little_grows_all_ways_take_as_many_iterations():
    problem = problems.flow("abc", length=1000)
    counts = {
        rounding.iterations(problem, unknowns, order)
        for unknowns in rounding.UNKNOWNS
        for order in rounding.ORDERS
    }
    assert len(counts) == 1
    assert counts.pop() < 100


EXTENDED = np.finfo(np.longdouble).eps < np.finfo(np.float64).eps / 1000


@pytest.mark.skipif(not EXTENDED, reason="long double is no longer than float64 here")
def test_it_is_rounding_that_takes_states_by_pairs_twice_the_iterations(monkeypatch):
    """A fifth of the published steps, each five times as long: perturbations grow as much."""
    monkeypatch.setattr(flows, "EULER_DT", 0.05)
    problem = problems.flow("abc", length=6000)
    exact = problem._replace(
        h0=problem.h0.astype(np.longdouble), guess=problem.guess.astype(np.longdouble)
    )
    rounded, extended = (rounding.iterations(one, "states", "by pairs") for one in (problem, exact))
    print(f"states by pairs, T = 6000: {rounded} in float64, {extended} in extended precision")
    assert rounded > 1.8 * extended
