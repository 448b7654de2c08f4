"""``pararnn-solvers plan``: what it prints, and what it refuses."""

import json

import pytest

from pararnn_solvers.cli import main
from pararnn_solvers.cli.plan import gib, scaled
from pararnn_solvers.planning import MODELS, Model, plan


def run(capsys, *words):
    status = main(["plan", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_all_sizes_side_by_side(capsys):
    status, out, _ = run(capsys)
    assert status == 0
    header = next(line for line in out.splitlines() if "400M" in line)
    assert header.split() == list(MODELS)
    parameters = next(line for line in out.splitlines() if line.startswith("parameters"))
    assert parameters.split()[1:] == ["424", "M", "1.49", "G", "2.90", "G", "7.16", "G"]


def test_columns_are_aligned(capsys):
    _, out, _ = run(capsys)
    rows = [
        line for line in out.splitlines()[2:] if line and not line.startswith(("a token", "a de"))
    ]
    assert len({len(row) for row in rows}) == 1


def test_one_size_with_its_parts(capsys):
    status, out, _ = run(capsys, "--params", "7e9", "--length", "2048")
    assert status == 0
    assert "4096 × 32" in out
    assert "gated MLP" in out
    assert f"{gib(plan(MODELS['7B'], 2048).memory)}" in out.split("  all", 1)[1].splitlines()[0]


def test_json_has_what_python_has(capsys):
    words = "--width 64 --layers 3 --cell diagonal_lstm --heads 4 --vocabulary 100 --length 16"
    status, out, _ = run(capsys, *words.split(), "--batch", "2", "--precision", "float32", "--json")
    assert status == 0
    found = json.loads(out)["model"]
    model = Model(64, 3, "diagonal_lstm", 4, vocabulary=100)
    expected = plan(model, 16, batch=2, precision="float32")
    assert found["memory"] == expected.memory
    assert found["parameters"] == model.parameters
    assert found["parts"]["recurrence"]["states"] == 5 * 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--params 3e10", "params is 3e+10; expected one of 400M"),
        ("--params -1", "params is -1.0; expected a number of parameters"),
        ("--params many", "argument --params"),
        ("--length 0", "argument --length: expected a whole number of at least 1, received '0'"),
        ("--batch -2", "argument --batch: expected a whole number of at least 1"),
        ("--width 64", "both --width and --layers"),
        ("--width 64 --layers 2 --params 7e9", "both --width and --layers"),
        ("--width 15 --layers 2", "width is 15, not a multiple of heads = 2; pass width=16"),
        ("--cell gru", "cell is 'gru'; expected one of diagonal_gru, diagonal_lstm"),
        ("--precision float8", "argument --precision"),
        ("--keep some", "argument --keep"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(capsys, words, message):
    status, out, err = run(capsys, *words.split())
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_numbers_have_three_digits():
    assert [scaled(n) for n in (0, 7, 999, 1000, 99960, 999600, 1e12)] == [
        *("0", "7", "999", "1.00 k", "100 k", "1.00 M", "1.00 T")
    ]
    assert [gib(n * 2**30) for n in (0.125, 12.34, 135.8)] == ["0.125", "12.3", "136"]
