"""The Python examples of README and docs run as they are printed."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTIONAL = ("torch", "jax")
GENERATED = {"_build", "gallery", "notebooks", "reference"}  # by Sphinx; git ignores them
PAGES = [
    ROOT / "README.md",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if page.relative_to(ROOT / "docs").parts[0] not in GENERATED
    ),
]


def python_blocks(page: Path) -> list[str]:
    blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
    return [block.split("```")[0] for block in blocks]


EXAMPLES = [(page, i) for page in PAGES for i in range(len(python_blocks(page)))]


def test_there_are_examples():
    assert EXAMPLES


@pytest.mark.parametrize(("page", "i"), EXAMPLES, ids=lambda v: getattr(v, "name", v))
def test_example_runs(page, i):
    names, block = {}, python_blocks(page)[i]
    for library in OPTIONAL:
        if f"import {library}" in block:
            pytest.importorskip(library)
    exec(compile(block, f"{page.name}[{i}]", "exec"), names)
    if page.name == "README.md":
        assert names["sol"].success
        assert names["grads"].x.shape == names["x"].shape


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_to_exist(page):
    links = [part.split(")")[0] for part in page.read_text(encoding="utf-8").split("](")[1:]]
    local = [link.split("#")[0] for link in links if not link.startswith(("http", "#"))]
    missing = [link for link in local if not (page.parent / link).exists()]
    assert not missing
