"""CUDA kernels of dense recurrences equal their steps, and shoot as the CPU's do."""

from dataclasses import replace

import numpy as np
import pytest

from pararnn_solvers import tree
from pararnn_solvers.compiled import cuda_dense_launch as launching
from pararnn_solvers.compiled import cuda_dense_shooting as cuda_shooting
from pararnn_solvers.compiled import dense_shooting
from pararnn_solvers.compiled.cuda_dense import compile_dense_cuda, trace_dense
from pararnn_solvers.compiled.dense import compile_dense
from pararnn_solvers.compiled.shooting_policy import Memory
from pararnn_solvers.errors import InvalidInput, NotTraceable
from pararnn_solvers.functions import sigmoid
from tests.cuda_on_cpu import fake_cupy, nvrtc, raw_module
from tests.dense_steps import DENSE, by_numpy, dense


class Problem:
    """A recurrence by name, on the host and on the device.

    `edited` changes the code of its kernel.
    """

    def __init__(self, cupy, name, T, batch=1, dtype=np.float64, n=6, m=4, seed=0, step=None):
        rng = np.random.default_rng(seed)
        self.step, d, m, self.theta = step or dense(name, rng, n, m, dtype)
        self.x = None if m is None else rng.normal(size=(T, batch, m)).astype(dtype)
        self.h0, self.T, self.dtype = rng.normal(size=(batch, d)).astype(dtype), T, dtype
        self.cupy, self.edited = cupy, lambda code: code

    def on_device(self):
        """Return program, x, h0 and theta."""
        leaves, rebuild = tree.flatten(self.theta)
        move = self.cupy.asarray
        theta = rebuild([move(a) if isinstance(a, np.ndarray) else a for a in leaves])
        x = None if self.x is None else move(self.x)
        program = compile_dense_cuda(trace_dense(self.step, move(self.h0), x, theta))
        program = replace(program, code=self.edited(program.code))
        return program, x, move(self.h0), theta

    def rollout(self, **options):
        program, x, h0, theta = self.on_device()
        return cuda_shooting.rollout_dense(program, x, h0, theta, steps=self.T, **options).get()

    def shoot(self, chunk, bounds=None):
        program, x, h0, theta = self.on_device()
        h = self.cupy.empty((self.T, *h0.shape), self.dtype)
        options = dict(bounds=bounds or self.bounds, chunk=chunk)
        return h, cuda_shooting.shoot_dense(program, x, h0, theta, h, **options)

    def shoot_on_host(self, chunk, bounds=None):
        program = compile_dense(trace_dense(self.step, self.h0, self.x, self.theta))
        h = np.empty((self.T, *self.h0.shape), self.dtype)
        options = dict(bounds=bounds or self.bounds, chunk=chunk)
        return h, dense_shooting.shoot_dense(program, self.x, self.h0, self.theta, h, **options)

    @property
    def bounds(self):
        return (float(np.finfo(self.dtype).eps ** 0.75),) * 2

    @property
    def expected(self):
        return by_numpy(self.step, self.x, self.h0, self.theta, self.T)


# --- rollouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DENSE)
def test_rollout_equals_the_step(device, name):
    problem = Problem(device, name, 37, batch=3)
    np.testing.assert_allclose(problem.rollout(), problem.expected, rtol=1e-12, atol=1e-12)


