"""Step 4: the scorer. Its parts learn on train; the few weights that join them are fitted later (fusion.py).

Axes: M training positions, N items, B batch, C candidates, L history length, D vector length.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from services.model.collaborative import FEATURES
from services.model.scorer import Scorer
from services.runtime.scenario import TasksSettings
from services.training.checkpoints import Partial, State
from services.training.config import TrainingSettings
from services.training.dataset import Dataset, query_histories
from services.training.distil import Lesson
from services.training.distributed import device, in_shares, place
from services.training.loop import Plan, train
from services.training.progress import Reporter
from services.training.settings.scorer import TaskName
from services.training.split import COLD_EVENTS, Queries
from services.training.task_weights import TaskLosses

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_TAUGHT = 64
"""Positions of a step at which the re-ranker teaches."""
_PAGES = 64
"""Shown pages of a step."""


class Pages(Protocol):
    """Answers that were shown, as lessons for target attention."""

    weight: float
    """What their loss counts beside that of the items that came."""

    def __len__(self) -> int:
        """How many there are."""

    def loss(self, scorer: Scorer, rows: IntArray) -> Tensor:
        """A scalar: how wrongly target attention orders the pages `rows`."""


@dataclass(frozen=True)
class Vectors:
    """What the towers made of the catalogue."""

    items: Tensor  # [N, D]
    scale: float  # factor of the user-item cosine


@dataclass(frozen=True)
class Labels:
    """What each event says of the tasks; NaN where it says nothing. All [E]."""

    conversion: FloatArray
    rating: FloatArray


def make_scorer(settings: TrainingSettings, tasks: TasksSettings) -> Scorer:
    """A fresh scorer for the scenario's tasks."""
    torch.manual_seed(settings.seed)
    scorer = settings.scorer
    return Scorer(
        settings.vector_dimension,
        settings.history_length,
        scorer.width,
        FEATURES,
        task_names(tasks),
        COLD_EVENTS,
        scorer.dropout,
    )


def task_names(tasks: TasksSettings) -> list[TaskName]:
    """The scenario's tasks in the order of the scorer's outputs."""
    rest: tuple[TaskName, ...] = ("conversion", "rating")
    return ["click", *(name for name in rest if getattr(tasks, name) is not None)]


def make_labels(dataset: Dataset, tasks: TasksSettings) -> Labels:
    """A click that no conversion follows within train is a negative; whatever is no rating says nothing."""
    interactions = dataset.interactions
    nothing = np.full(len(interactions.items), np.nan, dtype=np.float32)
    conversion, rating = nothing, nothing
    if tasks.conversion is not None:
        end = dataset.split.train_end
        positive = interactions.followed_by(tasks.conversion, end)
        known = interactions.positives(tasks.click) | interactions.positives(tasks.conversion)
        conversion = np.where(known, positive.astype(np.float32), np.float32(np.nan))
    if tasks.rating is not None:
        low, high = tasks.rating.min, tasks.rating.max
        scaled = (np.clip(interactions.values, low, high) - low) / (high - low)
        rating = np.where(interactions.ratings(tasks.rating), scaled, np.float32(np.nan)).astype(np.float32)
    return Labels(conversion, rating)


