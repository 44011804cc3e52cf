"""The plain way to score with a language model: one pass of the base model per pair of history and item."""

import time
from collections.abc import Sequence

import torch
import transformers

from services.training.base_model import base_model_path


class CrossEncoder:
    """The base model with a head for one score, float32, as `transformers` runs it.

    The head is not trained: its cost is the same. `tokens` is what a pair is cut to; batches are padded to their
    longest pair.
    """

    def __init__(self, base_model: str, tokens: int) -> None:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        path = base_model_path(base_model)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self._model = transformers.AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=1, dtype=torch.float32
        ).eval()
        self._tokens = tokens

    def score(self, history: str, items: Sequence[str]) -> float:
        """Score the history with each item's text, as one batch. Returns milliseconds, tokenising included."""
        started = time.perf_counter()
        inputs = self._tokenizer(
            [history] * len(items),
            list(items),
            max_length=self._tokens,
            truncation=True,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            self._model(**inputs)
        return (time.perf_counter() - started) * 1000
