"""Rounds of slabs, what `auto` chooses, statuses over ranks: with threads as ranks."""

import warnings

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.solvers.slabs import Slabs
from tests.mpi import double

COMM = double.COMM_WORLD


def add(h, x, _):
    return h + x


def scale(h, x, a):
    return a * h + x


def over_ranks(step, x, h0, theta=None, *, cut, **options):
    """Return the solution of each rank's slab of `x`, and the states of all."""

    def program():
        mine = x[cut[COMM.rank] : cut[COMM.rank + 1]]
        return prs.solve(step, mine, h0, theta, comm=COMM, on_failure="warn", **options)

    options = {"backend": "sequential", "compiled": False, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", prs.ConvergenceWarning)
        solutions = double.run(len(cut) - 1, program)
    assert len({str(solution.status) for solution in solutions}) == 1
    assert len({solution.residual_norms.tobytes() for solution in solutions}) == 1
    return solutions, np.concatenate([solution.h for solution in solutions])


def residual(step, x, h0, h, theta=None):
    before = np.concatenate([h0[None], h[:-1]])
    return np.abs(h - step(before, x, theta)).max(initial=0)


SUMS = np.round(100 * np.random.default_rng(0).normal(size=(30, 1)))
EVEN = [0, 10, 20, 30]
STEPPING = Slabs(prs.sequential())


def test_slabs_are_values():
    assert hash(STEPPING) == hash(Slabs(prs.sequential()))
    assert str(STEPPING) == "slabs(sequential())"


def test_slabs_that_forget_are_run_again_once():
    x, h0 = np.random.default_rng(1).normal(size=(900, 1)), np.ones(1)
    solutions, h = over_ranks(scale, x, h0, 0.9, cut=[0, 300, 600, 900], method=STEPPING)
    assert solutions[0].status is prs.Status.CONVERGED
    assert solutions[0].n_iter == 1
    assert solutions[0].residual_norms[-1] == residual(scale, x, h0, h, 0.9) > 0


@pytest.mark.parametrize(("forgotten_in", "again"), [(200, (256,)), (300, (256, 512))])
def test_slabs_are_run_again_by_pieces_that_double(forgotten_in, again):
    a = np.exp(np.log(1e-10) / forgotten_in)
    x = np.zeros((4000, 1))
    solutions, _ = over_ranks(
        scale, x, np.ones(1), a, cut=[0, 2000, 4000], method=STEPPING, atol=1e-10
    )
    looks = 2  # at the first step of a slab: one in each round
    expected = [2000 + looks, 2000 + looks + sum(again) + len(again)]
    assert [solution.n_step_evaluations for solution in solutions] == expected


def test_slabs_that_never_forget_take_a_round_each():
    """Sums of whole numbers are exact: they meet a tolerance of 0."""
    solutions, h = over_ranks(add, SUMS, np.ones(1), cut=EVEN, method=STEPPING, atol=0.0, rtol=0.0)
    assert solutions[0].status is prs.Status.CONVERGED
    assert np.array_equal(h, 1 + np.cumsum(SUMS, axis=0))
    assert solutions[0].n_iter == 2
    assert solutions[0].residual_norms[-1] == 0


def test_a_first_slab_that_is_not_solved_takes_one_more():
    """Half a step leaves its first state wrong, too, so that it is run again itself."""
    method = Slabs(prs.relaxation(0.5))
    solutions, h = over_ranks(add, SUMS, np.ones(1), cut=EVEN, method=method, max_iter=1)
    assert solutions[0].status is prs.Status.CONVERGED
    np.testing.assert_allclose(h, 1 + np.cumsum(SUMS, axis=0), rtol=1e-14)
    assert solutions[0].n_iter == 3


def test_slabs_that_their_method_does_not_solve_are_stalled():
    """The first state is right after one sweep, and no other."""
    x = np.random.default_rng(1).normal(size=(900, 1))
    solutions, h = over_ranks(
        scale, x, np.ones(1), 0.5, cut=[0, 300, 600, 900], method=Slabs(prs.jacobi()), max_iter=1
    )
    assert solutions[0].status is prs.Status.STALLED
    norms = solutions[0].residual_norms
    assert norms[-1] == residual(scale, x, np.ones(1), h, 0.5) > 0.1


def test_slabs_that_overflow_are_tried_as_often_as_there_are_ranks():
    """And once more: none of them meets what is stored."""
    solutions, h = over_ranks(
        lambda h, x, _: h * h + x, np.full((60, 1), 2.0), np.zeros(1), cut=[0, 20, 40, 60],
        method=STEPPING,
    )  # fmt: skip
    assert solutions[0].status is prs.Status.DIVERGED
    assert solutions[0].n_iter == 3
    assert not np.isfinite(solutions[0].residual_norms[-1])


def test_an_overflow_from_a_wrong_state_is_forgotten():
    """Alone, the second slab squares its h0; what arrives is 0."""
    x = np.repeat([[0.0], [1.0]], 20, axis=0)
    solutions, h = over_ranks(
        lambda h, x, _: x * h * h, x, np.full(1, 3.0), cut=[0, 20, 40], method=STEPPING
    )
    assert solutions[0].status is prs.Status.CONVERGED
    assert np.array_equal(h, np.zeros((40, 1)))


@pytest.mark.parametrize("cut", [[0, 20, 40], [0, 13, 40], [0, 0, 40], [0, 40, 40]])
@pytest.mark.parametrize(
    ("growth", "method"), [(19, "sequential()"), (16.8, "newton()"), (-30, "newton()")]
)
def test_auto_chooses_by_growth_over_the_steps_of_all_ranks(growth, method, cut):
    """``1 / sqrt(eps)`` is ``exp(18.02)``."""
    rate, x = growth / 40, np.zeros((40, 1))
    solutions, _ = over_ranks(scale, x, np.ones(1), np.exp(rate), cut=cut, method="auto")
    for solution in solutions:
        assert solution.method == method
        assert solution.note == (
            f"auto: perturbations change by exp({rate:+.2g}) a step, over 40 steps on all ranks"
        )


@pytest.mark.parametrize(
    ("rates", "method"), [((0.6, -0.6), "sequential()"), ((-0.6, 0.6), "newton()")]
)
def test_auto_looks_at_the_first_steps_of_all(rates, method):
    """Of the first slab, whatever the others are."""
    x = np.exp(np.repeat([[rates[0]], [rates[1]]], 40, axis=0))
    solutions, _ = over_ranks(lambda h, x, _: x * h, x, np.ones(1), cut=[0, 40, 80], method="auto")
    assert {solution.method for solution in solutions} == {method}


def test_a_solve_stalls_where_no_rank_can_go_on():
    """Newton's method is there but for rounding, which does not meet a tolerance of 0."""
    x, h0 = np.random.default_rng(0).normal(size=(30, 4)), np.ones(4)
    options = {"method": "newton", "atol": 0.0, "rtol": 0.0}
    solutions, h = over_ranks(scale, x, h0, 0.7, cut=EVEN, **options)
    assert solutions[0].status is prs.Status.STALLED
    assert solutions[0].n_iter < 30
    assert 0 < solutions[0].residual_norms[-1] == residual(scale, x, h0, h, 0.7) < 1e-14