def test_functions_and_conversions_of_parameters_alone(device):
    def step(h, x, theta):
        gate = sigmoid(theta["W"]).astype(h.dtype)
        return np.tanh(0.1 * (h @ gate) + theta["b"] * x)

    rng = np.random.default_rng(0)
    theta = {"W": rng.normal(size=(24, 24)), "b": rng.normal(size=24)}
    problem = Problem(device, "", 17, batch=2, step=(step, 24, 24, theta))
    np.testing.assert_allclose(problem.rollout(), problem.expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_float32_is_kept(device, name):
    problem = Problem(device, name, 37, batch=3, dtype=np.float32)
    h = problem.rollout()
    assert h.dtype == np.float32
    np.testing.assert_allclose(h, problem.expected, rtol=2e-5, atol=2e-5)


def test_schedules_change_no_bit(device, thread_order):
    problem = Problem(device, "minimal gated unit", 9, batch=2)
    np.testing.assert_allclose(problem.rollout(), problem.expected, rtol=1e-12)
    with raw_module.schedule(raw_module.FORWARD):
        expected = problem.rollout()
    np.testing.assert_array_equal(problem.rollout(), expected)


def test_one_kernel_serves_all_sizes(device):
    programs = []
    for n, m, batch in [(2, 1, 1), (33, 5, 40), (70, 7, 3)]:
        problem = Problem(device, "gru", 3, batch, n=n, m=m)
        np.testing.assert_allclose(problem.rollout(), problem.expected, rtol=1e-12, atol=1e-13)
        programs.append(problem.on_device()[0])
    # Inputs that are as many as the channels would be read one by one: another text.
    assert len({program.code for program in programs}) == 1


@pytest.mark.parametrize("name", ["layers", "side by side"])
def test_products_of_inputs_are_made_in_slabs(device, name, monkeypatch):
    problem = Problem(device, name, 37, batch=3)
    at_once, (h, _) = problem.rollout(), problem.shoot(10)
    monkeypatch.setattr(cuda_shooting, "SLAB_BYTES", 3000)
    np.testing.assert_array_equal(problem.rollout(), at_once)
    np.testing.assert_array_equal(problem.shoot(10)[0].get(), h.get())


def test_rollout_writes_where_it_is_told(device):
    problem = Problem(device, "gru", 5)
    program, x, h0, theta = problem.on_device()
    h = device.empty((5, 1, 6))
    assert cuda_shooting.rollout_dense(program, x[::-1], h0, theta, h) is h
    problem.x = problem.x[::-1]
    np.testing.assert_allclose(h.get(), problem.expected, rtol=1e-12)
    np.testing.assert_array_equal(h0.get(), problem.h0)


def test_another_theta_needs_no_other_program(device):
    first, second = (Problem(device, "residual", 9, seed=seed) for seed in (0, 1))
    program, (_, x, h0, theta) = first.on_device()[0], second.on_device()
    h = cuda_shooting.rollout_dense(program, x, h0, theta)
    np.testing.assert_allclose(h.get(), second.expected, rtol=1e-12)


# --- how rows and channels are shared out -------------------------------------------------------


def launches(monkeypatch, rows, channels, columns, blocks):
    team_rows = rows * launching.THREADS // columns
    chosen = launching.Launch(rows, channels, columns, blocks, team_rows, 1.0)
    monkeypatch.setattr(launching, "plan", lambda program, rows: chosen)


@pytest.mark.parametrize(
    ("tile", "dtype"), [((8, 2, 64, 1), np.float32), ((2, 1, 128, 1), np.float64)]
)
def test_all_tiles_give_the_same_bits(device, tile, dtype, monkeypatch):
    problem = Problem(device, "gru", 40, batch=3, dtype=dtype, n=70)
    expected, (h, shot) = problem.rollout(), problem.shoot(20)
    launches(monkeypatch, *tile)
    np.testing.assert_array_equal(problem.rollout(), expected)
    other, again = problem.shoot(20)
    np.testing.assert_array_equal(other.get(), h.get())
    np.testing.assert_array_equal(again.norms, shot.norms)


def delayed(code):
    """Let the blocks of a team come to the barrier, and go on from it, at different times."""
    late = "for (int i = 0; i < int((blockIdx.x * 7 + team.met * {}) % 5) * 4; ++i) __nanosleep(1);"
    before, after = "        ++team.met;\n", "        const Index packs ="
    assert code.count(before) == code.count(after) == 1
    code = code.replace(before, before + late.format(2))
    return code.replace(after, late.format(3) + after)


@pytest.mark.parametrize(
    ("name", "dtype", "n", "tile"),
    [
        ("gru", np.float32, 70, (1, 1, 32, 3)),
        ("minimal gated unit", np.float64, 70, (2, 2, 16, 3)),
        ("gru", np.float32, 50, (1, 1, 32, 2)),
    ],
)
def test_teams_of_blocks_give_the_same_bits(device, name, dtype, n, tile, monkeypatch):
    """In several waves: three multiprocessors have room for one team."""
    problem = Problem(device, name, 120, batch=3, dtype=dtype, n=n)
    expected, (h, shot) = problem.rollout(), problem.shoot(60)
    assert shot.joined.all()
    launches(monkeypatch, *tile)
    problem.edited = delayed
    with raw_module.schedule(raw_module.INTERLEAVED, seed=3):
        np.testing.assert_array_equal(problem.rollout(), expected)
        other, again = problem.shoot(60)
    np.testing.assert_array_equal(other.get(), h.get())
    np.testing.assert_array_equal(again.norms, shot.norms)
    assert again.evaluations == shot.evaluations


@pytest.mark.parametrize(("n", "blocks"), [(6, 1), (70, 3)])
def test_teams_of_blocks_are_launched_together(device, monkeypatch, n, blocks):
    """Blocks that wait for each other start together or not at all: a cooperative launch."""
    problem = Problem(device, "elman", 3, n=n)
    launches(monkeypatch, 1, 1, 32, blocks)
    asked, compile_kernel = [], launching.cuda.kernel

    def kernel(*args, **options):
        asked.append(compile_kernel(*args, **options))
        return asked[-1]

    monkeypatch.setattr(launching.cuda, "kernel", kernel)
    with raw_module.schedule(raw_module.INTERLEAVED):
        problem.rollout()
    assert [k.enable_cooperative_groups for k in asked] == [blocks > 1]


@pytest.mark.double
@pytest.mark.parametrize("n", [6, 64, 128, 1000])
def test_plans_fit(device, n):
    program = Problem(device, "lstm", 1, n=n, dtype=np.float32).on_device()[0]
    for rows in (1, 100, 10000):
        chosen = launching.plan(program, rows)
        assert chosen.blocks * chosen.columns * chosen.channels >= n
        assert chosen.blocks <= 3  # multiprocessors
        assert launching.shared_bytes(program, chosen) <= 227 << 10
        assert chosen.team_rows * chosen.columns == chosen.rows * launching.THREADS
    times = [launching.step_time(program, rows) for rows in (1, 100, 10000)]
    assert times == sorted(times)


def test_states_that_fit_nowhere_are_refused(device, monkeypatch):
    program = Problem(device, "elman", 1).on_device()[0]
    monkeypatch.setattr(launching.cuda, "attribute", lambda *_: 64)
    with pytest.raises(NotTraceable, match="do not fit in a multiprocessor's memory"):
        launching.plan(program, 1)


# --- multiple shooting -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dtype"), [("elman", np.float64), ("gru", np.float32), ("lstm", np.float32)]
)
def test_shooting_equals_that_on_the_host(device, name, dtype):
    problem = Problem(device, name, 411, batch=3, dtype=dtype)
    (h, shot), (expected, host) = problem.shoot(100), problem.shoot_on_host(100)
    tolerance = problem.bounds[0]
    assert shot.joined.all()
    assert not shot.finite
    np.testing.assert_allclose(h.get(), expected, atol=30 * tolerance)
    np.testing.assert_allclose(h.get(), problem.expected, atol=30 * tolerance)
    np.testing.assert_allclose(shot.norms[0], host.norms[0], rtol=1e-4)
    assert (shot.norms[1] <= tolerance / 16 * (1 + np.abs(expected).max())).all()
    assert abs(shot.evaluations - host.evaluations) <= 12  # rounding: a row may meet a step later
    assert {type(a) for a in shot} == {type(a) for a in host}


