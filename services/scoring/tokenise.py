"""Texts as token ids, cut and padded as in training (services/training/dataset.py: tokenise, pad_tokens)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cachetools import LRUCache
from tokenizers import Tokenizer

from services.scoring.pool import IntArray


class Tokeniser:
    """A bundle's tokenizer for texts of one length; `cache_size` texts are remembered, 0 for none."""

    def __init__(self, tokenizer_file: Path, length: int, cache_size: int = 0) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.enable_truncation(length)
        self._tokenizer.no_padding()
        self._cache: LRUCache[str, list[int]] = LRUCache(cache_size)

    def encode(self, texts: Sequence[str]) -> tuple[IntArray, IntArray]:
        """n texts → ids [n, T] and mask [n, T], special tokens included, padded on the right to the longest."""
        found = [self._cache.get(text) for text in texts]
        if missing := [text for text, ids in zip(texts, found, strict=True) if ids is None]:
            encodings = iter(self._tokenizer.encode_batch(missing))
            for place, ids in enumerate(found):
                if ids is None:
                    found[place] = next(encodings).ids
                    self._remember(texts[place], found[place])
        rows = [ids for ids in found if ids is not None]
        width = max(1, *map(len, rows))
        padded = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros_like(padded)
        for place, ids in enumerate(rows):
            padded[place, : len(ids)] = ids
            mask[place, : len(ids)] = 1
        return padded, mask

    def _remember(self, text: str, ids: list[int] | None) -> None:
        if ids is not None and self._cache.maxsize > 0:
            self._cache[text] = ids
