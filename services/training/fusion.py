"""Step 4, its end: the few weights that join the scorer's parts, fitted on validation.

Item and user towers and the collaborative weights have seen the training positions, so that there they look better than
they are; a weight learned there would trust them too much. On validation every part is out of sample.

Axes: Q queries, C candidates, K parts.
"""

from collections.abc import Collection
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from services.model.collaborative import FEATURES
from services.model.scorer import Scorer
from services.training.ascent import TopItems, ascend, pays
from services.training.progress import Reporter
from services.training.requests import Requests
from services.training.split import Queries

IntArray = npt.NDArray[np.int64]

PARTS = ("user_tower", "target_attention", *FEATURES, "cold")
"""Names of the click logit's parts (services/model/scorer.py), in their order."""
_OF_EVENTS = ("cf", "knn", "popularity", "recent_popularity")
"""Parts that know items by their events, not by their texts."""
_BATCH = 64
_MOST_ITEMS = 4_000
_DRAWN_ITEMS = 2_000
_HEAD_ITEMS = 100
"""Of each part, that always count."""
_RIDGE = 1e-4
_COLD_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_COLD_STEPS = (-4.0, 8.0, 0.2)


def fit_fusion(
    scorer: Scorer, queries: Queries, requests: Requests, cold_price: float, left_out: Collection[str],
    reporter: Reporter,
) -> None:  # fmt: skip
    """Set the normalisation of the features and the weights of the click logit's parts, on validation `queries`.

    The weights maximise the likelihood of the item that came among all that the user had not had; or NDCG@10, from
    there on, where that pays for users that were not asked (ascent.py). Then cold items are given the weight and the
    scale that are best for the queries whose item was cold, as far as NDCG@10 of all stays within `cold_price` of the
    best: an item that is never shown never gets the events that would make it warm. The parts in `left_out`, of PARTS,
    get no weight.
    """
    scorer.eval()
    _normalise_features(scorer, queries, requests)
    sample = _fusion_sample(scorer, queries, requests, reporter)
    allowed = torch.tensor([part not in left_out for part in PARTS], dtype=torch.float32)
    top = sample.top_items()
    weights = _weights(scorer.part_weights, allowed, sample, top, queries.users)
    scorer.part_weights.data.copy_(weights)
    if "cold" not in left_out:
        with torch.inference_mode():
            _favour_cold(scorer, cold_price, top)


def _weights(start: Tensor, allowed: Tensor, sample: "_FusionSample", top: TopItems, users: IntArray) -> Tensor:
    """The weights [K] of the `allowed` parts, before anything is given up for cold items. users [Q]."""

    def fit(rows: IntArray) -> Tensor:
        return _most_likely_weights(start, allowed, sample.take(rows))

    def refine(rows: IntArray, fitted: Tensor) -> Tensor:
        # The others order cold items, of whom too few are among the first ten for NDCG@10 to say anything of them.
        return ascend(fitted, allowed * torch.tensor([float(part in _OF_EVENTS) for part in PARTS]), top.take(rows))

    everyone = np.arange(len(users))
    fitted = fit(everyone)
    return refine(everyone, fitted) if pays(fit, refine, top, users) else fitted


def _favour_cold(scorer: Scorer, cold_price: float, top: TopItems) -> None:
    """Set the cold part's weight and scale to the best for cold items that the price allows."""
    found: list[tuple[float, float, float, float]] = []
    wanted_cold = top.wanted[:, -1] > 0
    told = top.parts[..., :-1] @ scorer.part_weights[:-1]
    middle = told[top.others & (top.parts[..., -1] > 0)].mean().nan_to_num()
    likely = scorer.part_weights[-1].item()
    for scale in _COLD_SCALES:
        scorer.get_buffer("cold_scale").fill_(scale)
        for step in np.arange(*_COLD_STEPS):
            # The middle of the cold items moves by the step alone, whatever the scale.
            weight = likely + float(step) - (scale - 1.0) * middle.item()
            scorer.part_weights.data[-1] = weight
            values = top.ndcg(scorer.click_logit(top.parts) - scorer.click_logit(top.wanted).unsqueeze(1))
            of_cold = values[wanted_cold].mean().nan_to_num().item()
            found.append((values.mean().item(), of_cold, scale, weight))
    least = max(value for value, *_ in found) * (1.0 - cold_price)
    # Where no cold item came, nothing tells what they need: as they are, as high as the price allows.
    allowed = [each for each in found if each[0] >= least]
    *_, scale, weight = max(allowed, key=lambda each: (each[1], -each[2], each[3]))
    scorer.get_buffer("cold_scale").fill_(scale)
    scorer.part_weights.data[-1] = weight


