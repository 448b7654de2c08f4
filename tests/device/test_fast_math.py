"""``Recurrence(fast_math=True)``: the hardware's approximations, on a device in float32."""

from dataclasses import replace

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import tree
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm, lstm
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.sensitivities.adjoint import kernels_agree
from tests.device.cases import on_device, to_host

CELLS = {"diagonal gru": (diagonal_gru, 1), "diagonal lstm": (diagonal_lstm, 2), "lstm": (lstm, 2)}
METHODS = ["newton", "sequential", prs.newton(chunk=30)]
ERROR = 1e-2  # of states, from errors of 5e-4 in each step of a recurrence that forgets


def problem(name, T=90, B=2, n=4, dtype=np.float32):
    cell, k = CELLS[name]
    rng = np.random.default_rng(0)
    theta = cell.init(rng, n, n, dtype=dtype)
    x = cell.project(rng.standard_normal((T, B, n)).astype(dtype), theta)
    return cell.recurrence, x, np.zeros((B, k * n), dtype), theta


def solve(cupy, name, fast_math, **options):
    recurrence, *arrays = problem(name)
    recurrence = replace(recurrence, fast_math=fast_math)
    return prs.solve(recurrence, *on_device(cupy, arrays), compiled=True, **options)


def text(solution):
    return (solution.system.program or solution.system.dense).code


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, m) for name in CELLS for m in METHODS if (name, m) != ("lstm", "newton")],
    ids=str,
)
def test_states_are_a_little_off(device, name, method):
    exact, fast = (solve(device, name, flag, method=method) for flag in (False, True))
    assert fast.success and fast.compiled
    assert "FAST_MATH 1" in text(fast) and "FAST_MATH 0" in text(exact)
    difference = np.abs(fast.h.get() - exact.h.get()).max()
    assert 1e-6 < difference < ERROR


def test_all_methods_solve_the_same_equations(device):
    """Approximations are deterministic: states agree as those of accurate kernels do."""
    h, *others = (solve(device, "diagonal gru", True, method=m).h.get() for m in METHODS)
    for other in others:
        np.testing.assert_allclose(other, h, atol=100 * np.finfo(np.float32).eps ** 0.75)


@pytest.mark.parametrize("name", ["diagonal gru", "diagonal lstm"])
def test_gradients_are_those_of_the_approximations(device, name):
    """The same kernels, whose derivatives use what they computed; so a little off, too."""
    found = []
    for flag in (False, True):
        solution = solve(device, name, flag)
        assert kernels_agree(solution)  # with the cell's own vjp: or that would be called
        found.append(to_host(prs.gradients(solution, device.asarray(solution.h.get()))))
    for exact, fast in zip(*(tree.flatten(g)[0] for g in found), strict=True):
        largest = np.abs(exact).max()
        if largest > 0:  # weights of a projection have no part in a step
            assert 1e-7 < np.abs(exact - fast).max() / largest < ERROR


def test_rollouts_and_padded_sequences_too(device):
    recurrence, *arrays = problem("diagonal gru")
    recurrence, moved = replace(recurrence, fast_math=True), on_device(device, arrays)
    h = prs.rollout(recurrence, *moved, compiled=True).get()
    assert np.abs(h - prs.rollout(recurrence, *moved, compiled=False).get()).max() > 1e-6
    solution = prs.solve(recurrence, *moved, lengths=device.asarray([90, 40]), compiled=True)
    assert "FAST_MATH 1" in text(solution)
    np.testing.assert_allclose(solution.h.get()[:40], h[:40], atol=1e-3)


def test_programs_are_not_mistaken_for_one_another(device):
    texts = [text(solve(device, "diagonal gru", flag)) for flag in (True, False, True, False)]
    assert texts[0] == texts[2] != texts[1] == texts[3]


def test_nothing_changes_where_the_step_itself_runs(device):
    recurrence, *arrays = problem("diagonal gru")
    moved = on_device(device, arrays)
    exact, fast = (
        prs.solve(replace(recurrence, fast_math=flag), *moved, compiled=False)
        for flag in (False, True)
    )
    np.testing.assert_array_equal(fast.h.get(), exact.h.get())


@pytest.mark.parametrize("call", [prs.solve, prs.rollout])
def test_the_host_has_none(call):
    recurrence, *arrays = problem("diagonal gru")
    with pytest.raises(InvalidInput, match=r"fast_math=True is for arrays on a CUDA device.*host"):
        call(replace(recurrence, fast_math=True), *arrays)


def test_steppers_on_the_host_have_none():
    recurrence, _, h0, theta = problem("diagonal gru")
    with pytest.raises(InvalidInput, match="fast_math=True is for arrays on a CUDA device"):
        prs.stepper(replace(recurrence, fast_math=True), theta, h0)


def test_float64_has_none(device):
    recurrence, *arrays = problem("diagonal gru", dtype=np.float64)
    with pytest.raises(InvalidInput, match="fast_math=True is for float32, and h0 is float64"):
        prs.solve(replace(recurrence, fast_math=True), *on_device(device, arrays))


def test_it_is_true_or_false():
    with pytest.raises(InvalidInput, match="fast_math is 'yes'; expected True or False"):
        prs.Recurrence(np.add, fast_math="yes")


@pytest.mark.parametrize(("fast_math", "off"), [(False, 2e-3), (True, 0.05)])
def test_a_step_that_deceives_the_tracer_is_found(device, fast_math, off):
    """Of float32, from 3e-4 on; with approximations from 8e-3 on."""

    def step(h, x, _):
        traced = not hasattr(h, "__cuda_array_interface__")
        return np.tanh(h + x) * np.float32(1 + off * traced)

    arrays = device.ones((4, 1, 2), np.float32), device.zeros((1, 2), np.float32)
    with pytest.raises(InvalidInput, match="step computes something else"):
        prs.solve(prs.Recurrence(step, 1, fast_math=fast_math), *arrays, compiled=True)
