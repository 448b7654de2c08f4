"""Kernels of dense recurrences equal their steps, alone and by multiple shooting."""

import threading
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pararnn_solvers.autodiff.trace.staged import trace_staged
from pararnn_solvers.compiled import dense_product
from pararnn_solvers.compiled.dense import compile_dense, multiplier
from pararnn_solvers.compiled.dense_shooting import MOST_EVALUATIONS, rollout_dense, shoot_dense
from pararnn_solvers.errors import InvalidInput, NotTraceable
from pararnn_solvers.functions import gelu, silu
from pararnn_solvers.linear import threads
from tests.dense_steps import DENSE, by_numpy, dense

RTOL = {np.float32: 2e-5, np.float64: 1e-12}


def problem(name, T, batch=1, dtype=np.float64, n=6, m=4, seed=0):
    """Return program, step, x, h0 and theta of the recurrence of a name."""
    rng = np.random.default_rng(seed)
    step, d, m, theta = dense(name, rng, n, m, dtype)
    x = None if m is None else rng.normal(size=(T, batch, m)).astype(dtype)
    h0 = rng.normal(size=(batch, d)).astype(dtype)
    return compile_dense(trace_staged(step, h0, x, theta)), step, x, h0, theta


@pytest.fixture
def one_thread():
    before = threads.num_threads()
    threads.set_num_threads(1)
    yield
    threads.set_num_threads(before)


# --- products ----------------------------------------------------------------------------------


@given(
    st.integers(1, 20), st.integers(1, 40), st.integers(1, 140), st.sampled_from(["f4", "f8"]),
    st.integers(0, 3),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_multiply_equals_matmul(rows, K, N, dtype, gap):
    """Of rows that lie some entries apart."""
    rng = np.random.default_rng(rows)
    a, matrix = rng.normal(size=(rows, K + gap)).astype(dtype), rng.normal(size=(K, N))
    columns = dense_product.padded(N, dtype)
    packed = dense_product.aligned(K * columns, dtype)
    dense_product.pack(matrix.astype(dtype), packed)
    out = np.full((rows + 1, columns + gap), 7, dtype)
    numbers = [np.uint64(i) for i in (rows, K + gap, K, columns, columns + gap)]
    r, lda, k, c, ldo = numbers
    zero = np.uint64(0)
    multiplier()(r, a.reshape(-1), zero, lda, packed, zero, k, c, out.reshape(-1), zero, ldo)
    expected = a[:, :K] @ matrix.astype(dtype)
    np.testing.assert_allclose(out[:rows, :N], expected, atol=1e-4 if dtype == "f4" else 1e-12)
    np.testing.assert_array_equal(out[:rows, N:columns], 0)
    np.testing.assert_array_equal(out[rows], 7)  # nothing is written beyond


def test_a_row_gives_the_same_bits_alone_and_among_others():
    program, _, x, h0, theta = problem("gru", 5, batch=13, dtype=np.float32, n=40)
    together = rollout_dense(program, x, h0, theta)
    for b in range(13):
        alone = rollout_dense(program, x[:, b : b + 1], h0[b : b + 1], theta)
        np.testing.assert_array_equal(alone[:, 0], together[:, b])


# --- rollouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DENSE)
def test_rollout_equals_the_step(name, dtype):
    program, step, x, h0, theta = problem(name, 37, batch=3, dtype=dtype)
    h = rollout_dense(program, x, h0, theta, steps=37)
    assert h.dtype == dtype
    assert h.flags.c_contiguous
    expected = by_numpy(step, x, h0, theta, 37)
    np.testing.assert_allclose(h, expected, rtol=RTOL[dtype], atol=RTOL[dtype])


@given(st.sampled_from(["gru", "lstm"]), st.integers(2, 70), st.integers(1, 40), st.integers(0, 20))
@settings(deadline=None, max_examples=40)
def test_one_kernel_serves_all_sizes(name, n, m, batch):
    program, step, x, h0, theta = problem(name, 3, batch, n=n, m=m)
    again = problem(name, 3, 2)[0]
    assert program.march is again.march or program.text != again.text
    h = rollout_dense(program, x, h0, theta)
    np.testing.assert_allclose(h, by_numpy(step, x, h0, theta), rtol=1e-12, atol=1e-13)


def test_rollout_writes_where_it_is_told():
    program, step, x, h0, theta = problem("gru", 5)
    h = np.empty((5, 1, 6))
    assert rollout_dense(program, x, h0, theta, h) is h
    np.testing.assert_allclose(h, by_numpy(step, x, h0, theta), rtol=1e-12)


def test_inputs_may_be_strided_and_read_only():
    program, step, x, h0, theta = problem("gru", 10, batch=2)
    reversed_x = x[::-1]
    reversed_x.flags.writeable = h0.flags.writeable = False
    h = rollout_dense(program, reversed_x, h0, theta)
    np.testing.assert_allclose(h, by_numpy(step, reversed_x, h0, theta), rtol=1e-12)


def test_silu_and_conditions_are_compiled():
    def step(h, x, W):
        z = h @ W
        return np.where((z > 0) & (x > 0), silu(z), np.minimum(z, 0.5 * np.abs(x))) ** 2

    rng = np.random.default_rng(0)
    W, x, h0 = rng.normal(size=(5, 5)) / 3, rng.normal(size=(20, 2, 5)), rng.normal(size=(2, 5))
    h = rollout_dense(compile_dense(trace_staged(step, h0, x, W)), x, h0, W)
    np.testing.assert_allclose(h, by_numpy(step, x, h0, W), rtol=1e-11, atol=1e-13)


# --- multiple shooting -------------------------------------------------------------------------


class Solved(NamedTuple):
    h: np.ndarray
    norms: np.ndarray
    joined: np.ndarray
    evaluations: int
    finite: bool


def shoot(program, x, h0, theta, steps=None, atol=None, rtol=None, chunk=None):
    dtype = program.trace.dtype
    h = np.empty((steps if x is None else len(x), *h0.shape), dtype)
    bounds = tuple(float(np.finfo(dtype).eps ** 0.75) if t is None else t for t in (atol, rtol))
    return Solved(h, *shoot_dense(program, x, h0, theta, h, bounds=bounds, chunk=chunk or 100))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in DENSE if name != "residual"])
