"""A stepper takes the steps of the rollout, one in each call, and takes no memory for it."""

import copy
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import cells
from pararnn_solvers.errors import InvalidInput, NotTraceable
from pararnn_solvers.linear import threads
from tests.dense_steps import DENSE, dense
from tests.device.cases import assert_same, inputs, on_device
from tests.device.cases import step as step_of_device

T = 9
CELLS = ["diagonal_gru", "diagonal_lstm", "elman", "gru", "lstm"]


def problem(name, batch=(), dtype=np.float64, n=5, seed=0):
    """Return recurrence, drives (T, *batch, m), states and parameters of a cell."""
    rng, cell = np.random.default_rng(seed), cells.load(name)
    theta = cell.init(rng, n, n, dtype=dtype)
    x = rng.standard_normal((T, *batch, n)).astype(dtype)
    h0 = cell.initial_state(theta, batch)
    h0 += rng.uniform(-0.5, 0.5, h0.shape).astype(dtype)
    return cells.recurrence_of(cell, theta), cell.project(x, theta), h0, theta


def untraceable(h, x, theta):
    return np.sort(np.tanh(theta * h + x), axis=-1)


def drift(h, x, a):
    return np.tanh(a * h)


def steps_of(stepper, x):
    return np.stack([stepper(row).copy() for row in x])


def assert_steps_are_the_rollout(recurrence, x, h0, theta, compiled=True):
    stepper = prs.stepper(recurrence, theta, h0)
    found = steps_of(stepper, x)
    assert stepper.compiled is compiled
    expected = prs.rollout(recurrence, x, h0, theta, compiled=compiled)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


@pytest.fixture
def two_threads():
    before = threads.num_threads()
    prs.set_num_threads(2)
    yield
    prs.set_num_threads(before)


# --- the numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (1,), (7,), (2, 3)])
@pytest.mark.parametrize("name", CELLS)
def test_steps_are_those_of_the_rollout_bit_for_bit(name, batch):
    assert_steps_are_the_rollout(*problem(name, batch))
    if batch == (7,):
        assert_steps_are_the_rollout(*problem(name, batch, np.float32, n=18))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 16, 37])
def test_channels_may_fill_vectors_or_not(n, dtype):
    for batch in [(), (5,)]:
        assert_steps_are_the_rollout(*problem("diagonal_gru", batch, dtype, n))


@pytest.mark.parametrize("name", [name for name in DENSE if name != "autonomous"])
def test_products_with_inputs_are_made_in_each_step(name):
    rng = np.random.default_rng(1)
    step, d, m, theta = dense(name, rng, n=10)
    for batch in [(), (9,)]:
        x, h0 = rng.standard_normal((T, *batch, m)), rng.standard_normal((*batch, d))
        assert_steps_are_the_rollout(prs.Recurrence(step), x, h0, theta)


@pytest.mark.parametrize(("name", "batch", "n"), [
    ("diagonal_gru", (300,), 256), ("diagonal_gru", (), 1 << 17), ("gru", (900,), 64)
])  # fmt: skip
def test_large_batches_are_shared_between_threads(two_threads, monkeypatch, name, batch, n):
    cell = cells.load(name)
    rng, together = np.random.default_rng(0), []
    monkeypatch.setattr(threads, "run", lambda tasks: [together.append(1)] + [t() for t in tasks])
    wide = cell.GATES if name == "gru" else 3
    x = rng.standard_normal((2, *batch, wide * n)).astype(np.float32)
    theta = cell.init(rng, 1, n, dtype=np.float32)
    assert_steps_are_the_rollout(
        cell.recurrence, x, np.zeros((*batch, n), np.float32), theta
    )  # fmt: skip
    assert together


@pytest.mark.parametrize("batch", [(), (6,)])
def test_a_step_that_cannot_be_traced_runs_itself(batch):
    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((T, *batch, 4)), np.zeros((*batch, 4))
    assert_steps_are_the_rollout(untraceable, x, h0, np.full(4, 0.5), compiled=False)


