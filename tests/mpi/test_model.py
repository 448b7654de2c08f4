"""The model of how solves over ranks scale, and the simulation beside it."""

from dataclasses import replace

import numpy as np
import pytest

from tests.benchmarks import ranks

COSTS = ranks.Costs(
    stepping=1e-7, auto=5e-8, scan=2e-8, product=2e-8, newton_shared=2e-6, auto_shared=5e-8,
    fixed=0.0, newton_exchanges=20, auto_exchanges=10, latency=5e-6, per_byte=1e-9, nbytes=100,
)  # fmt: skip
FREE = replace(COSTS, latency=0.0, per_byte=0.0)


def test_without_messages_work_is_divided():
    for P in (2, 64, 4096):
        assert ranks.auto_seconds(FREE, 1e9, P) == pytest.approx(1e9 / P * FREE.auto_shared)
        assert ranks.simulated(FREE, 0.0, 10, P) == 0.0


def test_messages_cost_the_depth_of_a_tree():
    idle = replace(COSTS, auto_shared=0.0)
    each = 10 * (2 * 5e-6 + 100e-9)
    for P, depth in ((2, 1), (8, 3), (4096, 12)):
        assert ranks.auto_seconds(idle, 1e9, P) == pytest.approx(depth * each)
        assert ranks.simulated(idle, 0.0, 10, P) == pytest.approx(depth * each)


def test_unequal_ranks_are_slower_than_the_model():
    for P in (8, 512):
        work = 1e10 / P * COSTS.auto_shared
        assert ranks.simulated(COSTS, work, 10, P) > ranks.auto_seconds(COSTS, 1e10, P)


def test_an_exchange_waits_for_all_ranks_before():
    clock = np.zeros(8)
    clock[3] = 1.0
    ranks.pass_on(clock, 0.0)
    assert clock.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    ranks.agree(clock, 0.0)
    assert clock.tolist() == [1] * 8


def test_the_crossover_is_where_ranks_win():
    assert ranks.crossover(ranks.newton_seconds, COSTS, 1e9, COSTS.stepping) == "32"
    assert ranks.crossover(ranks.newton_seconds, COSTS, 1e9, 0.0) == "none"
