"""Recurrences that are wrong on purpose, each with the check that has to find it.

Each is a small change to one of the correct ones in `CORRECT`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import pararnn_solvers as prs
from pararnn_solvers.autodiff import value_of
from pararnn_solvers.cells import diagonal_gru
from tests.cells import common
from tests.strategies import block_tanh, dense_tanh
from tests.testing.mutants import derivatives
from tests.testing.mutants.derivatives import Mutant


def _data(case):
    return case.x, case.h0, case.theta


T, BATCH = 12, (3,)
_diagonal = block_tanh(k=1, n=4, T=T, batch=BATCH)
_blocks = block_tanh(k=2, n=2, T=T, batch=BATCH)
_dense = dense_tanh(d=4, T=T, batch=BATCH)
_gru = common.draw("diagonal_gru", T=T, batch=BATCH)
_GRU = (_gru.u, _gru.h0, _gru.theta)
A = np.array([0.5, -0.4, 0.3, 0.7])
_SCALED = (_diagonal.x, _diagonal.h0, A)
_MANY = (
    _dense.x,
    _dense.h0,
    {"W": _dense.theta, "b": np.linspace(-1, 1, 400), "kind": "tanh"},
)


def scaled(h, x, a):
    return np.tanh(a * h + x)


def dense(h, x, W):
    return np.tanh(h @ W.T + x)


def dense_jacobian(h, x, W):
    return (1 - dense(h, x, W) ** 2)[..., None] * W


def dense_vjp(h, x, W, lam):
    slope = lam * (1 - dense(h, x, W) ** 2)
    flat = slope.reshape(-1, slope.shape[-1])
    return slope @ W, slope, flat.T @ h.reshape(-1, h.shape[-1])


def gru_diagonal(h, u, theta, sign=1.0, reset=True, slope=True):
    """df/dh of the diagonal GRU, by hand."""
    n, a = h.shape[-1], theta.a
    z = prs.sigmoid(a[0] * h + u[..., :n])
    r = prs.sigmoid(a[1] * h + u[..., n : 2 * n])
    c = np.tanh(a[2] * h * r + u[..., 2 * n :])
    inner = a[2] * (r + (h * r * (1 - r) * a[1] if reset else 0))
    return 1 - z + sign * (c - h) * z * (1 - z) * a[0] + z * ((1 - c * c) if slope else 1) * inner


def biased(h, x, p):
    return np.tanh(h @ p["W"].T + x + p["b"][:4])


def bias_by_value(h, x, p):
    return biased(h, x, p | {"b": value_of(p["b"])})


CORRECT: dict[str, tuple[Any, ...]] = {
    "scaled": (prs.Recurrence(scaled, block_size=1), *_SCALED),
    "bare": (scaled, *_SCALED),
    "autonomous": (lambda h, x, a: np.tanh(a * h), None, _diagonal.h0, A, T),
    "blocks": (_blocks.recurrence, *_data(_blocks)),
    "dense": (dense, *_data(_dense)),
    "many parameters": (biased, *_MANY),
    "dense by hand": (
        prs.Recurrence(dense, jacobian=dense_jacobian, vjp=dense_vjp),
        *_data(_dense),
    ),
    "gru": (diagonal_gru.recurrence, *_GRU),
    "gru by hand": (
        prs.Recurrence(diagonal_gru.step, 1, gru_diagonal, diagonal_gru.vjp),
        *_GRU,
    ),
    "relu": (lambda h, x, a: np.maximum(a * h + x, 0.1 * h), *_SCALED),
    "numbers": (lambda h, x, p: p["a"] * np.sin(h) + p["b"][0] * x, *_SCALED[:2],
                {"a": 0.5, "b": (np.float64(0.3), None), "name": "sine"}),
}  # fmt: skip


def mean_over_batch(h, x, a):
    return np.tanh(a * (h - 0.1 * (h.mean(axis=-2, keepdims=True) if h.ndim > 1 else h)) + x)


def next_drive(h, x, a):
    x = np.concatenate([x[1:], x[-1:]]) if x.ndim > 2 else x
    return np.tanh(a * h + x)


def last_drive(h, x, a):
    x = np.concatenate([x[:1], x[:-1]]) if x.ndim > 2 else x
    return np.tanh(a * h + x)


def running_sum(h, x, a):
    return np.tanh(a * h + (np.cumsum(x, axis=0) if x.ndim > 1 else x))


def counting() -> Callable[..., Any]:
    calls = []

    def step(h, x, a):
        calls.append(1)
        return np.tanh(a * h + x + 1e-3 * len(calls))

    return step


def remembering() -> Callable[..., Any]:
    last = {"mean": 0.0}

    def step(h, x, a):
        out = np.tanh(a * h + x + 1e-3 * last["mean"])
        if isinstance(out, np.ndarray) and out.dtype.kind == "f":
            last["mean"] = float(out.mean())
        return out

    return step


def buffered() -> Callable[..., Any]:
    buffers: dict[Any, Any] = {}

    def step(h, x, a):
        if not isinstance(h, np.ndarray) or h.dtype.kind != "f":
            return scaled(h, x, a)
        out = buffers.setdefault((h.shape, h.dtype), np.empty_like(h))
        out[...] = scaled(h, x, a)
        return out

    return step


def random_noise() -> Callable[..., Any]:
    rng = np.random.default_rng(0)
    return lambda h, x, a: np.tanh(a * h + x + 1e-6 * rng.standard_normal())


def writes_into_h(h, x, a):
    h *= a
    return np.tanh(h + x)


def writes_into_x(h, x, a):
    x += a * h
    return np.tanh(x)


def writes_into_theta(h, x, a):
    out = np.tanh(a * h + x)
    a *= 1.0001
    return out


def leaking_nan(h, x, a):
    shared = h.sum(axis=tuple(range(h.ndim - 1)))
    return np.tanh(a * h + x + 0 * shared)


def float32_inside(h, x, a):
    # As if a table were kept in float32; its conversion back hides it from shapes and dtypes.
    return np.tanh(a * h.astype(np.float32).astype(h.dtype) + x)


def promotes(h, x, a):
    return np.tanh(a * h + x + np.full(h.shape[-1], 0.1))


def drops_an_axis(h, x, a):
    return np.tanh(a * h + x).squeeze()


def only_3d(h, x, a):
    T, B, d = h.shape
    return np.tanh(a * h + x)


def branch_on_a_value(h, x, a):
    return np.tanh(a * h + x) if np.any(np.asarray(h > 0.4)) else np.tanh(a * h + x + 0.1)


def jumps(h, x, a):
    return np.tanh(a * h + x) + 0.05 * np.floor(4096 * h) / 4096


def stopped(h, x, a):
    return np.tanh(a * h + 0.3 * value_of(h) + x)


def swaps_axes(h, x, a):
    return np.tanh(a * h + (x.swapaxes(0, 1) if x.ndim == 3 else x))


def underflows(h, x, a):
    return a * h / (np.sqrt(h * h) + 1e-50) * np.sqrt(h * h + 1e-50) + 0.1 * np.log(1e-60 + x * x)


def branch_on_dtype(h, x, a):
    return np.tanh(a * h + x) if h.dtype == np.float64 else np.tanh(a * h + x + 0.01)


def diagonal_matrix(h, x, a):
    return np.tanh(h @ np.diag(np.asarray(a)) + x)


def channel_major(h, x, a):
    """Two components side by side in each channel."""
    pairs = h.reshape(*h.shape[:-1], 2, 2)
    other = pairs[..., ::-1].reshape(h.shape)
    return np.tanh(0.3 * h + 0.4 * other + x)


def neighbour(h, x, a):
    return np.tanh(a * h + 0.2 * np.roll(h, 1, axis=-1) + x)


def other_on_traces(h, x, a):
    gain = 1.0 if isinstance(h, np.ndarray) or hasattr(h, "tangent") else 0.9
    return np.tanh(gain * a * h + x)


def takes_value_of_theta(h, x, a):
    return np.tanh(float(a[0]) * h + x)


def without_derivative(h, x, a):
    return np.tanh(np.array([v for v in np.asarray(a * h).ravel()]).reshape(h.shape) + x)


def overflows(h, x, a):
    return 1e30 * h * h * h + x


def gru_reads_neighbour(h, u, theta):
    """A bug in `step` itself: the candidate reads the neighbouring channel."""
    n, a = h.shape[-1], theta.a
    z = prs.sigmoid(a[0] * h + u[..., :n])
    r = prs.sigmoid(a[1] * h + u[..., n : 2 * n])
    c = np.tanh(a[2] * np.roll(h, 1, axis=-1) * r + u[..., 2 * n :])
    return h + z * (c - h)


def gru_forgets_reset(h, u, theta):
    return gru_diagonal(h, u, theta, reset=False)


def gru_without_slope(h, u, theta):
    return gru_diagonal(h, u, theta, slope=False)


def gru_wrong_sign(h, u, theta):
    return gru_diagonal(h, u, theta, sign=-1.0)


def gru_vjp_without_reset(h, u, theta, lam):
    dh, du, dtheta = diagonal_gru.vjp(h, u, theta, lam)
    n = h.shape[-1]
    du = du.copy()
    du[..., n : 2 * n] = 0
    return dh, du, dtheta


def by_hand(jacobian=dense_jacobian, vjp=dense_vjp):
    return prs.Recurrence(dense, jacobian=jacobian, vjp=vjp), *_data(_dense)


def one_wrong_sign(h, x, W):
    J = dense_jacobian(h, x, W)
    J[..., 1, 2] *= -1
    return J


def one_left_out(h, x, W):
    J = dense_jacobian(h, x, W)
    J[..., 1, 2] = 0
    return J


def at_the_next_state(h, x, W):
    return dense_jacobian(dense(h, x, W), x, W)


def blocks_jacobian(h, x, a):
    slope = 1 - _blocks.recurrence.step(h, x, a) ** 2
    return slope.reshape(*h.shape[:-1], 2, 1, 2) * a


def transposed_blocks(h, x, a):
    return blocks_jacobian(h, x, a).swapaxes(-3, -2)


def mean_vjp(h, x, W, lam):
    dh, dx, dW = dense_vjp(h, x, W, lam)
    return dh, dx, dW / np.prod(h.shape[:-1])


def sign_vjp(h, x, W, lam):
    dh, dx, dW = dense_vjp(h, x, W, lam)
    return dh, -dx, dW


def untransposed_vjp(h, x, W, lam):
    _, dx, dW = dense_vjp(h, x, W, lam)
    slope = 1 - dense(h, x, W) ** 2
    return slope * (lam @ W.T), dx, dW


def minus_dtheta_vjp(h, x, W, lam):
    dh, dx, dW = dense_vjp(h, x, W, lam)
    return dh, dx, -dW


def listed_vjp(h, x, W, lam):
    return list(dense_vjp(h, x, W, lam))


def nested_vjp(h, x, W, lam):
    dh, dx, dW = dense_vjp(h, x, W, lam)
    return dh, dx, {"W": dW, "b": dx}


def unsummed_vjp(h, x, W, lam):
    dh, dx, _ = dense_vjp(h, x, W, lam)
    return dh, dx, dx[..., None] * h[..., None, :]


def channel_major_jacobian(h, x, a):
    blocks = blocks_jacobian(h, x, a)  # (..., i, j, c), at (c k + i, c k + j)
    matrices = np.zeros((*h.shape, h.shape[-1]))
    for c in range(2):
        matrices[..., 2 * c : 2 * c + 2, 2 * c : 2 * c + 2] = blocks[..., c]
    return matrices


def identity_left_out(h, x, W):
    return dense_jacobian(h, x, W) - np.eye(h.shape[-1])


def fits_a_square(h, x, a):
    return np.tanh(a * h + x + (0 * x.swapaxes(0, 1) if x.ndim == 3 else 0))


def other_for_many_steps(h, x, a):
    return np.tanh(a * h + x + (1e-3 if h.ndim == 3 and len(h) > 5 else 0))


def last_is_shape(h, x, a):
    return np.tanh(a * h + x)[..., None][..., 0, None] if h.ndim == 4 else np.tanh(a * h + x)


def one_entry_vjp(h, x, W, lam):
    dh, dx, dW = dense_vjp(h, x, W, lam)
    dW[2, 1] = 0
    return dh, dx, dW


def step_of(step, block_size=None, jacobian=None):
    return prs.Recurrence(step, block_size, jacobian), *_SCALED


def cached_by_shape() -> Callable[..., Any]:
    known: dict[Any, Any] = {}

    def step(h, x, a):
        key = h.shape, h.dtype
        return (
            known.setdefault(key, scaled(h, x, a)) if isinstance(h, np.ndarray) else scaled(h, x, a)
        )

    return step


def fits_a_batch_of_channels(h, x, a):
    return np.tanh((a[:, None] if h.ndim > 1 and h.shape[-2] == len(a) else a) * h + x)


def masked_by_shape(h, x, a):
    return scaled(h, x, a) * (np.random.default_rng(0).random(h.shape) > 0.1).astype(h.dtype)


def of_torch_order(x, h, a):
    return np.tanh(a * x + h)


def keyword_only(h, x, *, a):
    return scaled(h, x, a)


MUTANTS = [
    *derivatives.MUTANTS,
    Mutant("sign", "the sign of the state is added",
           step_of(lambda h, x, a: 0.2 * np.sign(h) + a * h + 0.1 * x), "step_is_continuous",
           "step jumps"),
    Mutant("rounding", "states are rounded to three digits",
           step_of(lambda h, x, a: np.round(scaled(h, x, a), 3)), "step_is_continuous", "jumps"),
    Mutant("branches apart", "the branches of np.where do not meet",
           step_of(lambda h, x, a: np.where(h > 0, scaled(h, x, a), 0.1 * x)),
           "step_is_continuous", "where h is"),
    Mutant("cache by shape", "a cache takes states of one shape for one another",
           step_of(cached_by_shape()), "results_are_not_overwritten", "a cache"),
    Mutant("batch of channels", "theta gets an axis that fits where the batch equals the channels",
           step_of(fits_a_batch_of_channels, 1), "vectorized_is_one_at_a_time",
           "found with h of shape (4, 4)"),
    Mutant("mask by shape", "a random mask with a fixed seed, in the shape of h",
           step_of(masked_by_shape), "vectorized_is_one_at_a_time", "made by the shape of h"),
    Mutant("many steps at once", "another drive for more than 5 steps, seen from a call",
           step_of(other_for_many_steps), "vectorized_is_one_at_a_time",
           "something else for 12 steps than for fewer"),
    Mutant("pair", "step returns a pair, as lax.scan has it",
           step_of(lambda h, x, a: (scaled(h, x, a), h)), "shapes_and_dtypes_are_kept", "a tuple"),
    Mutant("order", "step takes x before h", step_of(of_torch_order), "shapes_and_dtypes_are_kept",
           "state and drive are exchanged"),
    Mutant("keyword", "theta by keyword only", step_of(keyword_only), "shapes_and_dtypes_are_kept",
           "three positional arguments"),
    Mutant("logarithm", "the logarithm of a state that may be negative",
           step_of(lambda h, x, a: 0.1 * np.log(h) + x), "oracles_agree", "step is not finite"),
    Mutant("if on all", "a Python if on the sum of all states",
           step_of(lambda h, x, a: scaled(h, x, a) if np.real(h.sum()) > 0.2 else np.tanh(a * h)),
           "time_steps_do_not_mix", "step decides by a value of all states together"),
    Mutant("mean over the batch", "a mean over the sequences is taken off",
           step_of(mean_over_batch), "sequences_do_not_mix", "a mean"),
    Mutant("peek", "the next step's drive is used", step_of(next_drive),
           "time_steps_do_not_mix", "peeks at the next step"),
    Mutant("off by one", "the drive of the step before is used", step_of(last_drive),
           "time_steps_do_not_mix", "off by one"),
    Mutant("running sum", "drives are added up over the first axis", step_of(running_sum),
           "time_steps_do_not_mix", "axis"),
    Mutant("branch on all", "a Python if on whether any state is large",
           step_of(branch_on_a_value), "vectorized_is_one_at_a_time", "np.where in place of if"),
    Mutant("counter", "the number of calls is added", step_of(counting()),
           "calls_are_deterministic", "keep nothing between calls"),
    Mutant("memory", "the last result is used", step_of(remembering()),
           "calls_are_deterministic", "keep nothing between calls"),
    Mutant("noise", "random numbers are drawn", step_of(random_noise()),
           "calls_are_deterministic", "random"),
    Mutant("buffer", "results share one buffer", step_of(buffered()),
           "results_are_not_overwritten", "no buffer"),
    Mutant("writes into h", "h *= a", step_of(writes_into_h), "inputs_are_not_mutated", "h.copy()"),
    Mutant("writes into x", "x += a h", step_of(writes_into_x), "inputs_are_not_mutated",
           "x.copy()"),
    Mutant("writes into theta", "a *= 1.0001", step_of(writes_into_theta),
           "inputs_are_not_mutated", "theta"),
    Mutant("mask by multiplication", "0 times a sum over all states is added",
           step_of(leaking_nan), "nan_stays_where_it_is", "np.where"),
    Mutant("float32 inside", "h is cast to float32 and back", step_of(float32_inside),
           "all_digits_are_used", "float32"),
    Mutant("float64 constant", "a float64 array is added to a float32 state", step_of(promotes),
           "shapes_and_dtypes_are_kept", "float64"),
    Mutant("squeeze", "axes of length 1 are dropped", step_of(drops_an_axis),
           "shapes_and_dtypes_are_kept", "shape"),
    Mutant("three axes only", "the shape is unpacked in three", step_of(only_3d),
           "shapes_and_dtypes_are_kept", "any leading axes"),
    Mutant("square only", "drives are transposed, which fits where T equals the batch",
           step_of(swaps_axes), "leading_axes_broadcast", "transposes"),
    Mutant("underflow", "a guard of 1e-50 is 0 in float32",
           (underflows, np.zeros_like(_diagonal.x), _diagonal.h0, A),
           "float32_agrees_with_float64", "range of float32"),
    Mutant("branch on the dtype", "another function in float32", step_of(branch_on_dtype),
           "float32_agrees_with_float64", "no branch on the dtype"),
    Mutant("diagonal by a matrix", "channels are multiplied by a diagonal matrix",
           step_of(diagonal_matrix, 1), "nan_stays_in_its_channel", "channel by channel"),
    Mutant("block_size too small", "neighbouring channels couple", step_of(neighbour, 1),
           "block_size_is_the_structure", "all channels couple"),
    Mutant("channel-major", "components of a channel lie side by side", step_of(channel_major, 2),
           "block_size_is_the_structure", "channel-major"),
    Mutant("declared diagonal", "blocks of 2 declared as diagonal",
           (prs.Recurrence(_blocks.recurrence.step, 1), *_data(_blocks)),
           "block_size_is_the_structure", "block_size=2"),
    Mutant("complex step of abs", "abs with jacobian='cs'",
           step_of(lambda h, x, a: a * np.abs(h) + 0.1 * x, None, "cs"), "oracles_agree",
           "not analytic"),
    Mutant("jump", "a rounded state is added", step_of(jumps), "step_is_continuous", "jumps"),
    Mutant("stopped derivative", "a part of the state is taken out of the dual arrays",
           step_of(stopped), "oracles_agree", "dual arrays"),
    Mutant("not differentiable", "an array is made entry by entry", step_of(without_derivative),
           "oracles_agree", "derivative rules"),
    Mutant("value of theta", "float(a[0]) takes a number out of theta",
           step_of(takes_value_of_theta), "inputs_and_parameters_are_differentiable", "theta"),
    Mutant("wrong sign everywhere", "jacobian= is minus the derivative",
           by_hand(lambda *a: -dense_jacobian(*a)), "jacobian_is_the_derivative", "wrong sign"),
    Mutant("wrong sign of an entry", "entry (1, 2) of jacobian= has the other sign",
           by_hand(one_wrong_sign), "jacobian_is_the_derivative",
           "wrong sign of the entries (1, 2)"),
    Mutant("entry left out", "entry (1, 2) of jacobian= is zero", by_hand(one_left_out),
           "jacobian_is_the_derivative", "(1, 2) are left out"),
    Mutant("transposed matrix", "jacobian= is transposed",
           by_hand(lambda *a: dense_jacobian(*a).swapaxes(-1, -2)),
           "jacobian_is_the_derivative", "transposed block"),
    Mutant("transposed block", "the blocks are transposed",
           (prs.Recurrence(_blocks.recurrence.step, 2, transposed_blocks), *_data(_blocks)),
           "jacobian_is_the_derivative", "transposed block"),
    Mutant("column sums", "column sums are taken for a diagonal",
           by_hand(lambda *a: dense_jacobian(*a).sum(-2)),
           "jacobian_is_the_derivative", "column sums"),
    Mutant("row sums", "the derivative along ones is taken for a diagonal",
           by_hand(lambda *a: dense_jacobian(*a).sum(-1)),
           "jacobian_is_the_derivative", "row sums"),
    Mutant("couplings left out", "jacobian= is the diagonal only",
           by_hand(lambda *a: np.diagonal(dense_jacobian(*a), axis1=-2, axis2=-1)),
           "jacobian_is_the_derivative", "couplings left out"),
    Mutant("one iterate late", "jacobian= is taken at the next state", by_hand(at_the_next_state),
           "jacobian_is_the_derivative", "wrong state"),
    Mutant("factor", "jacobian= is twice the derivative",
           by_hand(lambda *a: 2 * dense_jacobian(*a)), "jacobian_is_the_derivative", "factor 2"),
    Mutant("float32 Jacobian", "jacobian= returns float64 for float32",
           (prs.Recurrence(dense, jacobian=lambda *a: dense_jacobian(*a).astype(np.float64)),
            *(v.astype(np.float32) for v in _data(_dense))),
           "jacobian_is_the_derivative", "dtype"),
    Mutant("mean of states", "dtheta of vjp= is a mean", by_hand(vjp=mean_vjp),
           "vjp_is_the_transpose", "a mean"),
    Mutant("sign of dx", "dx of vjp= has the other sign", by_hand(vjp=sign_vjp),
           "vjp_is_the_transpose", "wrong sign"),
    Mutant("sign of dtheta", "dtheta of vjp= has the other sign", by_hand(vjp=minus_dtheta_vjp),
           "vjp_is_the_transpose", "wrong sign"),
    Mutant("list", "vjp= returns a list", by_hand(vjp=listed_vjp),
           "vjp_is_the_transpose", "return a tuple of three"),
    Mutant("nesting", "dtheta of vjp= is nested otherwise than theta", by_hand(vjp=nested_vjp),
           "vjp_is_the_transpose", "nest it as theta is"),
    Mutant("not summed", "dtheta of vjp= is not summed over states", by_hand(vjp=unsummed_vjp),
           "vjp_is_the_transpose", "sum over all leading axes"),
    Mutant("channel-major Jacobian", "jacobian= has components of a channel side by side",
           (prs.Recurrence(_blocks.recurrence.step, 2, channel_major_jacobian), *_data(_blocks)),
           "jacobian_is_the_derivative", "components and channels exchanged"),
    Mutant("without the identity", "jacobian= is that of step minus h",
           by_hand(identity_left_out), "jacobian_is_the_derivative", "identity left out"),
    Mutant("fits a square", "drives and their transpose are added: an error unless T is the batch",
           step_of(fits_a_square), "leading_axes_broadcast", "it accepts T = batch = 3"),
    Mutant("other for many steps", "another drive where there are more than 5 steps",
           step_of(other_for_many_steps), "every_method_finds_the_rollout", "residual allows"),
    Mutant("an axis more", "with three leading axes one more is returned", step_of(last_is_shape),
           "shapes_and_dtypes_are_kept", "for h of shape (2, 3, 2, 4)"),
    Mutant("no transpose", "dh of vjp= is J lam", by_hand(vjp=untransposed_vjp),
           "vjp_is_the_transpose", "transpose is missing"),
    Mutant("entry of dtheta", "one entry of dtheta of vjp= is zero", by_hand(vjp=one_entry_vjp),
           "vjp_is_the_transpose", "dtheta[2][1]"),
    Mutant("other on traces", "another gain for what is no NumPy array",
           step_of(other_on_traces, 1), "trace_is_the_step", "isinstance"),
    Mutant("other in kernels", "another gain for what is no NumPy array",
           step_of(other_on_traces, 1), "kernels_are_the_step", "when it was traced"),
    Mutant("overflow", "the state is cubed and multiplied by 1e30", step_of(overflows),
           "rollout_is_finite", "it returns -inf"),
    Mutant("solved wrongly", "the next step's drive is used, seen from a solve",
           step_of(next_drive), "every_method_finds_the_rollout", "leading axes"),
    Mutant("gradient of an entry", "one entry of dtheta is zero, seen from a gradient",
           by_hand(vjp=one_entry_vjp), "gradients_are_those_of_the_rollout", "theta"),
    Mutant("one of many parameters", "of 416 parameters, 400 are taken out of the dual arrays",
           (bias_by_value, *_MANY), "gradients_are_those_of_the_rollout",
           "the gradient by theta['b'] is that of the rollout"),
    Mutant("GRU: sign", "a GRU's jacobian= has the update gate's term with the other sign",
           (prs.Recurrence(diagonal_gru.step, 1, gru_wrong_sign), *_GRU),
           "jacobian_is_the_derivative",
           "the derivative of sigmoid(x0 + h*theta.a[0]) has the wrong sign"),
    Mutant("GRU: reset gate", "a GRU's jacobian= takes the reset gate for a constant",
           (prs.Recurrence(diagonal_gru.step, 1, gru_forgets_reset), *_GRU),
           "jacobian_is_the_derivative",
           "sigmoid(x1 + h*theta.a[1]) is taken for a constant"),
    Mutant("GRU: slope", "a GRU's jacobian= leaves out the slope of tanh",
           (prs.Recurrence(diagonal_gru.step, 1, gru_without_slope), *_GRU),
           "jacobian_is_the_derivative", "the slope of tanh("),
    Mutant("GRU: vjp", "a GRU's vjp= leaves out the drive of the reset gate",
           (prs.Recurrence(diagonal_gru.step, 1, vjp=gru_vjp_without_reset), *_GRU),
           "vjp_is_the_transpose", "sigmoid(x1 + h*theta.a[1]) is taken for a"),
    Mutant("GRU: neighbour", "a diagonal GRU's candidate reads the neighbouring channel",
           (prs.Recurrence(gru_reads_neighbour, 1), *_GRU),
           "block_size_is_the_structure", "all channels couple"),
]  # fmt: skip
