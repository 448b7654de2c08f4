"""Every method finds on a device what it finds on the host, and moves no trajectory there or back.

The device is the double of CuPy in `tests/cuda_on_cpu`; it counts copies.
"""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import solvers
from pararnn_solvers.solvers import step_length
from pararnn_solvers.solvers.linearization import (
    block_diagonal,
    clipped,
    diagonal,
    exact,
    frozen,
    hutchinson,
    identity,
    scaled,
    secant,
    zero,
)
from pararnn_solvers.solvers.methods import anderson, newton, windowed
from pararnn_solvers.solvers.newton import Newton
from tests.cuda_on_cpu.fake_array import copies
from tests.device.cases import (
    LARGEST,
    B,
    D,
    M,
    T,
    assert_only_small_copies,
    assert_same,
    inputs,
    on_device,
    scan,
    solve_both,
    step,
)

METHODS = {
    **{name: name for name in solvers.METHODS if name not in ("anderson", "levenberg_marquardt")},
    "anderson": anderson(2, newton(linearization=diagonal)),
    "windowed": windowed(newton(), 16),
    "windowed shooting": newton(chunk=4, window=16),
    "shooting": newton(chunk=7),
    "relaxation": Newton(step_length=step_length.relaxed(0.9)),
}
LINEARIZATIONS = {
    "exact": exact,
    "diagonal": diagonal,
    "block_diagonal": block_diagonal(2),
    "own diagonal": block_diagonal(1, lambda h, x, theta: 0 * h + 0.1),
    "hutchinson": hutchinson(2),
    "scaled": scaled(0.2),
    "clipped": clipped(0.3),
    "frozen": frozen(),
    "secant": secant(),
    "identity": identity,
    "zero": zero,
}


def assert_agree(device, host):
    assert device.status is host.status
    assert device.n_iter == host.n_iter
    assert device.sequence_status.tolist() == host.sequence_status.tolist()
    assert type(device.residual_norms) is np.ndarray
    assert device.residual_norms.dtype == host.residual_norms.dtype


@pytest.mark.parametrize("name", METHODS)
def test_a_method_finds_the_same_on_a_device(device, name):
    host, found = solve_both(device, *inputs(), method=METHODS[name])
    assert_agree(found, host)
    assert host.success
    assert_only_small_copies(40 + 20 * found.n_iter)
    assert_same(found.h, host.h)


@pytest.mark.parametrize("name", LINEARIZATIONS)
def test_a_linearization_gives_the_same_on_a_device(device, name):
    method = Newton(linearization=LINEARIZATIONS[name])
    host, found = solve_both(device, *inputs(), method=method)
    assert_agree(found, host)
    assert_only_small_copies(40 + 20 * found.n_iter)
    assert_same(found.h, host.h)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [(), (1,), (2, 2)])
def test_batches_and_dtypes(device, dtype, batch):
    host, found = solve_both(device, *inputs(dtype, batch))
    assert_agree(found, host)
    assert_same(found.h, host.h, rtol=1e-5 if dtype is np.float32 else 1e-12)


def test_backtracking_that_takes_sequences_at_different_lengths(device):
    def steep(h, x, theta):
        return np.arctan(8 * h) + x[..., :1]

    host, found = solve_both(
        device, *inputs(), recurrence=prs.Recurrence(steep, 1), method="damped_newton",
        on_failure="sequential",
    )  # fmt: skip
    assert_agree(found, host)
    assert_only_small_copies()
    assert_same(found.h, host.h, rtol=1e-9)


@pytest.mark.parametrize("guess", ["zeros", "repeat_h0", "from_zero", "array", "function"])
def test_a_guess_is_where_the_states_are(device, guess):
    x, h0, theta = on_device(device, inputs())
    own = device.full((T, B, D), 0.1)
    given = {"array": own, "function": lambda system: own}.get(guess, guess)
    host = prs.rollout(step, *inputs())
    found = prs.solve(step, x, h0, theta, guess=given, method="newton", backend=scan)
    assert_only_small_copies()
    assert_same(found.h, host, rtol=1e-9)
    assert (own == 0.1).all()  # not written to


@pytest.mark.parametrize("name", ["newton", "windowed", "sequential", "shooting"])
def test_not_a_number_stays_in_its_sequence_and_after_its_step(device, name):
    def poisoned(h, x, theta):
        return step(h, x, theta) + np.where(x[..., 1:2] > 90, np.nan, 0)

    x, h0, theta = inputs()
    clean = prs.rollout(step, x, h0, theta)
    x[20, 1, 1] = 99
    x, h0, theta = on_device(device, (x, h0, theta))
    with pytest.warns(prs.ConvergenceWarning, match=r"DIVERGED.*1 of 4"):
        found = prs.solve(
            poisoned, x, h0, theta, method=METHODS[name], backend=scan, on_failure="warn"
        )
    assert_only_small_copies()
    ends = [status.name == "DIVERGED" for status in found.sequence_status]
    assert ends == [False, True, False, False]
    h = found.h.get()
    others = [0, 2, 3]
    np.testing.assert_allclose(h[:, others], clean[:, others], atol=1e-9)
    if name in ("windowed", "sequential"):  # others end before they have a state
        np.testing.assert_allclose(h[:20, 1], clean[:20, 1], atol=1e-9)


