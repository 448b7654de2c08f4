"""Parameters in any nesting of tuples, NamedTuples, lists, dicts, dataclasses and arrays."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from itertools import accumulate
from typing import Any


def flatten(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """List the leaves of `tree`, and the function that rebuilds it from as many leaves.

    ``None`` holds no leaves. Anything that is not a container is a leaf. Every field of a dataclass
    counts, one with ``init=False`` too.

    Parameters
    ----------
    tree : nested containers
        Tuples, NamedTuples, lists, dicts and dataclasses, nested in any way.

    Returns
    -------
    leaves : list
        Left to right; dictionaries in their own order.
    rebuild : callable
        ``rebuild(leaves)`` has the nesting and the types of `tree`.

    Examples
    --------
    >>> leaves, rebuild = flatten({"a": 1.0, "b": (2.0, None)})
    >>> rebuild([10 * leaf for leaf in leaves])
    {'a': 10.0, 'b': (20.0, None)}
    """
    if tree is None:
        return [], lambda leaves: None
    keys, children, build = open_container(tree)
    if build is None:
        return [tree], lambda leaves: leaves[0]
    parts = [flatten(child) for child in children]
    sizes = list(accumulate((len(leaves) for leaves, _ in parts), initial=0))

    def rebuild(leaves: list[Any]) -> Any:
        rebuilt = [
            part(leaves[lo:hi]) for (_, part), lo, hi in zip(parts, sizes, sizes[1:], strict=False)
        ]
        return build(keys, rebuilt)

    return [leaf for leaves, _ in parts for leaf in leaves], rebuild


def open_container(
    tree: Any,
) -> tuple[list[Any], list[Any], Callable[[list[Any], list[Any]], Any] | None]:
    """Return the keys and children of one container and how to build it; no builder for a leaf."""
    if isinstance(tree, dict):
        return list(tree), list(tree.values()), lambda k, v: rebuilt_dict(tree, k, v)
    if isinstance(tree, tuple) and hasattr(tree, "_fields") and hasattr(tree, "_make"):
        return list(tree._fields), list(tree), lambda _, v: tree._make(v)
    if isinstance(tree, (tuple, list)):
        return list(range(len(tree))), list(tree), lambda _, v: type(tree)(v)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = [field.name for field in dataclasses.fields(tree) if hasattr(tree, field.name)]
        children = [getattr(tree, name) for name in names]
        return names, children, lambda k, v: rebuilt_dataclass(tree, k, v)
    return [], [], None


def rebuilt_dict(tree: dict[Any, Any], keys: list[Any], values: list[Any]) -> dict[Any, Any]:
    """Return a copy of any kind of dictionary with other values."""
    new = copy.copy(tree)
    if getattr(tree, "__dict__", None) is tree:  # its keys are its attributes, too
        new.__dict__ = new
    for key, value in zip(keys, values, strict=True):
        new[key] = value
    return new


def rebuilt_dataclass(tree: Any, names: list[str], values: list[Any]) -> Any:
    """Return a dataclass of the type of `tree` with these fields, frozen or not.

    ``__init__`` and ``__post_init__`` do not run: they may refuse what stands for a number while
    it is differentiated. Attributes that are no fields are not taken over, since they may be
    computed from the old ones; a ``cached_property`` is computed anew.
    """
    new = object.__new__(type(tree))
    for name, value in zip(names, values, strict=True):
        object.__setattr__(new, name, value)
    return new


def paths(tree: Any, prefix: str = "theta") -> list[str]:
    """Name each leaf of `tree` as one would write it in Python, in the order of :func:`flatten`.

    Examples
    --------
    >>> paths({"a": 1.0, "b": (2.0, None, 3.0)})
    ["theta['a']", "theta['b'][0]", "theta['b'][2]"]
    """
    if tree is None:
        return []
    keys, children, build = open_container(tree)
    if build is None:
        return [prefix]
    named = hasattr(tree, "_fields") or dataclasses.is_dataclass(tree)
    return [
        path
        for key, child in zip(keys, children, strict=True)
        for path in paths(child, f"{prefix}.{key}" if named else f"{prefix}[{key!r}]")
    ]


def is_differentiable(leaf: Any) -> bool:
    """Tell whether a leaf carries real numbers to differentiate by (integers and text do not)."""
    return isinstance(leaf, float) or getattr(getattr(leaf, "dtype", None), "kind", "") == "f"
