"""What ``method="auto"`` chooses where kernels run: choices and notes, no times."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.compilation import with_program
from pararnn_solvers.compiled import dense_policy, shooting_policy
from pararnn_solvers.compiled.shooting_policy import Memory
from pararnn_solvers.linear import threads
from pararnn_solvers.solvers.auto import choose
from pararnn_solvers.solvers.compiled_shooting import CompiledShooting
from pararnn_solvers.solvers.sequential import Sequential
from tests.compiled.cases import diagonal, program_of, system_of
from tests.strategies import Case


def single(**options):
    return diagonal(dtype=np.float32, **options)


@pytest.fixture(params=[1, 2, 8])
def workers(request):
    before = threads.num_threads()
    threads.set_num_threads(request.param)
    yield request.param
    threads.set_num_threads(before)


def chosen(case):
    return choose(with_program(system_of(case), "auto", True))


def linear_step(h, x, a):
    return a * h + x


def linear(a, n=1, T=1 << 18):
    x = np.random.default_rng(0).standard_normal((T, n)).astype(np.float32)
    step = prs.Recurrence(linear_step, block_size=1)
    return Case(step, x, np.zeros(n, np.float32), np.float32(a), T, a)


def logistic_step(h, x, r):
    return r * h * (1 - h)


def logistic(n, T, r=3.9):
    h0 = np.linspace(0.2, 0.8, n).astype(np.float32)
    return Case(prs.Recurrence(logistic_step, block_size=1), None, h0, np.float32(r), T, r)


def dense_step(h, x, W):
    return np.tanh(h @ W + x)


def dense(d=128, T=4096, batch=(), radius=0.5):
    rng = np.random.default_rng(0)
    W = (radius / np.sqrt(d) * rng.standard_normal((d, d))).astype(np.float32)
    x = rng.standard_normal((T, *batch, d)).astype(np.float32)
    return Case(prs.Recurrence(dense_step), x, np.zeros((*batch, d), np.float32), W, T, radius)


# --- channelwise ---------------------------------------------------------------------------------


def test_one_channel_that_forgets_is_shot_by_chunks_that_meet(workers):
    method, why = chosen(single(n=1, T=1 << 17))
    assert isinstance(method, CompiledShooting)
    assert method.forgets
    assert 16 <= method.chunk <= 1 << 14
    assert why.startswith("what came before is forgotten in ")


def test_channels_that_fill_vectors_are_stepped(workers):
    method, why = chosen(single(n=2000, T=300))
    assert isinstance(method, Sequential)
    if workers == 1:  # more threads would rather have chunks, of more steps than these
        assert "fill the processor" in why


def test_sequences_that_fill_vectors_are_stepped(workers):
    method, _ = chosen(diagonal(n=2, T=200, batch=(4000,)))
    assert isinstance(method, Sequential)


def test_few_steps_are_not_probed(workers, monkeypatch):
    monkeypatch.setattr(shooting_policy, "forgetting", None)
    method, why = chosen(single(n=1, T=1000))
    assert isinstance(method, Sequential)
    assert why == "1000 steps are too few for chunks to pay"


@pytest.mark.parametrize("n", [1, 2, 16, 20])
@pytest.mark.parametrize("T", [4096, 1 << 16, 1 << 18])
def test_a_chaotic_recurrence_is_stepped(n, T):
    """Its states are bounded: after a while two trajectories part no farther."""
    method, why = chosen(logistic(n, T))
    assert isinstance(method, Sequential)
    assert "exp(+" in why or "too few" in why


def test_a_recurrence_that_only_remembers_is_stepped():
    method, why = chosen(linear(1.0, T=1 << 20))
    assert isinstance(method, Sequential)
    assert why.startswith("perturbations change by exp(") or "would not pay" in why


def test_a_long_memory_of_a_wide_state_is_stepped():
    method, why = chosen(linear(0.9995, n=32, T=30_000))
    assert isinstance(method, Sequential)
    assert "chunks would not pay" in why or "too few" in why


def test_a_long_memory_of_one_channel_is_corrected():
    before = threads.num_threads()
    threads.set_num_threads(8)
    try:
        method, why = chosen(linear(0.9999, T=1 << 20))
    finally:
        threads.set_num_threads(before)
    assert isinstance(method, CompiledShooting)
    assert not method.forgets
    assert method.chunk >= shooting_policy.SHORTEST_CORRECTED
    assert "forgotten in" in why


def test_a_longer_memory_never_makes_shooting_cheaper():
    made = program_of(single(n=1, T=1))
    costs = [
        shooting_policy.best_chunk(made, 1, 1 << 18, Memory(s, -1))[1] for s in 2.0 ** np.r_[:18]
    ]
    assert costs == sorted(costs)


def test_more_steps_make_shooting_no_dearer_a_step():
    made = program_of(single(n=1, T=1))
    costs = [shooting_policy.best_chunk(made, 1, 2**i, Memory(30, -1))[1] for i in range(12, 24)]
    assert costs[-1] < 0.25
    assert costs[-1] < costs[0]


def test_a_step_of_few_operations_needs_more_steps_before_chunks_pay():
    T = 1 << 16
    assert isinstance(chosen(linear(0.5, T=T))[0], Sequential)
    assert isinstance(chosen(linear(0.5, T=16 * T))[0], CompiledShooting)
    assert isinstance(chosen(single(n=1, T=T))[0], CompiledShooting)  # with a tanh


def test_auto_and_what_it_chose_agree():
    case = single(n=1, T=1 << 17)
    solution = prs.solve(*case[:4], compiled=True)
    assert solution.status is prs.Status.CONVERGED
    assert solution.method.startswith("newton(chunk=")
    assert solution.note.startswith("auto: what came before is forgotten in ")


# --- dense ---------------------------------------------------------------------------------------


def test_a_dense_recurrence_that_forgets_is_shot(workers):
    method, why = chosen(dense())
    assert isinstance(method, CompiledShooting)
    assert method.chunk == -(-4096 // (8 * workers)) or method.chunk >= 4096 // 64
    assert why.startswith("what came before is forgotten in ")


def test_a_dense_recurrence_that_does_not_forget_is_stepped(workers):
    method, why = chosen(dense(d=48, T=20_000, radius=4.0))
    assert isinstance(method, Sequential)
    assert why.startswith("perturbations change by exp(+")


def test_a_batch_that_fills_blocks_of_rows_is_stepped(workers):
    method, why = chosen(dense(d=32, T=100, batch=(64 * workers,)))
    assert isinstance(method, Sequential)
    assert why == "the channels and sequences of a step fill the processor"


def test_few_steps_of_a_small_dense_recurrence_are_stepped(workers):
    method, why = chosen(dense(d=16, T=300))
    assert isinstance(method, Sequential)
    assert why == "300 steps are too few for chunks to pay"


def test_a_dense_chunk_is_no_shorter_than_its_memory():
    system = with_program(system_of(dense()), "auto", True)
    chunk, cost = dense_policy.best_chunk(system.dense, 1, 4096, Memory(1000.0, -0.01))
    assert chunk >= 1000 or cost == np.inf
    assert dense_policy.best_chunk(system.dense, 1, 4096, Memory(5000.0, -0.01))[1] == np.inf