class Positions:
    """Histories at training positions, and what the scorer makes of candidates in their light."""

    def __init__(self, dataset: Dataset, queries: Queries, settings: TrainingSettings, item_vectors: Tensor) -> None:
        self._targets = queries.targets
        self._histories = query_histories(dataset, queries, settings.history_length)
        self._item_vectors = item_vectors.to(device())

    def interest(self, scorer: Scorer, rows: IntArray, candidates: IntArray) -> Tensor:
        """What target attention says of candidates [B, C] at positions `rows` [B]: [B, C]."""

        def logits_of(places: IntArray) -> Tensor:
            vectors = self._item_vectors[place(candidates[places])]
            mixed, _ = scorer.interest_attention(*self._history(rows[places]), vectors)
            return scorer.interest(mixed).squeeze(-1)

        return in_shares(logits_of, np.arange(len(rows)))

    def values(self, scorer: Scorer, rows: IntArray, user_vectors: Tensor) -> Tensor:
        """Conversion and rating [B, 2] of the items that came at positions `rows` [B], with user_vectors [B, D]."""
        own = self._item_vectors[place(self._targets[rows])[:, None]]
        values: Tensor = scorer.values(user_vectors, *self._history(rows), own)[:, 0]
        return values

    def _history(self, rows: IntArray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        items, kinds, gaps, mask = self._histories.tensors(rows, device())
        return self._item_vectors[items.clamp(min=0)] * mask.unsqueeze(-1), kinds, gaps, mask


def train_scorer(
    dataset: Dataset, train_queries: Queries, labels: Labels, vectors: Vectors,
    settings: TrainingSettings, tasks: TasksSettings, user_vectors: Tensor, partial: Partial, reporter: Reporter,
    lesson: Lesson | None = None, start: State | None = None, pages: Pages | None = None,
) -> State:  # fmt: skip
    """The parts' trained state. train_queries: one per training position, with user_vectors [M, D] before it; `lesson`:
    what the re-ranker would teach; `start`: the state of a scorer to go on from; `pages`: what was shown, and clicked.
    """
    scorer = make_scorer(settings, tasks)
    if start is not None:
        scorer.load_state_dict(start)
    chosen = settings.scorer
    task_losses = TaskLosses(tuple(task_names(tasks)), chosen.task_weights)
    positions = Positions(dataset, train_queries, settings, vectors.items)
    taught = None if lesson is None else Positions(dataset, lesson.queries, settings, vectors.items)
    train_clicks = np.flatnonzero(dataset.interactions.positives(tasks.click)[: dataset.split.train_end])
    seen = np.unique(dataset.interactions.items[train_clicks])
    targets, events = train_queries.targets, train_queries.events
    steps = max(1, len(train_queries) // chosen.batch_events)
    scorer.get_buffer("dot_scale").fill_(vectors.scale)

    def batches(number: int) -> Iterator[tuple[IntArray, IntArray, IntArray, IntArray]]:
        generator = np.random.default_rng([settings.seed, number])
        order = generator.permutation(len(train_queries))
        for step in range(steps):
            rows = order[step * chosen.batch_events : (step + 1) * chosen.batch_events]
            negatives = generator.choice(seen, min(chosen.negatives, len(seen)), replace=False)
            taught_rows = generator.integers(len(lesson.queries), size=_TAUGHT) if lesson is not None else rows[:0]
            page_rows = generator.integers(len(pages), size=_PAGES) if pages is not None else rows[:0]
            yield rows, negatives, taught_rows, page_rows

    def loss_of(batch: tuple[IntArray, IntArray, IntArray, IntArray]) -> Tensor:
        rows, negatives, taught_rows, page_rows = batch
        candidates = np.concatenate(
            [targets[rows][:, None], np.broadcast_to(negatives, (len(rows), len(negatives)))], 1
        )
        logits = positions.interest(scorer, rows, candidates)
        wrong = place(candidates[:, 1:] == targets[rows][:, None])
        logits = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(wrong, float("-inf"))], dim=1)
        losses: dict[TaskName, Tensor] = {
            "click": F.cross_entropy(logits, torch.zeros(len(rows), dtype=torch.long, device=device()))
        }
        if lesson is not None and taught is not None:
            opinion = taught.interest(scorer, taught_rows, lesson.candidates[taught_rows])
            losses["click"] = losses["click"] + lesson.loss(opinion, taught_rows)
        if pages is not None:
            losses["click"] = losses["click"] + pages.weight * pages.loss(scorer, page_rows)
        if len(scorer.tasks) > 1:
            values = positions.values(scorer, rows, user_vectors[rows].to(device()))
            losses |= _value_losses(values, labels, events[rows])
        total: Tensor = task_losses(losses)
        return total

    plan = Plan("scorer", chosen.epochs, steps, chosen.learning_rate)
    train(nn.ModuleList([scorer, task_losses]), plan, batches, loss_of, partial, reporter)
    return dict(scorer.state_dict())


def _value_losses(values: Tensor, labels: Labels, events: IntArray) -> dict[TaskName, Tensor]:
    """Cross-entropy of conversion and squared error of the scaled rating, over those of the events that have them."""
    conversion, rating = place(labels.conversion[events]), place(labels.rating[events])
    losses: dict[TaskName, Tensor] = {}
    known = torch.isfinite(conversion)
    if known.any():
        losses["conversion"] = F.binary_cross_entropy_with_logits(values[known, 0], conversion[known])
    known = torch.isfinite(rating)
    if known.any():
        losses["rating"] = F.mse_loss(values[known, 1], rating[known])
    return losses
