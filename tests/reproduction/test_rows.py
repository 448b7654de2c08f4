"""What each anchor takes for agreement, from counts given to it instead of computed ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from pararnn_solvers.errors import ConvergenceWarning
from pararnn_solvers.problems import FLOWS
from pararnn_solvers.reproduction import flows, networks, rounding
from pararnn_solvers.reproduction.anchor import iterations_to_merit
from pararnn_solvers.solvers.stopping import Status


def by_case(rows):
    return {row.case: row for row in rows}


@pytest.fixture
def short(monkeypatch):
    """Chaotic flows of few steps, which cost nothing."""
    flow = flows.flow
    monkeypatch.setattr(flows, "flow", lambda name: flow(name, length=40))


def test_cells_agree_with_three_or_four_iterations_in_both_precisions(monkeypatch):
    def solved(name, T, dtype):
        slow = name == "ParaLSTM" and T == 512 and dtype is np.float64
        return SimpleNamespace(n_iter=5 if slow else 4)

    monkeypatch.setattr(networks, "solve_cell", solved)
    rows = list(networks.cells_of_language_models())
    assert len(rows) == len(networks.CELLS) * len(networks.LENGTHS)
    assert [row for row in rows if not row.agrees] == [
        ("ParaLSTM, T = 512", "3 to 4", "4 in float32, 5 in float64", False)
    ]


@pytest.mark.parametrize(
    "counts, agrees", [((5, 7), True), ((7, 5), True), ((8, 9), False), ((3, 4), False)]
)
def test_two_draws_of_a_tanh_network_enclose_the_published_count(monkeypatch, counts, agrees):
    found = dict(zip(networks.DRAWS, counts, strict=True))
    monkeypatch.setattr(
        networks, "solve_tanh_network", lambda gain, method: SimpleNamespace(n_iter=found[gain])
    )
    row = by_case(networks.tanh_network())["newton"]
    assert row[1:] == ("6", f"{counts[0]} (gain 0.58), {counts[1]} (gain 1)", agrees)


def test_a_mean_field_network_that_is_not_solved_agrees_beyond_the_edge_only(monkeypatch):
    exponents = iter((-0.5, -0.5, 0.0, 0.0, 0.5, 0.5))
    counts = iter((4, None, 20, 3, None, 9))
    monkeypatch.setattr(networks, "GAINS", (0.5, 1.0, 1.6))
    monkeypatch.setattr(networks, "lyapunov_exponent", lambda *a, **k: next(exponents))
    monkeypatch.setattr(networks, "iterations_to_merit", lambda *a, **k: next(counts))
    rows = list(networks.mean_field())
    assert [row.agrees for row in rows] == [True, False, True, False, True, False]
    assert rows[1].ours == "more than 150 (exponent -0.500)"


def test_observers_need_the_same_count_and_at_most_theirs_of_thomas_flow(monkeypatch):
    published = {name: chosen.observer_iterations for name, chosen in FLOWS.items()}
    fewer = iter(count - 2 for count in published.values() for _ in range(2))
    monkeypatch.setattr(flows, "observer", lambda name, seed: name)
    monkeypatch.setattr(flows, "iterations_to_merit", lambda name: next(fewer))
    assert {name for name, row in by_case(flows.observers()).items() if row.agrees} == {"thomas"}
    monkeypatch.setattr(flows, "iterations_to_merit", lambda name: published[name] - 1)
    assert all(row.agrees for row in flows.observers())
    monkeypatch.setattr(flows, "iterations_to_merit", lambda name: None)
    assert [(row.ours, row.agrees) for row in flows.observers()] == [("inf, inf", False)] * 5


def test_newton_that_pays_on_a_flow_does_not_agree(short, monkeypatch):
    outcomes = {
        "converged soon": (Status.CONVERGED, 9, False),
        "converged late": (Status.CONVERGED, 101, True),
        "overflowed": (Status.DIVERGED, 3, True),
    }
    for status, n_iter, agrees in outcomes.values():
        monkeypatch.setattr(flows, "solve", lambda *a, s=status, n=n_iter, **k: solution(a, s, n))
        rows = list(flows.flows())
        assert [row.agrees for row in rows] == [agrees] * len(FLOWS)
        said = f"{status.name} after {n_iter}"
        off = ", 1e-6 off at step 31" if status is Status.CONVERGED else ""
        assert {row.ours for row in rows} == {said + off}


def solution(arguments, status, n_iter):
    """A solution that leaves the rollout at step 31."""
    h = flows.rollout(*arguments[:4], steps=40)
    h[30:] += 1e-5
    return SimpleNamespace(h=h, status=status, success=status is Status.CONVERGED, n_iter=n_iter)


@pytest.mark.parametrize("off, agrees", [(0.0, True), (0.2, False)])
def test_exponents_agree_within_a_twentieth_and_a_tenth(short, monkeypatch, off, agrees):
    published = iter([chosen.exponent for chosen in FLOWS.values()])
    monkeypatch.setattr(
        flows, "lyapunov_exponent", lambda *a, **k: (1.1 * next(published) + off) * flows.EULER_DT
    )
    assert [row.agrees for row in flows.exponents()] == [agrees] * len(FLOWS)


@pytest.mark.parametrize("count, agrees", [(35, True), (36, False), (None, False)])
def test_langevin_takes_at_most_thirty_five_iterations(monkeypatch, count, agrees):
    problem = flows.two_well_langevin(length=30)
    monkeypatch.setattr(flows, "two_well_langevin", lambda seed: problem)
    monkeypatch.setattr(flows, "iterations_to_merit", lambda problem: count)
    monkeypatch.setattr(flows, "lyapunov_exponent", lambda *a, **k: -0.0145 * 1.3)
    iterations, exponent = flows.langevin()
    assert iterations.agrees is agrees
    assert (exponent.ours, exponent.agrees) == ("-0.0189", False)


def test_the_abc_flow_agrees_by_pairs_of_states_and_is_quicker_elsewhere(monkeypatch):
    theirs = FLOWS["abc"].system_iterations
    monkeypatch.setattr(rounding, "flow", lambda name: None)
    monkeypatch.setattr(rounding, "iterations", lambda problem, unknowns, order: theirs)
    rows = list(rounding.abc())
    assert [row.agrees for row in rows] == [True, False, False, False]
    assert [row.theirs for row in rows] == [str(theirs), "-", "-", "-"]


def test_a_merit_that_is_not_reached_is_none():
    problem = flows.two_well_langevin(length=200)
    with pytest.warns(ConvergenceWarning):
        assert iterations_to_merit(problem, max_iter=1) is None
    assert iterations_to_merit(problem) > 1
