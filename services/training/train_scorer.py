"""Step 4: the scorer. Its parts learn on train; the few weights that join them are fitted on validation.

Item and user towers and the collaborative weights have seen the training positions, so that there they look better than
they are; a weight learned there would trust them too much. On validation every part is out of sample.

Axes: M training positions, Q queries, N items, C candidates, L history length, D vector length, F features, K parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from services.model.collaborative import FEATURES
from services.model.scorer import Scorer
from services.runtime.scenario import TasksSettings
from services.training.checkpoints import Partial, State
from services.training.config import TaskName, TrainingSettings
from services.training.dataset import Dataset, query_histories
from services.training.distributed import device, in_shares, place
from services.training.loop import Plan, train
from services.training.metrics import rank_metrics, target_ranks
from services.training.progress import Reporter
from services.training.requests import Requests
from services.training.split import COLD_EVENTS, Queries
from services.training.task_weights import TaskLosses

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
_BATCH = 64
_MOST_FUSION_ITEMS = 2_000
_RIDGE = 1e-4
_MOST_COLD_WEIGHT = 8.0
_COLD_STEP = 0.1


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


def train_scorer(
    dataset: Dataset, train_queries: Queries, labels: Labels, vectors: Vectors,
    settings: TrainingSettings, tasks: TasksSettings, user_vectors: Tensor, partial: Partial, reporter: Reporter,
) -> State:  # fmt: skip
    """The parts' trained state. train_queries: one per training position, with user_vectors [M, D] before it."""
    scorer = make_scorer(settings, tasks)
    chosen = settings.scorer
    task_losses = TaskLosses(tuple(task_names(tasks)), chosen.task_weights)
    histories = query_histories(dataset, train_queries, settings.history_length)
    train_clicks = np.flatnonzero(dataset.interactions.positives(tasks.click)[: dataset.split.train_end])
    seen = np.unique(dataset.interactions.items[train_clicks])
    targets, events = train_queries.targets, train_queries.events
    steps = max(1, len(train_queries) // chosen.batch_events)
    scorer.get_buffer("dot_scale").fill_(vectors.scale)
    item_vectors = vectors.items.to(device())

    def batches(number: int) -> Iterator[tuple[IntArray, IntArray]]:
        generator = np.random.default_rng([settings.seed, number])
        order = generator.permutation(len(train_queries))
        for step in range(steps):
            rows = order[step * chosen.batch_events : (step + 1) * chosen.batch_events]
            yield rows, generator.choice(seen, min(chosen.negatives, len(seen)), replace=False)

    def history(rows: IntArray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        items, kinds, gaps, mask = histories.tensors(rows, device())
        return item_vectors[items.clamp(min=0)] * mask.unsqueeze(-1), kinds, gaps, mask

    def loss_of(batch: tuple[IntArray, IntArray]) -> Tensor:
        rows, negatives = batch
        candidates = np.concatenate(
            [targets[rows][:, None], np.broadcast_to(negatives, (len(rows), len(negatives)))], 1
        )

        def logits_of(places: IntArray) -> Tensor:
            mixed, _ = scorer.interest_attention(*history(rows[places]), item_vectors[place(candidates[places])])
            return scorer.interest(mixed).squeeze(-1)

        logits = in_shares(logits_of, np.arange(len(rows)))
        wrong = place(candidates[:, 1:] == targets[rows][:, None])
        logits = torch.cat([logits[:, :1], logits[:, 1:].masked_fill(wrong, float("-inf"))], dim=1)
        losses: dict[TaskName, Tensor] = {
            "click": F.cross_entropy(logits, torch.zeros(len(rows), dtype=torch.long, device=device()))
        }
        if len(scorer.tasks) > 1:
            own = item_vectors[place(targets[rows])[:, None]]
            values = scorer.values(user_vectors[rows].to(device()), *history(rows), own)[:, 0]
            losses |= _value_losses(values, labels, events[rows])
        total: Tensor = task_losses(losses)
        return total

    plan = Plan("scorer", chosen.epochs, steps, chosen.learning_rate)
    train(nn.ModuleList([scorer, task_losses]), plan, batches, loss_of, partial, reporter)
    return dict(scorer.state_dict())


def fit_fusion(scorer: Scorer, queries: Queries, requests: Requests, cold_price: float, reporter: Reporter) -> None:
    """Set the normalisation of the features and the weights of the click logit's parts, on validation `queries`.

    The weights maximise the likelihood of the item that came among all that the user had not had. Then the weight of
    being cold is raised as far as NDCG@10 stays within `cold_price` of the best: an item that is never shown never gets
    the events that would make it warm.
    """
    scorer.eval()
    _normalise_features(scorer, queries, requests)
    sample = _fusion_sample(scorer, queries, requests, reporter)
    weights = _most_likely_weights(scorer.part_weights, sample)

    def ndcg(cold_weight: float) -> float:
        logits = (sample.parts @ weights + sample.parts[..., -1] * cold_weight).numpy()
        ranks = target_ranks(logits, sample.targets.numpy(), sample.allowed.numpy())
        return float(rank_metrics(ranks)["ndcg@10"].mean())

    steps = np.arange(0.0, _MOST_COLD_WEIGHT, _COLD_STEP)
    values = np.array([ndcg(step) for step in steps])
    within = np.flatnonzero(values >= values.max() * (1.0 - cold_price))
    weights[-1] += float(steps[within[-1]])
    scorer.part_weights.data.copy_(weights)


@dataclass(frozen=True)
class _FusionSample:
    """The parts of the click logit over the items that a query may rank."""

    parts: Tensor  # [Q, C, K]
    allowed: Tensor  # [Q, C] false for items that the user has had
    targets: Tensor  # [Q] the place of the item that came


def _fusion_sample(scorer: Scorer, queries: Queries, requests: Requests, reporter: Reporter) -> _FusionSample:
    """Over all items, or over a fixed sample of them and the target where there are more than memory bears."""
    item_count = len(requests.item_vectors)
    generator = np.random.default_rng(0)
    shared = np.sort(generator.choice(item_count, min(item_count, _MOST_FUSION_ITEMS), replace=False))
    whole = len(shared) == item_count
    parts, allowed, targets = [], [], []
    batches = list(queries.batches(_BATCH))
    with torch.inference_mode(), reporter.track("Weights of the scorer's parts", len(batches)) as advance:
        for batch in batches:
            wanted = batch.targets[:, None]
            candidates = np.broadcast_to(shared, (len(batch), len(shared)))
            unseen = np.take_along_axis(batch.unseen(), candidates, axis=1)
            if not whole:
                unseen = np.concatenate([unseen & (candidates != wanted), np.ones_like(wanted, dtype=bool)], axis=1)
                candidates = np.concatenate([candidates, wanted], axis=1)
            parts.append(scorer.parts(**requests.tensors(batch, candidates))[0])
            allowed.append(torch.from_numpy(unseen))
            targets.append(torch.from_numpy(batch.targets if whole else np.full(len(batch), len(shared))))
            advance("")
    # A clone leaves inference mode, so that gradients can flow.
    return _FusionSample(torch.cat(parts).clone(), torch.cat(allowed), torch.cat(targets))


def _normalise_features(scorer: Scorer, queries: Queries, requests: Requests) -> None:
    sample = requests.features(queries.take(slice(0, _BATCH))).reshape(-1, len(FEATURES))
    flat = torch.from_numpy(sample)
    scorer.get_buffer("feature_mean").copy_(flat.mean(dim=0))
    scorer.get_buffer("feature_scale").copy_(flat.std(dim=0).clamp(min=1e-6))


def _most_likely_weights(start: Tensor, sample: _FusionSample) -> Tensor:
    """The weights [K] under which the items that came are most likely."""
    weights = start.detach().clone().requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = (sample.parts @ weights).masked_fill(~sample.allowed, float("-inf"))
        # A trace of ridge decides where a part says nothing, e.g. without cold items.
        loss = F.cross_entropy(logits, sample.targets) + _RIDGE * (weights**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach()


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
