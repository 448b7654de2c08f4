"""The layer computes and differentiates what the cells do, called as PyTorch's own layers are."""

import copy
import io
import pickle
import re

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

import pararnn_solvers as prs
from pararnn_solvers import cells
from pararnn_solvers.cells import stack
from pararnn_solvers.torch import ParallelRNN
from tests.torch.cases import EXACT, MODULES, OPTIONS, M, N, flat, inputs, layer

LENGTHS = torch.tensor([3, 5])


def thetas(made):
    """Return the parameters of all layers as ``cells.stack`` takes them."""
    directions = (False, True) if made.bidirectional else (False,)
    return [tuple(made.theta(k, r) for r in directions) for k in range(made.num_layers)]


def test_every_cell_has_drives():
    assert set(OPTIONS) == set(cells.CELLS)


@pytest.mark.parametrize("cell", OPTIONS)
def test_outputs_and_gradients_are_those_of_the_numpy_stack(cell):
    made, x = layer(cell, 2, True), inputs(5, 3)
    y, _ = made(x)
    solved = stack.apply(cell, thetas(made), x.detach().numpy(), **EXACT)
    np.testing.assert_allclose(y.detach(), solved.y, atol=1e-11)
    dy = np.random.default_rng(0).standard_normal(solved.y.shape)
    by_layers, dx, _ = stack.gradients(cell, thetas(made), solved, dy)
    y.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(x.grad, dx, atol=1e-10)
    expected = [leaf for thetas in by_layers for theta in thetas for leaf in theta]
    for parameter, leaf in zip(made.parameters(), expected, strict=True):
        found = 0 if parameter.grad is None else parameter.grad
        np.testing.assert_allclose(np.broadcast_to(found, leaf.shape), leaf, atol=1e-9)


@pytest.mark.parametrize("cell", OPTIONS)
def test_gradcheck(cell):
    """In both directions, with lengths, by parameters, inputs and initial states."""
    made, x = layer(cell, 1, True), inputs(4, 2)
    start = tuple(
        (state.detach() + 0.1).requires_grad_() for state in flat(made(x, lengths=[0, 0])[1])
    )
    names = list(dict(made.named_parameters()))

    def outputs(x, *given):
        weights, states = dict(zip(names, given, strict=False)), given[len(names) :]
        h_0 = states if len(states) > 1 else states[0]
        y, h_n = torch.func.functional_call(made, weights, (x, h_0, torch.tensor([2, 4])))
        return y, *flat(h_n)

    assert torch.autograd.gradcheck(outputs, (x, *made.parameters(), *start), fast_mode=True)


@pytest.mark.parametrize("cell", MODULES)
@pytest.mark.parametrize("batch_first", [False, True])
def test_pytorchs_layers_are_matched(cell, batch_first):
    torch.manual_seed(0)
    theirs = MODULES[cell](M, N, 2, bidirectional=True, batch_first=batch_first).double()
    ours = ParallelRNN.from_torch(theirs, **EXACT)
    x = inputs(5, 3)
    start = [torch.randn(4, 5 if batch_first else 3, N).double() for _ in range(2)]
    h_0 = tuple(start) if cell == "lstm" else start[0]
    for given in ((x,), (x, h_0)):
        for a, b in zip((ours(*given)), theirs(*given), strict=True):
            for mine, right in zip(flat(a), flat(b), strict=True):
                torch.testing.assert_close(mine, right, rtol=0, atol=1e-10)
    again = layer(cell, 2, True, seed=1)
    again.load_state_dict(theirs.state_dict())
    assert torch.equal(again(x)[0], layer_like(again, ours)(x)[0])


def layer_like(made, other):
    made = copy.deepcopy(made)
    made.load_state_dict(other.state_dict())
    return made


