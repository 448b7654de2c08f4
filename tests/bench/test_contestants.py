"""Every contestant computes the same; tests of libraries that are not installed are skipped."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from pararnn_solvers.bench import check, jax_scan, numba_map
from pararnn_solvers.bench.cases import build
from pararnn_solvers.bench.contestants import CONTESTANTS, NotComparable
from tests.bench.small import SMALL


@pytest.fixture(scope="module")
def problems():
    return {name: check.answered(build(case)) for name, case in SMALL.items()}


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("name", CONTESTANTS)
def test_answers_are_right(problems, monkeypatch, name, case):
    if case != "batch":  # JAX takes seconds to compile all of them each time
        monkeypatch.setattr(jax_scan, "UNROLL", (2,))
    missing = CONTESTANTS[name].missing()
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed")
    problem = problems[case]
    try:
        variants = CONTESTANTS[name].variants(problem)
    except NotComparable as reason:
        assert str(reason)
        return
    for variant in variants:
        result = variant.call()
        assert check.error(problem, variant.collect(result)) <= problem.case.allowed
        assert isinstance(variant.note(result), str)


@pytest.mark.parametrize("case", SMALL)
def test_the_most_important_ones_compute_every_case(problems, case):
    for name in ("pararnn_solvers", "map", "Numba loop", "NumPy loop"):
        assert CONTESTANTS[name].variants(problems[case])


def test_the_map_tries_both_layouts(problems):
    variants = CONTESTANTS["map"].variants(problems["lstm"])
    assert [variant.note(None) for variant in variants] == ["gates apart", "as passed"]


@pytest.mark.parametrize("steps, channels, k", [(60, 1, 1), (61, 3, 2), (7, 2000, 3)])
def test_parts_are_put_together_again(steps, channels, k):
    v = np.arange(steps * channels * k, dtype=float).reshape(steps, channels * k)
    parts = numba_map.apart(v, k, channels)
    assert parts.shape[2] <= max(numba_map.VECTOR, channels)
    assert np.array_equal(numba_map.together(parts, v.shape), v)


def test_what_is_missing_is_named():
    absent = CONTESTANTS["map"]._replace(packages=("numba", "package_that_is_missing"))
    assert absent.missing() == ["package_that_is_missing"]


@pytest.mark.parametrize("case", ["batch", "lstm", "float64"])
def test_pararnn_is_given_the_layout_it_expects(problems, monkeypatch, case):
    pytest.importorskip("torch")
    from pararnn_solvers.bench import pararnn_torch
    from tests.bench import stand_in

    monkeypatch.setitem(sys.modules, "pararnn", stand_in.pararnn())
    for variant in pararnn_torch.newton(problems[case]):
        result = variant.call()
        assert check.error(problems[case], variant.collect(result)) <= 1e-6
        assert variant.note(result).startswith("eager, 4 iterations, ")


@pytest.mark.parametrize("name", ["Numba loop", "map"])
def test_gradients_by_hand_are_of_the_gru_only(problems, name):
    problem = problems["lstm"]
    problem = problem._replace(case=replace(problem.case, task="gradient"))
    with pytest.raises(NotComparable, match="is written for lstm"):
        CONTESTANTS[name].variants(problem)


def test_float64_is_asked_of_a_jax_that_had_it_elsewhere(monkeypatch):
    jax = pytest.importorskip("jax")
    older = pytest.importorskip("jax.experimental")
    monkeypatch.delattr(jax, "enable_x64", raising=False)
    asked = []
    monkeypatch.setattr(older, "enable_x64", asked.append, raising=False)
    jax_scan.enable_x64(True)()
    assert asked == [True]
