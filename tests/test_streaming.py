"""A stream of chunks is solved as one trajectory would be, in memory for one chunk."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import compilation
from pararnn_solvers.errors import ConvergenceError, ConvergenceWarning, InvalidInput, NotTraceable
from tests.device.cases import assert_same, inputs, on_device, scan
from tests.device.cases import step as step_of_device
from tests.strategies import BATCHES, DTYPES, SEEDS, allowed_error, block_tanh, gru, rollout

CUTS = st.lists(st.integers(0, 16), max_size=6).map(sorted)
FREE = {"compiled": False, "backend": "sequential"}
OVERFLOWING = [np.zeros((3, 1)), np.full((40, 1), 3.0), np.zeros((3, 1))]  # the second one, squared


def stream(case, chunks, **options):
    return prs.stream(case.recurrence, chunks, case.h0, case.theta, **options)


def cut(x, cuts):
    return np.split(x, [min(c, len(x)) for c in cuts])


def joined(solutions):
    return np.concatenate([solution.h for solution in solutions])


def explosive(h, x, theta):
    return h * h + x


# --- the numbers ---------------------------------------------------------------------------------


@given(cuts=CUTS, batch=BATCHES, dtype=DTYPES, seed=SEEDS, k=st.integers(1, 3))
def test_chunks_of_any_lengths_join(cuts, batch, dtype, seed, k):
    case = block_tanh(k=k, T=16, batch=batch, dtype=dtype, seed=seed)
    expected = rollout(case)
    for method in ["sequential", "newton"]:
        chunks = cut(case.x, cuts)
        solutions = list(stream(case, chunks, method=method, **FREE))
        assert [len(s.h) for s in solutions] == [len(x) for x in chunks]
        found = joined(solutions)
        assert found.dtype == dtype
        if method == "sequential":
            np.testing.assert_array_equal(found, expected)
        else:
            assert np.abs(found - expected).max() <= allowed_error(case)


@settings(max_examples=10)
@given(cuts=CUTS, batch=BATCHES, dtype=DTYPES, n=st.sampled_from([3, 16]))
def test_compiled_chunks_join_bit_for_bit_however_they_are_cut(cuts, batch, dtype, n):
    case = gru(n=n, T=16, batch=batch, dtype=dtype)
    expected = prs.rollout(*case[:4], compiled=True)
    solutions = list(stream(case, cut(case.x, cuts), method="sequential"))
    np.testing.assert_array_equal(joined(solutions), expected)
    assert all(solution.compiled for solution in solutions if len(solution.h))


@pytest.mark.parametrize("method", ["auto", "newton", "quasi_newton", prs.newton(chunk=5)])
def test_methods_agree_with_the_whole(method):
    case = gru(n=4, T=200, batch=(2,))
    for compiled in [None, False]:
        found = stream(case, cut(case.x, [3, 70, 70, 150]), method=method, compiled=compiled)
        whole = prs.solve(*case[:4], method=method)
        assert np.abs(joined(found) - whole.h).max() <= 2 * allowed_error(case)


@pytest.mark.parametrize("compiled", [None, False])
def test_without_input_chunks_are_numbers_of_steps(compiled):
    case = block_tanh(k=2, T=16, batch=(3,), x=False)
    expected = prs.rollout(case.recurrence, None, *case[2:4], steps=16, compiled=compiled is None)
    options = {"method": "sequential", "compiled": compiled}
    for chunks in [[16], [5, 0, np.int64(11)]]:
        np.testing.assert_array_equal(joined(stream(case, chunks, **options)), expected)


def test_what_cannot_be_compiled_runs_itself():
    def step(h, x, theta):
        return np.sort(np.tanh(h + x), axis=-1)

    x = np.random.default_rng(0).standard_normal((20, 3))
    solutions = list(prs.stream(step, cut(x, [6, 13]), np.zeros(3)))
    assert not any(solution.compiled for solution in solutions)
    np.testing.assert_allclose(joined(solutions), prs.rollout(step, x, np.zeros(3)), atol=1e-9)
    with pytest.raises(NotTraceable, match="chunk 0: "):
        list(prs.stream(step, [x], np.zeros(3), compiled=True))


def test_on_a_device_everything_stays_there(device):
    x, h0, theta = inputs()
    moved_x, moved_h0, moved_theta = on_device(device, (x, h0, theta))
    chunks = [moved_x[:20], moved_x[20:20], moved_x[20:]]
    options = {"backend": scan, "compiled": False}
    found = [s.h for s in prs.stream(step_of_device, chunks, moved_h0, moved_theta, **options)]
    expected = prs.rollout(step_of_device, x, h0, theta)
    assert_same(found[0], expected[:20], rtol=1e-9)
    assert_same(found[2], expected[20:], rtol=1e-9)
    with pytest.raises(InvalidInput, match="chunk 1: arrays are in 2 places"):
        list(prs.stream(step_of_device, [moved_x, x], moved_h0, moved_theta, **options))


# --- laziness, memory, work ----------------------------------------------------------------------


def test_a_chunk_is_taken_when_its_solution_is_asked_for():
    taken = []

    def chunks():
        for i in range(3):
            taken.append(i)
            yield np.ones((2, 1))

    solutions = prs.stream(lambda h, x, _: h + x, chunks(), np.zeros(1), **FREE)
    assert taken == []
    assert next(solutions).h.ravel().tolist() == [1, 2]
    assert taken == [0]
    assert [s.h[-1, 0] for s in solutions] == [4, 6]


@pytest.mark.parametrize("compiled", [True, False])
def test_memory_does_not_grow_with_the_number_of_chunks(compiled):
    case, row = gru(n=16, T=1), np.zeros(48)

    def peak(count):
        chunks = (np.full((500, 48), 0.1) + row for _ in range(count))
        gc.collect()
        tracemalloc.start()
        for solution in stream(case, chunks, method="sequential", compiled=compiled):
            del solution
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    few, many = peak(3), peak(12)
    assert many < few + 100_000  # of 192 kB that x has in each chunk
    assert few < 1_500_000


def test_a_stream_that_is_closed_early_holds_nothing():
    case = gru(T=4)
    kept = []

    def chunks():
        while True:
            x = case.x.copy()
            kept.append(weakref.ref(x))
            yield x
            del x

    source = chunks()
    solutions = stream(case, source, **FREE)
    found = weakref.ref(next(solutions))
    next(solutions)
    gc.collect()
    assert found() is None
    solutions.close()
    next(source)  # is the caller's, and goes on
    source.close()
    gc.collect()
    assert [x() for x in kept] == [None] * 3
    assert next(solutions, None) is None


def test_a_step_is_traced_once(monkeypatch):
    traces, trace = [], compilation.traced
    monkeypatch.setattr(compilation, "_known", {})
    monkeypatch.setattr(compilation, "traced", lambda s: [traces.append(1), trace(s)][1])
    case = gru(T=40)
    list(stream(case, cut(case.x, range(4, 40, 4))))
    assert len(traces) == 1


def test_options_are_those_of_solve():
    case, seen = gru(T=12), []
    options = {"callback": seen.append, "guess": "repeat_h0", "atol": 1e-12, "rtol": 0.0}
    solutions = list(stream(case, cut(case.x, [5]), method="newton", **options, **FREE))
    assert {s.backend for s in solutions} == {"sequential"}
    assert all(s.stopping.atol == 1e-12 for s in solutions)
    assert len(seen) == sum(s.n_iter + 1 for s in solutions)
    assert prs.gradients(solutions[1], np.ones_like(solutions[1].h)).h0.shape == (3,)


# --- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(("second", "message"), [
    (np.ones((4, 2, 5)), r"chunk 1: x has shape \(4, 2, 5\) .* chunk 0 had shape \(3, 2, 9\)"),
    (np.ones((4, 3, 9)), r"chunk 1: x has shape \(4, 3, 9\) .* shape \(3, 2, 9\)"),
    (np.ones((2, 9)), r"chunk 1: x has shape \(2, 9\) .* expected \(T, 2, 9\)"),
    (np.ones((4, 2, 9), np.float32), "chunk 1: .* dtype float32, .* dtype float64"),
    (None, "chunk 1: x is None"),
    (4, "chunk 1: chunk 0 and it are an array and a number"),
    (np.full((4, 2, 9), np.nan), "chunk 1: x is nan"),
])  # fmt: skip
def test_a_ragged_chunk_is_named(second, message):
    case = gru(T=3, batch=(2,))
    solutions = stream(case, [case.x, second], **FREE)
    assert next(solutions).success
    with pytest.raises(InvalidInput, match=message):
        next(solutions)
    assert next(solutions, None) is None


@pytest.mark.parametrize(("first", "message"), [
    (np.ones((4, 3, 9)), r"chunk 0: x has shape \(4, 3, 9\); expected .* h0, .* shape \(2, 3\)"),
    (np.ones((4, 2, 9), np.float32), "chunk 0: x is float32 and h0 float64"),
    (np.ones((4, 2, 9), int), "chunk 0: x is int64"),
])  # fmt: skip
def test_a_first_chunk_must_fit_the_states(first, message):
    with pytest.raises(InvalidInput, match=message):
        next(stream(gru(T=3, batch=(2,)), [first], **FREE))


@pytest.mark.parametrize(("chunk", "message"), [
    (-1, "chunk 1: steps is -1"),
    (True, "chunk 1: steps is True"),
    (np.ones((4, 1)), "chunk 1: chunk 0 and it are an array and a number"),
])  # fmt: skip
def test_a_wrong_number_of_steps_is_named(chunk, message):
    solutions = prs.stream(lambda h, x, _: h / 2, [3, chunk], np.ones(1), **FREE)
    assert next(solutions).h.ravel().tolist() == [0.5, 0.25, 0.125]
    with pytest.raises(InvalidInput, match=message):
        next(solutions)


def test_an_iterator_that_is_used_up_is_no_stream():
    case = gru()
    chunks = iter([case.x])
    assert len(list(stream(case, chunks, **FREE))) == 1
    for empty in [chunks, []]:
        with pytest.raises(InvalidInput, match="no chunk 0: it is empty, or an iterator that was"):
            list(stream(case, empty, **FREE))


@pytest.mark.parametrize(("chunks", "options", "message"), [
    (5, {}, "chunks is 5; expected an iterable"),
    (np.ones((4, 9)), {}, r"chunks is one array of shape \(4, 9\)"),
    ([], {"lengths": [1]}, "a stream has no lengths"),
    ([], {"resets": [1]}, "a stream has no resets"),
    ([], {"steps": 4}, "a stream has no steps"),
    ([], {"guess": np.ones((4, 3))}, "guess is an array"),
    ([], {"metod": "newton"}, "no option metod; expected any of atol, backend"),
    ([], {"method": "newtn"}, "newtn"),
    ([], {"atol": -1.0}, "atol"),
    ([], {"compiled": "yes"}, "compiled is 'yes'"),
    ([], {"on_failure": "cry"}, "on_failure is 'cry'"),
])  # fmt: skip
def test_arguments_are_checked_at_once(chunks, options, message):
    with pytest.raises(InvalidInput, match=message):
        stream(gru(), chunks, **options)
    with pytest.raises(InvalidInput, match="h0 is int64"):
        prs.stream(explosive, [], np.zeros(2, int))


def test_a_failure_names_its_chunk_and_carries_its_solution():
    solutions = prs.stream(explosive, OVERFLOWING, np.ones(1), method="newton", **FREE)
    next(solutions)
    with pytest.raises(ConvergenceError, match="^chunk 1: ") as raised:
        next(solutions)
    assert raised.value.solution.h.shape == (40, 1)


def test_a_chunk_does_not_start_where_the_one_before_overflowed():
    options = {"method": "sequential", "on_failure": "warn", **FREE}
    solutions = prs.stream(explosive, OVERFLOWING, np.ones(1), **options)
    next(solutions)
    with pytest.warns(ConvergenceWarning, match="^chunk 1: ") as caught:
        assert not next(solutions).success
    assert caught[0].filename == __file__
    with pytest.raises(InvalidInput, match=r"chunk 2: .* not finite, where chunk 1 ended \(DIVERG"):
        next(solutions)


def test_an_error_of_the_step_says_in_which_chunk():
    def step(h, x, theta):
        if (x > 5).any():
            raise RuntimeError("mine")
        return h + x

    chunks = [np.ones((2, 1)), np.full((5, 1), 9.0)]
    with pytest.raises(RuntimeError, match="mine") as raised:
        list(prs.stream(step, chunks, np.zeros(1), method="newton", **FREE))
    assert any("chunk 1 of a stream" in note for note in raised.value.__notes__)
