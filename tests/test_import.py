"""Imports go one way, are quick, and bring nothing heavy along."""

import ast
import dataclasses
import importlib
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pararnn_solvers as prs

ROOT = Path(prs.__file__).parent
# A module imports from its own layer (a package) and from those before it.
LAYERS = [
    "typing", "errors", "lazy", "arrays", "checks", "tree", "communicators", "ranks", "bidiagonal",
    "linear", "measure", "functions",
    "autodiff", "compiled", "recurrence", "cells", "problems", "system", "growth", "sequences",
    "memory", "plotting", "solvers",
    "validation", "compilation", "distributed", "progress", "sensitivities", "api", "comparison",
    "stepping", "streaming", "out_of_core", "torch", "jax", "planning", "diagnostics",
    "reproduction",
    "testing",
    "bench", "cli",
]  # fmt: skip
HEAVY = ["numba", "matplotlib", "scipy.sparse", "cupy", "mpi4py", "tqdm", "pandas", "torch", "jax"]
NUMBA = tuple(  # modules that exist to use it
    f"pararnn_solvers.{part}"
    for part in ("linear.numba_", "linear.simd", "linear.jit", "compiled.", "bench.numba_")
)
MODULES = [module.name for module in pkgutil.walk_packages([str(ROOT)], "pararnn_solvers.")]
TORCH = "pararnn_solvers.torch."
LIGHT = [name for name in MODULES if not name.startswith((*NUMBA, TORCH))]
APART = ("scipy_sparse", "__main__")  # the one imports SciPy, the other runs


def layer(module):
    part = module.split(".")[1] if "." in module else ""
    return LAYERS.index("cli" if part in ("cli", "__main__") else part)


def imports(node):
    """Names of modules imported by a syntax tree, less those for type checkers only."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imports(child)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_lower_layers_only(name):
    source = importlib.util.find_spec(name).origin
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))
    known = {module for module in imports(tree) if module in MODULES}
    higher = {module for module in known if layer(module) > layer(name)}
    assert not higher


def test_every_module_has_a_layer():
    assert all(layer(name) >= 0 for name in MODULES)


def run(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_importing_the_package_is_quick(untraced):
    """The least of several starts, which is what the import itself takes."""

    def once():
        start = time.perf_counter()
        run("import pararnn_solvers")
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 0.3


def test_importing_the_package_imports_nothing_else():
    loaded = run("import sys, pararnn_solvers; print(*sys.modules)").split()
    assert "numpy" not in loaded
    assert not [name for name in loaded if name.startswith("pararnn_solvers.")]


def test_modules_import_nothing_heavy():
    """One process for all: none of them may."""
    code = f"""
import importlib, sys
for name in {LIGHT}:
    if name.endswith({APART}):
        continue
    importlib.import_module(name)
    heavy = [module for module in {HEAVY} if module in sys.modules]
    assert not heavy, (name, heavy)
"""
    run(code)


def test_a_solve_without_numba_does_not_import_it():
    code = """
import sys, numpy as np, pararnn_solvers as prs
solution = prs.solve(lambda h, x, _: 0.5 * h + x, np.ones((5, 1)), np.ones(1), method="newton",
                     backend="sequential")
assert solution.success
prs.gradients(solution, solution.h)
assert not [name for name in ("numba", "matplotlib", "scipy.sparse") if name in sys.modules]
"""
    run(code)


def test_records_are_values():
    """They cannot be changed, but for those that are filled as things go on."""
    modules = [importlib.import_module(name) for name in LIGHT if not name.endswith(APART)]
    classes = {c for m in modules for c in vars(m).values() if isinstance(c, type)}
    records = [c for c in classes if dataclasses.is_dataclass(c)]
    filled = {c.__name__ for c in records if not c.__dataclass_params__.frozen}
    assert filled == {"Communication", "Part", "Tally", "_Stream", "_Writer"}


@pytest.mark.parametrize("name", prs.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(prs, name)
    assert value.__doc__
    assert value.__doc__.strip()


def test_public_names_are_listed():
    assert set(prs.__all__) <= set(dir(prs))
    assert list(prs.__all__) == sorted(prs.__all__)


def test_subpackages_are_imported_on_first_use():
    code = "import sys, pararnn_solvers as prs; print('pararnn_solvers.testing' in sys.modules)"
    assert run(f"{code}; print(prs.testing.check_recurrence.__name__)").split() == [
        "False",
        "check_recurrence",
    ]
    with pytest.raises(AttributeError, match="no attribute 'newtons'"):
        prs.newtons  # noqa: B018


def test_the_package_is_typed():
    assert (ROOT / "py.typed").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_importing_starts_no_thread():
    run("import threading, pararnn_solvers.api as a; assert threading.active_count() == 1")
