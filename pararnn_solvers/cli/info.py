"""What runs here: versions, backends with the reason why one is unavailable, threads."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from typing import Any

from pararnn_solvers import __version__, linear
from pararnn_solvers.linear import threads

PACKAGES = {
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "numba": ("numba",),
    "matplotlib": ("matplotlib",),
    "tqdm": ("tqdm",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
    "mpi4py": ("mpi4py",),
    "torch": ("torch",),
    "jax": ("jax",),
}
"""What to call a package -> the distributions that provide it."""


def version_of(distributions: tuple[str, ...]) -> str | None:
    """Return the version of the first distribution that is installed, without importing it."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def gather() -> dict[str, Any]:
    """Return what `print_info` prints."""
    linear.discover_backends()
    return {
        "pararnn_solvers": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": threads.num_threads(),
        "packages": {name: version_of(names) for name, names in PACKAGES.items()},
        "backends": linear.availability(),
    }


def print_info(as_json: bool) -> int:
    """Print versions, backends and threads; return the exit status."""
    info = gather()
    if as_json:
        print(json.dumps(info, indent=2))
        return 0
    packages, backends = info.pop("packages"), info.pop("backends")
    rows = {key: str(value) for key, value in info.items()}
    rows["threads"] += " (set by pararnn_solvers.set_num_threads)"
    rows |= {name: version or "not installed" for name, version in packages.items()}
    rows |= {
        f"backend {name}": f"unavailable: {reason}" if reason else "available"
        for name, reason in backends.items()
    }
    for name, text in rows.items():
        print(f"{name:<20} {text}")
    return 0
