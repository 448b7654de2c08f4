"""Arguments that cannot be right are refused, with what was expected, received and a remedy."""

import math
import traceback

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import memory
from tests.strategies import block_tanh, dense_tanh, solve

T, B, M, D = 6, 2, 3, 4
X, H0 = np.ones((T, B, M)), np.ones((B, D))


def step(h, x, theta):
    return 0.5 * np.tanh(h) + x[..., :1]


def refused(message, recurrence=step, x=X, h0=H0, theta=None, **options):
    for call in (prs.solve, prs.rollout) if not options else (prs.solve,):
        with pytest.raises(prs.InvalidInput, match=message):
            call(recurrence, x, h0, theta, **options)


def with_bad(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["x", "h0"])
def test_arrays_that_are_not_finite(name, bad):
    array, index = {"x": (X, (4, 1, 2)), "h0": (H0, (1, 3))}[name]
    message = (
        rf"{name} is {bad} at index \({', '.join(map(str, index))}\), and not finite at 1 place"
    )
    refused(message, **{name: with_bad(array, index, bad)})


def test_parameters_that_are_not_finite_are_named():
    theta = {"w": (np.ones(3), [with_bad(np.ones((2, 2)), (1, 0), np.nan)]), "b": 1.0}
    refused(r"theta\['w'\]\[1\]\[0\] is nan at index \(1, 0\)", theta=theta)
    refused(r"theta is inf at index \(\)", theta=np.inf)


@pytest.mark.parametrize(
    ("x", "h0", "message"),
    [
        (X[0], H0, r"x has shape \(2, 3\); expected \(T, 2, m\), time first"),
        (X[:, 0], H0, r"x has shape \(6, 3\); expected \(T, 2, m\)"),
        (X[:, :1], H0, r"x has shape \(6, 1, 3\); expected \(T, 2, m\)"),
        (X.swapaxes(0, 1), H0, r"x has shape \(2, 6, 3\); expected \(T, 2, m\)"),
        (X[:, 0, 0], np.ones(4), r"x has shape \(6,\).*; pass x\[:, None\]"),
        (X, np.ones(4), r"x has shape \(6, 2, 3\); expected \(T, m\)"),
        (X, np.float64(1), r"h0 is a scalar; expected shape \(\*batch, d\): pass h0\[None\]"),
        (X, np.ones((2, 0)), r"h0 has shape \(2, 0\); expected \(\*batch, d\) with d >= 1"),
        (np.float64(1), H0, r"x has shape \(\)"),
    ],
)
def test_ranks_and_sizes(x, h0, message):
    refused(message, x=x, h0=h0)


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [(int, "float64"), (bool, "float64"), (np.float16, "float32"), (complex, "float64")],
)
@pytest.mark.parametrize("name", ["x", "h0"])
def test_other_dtypes(name, dtype, remedy):
    array = {"x": X, "h0": H0}[name].astype(dtype)
    message = rf"{name} is {array.dtype}; expected .*: pass {name}.astype\(np.{remedy}\)"
    refused(message, **{name: array})


def test_lists_of_integers_and_other_things():
    refused("h0 is int64; expected float32 or float64", h0=[[0] * D] * B)
    refused("h0 is (object|<U3); expected float32", h0="abc")


def test_dtypes_of_inputs_and_states_that_differ():
    refused(
        r"x is float32 and h0 float64; expected one dtype: pass x.astype\(float64\) or "
        r"h0.astype\(float32\)",
        x=X.astype(np.float32),
    )


def test_parameters_in_another_dtype_than_the_state():
    message = (
        "step returned float64 for states in float32; expected the same dtype: cast theta and "
        "constants to it"
    )
    f32 = {"x": X.astype(np.float32), "h0": H0.astype(np.float32)}
    refused(message, lambda h, x, a: np.tanh(a * h), theta=np.ones(D), **f32)


