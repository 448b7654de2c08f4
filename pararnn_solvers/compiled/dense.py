"""Dense recurrences compiled: many rows step by step, products and what comes between them.

A kernel is generated from a :class:`~pararnn_solvers.autodiff.trace.staged.StagedTrace`. It takes
one step of all its rows at a time: before the products of each level an elementwise stage that
writes their operands, then the products, at last a stage that writes the next states. Rows are
sequences, or chunks of sequences; each has a position in time of its own, and leaves when it is
done. Sizes and places are data, so that one kernel serves any number of channels.
"""

# Kernels are written in the language of Numba, which mypy does not know.
# mypy: disable-error-code="import-untyped, no-untyped-call, untyped-decorator, call-arg, misc"
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numba import uint64
from numba.core.compiler import Compiler

from pararnn_solvers.autodiff.trace.matrix_products import Column
from pararnn_solvers.autodiff.trace.staged import Product, StagedTrace
from pararnn_solvers.autodiff.trace.stages import Stage, Stored, cut
from pararnn_solvers.compiled import dense_product
from pararnn_solvers.compiled.cache import digest, keep
from pararnn_solvers.compiled.dense_rows import greatest, retire
from pararnn_solvers.compiled.vector_math import FUNCTIONS, LIMITED
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.linear.jit import jitted
from pararnn_solvers.linear.simd import widest

__all__ = ["DenseProgram", "array_of", "compile_dense", "multiplier"]

_BY_NUMBA = (
    "maximum minimum fmax fmin sign floor ceil trunc rint copysign hypot fmod remainder "
    "isnan isinf isfinite signbit tan arcsin arccos arctan arctan2 sinh cosh arcsinh arccosh "
    "arctanh exp2 log2 log10 logaddexp logaddexp2"
).split()
CALLABLE: dict[str, Any] = {name: getattr(np, name) for name in _BY_NUMBA} | FUNCTIONS
CALLABLE["abs"] = abs

_OF_STAGE = "rows, n, place, position, x, y, theta, state, operands, products, out, seen"
STRIDES = {"h": 0, "x": 1, "y": 2, "operands": 3, "products": 4}  # where in ``place``
_ARRAYS = {"h": "state", "x": "x", "y": "y", "operands": "operands", "products": "products"}


@dataclass(frozen=True, eq=False)
class DenseProgram:
    """A kernel for the rows of a dense recurrence.

    Attributes
    ----------
    trace : StagedTrace
    stages : tuple of Stage
        The last one writes the next states.
    operands : dict of int to int
        For the products whose row is not part of the state, by their number: the number of the
        first stored value in it.
    stored : int
        How many values stages store for each channel.
    text : str
        The source of the kernel.
    march : callable
        The kernel; compiled when it is first called.
    """

    trace: StagedTrace
    stages: tuple[Stage, ...]
    operands: dict[int, int]
    stored: int
    text: str
    march: Any
    kernels: ClassVar[str] = "pararnn_solvers.compiled.dense_shooting"
    shooting: ClassVar[str] = "pararnn_solvers.compiled.dense_policy"

    @property
    def reads_drives(self) -> bool:
        """Whether the kernel reads x itself, not only products of it."""
        return _reader(self.trace, self.stages) is not None

    @property
    def has_limits(self) -> bool:
        """Whether it calls functions that are NaN where NumPy's are not: for large arguments."""
        return any(name in LIMITED for stage in self.stages for name in stage.code.functions)

    @property
    def in_step(self) -> list[tuple[int, Product]]:
        """The products that each step makes, with their numbers."""
        return [(i, p) for i, p in enumerate(self.trace.products) if p.level]


def compile_dense(trace: StagedTrace) -> DenseProgram:
    """Generate the kernel of a staged trace.

    Raises
    ------
    NotTraceable
        If a function has no compiled form.

    Notes
    -----
    Cost: about a millisecond, and two seconds when a kernel with this source is first called.
    """
    if trace.dtype not in (np.float32, np.float64):
        raise NotTraceable(f"states are {trace.dtype}; kernels are for float32 and float64")
    stages, operands, stored = cut(trace)
    missing = {name for stage in stages for name in stage.code.functions} - set(CALLABLE)
    if missing:
        raise NotTraceable(f"step calls {', '.join(sorted(missing))}, of which there is no kernel")
    text = _text(trace, stages, operands)
    return DenseProgram(trace, stages, operands, stored, text, _kernel(text))


# --- the text of a kernel ----------------------------------------------------------------------


def array_of(value: Any, trace: StagedTrace) -> str:
    """Return in which array of the kernel an input is: a key of ``STRIDES``, or theta."""
    if isinstance(value, Stored):
        return "operands"
    if isinstance(value, Column):
        return "products" if trace.products[trace.place(value)[0]].level else "y"
    return str(value.group)