def test_a_step_that_can_be_traced_need_not_be():
    recurrence, x, h0, theta = problem("gru", (3,))
    stepper = prs.stepper(recurrence, theta, h0, compiled=False)
    found = steps_of(stepper, x)
    assert stepper.compiled is False
    np.testing.assert_array_equal(found, prs.rollout(recurrence, x, h0, theta, compiled=False))


@pytest.mark.parametrize("compiled", [None, False])
def test_without_inputs_it_is_called_without(compiled):
    for recurrence, h0, theta in [
        (prs.Recurrence(drift, 1), np.ones((2, 5)), 0.5),
        (dense("autonomous", np.random.default_rng(0))[0], np.ones(6), np.full((6, 6), 0.1)),
        (dense("autonomous", np.random.default_rng(0))[0], np.ones(40), np.full((40, 40), 0.02)),
    ]:
        stepper = prs.stepper(recurrence, theta, h0, compiled=compiled)
        found = np.stack([stepper().copy() for _ in range(T)])
        expected = prs.rollout(recurrence, None, h0, theta, steps=T, compiled=stepper.compiled)
        np.testing.assert_array_equal(found, expected)


def test_not_a_number_stays_in_its_stream():
    recurrence, x, h0, theta = problem("diagonal_gru", (3,))
    stepper, clean = (prs.stepper(recurrence, theta, h0) for _ in range(2))
    x[0, 1] = np.nan
    np.testing.assert_array_equal(stepper(x[0])[[0, 2]], clean(np.nan_to_num(x[0]))[[0, 2]])
    assert np.isnan(stepper.state[1]).all()
    stepper.reset(np.array([False, True, False]))
    np.testing.assert_array_equal(stepper.state[1], h0[1])


@pytest.mark.parametrize("name", ["diagonal_gru", "gru"])
def test_no_streams_make_no_steps(name):
    recurrence, x, h0, theta = problem(name, (0,))
    assert prs.stepper(recurrence, theta, h0)(x[0]).shape == (0, 5)


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n", "most"), [
    ("diagonal_gru", 16, 1000), ("gru", 16, 1000), ("diagonal_gru", 5, 100_000)
])  # fmt: skip
def test_steps_take_no_memory(name, n, most, untraced):
    recurrence, x, h0, theta = problem(name, (4,), n=n)
    stepper, row = prs.stepper(recurrence, theta, h0, example=x[0]), x[0]
    stepper(row)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(10_000):
        stepper(row)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 500  # the counter of the loop, and of this test
    assert peak - before < most


def test_what_is_returned_is_the_state_itself():
    recurrence, x, h0, theta = problem("diagonal_gru", (4,))
    stepper = prs.stepper(recurrence, theta, h0)
    first = stepper(x[0])
    assert first is stepper.state
    assert stepper(x[1]) is first
    np.testing.assert_array_equal(h0, problem("diagonal_gru", (4,))[2])


@pytest.mark.parametrize("kind", ["strided", "read-only", "list", "fortran"])
def test_inputs_of_any_order_will_do(kind):
    recurrence, x, h0, theta = problem("diagonal_gru", (4,))
    expected = prs.stepper(recurrence, theta, h0)(x[0]).copy()
    other = np.repeat(x[0], 2, axis=1)[:, ::2]
    if kind == "read-only":
        other = x[0].copy()
        other.flags.writeable = False
    given = {"list": x[0].tolist(), "fortran": np.asfortranarray(x[0])}.get(kind, other)
    for example in [None, x[0]]:
        stepper = prs.stepper(recurrence, theta, h0, example=example)
        np.testing.assert_array_equal(stepper(given), expected)


# --- the state -----------------------------------------------------------------------------------


def test_the_state_is_read_and_written_and_reset():
    recurrence, x, h0, theta = problem("diagonal_gru", (4,))
    stepper = prs.stepper(recurrence, theta, h0, example=x[0])
    np.testing.assert_array_equal(stepper.state, h0)  # an example is no step
    stepper(x[0])
    kept = stepper.state.copy()
    after = stepper(x[1]).copy()
    stepper.state = kept
    np.testing.assert_array_equal(stepper(x[1]), after)
    chosen = np.array([True, False, False, True])
    stepper.reset(chosen)
    np.testing.assert_array_equal(stepper.state, np.where(chosen[:, None], h0, after))
    stepper.reset()
    np.testing.assert_array_equal(stepper.state, h0)
    stepper.state[2] = 7
    assert (stepper(x[0]) != h0).all()