@pytest.mark.parametrize(("T", "chunk"), [(0, 7), (1, 1), (2, 1), (17, 2), (100, 7), (100, 1000)])
def test_any_length_in_any_chunks(device, T, chunk):
    problem = Problem(device, "elman", T, batch=2)
    h, shot = problem.shoot(chunk, (1e-13, 0))
    _, host = problem.shoot_on_host(chunk, (1e-13, 0))
    assert shot.norms.shape == (2, 2)
    np.testing.assert_array_equal(shot.joined, host.joined)
    if shot.joined.all():
        np.testing.assert_allclose(h.get(), problem.expected, atol=1e-12)


def test_no_sequences(device):
    problem = Problem(device, "elman", 5, batch=0)
    h, shot = problem.shoot(2)
    assert h.shape == (5, 0, 6)
    assert shot.joined.shape == (0,)


def test_no_tolerance_is_met_by_equal_bits(device):
    problem = Problem(device, "gru", 600, dtype=np.float32)
    h, shot = problem.shoot(200, (0, 0))
    assert shot.joined.all()
    np.testing.assert_array_equal(shot.norms[1], 0)
    np.testing.assert_array_equal(h.get(), problem.rollout())


def test_what_does_not_forget_is_given_up(device):
    """Two sequences of one network, chaotic with a gain of 4 and forgetting with one of 0.3."""

    def step(h, x, W):
        gain, drive = np.split(x, 2, axis=-1)
        return np.tanh(gain * (h @ W) + drive)

    d, T = 20, 500
    W = np.random.default_rng(0).normal(size=(d, d)) / np.sqrt(d)
    problem = Problem(device, None, T, batch=2, step=(step, d, 2 * d, W))
    problem.x *= 0.1
    problem.x[:, 0, :d], problem.x[:, 1, :d] = 4.0, 0.3
    device_h, shot = problem.shoot(50)
    h = device_h.get()
    assert shot.joined.tolist() == [False, True]
    assert shot.evaluations <= (dense_shooting.MOST_EVALUATIONS + 1) * 2 * T
    assert shot.norms[1, 0] > 1e-3
    F = h - step(np.concatenate([problem.h0[None], h[:-1]]), problem.x, W)
    np.testing.assert_allclose(np.abs(F).max(axis=(0, 2)), shot.norms[1], atol=1e-14)
    np.testing.assert_allclose(h[:, 1], problem.expected[:, 1], atol=1e-11)


