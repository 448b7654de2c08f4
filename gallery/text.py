"""Python's own help texts as characters: topics to train on and topics held out.

``pydoc_data.topics`` comes with every Python, which makes it a corpus of some 300 000 characters
that needs no download. It differs a little between versions of Python; ``Corpus.digest`` says
which one it was.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

HELD_OUT = 0.1  # of all characters, at least
BETWEEN = "\n\n\n"  # topics


class Corpus(NamedTuple):
    """Text as numbers.

    Attributes
    ----------
    alphabet : str
        The characters that occur, in order; a number is a place in it.
    train, held_out : arrays of int64, shape (characters,)
    topics : tuple of str
        Names of those held out.
    digest : str
        Of both texts: results are comparable if it is the same.
    """

    alphabet: str
    train: np.ndarray
    held_out: np.ndarray
    topics: tuple[str, ...]
    digest: str


def corpus() -> Corpus:
    """Return the topics of this Python's help, those held out chosen by a hash of their names.

    A paragraph that occurs in several topics, as many do, is kept once, and in the part to train
    on if it occurs there: nothing held out can have been learned by heart.
    """
    from pydoc_data.topics import topics

    names = sorted(topics, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    wanted = HELD_OUT * sum(map(len, topics.values()))
    held_out: list[str] = []
    while sum(len(topics[name]) for name in held_out) < wanted:
        held_out.append(names.pop(0))
    seen: set[str] = set()
    texts = [
        BETWEEN.join(once(topics[name], seen) for name in sorted(part))
        for part in (names, held_out)
    ]
    alphabet = "".join(sorted(set("".join(texts))))
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
    numbers = [encode(text, alphabet) for text in texts]
    return Corpus(alphabet, *numbers, tuple(sorted(held_out)), digest)


def once(text: str, seen: set[str]) -> str:
    """Return a text without the paragraphs seen before, however they were broken into lines."""
    kept = []
    for paragraph in text.strip("\n").split("\n\n"):
        words = " ".join(paragraph.split())
        if words not in seen:
            seen.add(words)
            kept.append(paragraph)
    return "\n\n".join(kept)


def encode(text: str, alphabet: str) -> np.ndarray:
    """Return the places of characters in the alphabet, int64; others are an error.

    Raises
    ------
    KeyError
        A character that is not in the alphabet.
    """
    place = {character: i for i, character in enumerate(alphabet)}
    return np.array([place[character] for character in text], dtype=np.int64)


def decode(numbers: np.ndarray, alphabet: str) -> str:
    """Return the text of places in the alphabet."""
    return "".join(alphabet[i] for i in numbers)


def repeated(data: Corpus, length: int) -> float:
    """Return the share of so long pieces of the held-out text that the training text has too."""
    known = {piece.tobytes() for piece in sliding_window_view(data.train, length)}
    pieces = sliding_window_view(data.held_out, length)
    return sum(piece.tobytes() in known for piece in pieces) / len(pieces)


def windows(text: np.ndarray, length: int, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Return random pieces of a text: (length + 1, batch), time first.

    The last row is there to be predicted only.
    """
    starts = rng.integers(0, len(text) - length, size=batch)
    return text[starts + np.arange(length + 1)[:, None]]


def streams(text: np.ndarray, batch: int) -> np.ndarray:
    """Return a text cut into that many equal consecutive parts, side by side: (steps, batch)."""
    steps = len(text) // batch
    return text[: steps * batch].reshape(batch, steps).T
