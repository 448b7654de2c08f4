"""The likely bug in a Jacobian, by name: what wrong Jacobians look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pararnn_solvers.autodiff.trace.graph import MOST_COMPONENTS
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.testing.context import Context, number
from pararnn_solvers.testing.oracles import HALF, beyond
from pararnn_solvers.typing import Array

MOST_SUSPECTS = 200  # operations of a step that are looked at one by one


def dense(blocks: Array) -> Array:
    """Return blocks (..., k, q, n) as matrices (..., k n, q n), component-major."""
    *lead, k, q, n = blocks.shape
    matrices = np.zeros((*lead, k, n, q, n), blocks.dtype)
    channels = np.arange(n)
    matrices[..., channels, :, channels] = np.moveaxis(blocks, -1, 0)
    return matrices.reshape(*lead, k * n, q * n)


def diagonal_of(values: Array) -> Array:
    """Return matrices with these diagonals."""
    return np.asarray(values[..., None] * np.eye(values.shape[-1]))


def name_the_bug(context: Context, got: Array, wrong: Array, at_next: Array) -> str:
    """Return the remedy for a wrong Jacobian (..., d, d).

    Parameters
    ----------
    wrong : bool array
        Which entries differ.
    at_next : array
        The Jacobian at the next state.
    """
    expected = context.jacobian
    d = expected.shape[-1]
    k, _ = context.recurrence.structure(d)
    looks = {
        "wrong sign: all entries have the other sign": -expected,
        "transposed block: entry (i, j) is df_i/dh_j, and not df_j/dh_i": expected.swapaxes(-1, -2),
        "column sums taken for a diagonal: sum_i df_i/dh_j in place of df_j/dh_j; the channels "
        "couple, return matrices (..., d, d)": diagonal_of(expected.sum(-2)),
        "row sums taken for a diagonal: sum_j df_i/dh_j in place of df_i/dh_i; the channels "
        "couple, return matrices (..., d, d)": diagonal_of(expected.sum(-1)),
        "couplings left out: only the diagonal was returned; return matrices (..., d, d), or give "
        "the diagonal to quasi_newton() as an approximation": diagonal_of(
            np.diagonal(expected, axis1=-2, axis2=-1)
        ),
        "derivative at the wrong state: it is that at h_t, and not at h_{t-1}; differentiate "
        "step at its argument h": at_next,
        "identity left out: df/dh minus the identity was returned": expected - np.eye(d),
    }
    if 1 < k < d:
        order = np.arange(d).reshape(k, d // k).T.ravel()
        looks["components and channels exchanged: the state is component-major, h = [c | y]"] = (
            expected[..., order, :][..., order]
        )
    for label, candidate in looks.items():
        if not beyond(got, candidate, HALF).any():
            return label
    return (
        entry_by_entry(got, expected, wrong)
        or suspect(
            context, "states", expected, lambda candidate: not beyond(got, candidate, HALF).any()
        )
        or "differentiate step again, or leave jacobian= out: step is then differentiated exactly"
    )


def entry_by_entry(got: Array, expected: Array, wrong: Array) -> str:
    """Say what all wrong entries have in common, or nothing."""
    pairs = wrong.any(axis=tuple(range(wrong.ndim - 2)))
    some = ", ".join(f"({i}, {j})" for i, j in np.argwhere(pairs)[:4])
    where = "all entries" if pairs.all() else f"the entries {some}"
    g, e = got[wrong], expected[wrong]
    if not beyond(g, -e, HALF).any():
        return f"wrong sign of {where}"
    if not np.any(g):
        return f"{where} are left out (zero)"
    if np.all(e):
        ratio = np.median(g / e)
        if not beyond(g, ratio * e, HALF).any():
            return f"a factor {number(ratio)} too much in {where}"
    return ""


def suspect(context: Context, group: str, expected: Array, matches: Callable[[Array], bool]) -> str:
    """Name the operation of step whose derivative is missing or has the wrong sign, or nothing.

    Of a trace of step, each operation v in turn is taken for a constant: its share of the
    derivative, ``df/dv dv/dh``, is left out, or subtracted twice, and what comes out compared.

    Parameters
    ----------
    group : {"states", "drives"}
        By what step is differentiated.
    expected : array, shape (..., d, p)
        The true derivative by it.
    matches : callable
        Tells whether a wrong derivative is the one that was seen.
    """
    for operation, share, slope in shares(context, group):
        if share.shape != expected.shape:
            return ""  # drives that are no whole number of columns
        if matches(expected - share):
            return f"{operation} is taken for a constant: its derivative is left out"
        if matches(expected - 2 * share):
            return f"the derivative of {operation} has the wrong sign"
        if slope is not None and matches(expected - share + slope):
            return f"the slope of {operation} is left out, its argument's derivative is there"
    return ""


def shares(context: Context, group: str) -> Iterator[tuple[str, Array, Array | None]]:
    """Yield each operation of step, functions first, and its share of the derivative.

    The third is its share if its slope were 1, for functions of one argument.
    """
    from pararnn_solvers.autodiff.trace.derivative import forward
    from pararnn_solvers.autodiff.trace.graph import reachable
    from pararnn_solvers.autodiff.trace.tracing import evaluate, trace

    h, x = context.wide.samples
    theta = context.wide.system.theta
    k, n = context.recurrence.structure(context.size)
    try:
        if k > MOST_COMPONENTS:
            return
        traced = trace(context.recurrence.step, h, x, theta, k)
    except NotTraceable:
        return
    seeds = list(getattr(traced, group))
    values = traced.values(h, x, theta)

    def along(outputs: Any, inputs: Any) -> Array:
        nodes = [node for row in forward(outputs, inputs) for node in row]
        found = [np.broadcast_to(v, (*h.shape[:-1], n)) for v in evaluate(nodes, values)]
        return np.stack(found, axis=-2).reshape(*h.shape[:-1], len(outputs), len(inputs), n)

    operations = [node for node in reachable(traced.outputs) if node.args and not node.boolean]
    # Of several with the same share, a function says more than a product or a sum.
    for node in sorted(reversed(operations[-MOST_SUSPECTS:]), key=lambda node: len(node.args) > 1):
        outer = along(traced.outputs, [node])
        share = dense(outer * along([node], seeds))
        slope = dense(outer * along([node.args[0]], seeds)) if len(node.args) == 1 else None
        yield node.describe(3), share, slope
