"""Tasks on which sequence models are compared, and the accuracy of networks that learn them.

Sequences are shorter, alphabets and networks smaller than in the source: one core trains a network
in seconds. A linear cell stands where the source has Mamba2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pararnn_solvers.cells import stack
from pararnn_solvers.reproduction.anchor import Row
from pararnn_solvers.tree import flatten
from pararnn_solvers.typing import Array

BATCH, STEPS, EVERY = 64, 2000, 250
RATE, WARM, DECAYS = 5e-3, 50, (0.9, 0.99)  # of Adam
UNSEEN = 256  # sequences in a test
POINTS = 2  # per cent by which rows may differ
LINEAR = "minGRU, linear"
CELLS = {"ParaGRU": "diagonal_gru", "ParaLSTM": "diagonal_lstm", LINEAR: "min_gru"}


class Batch(NamedTuple):
    """Numbers of letters (T, B), of the answers to them (T, B), and where answers are asked for."""

    letters: Array
    answers: Array
    asked: Array


def keep_nth(rng: np.random.Generator, batch: int, n: int = 5, T: int = 32, size: int = 8) -> Batch:
    """Draw random letters; from the n-th on, that one is asked for."""
    letters = rng.integers(0, size, (T, batch))
    asked = np.broadcast_to(np.arange(T)[:, None] >= n - 1, (T, batch))
    return Batch(letters, np.broadcast_to(letters[n - 1], (T, batch)), asked)


def k_hop(rng: np.random.Generator, batch: int, k: int = 2, T: int = 16, size: int = 3) -> Batch:
    """Draw random letters; a hop goes to the letter after the last one that was the same before.

    Asked for, at each step from which k hops are possible, is the letter they lead to. Source:
    Sanford et al. 2024 (arXiv 2402.09268), definition of hop_k.
    """
    letters = rng.integers(0, size, (T, batch))
    sequences, after, hop = np.arange(batch), np.full((size, batch), -1), np.empty((T, batch), int)
    for t in range(T):
        if t:
            after[letters[t - 1], sequences] = t
        hop[t] = after[letters[t], sequences]
    places = np.broadcast_to(np.arange(T)[:, None], (T, batch))
    for _ in range(k):
        places = np.where(places < 0, -1, hop[places, sequences])
    return Batch(letters, letters[places, sequences], places >= 0)


def recall(rng: np.random.Generator, batch: int, pairs: int = 3, size: int = 4) -> Batch:
    """Draw pairs of a key and a value, then all keys in another order, whose values are asked for.

    Keys are the letters below `size`, values those above. Source: Arora et al. 2023 (arXiv
    2312.04927), multi-query associative recall (MQAR).
    """

    def shuffled(n: int) -> Array:
        return rng.permuted(np.tile(np.arange(n)[:, None], (1, batch)), axis=0)

    keys, order = shuffled(size)[:pairs], shuffled(pairs)
    values = rng.integers(0, size, (pairs, batch))
    told = np.stack([keys, size + values], axis=1).reshape(2 * pairs, batch)
    letters = np.concatenate([told, np.take_along_axis(keys, order, 0)])
    answers = np.concatenate([np.zeros_like(told), np.take_along_axis(values, order, 0)])
    asked = np.broadcast_to(np.arange(3 * pairs)[:, None] >= 2 * pairs, letters.shape)
    return Batch(letters, answers, asked)


class Task(NamedTuple):
    """How batches are drawn, how many letters and answers there are, what is published.

    `published` has per cent for ParaGRU, ParaLSTM and Mamba2.
    """

    draw: Callable[..., Batch]
    letters: int
    answers: int
    published: tuple[int, int, int]


TASKS = {
    "k-hop": Task(k_hop, 3, 3, (100, 100, 98)),
    "keep-nth": Task(keep_nth, 8, 8, (100, 100, 1)),
    "mqar": Task(recall, 8, 4, (100, 100, 100)),
}


class Model(NamedTuple):
    """Two layers of a cell over one-hot letters, and a read-out that the current letter gates.

    Logits of state y at a letter x are ``(y gate[x]) readout + bias``: the gate, of shape
    (letters, n), lets a key choose among what is stored.
    """

    layers: Any
    gate: Array
    readout: Array
    bias: Array


def init(cell: str, task: Task, rng: np.random.Generator, width: int) -> Model:
    """Draw a model in float32."""
    layers = stack.init(cell, rng, task.letters, width, layers=2, dtype=np.float32)
    readout = rng.standard_normal((width, task.answers)) / np.sqrt(width)
    ones, zeros = np.ones((task.letters, width)), np.zeros(task.answers)
    return Model(layers, *(leaf.astype(np.float32) for leaf in (ones, readout, zeros)))


def states(cell: str, model: Model, letters: Array) -> stack.Stacked:
    """Return the states of both layers at all steps, solved for at once."""
    x = np.eye(len(model.gate), dtype=np.float32)[letters]
    return stack.apply(cell, model.layers, x, compiled=True)


def accuracy(cell: str, model: Model, batch: Batch) -> float:
    """Return the share of right answers where they are asked for."""
    y = states(cell, model, batch.letters).y * model.gate[batch.letters]
    found = (y @ model.readout + model.bias).argmax(axis=-1)
    return float((found == batch.answers)[batch.asked].mean())


def loss_and_gradient(cell: str, model: Model, batch: Batch) -> tuple[float, Model]:
    """Return the mean cross-entropy of the answers asked for, and its gradient."""
    stacked, gate = states(cell, model, batch.letters), model.gate[batch.letters]
    read = stacked.y * gate
    logit = read @ model.readout + model.bias
    logit -= logit.max(axis=-1, keepdims=True)
    share = np.exp(logit) / np.exp(logit).sum(axis=-1, keepdims=True)
    truth = np.eye(len(model.bias), dtype=np.float32)[batch.answers]
    weight = (batch.asked / batch.asked.sum()).astype(np.float32)
    loss = -np.sum(weight * np.log((share * truth).sum(axis=-1)))

    dlogit = (share - truth) * weight[..., None]
    dread = dlogit @ model.readout.T
    dgate = np.zeros_like(model.gate)
    np.add.at(dgate, batch.letters, dread * stacked.y)
    dlayers, _, _ = stack.gradients(cell, model.layers, stacked, dread * gate)
    dreadout = np.tensordot(read, dlogit, ((0, 1), (0, 1)))
    return float(loss), Model(dlayers, dgate, dreadout, dlogit.sum(axis=(0, 1)))


def adam(model: Model, steps: int) -> Iterator[Callable[[Model], Model]]:
    """Yield, for each step, what makes a model of a gradient: Adam, its rate warmed, then a cosine.

    Gradients are clipped to norm 1. Source: Kingma & Ba 2015, algorithm 1.
    """
    leaves, rebuild = flatten(model)
    first, second = ([np.zeros_like(leaf) for leaf in leaves] for _ in range(2))

    def moved(step: int, gradient: Model) -> Model:
        found = flatten(gradient)[0]
        scale = min(1.0, 1 / np.sqrt(sum(float(np.sum(g * g)) for g in found)))
        rate = RATE * min(1.0, step / WARM) * (1 + np.cos(np.pi * step / steps)) / 2
        for i, g in enumerate(found):
            for moment, power, decay in ((first, 1, DECAYS[0]), (second, 2, DECAYS[1])):
                moment[i] = decay * moment[i] + (1 - decay) * (scale * g) ** power
            m, v = first[i] / (1 - DECAYS[0] ** step), second[i] / (1 - DECAYS[1] ** step)
            leaves[i] = (leaves[i] - rate * m / (np.sqrt(v) + 1e-8)).astype(leaves[i].dtype)
        updated: Model = rebuild(list(leaves))
        return updated

    for step in range(1, steps + 1):
        yield partial(moved, step)


def learn(
    cell: str, task: Task, *, seed: int = 0, steps: int = STEPS, width: int = 64
) -> tuple[float, int]:
    """Train a model and return its accuracy on unseen sequences, and the steps it took.

    Training ends when all answers are right, or after `steps`.
    """
    rng = np.random.default_rng(seed)
    model, right = init(cell, task, rng, width), 0.0
    unseen = task.draw(np.random.default_rng(seed + 1), UNSEEN)
    for step, update in enumerate(adam(model, steps), start=1):
        model = update(loss_and_gradient(cell, model, task.draw(rng, BATCH))[1])
        if step % EVERY == 0 or step == steps:
            right = accuracy(cell, model, unseen)
            if right == 1.0:
                break
    return right, step


def rows(name: str) -> Iterator[Row]:
    """Train each cell on a task and return its accuracy beside the published one."""
    task = TASKS[name]
    for (cell, module), theirs in zip(CELLS.items(), task.published, strict=True):
        right, steps = learn(module, task)
        published = f"{theirs} % (Mamba2)" if cell == LINEAR else f"{theirs} %"
        ours = f"{100 * right:.1f} % after {steps} steps"
        yield Row(f"{name}, {cell}", published, ours, abs(100 * right - theirs) <= POINTS)