def test_a_single_stream_is_reset_by_a_mask_without_axes():
    stepper = prs.stepper(drift, 0.5, np.ones(3), compiled=False)
    stepper()
    stepper.reset(np.array(False))
    assert (stepper.state != 1).all()
    stepper.reset(True)
    assert (stepper.state == 1).all()


@pytest.mark.parametrize(
    "value", [np.zeros(5), np.zeros((4, 5), np.float32), np.full((4, 5), np.inf)]
)
def test_a_state_of_another_kind_is_refused(value):
    recurrence, _, h0, theta = problem("diagonal_gru", (4,))
    stepper = prs.stepper(recurrence, theta, h0)
    with pytest.raises(InvalidInput, match="state (has shape|is inf)"):
        stepper.state = value
    np.testing.assert_array_equal(stepper.state, h0)


@pytest.mark.parametrize("mask", [np.zeros(3, bool), np.zeros(4, int), [1.0] * 4, True])
def test_a_mask_of_another_kind_is_refused(mask):
    recurrence, _, h0, theta = problem("diagonal_gru", (4,))
    with pytest.raises(InvalidInput, match=r"mask has shape .* shape \(4,\) and dtype bool"):
        prs.stepper(recurrence, theta, h0).reset(mask)


# --- copies, threads, devices --------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [None, False])
@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copy_goes_on_by_itself(again, compiled):
    recurrence, x, h0, theta = problem("gru", (2,))
    stepper = prs.stepper(recurrence, theta, h0, compiled=compiled)
    stepper(x[0])
    other = again(stepper)
    np.testing.assert_array_equal(other.state, stepper.state)
    expected = stepper(x[1]).copy()
    stepper(x[2])
    np.testing.assert_array_equal(other(x[1]), expected)
    assert other.compiled is stepper.compiled
    other.reset()
    np.testing.assert_array_equal(other.state, h0)


def test_what_pickle_cannot_find_it_names():
    stepper = prs.stepper(lambda h, x, _: h + x, None, np.zeros(2))
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(stepper)


def test_steppers_in_several_threads_are_independent():
    recurrence, x, _, theta = problem("diagonal_gru", n=64)
    starts = np.random.default_rng(0).uniform(-1, 1, (8, 64))

    def steps(h0):
        stepper = prs.stepper(recurrence, theta, h0)
        for _ in range(50):
            found = steps_of(stepper, x)
        return found[-1]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(steps, starts))
    np.testing.assert_array_equal(found, [steps(h0) for h0 in starts])


def test_on_a_device_the_step_itself_runs_there(device):
    x, h0, theta = inputs()
    moved_x, moved_h0, moved_theta = on_device(device, (x, h0, theta))
    stepper = prs.stepper(step_of_device, moved_theta, moved_h0)
    assert_same(stepper(moved_x[0]).copy(), prs.rollout(step_of_device, x[:1], h0, theta)[0])
    assert stepper.compiled is False
    mask = np.array([True, False, True, False])
    before = stepper.state.get()
    stepper.reset(mask)
    assert_same(stepper.state, np.where(mask[:, None], h0, before))
    stepper.reset()
    assert_same(stepper.state, h0)
    with pytest.raises(InvalidInput, match="x on the host, h0 on cuda:0"):
        stepper(x[0])
    with pytest.raises(InvalidInput, match="compiled=True is impossible: .* h0 is on cuda:0"):
        prs.stepper(step_of_device, moved_theta, moved_h0, compiled=True)


# --- what is wrong -------------------------------------------------------------------------------