@dataclass(frozen=True)
class _FusionSample:
    """The parts of the click logit over the items that a query may rank."""

    parts: Tensor  # [Q, C, K]
    allowed: Tensor  # [Q, C] false for items that the user has had, and for padding
    near: Tensor  # [Q, C] the item that came and those that any part puts near the top
    stands_for: Tensor  # [Q, C] log of how many items each stands for
    targets: Tensor  # [Q] the place of the item that came

    def take(self, rows: IntArray) -> "_FusionSample":
        """These queries only."""
        return _FusionSample(*(getattr(self, each.name)[rows] for each in fields(self)))

    def top_items(self) -> TopItems:
        """What may come first."""
        places = [torch.nonzero(near).squeeze(1) for near in self.near]
        parts = [values[kept] for values, kept in zip(self.parts, places, strict=True)]
        others = [kept != target for kept, target in zip(places, self.targets, strict=True)]
        return TopItems(
            pad_sequence(parts, batch_first=True),
            self.parts[torch.arange(len(self.parts)), self.targets],
            pad_sequence(others, batch_first=True),
        )


def _fusion_sample(scorer: Scorer, queries: Queries, requests: Requests, reporter: Reporter) -> _FusionSample:
    """Over all items, or, where there are more than memory bears, over those that a part puts near the top and a sample
    of the others, each of which stands for as many as it was drawn from."""
    item_count = len(requests.item_vectors)
    whole = item_count <= _MOST_ITEMS
    generator = np.random.default_rng(0)
    drawn = np.zeros(item_count, dtype=np.bool_)
    drawn[generator.choice(item_count, min(item_count, _DRAWN_ITEMS), replace=False)] = True
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor, int]] = []
    batches = list(queries.batches(_BATCH))
    with torch.inference_mode(), reporter.track("Weights of the scorer's parts", len(batches)) as advance:
        for batch in batches:
            scored, _ = scorer.parts(**requests.tensors(batch))
            for values, unseen, target in zip(scored, batch.unseen(), batch.targets, strict=True):
                near = _near_the_top(values, torch.from_numpy(unseen))
                near[target] = True
                if whole:
                    rows.append((values, torch.from_numpy(unseen), near, torch.zeros(item_count), int(target)))
                    continue
                kept = torch.nonzero(near | torch.from_numpy(drawn & unseen)).squeeze(1)
                stands_for = torch.where(near[kept], 0.0, float(np.log(item_count / drawn.sum())))
                place = int(torch.searchsorted(kept, int(target)))
                rows.append((values[kept], torch.ones(len(kept), dtype=torch.bool), near[kept], stands_for, place))
            advance("")
    # A clone leaves inference mode, so that gradients can flow.
    return _FusionSample(
        pad_sequence([row[0] for row in rows], batch_first=True).clone(),
        pad_sequence([row[1] for row in rows], batch_first=True),
        pad_sequence([row[2] for row in rows], batch_first=True),
        pad_sequence([row[3] for row in rows], batch_first=True),
        torch.tensor([row[4] for row in rows]),
    )


def _near_the_top(parts: Tensor, unseen: Tensor) -> Tensor:
    """[C] whether any part ranks an unseen item among its best, or among its best cold ones. parts [C, K]."""
    near = torch.zeros(len(parts), dtype=torch.bool)
    for only in (unseen, unseen & (parts[:, -1] > 0)):
        scores = parts[:, :-1].masked_fill(~only[:, None], float("-inf"))
        near[scores.topk(min(_HEAD_ITEMS, len(scores)), dim=0).indices.flatten()] = True
    return near & unseen


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
        logits = sample.parts @ (weights * allowed) + sample.stands_for
        logits = logits.masked_fill(~sample.allowed, float("-inf"))
        # A trace of ridge decides where a part says nothing, e.g. without cold items.
        loss = F.cross_entropy(logits, sample.targets) + _RIDGE * (weights**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weights.detach()