def test_float32_and_options_of_pytorchs_layers():
    theirs = torch.nn.RNN(M, N, nonlinearity="relu", bias=False)
    ours = ParallelRNN.from_torch(theirs, atol=1e-7, rtol=1e-7)
    x = inputs(9, 2, dtype=torch.float32)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-6)
    assert ours.bias_ih_l0.abs().max() == 0
    with pytest.raises(prs.InvalidInput, match="proj_size=2"):
        ParallelRNN.from_torch(torch.nn.LSTM(M, N, proj_size=2))
    with pytest.raises(prs.InvalidInput, match="module is a Linear"):
        ParallelRNN.from_torch(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("cell", OPTIONS)
def test_a_padded_batch_equals_its_sequences(cell):
    made, x = layer(cell, 2, True), inputs(5, 2)
    y, h_n = made(x, lengths=LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        alone, last = made(x[:length, b])
        torch.testing.assert_close(y[:length, b], alone, rtol=0, atol=1e-11)
        assert not y[length:, b].any()
        for mine, right in zip(flat(h_n), flat(last), strict=True):
            torch.testing.assert_close(mine[:, b], right, rtol=0, atol=1e-11)


@pytest.mark.parametrize("enforce_sorted", [False, True])
def test_packed_sequences_are_those_of_pytorch(enforce_sorted):
    from torch.nn.utils import rnn

    theirs = torch.nn.GRU(M, N, bidirectional=True).double()
    lengths = torch.tensor([5, 3] if enforce_sorted else [3, 5])
    packed = rnn.pack_padded_sequence(inputs(5, 2), lengths, enforce_sorted=enforce_sorted)
    (a, h_a), (b, h_b) = ParallelRNN.from_torch(theirs, **EXACT)(packed), theirs(packed)
    torch.testing.assert_close(a.data, b.data, rtol=0, atol=1e-11)
    torch.testing.assert_close(h_a, h_b, rtol=0, atol=1e-11)
    assert torch.equal(a.batch_sizes, b.batch_sizes)
    torch.testing.assert_close(rnn.pad_packed_sequence(a)[0], rnn.pad_packed_sequence(b)[0])
    with pytest.raises(prs.InvalidInput, match="has its own"):
        ParallelRNN.from_torch(theirs)(packed, lengths=lengths)


@pytest.mark.parametrize("cell", ["diagonal_gru", "lstm"])
def test_layouts(cell):
    made, x = layer(cell, 2), inputs(5, 3)
    y, h_n = made(x)
    first = copy.deepcopy(made)
    first.batch_first = True
    swapped, same = first(x.transpose(0, 1))
    assert torch.equal(swapped.transpose(0, 1), y)
    alone, last = made(x[:, 1])
    torch.testing.assert_close(alone, y[:, 1], rtol=0, atol=1e-11)
    for mine, swapped_state, single in zip(flat(h_n), flat(same), flat(last), strict=True):
        assert torch.equal(mine, swapped_state)
        torch.testing.assert_close(single, mine[:, 1], rtol=0, atol=1e-11)
    onward, _ = made(x[:, 1], last)
    torch.testing.assert_close(onward, made(x, h_n)[0][:, 1], rtol=0, atol=1e-11)


def test_a_sequence_in_two_parts_is_the_whole():
    made, x = layer("diagonal_lstm", 2), inputs(8, 3)
    y, h_n = made(x)
    first, between = made(x[:3])
    second, last = made(x[3:], between)
    torch.testing.assert_close(torch.cat([first, second]), y, rtol=0, atol=1e-11)
    for a, b in zip(last, h_n, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_dropout_is_between_layers_and_in_training_only():
    made, x = layer("diagonal_gru", 2, dropout=0.5), inputs(5, 2)
    plain = copy.deepcopy(made)
    plain.dropout = 0.0
    assert not torch.equal(made(x)[0], made(x)[0])
    assert torch.equal(made.eval()(x)[0], plain(x)[0])
    one = layer("diagonal_gru", 1, dropout=0.5)
    assert torch.equal(one(x)[0], one(x)[0])


def test_initialization_is_the_cells_own_and_follows_the_seed():
    a, b, c = (layer("diagonal_gru", seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.a_l0, c.a_l0)
    torch.testing.assert_close(a.b_l0[0], torch.linspace(0, -1, N).double())
    before = a.a_l0.detach().clone()
    torch.manual_seed(0)
    a.reset_parameters()
    assert torch.equal(a.a_l0, before)


def test_saved_copied_and_pickled_layers_are_the_same(tmp_path):
    made, x = layer("block_gru", 2, True), inputs(4, 2)
    y, file = made(x)[0], io.BytesIO()
    torch.save(made.state_dict(), file)
    file.seek(0)
    loaded = layer("block_gru", 2, True, seed=5)
    loaded.load_state_dict(torch.load(file))
    whole = io.BytesIO()
    torch.save(made, whole)
    whole.seek(0)
    others = [
        loaded,
        copy.deepcopy(made),
        pickle.loads(pickle.dumps(made)),
        torch.load(whole, weights_only=False),
    ]
    for other in others:
        assert torch.equal(other(x)[0], y)
        assert other.statistics is not made.statistics
        assert other.statistics.solves == 4


def test_the_state_dict_of_another_cell_is_refused():
    with pytest.raises(RuntimeError, match="Missing key.*weight_ih_l0"):
        layer("gru").load_state_dict(layer("diagonal_gru").state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for weight_ih_l0"):
        layer("gru").load_state_dict(torch.nn.LSTM(M, N).state_dict())


def test_moved_to_another_dtype():
    made = layer("diagonal_gru", dtype=torch.float32, atol=None, rtol=None)
    x = inputs(5, 2, dtype=torch.float32)
    y = made(x)[0]
    assert y.dtype == torch.float32
    torch.testing.assert_close(made.double()(x.double())[0].float(), y, rtol=0, atol=1e-5)


def test_autocast_keeps_states_in_float32():
    made, x = layer("diagonal_gru", 2, dtype=torch.float32, atol=None, rtol=None), inputs(9, 2)
    x = x.detach().float().requires_grad_()
    exact = made(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, h_n = made(x)
        other, _ = made(x.bfloat16(), torch.zeros(2, 2, N, dtype=torch.bfloat16))
    assert y.dtype == h_n.dtype == torch.float32
    torch.testing.assert_close(y, exact, rtol=0, atol=0.05)
    torch.testing.assert_close(other, exact, rtol=0, atol=0.05)
    assert not torch.equal(y, exact)
    y.sum().backward()
    assert x.grad.dtype == torch.float32


def test_gradients_are_off_where_they_are_not_wanted():
    made, x = layer("diagonal_gru"), inputs(4, 2)
    with torch.no_grad():
        assert not made(x)[0].requires_grad
    made.requires_grad_(False)
    made(x)[0].sum().backward()
    assert x.grad is not None
    assert made.a_l0.grad is None


def test_a_layer_used_twice_sums_its_gradients():
    made, x, z = layer("diagonal_gru"), inputs(4, 2), inputs(6, 1, seed=2)
    (made(x)[0].sum() + made(z)[0].sum()).backward()
    together = made.a_l0.grad.clone()
    made.zero_grad()
    made(x)[0].sum().backward()
    made(z)[0].sum().backward()
    torch.testing.assert_close(made.a_l0.grad, together)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients(use_reentrant):
    from torch.utils.checkpoint import checkpoint

    made, x = layer("diagonal_gru", 2), inputs(5, 2)
    made(x)[0].square().sum().backward()
    expected, right = made.a_l0.grad.clone(), x.grad.clone()
    made.zero_grad()
    x.grad = None
    checkpoint(lambda x: made(x)[0], x, use_reentrant=use_reentrant).square().sum().backward()
    assert torch.equal(made.a_l0.grad, expected)
    assert torch.equal(x.grad, right)


def test_clipping_is_in_place_and_for_diagonal_cells():
    made = layer("diagonal_lstm", 2, True)
    pointers = [p.data_ptr() for p in made.parameters()]
    untouched = made.B_l1.detach().clone()
    made.clip_recurrent(0.05)
    assert [p.data_ptr() for p in made.parameters()] == pointers
    for name in ("a_l0", "p_l0", "a_l1_reverse", "p_l1_reverse"):
        assert getattr(made, name).abs().max() <= 0.05
    assert torch.equal(made.B_l1, untouched)
    with pytest.raises(prs.InvalidInput, match="no recurrent weights to clip"):
        layer("gru").clip_recurrent(0.5)


def test_failures_raise_or_fall_back_and_are_counted():
    x = 3 * inputs(200, 1).detach()

    def steep(**options):
        made = layer("elman", method="newton", max_iter=2, **options)
        with torch.no_grad():
            made.weight_hh_l0 *= 20
        return made

    made = steep()
    with pytest.raises(prs.ConvergenceError):
        made(x)
    assert (made.statistics.solves, made.statistics.failures) == (1, 1)
    made = steep(on_failure="sequential")
    theirs = torch.nn.RNN(M, N).double()
    theirs.load_state_dict(made.state_dict())
    torch.testing.assert_close(made(x)[0], theirs(x)[0], rtol=0, atol=1e-11)
    counts = made.statistics
    assert (counts.solves, counts.failures, counts.fallbacks, counts.iterations) == (1, 1, 1, 2)
    counts.reset()
    assert (counts.solves, counts.failures, counts.fallbacks, counts.iterations) == (0, 0, 0, 0)


@pytest.mark.parametrize("cell", OPTIONS)
def test_the_stepper_goes_on_where_the_layer_ends(cell):
    made, x = layer(cell, 2), inputs(8, 3)
    y, _ = made(x)
    advance = made.stepper(3, made(x[:5])[1])
    found = torch.stack([advance(x[t]) for t in range(5, 8)])
    torch.testing.assert_close(found, y[5:].detach(), rtol=0, atol=1e-10)
    advance.reset()
    assert torch.equal(advance(x[5]), found[0])
    assert [tuple(state.shape)[0] for state in advance.states] == [3, 3]


def test_a_bidirectional_layer_has_no_stepper():
    with pytest.raises(prs.InvalidInput, match="bidirectional=False"):
        layer("gru", 1, True).stepper()


def test_print_shows_what_it_is():
    text = str(layer("diagonal_gru", 2, True))
    assert text == "ParallelRNN('diagonal_gru', 6, 4, num_layers=2, bidirectional=True, heads=2)"


WRONG = {
    "x has shape (5, 2, 7); expected (T, B, m) or (T, m) with m = input_size = 6": lambda made: (
        made(torch.zeros(5, 2, 7).double())
    ),
    "h_0 has shape (1, 3, 4); expected (layers * directions, B, d) = (1, 2)": lambda made: made(
        inputs(5, 2), torch.zeros(1, 3, 4).double()
    ),
    "x is a ndarray; expected a tensor": lambda made: made(np.zeros((5, 2, 6))),
    "x is torch.float32 and the layer torch.float64": lambda made: made(torch.zeros(5, 2, 6)),
    "x is torch.float16": lambda made: made(torch.zeros(5, 2, 6).half()),
    "the layer is torch.bfloat16; expected float32 or float64": lambda made: made.bfloat16()(
        torch.zeros(5, 2, 6).bfloat16()
    ),
    "lengths[1] is 6; expected a length between 0 and T = 5": lambda made: made(
        inputs(5, 2), lengths=[5, 6]
    ),
    "lengths have shape (3,)": lambda made: made(inputs(5, 2), lengths=[1, 2, 3]),
    "lengths are float32; expected integers": lambda made: made(inputs(5, 2), lengths=[1.0, 2.0]),
    "not finite at 120 place(s) in all": lambda made: made(inputs(5, 2) / 0),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_calls_are_named(message):
    with pytest.raises(prs.InvalidInput, match=re.escape(message)):
        WRONG[message](layer("diagonal_gru", bidirectional="lengths" in message))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("paragru", 3, 4), "cell is 'paragru'; expected one of elman"),
        (("gru", 3.0, 4), "input_size is 3.0"),
        (("gru", 3, 4, 0), "num_layers is 0"),
        (("gru", 3, 4, 1, False, False, 1.5), "dropout is 1.5"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(prs.InvalidInput, match=message):
        ParallelRNN(*arguments)


@pytest.mark.parametrize("cell", ["diagonal_gru", "gru"])
def test_kernels_run_in_layers_of_any_size(cell, monkeypatch):
    """A training calls a layer again and again, so they are soon earned."""
    solved = []
    solve = prs.solve
    monkeypatch.setattr(prs, "solve", lambda *a, **k: solved.append(solve(*a, **k)) or solved[-1])
    made = layer(cell)
    made(inputs(5, 2))
    made(inputs(5, 2), lengths=LENGTHS[:2])
    assert [solution.compiled for solution in solved] == [True, True]
    plain = layer(cell, compiled=False)
    plain(inputs(5, 2))
    assert not solved[-1].compiled


def test_wrong_options_are_named():
    with pytest.raises(prs.InvalidInput, match="nonlinearity is of cell 'elman' only"):
        ParallelRNN("gru", 3, 4, nonlinearity="relu")
    with pytest.raises(prs.InvalidInput, match="nonlinearity is 'sine'"):
        ParallelRNN("elman", 3, 4, nonlinearity="sine")
    with pytest.raises(prs.InvalidInput, match="expected a pair"):
        layer("lstm")(inputs(5, 2), torch.zeros(1, 2, 4).double())
