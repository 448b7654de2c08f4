"""From arguments to equations: the recurrence, its inputs, initial state and parameters."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pararnn_solvers.cells import diagonal_gru
from pararnn_solvers.cli.files import (
    STDIN,
    read_array,
    read_arrays,
    read_bytes,
    read_json,
    read_numbers,
    suffix,
)
from pararnn_solvers.cli.references import import_recurrence
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.problems import text as built_in
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.typing import Array

INPUTS = (".npy", ".npz", ".csv", ".txt")


@dataclass(frozen=True)
class Problem:
    """The arguments of ``solve``, and what to call them.

    Attributes
    ----------
    source, model : str
        What the inputs and the recurrence are.
    assumed : str
        What was assumed about h0; empty if it was given.
    builtin : bool
        Whether this is the text that ships with Python.
    """

    recurrence: Recurrence
    x: Array | None
    h0: Array
    theta: Any
    steps: int | None
    source: str
    model: str
    assumed: str = ""
    builtin: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the trajectory, (T, *batch, d)."""
        T = self.steps if self.x is None else len(self.x)
        return (int(T or 0), *self.h0.shape)

    def first(self, steps: int) -> Problem:
        """Return the same over the first few steps."""
        if self.x is None:
            return replace(self, steps=min(steps, self.shape[0]))
        return replace(self, x=self.x[:steps])


def build_problem(args: Namespace) -> Problem:
    """Return the equations that the arguments describe.

    Raises
    ------
    InvalidInput
    """
    if args.recurrence is None:
        return text_problem(args)
    if (args.input is None) == (args.steps is None):
        given = "both" if args.steps else "neither"
        raise InvalidInput(
            "--recurrence needs either --input FILE or, for a recurrence without input, --steps T; "
            f"received {given}" + ("; to shorten an input pass --limit N" if args.steps else "")
        )
    if args.input is None and args.limit is not None:
        raise InvalidInput("--limit is given without --input; expected --steps alone")
    recurrence = import_recurrence(args.recurrence)
    if args.block_size is not None:
        recurrence = replace(recurrence, block_size=args.block_size)
    x, h0 = (None, None) if args.input is None else read_inputs(args)
    assumed = ""
    if args.h0 is not None:
        h0 = parse_state(args.h0, args.dtype or (np.float64 if x is None else x.dtype))
    elif h0 is None and x is None:
        raise InvalidInput("--steps is given without --h0; expected an initial state: --h0 0,0")
    elif h0 is None and x is not None:
        h0 = np.zeros(x.shape[1:], x.dtype)
        assumed = "zeros, as many as x has columns; pass --h0 for another state"
    assert h0 is not None
    h0 = as_dtype("h0", h0, args.dtype)
    if x is not None and h0.dtype != x.dtype:
        raise InvalidInput(f"x is {x.dtype} and h0 {h0.dtype}; pass --dtype to convert both")
    theta = None if args.theta is None else read_theta(args.theta, args.dtype, h0.dtype)
    source = f"none, {args.steps} steps" if x is None else name_of(args.input)
    return Problem(recurrence, x, h0, theta, args.steps, source, args.recurrence, assumed=assumed)


def text_problem(args: Namespace) -> Problem:
    """Return the diagonal GRU over the bytes of a text: a file's, or Python's documentation."""
    for option in ("theta", "h0", "steps", "block_size"):
        if getattr(args, option) is not None:
            raise InvalidInput(
                f"--{option.replace('_', '-')} is given without --recurrence; expected the "
                "recurrence that it is for: --recurrence model.py:step"
            )
    builtin = args.input is None
    if not builtin and args.input != STDIN and suffix(args.input, INPUTS, "--input") != ".txt":
        raise InvalidInput(
            f"--input {args.input} holds numbers and --recurrence is missing; expected what they "
            "drive: --recurrence model.py:step (text, .txt, drives a diagonal GRU)"
        )
    text = built_in.python_documentation() if builtin else read_bytes(args.input)
    text = text[: args.limit]
    if not text:
        raise InvalidInput(f"the text in {name_of(args.input)} is empty; expected some bytes")
    x, theta = built_in.drive_gru(text, np.dtype(args.dtype or np.float32))
    return Problem(
        recurrence=diagonal_gru.recurrence,
        x=x,
        h0=np.zeros(built_in.CHANNELS, x.dtype),
        theta=theta,
        steps=None,
        source=f"{name_of(args.input)}, {len(text)} bytes",
        model=f"diagonal GRU (ParaGRU), {built_in.CHANNELS} channels, driven by the bytes through "
        f"an embedding; random weights, seed {built_in.SEED}",
        builtin=builtin,
    )


