"""Padded and packed batches are their sequences solved alone, by every method, gradients too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pararnn_solvers as prs
from pararnn_solvers import tree
from pararnn_solvers.cells import diagonal_gru, diagonal_lstm
from pararnn_solvers.sequences import marks as marking
from pararnn_solvers.sequences import reversed_within
from pararnn_solvers.solvers import METHODS
from tests.cuda_on_cpu.fake_array import copies
from tests.dense_steps import DENSE, dense
from tests.device.cases import on_device, to_host
from tests.test_sensitivities import STEP

T, B, N = 12, 4, 3
LENGTHS = np.array([12, 7, 0, 1])
TIGHT = {"atol": 1e-12, "rtol": 0.0}
CONSTRUCTORS = {name: name for name in METHODS} | {"relaxation": prs.relaxation(0.9)}


def elman(h, x, theta):
    return np.tanh(h @ theta["W"] + x + theta["b"])


def problem(name, dtype=np.float64, batch=(B,), seed=0, steps=T):
    """A recurrence, its drives (NaN in no place), starts that differ, and theta."""
    rng = np.random.default_rng(seed)
    if name == "elman":
        theta = {"W": 0.3 * rng.standard_normal((N, N)), "b": rng.standard_normal(N)}
        recurrence, d, m = prs.Recurrence(elman), N, N
    else:
        cell, k = {"gru": (diagonal_gru, 1), "lstm": (diagonal_lstm, 2)}[name]
        theta, recurrence, d, m = cell.init(rng, N, N), cell.recurrence, k * N, 3 * N
    leaves, rebuild = tree.flatten(theta)
    theta = rebuild([leaf.astype(dtype) for leaf in leaves])
    x = rng.standard_normal((steps, *batch, m)).astype(dtype)
    return recurrence, x, 0.5 * rng.standard_normal((*batch, d)).astype(dtype), theta


def spoil(x, lengths):
    """Put NaN in the padding."""
    x = x.copy()
    for b in np.ndindex(*lengths.shape):
        x[(slice(lengths[b], None), *b)] = np.nan
    return x


def flags(seed=0, shape=(T, B), share=0.2):
    return np.random.default_rng(seed).random(shape) < share


def segments(length, resets):
    """Where a sequence is cut by its resets: (start, stop) of each part."""
    cuts = [0, *(t for t in range(1, length) if resets is not None and resets[t]), length]
    return list(zip(cuts, cuts[1:], strict=False)) if length else []


def alone(recurrence, x, h0, theta, lengths, resets, dh, **options):
    """States, and gradients of ``<dh, h>``, of the parts of each sequence solved alone."""
    h, grads = np.empty_like(dh), [np.zeros_like(x), np.zeros_like(h0)]
    dtheta = [np.zeros_like(leaf) for leaf in tree.flatten(theta)[0]]
    for b in range(x.shape[1]):
        length = x.shape[0] if lengths is None else lengths[b]
        g = dh[:, b].copy()
        h[length:, b] = h0[b]
        if not length:
            grads[1][b] += g.sum(axis=0)
        else:
            g[length - 1] += g[length:].sum(axis=0)
        for start, stop in segments(length, None if resets is None else resets[:, b]):
            part = slice(start, stop)
            one = prs.solve(recurrence, x[part, b], h0[b], theta, **options)
            h[part, b], h[length:, b] = one.h, one.h[-1]
            found = prs.gradients(one, g[part])
            grads[0][part, b] = found.x
            grads[1][b] += found.h0
            for total, part_of in zip(dtheta, tree.flatten(found.theta)[0], strict=True):
                total += part_of
    return h, (dtheta, *grads)


def assert_is_alone(given_problem, lengths, resets, options, atol=1e-8):
    recurrence, x, h0, theta = given_problem
    given_x = x if lengths is None else spoil(x, lengths)
    found = prs.solve(recurrence, given_x, h0, theta, lengths=lengths, resets=resets, **options)
    assert found.h.dtype == h0.dtype
    dh = np.random.default_rng(1).standard_normal(found.h.shape).astype(h0.dtype)
    alone_options = {"method": "sequential", "compiled": False}
    h, (dtheta, dx, dh0) = alone(*given_problem, lengths, resets, dh, **alone_options)
    np.testing.assert_allclose(found.h, h, atol=atol)
    np.testing.assert_array_equal(found.final, found.h[-1])
    grads = prs.gradients(found, dh)
    np.testing.assert_allclose(grads.x, dx, atol=100 * atol)
    np.testing.assert_allclose(grads.h0, dh0, atol=100 * atol)
    for a, b in zip(tree.flatten(grads.theta)[0], dtheta, strict=True):
        np.testing.assert_allclose(a, b, atol=1000 * atol)
    if lengths is not None:
        outside = np.arange(len(x))[:, None] >= lengths
        assert not grads.x[outside].any()
    return found


@given(st.data(), st.sampled_from(["gru", "lstm", "elman"]), st.booleans())
@settings(max_examples=15)
def test_a_batch_is_its_sequences_alone(data, name, compiled):
    lengths = np.array(data.draw(st.lists(st.integers(0, T), min_size=B, max_size=B)))
    share, seed = data.draw(st.sampled_from([0.0, 0.1, 0.4])), data.draw(st.integers(0, 99))
    resets = data.draw(st.sampled_from([None, flags(seed, share=share)]))
    chosen = data.draw(st.sampled_from([lengths, None]))
    assert_is_alone(problem(name, seed=seed), chosen, resets, {"compiled": compiled, **TIGHT})


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CONSTRUCTORS)
@pytest.mark.parametrize("cell", ["gru", "lstm", "elman"])
def test_every_method_solves_a_batch_as_its_sequences(cell, name, compiled):
    if compiled and cell == "elman" and name not in ("auto", "sequential"):
        pytest.skip("dense steps have kernels for auto, sequential and chunks only")
    options = {"method": CONSTRUCTORS[name], "compiled": compiled, "max_iter": 300}
    found = assert_is_alone(problem(cell), LENGTHS, flags(), options | TIGHT)
    assert found.compiled == compiled or name == "levenberg_marquardt"


@pytest.mark.parametrize("method", ["jacobi", "newton", "quasi_newton", "chord"])
def test_padding_takes_no_iterations(method):
    """As many as the longest sequence alone, whatever is left of T. (Picard supposes A = 1.)"""
    recurrence, x, h0, theta = problem("gru")
    lengths = np.full(B, 5)
    padded = prs.solve(recurrence, x, h0, theta, lengths=lengths, method=method)
    short = prs.solve(recurrence, x[:5], h0, theta, method=method)
    assert padded.n_iter == short.n_iter


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm", "elman"])
def test_chunks_mind_lengths_and_resets(cell, compiled):
    lengths, resets = np.array([100, 65, 0, 17]), flags(shape=(100, B), share=0.02)
    options = {"method": prs.newton(chunk=16), "compiled": compiled, **TIGHT}
    found = assert_is_alone(problem(cell, steps=100), lengths, resets, options)
    assert found.compiled == compiled


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm", "elman"])
def test_float32_stays_float32(cell, compiled):
    options = {"compiled": compiled}
    assert_is_alone(problem(cell, np.float32), LENGTHS, flags(), options, atol=1e-5)


@pytest.mark.parametrize("backend", ["numba", "sequential", "scipy"])
def test_every_backend(backend):
    options = {"backend": backend, "method": "newton", "compiled": False, **TIGHT}
    assert_is_alone(problem("gru"), LENGTHS, flags(), options)


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("resets", [None, flags()], ids=["lengths", "resets"])
@pytest.mark.parametrize("m", [4, 6])
def test_dense_kernels_of_many_kinds(name, resets, m):
    rng = np.random.default_rng(0)
    step, d, m, theta = dense(name, rng, n=6, m=m)
    x = None if m is None else rng.standard_normal((T, B, m))
    h0 = np.tile(0.3 * rng.standard_normal(d), (B, 1))
    options = {"steps": T if x is None else None, "lengths": LENGTHS, "resets": resets}
    found = prs.solve(step, x, h0, theta, compiled=True, **options)
    expected = prs.rollout(step, x, h0, theta, compiled=False, **options)
    assert found.compiled
    np.testing.assert_allclose(found.h, expected, atol=1e-12)


@pytest.mark.parametrize("resets", [None, flags()], ids=["lengths", "resets"])
@pytest.mark.parametrize("same", [True, False], ids=["one start", "starts"])
def test_drives_shared_by_all_channels(resets, same):
    """One column for three channels; kernels then want one start for all."""

    def step(h, x, a):
        return np.tanh(a * h + x)

    rng = np.random.default_rng(0)
    x, h0 = rng.standard_normal((T, B, 1)), np.tile(rng.standard_normal(N), (B, 1))
    if not same:
        h0 += np.arange(B)[:, None]
    cell, a = prs.Recurrence(step, 1), np.array([0.5, -0.9, 0.3])
    assert_is_alone((cell, x, h0, a), LENGTHS, resets, {"compiled": False, **TIGHT})
    if same or resets is None:
        found = assert_is_alone((cell, x, h0, a), LENGTHS, resets, {"compiled": True})
        assert found.compiled
        return
    with pytest.raises(prs.NotTraceable) as caught:
        prs.solve(cell, x, h0, a, resets=resets, compiled=True)
    assert "same state" in caught.value.__notes__[0]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("batch", [(), (2, 2)])
def test_batch_axes_of_any_number(batch, compiled):
    recurrence, x, h0, theta = problem("lstm", batch=batch)
    lengths = np.random.default_rng(0).integers(0, T + 1, batch)
    resets = flags(shape=(T, *batch))
    options = {"lengths": lengths, "compiled": compiled, **TIGHT}
    found = prs.solve(recurrence, x, h0, theta, resets=resets, **options)
    dh = np.random.default_rng(1).standard_normal(found.h.shape)
    grads = prs.gradients(found, dh)
    flat_x, flat_h0 = x.reshape(T, -1, x.shape[-1]), h0.reshape(-1, h0.shape[-1])
    counts, marks = lengths.reshape(-1), resets.reshape(T, -1)
    options = {"method": "sequential", "compiled": False}
    h, (_, dx, dh0) = alone(
        recurrence, flat_x, flat_h0, theta, counts, marks, dh.reshape(T, len(counts), -1), **options
    )
    np.testing.assert_allclose(found.h, h.reshape(found.h.shape), atol=1e-9)
    np.testing.assert_allclose(grads.x, dx.reshape(x.shape), atol=1e-7)
    np.testing.assert_allclose(grads.h0, dh0.reshape(h0.shape), atol=1e-7)
    assert found.final.shape == h0.shape


def masked_rollout(step, x, h0, theta, lengths, resets):
    h, states = h0 + 0j, []
    for t in range(len(x)):
        before = np.where(resets[t][:, None], h0, h)
        h = np.where((t < lengths)[:, None], step(before, x[t], theta), h)
        states.append(h)
    return np.stack(states)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm", "elman"])
def test_gradients_and_jvp_are_those_of_complex_step_rollouts(cell, compiled):
    recurrence, x, h0, theta = problem(cell)
    resets, rng = flags(), np.random.default_rng(2)
    leaves, rebuild = tree.flatten(theta)
    along = [rng.standard_normal(np.shape(a)) for a in (x, h0, *leaves)]
    moved = [a + 1j * STEP * v for a, v in zip((x, h0, *leaves), along, strict=True)]
    states = masked_rollout(
        recurrence.step, moved[0], moved[1], rebuild(moved[2:]), LENGTHS, resets
    )
    found = prs.solve(
        recurrence, x, h0, theta, lengths=LENGTHS, resets=resets, compiled=compiled, **TIGHT
    )
    change = prs.jvp(found, dx=along[0], dh0=along[1], dtheta=rebuild(along[2:]))
    np.testing.assert_allclose(change, states.imag / STEP, atol=1e-9)
    dh = rng.standard_normal(found.h.shape)
    grads = prs.gradients(found, dh)
    ours = [grads.x, grads.h0, *tree.flatten(grads.theta)[0]]
    total = sum(float(np.sum(a * v)) for a, v in zip(ours, along, strict=True))
    np.testing.assert_allclose(total, np.sum(dh * states.imag) / STEP, rtol=1e-9)


def test_without_inputs():
    cell = prs.Recurrence(lambda h, x, a: np.cos(a * h), 1)
    h0, a, resets = np.random.default_rng(0).standard_normal((B, N)), 0.7, flags()
    for compiled in (False, True):
        options = {"steps": T, "lengths": LENGTHS, "compiled": compiled, **TIGHT}
        for given_flags in (None, resets):
            found = prs.solve(cell, None, h0, a, resets=given_flags, **options)
            x = np.zeros((T, B, N))
            assert prs.gradients(found, found.h).x is None
            driven = prs.Recurrence(lambda h, x, a: np.cos(a * h) + x, 1)
            other = prs.solve(driven, x, h0, a, resets=given_flags, lengths=LENGTHS, **TIGHT)
            np.testing.assert_allclose(found.h, other.h, atol=1e-10)
            ours, theirs = prs.gradients(found, found.h), prs.gradients(other, other.h)
            np.testing.assert_allclose(ours.h0, theirs.h0, atol=1e-8)
            np.testing.assert_allclose(ours.theta, theirs.theta, atol=1e-8)
            with pytest.raises(prs.InvalidInput, match="without x"):
                prs.jvp(found, dx=x)


@pytest.mark.parametrize("jacobian", ["cs", "2-point", "3-point", lambda h, x, a: a / np.cosh(a * h + x) ** 2])  # fmt: skip  # noqa: E501
def test_jacobians_of_the_users_and_differences(jacobian):
    cell = prs.Recurrence(lambda h, x, a: np.tanh(a * h + x), 1, jacobian=jacobian)
    rng = np.random.default_rng(0)
    made = (cell, rng.standard_normal((T, B, N)), rng.standard_normal((B, N)), np.full(N, 0.6))
    options = {"method": "newton", "atol": 1e-10, "rtol": 0.0}
    assert_is_alone(made, LENGTHS, flags(), options, atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_surrogate_vjp_is_used(compiled):
    def step(h, x, a):
        return np.tanh(a * h + x)

    def vjp(h, x, a, lam):
        return lam, 2 * lam, np.sum(lam, axis=tuple(range(lam.ndim - 1)))

    rng = np.random.default_rng(0)
    made = (
        prs.Recurrence(step, 1, vjp=vjp),
        rng.standard_normal((T, B, N)), rng.standard_normal((B, N)), np.full(N, 0.6),
    )  # fmt: skip
    assert_is_alone(made, LENGTHS, flags(), {"compiled": compiled, **TIGHT})


@pytest.mark.parametrize("compiled", [False, True])
def test_padding_is_never_evaluated_where_the_step_is_undefined(compiled):
    """Neither 0 nor NaN is put into a step that divides by its drives, derivatives included."""

    def vjp(h, x, a, lam):
        dx = -a * h * lam / x**2
        return a * lam / x, dx, np.sum(lam * h / x, axis=tuple(range(lam.ndim - 1)))

    rng = np.random.default_rng(0)
    x, h0, a = rng.uniform(2, 3, (T, B, N)), rng.standard_normal((B, N)), np.full(N, 0.6)
    for given_vjp in (None, vjp):
        cell = prs.Recurrence(lambda h, x, a: a * h / x + np.log(x), 1, vjp=given_vjp)
        assert_is_alone((cell, x, h0, a), LENGTHS, flags(), {"compiled": compiled, **TIGHT})


def test_padding_does_not_diverge():
    """An expansive recurrence overflows if it goes on for T steps, and not in its lengths."""
    cell = prs.Recurrence(lambda h, x, a: a * h * h + x, 1)
    x, h0, lengths = np.ones((T, 2, 1)), np.ones((2, 1)), np.array([3, 4])
    for compiled in (False, True):
        found = prs.solve(cell, x, h0, 2.0, lengths=lengths, compiled=compiled)
        np.testing.assert_allclose(found.final[:, 0], [723.0, 2 * 723.0**2 + 1])


def test_an_array_as_guess_may_hold_anything_in_the_padding():
    recurrence, x, h0, theta = problem("gru")
    guess = spoil(np.zeros((T, B, N)), LENGTHS)
    found = prs.solve(recurrence, x, h0, theta, lengths=LENGTHS, guess=guess, method="newton")
    np.testing.assert_allclose(
        found.h, prs.rollout(recurrence, x, h0, theta, lengths=LENGTHS), atol=1e-9
    )
    assert np.isnan(guess[-1, 1]).all()


def test_the_error_bound_is_that_of_the_sequences_alone():
    recurrence, x, h0, theta = problem("gru")
    options = {"atol": 1e-3, "rtol": 0.0, "method": "quasi_newton"}
    padded = prs.solve(recurrence, spoil(x, LENGTHS), h0, theta, lengths=LENGTHS, **options)
    error = np.abs(padded.h - prs.rollout(recurrence, x, h0, theta, lengths=LENGTHS))
    bound = padded.error_bound()
    assert (error <= 2 * bound + 1e-14).all()
    for b, length in enumerate(LENGTHS):
        assert (bound[length:, b] == (bound[length - 1, b] if length else 0)).all()


def test_full_lengths_change_nothing():
    recurrence, x, h0, theta = problem("gru")
    plain = prs.solve(recurrence, x, h0, theta)
    full = prs.solve(recurrence, x, h0, theta, lengths=np.full(B, T))
    assert full.sequences is None
    assert full.system.recurrence is recurrence
    np.testing.assert_array_equal(full.h, plain.h)
    np.testing.assert_array_equal(plain.final, plain.h[-1])


def test_no_steps_and_no_sequences():
    recurrence, x, h0, theta = problem("gru")
    none = prs.solve(recurrence, x[:0], h0, theta, lengths=np.zeros(B, int), resets=flags()[:0])
    np.testing.assert_array_equal(none.final, h0)
    np.testing.assert_array_equal(prs.gradients(none, none.h).h0, np.zeros_like(h0))
    empty = prs.solve(recurrence, x[:, :0], h0[:0], theta, lengths=[], resets=flags()[:, :0])
    assert empty.final.shape == (0, N)
    idle = prs.solve(recurrence, np.full_like(x, np.nan), h0, theta, lengths=np.zeros(B, int))
    np.testing.assert_array_equal(idle.h, np.broadcast_to(h0, idle.h.shape))
    grads = prs.gradients(idle, np.ones_like(idle.h))
    np.testing.assert_array_equal(grads.h0, np.full_like(h0, T))
    assert not grads.x.any()
    assert not grads.theta.a.any()


def test_what_is_not_finite_inside_a_sequence_is_found():
    recurrence, x, h0, theta = problem("gru")
    x = spoil(x, LENGTHS)
    x[3, 1, 2] = np.inf
    for compiled in (False, True):
        with pytest.raises(prs.InvalidInput, match=r"x is inf at index \(3, 1, 2\)"):
            prs.solve(recurrence, x, h0, theta, lengths=LENGTHS, compiled=compiled)


def test_a_program_is_compiled_once():
    from pararnn_solvers import compilation

    recurrence, x, h0, theta = problem("gru")
    prs.solve(recurrence, x, h0, theta, lengths=LENGTHS, compiled=True)
    known = len(compilation._known)
    prs.solve(recurrence, x, h0, theta, lengths=LENGTHS[::-1], compiled=True)
    assert len(compilation._known) == known


def test_rollout_minds_both():
    recurrence, x, h0, theta = problem("lstm")
    expected = masked_rollout(recurrence.step, x, h0, theta, LENGTHS, flags()).real
    for compiled in (False, True):
        h = prs.rollout(
            recurrence, spoil(x, LENGTHS), h0, theta,
            lengths=LENGTHS, resets=flags(), compiled=compiled,
        )  # fmt: skip
        np.testing.assert_allclose(h, expected, atol=1e-12)


BAD = {
    "lengths[1] is 13; expected a length between 0 and T = 12": {"lengths": [3, 13, 4, 5]},
    "lengths[0] is -1; expected a length": {"lengths": [-1, 13, 4, 5]},
    "lengths are float64; expected integers": {"lengths": [1.0, 2.0, 3.0, 4.0]},
    "lengths are bool; expected integers": {"lengths": [True, True, True, False]},
    "lengths have shape (3,); expected the batch axes, shape (4,)": {"lengths": [1, 2, 3]},
    "lengths have shape (); expected the batch axes": {"lengths": 3},
    "resets are int64; expected bool": {"resets": np.zeros((T, B), int)},
    "resets have shape (12, 4, 1); expected (T, *batch)": {"resets": np.zeros((T, B, 1), bool)},
    "resets have shape (4,); expected (T, *batch)": {"resets": np.zeros(B, bool)},
}


@pytest.mark.parametrize("message", BAD)
@pytest.mark.parametrize("function", [prs.solve, prs.rollout])
def test_bad_input_is_named(function, message):
    with pytest.raises(prs.InvalidInput) as caught:
        function(*problem("gru"), **BAD[message])
    assert message in str(caught.value)


@pytest.mark.parametrize("steps", [0, 1, 2, 7])
def test_columns_are_joined_by_threads_as_by_one(steps, monkeypatch):
    monkeypatch.setattr(marking.threads, "num_threads", lambda: 3)
    x, columns = np.random.default_rng(0).normal(size=(2, steps, 2, 3))
    expected = marking.with_columns(x, columns[..., :1], 2)
    np.testing.assert_array_equal(expected[..., :3], x)
    np.testing.assert_array_equal(expected[..., 3:], columns[..., [0, 0]])
    monkeypatch.setattr(marking, "SHARED_FROM", 0)
    np.testing.assert_array_equal(marking.with_columns(x, columns[..., :1], 2), expected)


def test_starts_that_would_be_marks_are_refused():
    recurrence, x, h0, theta = problem("gru", np.float32)
    h0[1, 0] = 1e30
    with pytest.raises(prs.InvalidInput, match="stands for marks"):
        prs.solve(recurrence, x, h0, theta, resets=flags())


# ---- the backward direction


@pytest.mark.parametrize("trailing", [(), (2,), (2, 3)])
def test_reversed_within_is_its_own_inverse(trailing):
    x = np.random.default_rng(0).standard_normal((T, B, *trailing))
    back = reversed_within(x, LENGTHS)
    for b, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(back[:length, b], x[:length, b][::-1])
        np.testing.assert_array_equal(back[length:, b], x[length:, b])
    np.testing.assert_array_equal(reversed_within(back, LENGTHS), x)
    np.testing.assert_array_equal(reversed_within(x), x[::-1])
    assert back.flags.c_contiguous
    with pytest.raises(prs.InvalidInput, match="T = 12"):
        reversed_within(x, LENGTHS + 1)
    with pytest.raises(prs.InvalidInput, match="scalar"):
        reversed_within(1.0)


def test_both_directions_of_a_padded_batch():
    recurrence, x, h0, theta = problem("gru")
    x = spoil(x, LENGTHS)
    back = prs.solve(recurrence, reversed_within(x, LENGTHS), h0, theta, lengths=LENGTHS)
    h = reversed_within(back.h, LENGTHS)
    for b, length in enumerate(LENGTHS):
        expected = prs.rollout(recurrence, x[:length, b][::-1].copy(), h0[b], theta)
        np.testing.assert_allclose(h[:length, b], expected[::-1], atol=1e-9)


# ---- on a device


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("cell", ["gru", "lstm", "elman"])
def test_a_device_finds_what_the_host_does(device, cell, compiled):
    recurrence, *data = problem(cell)
    data[0] = spoil(data[0], LENGTHS)
    resets = flags()
    options = {"method": "sequential" if cell == "elman" else "newton", "compiled": compiled}
    host = prs.solve(recurrence, *data, lengths=LENGTHS, resets=resets, **options)
    dh = np.random.default_rng(1).standard_normal(host.h.shape)
    *moved, lengths, marks, weights = on_device(device, [*data, LENGTHS, resets, dh])
    found = prs.solve(recurrence, *moved, lengths=lengths, resets=marks, **options)
    assert found.compiled == compiled or cell == "elman"
    np.testing.assert_allclose(found.h.get(), host.h, atol=1e-9)
    np.testing.assert_allclose(found.final.get(), host.final, atol=1e-9)
    copies.clear()
    ours, theirs = prs.gradients(found, weights), prs.gradients(host, dh)
    assert max([*copies.to_host, *copies.to_device], default=0) <= 1000
    for a, b in zip(tree.flatten(to_host(ours))[0], tree.flatten(theirs)[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    back = reversed_within(moved[0], lengths).get()
    np.testing.assert_array_equal(back, reversed_within(data[0], LENGTHS))


def test_lengths_and_resets_are_where_x_is(device):
    recurrence, *data = problem("gru")
    moved = on_device(device, data)
    for options in ({"lengths": LENGTHS}, {"resets": flags()}):
        with pytest.raises(prs.InvalidInput, match="2 places"):
            prs.solve(recurrence, *moved, **options)
        there = {name: device.asarray(value) for name, value in options.items()}
        with pytest.raises(prs.InvalidInput, match="2 places"):
            prs.solve(recurrence, *data, **there)
