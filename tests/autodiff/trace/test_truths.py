"""What a step does with truth values is what NumPy does with them, or is refused."""

from itertools import product

import numpy as np
import pytest

import pararnn_solvers as prs
from pararnn_solvers.autodiff.dual import Dual, tangent_of, value_of
from pararnn_solvers.autodiff.trace.tracing import evaluate, trace

X = np.array([1.0, 2.0, -1.0, -3.0])
SIGNS = np.array(list(product([1.0, -1.0], repeat=4)))  # of the states: every p there is


def of_p(name):
    function = getattr(np, name)
    return lambda p, q: function(p)


def written(p, value):
    out = p.copy()
    out[1:3] = value
    return out + p


# Of p = h > 0 and q = x > 0. What follows an operation tells truths from numbers: true + true is
# true, and 1 + true is 2.
ELEMENTWISE = {
    **{name: getattr(np, name) for name in ("add", "multiply", "maximum", "minimum", "less")},
    **{name: getattr(np, name) for name in ("fmax", "fmin", "equal", "not_equal", "less_equal")},
    **{name: getattr(np, name) for name in ("greater", "greater_equal", "bitwise_xor")},
    **{name: getattr(np, name) for name in ("logical_or", "logical_xor", "bitwise_and")},
    "divide": lambda p, q: p / (q | ~q),
    "absolute": lambda p, q: abs(p),
    "isnan": lambda p, q: np.isnan(p),
    "invert": lambda p, q: ~p,
    "logical_not": lambda p, q: np.logical_not(p),
    "where": lambda p, q: np.where(p, q, ~q),
    "where of a number": lambda p, q: np.where(p, q, 0),
    "select": lambda p, q: np.select([p, q], [q, p], False),
    "clip": lambda p, q: np.clip(p, 0, 1),
    "clip by truths": lambda p, q: np.clip(p, q, True),
    "copy": lambda p, q: np.copy(p),
    "real": lambda p, q: np.real(p),
    "truths of another place": lambda p, q: p + np.array([True, True, False, False]),
    "numbers of another place": lambda p, q: p + np.arange(4),
    "a truth": lambda p, q: p + True,
    "a number": lambda p, q: p + 1,
    "a power": lambda p, q: p**2,
    "a power of": lambda p, q: 2**p,
    "a difference": lambda p, q: p - 1,
    "a quotient": lambda p, q: p // 2 + p % 2,
    "astype": lambda p, q: p.astype(float),
    "astype bool": lambda p, q: p.astype(bool),
    "in place": lambda p, q: p.copy().__iadd__(q),
    "in place, and": lambda p, q: p.copy().__imul__(q),
    "numbers in place": lambda p, q: p.astype(float).__iadd__(q),
    "full_like": lambda p, q: np.full_like(p, 0.5),
    "ones_like": lambda p, q: np.ones_like(p),
    "polyval": lambda p, q: np.polyval([True, False, True], p),
}  # fmt: skip
JOINED = {
    "diff": lambda p, q: np.append(np.diff(p), True),
    "second diff": lambda p, q: np.append(np.diff(p, 2), q[:2]),
    "diff along rows": lambda p, q: np.append(np.diff(np.stack([p, q])), True)[3:],
    "no diff": lambda p, q: np.diff(p, 0),
    "diff of rows": lambda p, q: np.diff(np.stack([p, q, p & q]), axis=0)[1],
    "diff of numbers": lambda p, q: np.diff(2.0 * p, prepend=1),
    "stack": lambda p, q: np.stack([p, q])[1],
    "append": lambda p, q: np.append(p, q)[2:6],
    "append a number": lambda p, q: np.append(p, 1)[1:],
    "concatenate nothing": lambda p, q: np.concatenate([p[:0], p]),
    "roll": lambda p, q: np.roll(p, 1),
    "write truths": lambda p, q: written(p, q[:2]),
    "write numbers": lambda p, q: written(p, 2.5),
    "outer": lambda p, q: np.outer(p, q)[1],
    "kron": lambda p, q: np.kron(q, p)[:4],
    "diag": lambda p, q: np.diag(p)[1],
    "cumsum": lambda p, q: np.cumsum(p),
    "einsum of one": lambda p, q: np.einsum("ij->j", np.stack([p, q])),
    "einsum": lambda p, q: np.einsum("i,j->j", p, q),
    "einsum of a number": lambda p, q: np.einsum("i,j->j", p, 1.0 * q),
}
REDUCED = {
    **{name: of_p(name) for name in ("sum", "prod", "max", "min")},
    **{name: of_p(name) for name in ("mean", "all", "any")},
    **{name: getattr(np, name) for name in ("dot", "vdot", "inner", "matmul")},
    "tensordot": lambda p, q: np.tensordot(p, q, axes=1),
    "trace": lambda p, q: np.trace(np.diag(p)),
    "add.reduce": lambda p, q: np.add.reduce(p),
    "multiply.reduce": lambda p, q: np.multiply.reduce(p),
    "maximum.reduce": lambda p, q: np.maximum.reduce(p),
    "einsum, a number": lambda p, q: np.einsum("i,i", p, q),
}
if hasattr(np, "vecmat"):  # NumPy 2.2
    REDUCED["vecdot"] = np.vecdot
    REDUCED["vecmat"] = lambda p, q: np.vecmat(q, p[:, None])[0]
    REDUCED["matvec"] = lambda p, q: np.matvec(p[None], q)[0]
