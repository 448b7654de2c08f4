"""State dicts of PyTorch become parameters, and what does not fit is refused."""

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.cells import elman, gru, lstm
from pararnn_solvers.cells.state_dicts import to_state_dict
from tests.cells.reference import random_state

CELLS = {"RNN": elman, "GRU": gru, "LSTM": lstm}


def state_of(kind, **options):
    return random_state(kind, np.random.default_rng(0), 3, 4, **options)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("directions", [1, 2])
def test_layers_and_directions_come_out_in_order(kind, directions):
    state = state_of(kind, layers=3, directions=directions)
    layers = CELLS[kind].from_state_dict(state)
    assert [len(layer) for layer in layers] == [directions] * 3
    for i, layer in enumerate(layers):
        for theta, suffix in zip(layer, ("", "_reverse"), strict=False):
            for name, value in theta._asdict().items():
                np.testing.assert_array_equal(value, state[f"{name}_l{i}{suffix}"])


@pytest.mark.parametrize("kind", CELLS)
def test_the_way_back_gives_the_same_state_dict(kind):
    state = state_of(kind, layers=2, directions=2)
    back = to_state_dict(CELLS[kind].from_state_dict(state))
    assert list(back) == list(state)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value)


def test_parameters_are_copies():
    state = state_of("GRU")
    [(theta,)] = gru.from_state_dict(state)
    theta.weight_hh[:] = 0
    assert state["weight_hh_l0"].any()


def test_absent_biases_are_zero():
    [(theta,)] = gru.from_state_dict(state_of("GRU", bias=False))
    assert theta.bias_ih.shape == theta.bias_hh.shape == (12,)
    assert not theta.bias_ih.any()
    assert not theta.bias_hh.any()


def test_the_dtype_is_kept_or_the_one_asked_for():
    state = state_of("LSTM", dtype=np.float32)
    assert lstm.from_state_dict(state)[0][0].weight_ih.dtype == np.float32
    assert lstm.from_state_dict(state, dtype=np.float64)[0][0].weight_ih.dtype == np.float64
    half = {name: value.astype(np.float16) for name, value in state.items()}
    with pytest.raises(prs.InvalidInput, match="is float16; expected float32 or float64"):
        lstm.from_state_dict(half)
    assert lstm.from_state_dict(half, dtype=np.float32)[0][0].bias_ih.dtype == np.float32


def test_the_dict_of_one_cell_has_no_layer_in_its_names():
    state = {name.removesuffix("_l0"): value for name, value in state_of("GRU").items()}
    [(theta,)] = gru.from_state_dict(state)
    np.testing.assert_array_equal(theta.weight_ih, state["weight_ih"])


def test_a_prefix_finds_the_layer_of_a_model():
    state = {f"encoder.rnn.{name}": value for name, value in state_of("GRU").items()}
    model = state | {"encoder.head.weight": np.ones((2, 4))}
    [(theta,)] = gru.from_state_dict(model, prefix="encoder.rnn.")
    np.testing.assert_array_equal(theta.weight_hh, state["encoder.rnn.weight_hh_l0"])
    with pytest.raises(prs.InvalidInput, match=r"has 'encoder\.rnn\.weight_ih_l0'.*prefix="):
        gru.from_state_dict(model)
    with pytest.raises(prs.InvalidInput, match=r"begins with 'decoder\.'"):
        gru.from_state_dict(model, prefix="decoder.")


@pytest.mark.parametrize("theirs", CELLS)
@pytest.mark.parametrize("ours", CELLS)
def test_the_state_dict_of_another_cell_is_refused(theirs, ours):
    state = state_of(theirs)
    if theirs == ours:
        assert len(CELLS[ours].from_state_dict(state)) == 1
        return
    module = CELLS[theirs].__name__.rpartition(".")[2]
    expected = (
        rf"that of a {theirs}; expected .* of a {ours}: use pararnn_solvers\.cells\.{module}\."
    )
    with pytest.raises(prs.InvalidInput, match=expected):
        CELLS[ours].from_state_dict(state)


def test_projected_layers_are_refused():
    state = state_of("LSTM") | {"weight_hr_l0": np.ones((2, 4))}
    with pytest.raises(prs.InvalidInput, match=r"weight_hr_l0.*no proj_size"):
        lstm.from_state_dict(state)


def test_missing_layers_are_named():
    state = state_of("GRU", layers=3, directions=2)
    del state["weight_hh_l1_reverse"]
    with pytest.raises(prs.InvalidInput, match="lacks weight_hh of layer 1 in reverse"):
        gru.from_state_dict(state)


def test_sizes_that_do_not_fit_are_named():
    state = state_of("GRU", layers=2)
    state["bias_hh_l1"] = np.zeros(5)
    with pytest.raises(prs.InvalidInput, match=r"bias_hh of layer 1 has shape \(5,\).*\(12,\)"):
        gru.from_state_dict(state)
    state = state_of("GRU", layers=2) | {"weight_ih_l1": np.zeros((12, 3))}
    with pytest.raises(prs.InvalidInput, match=r"shape \(12, 3\); expected \(12, 4\).*below has 4"):
        gru.from_state_dict(state)
    state = state_of("GRU") | {"weight_hh_l0": np.zeros(12)}
    with pytest.raises(prs.InvalidInput, match=r"weight_hh of layer 0 has shape \(12,\)"):
        gru.from_state_dict(state)


def test_tensors_of_half_precision_and_with_gradients_are_read():
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(3, 4)
    tracked = dict(module.named_parameters())
    [(theta,)] = gru.from_state_dict(tracked)
    np.testing.assert_array_equal(theta.weight_hh, tracked["weight_hh_l0"].detach().numpy())
    half = {name: value.bfloat16() for name, value in tracked.items()}
    [(theta,)] = gru.from_state_dict(half, dtype=np.float32)
    np.testing.assert_allclose(theta.weight_hh, tracked["weight_hh_l0"].detach().numpy(), rtol=1e-2)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in to_state_dict([(theta,)]).items()})
