"""Published figures, computed again: theirs beside ours.

Each anchor is a function that returns rows; ``pararnn-solvers reproduce NAME`` prints them. Draws
are ours: counts vary about the published ones where they depend on the draw, and each row says by
what it is taken to agree.
"""

from __future__ import annotations

from functools import partial

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.reproduction import flows, networks, rounding, tasks
from pararnn_solvers.reproduction.anchor import Anchor, Row

__all__ = ["ANCHORS", "Anchor", "Row", "find"]

TABLE = "Danieli et al. 2025 (arXiv 2510.21450), table of synthetic tasks"
CLOSE = f"accuracy within {tasks.POINTS} points of theirs; a smaller task and a smaller network"

ANCHORS: dict[str, Anchor] = {
    "cells": Anchor(
        "iterations of Newton's method with the cells of the language models",
        "Danieli et al. 2025 (arXiv 2510.21450)",
        "3 or 4 iterations to machine precision from the guess f(0, x)",
        networks.cells_of_language_models,
    ),
    "tanh-network": Anchor(
        "a tanh network of 32 units over 65536 steps",
        "Gonzalez et al. 2024 (arXiv 2407.19115)",
        "the counts of two usual draws of the weights enclose theirs, to one iteration",
        networks.tanh_network,
    ),
    "mean-field": Anchor(
        "a mean-field network at the edge of chaos, T = 1000, D = 100",
        "Gonzalez et al. 2025 (arXiv 2508.16817), section 5",
        "at most 10 iterations where the exponent is below -0.01, more than 150 where above 0.01",
        networks.mean_field,
    ),
    "observers": Anchor(
        "observers of chaotic flows, T = 30000",
        "Gonzalez et al. 2025 (arXiv 2508.16817), table 1",
        "the same count; for Thomas' flow at most theirs",
        flows.observers,
    ),
    "flows": Anchor(
        "chaotic flows themselves, T = 30000",
        "Gonzalez et al. 2025 (arXiv 2508.16817), table 1",
        "Newton's method does not pay: an overflow, or more than 100 iterations",
        flows.flows,
    ),
    "abc": Anchor(
        "the ABC flow's count, by the unknowns and by how the linear recurrence is summed up",
        "Gonzalez et al. 2025 (arXiv 2508.16817), table 1",
        "within 10 % of theirs where states are solved for by pairs; less than 0.9 of it elsewhere",
        rounding.abc,
    ),
    "exponents": Anchor(
        "largest Lyapunov exponents of the flows per unit of time, T = 30000",
        "Gonzalez et al. 2025 (arXiv 2508.16817), table 1",
        "within 0.05 plus 10 %",
        flows.exponents,
    ),
    "langevin": Anchor(
        "two-well Langevin sampling, T = 10000",
        "Gonzalez et al. 2025 (arXiv 2508.16817), section 5",
        "at most 35 iterations; the exponent within 20 %",
        flows.langevin,
    ),
    "k-hop": Anchor(
        "k-hop induction, k = 2: letters that follow letters that follow",
        TABLE,
        CLOSE,
        partial(tasks.rows, "k-hop"),
    ),
    "keep-nth": Anchor(
        "the n-th letter, kept to the end",
        TABLE,
        CLOSE,
        partial(tasks.rows, "keep-nth"),
    ),
    "mqar": Anchor(
        "multi-query associative recall: values of keys",
        TABLE,
        CLOSE,
        partial(tasks.rows, "mqar"),
    ),
}
"""Name -> what is reproduced, from where, and by what it is taken to agree."""


def find(name: str) -> Anchor:
    """Return the anchor of that name.

    Raises
    ------
    InvalidInput
        Lists the names there are.

    Examples
    --------
    >>> find("observers").title
    'observers of chaotic flows, T = 30000'
    """
    if name not in ANCHORS:
        raise InvalidInput(f"name is {name!r}; expected one of {', '.join(ANCHORS)}")
    return ANCHORS[name]
