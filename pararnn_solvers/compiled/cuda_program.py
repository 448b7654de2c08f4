"""A step as the device functions that CUDA kernels are made of, printed from its graph.

What :mod:`.program` writes for vectors is written here for numbers: ``advance``, with tangents
too, ``linearize``, ``correct`` and ``pull_back``, of arrays whose sizes are known, so that all of
them stay in registers. They are readable CUDA C++ ::

    __device__ __forceinline__ void advance(
        const real (&states)[1], const real (&drives)[1], const real (&parameters)[1],
        real (&out)[1])
    {
        const real h0 = states[0];
        const real x0 = drives[0];
        const real theta = parameters[0];
        const real r0 = tanh(x0 + h0 * theta);
        out[0] = r0;
    }

and call what ``functions.cu`` defines. The kernels around them are in :data:`KERNELS`, on
rows that ``memory.cu`` reads and writes.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from pararnn_solvers import tree
from pararnn_solvers.autodiff.trace.graph import Node
from pararnn_solvers.autodiff.trace.inputs import Input
from pararnn_solvers.autodiff.trace.source import Dialect, source
from pararnn_solvers.autodiff.trace.tracing import trace
from pararnn_solvers.compiled.addresses import Place
from pararnn_solvers.compiled.program import Program
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.linear import cuda

FUNCTIONS = frozenset(
    "abs arccos arccosh arcsin arcsinh arctan arctan2 arctanh cbrt ceil copysign cos cosh entr erf "
    "erfc exp exp10 exp2 expm1 floor floor_divide fmax fmin fmod heaviside hypot isfinite isinf "
    "isnan log log10 log1p log2 logaddexp logaddexp2 logit maximum minimum ndtr pow remainder rint "
    "sigmoid sign signbit sin sinh softplus sqrt tan tanh trunc xlog1py xlogy".split()
)
"""What a step may call: the functions of ``functions.cu``."""

KERNELS = ("memory.cu", "parts.cu", "shooting.cu", "newton.cu", "adjoint.cu")
"""The templates around the functions of a step, in order."""

TYPES = {"float32": "float", "float64": "double"}
_MARKS = {"float32": "f", "float64": ""}
_DIRECTIONS = {"correct": "direction", "pull_back": "direction"}


def literal(value: float | bool, dtype: np.dtype[Any]) -> str:
    """Write a constant of this type: ``0.5f`` or ``0.5``; a mere ``0.5`` would be a double."""
    if isinstance(value, bool):
        return "true" if value else "false"
    with np.errstate(over="ignore", under="ignore"):
        number = dtype.type(value)
    if np.isfinite(number):
        return str(number) + _MARKS[dtype.name]  # the shortest that reads back as this number
    return "nan()" if np.isnan(number) else ("-" if number < 0 else "") + "infinity()"


CUDA = Dialect(
    literal,
    choice="{condition} ? {a} : {b}",
    negation="!{a}",
    number="const real {name} = {value};",
    truth="const bool {name} = {value};",
)


@dataclass(frozen=True, eq=False)
class CudaProgram(Program):
    """A traced step and its derivatives as CUDA C++, and the values of its parameters.

    Parameters
    ----------
    trace : Trace
    theta : device array, flat
        As of :class:`~pararnn_solvers.compiled.program.Program`.
    fast_math : bool
        Whether ``tanh``, ``exp`` and ``sigmoid`` of float32 are the hardware's approximations: see
        :class:`~pararnn_solvers.Recurrence`. Of float64 there are none.
    """

    fast_math: bool = False
    kernels: ClassVar[str] = "pararnn_solvers.compiled.cuda_kernels"
    shooting: ClassVar[str] = "pararnn_solvers.compiled.cuda_shooting"
    gradients: ClassVar[str] = "pararnn_solvers.compiled.cuda_kernels"
    wavefront: ClassVar[str] = "pararnn_solvers.compiled.cuda_wavefront"

    @property
    def has_limits(self) -> bool:
        """No: CUDA's functions are those of C, whatever the argument."""
        return False

    def with_parameters(self, theta: Any) -> CudaProgram:
        """Return the same program with the values of other parameters, on the current device."""
        xp, leaves, dtype = cuda.cupy(), tree.flatten(theta)[0], self.trace.dtype
        values = [
            xp.ravel(xp.asarray(i.pick(leaves[i.leaf]), dtype=dtype)) for i in self.parameters
        ]
        other = copy.copy(self)
        object.__setattr__(other, "theta", xp.concatenate([xp.zeros(0, dtype), *values]))
        return other

    def require_functions(self) -> None:
        """Raise NotTraceable unless there is a device function for all that is called."""
        self.code  # noqa: B018  (printing it asks for each)

    @cached_property
    def code(self) -> str:
        """Everything the kernels of this step are compiled from."""
        parts = [
            self._constants(),
            cuda.source("functions.cu"),
            "namespace step {\n",
            _loader("load_drives", "row", self.drive_places),
            _loader("load_parameters", "theta", self.parameter_places),
            _storer(self.drive_places),
            self.step_source,
            self.tangent_source,
            self.jacobian_source,
            self.newton_source,
            self.adjoint_source,
            "}  // namespace step\n",
            cuda.sources(*KERNELS),
        ]
        return "\n".join(parts)

    def _constants(self) -> str:
        shared = sum(not place.channels for place in self.drive_places)
        return "\n".join(
            [
                f"typedef {TYPES[self.dtype.name]} real;",
                fast_math_flag(self.fast_math, self.dtype),
                f"constexpr int K = {self.k};  // components of a state",
                f"constexpr int DRIVES = {len(self.drives)};",
                f"constexpr int SHARED_DRIVES = {shared};  // by all channels: the first of them",
                f"constexpr int PARAMETERS = {len(self.parameters)};",
                "",
            ]
        )

    def _write(self, name: str, outputs: Sequence[Node]) -> str:
        """Print a function of arrays that fills one with the values of some nodes."""
        named = {f"r{i}": node for i, node in enumerate(outputs)}
        text = source(named, self.dtype, CUDA)
        missing = [function for function in text.functions if function not in FUNCTIONS]
        if missing:
            raise NotTraceable(f"step calls {', '.join(missing)}: no device function computes it")
        states = len(outputs) if name == "advance" else self.k
        sizes = {"states": states, "drives": len(self.drives), "parameters": len(self.parameters)}
        if name in _DIRECTIONS:
            sizes["direction"] = self.k
        arguments = [f"const real (&{array})[{max(1, size)}]" for array, size in sizes.items()]
        lines = [
            f"__device__ __forceinline__ void {name}(",
            f"    {', '.join(arguments)},",
            f"    real (&out)[{len(outputs)}])",
            "{",
            *(f"    const real {i} = {self._slot(i)};" for i in map(_input, text.arguments)),
            *(f"    {line}" for line in text.lines),
            *(f"    out[{i}] = {result};" for i, result in enumerate(named)),
            "}",
            "",
        ]
        return ascii_only("\n".join(lines))

    def _slot(self, i: Input) -> str:
        if i.group in ("direction", "adjoint"):
            return f"direction[{i.position[0]}]"
        if i.group == "h":
            return f"states[{i.position[0]}]"
        inputs = self.drives if i.group == "x" else self.parameters
        array = "drives" if i.group == "x" else "parameters"
        return f"{array}[{[other.name for other in inputs].index(i.name)}]"


