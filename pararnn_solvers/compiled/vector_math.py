"""Elementary functions that LLVM vectorizes: `FUNCTIONS`, by name.

Numba leaves ``np.exp`` in a loop a call of the C library for each element. These functions are
inlined, do not branch and call nothing, so that LLVM puts neighbouring elements of a loop into one
register, whatever the processor:

    @njit(error_model="numpy", fastmath={"contract"})
    def kernel(x, out):
        for i in range(x.size):
            out[i] = exp(x[i])

They take float32 or float64, stay there (nothing in a float32 function is computed in float64),
and follow IEEE 754 and C at zeros, infinities, NaN and beyond the range; subnormal numbers are
neither lost as arguments nor flushed as results, but for those of `sigmoid`. ``fastmath`` of the
caller does not reach into them; only ``nnan`` and ``ninf`` promise that such values will not occur.

Greatest error found, in units in the last place, against long double: on many millions of
arguments of all magnitudes, near thresholds and near multiples of pi/2, and in float32 on every
23rd of all finite arguments. Without fused multiply-add the bounds of the tests hold as well.

| function | float32 | float64 | also |
|---|---|---|---|
| ``exp`` | 0.76 | 0.76 | 0 and infinity beyond the range |
| ``expm1`` | 1.03 | 1.10 | -0 at -0 |
| ``log`` | 0.85 | 0.85 | -infinity at 0, NaN below |
| ``log1p`` | 1.39 | 1.39 | -infinity at -1, NaN below |
| ``tanh`` | 1.48 | 1.50 |  |
| ``sigmoid`` | 1.50 | 1.55 | accurate in both tails; 0 where the result is subnormal |
| ``softplus`` | 1.67 | 1.70 | likewise |
| ``sin`` | 0.83 | 0.79 | NaN beyond the limit below |
| ``cos`` | 0.80 | 0.79 | likewise |
| ``erf`` | 1.08 | 1.06 |  |
| ``sqrt`` | 0.50 | 0.50 | NaN below 0 |
| ``pow`` | 0.80 | 0.90 | C's special values |

``sin`` and ``cos`` are NaN beyond ``2**20`` (float32) and ``2**49`` (float64), where adjacent
numbers lie an eighth or a sixteenth of a radian apart: see `trigonometric`. The benchmark
``tests/benchmarks/vector_math.py`` measures errors and speed.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="untyped-decorator, call-arg, no-any-return"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pararnn_solvers.compiled.arithmetic import root, strict
from pararnn_solvers.compiled.exponential import erf, exp, expm1, sigmoid, tanh
from pararnn_solvers.compiled.logarithmic import log, log1p, pow, softplus
from pararnn_solvers.compiled.trigonometric import cos, sin

__all__ = [
    "FUNCTIONS",
    "cos",
    "erf",
    "exp",
    "expm1",
    "log",
    "log1p",
    "pow",
    "sigmoid",
    "sin",
    "softplus",
    "sqrt",
    "tanh",
]


@strict
def sqrt(x: Any) -> Any:
    """Square root: the processor's own.

    Measured: within 0.50 ulp.
    """
    return root(x)


LIMITED = ("cos", "sin")  # NaN for large arguments
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "cos": cos,
    "erf": erf,
    "exp": exp,
    "expm1": expm1,
    "log": log,
    "log1p": log1p,
    "pow": pow,
    "sigmoid": sigmoid,
    "sin": sin,
    "softplus": softplus,
    "sqrt": sqrt,
    "tanh": tanh,
}
"""The functions to call from compiled code, by name, each for both types."""
