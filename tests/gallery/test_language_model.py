"""The language model of the gallery: its data, its blocks, its training, and what it writes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import blocks  # noqa: E402
import generation  # noqa: E402
import language_model  # noqa: E402
import loss_curves  # noqa: E402
import text  # noqa: E402

import pararnn_solvers as prs  # noqa: E402

RECURRENT = [kind for kind in blocks.MIXERS if kind != "transformer"]
SIZES = {"width": 16, "depth": 2, "hidden": 32}
CHARACTERS = 20
PAGE = Path(__file__).parents[2] / "docs" / "language_model.md"


@pytest.fixture(autouse=True)
def one_thread():
    """Threads as they were, afterwards: scripts set them."""
    before = torch.get_num_threads(), prs.num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    prs.set_num_threads(before[1])


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def model_of(kind, seed=0, **options):
    torch.manual_seed(seed)
    return blocks.build(kind, CHARACTERS, **(SIZES | options)).eval()


def some_text(steps, batch=1, seed=0):
    return np.random.default_rng(seed).integers(0, CHARACTERS, size=(steps, batch))


# ---- text


def test_parts_of_the_corpus_share_no_paragraph_and_are_the_same_again():
    data = text.corpus()
    parts = [text.decode(part, data.alphabet) for part in (data.train, data.held_out)]
    paragraphs = [{" ".join(p.split()) for p in re.split("\n\n+", part)} - {""} for part in parts]
    assert not paragraphs[0] & paragraphs[1]
    assert len(parts[0]) > 10 * len(parts[1]) > 100_000
    again = text.corpus()
    assert again.digest == data.digest and again.topics == data.topics
    assert np.array_equal(again.train, data.train)


def test_numbers_are_places_in_the_alphabet():
    assert text.encode("cab", "abc").tolist() == [2, 0, 1]
    assert text.decode(np.array([2, 0, 1]), "abc") == "cab"
    with pytest.raises(KeyError):
        text.encode("d", "abc")


def test_repeated_pieces_are_counted():
    train, held_out = text.encode("abcabcab", "abc"), text.encode("bcacc", "abc")
    data = text.Corpus("abc", train, held_out, (), "")
    assert text.repeated(data, 3) == 1 / 3  # bca, not cac and acc


def test_windows_and_streams_are_pieces_of_the_text():
    numbers = np.arange(100)
    pieces = text.windows(numbers, 7, 5, np.random.default_rng(0))
    assert pieces.shape == (8, 5) and (np.diff(pieces, axis=0) == 1).all()
    assert text.streams(numbers, 3)[:, 1].tolist() == list(range(33, 66))


# ---- models


@pytest.mark.parametrize("kind", blocks.MIXERS)
def test_models_are_of_equal_size(kind):
    sizes = language_model.FULL
    reference = blocks.size(language_model.model_of("ParaGRU", sizes, 103))
    assert abs(blocks.size(language_model.model_of(kind, sizes, 103)) / reference - 1) < 0.002


@pytest.mark.parametrize("kind", blocks.MIXERS)
def test_reading_in_pieces_equals_reading_at_once_and_nobody_sees_the_future(kind, double):
    model, numbers = model_of(kind), torch.from_numpy(some_text(24, 2))
    with torch.no_grad():
        whole, _ = model(numbers)
        first, states = model(numbers[:10])
        middle, states = model(numbers[10:11], states)
        last, _ = model(numbers[11:], states)
        changed = numbers.clone()
        changed[12] = (changed[12] + 1) % CHARACTERS
        other, _ = model(changed)
    assert torch.allclose(torch.cat([first, middle, last]), whole, atol=1e-9)
    assert torch.allclose(other[:12], whole[:12], atol=1e-9)
    assert not torch.allclose(other[12:], whole[12:], atol=1e-3)


def test_clipping_bounds_recurrent_weights_where_there_are_some():
    for kind in blocks.MIXERS:
        model = model_of(kind)
        for mixer in model.recurrences():
            for p in mixer.parameters():
                p.data.mul_(100)
        model.clip_recurrent(0.9)
        for mixer in model.recurrences() if kind.startswith("Para") else []:
            assert mixer.layer.a_l0.abs().max().item() == pytest.approx(0.9)


# ---- the same as step by step


@pytest.mark.parametrize("kind", ["ParaGRU", "ParaLSTM"])
def test_losses_are_those_of_step_by_step_training(kind, double):
    """In float64 the first ten losses agree to 1e-9: Newton's solution is the recurrence's."""
    losses = []
    for run in (blocks.solved, loss_curves.looped):
        model = model_of(kind, atol=1e-13, rtol=1e-13)
        for mixer in model.recurrences():
            mixer.run = run
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        mine = []
        for step in range(10):
            loss = language_model.nats(model, some_text(33, 4, seed=step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mine.append(loss.item())
        losses.append(mine)
    assert np.ptp(losses[0]) > 1e-2  # weights that move, not one loss ten times
    np.testing.assert_allclose(losses[0], losses[1], rtol=0, atol=1e-9)


# ---- writing


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_writer_gives_the_logits_of_the_parallel_forward_pass(kind):
    model, numbers = model_of(kind, atol=1e-7, rtol=1e-7), some_text(60)[:, 0]
    with torch.no_grad():
        expected = model(torch.from_numpy(numbers)[:, None])[0][:, 0].numpy()
    read = generation.Writer(model, compiled=False)
    logits = np.stack([read(int(character)).copy() for character in numbers])
    assert np.abs(logits - expected).max() < 1e-5
    read.stepper.reset()
    assert np.array_equal(read(int(numbers[0])), logits[0])


def test_a_whole_model_of_three_blocks_is_compiled():
    torch.manual_seed(0)
    model = blocks.build("ParaGRU", 30, width=32, depth=3, hidden=64, atol=1e-7, rtol=1e-7).eval()
    numbers = some_text(40)[:, 0]
    with torch.no_grad():
        expected = model(torch.from_numpy(numbers)[:, None])[0][:, 0].numpy()
    read = generation.Writer(model)
    assert read.stepper.compiled
    logits = np.stack([read(int(character)).copy() for character in numbers])
    assert np.abs(logits - expected).max() < 1e-5


@pytest.mark.parametrize("kind", blocks.MIXERS)
def test_all_ways_to_write_write_the_same(kind):
    model, prompt = model_of(kind, atol=1e-7, rtol=1e-7), some_text(8)[:, 0]
    ways = [generation.remembering, generation.rereading]
    ways += [generation.stepping] if kind in RECURRENT else []
    texts = [
        generation.write(make(model, prompt[:-1]), prompt[-1:], 12, np.random.default_rng(1))
        for make in ways
    ]
    assert all(np.array_equal(texts[0], other) for other in texts[1:])


def test_drawing_follows_the_softmax():
    logits, rng = np.log(np.array([0.2, 0.5, 0.3])), np.random.default_rng(0)
    counts = np.bincount([generation.drawn(logits, rng, 1.0) for _ in range(20_000)], minlength=3)
    np.testing.assert_allclose(counts / 20_000, [0.2, 0.5, 0.3], atol=0.015)


# ---- the script


def test_script_trains_resumes_writes_and_draws(tmp_path, capsys):
    page = tmp_path / "language_model.md"
    page.write_text("before\n<!-- models -->\nold\n<!-- end -->\nafter\n")
    arguments = ["--quick", "--out", str(tmp_path), "--figures", str(tmp_path)]
    language_model.main(arguments)
    first = json.loads((tmp_path / "results.json").read_text())
    printed = capsys.readouterr().out
    assert printed.count("| ParaGRU |") >= 2 and "transformer:" in printed
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    assert any(line.startswith("| ParaLSTM |") for line in lines)
    assert (tmp_path / "language_model-loss.png").stat().st_size > 10_000
    for run in first["runs"]:
        assert len(run["history"]["losses"]) == language_model.QUICK["steps"]
        assert 4 < run["bits"] < 8
        assert (run["bits remembering"] is None) == (run["kind"] == "transformer")
    language_model.main([*arguments, "--resume"])  # nothing is left to train
    again = json.loads((tmp_path / "results.json").read_text())
    assert [r["history"] for r in again["runs"]] == [r["history"] for r in first["runs"]]
    assert [r["bits"] for r in again["runs"]] == [r["bits"] for r in first["runs"]]
    written = json.loads((tmp_path / "generation.json").read_text())
    assert all(rate > 0 for row in written["speeds"] for rate in row["after"])
    assert set(written["texts"]) == set(blocks.MIXERS)


# ---- the tutorial


def test_the_tutorial_runs_as_it_is_printed(capsys):
    """Its blocks follow one another, as a reader types them."""
    parts = PAGE.read_text(encoding="utf-8").split("```py\n")[1:]
    assert len(parts) >= 5
    names = {"__name__": "tutorial"}
    for i, part in enumerate(parts):
        exec(compile(part.split("```")[0], f"language_model.md[{i}]", "exec"), names)
    printed = capsys.readouterr().out
    bits = [float(b) for b in re.findall(r"([\d.]+) bits a character", printed)]
    assert bits[0] > 6 and bits[-1] < 3.6
    assert len(printed.split("The function ")[1]) >= 300