@pytest.mark.parametrize(
    ("steps", "x", "message"),
    [
        (None, None, "x is None and steps is None; pass steps=T, the steps to take"),
        (-1, None, "steps is -1; expected a whole number >= 0"),
        (3.0, None, "steps is 3.0; expected a whole number"),
        ("3", None, "steps is '3'; expected a whole number"),
        (True, None, "steps is True; expected a whole number"),
        (5, X, "steps is 5 and x has 6; leave steps out"),
    ],
)
def test_the_number_of_steps(steps, x, message):
    for call in (prs.solve, prs.rollout):
        with pytest.raises(prs.InvalidInput, match=message):
            call(step, x, H0, steps=steps)


def test_the_number_of_steps_may_be_repeated():
    assert prs.solve(step, X, H0, steps=T).h.shape == (T, B, D)


def test_a_block_size_that_does_not_divide():
    message = (
        r"h0 has trailing size 12, not a multiple of block_size 5; pass block_size in "
        r"\{1, 2, 3, 4, 6, 12\}"
    )
    refused(message, prs.Recurrence(step, block_size=5), h0=np.ones((B, 12)))


def test_something_that_is_no_recurrence():
    refused("step is int; expected step", recurrence=3)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda h: h[..., :2], r"step returned shape \(3, 2, 2\) for states of shape \(3, 2, 4\)"),
        (lambda h: h.sum(axis=-1), r"step returned shape \(3, 2\)"),
        (lambda h: h[0], r"step returned shape \(2, 4\)"),
        (lambda h: None, "step returned shape None"),
        (lambda h: 1.0, "step returned shape None"),
        (lambda h: h.astype(np.float32), "step returned float32 for states in float64"),
        (lambda h: h.astype(int), "step returned int64 for states in float64"),
        (lambda h: h + 0j, "step returned complex128 for states in float64"),
    ],
)
def test_what_a_step_returns(returned, message):
    with pytest.raises(prs.InvalidInput, match=message):
        prs.solve(lambda h, x, _: returned(h), X, H0)


def test_a_rollout_checks_what_a_step_returns():
    with pytest.raises(prs.InvalidInput, match="step returned shape"):
        prs.rollout(lambda h, x, _: h[..., :2], X, H0)


def test_a_step_that_raises_keeps_its_traceback_and_gets_a_note():
    def failing_step(h, x, theta):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        prs.solve(failing_step, X, H0)
    assert any("failing_step" in line for line in traceback.format_tb(caught.value.__traceback__))
    (note,) = caught.value.__notes__
    assert "raised by step(h, x, theta), called on states of shape (3, 2, 4)" in note
    assert "any leading axes" in note


def test_a_step_that_branches_is_told_how_not_to():
    def branching(h, x, theta):
        return h if h > 0 else x

    with pytest.raises(ValueError, match="truth value") as caught:
        prs.solve(branching, X, H0)
    assert "np.where in place of if" in caught.value.__notes__[0]


@pytest.mark.parametrize("argument", ["h", "x"])
def test_a_step_that_writes_into_its_arguments_fails_where_it_writes(argument):
    def writing(h, x, theta):
        target = {"h": h, "x": x}[argument]
        target *= 0.5
        return np.tanh(h) + x[..., :1]

    x, h0 = X.copy(), H0.copy()
    with pytest.raises(ValueError, match="read-only") as caught:
        prs.solve(writing, x, h0)
    assert "must not write into its arguments" in caught.value.__notes__[0]
    with pytest.raises(ValueError, match="read-only"):
        prs.rollout(writing, x, h0)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(h0, H0)


MIXING = {
    "cumulates over time": lambda h: np.cumsum(h, axis=0),
    "centres the batch": lambda h: h - h.mean(axis=0),
    "normalizes over everything": lambda h: h / np.abs(h).max(),
    "reverses time": lambda h: h[::-1],
    "shifts time": lambda h: np.roll(h, 1, axis=0) if h.ndim == 3 else h,
    "averages over time": lambda h: h.mean(axis=0, keepdims=True) + 0 * h if h.ndim == 3 else h,
    "shifts sequences": lambda h: np.roll(h, 1, axis=-2),
}


