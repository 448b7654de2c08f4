"""Files of the command line: numbers in, states and pictures out, whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.typing import Array

STDIN = "-"


def suffix(name: str, expected: tuple[str, ...], option: str) -> str:
    """Return the lower-case suffix of a file name if it is one of those expected."""
    found = Path(name).suffix.lower()
    if found not in expected:
        raise InvalidInput(
            f"{option} is {name!r}; expected a name that ends in {' or '.join(expected)}"
        )
    return found


def read_bytes(name: str) -> bytes:
    """Return the content of a file, or of stdin."""
    if name == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise unreadable(name, error) from None


def unreadable(name: str, error: OSError) -> InvalidInput:
    """Return the error for a file that cannot be read."""
    reason = (error.strerror or str(error)).lower()
    return InvalidInput(f"cannot read {name!r}: {reason}; expected an existing, readable file")


def read_text(name: str) -> str:
    """Return a file as text, without a byte-order mark."""
    try:
        return read_bytes(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(
            f"{name!r} is not UTF-8 text; expected numbers in text, or .npy"
        ) from None


def read_arrays(name: str) -> dict[str, Array]:
    """Return the arrays of a .npz file by name, or that of a .npy file as ``{"": array}``."""
    try:
        with open(name, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                return {key: loaded[key] for key in loaded.files}
            return {"": loaded}
    except OSError as error:
        raise unreadable(name, error) from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"cannot read {name!r}: expected arrays of numbers written by numpy.save or "
            f"numpy.savez, received something else ({error})"
        ) from None


def read_array(name: str) -> Array:
    """Return the array of a .npy file."""
    arrays = read_arrays(name)
    if list(arrays) != [""]:
        raise InvalidInput(f"{name!r} is an archive of {list(arrays)}; expected one array (.npy)")
    return arrays[""]


def read_numbers(name: str, dtype: Any) -> Array:
    """Return the rows of a text file, shape (T, m): columns separated by commas or white space.

    A first line without any number is a line of names and skipped; ``#`` starts a comment.
    """
    lines = [line.partition("#")[0].strip() for line in read_text(name).splitlines()]
    lines = [line for line in lines if line]
    delimiter = "," if lines and "," in lines[0] else None
    if lines and not any(is_number(field) for field in lines[0].split(delimiter)):
        del lines[0]
    if not lines:
        raise InvalidInput(f"{name!r} has no numbers; expected one row for each step")
    try:
        return np.loadtxt(lines, dtype=dtype, delimiter=delimiter, ndmin=2)
    except ValueError as error:
        reason = str(error).rstrip(".;").split(";")[0]
        raise InvalidInput(
            f"cannot read {name!r}: {reason} (rows without comments and column names); expected "
            "as many numbers in each row, separated by commas or white space"
        ) from None


def is_number(text: str) -> bool:
    """Tell whether text is what Python reads as a float."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_json(name: str) -> Any:
    """Return what a .json file says."""
    try:
        return json.loads(read_text(name))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"cannot read {name!r}: not JSON, {error}; correct the file") from None


def check_destination(name: str, suffixes: tuple[str, ...], option: str, force: bool) -> Path:
    """Return the path to write to, once it is certain that writing there is wanted and possible.

    Raises
    ------
    InvalidInput
    """
    suffix(name, suffixes, option)
    path = Path(name).resolve()  # a link stays; the file it points to is replaced
    if not path.parent.is_dir():
        raise InvalidInput(f"{option} is {name!r}; expected an existing directory: create it first")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InvalidInput(f"{option} is {name!r}, which cannot be written; name another file")
    if path.exists() and not force:
        raise InvalidInput(
            f"{option} is {name!r}, which exists; expected a new file: pass --force to overwrite "
            "it, or another name"
        )
    return path


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in place; on any failure leave nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OSError(f"cannot write {str(path)!r}: {reason}; nothing was written") from error
    finally:  # Ctrl-C comes through here, too
        part.unlink(missing_ok=True)
