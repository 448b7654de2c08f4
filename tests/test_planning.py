"""What ``planning`` predicts is what is drawn, traced, executed and allocated."""

import time
from dataclasses import replace

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.planning import (
    CELLS,
    MODELS,
    NOMINAL,
    Model,
    as_dict,
    layer_memory,
    nearest,
    plan,
)
from tests.benchmarks import planning as measured

SMALL = Model(64, 2, heads=2, vocabulary=100)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("width", "heads"), [(8, 1), (64, 4), (512, 2)])
def test_parameters_of_a_cell_are_those_that_init_draws(cell, width, heads):
    predicted = measured.predicted_parameters(cell, width, heads)
    assert predicted == measured.counted_parameters(cell, width, heads)


@pytest.mark.parametrize("cell", CELLS)
def test_operations_are_those_of_the_trace(cell):
    one = CELLS[cell]
    assert (one.step, one.linearized, one.adjoint) == measured.traced_operations(cell)


@pytest.mark.parametrize("cell", CELLS)
def test_operations_of_a_step_are_those_that_numpy_executes(cell):
    assert CELLS[cell].step == measured.executed_operations(cell)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("inputs", "channels"), [(128, 128), (256, 64)])
def test_memory_of_a_layer_is_what_numpy_allocates_to_a_tenth(cell, inputs, channels):
    steps, batch = 1024, 8
    found = measured.in_new_process(measured.measured_memory, cell, steps, batch, inputs, channels)
    np.testing.assert_allclose(layer_memory(cell, inputs, channels, steps * batch), found, rtol=0.1)


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_in_pytorch_has_its_parameters_and_keeps_its_bytes_to_a_twentieth(cell):
    pytest.importorskip("torch")
    model = Model(64, 3, cell, vocabulary=100)
    parameters, kept = measured.torch_measured(model, 256, 4)
    found = plan(model, 256, batch=4, precision="float32")
    assert found.parameters == parameters
    np.testing.assert_allclose(found.stored, kept, rtol=0.05)


def test_time_follows_the_operations_to_a_factor_of_two():
    """From a GRU of 64 channels to an LSTM of 128: least times of one processor, in turns."""
    sizes = [("diagonal_gru", 64, 1 << 14), ("diagonal_lstm", 128, 3 << 13)]
    runs = [measured.recurrence_step(*size) for size in sizes]
    work = [width * tokens * (CELLS[c].step + CELLS[c].adjoint) for c, width, tokens in sizes]
    threads = prs.num_threads()
    prs.set_num_threads(1)
    try:
        known, found = measured.least_in_turns(runs, clock=time.process_time)
    finally:
        prs.set_num_threads(threads)
    assert 0.5 < known * work[1] / work[0] / found < 2


@pytest.mark.parametrize("name", MODELS)
def test_the_sizes_have_their_names(name):
    """To a half: the paper's 1B has DCLM's width and depth, and 1.4 G parameters there."""
    assert 1 <= MODELS[name].parameters / NOMINAL[name] < 1.5
    assert nearest(NOMINAL[name]) == name


def test_the_layer_is_the_sum_of_its_parts():
    layer = SMALL.layer
    assert layer.parameters == sum(part.parameters for part in SMALL.parts.values())
    assert layer.flops == 2 * (layer.parameters - (3 + CELLS[SMALL.cell].weights + 1) * 64)


def test_a_backward_pass_takes_twice_the_forward_and_once_more_where_it_runs_again():
    all_kept, inputs_kept = (plan(SMALL, 32, keep=keep) for keep in ("all", "inputs"))
    assert all_kept.backward == 2 * all_kept.forward
    again = SMALL.layers * SMALL.layer.flops
    assert inputs_kept.backward == all_kept.backward + again
    assert inputs_kept.stored < all_kept.stored


def test_what_grows_with_what():
    base = plan(SMALL, 32)
    double = plan(SMALL, 64)
    assert double.stored == 2 * base.stored == plan(SMALL, 32, batch=2).stored
    assert (double.weights, double.forward) == (base.weights, base.forward)
    deep = plan(replace(SMALL, layers=4), 32)
    assert deep.one_pass == 2 * base.one_pass
    assert deep.adjoint == 2 * base.adjoint
    assert plan(SMALL, 32, iterations=6).newton == 2 * base.newton
    split = plan(SMALL, 32, devices=4)
    assert 4 * split.moments >= base.moments > split.moments
    assert split.stored == base.stored
    assert split.working >= base.working


def test_bytes_of_each_precision():
    found = {name: plan(SMALL, 32, precision=name) for name in ("float32", "mixed")}
    assert found["float32"].weights == 4 * SMALL.parameters
    assert found["mixed"].weights == 6 * SMALL.parameters
    assert found["mixed"].moments == found["float32"].moments == 8 * SMALL.parameters
    assert found["mixed"].stored < found["float32"].stored
    p = found["mixed"]
    assert p.memory == p.weights + p.gradients + p.moments + p.stored + p.working


def test_seconds_add_both_kinds_of_work():
    found = plan(SMALL, 32, batch=2)
    expected = 64 * ((found.forward + found.backward) / 10 + (found.one_pass + found.adjoint) / 3)
    assert found.seconds(10, 3) == pytest.approx(expected)
    with pytest.raises(InvalidInput, match="flops is 0; expected a number > 0"):
        found.seconds(0, 1)


def test_a_plan_is_numbers_and_text():
    found = as_dict(plan(SMALL, 32))
    assert found["model"]["width"] == 64
    assert found["parts"]["gated MLP"]["parameters"] == 3 * 64 * 256
    assert found["memory"] == plan(SMALL, 32).memory


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Model(-8, 2), "width is -8; expected a whole number >= 1"),
        (lambda: Model(8, 0), "layers is 0; expected"),
        (lambda: Model(8.0, 1), "width is 8.0; expected"),
        (lambda: Model(8, 1, inner=0), "inner is 0; expected"),
        (lambda: Model(8, 1, vocabulary=0), "vocabulary is 0; expected"),
        (
            lambda: Model(8, 1, cell="gru"),
            "cell is 'gru'; expected one of diagonal_gru, diagonal_l",
        ),
        (lambda: Model(10, 1, heads=4), "width is 10, not a multiple of heads = 4; pass width=12"),
        (lambda: plan(SMALL, 0), "length is 0; expected a whole number >= 1"),
        (lambda: plan(SMALL, 8, batch=-1), "batch is -1; expected"),
        (lambda: plan(SMALL, 8, devices=0), "devices is 0; expected"),
        (lambda: plan(SMALL, 8, iterations=0), "iterations is 0; expected"),
        (lambda: plan(SMALL, 8, precision="float8"), "precision is 'float8'; expected one of"),
        (lambda: plan(SMALL, 8, keep="some"), "keep is 'some'; expected one of all, inputs"),
        (lambda: layer_memory("gru", 8, 8, 8), "cell is 'gru'; expected one of"),
        (lambda: layer_memory("diagonal_gru", 8, 8, 0), "tokens is 0; expected"),
        (lambda: nearest(1e6), r"params is 1e\+06; expected one of 400M.*--width"),
        (lambda: nearest(-7e9), "params is -7.*expected a number of parameters"),
        (lambda: nearest(float("nan")), "params is nan; expected"),
    ],
)
def test_sizes_that_are_none_are_refused(make, message):
    with pytest.raises(InvalidInput, match=message):
        make()
