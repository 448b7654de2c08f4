"""Examples of README and docs run as they are printed, links lead somewhere, nothing is missing."""

import importlib
import json
import re
from pathlib import Path

import pytest

import pararnn_solvers as prs

ROOT = Path(__file__).parents[1]
OPTIONAL = ("torch", "jax")
GENERATED = {"_build", "gallery", "notebooks", "reference"}  # in docs, by Sphinx; git ignores them
PAGES = [
    ROOT / "README.md",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if page.relative_to(ROOT / "docs").parts[0] not in GENERATED
    ),
]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = sorted((ROOT / "gallery").glob("plot_*.py"))
# Where ``__all__`` says what is public.
PUBLIC = {"": prs.__all__} | {
    module: importlib.import_module(f"pararnn_solvers.{module}").__all__
    for module in ("cells", "diagnostics", "linear", "planning", "plotting", "problems", "testing")
}
CALLABLE = [
    (module, name)
    for module, names in PUBLIC.items()
    for name in names
    if not name.isupper()  # tables
]


def python_blocks(page: Path) -> list[str]:
    blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
    return [block.split("```")[0] for block in blocks]


def named(page) -> str:
    return str(page.relative_to(ROOT)) if isinstance(page, Path) else str(page)


ELSEWHERE = {"distributed.md"}  # tests/mpi runs it, on two ranks
EXAMPLES = [
    (page, i)
    for page in PAGES
    if page.name not in ELSEWHERE
    for i in range(len(python_blocks(page)))
]


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize(("page", "i"), EXAMPLES, ids=named)
def test_example_runs(page, i):
    names, block = {}, python_blocks(page)[i]
    for library in OPTIONAL:
        if f"import {library}" in block:
            pytest.importorskip(library)
    exec(compile(block, f"{page.name}[{i}]", "exec"), names)
    if page.name == "README.md":
        assert names["sol"].success
        assert names["grads"].x.shape == names["x"].shape


def links(text: str) -> list[str]:
    return [part.split(")")[0] for part in text.split("](")[1:]]


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page, which are MyST's as well."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def missing(links: list[str], page: Path) -> list[str]:
    """Return the links to files of this repository, or to headings in them, that are not there."""
    lost = []
    for link in links:
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append(link)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_of_a_page_lead_somewhere(page):
    assert not missing(links(page.read_text(encoding="utf-8")), page)


def test_a_lost_link_is_noticed():
    assert missing(["nowhere.md", "README.md#no-heading"], ROOT / "README.md") == [
        "nowhere.md",
        "README.md#no-heading",
    ]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=named)
def test_notebook_has_outputs_and_links_that_lead_somewhere(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not missing(links(text), notebook)
    assert {"stream", "display_data"} <= {output["output_type"] for output in outputs}
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_outputs_of_notebooks_are_small():
    assert sum(notebook.stat().st_size for notebook in NOTEBOOKS) < 5e6


def test_pictures_are_many_and_short():
    assert len(PICTURES) >= 12
    assert max(len(picture.read_text(encoding="utf-8").splitlines()) for picture in PICTURES) < 80


@pytest.mark.parametrize(("module", "name"), CALLABLE)
def test_public_name_has_an_example(module, name):
    home = importlib.import_module(f"pararnn_solvers.{module}") if module else prs
    assert ">>> " in getattr(home, name).__doc__


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_are_in_the_reference(module):
    listed = set(re.findall(r"^   ([\w.]+)$", (ROOT / "docs/reference.rst").read_text(), re.M))
    expected = {f"{module}.{name}".lstrip(".") for name in PUBLIC[module] if not name.isupper()}
    assert expected <= listed
