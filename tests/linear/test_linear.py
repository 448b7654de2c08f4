"""Backends are registered by name and imported on first use."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from pararnn_solvers import linear
from pararnn_solvers.errors import BackendUnavailable, InvalidInput


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(linear, "BACKENDS", dict(linear.BACKENDS))
    return linear.BACKENDS


def test_importing_the_package_imports_neither_numba_nor_scipy():
    source = "import pararnn_solvers.linear, sys; print({'numba', 'scipy'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", source], text=True).strip() == "set()"


def test_every_registered_backend_loads():
    assert set(linear.availability()) == set(linear.BACKENDS)
    assert all(callable(linear.load(name)) for name in ("sequential", "numba", "scipy"))


def test_an_unknown_name_lists_the_known():
    known = "registered are: cupy, mpi, numba, scipy, sequential"
    with pytest.raises(InvalidInput, match=f"'numbr'; {known}"):
        linear.load("numbr")


def test_a_backend_that_cannot_be_imported_says_what_to_install(registry):
    registry["far"] = "no_such_package.scans:scan"
    with pytest.raises(BackendUnavailable, match="pip install no_such_package") as error:
        linear.load("far")
    assert isinstance(error.value.__cause__, ModuleNotFoundError)
    assert "no_such_package" in linear.availability()["far"]
    assert linear.availability()["sequential"] is None


@pytest.mark.parametrize(
    ("cause", "install"),
    [(ImportError("broken", name="library.part"), "library"), (ImportError("broken"), "scans")],
    ids=["what is missing has a name", "it has none"],
)
def test_what_to_install_is_what_is_missing(registry, monkeypatch, cause, install):
    def missing(module):
        raise cause

    registry["far"] = "scans.of_mine:scan"
    monkeypatch.setattr(linear.importlib, "import_module", missing)
    with pytest.raises(BackendUnavailable, match=f"broken; install .* pip install {install}[)]"):
        linear.load("far")


def test_a_backend_that_needs_a_device_says_so_where_there_is_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendUnavailable, match="CuPy cannot be imported"):
        linear.load("cupy")
    assert "pip install" in linear.availability()["cupy"]


def test_a_backend_that_needs_a_device_loads_where_there_is_one(device):
    assert linear.availability()["cupy"] is None
    assert callable(linear.load("cupy"))


def test_entry_points_are_registered_when_asked_for(registry, monkeypatch):
    group = linear.ENTRY_POINT_GROUP
    mine = importlib.metadata.EntryPoint("mine", "pararnn_solvers.linear.sequential:scan", group)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [mine])
    assert "mine" not in registry
    assert linear.discover_backends() == ["mine"]
    assert linear.load("mine") is linear.load("sequential")
    assert linear.discover_backends() == ["mine"]


def test_two_claims_to_one_name_are_refused(registry, monkeypatch):
    claim = importlib.metadata.EntryPoint("numba", "other:scan", linear.ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: [claim])
    with pytest.raises(InvalidInput, match="rename or uninstall"):
        linear.discover_backends()
