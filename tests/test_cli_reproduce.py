"""``pararnn-solvers reproduce``: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest

from pararnn_solvers import reproduction
from pararnn_solvers.cli import main
from pararnn_solvers.reproduction import ANCHORS, Anchor, Row

PAGE = Path(__file__).parents[1] / "docs" / "reproduction.md"


def run(capsys, *words):
    status = main(["reproduce", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def two_anchors(monkeypatch):
    for name, agrees in (("right", True), ("wrong", False)):
        row = Row("T = 9", "3", "4", agrees)
        anchor = Anchor(f"a {name} one", "somebody 2025", "equal", lambda row=row: iter([row]))
        monkeypatch.setitem(reproduction.ANCHORS, name, anchor)


def test_the_list_has_all(capsys):
    for words in ([], ["--list"]):
        status, out, _ = run(capsys, *words)
        assert status == 0
        assert [line.split()[0] for line in out.splitlines()] == list(ANCHORS)
        assert "arXiv 2508.16817" in out


def test_theirs_beside_ours(capsys, two_anchors):
    status, out, _ = run(capsys, "right")
    assert status == 0
    assert "right: a right one\nsource: somebody 2025\nagrees: equal\n" in out
    header, row = (line.split() for line in out.splitlines() if line.startswith("  "))
    assert (header, row) == (["case", "theirs", "ours", "agrees"], ["T", "=", "9", "3", "4", "yes"])


def test_a_row_that_disagrees_is_status_1(capsys, two_anchors):
    status, out, _ = run(capsys, "right", "wrong")
    assert status == 1
    assert out.count("yes") == 1
    assert out.count("NO") == 1


def test_json_has_the_rows(capsys, two_anchors):
    status, out, _ = run(capsys, "right", "wrong", "--json")
    assert status == 1
    right, wrong = json.loads(out)
    assert right["rows"] == [{"case": "T = 9", "theirs": "3", "ours": "4", "agrees": True}]
    assert wrong["criterion"] == "equal"
    assert wrong["name"] == "wrong"


def test_an_unknown_name_is_refused_before_anything_is_computed(capsys, two_anchors):
    status, out, err = run(capsys, "right", "observer")
    assert (status, out) == (2, "")
    assert "name is 'observer'; expected one of cells, " in err


def test_all_beside_an_unknown_name_names_that_one(capsys, two_anchors):
    status, out, err = run(capsys, "all", "observer")
    assert (status, out) == (2, "")
    assert "name is 'observer'" in err


def test_the_page_names_every_command():
    page = PAGE.read_text(encoding="utf-8")
    for name in ANCHORS:
        assert f"`pararnn-solvers reproduce {name}`" in page
