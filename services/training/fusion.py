"""Step 4, its end: the few weights that join the scorer's parts, fitted on validation.

Item and user towers and the collaborative weights have seen the training positions, so that there they look better than
they are; a weight learned there would trust them too much. On validation every part is out of sample.

Axes: Q queries, C candidates, K parts, H items near the top, W weights.
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
from services.training.ascent import TopItems, ascend, best_alone, pays
from services.training.progress import Reporter
from services.training.requests import Requests
from services.training.split import Queries

IntArray = npt.NDArray[np.int64]

PARTS = ("user_tower", "target_attention", *FEATURES, "cold")
"""Names of the click logit's parts (services/model/scorer.py), in their order."""
_TOLD = len(PARTS) - 1
"""Parts beside "cold"; a weight of each for warm items, one for cold items, and that of "cold" are W = 2 K − 1."""
_FOR_AN_ITEM = ("user_tower", "target_attention", "cf", "knn", "text")
"""Parts of which more is better. Where a weight against them is likelier, too few queries have been asked."""
_LEAST = torch.tensor([*2 * [0.0 if part in _FOR_AN_ITEM else -torch.inf for part in PARTS[:-1]], -torch.inf])
"""Of each weight, [W]."""
_BATCH = 64
_MOST_ITEMS = 4_000
_DRAWN_ITEMS = 2_000
_HEAD_ITEMS = 100
"""Of each part, that always count."""
_LEAST_SPREAD = 1e-2
"""Of a feature; all of them are logarithms. One that hardly differs says nothing, and must not be blown up to say much:
beside logits of many thousands single precision loses what the others say."""
_RIDGE = 1e-4
_COLD_RIDGE = 3.0
"""In queries: how strongly the weights for cold items are held to those for warm ones."""
_COLD_SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_COLD_STEPS = (-4.0, 8.0, 0.2)


def fit_fusion(
    scorer: Scorer, queries: Queries, requests: Requests, cold_price: float, left_out: Collection[str],
    reporter: Reporter,
) -> None:  # fmt: skip
    """Set the normalisation of the features and the weights of the click logit's parts, on validation `queries`.

    The weights, those for cold items held near those for warm ones, maximise the likelihood of the item that came among
    all that the user had not had. Those for warm items then give way, where that pays for users that were not asked, to
    the best part alone and what the others add to its NDCG@10 (ascent.py). Last, what cold items get is scaled and
    shifted to what is best for the queries whose item was cold, as far as NDCG@10 of all stays within `cold_price` of
    the best: an item that is never shown never gets the events that would make it warm. The parts in `left_out`, of
    PARTS, get no weight; without "cold" all items are treated alike.
    """
    scorer.eval()
    _normalise_features(scorer, queries, requests)
    sample = _fusion_sample(scorer, queries, requests, reporter)
    if "cold" in left_out:
        sample.parts[..., -1] = 0.0
    told = torch.tensor([float(part not in left_out) for part in PARTS[:-1]])
    top = sample.top_items()
    weights = _weights(scorer.part_weights.detach()[:-1], told, sample, top, queries.users)
    if "cold" in left_out:
        weights = torch.cat([weights[:_TOLD], weights[:_TOLD], torch.zeros(1)])
    else:
        weights = _favour_cold(weights, cold_price, top)
    scorer.part_weights.data.copy_(torch.cat([weights[:_TOLD], weights[-1:]]))
    scorer.get_buffer("cold_weights").copy_(weights[_TOLD:-1])


def _weights(start: Tensor, told: Tensor, sample: "_FusionSample", top: TopItems, users: IntArray) -> Tensor:
    """The weights [W], of parts `told` [K − 1] (1, others 0), before anything is given up for cold items. users [Q]."""
    # Of cold items too few are among the first ten for NDCG@10 to say anything of their order.
    free = torch.cat([told, torch.zeros(_TOLD + 1)])

    def fit(rows: IntArray) -> Tensor:
        return _most_likely_weights(start, told, sample.take(rows))

    def refine(rows: IntArray, fitted: Tensor) -> Tensor:
        items = top.take(rows)
        return ascend(best_alone(fitted, free, items), free, items, _LEAST)

    everyone = np.arange(len(users))
    fitted = fit(everyone)
    return refine(everyone, fitted) if pays(fit, refine, top, users) else fitted


