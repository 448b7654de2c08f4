"""A staged trace is cut where products wait for what is computed in each channel."""

import numpy as np
import pytest

from pararnn_solvers.autodiff.trace.staged import trace_staged
from pararnn_solvers.autodiff.trace.stages import cut
from pararnn_solvers.functions import sigmoid

N = 3
W, U, V = np.random.default_rng(0).normal(size=(3, N, N))
WIDE = np.random.default_rng(1).normal(size=(2 * N, 2 * N))


def joined(*parts):
    return np.concatenate(parts, axis=-1)


def halves(h):
    return np.split(h, 2, axis=-1)


def nothing(h, x):
    return 0.5 * h + x


def elman(h, x):
    return np.tanh(h @ W + x @ V)


def minimal_gated_unit(h, x):
    f = sigmoid(h @ W + x @ V)
    return (1 - f) * h + f * np.tanh((f * h) @ U)


def three_levels(h, x):
    return np.tanh(np.sin(np.cos(h @ W) @ U) @ V)


def two_rows(h, x):
    return np.sin(h) @ W + np.cos(h) @ U


def row_again(h, x):
    """What is stored as a row serves the end of the step, too."""
    r = np.tanh(h)
    return r @ W + r


def part_of_a_row(h, x):
    """One factor of the row is needed again, and the row itself."""
    s = sigmoid(h)
    row = np.tanh(h) * s
    return (row @ W) * s - row


def for_a_later_row(h, x):
    """The gate is needed in the second row, and not at the end."""
    s = sigmoid(h)
    return (np.tanh((s * h) @ W) * s) @ U


def cheap_again(h, x):
    """Only what calls a function is stored: the rest is computed again."""
    z = 2 * h + x
    return (z * h) @ W + z


def condition_again(h, x):
    return np.where(np.tanh(h) > 0.5, ((np.tanh(h) > 0.5) * h) @ W, 0)


def row_in_two_levels(h, x):
    r = np.tanh(h)
    return joined(r, np.sin(r @ W)) @ WIDE[:, :N]


def components(h, x):
    """Both components in a row, and one: parts of the state where they are in order."""
    a, b = halves(h)
    return h @ WIDE + joined(b @ W, a)


def exchanged(h, x):
    a, b = halves(h)
    return joined(a, b) * (joined(b, a) @ WIDE)


def partly_computed(h, x):
    a, b = halves(h)
    return joined(a, np.sin(b)) @ WIDE


def twice(h, x):
    a, b = halves(h)
    return joined(b, b) @ WIDE + h


# name: (step, entries of the state, stages, operands, stored); of a stage its level, the
# functions it calls, what it reads and how many values it writes, of all of which which first.
CUTS = {
    "nothing": (nothing, N, [(1, "", "h0 x0", 1, 0)], {}, 0),
    "elman": (elman, N, [(2, "tanh", "product0_0 product1_0", 1, 0)], {}, 0),
    "minimal gated unit": (
        *(minimal_gated_unit, N),
        [
            (2, "sigmoid", "h0 product0_0 product1_0", 2, 0),
            (3, "tanh", "h0 product2_0 stored1", 1, 0),
        ],
        *({2: 0}, 2),
    ),
    "three levels": (
        *(three_levels, N),
        [
            (2, "cos", "product0_0", 1, 0),
            (3, "sin", "product1_0", 1, 1),
            (4, "tanh", "product2_0", 1, 0),
        ],
        *({1: 0, 2: 1}, 2),
    ),
    "two rows": (
        *(two_rows, N),
        [(1, "cos sin", "h0", 2, 0), (2, "", "product0_0 product1_0", 1, 0)],
        *({0: 0, 1: 1}, 2),
    ),
    "row again": (
        *(row_again, N),
        [(1, "tanh", "h0", 1, 0), (2, "", "product0_0 stored0", 1, 0)],
        *({0: 0}, 1),
    ),
    "part of a row": (
        *(part_of_a_row, N),
        [(1, "sigmoid tanh", "h0", 2, 0), (2, "", "product0_0 stored0 stored1", 1, 0)],
        *({0: 0}, 2),
    ),
    "for a later row": (
        *(for_a_later_row, N),
        [
            (1, "sigmoid", "h0", 2, 0),
            (2, "tanh", "product0_0 stored1", 1, 2),
            (3, "", "product1_0", 1, 0),
        ],
        *({0: 0, 1: 2}, 3),
    ),
    "cheap again": (
        *(cheap_again, N),
        [(1, "", "h0 x0", 1, 0), (2, "", "h0 product0_0 x0", 1, 0)],
        *({0: 0}, 1),
    ),
    "condition again": (
        *(condition_again, N),
        [(1, "tanh", "h0", 2, 0), (2, "", "product0_0 stored1", 1, 0)],
        *({0: 0}, 2),
    ),
    "row in two levels": (
        *(row_in_two_levels, N),
        [
            (1, "tanh", "h0", 1, 0),
            (2, "sin", "product0_0 stored0", 2, 1),
            (3, "", "product1_0", 1, 0),
        ],
        *({0: 0, 1: 1}, 3),
    ),
    "components": (
        *(components, 2 * N),
        [(2, "", "h0 product0_0 product0_1 product1_0", 2, 0)],
        *({}, 0),
    ),
    "exchanged": (
        *(exchanged, 2 * N),
        [(1, "", "h0 h1", 2, 0), (2, "", "h0 h1 product0_0 product0_1", 2, 0)],
        *({0: 0}, 2),
    ),
    "partly computed": (
        *(partly_computed, 2 * N),
        [(1, "sin", "h0 h1", 2, 0), (2, "", "product0_0 product0_1", 2, 0)],
        *({0: 0}, 2),
    ),
    "twice": (
        *(twice, 2 * N),
        [(1, "", "h1", 2, 0), (2, "", "h0 h1 product0_0 product0_1", 2, 0)],
        *({0: 0}, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_what_each_stage_computes_reads_and_writes(name):
    step, d, expected, rows, values = CUTS[name]
    trace = trace_staged(lambda h, x, theta: step(h, x), np.ones(d), np.ones(N), None)
    stages, operands, stored = cut(trace)

    def told(stage):
        read = " ".join(sorted(stage.code.names))
        return stage.level, " ".join(stage.code.functions), read, stage.outputs, stage.first

    assert (list(map(told, stages)), operands, stored) == (expected, rows, values)