def fast_math_flag(wanted: bool, dtype: np.dtype[Any]) -> str:
    """Print the line that tells ``functions.cu`` whether to approximate."""
    return f"#define FAST_MATH {int(wanted and dtype == np.float32)}"


def _input(node: Node) -> Input:
    found: Input = node.value
    return found


def ascii_only(text: str) -> str:
    """Write other letters, which names of parameters may have, as their numbers."""
    return re.sub(r"[^\x00-\x7f]", lambda letter: f"u{ord(letter[0]):x}", text)


def _at(place: Place) -> str:
    return f"{place.offset} + {place.component} * n + c" if place.channels else f"{place.offset}"


def _loader(name: str, array: str, places: Sequence[Place]) -> str:
    """Print the function that reads what belongs to channel c from where places are."""
    lines = [f"    out[{i}] = {array}[{_at(place)}];" for i, place in enumerate(places)]
    size = max(1, len(places))
    arguments = f"const real* {array}, long long n, long long c, real (&out)[{size}]"
    return "\n".join([f"__device__ __forceinline__ void {name}({arguments})", "{", *lines, "}", ""])


def _storer(places: Sequence[Place]) -> str:
    """Print the functions that write what drives of channels have, and what shared ones have."""
    size = max(1, len(places))
    arguments = f"real* row, long long n, long long c, const real (&values)[{size}]"
    text = ""
    for name, channels in (("store_channel_drives", True), ("store_shared_drives", False)):
        lines = [
            f"    row[{_at(place)}] = values[{i}];"
            for i, place in enumerate(places)
            if place.channels == channels
        ]
        head = f"__device__ __forceinline__ void {name}({arguments})"
        text += "\n".join([head, "{", *lines, "}", "", ""])
    return text


def device_program(
    step: Callable[..., Any],
    h: Any,
    x: Any,
    theta: Any,
    block_size: int,
    fast_math: bool = False,
) -> CudaProgram:
    """Trace a step on what device arrays look like, and gather its parameters on the device.

    Arguments and errors are those of :func:`~pararnn_solvers.autodiff.trace.tracing.trace`; leaves
    of theta may be device arrays or numbers.
    """
    leaves, rebuild = tree.flatten(theta)
    stand_ins = rebuild([like(leaf) for leaf in leaves])
    traced = trace(step, like(h), None if x is None else like(x), stand_ins, block_size)
    return CudaProgram(traced, np.empty(0, traced.dtype), fast_math).with_parameters(theta)


def like(array: Any) -> Any:
    """Return a host array of a device array's shape and dtype, without its memory or values."""
    if not cuda.is_device_array(array):
        return array
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)