def _favour_cold(weights: Tensor, cold_price: float, top: TopItems) -> Tensor:
    """The weights [W] with cold items' scaled and shifted to what the price allows."""
    found: list[tuple[float, float, float, float]] = []
    wanted_cold = top.wanted[:, -1] > 0
    by_warm, by_cold = weights.clone(), weights.clone()
    by_warm[_TOLD:] = 0.0
    by_cold[:_TOLD], by_cold[-1] = 0.0, 0.0
    warm, of_cold, is_cold = top.differences @ by_warm, top.differences @ by_cold, top.differences[..., -1]
    middle = (top.parts @ by_cold)[top.others & (top.parts[..., -1] > 0)].mean().nan_to_num().item()
    for scale in _COLD_SCALES:
        for step in np.arange(*_COLD_STEPS):
            # The middle of the cold items moves by the step alone, whatever the scale.
            offset = weights[-1].item() + float(step) - (scale - 1.0) * middle
            values = top.ndcg(warm + scale * of_cold + offset * is_cold)
            found.append((values.mean().item(), values[wanted_cold].mean().nan_to_num().item(), scale, offset))
    least = max(value for value, *_ in found) * (1.0 - cold_price)
    # Where no cold item came, nothing tells what they need: as they are, as high as the price allows.
    allowed = [each for each in found if each[0] >= least]
    *_, scale, offset = max(allowed, key=lambda each: (each[1], -each[2], each[3]))
    return by_warm + scale * by_cold + torch.cat([torch.zeros(2 * _TOLD), torch.tensor([offset])])


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
        parts = [_by_warmth(values[kept]) for values, kept in zip(self.parts, places, strict=True)]
        others = [kept != target for kept, target in zip(places, self.targets, strict=True)]
        return TopItems(
            pad_sequence(parts, batch_first=True),
            _by_warmth(self.parts[torch.arange(len(self.parts)), self.targets]),
            pad_sequence(others, batch_first=True),
        )


def _by_warmth(parts: Tensor) -> Tensor:
    """[..., K] → [..., W]: what every weight is a factor of."""
    told, cold = parts[..., :-1], parts[..., -1:]
    return torch.cat([told * (1.0 - cold), told * cold, cold], dim=-1)


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
    scorer.get_buffer("feature_scale").copy_(flat.std(dim=0).clamp(min=_LEAST_SPREAD))


def _most_likely_weights(start: Tensor, told: Tensor, sample: _FusionSample) -> Tensor:
    """The weights [W], of parts `told` (1, others 0), under which the items that came are most likely, none of them
    against an item that its part speaks for."""
    weights = _freely_fitted(start, told, sample)
    while (weights < _LEAST)[:_TOLD].any():
        told = told * (weights >= _LEAST)[:_TOLD]
        weights = _freely_fitted(start, told, sample)
    return torch.maximum(weights, _LEAST)


def _freely_fitted(start: Tensor, told: Tensor, sample: _FusionSample) -> Tensor:
    """The same, whatever their signs."""
    # Warm weights, what cold items' differ by, and the weight of "cold".
    free = torch.cat([told, told, torch.ones(1)])
    found = torch.cat([start * told, torch.zeros(_TOLD + 1)]).requires_grad_()
    optimiser = torch.optim.LBFGS([found], max_iter=60, tolerance_change=1e-7, line_search_fn="strong_wolfe")
    parts, cold = sample.parts[..., :-1], sample.parts[..., -1]
    of_cold = parts[sample.allowed & (cold > 0)]
    spread = of_cold.var(dim=0) if len(of_cold) > 1 else torch.ones(_TOLD)
    held = _COLD_RIDGE / len(cold) * spread

    def closure() -> Tensor:
        optimiser.zero_grad()
        weights = found * free
        warm, more, offset = weights[:_TOLD], weights[_TOLD:-1], weights[-1]
        logits = parts @ warm + cold * (parts @ more + offset) + sample.stands_for
        logits = logits.masked_fill(~sample.allowed, float("-inf"))
        # A trace of ridge decides where a part says nothing, e.g. without cold items.
        loss = F.cross_entropy(logits, sample.targets) + _RIDGE * (weights**2).sum() + (held * more**2).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    warm, more, offset = (found * free).detach().split([_TOLD, _TOLD, 1])
    return torch.cat([warm, warm + more, offset])