def test_failed_sequences_are_finished_step_by_step(device):
    host, found = solve_both(
        device, *inputs(), method="picard", max_iter=3, on_failure="sequential"
    )
    assert host.sequence_status[0].name == "SEQUENTIAL"
    assert_agree(found, host)
    assert found.note == host.note
    assert_only_small_copies()
    assert_same(found.h, host.h)


def test_what_the_policy_leaves_is_given_to_a_window(device):
    def stiff(h, x, theta):
        return np.where(np.abs(h) < 3, h + 0.2 * (h - h**3) + x[..., :1], h)

    options = {"method": "auto", "max_iter": 5, "recurrence": prs.Recurrence(stiff, 1)}
    host, found = solve_both(device, *inputs(), **options, on_failure="sequential")
    assert "moving window" in host.note and "moving window" in found.note
    assert_agree(found, host)
    assert_only_small_copies()
    assert_same(found.h, host.h, rtol=1e-9)


def test_the_policy_counts_on_a_step_being_slow_to_launch(device):
    x, h0 = np.zeros((64, 100, 4)), np.zeros((100, 4))
    recurrence = prs.Recurrence(lambda h, x, theta: np.tanh(h + x), 1)
    assert prs.solve(recurrence, x, h0).method == "sequential()"
    x, h0 = on_device(device, (x, h0))
    assert prs.solve(recurrence, x, h0, backend=scan).method == "newton()"


def test_no_steps_and_no_sequences(device):
    for steps, batch in ((0, (B,)), (0, ()), (5, (0,))):
        x, h0 = device.zeros((steps, *batch, M)), device.zeros((*batch, D))
        theta = on_device(device, inputs()[2])
        for method in ("auto", "newton", "sequential", newton(chunk=2)):
            found = prs.solve(step, x, h0, theta, method=method, backend=scan)
            assert found.h.shape == (steps, *batch, D) and found.success
            assert type(found.h) is device.ndarray


def test_a_recurrence_without_input(device):
    found = prs.solve(
        lambda h, x, a: a * np.cos(h), None, device.ones((2, 3)), 0.5, steps=20, backend=scan
    )
    expected = prs.rollout(lambda h, x, a: a * np.cos(h), None, np.ones((2, 3)), 0.5, steps=20)
    assert_only_small_copies()
    assert_same(found.h, expected)


def test_the_rollout_is_on_the_device(device):
    x, h0, theta = on_device(device, inputs(batch=(2, 2)))
    h = prs.rollout(step, x, h0, theta)
    assert_only_small_copies(5)
    assert_same(h, prs.rollout(step, *inputs(batch=(2, 2))))


def test_the_kernels_of_the_device_are_the_default(device):
    host = prs.solve(step, *inputs())
    x, h0, theta = on_device(device, inputs())
    found = prs.solve(step, x, h0, theta, method="newton")
    assert (found.backend, found.compiled) == ("cupy", False)
    assert_only_small_copies()
    assert_same(found.h, host.h, rtol=1e-9)


def test_a_callback_sees_states_on_the_device_and_norms_on_the_host(device):
    seen = []
    x, h0, theta = on_device(device, inputs())
    prs.solve(step, x, h0, theta, method="newton", backend=scan, callback=seen.append)
    assert {type(state.h) for state in seen} == {device.ndarray}
    assert {type(state.residual_norm) for state in seen} == {np.ndarray}
    assert seen[-1].converged_steps == T


@pytest.mark.double
def test_a_solution_prints_without_moving_its_states(device):
    pytest.importorskip("matplotlib")
    x, h0, theta = on_device(device, inputs())
    found = prs.solve(step, x, h0, theta, backend=scan)
    copies.clear()
    assert "50 steps × 4 sequences" in repr(found)
    assert not copies.to_host
    assert "<svg" in found._repr_html_()
    assert max(copies.to_host) <= 8


def test_levenberg_marquardt_says_that_it_is_for_the_host(device):
    x, h0, theta = on_device(device, inputs())
    with pytest.raises(prs.InvalidInput, match=r"LAPACK, on the host.*cuda:0; use windowed"):
        prs.solve(step, x, h0, theta, method="levenberg_marquardt", backend=scan)


def test_a_flag_for_each_step_and_sequence_would_be_seen():
    assert T * B > LARGEST
