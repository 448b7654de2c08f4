"""A compiled scan for many sequences of two components and one channel: 2 x 2 systems in SIMD.

The states of adjacent sequences are adjacent pairs, their matrices adjacent fours; shuffles bring
the matrix entries to the states that they multiply.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, var-annotated, no-any-return"
from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pararnn_solvers.linear.arguments import Array
from pararnn_solvers.linear.jit import compiled
from pararnn_solvers.linear.numba_rows import Shape, Tile, U
from pararnn_solvers.linear.simd import load, pairs_product, store, width


def pairs(A: Array, b: Array, h: Array, shape: Shape, tile: Tile, adjoint: bool) -> None:
    """Solve sequences ``tile[:2]`` with ``k = 2`` and ``n = 1``; arrays as in ``numba_rows``."""
    _solver(adjoint)(A, b, h, shape, tile)


@cache
def _solver(adjoint: bool) -> Callable[..., None]:
    row, column = (1, 2) if adjoint else (2, 1)

    @compiled
    def solve(A: Array, b: Array, h: Array, shape: Shape, tile: Tile) -> None:
        T, B, W = shape[0], U(shape[1]), width(A)
        lo, states = U(tile[0]) * U(2), U(tile[1] - tile[0]) * U(2)
        whole = states - states % W
        for s in range(T):
            t, earlier, block = (T - 1 - s, T - s, T - s) if adjoint else (s, s - 1, s)
            y = U(t) * B * U(2) + lo
            if s == 0:
                for c in range(states):
                    h[y + c] = b[y + c]
                continue
            x, a = U(earlier) * B * U(2) + lo, (U(block) * B * U(2) + lo) * U(2)
            for c in range(U(0), whole, W):
                first, second = load(A, a + U(2) * c), load(A, a + U(2) * c + W)
                total = pairs_product(first, second, load(h, x + c), load(b, y + c), adjoint)
                store(h, y + c, total)
            for c in range(whole, states, U(2)):
                for i in range(U(2)):
                    a_i = a + U(2) * c + i * U(row)
                    h[y + c + i] = A[a_i] * h[x + c] + (
                        A[a_i + U(column)] * h[x + c + U(1)] + b[y + c + i]
                    )

    return solve
