"""Dense recurrences as CUDA kernels: many rows step by step, in one launch.

The kernel of a :class:`~pararnn_solvers.autodiff.trace.staged.StagedTrace` is printed around the
template ``dense.cu``: what happens in each channel, as device functions, and the order of products
and stages. Sizes and places are data, so that one kernel serves any number of channels.

No product of a step is a call of cuBLAS: CuPy (14.2) refuses those while a CUDA graph is captured,
and without a graph each step would wait for the host's launches. A launch here takes all rows
through all their steps, and a row gives the same bits alone and among others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pararnn_solvers import tree
from pararnn_solvers.autodiff.trace.graph import Node
from pararnn_solvers.autodiff.trace.matrix_products import Column
from pararnn_solvers.autodiff.trace.staged import Product, StagedTrace, trace_staged
from pararnn_solvers.autodiff.trace.stages import Stage, Stored, cut
from pararnn_solvers.compiled.cuda_program import CUDA, FUNCTIONS, TYPES, fast_math_flag, like
from pararnn_solvers.errors import NotTraceable
from pararnn_solvers.linear import cuda

__all__ = ["DenseCudaProgram", "compile_dense_cuda", "trace_dense"]


@dataclass(frozen=True, eq=False)
class DenseCudaProgram:
    """A kernel for the rows of a dense recurrence.

    Attributes
    ----------
    trace : StagedTrace
    drives : tuple of Input or Column
        What stages read of the inputs, and of products of them.
    parameters : tuple of Input
        What stages read of theta.
    slots : dict
        Where operands of products lie: by the component of the state that they are, or by
        ``("stored", number)``.
    operands : dict of int to int
        As of :func:`~pararnn_solvers.autodiff.trace.stages.cut`.
    code : str
        Everything that the kernel is compiled from.
    numbers : int
        What a thread keeps of each channel of a row.
    levels : int
        How often in a step operands are exchanged.
    """

    trace: StagedTrace
    drives: tuple[Any, ...]
    parameters: tuple[Any, ...]
    slots: dict[Any, int]
    operands: dict[int, int]
    code: str
    numbers: int
    levels: int
    has_limits: ClassVar[bool] = False
    kernels: ClassVar[str] = "pararnn_solvers.compiled.cuda_dense_shooting"
    shooting: ClassVar[str] = "pararnn_solvers.compiled.cuda_dense_shooting"

    @property
    def in_step(self) -> list[tuple[int, Product]]:
        """The products that each step makes, with their numbers."""
        return [(i, p) for i, p in enumerate(self.trace.products) if p.level]

    def first_slot(self, number: int) -> int:
        """Return where the operand of a product begins."""
        stored = self.operands.get(number)
        if stored is not None:
            return self.slots["stored", stored]
        return self.slots[self.trace.products[number].operand[0].value.position[0]]


def trace_dense(step: Callable[..., Any], h: Any, x: Any, theta: Any) -> StagedTrace:
    """Trace a step on what device arrays look like, without their values.

    Raises
    ------
    NotTraceable
        As :func:`~pararnn_solvers.autodiff.trace.staged.trace_staged`, and if `step` asks for
        values of theta, which are on the device.
    """
    leaves, rebuild = tree.flatten(theta)
    stand_ins = rebuild([like(leaf) for leaf in leaves])
    trace = trace_staged(step, like(h), None if x is None else like(x), stand_ins)
    if trace.tape.reads_values and any(cuda.is_device_array(leaf) for leaf in leaves):
        raise NotTraceable("step decides by values of theta, which are on the device")
    return trace


def compile_dense_cuda(trace: StagedTrace, fast_math: bool = False) -> DenseCudaProgram:
    """Print the kernel of a staged trace.

    `fast_math` is as of :class:`~pararnn_solvers.compiled.cuda_program.CudaProgram`.

    Raises
    ------
    NotTraceable
        If there is no device function for what a step calls, or no kernel for its dtype.

    Notes
    -----
    Cost: about a millisecond, and a second or two when a kernel with this text is first launched.
    """
    if trace.dtype.name not in TYPES:
        raise NotTraceable(f"states are {trace.dtype}; kernels are for float32 and float64")
    stages, operands, stored = cut(trace, CUDA)
    missing = {name for stage in stages for name in stage.code.functions} - FUNCTIONS
    if missing:
        listed = ", ".join(sorted(missing))
        raise NotTraceable(f"step calls {listed}, of which there is no device function")
    layout = _Layout(trace, stages, operands, stored, fast_math)
    return DenseCudaProgram(
        trace,
        layout.drives,
        layout.parameters,
        layout.slots,
        operands,
        layout.text(),
        2 * trace.components + len(layout.drives) + layout.products + stored,
        len(stages),
    )


class _Layout:
    """Where in a cell and among operands everything is, and the text that says so."""

    def __init__(
        self,
        trace: StagedTrace,
        stages: Sequence[Stage],
        operands: dict[int, int],
        stored: int,
        fast_math: bool,
    ) -> None:
        self.trace, self.stages, self.operands, self.stored = trace, stages, operands, stored
        self.fast_math = fast_math
        inputs = {str(node.value): node.value for stage in stages for node in stage.inputs}
        self.drives = tuple(v for v in inputs.values() if self.place(v) in ("x", "y"))
        self.parameters = tuple(v for v in inputs.values() if self.place(v) == "theta")
        self.sums, self.products = dict[int, int](), 0  # where the columns of each product begin
        self.in_step = [(i, p) for i, p in enumerate(trace.products) if p.level]
        for number, product in self.in_step:
            self.sums[number] = self.products
            self.products += product.shape[1] // trace.channels
        of_state = {
            node.value.position[0]
            for number, product in self.in_step
            if number not in operands
            for node in product.operand
        }
        of_stages = [
            ("stored", operands[number] + i)
            for number, product in self.in_step
            if number in operands
            for i in range(len(product.operand))
        ]
        self.state_slots = len(of_state)
        self.slots = {key: i for i, key in enumerate([*sorted(of_state), *sorted(of_stages)])}

    def place(self, value: Any) -> str:
        """Return what an input is part of."""
        if isinstance(value, Stored):
            return "stored"
        if isinstance(value, Column):
            return "products" if self.trace.products[self.trace.place(value)[0]].level else "y"
        return str(value.group)

    def text(self) -> str:
        """Write all of the code."""
        stages = [self.stage(number, stage) for number, stage in enumerate(self.stages)]
        parts = [
            self.constants(),
            cuda.source("functions.cu"),
            "namespace step {\n",
            self.loader(),
            *stages,
            "}  // namespace step\n",
            cuda.source("dense.cu"),
            self.advance(),
            self.publisher("publish_states", [(i, f"states[{i}]") for i in self.of_state()]),
        ]
        return "\n".join(parts)

    def of_state(self) -> list[int]:
        """List the components of the state that are operands."""
        return [key for key in self.slots if isinstance(key, int)]

    def constants(self) -> str:
        trace = self.trace
        sizes = {
            "states": trace.components,
            "next": trace.components,
            "drives": len(self.drives),
            "products": self.products,
            "stored": self.stored,
        }
        return "\n".join(
            [
                f"typedef {TYPES[trace.dtype.name]} real;",
                fast_math_flag(self.fast_math, trace.dtype),
                f"constexpr int K = {trace.components};  // components of a state",
                f"constexpr int SLOTS = {len(self.slots)};  // operands of products, by channel",
                f"constexpr int STATE_SLOTS = {self.state_slots};  // first of all, of the state",
                "struct Cell {",
                *(f"    real {name}[{max(1, size)}];" for name, size in sizes.items()),
                "};",
                "",
            ]
        )

    def loader(self) -> str:
        """Print the function that reads the drives of a cell: place has (start, stride) of each."""
        lines = [
            f"    cell.drives[{i}] = {array}[{row} * place[{2 * i + 1}] + place[{2 * i}]{channel}];"
            for i, value in enumerate(self.drives)
            for array, row in [("x", "t") if self.place(value) == "x" else ("y", "row")]
            for channel in [" + j" if value.channels else ""]
        ]
        arguments = "const real* x, const real* y, const long long* place, "
        arguments += "long long t, long long row, long long j, Cell& cell"
        head = f"__device__ __forceinline__ void load_drives({arguments})"
        return "\n".join([head, "{", *lines, "}", ""])

    def stage(self, number: int, stage: Stage) -> str:
        """Print what happens in a channel between products."""
        last = number == len(self.stages) - 1
        target = "next" if last else "stored"
        lines = [
            *(f"const real {node.value} = {self.source_of(node)};" for node in stage.inputs),
            *stage.code.lines,
            *(f"cell.{target}[{stage.first + i}] = f{i};" for i in range(stage.outputs)),
        ]
        head = f"__device__ __forceinline__ void stage{number}("
        arguments = "const real* theta, const long long* place, long long j, Cell& cell)"
        return "\n".join([head + arguments, "{", *(f"    {line}" for line in lines), "}", ""])

    def source_of(self, node: Node) -> str:
        """Return where a stage finds an input."""
        value: Any = node.value
        where = self.place(value)
        if where == "h":
            return f"cell.states[{value.position[0]}]"
        if where == "stored":
            return f"cell.stored[{value.number}]"
        if where == "products":
            number, first = self.trace.place(value)
            return f"cell.products[{self.sums[number] + first // self.trace.channels}]"
        if where == "theta":
            at = 2 * len(self.drives) + [v.name for v in self.parameters].index(value.name)
            return f"__ldg(theta + place[{at}]{' + j' if value.channels else ''})"
        return f"cell.drives[{[str(v) for v in self.drives].index(str(value))}]"

    def advance(self) -> str:
        """Print a step: products and stages in order, and the exchanges between them."""
        made, shapes, lines = 0, 2 * len(self.drives) + len(self.parameters), list[str]()
        for number, stage in enumerate(self.stages):
            for i, (index, product) in enumerate(self.in_step[made:], made):
                if product.level < stage.level:
                    G = product.shape[1] // self.trace.channels
                    start = f"rows.place + {shapes + 4 * i}"
                    lines.append(f"rows.template multiply<{self.sums[index]}, {G}>({start});")
                    made += 1
            lines += [
                "#pragma unroll",
                "for (int i = 0; i < ROWS; ++i)",
                "#pragma unroll",
                "    for (int c = 0; c < CHANNELS; ++c)",
                f"        step::stage{number}(rows.theta, rows.place, rows.channel[c], "
                "rows.cells[i][c]);",
            ]
            given = [
                (key[1], slot)
                for key, slot in self.slots.items()
                if isinstance(key, tuple) and 0 <= key[1] - stage.first < stage.outputs
            ]
            if number < len(self.stages) - 1 and given:
                lines += [_publish(slot, f"stored[{key}]") for key, slot in given]
                lines.append(f"rows.meet({given[0][1]}, {len(given)});")
        return _of_rows("advance", lines)

    def publisher(self, name: str, values: Sequence[tuple[int, str]]) -> str:
        """Print a function that lays out parts of the state as operands."""
        return _of_rows(name, [_publish(self.slots[key], value) for key, value in values])


def _publish(slot: int, value: str) -> str:
    return f"rows.publish({slot}, [](const Cell& cell) {{ return cell.{value}; }});"


def _of_rows(name: str, lines: Sequence[str]) -> str:
    head = "template <int ROWS, int CHANNELS>\n__device__ __forceinline__ void "
    inside = "".join(f"    {line}\n" for line in lines)
    return f"{head}{name}(Rows<ROWS, CHANNELS>& rows)\n{{\n{inside}}}\n"
