"""Step 4, its end: the few weights that join the scorer's parts, fitted on validation.

Item and user towers and the collaborative weights have seen the training positions, so that there they look better than
they are; a weight learned there would trust them too much. On validation every part is out of sample.

Axes: Q queries, C candidates, K parts.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from services.model.collaborative import FEATURES
from services.model.scorer import Scorer
from services.training.metrics import ndcg_at_10
from services.training.progress import Reporter
from services.training.requests import Requests
from services.training.split import Queries

PARTS = ("user_tower", "target_attention", *FEATURES, "cold")
"""Names of the click logit's parts (services/model/scorer.py), in their order."""
_BATCH = 64
_MOST_FUSION_ITEMS = 2_000
_RIDGE = 1e-4
_MOST_COLD_WEIGHT = 8.0
_COLD_STEP = 0.1


def fit_fusion(
    scorer: Scorer, queries: Queries, requests: Requests, cold_price: float, left_out: Collection[str],
    reporter: Reporter,
) -> None:  # fmt: skip
    """Set the normalisation of the features and the weights of the click logit's parts, on validation `queries`.

    The weights maximise the likelihood of the item that came among all that the user had not had. Then the weight of
    being cold is raised as far as NDCG@10 stays within `cold_price` of the best: an item that is never shown never gets
    the events that would make it warm. The parts in `left_out`, of PARTS, get no weight.
    """
    scorer.eval()
    _normalise_features(scorer, queries, requests)
    sample = _fusion_sample(scorer, queries, requests, reporter)
    allowed = torch.tensor([part not in left_out for part in PARTS], dtype=torch.float32)
    weights = _most_likely_weights(scorer.part_weights, allowed, sample)
    scorer.part_weights.data.copy_(weights)
    if "cold" not in left_out:
        scorer.part_weights.data[-1] += _cold_weight(weights, cold_price, sample)


def _cold_weight(weights: Tensor, cold_price: float, sample: "_FusionSample") -> float:
    """The most that can be added to the weight of being cold for the price."""

    def ndcg(cold_weight: float) -> float:
        logits = (sample.parts @ weights + sample.parts[..., -1] * cold_weight).numpy()
        return float(ndcg_at_10(logits, sample.targets.numpy(), sample.allowed.numpy()).mean())

    steps = np.arange(0.0, _MOST_COLD_WEIGHT, _COLD_STEP)
    values = np.array([ndcg(step) for step in steps])
    within = np.flatnonzero(values >= values.max() * (1.0 - cold_price))
    return float(steps[within[-1]])


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


def _most_likely_weights(start: Tensor, allowed: Tensor, sample: _FusionSample) -> Tensor:
    """The weights [K], of the `allowed` parts (1, others 0), under which the items that came are most likely."""
    weights = (start.detach() * allowed).requires_grad_()
    optimiser = torch.optim.LBFGS([weights], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = (sample.parts @ (weights * allowed)).masked_fill(~sample.allowed, float("-inf"))
        # A trace of ridge decides where a part says nothing, e.g. without cold items.
        loss = F.cross_entropy(logits, sample.targets) + _RIDGE * (weights**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach()