def name_of(source: str | None) -> str:
    """Return what to call an input."""
    if source is None:
        return "English text that ships with Python (pydoc_data.topics)"
    return "standard input" if source == STDIN else source


def read_inputs(args: Namespace) -> tuple[Array, Array | None]:
    """Return x (T, *batch, m) and, if the file has it, h0."""
    kind = ".txt" if args.input == STDIN else suffix(args.input, INPUTS, "--input")
    h0 = None
    if kind in (".csv", ".txt"):
        x = read_numbers(args.input, np.dtype(args.dtype or np.float64))
    elif kind == ".npy":
        x = read_array(args.input)
    else:
        arrays = read_arrays(args.input)
        if "x" not in arrays:
            raise InvalidInput(
                f"{args.input!r} has the arrays {list(arrays)}; expected one that is called x"
            )
        x, h0 = arrays["x"], arrays.get("h0")
    x = as_dtype("x", x, args.dtype)[: args.limit] if x.ndim else x
    if x.ndim == 0 or len(x) == 0:
        raise InvalidInput(f"x has shape {x.shape}; expected (T, *batch, m) with T at least 1")
    return (x[:, None] if x.ndim == 1 else x), h0


def as_dtype(name: str, array: Array, dtype: str | None) -> Array:
    """Return real numbers in the dtype that was asked for; without one they must be floats."""
    if array.dtype.kind not in "fiub":
        raise InvalidInput(f"{name} is {array.dtype}; expected real numbers: convert the file")
    if dtype is None and array.dtype not in (np.float32, np.float64):
        raise InvalidInput(
            f"{name} is {array.dtype}; expected float32 or float64: pass --dtype to convert it"
        )
    return array if dtype is None else array.astype(dtype, copy=False)


def parse_state(text: str, dtype: Any) -> Array:
    """Return the initial state that is written out, or the one in a file."""
    if text.lower().endswith(".npy"):
        return read_array(text)
    try:
        return np.array([float(field) for field in text.split(",")], dtype)
    except ValueError:
        raise InvalidInput(
            f"--h0 is {text!r}; expected numbers separated by commas, such as 0,0.5, or a .npy file"
        ) from None


def read_theta(name: str, dtype: str | None, state: Any) -> Any:
    """Return the parameters in a file; floats are converted only if a dtype was asked for."""
    kind = suffix(name, (".npy", ".npz", ".json"), "--theta")
    if kind == ".json":
        return with_arrays(read_json(name), state)
    arrays = read_arrays(name)
    if dtype is not None:
        arrays = {k: v.astype(dtype) if v.dtype.kind == "f" else v for k, v in arrays.items()}
    return arrays[""] if list(arrays) == [""] else arrays


def with_arrays(value: Any, dtype: Any) -> Any:
    """Return JSON with every rectangular list of numbers as an array.

    Examples
    --------
    >>> with_arrays({"a": [1, 2], "b": 0.5}, "float64")
    {'a': array([1., 2.]), 'b': 0.5}
    """
    if isinstance(value, dict):
        return {key: with_arrays(child, dtype) for key, child in value.items()}
    if not isinstance(value, list):
        return value
    try:
        array = np.array(value)
    except ValueError:  # ragged
        array = np.array(None)
    if array.dtype.kind in "fiu":
        return array.astype(dtype)
    return [with_arrays(child, dtype) for child in value]