TRACED = {**ELEMENTWISE, **JOINED, **REDUCED}

# Errors in NumPy, or integers, or of half precision.
UFUNCS = {
    **{name: getattr(np, name) for name in ("subtract", "floor_divide", "remainder", "power")},
    **{name: getattr(np, name) for name in ("fmod", "hypot", "arctan2", "copysign", "logaddexp")},
    **{name: of_p(name) for name in ("negative", "sign", "positive")},
    **{name: of_p(name) for name in ("exp", "sqrt", "square", "rint")},
    "sigmoid": lambda p, q: prs.sigmoid(p),
    "softplus": lambda p, q: prs.softplus(p),
    "a truth less": lambda p, q: p - True,
    "diff of joined": lambda p, q: np.diff(p, append=q[:1]),
}
REFUSED = {
    **{name: (function, "of truth values alone") for name, function in UFUNCS.items()},
    "numbers in place": (lambda p, q: p.copy().__iadd__(1.5), "add gives into truth values"),
    "cumprod": (lambda p, q: np.cumprod(p), "numpy.cumprod"),
    "accumulate": (lambda p, q: np.add.accumulate(p), "numpy.add.accumulate"),
    "sum of a type": (lambda p, q: np.sum(p, dtype=bool), "numpy.sum with dtype="),
    "count": (lambda p, q: np.count_nonzero(p), "numpy.count_nonzero"),
}


def step_of(function):
    @np.errstate(all="ignore")
    def step(h, x, theta):
        f = function(h > 0, x > 0)
        return h * (f + (x > 0)) + f * x

    return step


@pytest.mark.parametrize("name", TRACED)
def test_a_trace_does_with_truths_what_numpy_does(name):
    """And so do dual arrays, whose derivatives are those of the trace."""
    step = step_of(TRACED[name])
    traced, states = trace(step, X, X, None, 4), SIGNS * [1, 2, 3, 4]
    values = traced.values(states, X, None)
    out = [np.broadcast_to(f, (16, 1)) for f in evaluate(traced.outputs, values)]
    expected = np.stack([step(h, X, None) for h in states])
    np.testing.assert_array_equal(np.concatenate(out, -1), expected)
    blocks = [[np.broadcast_to(v, 16) for v in map(np.ravel, evaluate(row, values))]
              for row in traced.jacobian()]  # fmt: skip
    for i, h in enumerate(states):
        dual = step(Dual(h, np.eye(4)), X, None)
        np.testing.assert_array_equal(value_of(dual), expected[i])
        np.testing.assert_array_equal(tangent_of(dual, 4).T, np.array(blocks)[..., i])


@pytest.mark.parametrize("name", REFUSED)
def test_what_numpy_gives_another_type_is_not_traced(name):
    function, message = REFUSED[name]
    step, dual = step_of(function), Dual(X, np.eye(4))
    with pytest.raises(prs.NotTraceable, match=message):
        trace(step, X, X, None, 4)
    try:
        expected = step(X, X, None)
    except TypeError:
        with pytest.raises(TypeError):
            step(dual, X, None)
    else:
        np.testing.assert_array_equal(value_of(step(dual, X, None)), expected)
