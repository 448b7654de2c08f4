"""Who computes: the contestants, by name, and what each of them hands over."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

from pararnn_solvers.bench.cases import Problem
from pararnn_solvers.errors import PararnnError
from pararnn_solvers.typing import Array

OURS, FLOOR = "pararnn_solvers", "map"
LONGEST_LOOP = 4096
"""Steps of those contestants that are too slow for all."""


class NotComparable(PararnnError):
    """A contestant has nothing that computes this case; the message says why."""


class Variant(NamedTuple):
    """One way in which a contestant computes a problem; the fastest of its ways counts.

    Parameters
    ----------
    call : callable
        What is timed.
    collect : callable
        From what `call` returns to the arrays of ``Problem.answer``.
    note : callable
        From what `call` returns to a remark.
    """

    call: Callable[[], Any]
    collect: Callable[[Any], tuple[Array, ...]]
    note: Callable[[Any], str] = lambda result: ""


class Contestant(NamedTuple):
    """Where a contestant is, the packages it needs, and what it is in a few words.

    ``module:function`` is called with a problem and returns its variants. A contestant that calls
    Python for each step gets a shorter problem, of `longest` steps.
    """

    where: str
    packages: tuple[str, ...]
    what: str
    longest: int | None = None

    def missing(self) -> list[str]:
        """Return the packages that are not installed, without importing the others."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def variants(self, problem: Problem) -> list[Variant]:
        """Return the ways in which the contestant computes a problem.

        Raises
        ------
        NotComparable
        """
        module, function = self.where.split(":")
        prepare = getattr(importlib.import_module(f"pararnn_solvers.bench.{module}"), function)
        result: list[Variant] = prepare(problem)
        return result


CONTESTANTS = {
    OURS: Contestant("ours:solve", (), "this package: solve, gradients"),
    FLOOR: Contestant(
        "numba_map:apply", ("numba",), "the floor: f at given states, compiled, no recurrence"
    ),
    "Numba loop": Contestant("numba_loop:loop", ("numba",), "a compiled plain loop"),
    "jax.lax.scan": Contestant("jax_scan:scan", ("jax",), "jitted; the best of unroll=1, 8, 16"),
    "JAX Newton": Contestant(
        "jax_newton:newton", ("jax",), "Newton's method by jax.lax.associative_scan, jitted"
    ),
    "pararnn-torch": Contestant(
        "pararnn_torch:newton", ("torch", "pararnn"), "its Newton's method, eager on the CPU"
    ),
    "torch.nn.GRU": Contestant("torch_loop:module", ("torch",), "the module, dense GRU only"),
    "PyTorch loop": Contestant(
        "torch_loop:loop", ("torch",), "tensors, step by step in Python", LONGEST_LOOP
    ),
    "NumPy loop": Contestant("numpy_loop:loop", (), "arrays, step by step in Python", LONGEST_LOOP),
}
"""The contestants by name, in the order of the table."""