@pytest.mark.parametrize("where", ["x", "h0"])
def test_nan_touches_no_other_sequence_and_nothing_before(device, where):
    T, bad = 300, 120
    problem = Problem(device, "gru", T, batch=3)
    if where == "x":
        problem.x[bad, 1, 2] = np.nan
    else:
        problem.h0[1, 3], bad = np.nan, 0
    expected = problem.expected
    for chunk in (20, 100, 1000):
        device_h, shot = problem.shoot(chunk)
        h = device_h.get()
        np.testing.assert_allclose(h[:, [0, 2]], expected[:, [0, 2]], atol=1e-11)
        np.testing.assert_allclose(h[:bad, 1], expected[:bad, 1], atol=1e-11)
        assert shot.joined[[0, 2]].all()
        assert shot.joined[1] == problem.shoot_on_host(chunk)[1].joined[1]
        if shot.joined[1]:
            assert np.isnan(h[bad:, 1]).any(axis=-1).all()


@pytest.mark.double
def test_only_the_account_comes_to_the_host(device):
    problem = Problem(device, "gru", 400, batch=2)
    program, x, h0, theta = problem.on_device()
    h = device.empty((400, 2, 6))
    fake_cupy.copies.clear()
    cuda_shooting.shoot_dense(program, x, h0, theta, h, bounds=problem.bounds, chunk=100)
    rows = 8
    assert sum(fake_cupy.copies.to_host) <= rows * 24 * 3
    assert sum(fake_cupy.copies.to_device) <= 3 * (rows * 24 + 2 * 200)


# --- how long chunks should be -----------------------------------------------------------------


def test_memory_is_measured(device):
    problem = Problem(device, "gru", 2000)
    program, x, h0, theta = problem.on_device()
    memory = cuda_shooting.forgetting(program, x, h0, theta, 2000)
    host = compile_dense(trace_dense(problem.step, problem.h0, problem.x, problem.theta))
    from pararnn_solvers.compiled import dense_policy

    as_many = 64 * dense_policy.PROBED_SHARE  # of which both look at 64
    expected = dense_policy.forgetting(host, problem.x, problem.h0, problem.theta, as_many)
    assert memory.steps == pytest.approx(expected.steps, rel=0.1)


