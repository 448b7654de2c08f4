"""Stacks of layers are those of PyTorch, outputs and gradients; the reference needs NumPy alone."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers import cells
from pararnn_solvers.cells import elman, gru, lstm, stack
from tests.cells.common import OPTIONS
from tests.cells.reference import random_state, run

KINDS = {"RNN": elman, "GRU": gru, "LSTM": lstm}
T, BATCH, M, N = 12, 2, 3, 4


def drawn(kind, layers, directions, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    state = random_state(kind, rng, M, N, layers, directions, dtype)
    x = rng.standard_normal((T, BATCH, M)).astype(dtype)
    h0 = rng.uniform(-1, 1, (2, layers * directions, BATCH, N)).astype(dtype)
    return state, x, h0


def joined_states(kind, h, c):
    return np.concatenate([c, h], axis=-1) if kind == "LSTM" else h


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (3, 1), (1, 2), (2, 2)])
def test_a_stack_is_its_layers_one_step_at_a_time(kind, layers, directions):
    state, x, (h0, c0) = drawn(kind, layers, directions)
    found = stack.apply(
        kind_cell(kind), KINDS[kind].from_state_dict(state), x, joined_states(kind, h0, c0)
    )
    assert found.y.shape == (T, BATCH, directions * N)
    for b in range(BATCH):
        y, h_n, c_n = run(kind, state, x[:, b], h0[:, b], c0[:, b])
        np.testing.assert_allclose(found.y[:, b], y, rtol=0, atol=1e-11)
        final = joined_states(kind, h_n, c_n)
        np.testing.assert_allclose(found.final[:, b], final, rtol=0, atol=1e-11)


def kind_cell(kind):
    return KINDS[kind].__name__.rpartition(".")[2]


def test_a_rectified_stack_is_its_layers_one_step_at_a_time():
    state, x, (h0, c0) = drawn("RNN", 2, 2)
    layers = elman.from_state_dict(state)
    found = stack.apply("elman", layers, x, h0, recurrence=elman.rectified)
    y, _, _ = run(
        "RNN", state, x[:, 0], h0[:, 0], c0[:, 0], nonlinearity=lambda v: np.maximum(v, 0)
    )
    np.testing.assert_allclose(found.y[:, 0], y, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layers", "directions"), [(1, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outputs_and_gradients_are_those_of_pytorch(kind, layers, directions, dtype):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(M, N, layers, bidirectional=directions == 2)
    module = module.to(torch.from_numpy(np.zeros(0, dtype)).dtype)
    _, x, (h0, c0) = drawn(kind, layers, directions, dtype)
    tensors = [torch.tensor(a, requires_grad=True) for a in (x, h0, c0)]
    start = (tensors[1], tensors[2]) if kind == "LSTM" else tensors[1]
    y, last = module(tensors[0], start)
    h_n, c_n = last if kind == "LSTM" else (last, None)

    thetas = KINDS[kind].from_state_dict(module.state_dict())
    options = {"atol": 3e-7, "rtol": 3e-7} if dtype == np.float32 else {}
    ours = stack.apply(KINDS[kind], thetas, x, joined_states(kind, h0, c0), **options)
    atol = 1e-6 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(ours.y, y.detach().numpy(), rtol=0, atol=atol)
    final = joined_states(kind, h_n.detach().numpy(), None if c_n is None else c_n.detach().numpy())
    np.testing.assert_allclose(ours.final, final, rtol=0, atol=2 * atol)

    dy = np.random.default_rng(1).standard_normal(y.shape).astype(dtype)
    y.backward(torch.from_numpy(dy))
    dlayers, dx, dh0 = stack.gradients(KINDS[kind], thetas, ours, dy)
    close = {"rtol": 100 * atol, "atol": 100 * atol}
    np.testing.assert_allclose(dx, tensors[0].grad.numpy(), **close)
    by_states = [None if a.grad is None else a.grad.numpy() for a in tensors[1:]]
    np.testing.assert_allclose(dh0, joined_states(kind, *by_states), **close)
    for i, layer in enumerate(dlayers):
        for theta, suffix in zip(layer, ("", "_reverse"), strict=False):
            for name, value in theta._asdict().items():
                expected = getattr(module, f"{name}_l{i}{suffix}").grad.numpy()
                np.testing.assert_allclose(value, expected, err_msg=name, **close)


@pytest.mark.parametrize("name", cells.CELLS)
def test_gradients_of_a_stack_are_difference_quotients(name):
    """Through two layers in both directions, of every cell, along one random direction."""
    rng = np.random.default_rng(0)
    options = OPTIONS.get(name, {})
    layers = stack.init(name, rng, 4, 4, layers=2, directions=2, **options)
    x, along_x = rng.standard_normal((2, 7, 2, 4))
    along = [tuple(random_like(rng, theta) for theta in layer) for layer in layers]
    tight = {"method": "sequential"}
    base = stack.apply(name, layers, x, **tight)
    along_h = rng.standard_normal(base.final.shape)
    h0 = stack.starting_states(cells.load(name), layers, x, None)
    dy = rng.standard_normal(base.y.shape)
    dlayers, dx, dh0 = stack.gradients(name, layers, base, dy)

    def loss(t):
        moved = [
            tuple(moved_by(t, *pair) for pair in zip(*pairs, strict=True))
            for pairs in zip(layers, along, strict=True)
        ]
        start = np.stack(h0) + t * along_h
        return np.vdot(dy, stack.apply(name, moved, x + t * along_x, start, **tight).y)

    eps = 1e-5
    expected = (loss(eps) - loss(-eps)) / (2 * eps)
    found = np.vdot(dx, along_x) + np.vdot(dh0, along_h)
    for thetas, directions in zip(dlayers, along, strict=True):
        for theta, direction in zip(thetas, directions, strict=True):
            found += sum(np.vdot(a, v) for a, v in zip(theta, direction, strict=True))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-7)


def random_like(rng, theta):
    return type(theta)(*(rng.standard_normal(leaf.shape) for leaf in theta))


def moved_by(t, theta, along):
    return type(theta)(*(leaf + t * v for leaf, v in zip(theta, along, strict=True)))


def test_a_layer_in_reverse_reads_the_sequence_backwards():
    layers = stack.init("gru", np.random.default_rng(0), M, N, directions=2)
    x = np.random.default_rng(1).standard_normal((T, M))
    both = stack.apply("gru", layers, x).y
    [(_, backwards)] = layers
    alone = stack.apply("gru", [(backwards,)], x[::-1].copy()).y
    np.testing.assert_array_equal(both[:, N:], alone[::-1])


def test_an_empty_sequence_ends_where_it_starts():
    layers = stack.init("lstm", np.random.default_rng(0), M, N, layers=2)
    h0 = np.random.default_rng(1).standard_normal((2, BATCH, 2 * N))
    found = stack.apply("lstm", layers, np.zeros((0, BATCH, M)), h0)
    assert found.y.shape == (0, BATCH, N)
    np.testing.assert_array_equal(found.final, h0)


def test_sizes_that_do_not_fit_are_refused():
    layers = stack.init("gru", np.random.default_rng(0), M, N, layers=2, directions=2)
    x = np.zeros((T, BATCH, M))
    with pytest.raises(prs.InvalidInput, match=r"h0 has shape \(2, 2, 4\).*= \(4, 2, 4\)"):
        stack.apply("gru", layers, x, np.zeros((2, BATCH, N)))
    with pytest.raises(prs.InvalidInput, match=r"x has shape \(12, 2, 4\); expected \(\.\.\., 3\)"):
        stack.apply("gru", layers, np.zeros((T, BATCH, M + 1)))
    with pytest.raises(prs.InvalidInput, match=r"x has shape \(3,\); expected \(T, \*batch, m\)"):
        stack.apply("gru", layers, np.zeros(M))
    with pytest.raises(prs.InvalidInput, match="directions is 3"):
        stack.init("gru", np.random.default_rng(0), M, N, directions=3)
    with pytest.raises(prs.InvalidInput, match="layers is 0"):
        stack.init("gru", np.random.default_rng(0), M, N, layers=0)