@pytest.mark.parametrize("mixing", MIXING)
def test_a_step_that_mixes_time_steps_or_sequences(mixing):
    rng = np.random.default_rng(0)
    h0 = rng.standard_normal((B, D))
    message = "same state among others.*expected a function that never mixes leading axes"
    with pytest.raises((prs.InvalidInput, ValueError), match=f"{message}|axis"):
        prs.solve(lambda h, x, _: MIXING[mixing](h), X, h0)


def test_channels_that_couple_beyond_the_block_size():
    W = np.random.default_rng(0).standard_normal((4, 4))
    message = r"channels couple beyond block_size 2: .*declare the true block size"
    recurrence = prs.Recurrence(lambda h, x, W: np.tanh(h @ W), block_size=2)
    with pytest.raises(prs.InvalidInput, match=message):
        prs.solve(recurrence, X, H0, W)


def test_components_that_are_not_major_are_channels_that_couple():
    """[c1 y1 c2 y2] in place of [c1 c2 y1 y2]."""

    def interleaved(h, x, theta):
        pairs = h.reshape(*h.shape[:-1], 2, 2)
        return np.tanh(pairs[..., ::-1]).reshape(h.shape)

    with pytest.raises(prs.InvalidInput, match="component-major"):
        prs.solve(prs.Recurrence(interleaved, block_size=2), X, H0)


@pytest.mark.parametrize("seed", range(20))
def test_a_mean_over_channels_couples_them(seed):
    """Whose contribution is the same for all channels, and small."""
    h0 = np.random.default_rng(seed).standard_normal((B, D))
    recurrence = prs.Recurrence(
        lambda h, x, _: np.tanh(h + 0.01 * h.mean(axis=-1, keepdims=True)), block_size=1
    )
    with pytest.raises(prs.InvalidInput, match="channels couple beyond block_size 1"):
        prs.solve(recurrence, X, h0)


def test_a_wrong_jacobian_is_found_where_structure_is_declared():
    recurrence = prs.Recurrence(step, block_size=1, jacobian=lambda h, x, _: np.ones_like(h))
    with pytest.raises(prs.InvalidInput, match="df/dh times a vector differs"):
        prs.solve(recurrence, X, H0)


def test_a_jacobian_of_the_wrong_shape():
    recurrence = prs.Recurrence(step, block_size=1, jacobian=lambda h, x, _: np.ones((3, 3)))
    with pytest.raises(prs.InvalidInput, match=r"jacobian returned shape \(3, 3\) for states"):
        prs.solve(recurrence, X, H0)


def test_a_dense_jacobian_of_the_wrong_shape():
    recurrence = prs.Recurrence(step, jacobian=lambda h, x, _: h[..., :2])
    with pytest.raises(prs.InvalidInput, match=r"jacobian returned shape"):
        prs.solve(recurrence, X, H0, method="newton")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "newtons"}, r"method is 'newtons'; expected one of \['auto', 'newton'"),
        ({"method": 3}, "method is 3; expected a name out of"),
        ({"method": "relaxation"}, "method relaxation needs arguments"),
        ({"backend": "abacus"}, "no backend is called 'abacus'; registered are: .*numba"),
        ({"guess": "good"}, r"guess is 'good'; expected one of \['zeros'"),
        ({"on_failure": "panic"}, r"on_failure is 'panic'; expected one of \('raise', 'warn'"),
    ],
)
def test_unknown_names(options, message):
    refused(message, **options)


def test_a_function_that_cannot_be_differentiated():
    with pytest.raises(prs.NotDifferentiable, match="jacobian="):
        prs.solve(lambda h, x, _: np.fft.fft(h).real, X, H0, method="newton")


