"""The built site: links within it lead somewhere, and it fetches nothing from elsewhere.

Build it first: ``sphinx-build -W --keep-going docs docs/_build/html``.
"""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).parents[1] / "docs" / "_build" / "html"
pytestmark = pytest.mark.skipif(not SITE.exists(), reason="docs are not built")
PAGES = [page for page in sorted(SITE.rglob("*.html")) if "_static" not in page.parts]
FETCHING = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """Collects what a page links to, what it fetches, and the places in it that have a name."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.names: set[str] = set()
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        found = {key: value or "" for key, value in attrs}
        self.names |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if FETCHING.get(tag) in found:
            self.fetched.append(found[FETCHING[tag]])


read = cache(Page)


def is_elsewhere(link: str) -> bool:
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def leads_somewhere(link: str, page: Path) -> bool:
    parts = urlsplit(link)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.suffix == ".html" and parts.fragment:
        return target.exists() and unquote(parts.fragment) in read(target).names
    return target.exists()


def test_all_links_lead_somewhere():
    lost = {
        (page.relative_to(SITE).as_posix(), link)
        for page in PAGES
        for link in read(page).links + read(page).fetched
        if not is_elsewhere(link) and not leads_somewhere(link, page)
    }
    assert not lost


def test_nothing_is_fetched_from_elsewhere():
    assert not {link for page in PAGES for link in read(page).fetched if is_elsewhere(link)}
    styles = "".join(style.read_text(encoding="utf-8") for style in SITE.rglob("*.css"))
    assert "url(http" not in styles.replace('"', "").replace("'", "")
    assert "@import url(//" not in styles


def test_there_is_a_search_index_of_all_pages():
    index = (SITE / "searchindex.js").read_text(encoding="utf-8")
    assert all(f'"{name}"' in index for name in ("start", "methods", "concepts/system", "peers"))
