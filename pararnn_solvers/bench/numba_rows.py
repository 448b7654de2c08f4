"""One step of each recurrence on contiguous vectors of neighbouring states, for `numba_map`.

Each vector is contiguous and of one dimension: of such loops LLVM fills whole registers.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, no-any-return, call-arg"
from __future__ import annotations

from typing import Any

from numba import njit

from pararnn_solvers.compiled.vector_math import exp, tanh
from pararnn_solvers.linear.simd import widest
from pararnn_solvers.typing import Array

compiled = njit(nogil=True, error_model="numpy", fastmath={"contract"})
inlined = njit(nogil=True, error_model="numpy", fastmath={"contract"}, forceinline=True)


@inlined
def sigmoid(x: Any, one: Any) -> Any:
    """Return the logistic function as one writes it; `one` is 1 in the type of x.

    Cheaper than `vector_math.sigmoid`, whose left tail is relatively more accurate.
    """
    return one / (one + exp(-x))


@compiled
def gru(
    h: Array, uz: Array, ur: Array, uc: Array, az: Array, ar: Array, ac: Array, out: Array
) -> None:
    """Write one step of a diagonal GRU."""
    widest()
    one = h.dtype.type(1)
    for i in range(out.size):
        z = sigmoid(az[i] * h[i] + uz[i], one)
        r = sigmoid(ar[i] * h[i] + ur[i], one)
        c = tanh(ac[i] * h[i] * r + uc[i])
        out[i] = h[i] + z * (c - h[i])


@compiled
def lstm(
    c: Array, y: Array, uf: Array, ug: Array, uo: Array,
    af: Array, ag: Array, ao: Array, pf: Array, po: Array, c_out: Array, y_out: Array,
) -> None:  # fmt: skip
    """Write one step of a diagonal LSTM."""
    widest()
    one = c.dtype.type(1)
    for i in range(c_out.size):
        f = sigmoid(af[i] * y[i] + pf[i] * c[i] + uf[i], one)
        g = tanh(ag[i] * y[i] + ug[i])
        new = f * c[i] + (one - f) * g
        c_out[i] = new
        y_out[i] = sigmoid(ao[i] * y[i] + po[i] * new + uo[i], one) * tanh(new)


@compiled
def dense(
    h: Array, ur: Array, uz: Array, uc: Array, pr: Array, pz: Array, pc: Array, b: Array, out: Array
) -> None:
    """Write one step of PyTorch's GRU, given the products of its states and weights."""
    widest()
    one = h.dtype.type(1)
    for i in range(out.size):
        r = sigmoid(ur[i] + pr[i], one)
        z = sigmoid(uz[i] + pz[i], one)
        c = tanh(uc[i] + r * (pc[i] + b[i]))
        out[i] = c + z * (h[i] - c)


@compiled
def logistic(h: Array, rate: Array, out: Array) -> None:
    """Write one step of the logistic map."""
    widest()
    one = h.dtype.type(1)
    for i in range(out.size):
        out[i] = rate[i] * h[i] * (one - h[i])


@compiled
def gru_products(
    h: Array, uz: Array, ur: Array, uc: Array, az: Array, ar: Array, ac: Array, lam: Array,
    out: Array, duz: Array, dur: Array, duc: Array, daz: Array, dar: Array, dac: Array,
) -> None:  # fmt: skip
    """Write one step of a diagonal GRU and the products of lam with its derivatives by u and a.

    Those by a are added to what is there.
    """
    widest()
    one = h.dtype.type(1)
    for i in range(out.size):
        z = sigmoid(az[i] * h[i] + uz[i], one)
        r = sigmoid(ar[i] * h[i] + ur[i], one)
        c = tanh(ac[i] * h[i] * r + uc[i])
        out[i] = h[i] + z * (c - h[i])
        dz = lam[i] * (c - h[i]) * z * (one - z)
        dc = lam[i] * z * (one - c * c)
        dr = dc * ac[i] * h[i] * r * (one - r)
        duz[i], dur[i], duc[i] = dz, dr, dc
        daz[i] += dz * h[i]
        dar[i] += dr * h[i]
        dac[i] += dc * h[i] * r
