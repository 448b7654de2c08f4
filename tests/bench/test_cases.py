import numpy as np
import pytest

from pararnn_solvers.bench import cases
from pararnn_solvers.errors import InvalidInput
from tests.bench.small import SMALL


@pytest.mark.parametrize("name", SMALL)
def test_data_have_the_shapes_and_the_type_of_the_case(name):
    case = SMALL[name]
    problem = cases.build(case)
    again = cases.build(case)
    assert problem.h0.shape == (*case.batch, case.model.components * case.channels)
    assert problem.h0.dtype == case.dtype
    assert np.array_equal(problem.h0, again.h0)
    if case.model.gates:
        assert problem.u.shape == (60, *case.batch, 3 * case.channels)
        assert problem.u.dtype == case.dtype
        assert np.array_equal(problem.u, again.u)


@pytest.mark.parametrize("name", SMALL)
def test_parts_are_joined_again(name):
    problem = cases.build(SMALL[name])
    assert np.array_equal(cases.join(cases.state(problem), problem.h0.shape), problem.h0)
    if problem.u is not None:
        assert np.array_equal(cases.join(cases.drives(problem), problem.u.shape), problem.u)


def test_one_channel_has_no_axis():
    problem = cases.build(SMALL["one-channel"])
    assert [v.shape for v in cases.drives(problem)] == [(60,)] * 3
    assert [v.shape for v in cases.weights(problem)] == [(3,)]
    assert [v.shape for v in cases.state(problem)] == [()]


def test_the_long_memory_is_long():
    u = cases.build(SMALL["long-memory"]).u
    forget = 1 / (1 + np.exp(np.median(u[:, 0])))
    assert 0.998 < forget < 0.9995


def test_the_drives_of_the_dense_gru_come_from_its_inputs():
    problem = cases.build(SMALL["dense-128"])
    x, W, b = problem.raw
    np.testing.assert_allclose(problem.u, x @ W.T + b)


def test_the_first_steps():
    problem = cases.first(cases.build(SMALL["dense-128"]), 7)
    assert problem.case.steps == len(problem.u) == len(problem.raw[0]) == 7
    assert cases.first(problem, 99).case.steps == 7


def test_cases_are_chosen_by_name_and_once():
    assert [case.name for case in cases.choose(["lstm", "batch", "lstm"])] == ["lstm", "batch"]
    assert [case.name for case in cases.choose(None)] == list(cases.CASES)
    with pytest.raises(InvalidInput, match="'lstms'; expected one of one-channel, "):
        cases.choose(["lstms"])