def test_shooting_equals_the_step(name, dtype):
    T = 411
    program, step, x, h0, theta = problem(name, T, batch=3, dtype=dtype)
    shot = shoot(program, x, h0, theta, steps=T, chunk=100)
    tolerance = np.finfo(dtype).eps ** 0.75
    assert shot.joined.all()
    assert (shot.norms[1] <= tolerance / 16 * (1 + np.abs(shot.h).max())).all()
    assert (shot.norms[0] > 100 * tolerance).all() or x is None
    assert shot.evaluations < 2.5 * 3 * T
    np.testing.assert_allclose(shot.h, by_numpy(step, x, h0, theta, T), atol=30 * tolerance)
    F = shot.h - step(np.concatenate([h0[None], shot.h[:-1]]), x, theta)
    rounding = 10 * np.finfo(dtype).eps
    assert np.abs(F).max() <= shot.norms[1].max() + rounding


@pytest.mark.parametrize("T", [0, 1, 2, 3, 16, 17, 100])
@pytest.mark.parametrize("chunk", [None, 1, 2, 7, 1000])
def test_any_length_in_any_chunks(T, chunk):
    program, step, x, h0, theta = problem("elman", T, batch=2)
    shot = shoot(program, x, h0, theta, chunk=chunk, atol=1e-13, rtol=0)
    if shot.joined.all():
        np.testing.assert_allclose(shot.h, by_numpy(step, x, h0, theta), atol=1e-12)
    else:
        assert chunk in (1, 2, 7)
    assert shot.h.shape == (T, 2, 6)
    assert shot.norms.shape == (2, 2)


def test_no_sequences():
    program, _, x, h0, theta = problem("elman", 5, batch=2)
    shot = shoot(program, x[:, :0], h0[:0], theta)
    assert shot.h.shape == (5, 0, 6)
    assert shot.joined.shape == (0,)


def test_no_tolerance_is_met_by_equal_bits():
    """Chunks end in the same bits as a rollout: all rows are summed in one order."""
    program, _, x, h0, theta = problem("elman", 600, dtype=np.float32)
    shot = shoot(program, x, h0, theta, chunk=200, atol=0, rtol=0)
    assert shot.joined.all()
    np.testing.assert_array_equal(shot.norms[1], 0)
    np.testing.assert_array_equal(shot.h, rollout_dense(program, x, h0, theta))


def expansive(T):
    """Two sequences of one network, chaotic with a gain of 4 and forgetting with one of 0.3."""

    def step(h, x, W):
        gain, drive = np.split(x, 2, axis=-1)
        return np.tanh(gain * (h @ W) + drive)

    rng = np.random.default_rng(0)
    d = 20
    W, h0 = rng.normal(size=(d, d)) / np.sqrt(d), rng.normal(size=(2, d))
    x = rng.normal(size=(T, 2, 2 * d)) * 0.1
    x[:, 0, :d], x[:, 1, :d] = 4.0, 0.3
    return compile_dense(trace_staged(step, h0, x, W)), step, x, h0, W


def test_what_does_not_forget_is_given_up():
    program, step, x, h0, W = expansive(1000)
    shot = shoot(program, x, h0, W, chunk=50)
    assert shot.joined.tolist() == [False, True]
    assert shot.evaluations <= (MOST_EVALUATIONS + 1) * 2000
    assert shot.norms[1, 0] > 1e-3
    F = shot.h - step(np.concatenate([h0[None], shot.h[:-1]]), x, W)
    np.testing.assert_allclose(np.abs(F).max(axis=(0, 2)), shot.norms[1], atol=1e-14)
    np.testing.assert_allclose(shot.h[:, 1], by_numpy(step, x, h0, W)[:, 1], atol=1e-11)


