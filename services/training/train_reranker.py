"""Step 5: the re-ranker. One history with the item that came and other items: which one came? Or: how was it rated?

Other items are the scorer's best, which it will see online, and popular ones (reranker_candidates.py). Only LoRA
matrices and the head learn, from the adapted item encoder's language model.

Axes: M positions, K candidates, P history tokens, T candidate tokens.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from services.model.reranker import Reranker
from services.model.text import format_history
from services.runtime.errors import SetupError
from services.training.base_model import autocast, model_type
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, pad_tokens, tokenise
from services.training.distributed import in_shares, place
from services.training.language_model import add_lora
from services.training.loop import Plan, train
from services.training.progress import Reporter
from services.training.reranker_candidates import NegativePool
from services.training.settings.reranker import RerankerLoss, RerankerSettings
from services.training.split import Queries

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_STEPS_PER_ROUND = 10


class RerankerTexts:
    """Tokens of items and histories."""

    def __init__(self, dataset: Dataset, tokenizer: Tokenizer, settings: RerankerSettings) -> None:
        self._dataset = dataset
        self._tokenizer = tokenizer
        self._settings = settings
        self._item_ids = tokenise(tokenizer, dataset.texts, settings.item_tokens)

    def histories(self, queries: Queries) -> list[str]:
        """The history's text of each query."""
        texts = []
        for positions in queries.newest(self._settings.history_events):
            items = self._dataset.interactions.items[positions[positions >= 0]][::-1]
            texts.append(format_history(self._dataset.texts[item] for item in items))
        return texts

    def inputs(self, queries: Queries, candidates: IntArray) -> dict[str, IntArray]:
        """The model's inputs by name for candidates [Q, K]. Histories must not be empty."""
        texts = self.histories(queries)
        history_ids, history_mask = pad_tokens(tokenise(self._tokenizer, texts, self._settings.history_tokens))
        candidate_ids, candidate_mask = pad_tokens([self._item_ids[item] for item in candidates.ravel()])
        shape = (*candidates.shape, -1)
        return {
            "history_ids": history_ids,
            "history_mask": history_mask,
            "candidate_ids": candidate_ids.reshape(shape),
            "candidate_mask": candidate_mask.reshape(shape),
        }


def check_base_model(settings: TrainingSettings) -> None:
    """SetupError when a re-ranker is wanted of a base model that cannot be one."""
    kind = model_type(settings.base_model)
    if settings.reranker.enabled and kind != "bert":
        raise SetupError(
            f"base_model {settings.base_model}: the re-ranker needs a BERT-type encoder, not {kind}; choose one, or "
            "set training.reranker.enabled to false"
        )


def make_reranker(language_model: Any, settings: TrainingSettings) -> Reranker:
    """A fresh re-ranker on `language_model`, which check_base_model has let pass, with LoRA matrices."""
    chosen = settings.reranker
    adapted = add_lora(language_model, chosen.lora_rank, chosen.lora_alpha, None, settings.seed)
    return Reranker(adapted.base_model.model)


def train_reranker(
    reranker: Reranker, texts: RerankerTexts, pool: NegativePool, ratings: FloatArray, settings: TrainingSettings,
    partial: Partial, reporter: Reporter,
) -> State:  # fmt: skip
    """The re-ranker's trained state. `pool`: positions, each with a history; ratings [E] from 0 to 1, by event."""
    chosen = settings.reranker
    count = 1 if chosen.loss == "squared_error" else chosen.candidates
    rounds = -(-chosen.steps // _STEPS_PER_ROUND)

    def batches(number: int) -> Iterator[tuple[Queries, IntArray]]:
        generator = np.random.default_rng([settings.seed, number])
        for _ in range(_STEPS_PER_ROUND):
            rows = generator.integers(len(pool.queries), size=chosen.batch_histories)
            yield pool.queries.take(rows), pool.draw(rows, count, chosen.hard_negative_share, generator)

    def loss_of(batch: tuple[Queries, IntArray]) -> Tensor:
        queries, candidates = batch

        def logits_of(rows: IntArray) -> Tensor:
            inputs = texts.inputs(queries.take(rows), candidates[rows])
            with autocast(settings.precision):
                logits: Tensor = reranker(**{name: place(array) for name, array in inputs.items()})
            return logits.float()

        logits = in_shares(logits_of, np.arange(len(queries)), settings.accumulation_steps)
        return interest_loss(chosen.loss, logits, place(ratings[queries.events]))

    plan = Plan("re-ranker", rounds, _STEPS_PER_ROUND, chosen.learning_rate)
    return train(reranker, plan, batches, loss_of, partial, reporter)


def interest_loss(name: RerankerLoss, logits: Tensor, ratings: Tensor) -> Tensor:
    """logits [B, K], the item that came first; ratings [B] of it, from 0 to 1 → scalar."""
    if name == "squared_error":
        return F.mse_loss(logits[:, 0], ratings)
    if name == "binary_cross_entropy":
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1.0
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
