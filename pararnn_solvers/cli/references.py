"""What the command line takes from Python code: a recurrence by its name, a method by its call."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pararnn_solvers
from pararnn_solvers import solvers
from pararnn_solvers.errors import InvalidInput
from pararnn_solvers.recurrence import Recurrence
from pararnn_solvers.validation import as_recurrence


def import_recurrence(spec: str) -> Recurrence:
    """Return the recurrence that ``module:name`` or ``path/file.py:name`` stands for.

    Raises
    ------
    InvalidInput
        No such file, module or name; the code fails when imported; or what it names is no function.
    """
    place, colon, name = spec.rpartition(":")
    if not (colon and place and name):
        raise InvalidInput(
            f"--recurrence is {spec!r}; expected module:name or file.py:name, such as model.py:step"
        )
    module = import_place(place)
    if not hasattr(module, name):
        found = ", ".join(usable_names(module)) or "none"
        raise InvalidInput(
            f"{place} has no {name!r}; expected a function step(h, x, theta) or a Recurrence; "
            f"those in it: {found}"
        )
    value = getattr(module, name)
    if not (callable(value) or isinstance(value, Recurrence)):
        raise InvalidInput(
            f"{spec} is {type(value).__name__}; expected a function step(h, x, theta) or a "
            "Recurrence"
        )
    return as_recurrence(value)


def import_place(place: str) -> ModuleType:
    """Import a module by name, from the current directory, too, or a file by its path."""
    is_file = place.endswith(".py") or os.sep in place
    if is_file and not Path(place).is_file():
        raise InvalidInput(
            f"--recurrence names the file {place!r}, which does not exist; expected a .py file"
        )
    # As if it were run as a script: what lies beside it can be imported.
    sys.path.insert(0, str(Path(place).resolve().parent) if is_file else os.getcwd())
    try:
        return import_file(Path(place)) if is_file else importlib.import_module(place)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{place}.".startswith(f"{error.name}."):
            raise InvalidInput(
                f"--recurrence names the module {place!r}, which is not found in this directory "
                "or among the installed ones; expected module:name or path/file.py:name"
            ) from None
        raise InvalidInput(
            f"importing {place} raises {type(error).__name__}: {error}{place_of(error)}; expected "
            "code that can be imported: correct it"
        ) from error


def place_of(error: BaseException) -> str:
    """Return where an exception was raised; a SyntaxError says so itself."""
    if isinstance(error, SyntaxError):
        return ""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({Path(frame.filename).name}, line {frame.lineno})"


def import_file(path: Path) -> ModuleType:
    """Import a file under its own name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not Python code: its name does not end in .py")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while it is being imported.
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def usable_names(module: ModuleType) -> list[str]:
    """List the public functions and recurrences that are defined in a module."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            isinstance(value, Recurrence)
            or (inspect.isfunction(value) and value.__module__ == module.__name__)
        )
    )


def parse_method(text: str) -> Any:
    """Return the method written as a name or a call with literal arguments.

    Examples
    --------
    >>> str(parse_method("windowed(newton(), length=256)"))
    'newton(window=256)'
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise bad_method(text, "it cannot be read") from None
    name = tree.func if isinstance(tree, ast.Call) else tree
    if isinstance(name, ast.Name) and name.id not in solvers.METHODS:
        raise InvalidInput(f"--method is {text!r}; expected one of {list(solvers.METHODS)}")
    return solvers.load(evaluate(tree, text))


def evaluate(node: ast.expr, text: str) -> Any:
    """Return the value of a method, a linearization, a call of one, or a literal."""
    if isinstance(node, ast.Name):
        return named(node.id, text)
    if not isinstance(node, ast.Call):
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise bad_method(text, f"{ast.unparse(node)} is no literal") from None
    if not isinstance(node.func, ast.Name) or any(word.arg is None for word in node.keywords):
        raise bad_method(text, "it is no call of a method by name")
    function = named(node.func.id, text)
    arguments = [evaluate(argument, text) for argument in node.args]
    keywords = {str(word.arg): evaluate(word.value, text) for word in node.keywords}
    try:
        return function(*arguments, **keywords)
    except TypeError as error:
        raise bad_method(text, f"{error}; it is {node.func.id}({usage(function)})") from None


def usage(function: Callable[..., Any]) -> str:
    """Return the parameters of a function with their defaults, as a user would write them."""
    from pararnn_solvers.solvers.description import describe

    parameters = inspect.signature(function).parameters.values()
    return ", ".join(
        p.name if p.default is p.empty else f"{p.name}={describe(p.default)}" for p in parameters
    )


def named(name: str, text: str) -> Any:
    """Return a method, a linearization or a step length by its public name."""
    if name in solvers.METHODS:
        place, _, attribute = solvers.METHODS[name].partition(":")
        return getattr(importlib.import_module(place), attribute)
    from pararnn_solvers.solvers import linearization, step_length, trust_region

    for module in (linearization, step_length, trust_region):
        if name in pararnn_solvers.__all__ and hasattr(module, name):
            return getattr(module, name)
    raise bad_method(text, f"nothing is called {name!r}")


def bad_method(text: str, reason: str) -> InvalidInput:
    """Return the error for a method that cannot be understood."""
    return InvalidInput(
        f"--method is {text!r}: {reason}; expected a name out of {list(solvers.METHODS)} or a call "
        "such as newton(chunk=64) or windowed(newton(), 256)"
    )
