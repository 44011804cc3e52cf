"""What happens to item texts in the wild: mistyped, said otherwise, stuffed with what sells.

All without a model, and the same for the same text and seed.

Axes: N items.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from services.model.text import content_hash

Attack = Callable[[Sequence[str]], list[str]]
"""Texts of all items to texts of all items."""

_WORD = re.compile(r"\w+", re.UNICODE)
# Sentences of an item text, as templates join their columns.
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_STOP_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be by for from has have in is it its of on or that the this to was were will with"
    )
)


def typos(share: float, seed: int) -> Attack:
    """One edit in `share` of the words of four letters or more: two swapped, one left out, doubled or wrong."""

    def attack(texts: Sequence[str]) -> list[str]:
        return [_mistyped(text, share, np.random.default_rng([seed, int(content_hash(text), 16)])) for text in texts]

    return attack


def _mistyped(text: str, share: float, generator: np.random.Generator) -> str:
    def word(match: re.Match[str]) -> str:
        letters = match.group()
        if len(letters) < 4 or generator.random() >= share:
            return letters
        place = int(generator.integers(1, len(letters) - 1))
        before, letter, after = letters[:place], letters[place], letters[place + 1 :]
        other = _LETTERS[int(generator.integers(len(_LETTERS)))]
        edits = (
            before + after[0] + letter + after[1:],
            before + after,
            before + 2 * letter + after,
            before + other + after,
        )
        return edits[int(generator.integers(len(edits)))]

    return _WORD.sub(word, text)


def paraphrase(texts: Sequence[str]) -> list[str]:
    """The same said otherwise: sentences and lists in reverse order, in lower case, without brackets and stop words."""
    return [_said_otherwise(text) for text in texts]


def _said_otherwise(text: str) -> str:
    sentences = []
    for sentence in reversed(_SENTENCE.split(text)):
        parts = [part.strip(" .()[]") for part in re.sub(r"[()\[\]]", "", sentence.lower()).split(",")]
        kept = [" ".join(word for word in part.split() if word not in _STOP_WORDS) or part for part in reversed(parts)]
        sentences.append(", ".join(part for part in kept if part))
    return ". ".join(sentence for sentence in sentences if sentence)


def keyword_stuffing(popularity: Sequence[float], words: int, share: float, seed: int) -> Attack:
    """`share` of the items append the `words` words that stand most in what is popular; a word counts once per item.

    popularity [N]: e.g. each item's training events.
    """

    def attack(texts: Sequence[str]) -> list[str]:
        counts: Counter[str] = Counter()
        for text, weight in zip(texts, popularity, strict=True):
            for word in set(_WORD.findall(text.lower())) - _STOP_WORDS:
                counts[word] += weight  # type: ignore[assignment]
        # Equal counts in the order of the alphabet.
        stuffing = " ".join(sorted(counts, key=lambda word: (-counts[word], word))[:words])
        stuffed = np.random.default_rng(seed).random(len(texts)) < share
        return [f"{text} {stuffing}" if chosen else text for text, chosen in zip(texts, stuffed, strict=True)]

    return attack
