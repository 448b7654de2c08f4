"""How steps are shared out between ranks, in the tests."""

import numpy as np


def cuts(T, size):
    """Return the bounds of slabs: even ones, uneven ones, and all steps on one rank."""
    even = np.linspace(0, T, size + 1).astype(int)
    drawn = np.random.default_rng(T + 1000 * size).integers(0, T + 1, size - 1)
    uneven = np.array([0, *sorted(drawn), T])
    last = np.array([0] * size + [T])
    return [even, uneven, last]
