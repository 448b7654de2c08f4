"""Synthetic tasks are what their definitions say, and a small network learns one in seconds."""

from functools import partial

import numpy as np
import pytest

from pararnn_solvers.reproduction import tasks
from pararnn_solvers.tree import flatten


def test_the_nth_letter_is_asked_for_from_there_on():
    letters, answers, asked = tasks.keep_nth(np.random.default_rng(0), 5, n=3, T=7, size=4)
    assert (answers == letters[2]).all()
    assert asked.tolist() == [[t >= 2] * 5 for t in range(7)]


def hops(sequence, t, k):
    """Follow the definition one hop at a time; None where one is impossible."""
    for _ in range(k):
        earlier = [s for s in range(t) if sequence[s] == sequence[t]]
        if not earlier:
            return None
        t = earlier[-1] + 1
    return sequence[t]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_hops_follow_their_definition(k):
    batch = tasks.k_hop(np.random.default_rng(k), 6, k=k, T=20, size=3)
    for sequence, answers, asked in zip(*(part.T.tolist() for part in batch), strict=True):
        expected = [hops(sequence, t, k) for t in range(20)]
        assert asked == [answer is not None for answer in expected]
        assert [a for a, here in zip(answers, asked, strict=True) if here] == [
            answer for answer in expected if answer is not None
        ]
    assert batch.asked.any()


def test_recall_asks_for_the_value_that_was_told_of_each_key():
    batch = tasks.recall(np.random.default_rng(0), 6, pairs=3, size=5)
    for letters, answers, asked in zip(*(part.T.tolist() for part in batch), strict=True):
        told = dict(zip(letters[0:6:2], letters[1:6:2], strict=True))
        assert len(told) == 3 and max(told) < 5 <= min(told.values())
        assert set(letters[6:]) == set(told)
        assert answers[6:] == [told[key] - 5 for key in letters[6:]]
        assert asked == [False] * 6 + [True] * 3


TASK = tasks.Task(partial(tasks.keep_nth, n=1, T=5, size=3), 3, 3, (100, 100, 1))


def test_the_gradient_is_the_derivative_of_the_loss():
    cell, rng = "diagonal_gru", np.random.default_rng(0)
    model = tasks.init(cell, TASK, rng, width=4)
    leaves, rebuild = flatten(model)
    along = [rng.standard_normal(leaf.shape) for leaf in leaves]
    batch = TASK.draw(rng, 8)

    def moved(eps):
        return rebuild([leaf + eps * v for leaf, v in zip(leaves, along, strict=True)])

    gradient = flatten(tasks.loss_and_gradient(cell, moved(0.0), batch)[1])[0]
    slope = sum(np.sum(g * v) for g, v in zip(gradient, along, strict=True))
    ends = [tasks.loss_and_gradient(cell, moved(eps), batch)[0] for eps in (1e-3, -1e-3)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-3, rtol=1e-3)


def test_a_small_model_learns_a_short_task_and_stops():
    right, steps = tasks.learn("diagonal_gru", TASK, steps=1000, width=16)
    assert right == 1.0
    assert steps < 1000


def test_rows_have_theirs_beside_ours(monkeypatch):
    monkeypatch.setattr(tasks, "learn", lambda cell, task: (0.985, 700))
    rows = list(tasks.rows("keep-nth"))
    assert [row.agrees for row in rows] == [True, True, False]
    assert rows[2] == ("keep-nth, minGRU, linear", "1 % (Mamba2)", "98.5 % after 700 steps", False)
