"""The likely bug in a derivative, by name: what wrong ones look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.trace.tracing import trace
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.testing.context import Context, number, rows
from pararnn_solvers.testing.oracles import HALF, ask, beyond
from pararnn_solvers.testing.structure import allowed, couplings, smallest_block_size
from pararnn_solvers.testing.suspects import explain
from pararnn_solvers.testing.terms import Terms
from pararnn_solvers.typing import Array

MOST_COMPONENTS = 16  # of a channel, for which terms are looked at one by one
SINGLE = 2e-6  # relative error of what was computed in float32


def dense(blocks: Array) -> Array:
    """Return blocks (..., k, q, n) as matrices (..., k n, q n), component-major."""
    *lead, k, q, n = blocks.shape
    matrices = np.zeros((*lead, k, n, q, n), blocks.dtype)
    channels = np.arange(n)
    matrices[..., channels, :, channels] = np.moveaxis(blocks, -1, 0)
    return matrices.reshape(*lead, k * n, q * n)


def by_component(matrices: Array, n: int) -> Array:
    """Return from matrices (..., k n, q n) the blocks (S, k, q, n): what is in one channel."""
    *_, d, p = matrices.shape
    cut = matrices.reshape(-1, d // n, n, p // n, n)
    return np.asarray(np.einsum("siaja->sija", cut))


def diagonal_of(values: Array) -> Array:
    """Return matrices with these diagonals."""
    return np.asarray(values[..., None] * np.eye(values.shape[-1]))


def name_the_bug(context: Context, got: Array, wrong: Array) -> str:
    """Return the likely defect of a wrong Jacobian (..., d, d), or nothing.

    Parameters
    ----------
    wrong : bool array
        Which entries differ.
    """
    expected = context.jacobian
    if not np.all(np.isfinite(got)):
        return "the derivative is not finite"
    for label, candidate in looks(context, expected).items():
        if not beyond(got, candidate, HALF).any():
            return label
    if not beyond(got, expected, SINGLE).any():
        return "right to 7 digits only: the derivative is computed in float32"
    return exchanged(got, expected) or by_terms(context, got, wrong) or elsewhere(context, got)


def by_terms(context: Context, got: Array, wrong: Array) -> str:
    """Say which entries are wrong in the same way, and which term of step explains it."""
    pattern = entry_by_entry(got, context.jacobian, wrong)
    term, all_of_it = of_terms(context, got)
    if pattern.startswith("a factor"):
        return term if all_of_it else pattern
    if pattern and all_of_it and "all entries" not in pattern:
        return f"{pattern}: {term}"
    return pattern or term


def looks(context: Context, expected: Array) -> dict[str, Array]:
    """Return what wrong Jacobians look like, by name."""
    d = expected.shape[-1]
    k, _ = context.recurrence.structure(d)
    found = {
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
        "identity left out: df/dh minus the identity was returned": expected - np.eye(d),
        "a mean over the sequences was returned": expected.mean(axis=1, keepdims=True),
        "a mean over the steps was returned": expected.mean(axis=0, keepdims=True),
    }
    if 1 < k < d:
        order = np.arange(d).reshape(k, d // k).T.ravel()
        found["components and channels exchanged: the state is component-major, h = [c | y]"] = (
            expected[..., order, :][..., order]
        )
    return found


def exchanged(got: Array, expected: Array) -> str:
    """Say that rows, or columns, are right but in another order, or nothing."""
    for what, axis in (("rows", -2), ("columns", -1)):
        g, e = np.moveaxis(got, axis, 0), np.moveaxis(expected, axis, 0)
        if len(g) > MOST_COMPONENTS:
            return ""
        same = np.array([[not beyond(a, b, HALF).any() for b in e] for a in g])
        order = same.argmax(axis=1)
        if same.any(axis=1).all() and sorted(order) == list(range(len(g))):
            i = int(np.flatnonzero(order != np.arange(len(g)))[0])
            return f"{what} in another order: {what[:-1]} {i} is that of component {order[i]}"
    return ""


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


def elsewhere(context: Context, got: Array) -> str:
    """Say that it is the derivative at other arguments, or nothing."""
    h, x = context.wide.samples
    f = np.asarray(context.wide.call(h.copy(), x))
    if not beyond(got, jacobian_at(context, f, x), HALF).any():
        return (
            "derivative at the wrong state: it is that at h_t, and not at h_{t-1}; differentiate "
            "step at its argument h"
        )
    for shift, which in ((1, "before"), (-1, "after")):
        if x is not None:
            moved = jacobian_at(context, h, np.roll(x, shift, axis=0))
            if not beyond(got[1:-1], moved[1:-1], HALF).any():
                return f"derivative at the wrong drive: it is that with x of the step {which}"
    return ""


def jacobian_at(context: Context, h: Array, x: Array | None) -> Array:
    """Return df/dh at other states or drives."""
    found = ask(lambda s: context.wide.call(s, x), h, np.eye(context.size)).best
    return np.moveaxis(found, 0, -1)


def traced_terms(context: Context) -> Terms | None:
    """Return the operations of step at the samples; None where they cannot be looked at."""
    d = context.size
    declared, _ = context.recurrence.structure(d)
    h, x = context.wide.samples
    arguments = (rows(h), None if x is None else rows(x))
    theta = context.wide.system.theta
    for k in dict.fromkeys((declared, smallest_block_size(couplings(context)), d)):
        if k <= MOST_COMPONENTS:
            try:
                traced = trace(context.recurrence.step, *arguments, theta, k)
            except NotTraceable:
                continue
            return Terms(traced, (*arguments, theta))
    return None


def of_terms(context: Context, got: Array) -> tuple[str, bool]:
    """Name the term of step that is wrong in a Jacobian (..., d, d), and tell if that is all."""
    terms = traced_terms(context)
    if terms is None:
        return "", False
    wrong = beyond(got, context.jacobian, HALF, context.oracles.noise.T)
    k, n = len(terms.traced.outputs), terms.traced.channels
    if np.any(wrong & ~allowed(k, context.size)):
        return "", False  # what couples channels is no term of one channel
    g, e, w = (by_component(a, n) for a in (got, context.jacobian, wrong))
    return explain(terms, terms.traced.states, g, e, np.asarray(w.any(axis=(0, 3))))


def of_drives(context: Context, got: Array, expected: Array) -> str:
    """Name the term that is wrong in a derivative by x (..., d, m), or nothing."""
    terms = traced_terms(context)
    if terms is None or expected.shape[-1] % terms.traced.channels:
        return ""
    n = terms.traced.channels
    g, e = by_component(got, n), by_component(expected, n)
    wrong = np.asarray(beyond(g, e, HALF).any(axis=(0, 3)))
    return explain(terms, terms.traced.drives, g, e, wrong)[0]


def of_parameters(context: Context, leaf: int, got: Array) -> str:
    """Name the term that is wrong in a derivative by a leaf of theta (S, d, *shape), or nothing."""
    terms = traced_terms(context)
    if terms is None:
        return ""
    traced, n = terms.traced, terms.traced.channels
    columns = [node for node in traced.parameters if node.value.leaf == leaf]
    got = got.reshape(len(got), len(traced.outputs), n, *got.shape[2:])
    expected, seen = [], []
    for node in columns:
        picked = np.array([[[node.value.pick(g) for g in part] for part in state] for state in got])
        seen.append(picked[..., np.arange(n), np.arange(n)] if node.value.channels else picked)
        inner = [terms.adjoints(out).get(node.id, 0.0) for out in traced.outputs]
        shape = (len(got), n)
        expected.append(np.stack([np.broadcast_to(a, shape) for a in inner], axis=1))
    if not columns:
        return ""
    g, e = np.stack(seen, axis=2), np.stack(expected, axis=2)
    wrong = np.asarray(beyond(g, e, HALF).any(axis=(0, 3)))
    if not wrong.any():
        return "right for a single state, and not summed over all of them"
    return explain(terms, columns, g, e, wrong)[0]


def rows_of_vjp(vjp: Callable[..., Any], h: Array, x: Array | None, theta: Any) -> tuple[Any, Any]:
    """Return the matrices by h and by x (..., d, .) that vjp= multiplies adjoints with."""
    found = []
    for unit in np.eye(h.shape[-1]):
        dh, dx, _ = vjp(h.copy(), None if x is None else x.copy(), theta, unit + np.zeros_like(h))
        found.append((np.asarray(dh), None if dx is None else np.asarray(dx)))
    by_h, by_x = zip(*found, strict=True)
    return np.stack(by_h, axis=-2), None if x is None else np.stack(by_x, axis=-2)


def rows_of_theta(
    vjp: Callable[..., Any], h: Array, x: Array | None, theta: Any, leaf: int
) -> Array:
    """Return the derivative by a leaf (S, d, *shape) that vjp= multiplies adjoints with."""
    d, states = h.shape[-1], rows(h)
    drives = [None] * len(states) if x is None else list(rows(x))
    return np.stack(
        [
            [
                tree.flatten(vjp(s.copy(), u if u is None else u.copy(), theta, unit)[2])[0][leaf]
                for unit in np.eye(d)
            ]
            for s, u in zip(states, drives, strict=True)
        ]
    )