@pytest.mark.parametrize(
    "gain, steps", [(0.9, np.log(np.finfo(float).eps) / np.log(0.9)), (1.1, np.inf)]
)
def test_memory_longer_than_the_probe_is_that_of_its_rate(device, gain, steps):
    """Of the step ``h W`` with W a rotation times a gain, what is apart goes by the gain."""
    turn = gain * np.kron(np.eye(3), np.array([[0.0, 1.0], [-1.0, 0.0]]))
    problem = Problem(device, None, 2000, step=(lambda h, x, W: h @ W, 6, None, turn))
    program, x, h0, theta = problem.on_device()
    memory = cuda_shooting.forgetting(program, x, h0, theta, 2000)
    assert memory.steps == pytest.approx(steps, rel=0.05)
    assert memory.rate == pytest.approx(np.log(gain), rel=0.05)


@pytest.mark.double
def test_chunks_are_no_shorter_than_memory_and_worth_it_when_there_are_few_sequences(device):
    program = Problem(device, "gru", 1, dtype=np.float32, n=64).on_device()[0]
    chunk, share = cuda_shooting.best_chunk(program, 1, 1 << 16, Memory(100.0, np.nan))
    assert 100 <= chunk < 1 << 14
    assert share < 0.2
    many = cuda_shooting.best_chunk(program, 1 << 12, 1 << 10, Memory(100.0, np.nan))[1]
    assert many > 0.7
    assert cuda_shooting.best_chunk(program, 1, 1000, Memory(np.inf, 0.1)) == (1000, np.inf)


# --- what is refused ---------------------------------------------------------------------------


def test_without_inputs_steps_are_needed(device):
    program, _, h0, theta = Problem(device, "autonomous", 5).on_device()
    with pytest.raises(InvalidInput, match="pass steps"):
        cuda_shooting.rollout_dense(program, None, h0, theta)


def test_other_sizes_than_traced_are_refused(device):
    program, x, h0, theta = Problem(device, "gru", 5).on_device()
    with pytest.raises(InvalidInput, match="trace step again"):
        cuda_shooting.rollout_dense(program, x[..., :3], h0, theta)


def test_functions_without_a_kernel_are_refused(device):
    step = lambda h, x, W: np.spacing(h @ W)  # noqa: E731
    W = device.ones((4, 4))
    with pytest.raises(NotTraceable, match="spacing"):
        compile_dense_cuda(trace_dense(step, device.ones(4), None, W))
    half = device.ones(4, np.float16)
    with pytest.raises(NotTraceable, match="float16"):
        compile_dense_cuda(trace_dense(lambda h, x, W: h @ W, half, None, W))


def test_decisions_by_values_on_the_device_are_refused(device):
    def step(h, x, W):
        return np.tanh(h @ (W if np.allclose(W, 0) else 2 * W))

    trace_dense(step, np.ones(4), None, np.ones((4, 4)))
    with pytest.raises(NotTraceable, match="values of theta"):
        trace_dense(step, device.ones(4), None, device.ones((4, 4)))


# --- what the compiler makes of it -------------------------------------------------------------


@pytest.mark.nvrtc
@pytest.mark.skipif(nvrtc.missing() is not None, reason=str(nvrtc.missing()))
@pytest.mark.parametrize(
    ("name", "dtype", "arch"), [("gru", np.float32, "sm_90"), ("lstm", np.float64, "sm_80")]
)
def test_nothing_spills_and_float32_stays_float32(device, name, dtype, arch):
    program = Problem(device, name, 1, dtype=dtype).on_device()[0]
    tiles = [(1, 1), (4, 1), (8, 2)] if dtype == np.float32 else [(1, 1), (4, 1)]
    words = program.numbers * program.trace.dtype.itemsize // 4
    assert all(r * c * words <= launching.REGISTERS for r, c in tiles)
    compiled = nvrtc.compile(program.code, [f"march<{r}, {c}>" for r, c in tiles], arch)
    assert len(compiled.spills) == len(tiles)
    assert set(compiled.spills.values()) == {0}
    if dtype == np.float32:
        assert compiled.float64 == {}
