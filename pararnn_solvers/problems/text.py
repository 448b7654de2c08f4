"""English text as the input of a recurrence: real data that is there wherever Python is."""

from __future__ import annotations

from typing import Any

import numpy as np

from pararnn_solvers.cells import diagonal_gru
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.typing import Array

CHANNELS = 16
EMBEDDING = 16
SEED = 0


def python_documentation() -> bytes:
    """Return the help topics that ship with Python, one after another (500 to 800 kB).

    Raises
    ------
    InvalidInput
        This Python was installed without them.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise InvalidInput(
            "this Python ships without pydoc_data.topics, the text that is used when no input is "
            "named; pass --input FILE.txt"
        ) from None
    return "\n".join(topics.values()).encode()


def drive_gru(text: bytes, dtype: Any, seed: int = SEED) -> tuple[Array, diagonal_gru.Theta]:
    """Return drives (T, 3 n) of a diagonal GRU and its parameters, drawn at random, seeded.

    Each byte is embedded in m numbers and projected to the drives of the gates.

    Parameters
    ----------
    text : bytes, of length T
    dtype : float32 or float64
    """
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((256, EMBEDDING)).astype(dtype)
    theta = diagonal_gru.init(rng, EMBEDDING, CHANNELS, dtype=dtype)
    # There are only 256 bytes: projecting their table is projecting the text.
    return diagonal_gru.project(table, theta)[np.frombuffer(text, np.uint8)], theta