@pytest.mark.parametrize("where", ["x", "h0"])
def test_nan_touches_no_other_sequence_and_nothing_before(where):
    T, bad = 300, 120
    program, step, x, h0, theta = problem("gru", T, batch=3)
    if where == "x":
        x[bad, 1, 2] = np.nan
    else:
        h0[1, 3], bad = np.nan, 0
    for chunk in (20, 100, 1000):
        shot = shoot(program, x, h0, theta, chunk=chunk)
        expected = by_numpy(step, x, h0, theta)
        np.testing.assert_allclose(shot.h[:, [0, 2]], expected[:, [0, 2]], atol=1e-11)
        np.testing.assert_allclose(shot.h[:bad, 1], expected[:bad, 1], atol=1e-11)
        assert shot.joined[[0, 2]].all()
        if shot.joined[1]:
            assert np.isnan(shot.h[bad:, 1]).any(axis=-1).all()


def saturating(h, x, W):
    """An infinite drive leaves every state finite."""
    return np.tanh(h @ W + x)


def projecting(h, x, W):
    """The kernel reads products of x only."""
    return np.tanh(h @ W + x @ W)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("row", [0, 37, 299])
def test_a_drive_that_is_not_finite_is_noticed_by_the_kernel_that_reads_it(bad, row):
    rng = np.random.default_rng(0)
    x, h0, W = rng.normal(size=(300, 2, 5)), np.zeros((2, 5)), rng.normal(size=(5, 5)) / 5
    program = compile_dense(trace_staged(saturating, h0, x, W))
    assert shoot(program, x, h0, W).finite
    x[row, 1, 4] = bad
    shot = shoot(program, x, h0, W)
    assert not shot.finite
    assert np.isnan(bad) or np.isfinite(shot.h).all()


def test_of_drives_that_enter_by_products_only_nothing_is_claimed():
    x, h0, W = np.ones((300, 2, 5)), np.zeros((2, 5)), np.eye(5) / 5
    assert not shoot(compile_dense(trace_staged(projecting, h0, x, W)), x, h0, W).finite


def test_states_that_overflow_are_noticed():
    program = compile_dense(trace_staged(lambda h, x, W: h @ W, np.ones((1, 2)), None, np.eye(2)))
    h0 = np.full((1, 2), 1e308)
    assert shoot(program, None, h0, np.eye(2), steps=40, chunk=20).finite
    assert not shoot(program, None, h0, 2 * np.eye(2), steps=40, chunk=20).finite


def test_without_inputs_steps_are_needed():
    program, _, _, h0, theta = problem("autonomous", 5)
    with pytest.raises(InvalidInput, match="pass steps"):
        rollout_dense(program, None, h0, theta)


def test_other_sizes_than_traced_are_refused():
    program, _, x, h0, theta = problem("gru", 5)
    with pytest.raises(InvalidInput, match="trace step again"):
        shoot(program, x[..., :3], h0, theta)


def test_other_parameters_need_no_other_program():
    program, step, x, h0, _ = problem("gru", 50)
    theta = problem("gru", 50, seed=1)[-1]
    h = shoot(program, x, h0, theta).h
    np.testing.assert_allclose(h, by_numpy(step, x, h0, theta), atol=1e-11)


def test_functions_without_a_kernel_are_refused():
    step = lambda h, x, W: gelu(h @ W)  # noqa: E731
    with pytest.raises(NotTraceable, match="ndtr, of which there is no kernel"):
        compile_dense(trace_staged(step, np.ones(4), None, np.ones((4, 4))))
    half = np.ones(4, np.float16)
    with pytest.raises(NotTraceable, match="float16"):
        compile_dense(trace_staged(lambda h, x, W: h @ W, half, None, np.ones((4, 4))))


# --- threads -----------------------------------------------------------------------------------


def test_threads_change_no_bit(one_thread):
    program, _, x, h0, theta = problem("gru", 2000, batch=2, dtype=np.float32, n=40)
    alone = shoot(program, x, h0, theta, chunk=120)
    threads.set_num_threads(3)
    for _ in range(3):
        shot = shoot(program, x, h0, theta, chunk=120)
        np.testing.assert_array_equal(shot.h, alone.h)
        np.testing.assert_array_equal(shot.norms, alone.norms)
        assert shot.evaluations == alone.evaluations


def test_programs_may_run_in_many_threads():
    program, _, x, h0, theta = problem("gru", 500, batch=2)
    expected, found = rollout_dense(program, x, h0, theta), []

    def solve():
        found.append(shoot(program, x, h0, theta).h)

    workers = [threading.Thread(target=solve) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for h in found:
        np.testing.assert_allclose(h, expected, atol=1e-11)
    assert len(found) == 4