def test_memory_that_is_not_there(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda *enough: 1000)
    with pytest.raises(prs.InsufficientMemory, match="GiB are free; declare a block_size"):
        solve(dense_tanh(), method="newton")


def test_errors_are_of_one_family_and_of_pythons_own():
    for error, builtin in (
        (prs.InvalidInput, ValueError),
        (prs.InsufficientMemory, MemoryError),
        (prs.BackendUnavailable, RuntimeError),
        (prs.NotDifferentiable, TypeError),
        (prs.ConvergenceError, ArithmeticError),
    ):
        assert issubclass(error, prs.PararnnError)
        assert issubclass(error, builtin)


@pytest.mark.parametrize("T", [0, 1, 2])
def test_fewer_steps_than_are_probed(T):
    case = block_tanh(k=2, n=2, T=T, batch=(1,))
    assert solve(case).h.shape == (T, 1, 4)


def test_probing_costs_a_few_states():
    calls = []

    def counting(h, x, theta):
        calls.append(int(np.prod(h.shape[:-1])))
        return step(h, x, theta)

    prs.solve(counting, np.ones((10_000, B, M)), H0, method="newton", guess="zeros", max_iter=20)
    large = [n for n in calls if n > 1000]
    assert sum(calls) - sum(large) < 10_000


DRIVES = np.random.default_rng(3).standard_normal((*X.shape[:-1], D))


def test_a_jacobian_that_dual_arrays_could_not_give_is_accepted():
    step = lambda h, x, a: np.vectorize(math.tanh)(a * h + x)  # noqa: E731
    derivative = lambda h, x, a: a * (1 - np.tanh(a * h + x) ** 2)  # noqa: E731
    recurrence = prs.Recurrence(step, block_size=1, jacobian=derivative)
    expected = prs.rollout(lambda h, x, a: np.tanh(a * h + x), DRIVES, H0, 0.5)
    np.testing.assert_allclose(prs.solve(recurrence, DRIVES, H0, 0.5).h, expected, atol=1e-11)


@pytest.mark.parametrize("block_size", [1, None])
def test_a_jacobian_that_is_not_the_derivative_is_found(block_size):
    W = np.random.default_rng(0).standard_normal((D, D))
    only_the_diagonal = lambda h, x, W: np.diag(W) * (1 - np.tanh(h @ W + x) ** 2)  # noqa: E731
    recurrence = prs.Recurrence(
        lambda h, x, W: np.tanh(h @ W + x), block_size=block_size, jacobian=only_the_diagonal
    )
    with pytest.raises(prs.InvalidInput, match="jacobian is not the derivative of step"):
        prs.solve(recurrence, DRIVES, H0, W)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("jacobian", ["2-point", "3-point"])
def test_a_curved_step_is_no_coupling(jacobian, dtype):
    step = lambda h, x, a: np.tanh(0.5 * np.sin(50 * h) / 50 + x)  # noqa: E731
    recurrence = prs.Recurrence(step, block_size=1, jacobian=jacobian)
    x, h0 = DRIVES.astype(dtype), H0.astype(dtype)
    assert prs.solve(recurrence, x, h0, max_iter=500).success


def test_a_jacobian_of_another_dtype_is_named():
    single = lambda h, x, a: (a * (1 - np.tanh(a * h + x) ** 2)).astype(np.float32)  # noqa: E731
    recurrence = prs.Recurrence(lambda h, x, a: np.tanh(a * h + x), block_size=1, jacobian=single)
    with pytest.raises(prs.InvalidInput, match="jacobian returned float32 for states in float64"):
        prs.solve(recurrence, DRIVES, H0, 0.5)


def test_a_step_cannot_write_into_theta():
    def step(h, x, theta):
        theta["a"] *= 0.9
        return np.tanh(theta["a"] * h)

    a = np.ones(D)
    with pytest.raises(ValueError, match="read-only"):
        prs.solve(step, DRIVES, H0, {"a": a})
    np.testing.assert_array_equal(a, 1)