def _reader(trace: StagedTrace, stages: Sequence[Stage]) -> Stage | None:
    """Return the first stage that reads x."""
    for stage in stages:
        if any(array_of(node.value, trace) == "x" for node in stage.inputs):
            return stage
    return None


def _stage_text(stage: Stage, number: int, base: int, trace: StagedTrace, looks: bool) -> str:
    last = stage.first == 0 and stage.level > max((p.level for p in trace.products), default=0)
    lines, inside = [f"def stage{number}({_OF_STAGE}):", "    widest()"], list[str]()
    lines += ["    for r in range(rows):", "        t = position[r]"]
    for i, node in enumerate(stage.inputs):
        name, where = str(node.value), array_of(node.value, trace)
        row = "t" if where in ("x", "y") else "r"
        start = f"place[{base + i}]"
        if where in STRIDES:
            start += f" + {row} * place[{STRIDES[where]}]"
        array = _ARRAYS.get(where, "theta")
        if getattr(node.value, "channels", 1):
            lines.append(f"        i{i} = {start}")
            inside.append(f"{name} = {array}[i{i} + j]")
        else:
            lines.append(f"        {name} = {array}[{start}]")
    stride = STRIDES["h" if last else "operands"]
    lines.append(f"        o = r * place[{stride}] + uint64({stage.first}) * n")
    inside += stage.code.lines
    inside += [f"out[o + uint64({i}) * n + j] = f{i}" for i in range(stage.outputs)]
    lines += ["        for j in range(n):", *(f"            {s}" for s in inside)]
    if looks:
        m = f"place[{STRIDES['x']}]"
        lines.append(f"        seen[0] = greatest(x, t * {m}, {m}, seen[0])")
    return "\n".join(lines)


_MARCH = """
def march(
    rows, n, batch, place, shapes, x, y, theta, matrices, h, tolerance,
    state, operands, products, new, position, left, row, met, gap, seen,
):
    while rows > uint64(0):
"""


def _text(trace: StagedTrace, stages: Sequence[Stage], operands: dict[int, int]) -> str:
    texts, steps, base, made = list[str](), list[str](), len(STRIDES), 0
    in_step = [(i, p) for i, p in enumerate(trace.products) if p.level]
    for number, stage in enumerate(stages):
        last = number == len(stages) - 1
        for i, (index, product) in enumerate(in_step[made:], made):
            if product.level < stage.level:
                steps.append(_product_text(i, "operands" if index in operands else "h"))
                made += 1
        looks = stage is _reader(trace, stages)
        texts.append(f"@stage\n{_stage_text(stage, number, base, trace, looks)}\n")
        called = _OF_STAGE.replace("out,", "new," if last else "operands,")
        steps.append(f"stage{number}({called})")
        base += len(stage.inputs)
    steps.append(
        "rows = retire(rows, place[0], batch, h, new, state, position, left, row, met, gap, "
        "tolerance, seen)"
    )
    return "\n\n".join(texts) + _MARCH + "".join(f"        {step}\n" for step in steps)


def _product_text(i: int, where: str) -> str:
    at = [f"shapes[{5 * i + j}]" for j in range(5)]
    return (
        f"multiply(rows, {_ARRAYS[where]}, {at[0]}, place[{STRIDES[where]}], matrices, {at[1]}, "
        f"{at[2]}, {at[3]}, products, {at[4]}, place[{STRIDES['products']}])"
    )


# --- jitting -----------------------------------------------------------------------------------


class _Disjoint(Compiler):
    """Numba's compiler, told that arrays do not overlap where they are written to.

    Without that LLVM would have to compare the addresses of more arrays than it is willing to.
    """

    def __init__(self, *args: Any) -> None:
        *before, flags, after = args
        flags = flags.copy()
        flags.noalias = True
        super().__init__(*before, flags, after)


@cache
def _kernel(text: str) -> Any:
    """Compile the source of a kernel when it is first called; kept on disk."""
    key = digest(text)
    names = {"np": np, "uint64": uint64, "multiply": multiplier(), **CALLABLE}
    names |= {"greatest": greatest, "retire": retire, "widest": widest}
    names |= {"stage": jitted(forceinline=True, pipeline_class=_Disjoint), "__name__": __name__}
    exec(text, names)
    march = jitted(names["march"])
    keep(march, key)
    return march


@cache
def multiplier() -> Any:
    """Return :func:`~pararnn_solvers.compiled.dense_product.multiply`, jitted and kept on disk."""
    key = digest("dense product")
    kernel = jitted(dense_product.multiply)
    keep(kernel, key)
    return kernel
