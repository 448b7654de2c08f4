"""What wheel and sdist contain.

Build them first: ``python -m build``, then ``DIST=dist pytest tests/test_distribution.py``.
"""

import os
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
DIST = Path(os.environ.get("DIST", "nowhere"))
pytestmark = pytest.mark.skipif(not DIST.exists(), reason="DIST names no folder with a wheel")
SOURCES = {".py", ".cu", ".typed"}
GENERATED = ("docs/_build/", "docs/gallery/", "docs/notebooks/", "docs/reference/")


def sources(folder: str) -> set[str]:
    found = (ROOT / folder).rglob("*")
    return {file.relative_to(ROOT).as_posix() for file in found if file.suffix in SOURCES}


def names_in_wheel() -> set[str]:
    (wheel,) = DIST.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def names_in_sdist() -> set[str]:
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        return {
            PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in archive.getnames()
        }


def test_the_wheel_is_the_package_and_nothing_else():
    names = {name for name in names_in_wheel() if ".dist-info/" not in name}
    assert names == sources("pararnn_solvers")


def test_the_wheel_announces_its_command_and_its_licence():
    described = {name.partition(".dist-info/")[2] for name in names_in_wheel()}
    assert {"METADATA", "entry_points.txt", "licenses/LICENSE"} <= described


def test_the_sdist_has_what_tests_and_documentation_need():
    names = names_in_sdist()
    assert {"pyproject.toml", "README.md", "LICENSE", "CITATION.cff", "docs/conf.py"} <= names
    for folder in ("pararnn_solvers", "tests", "gallery"):
        assert sources(folder) <= names
    notebooks = {f"notebooks/{file.name}" for file in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks <= names


def test_the_sdist_has_nothing_that_is_generated():
    assert not [name for name in names_in_sdist() if name.startswith(GENERATED)]
