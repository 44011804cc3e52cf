"""How fast a language model learns: recmesh's loops against the textbook's, on the same pairs of texts.

A sample is a pair of texts that an optimiser step learned from, and both sides read the same texts, equally often: for
the language model two items, B different items of a batch making B / 2 pairs; for the re-ranker a history and a
candidate. What the textbook cuts to 128 tokens for both, recmesh cuts to its settings' lengths for each.

The textbook's loop, as tutorials have it: a cross-encoder with a fresh head, 16 pairs a step, each pair one row,
tokenised in every step and padded to 128 tokens, float32, AdamW over all weights.

Axes: M pairs, B items of a batch, Q histories, K candidates.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers

from services.training.adapt_items import Learned, relation_training
from services.training.base_model import autocast, base_model_path, load_language_model, load_tokenizer
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, tokenise
from services.training.language_model import make_item_encoder, make_learnable
from services.training.loop import Optimisation, Plan
from services.training.relations import IntArray, Relations
from services.training.split import Queries
from services.training.train_reranker import RerankerTexts, make_reranker

TEXTBOOK_TOKENS = 128
TEXTBOOK_PAIRS = 16
_TEXTBOOK_RATE = 2e-5
_EQUAL = 1e-3

Row = tuple[str, str, float]
"""Two texts and whether they belong together."""
Step = Callable[[], int]
"""One optimiser step; returns how many samples it learned from."""


@dataclass
class Speed:
    """What one loop did."""

    samples: int = 0
    seconds: float = 0.0
    per_round: list[float] = field(default_factory=list)
    """Samples per second, by round."""

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds


def alternate(steps: dict[str, Step], seconds: float) -> dict[str, Speed]:
    """Take turns until `seconds` have gone by: what else the machine does then hits all of `steps` alike.

    A turn is one step of the slowest and as many steps of the others as take as long. Each has run once before,
    uncounted.
    """
    took = {name: _timed(step)[0] for name, step in steps.items()}
    turn = max(took.values())
    speeds = {name: Speed() for name in steps}
    started = time.perf_counter()
    while not all(speed.samples for speed in speeds.values()) or time.perf_counter() - started < seconds:
        for name, step in steps.items():
            spent, count = 0.0, 0
            while count == 0 or spent + took[name] / 2 < turn:
                duration, samples = _timed(step)
                spent += duration
                count += samples
            speeds[name].samples += count
            speeds[name].seconds += spent
            speeds[name].per_round.append(count / spent)
    return speeds


def _timed(step: Step) -> tuple[float, int]:
    started = time.perf_counter()
    samples = step()
    return time.perf_counter() - started, samples


class Textbook:
    """The plain loop on one base model."""

    def __init__(self, settings: TrainingSettings) -> None:
        torch.manual_seed(settings.seed)
        transformers.logging.set_verbosity_error()
        path = base_model_path(settings.base_model)
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self._model = transformers.AutoModelForSequenceClassification.from_pretrained(
            path, num_labels=1, dtype=torch.float32
        ).train()
        self._optimiser = torch.optim.AdamW(self._model.parameters(), lr=_TEXTBOOK_RATE)

    def step(self, rows: Iterator[Row]) -> int:
        """Learn from the next M rows. Returns M."""
        left, right, labels = zip(*itertools.islice(rows, TEXTBOOK_PAIRS), strict=True)
        inputs = self._tokenizer(
            list(left),
            list(right),
            max_length=TEXTBOOK_TOKENS,
            truncation=True,
            padding="max_length",
            return_tensors="pt",
        )
        logits = self._model(**inputs).logits[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, torch.tensor(labels))
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return len(labels)


def measure_language_model(dataset: Dataset, settings: TrainingSettings, seconds: float) -> dict[str, Any]:
    """Step 1's loop (services/training/adapt_items.py) against the textbook's on the same items."""
    encoder = make_item_encoder(settings)
    encoder.language_model = make_learnable(encoder.language_model, settings.item_adaptation, settings.seed)
    token_ids = tokenise(load_tokenizer(settings.base_model), dataset.texts, settings.item_tokens)
    relations = Relations(dataset, settings.item_adaptation, settings.seed)
    plan, batches, loss_of = relation_training(encoder, [Learned(relations, token_ids)], settings)
    ours, textbook = Optimisation(encoder, plan, loss_of), Textbook(settings)
    ours.module.train()
    drawn = {name: _stream(batches) for name in ("textbook", "recmesh")}

    def rows() -> Iterator[Row]:
        for (items,) in drawn["textbook"]:
            texts = [dataset.texts[item] for item in items]
            # Whether two items belong together does not change what it costs to learn it.
            for place in range(len(texts) // 2):
                yield texts[2 * place], texts[2 * place + 1], float(place % 2)

    textbook_rows = rows()

    def our_step() -> int:
        batch = next(drawn["recmesh"])
        ours.step(batch)
        return len(batch[0]) // 2

    speeds = alternate({"textbook": lambda: textbook.step(textbook_rows), "recmesh": our_step}, seconds)
    return _figures(speeds) | {
        "sample": "two items' texts",
        "tokens_per_text": round(float(np.mean([len(ids) for ids in token_ids])), 1),
    }


def measure_reranker(dataset: Dataset, queries: Queries, settings: TrainingSettings, seconds: float) -> dict[str, Any]:
    """The re-ranker's training with its shared history, without it, and the textbook's. queries have a history."""
    chosen = settings.reranker
    texts = RerankerTexts(dataset, load_tokenizer(settings.base_model), chosen)
    reranker = make_reranker(load_language_model(settings.base_model), settings)
    lot = np.random.default_rng(settings.seed)
    textbook = Textbook(settings)

    def draw() -> tuple[Queries, IntArray]:
        batch = queries.take(lot.integers(len(queries), size=chosen.batch_histories))
        candidates = lot.integers(dataset.item_count, size=(len(batch), chosen.candidates))
        candidates[:, 0] = batch.targets
        return batch, candidates

    def draw_inputs() -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in texts.inputs(*draw()).items()}

    def rows() -> Iterator[Row]:
        while True:
            batch, candidates = draw()
            for history, items in zip(texts.histories(batch), candidates, strict=True):
                yield from ((history, dataset.texts[item], float(place == 0)) for place, item in enumerate(items))

    def loss_of(inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        with autocast(settings.precision):
            logits = reranker(**inputs).view(-1, chosen.candidates)
        return F.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long))

    plan = Plan("re-ranker", 1, 1_000, chosen.learning_rate)
    shared = Optimisation(reranker, plan, loss_of)
    shared.module.train()
    textbook_rows = rows()

    def our_step(inputs: dict[str, torch.Tensor]) -> int:
        shared.step(inputs)
        return chosen.batch_histories * chosen.candidates

    speeds = alternate(
        {
            "textbook": lambda: textbook.step(textbook_rows),
            "unshared": lambda: our_step(unshared(draw_inputs())),
            "recmesh": lambda: our_step(draw_inputs()),
        },
        seconds,
    )
    reranker.eval()
    inputs = draw_inputs()
    with torch.inference_mode():
        difference = (reranker(**inputs) - reranker(**unshared(inputs)).view(-1, chosen.candidates)).abs().max().item()
    return _figures(speeds) | {
        "sample": "a history's text and a candidate's",
        "shared_history_speedup": times_as_fast(speeds["recmesh"], speeds["unshared"]),
        "shared_history_largest_difference": difference,
        "shared_history_equal": difference <= _EQUAL,
    }


def unshared(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The re-ranker's inputs for Q histories and K candidates as Q · K histories with one candidate each."""
    count = inputs["candidate_ids"].shape[1]
    return {
        name: value.repeat_interleave(count, dim=0) if name.startswith("history") else value.flatten(0, 1).unsqueeze(1)
        for name, value in inputs.items()
    }


def _stream(batches: Callable[[int], Iterator[list[IntArray]]]) -> Iterator[list[IntArray]]:
    """The batches of all rounds, one after the other: the same ones for each loop, whoever takes more of them."""
    return (batch for number in itertools.count() for batch in batches(number))


def times_as_fast(one: Speed, other: Speed) -> float:
    """The median over the turns, so that a turn which the machine disturbed does not decide."""
    return round(float(np.median(np.divide(one.per_round, other.per_round))), 2)


def _figures(speeds: dict[str, Speed]) -> dict[str, Any]:
    return {
        "samples_per_second": {name: round(speed.rate, 2) for name, speed in speeds.items()},
        "samples": {name: speed.samples for name, speed in speeds.items()},
        "rounds": {name: [round(rate, 2) for rate in speed.per_round] for name, speed in speeds.items()},
        "times_textbook": {name: times_as_fast(speed, speeds["textbook"]) for name, speed in speeds.items()},
        "speedup": times_as_fast(speeds["recmesh"], speeds["textbook"]),
    }