WRONG = {
    "more streams": (np.zeros((5, 15)), r"x has shape \(5, 15\) .* expected shape \(4, 15\)"),
    "another m": (np.zeros((4, 5)), r"x has shape \(4, 5\) .* expected shape \(4, 15\)"),
    "several steps": (np.zeros((2, 4, 15)), r"x has shape \(2, 4, 15\)"),
    "a number": (1.0, r"x has shape \(\)"),
    "float32": (np.zeros((4, 15), np.float32), "dtype float32; expected .* dtype float64"),
    "integers": (np.zeros((4, 15), int), "x is int64; expected float32 or float64"),
    "text": ("abc", "x is <U3; expected float32 or float64"),
    "nothing": (None, "x is None, and was an array in the first call"),
}


@pytest.mark.parametrize("compiled", [None, False])
@pytest.mark.parametrize("kind", WRONG)
def test_inputs_of_another_kind_are_refused(kind, compiled):
    recurrence, x, h0, theta = problem("diagonal_gru", (4,))
    stepper = prs.stepper(recurrence, theta, h0, example=x[0], compiled=compiled)
    value, message = WRONG[kind]
    with pytest.raises(InvalidInput, match=message):
        stepper(value)
    np.testing.assert_array_equal(stepper.state, h0)


@pytest.mark.parametrize("kind", ["more streams", "several steps", "a number", "float32"])
def test_inputs_are_refused_in_the_first_call_too(kind):
    recurrence, x, h0, theta = problem("diagonal_gru", (4,))
    stepper = prs.stepper(recurrence, theta, h0)
    with pytest.raises(InvalidInput, match="x has shape"):
        stepper(WRONG[kind][0])
    assert stepper.compiled is None
    assert stepper(x[0]).shape == (4, 5)  # nothing is decided by what was refused


def test_inputs_where_there_were_none_are_refused():
    stepper = prs.stepper(drift, 0.5, np.ones(3), compiled=False)
    stepper()
    with pytest.raises(InvalidInput, match=r"x is of shape \(3,\), and was None"):
        stepper(np.ones(3))


def test_a_kernel_is_insisted_on():
    h0, x = np.zeros(4), np.zeros(4)
    with pytest.raises(NotTraceable):
        prs.stepper(untraceable, np.ones(4), h0, example=x, compiled=True)
    stepper = prs.stepper(untraceable, np.ones(4), h0, compiled=True)
    with pytest.raises(NotTraceable):
        stepper(x)
    own = prs.Recurrence(drift, 1, jacobian=lambda h, x, a: a + 0 * h)
    with pytest.raises(InvalidInput, match="compiled=True is impossible"):
        prs.stepper(own, 0.5, h0, example=x, compiled=True)
    assert prs.stepper(own, 0.5, h0, example=x).compiled is False


@pytest.mark.parametrize(("arguments", "message"), [
    (("abc", None, np.zeros(2)), "step is str"),
    ((drift, 0.5, 1.0), "h0 is a scalar"),
    ((drift, 0.5, np.zeros(2, int)), "h0 is int64"),
    ((drift, np.nan, np.zeros(2)), "theta is nan"),
])  # fmt: skip
def test_arguments_are_checked_when_it_is_made(arguments, message):
    with pytest.raises(InvalidInput, match=message):
        prs.stepper(*arguments)
    with pytest.raises(InvalidInput, match="compiled is 'yes'"):
        prs.stepper(drift, 0.5, np.zeros(2), compiled="yes")


def test_a_step_of_another_shape_leaves_the_state():
    stepper = prs.stepper(lambda h, x, _: h[..., :1] + x, None, np.ones(3), compiled=False)
    with pytest.raises(InvalidInput, match="step returned shape"):
        stepper(np.ones(1))
    assert (stepper.state == 1).all()


def test_it_says_what_it_is():
    recurrence, x, h0, theta = problem("diagonal_gru", (2, 3))
    stepper = prs.stepper(recurrence, theta, h0)
    assert repr(stepper) == "<Stepper: 6 streams × 5 states, float64, not called yet>"
    stepper(x[0])
    assert repr(stepper) == "<Stepper: 6 streams × 5 states, float64, compiled>"
