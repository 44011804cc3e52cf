"""What was shown, and which of it was clicked: lessons with inverse-propensity weights.

A click says that an item beat the others of its page only as far as all of them had the same chance to be clicked. Two
things stand against that: the policy put what it liked in front of more people (the logged propensity), and people look
at the first places more than at the last (the examination probability, which the policy's own draws reveal).

Axes: P pages, K places of a page, L history length, X shown items.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from services.model.scorer import Scorer
from services.training.dataset import Dataset, Histories, histories_at
from services.training.distributed import device, place
from services.training.split import Interactions

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_LEAST_CLICKS = 20
"""Clicks on drawn items at a place after which its own rate counts as much as the assumption."""
_LEAST_EXAMINED = 0.05


@dataclass(frozen=True)
class Examples:
    """Shown items with what became of them, one page's together. All [X]."""

    request_ids: list[str]
    user_ids: list[str]
    item_ids: list[str]
    positions: IntArray
    propensities: FloatArray
    served_times_ms: IntArray
    clicked: BoolArray

    def __len__(self) -> int:
        return len(self.item_ids)

    def take(self, rows: IntArray) -> "Examples":
        """Some of them."""

        def texts(values: list[str]) -> list[str]:
            return [values[row] for row in rows.tolist()]

        return Examples(
            texts(self.request_ids),
            texts(self.user_ids),
            texts(self.item_ids),
            self.positions[rows],
            self.propensities[rows],
            self.served_times_ms[rows],
            self.clicked[rows],
        )


NO_EXAMPLES = Examples(
    [], [], [], np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, dtype=np.bool_)
)


def assumed_examination(places: int) -> FloatArray:
    """[places]: 1 / log2(2 + place), NDCG's discount, where the log does not tell."""
    discount: FloatArray = 1.0 / np.log2(2.0 + np.arange(places))
    return discount


def examination(positions: IntArray, propensities: FloatArray, clicked: BoolArray) -> FloatArray:
    """[places] the probability that people look at each place, relative to the first; it never rises.

    At places where the policy drew (a propensity below 1), each shown item weighs 1 / propensity, so that what is
    compared between places is the same uniform draw and only the place differs; a place's clicks per weight is then its
    examination probability times a constant. It is held to the assumption as far as there are few clicks. Places where
    nothing was ever drawn are as assumed.
    """
    places = int(positions.max()) + 1 if len(positions) else 0
    assumed = assumed_examination(places)
    drawn = propensities < 1.0
    if not (clicked & drawn).any():
        return assumed
    weights = 1.0 / propensities[drawn]
    shown = np.bincount(positions[drawn], weights=weights, minlength=places)
    hits = np.bincount(positions[drawn], weights=weights * clicked[drawn], minlength=places)
    counts = np.bincount(positions[drawn & clicked], minlength=places)
    there = shown > 0
    # The constant under which assumption and log agree over all places that were drawn at.
    constant = hits[there].sum() / (shown[there] * assumed[there]).sum()
    measured = np.divide(hits, shown * constant, out=assumed.copy(), where=there)
    trust = counts / (counts + _LEAST_CLICKS)
    found = trust * measured + (1.0 - trust) * assumed
    found = np.minimum.accumulate(found / found[0] if found[0] > 0 else assumed)
    return np.maximum(found, _LEAST_EXAMINED)


def click_weights(propensities: FloatArray, examined: FloatArray, largest: float) -> FloatArray:
    """1 / (propensity · examination), at most `largest`: what a click counts. All shapes alike.

    Cutting trades a little bias for much less variance (Ionides, 2008); with few clicks an uncut weight would be all
    that is learned.
    """
    return np.minimum(1.0 / np.maximum(propensities * examined, 1.0 / largest), largest)


class ShownPages:
    """Pages on which something was clicked and something was not, as lessons for target attention.

    Each page's loss is the cross-entropy of its clicked items among all that it showed, each click times its weight
    (Ai et al., 2018). Pages without a click say nothing of an order.
    """

    def __init__(
        self, dataset: Dataset, item_vectors: Tensor, examples: Examples, length: int, largest: float, weight: float
    ) -> None:
        """dataset: the users' events, of which each page sees what came before it was served. item_vectors [N, D];
        `length` is L; `largest` cuts weights; `weight`: see train_scorer.Pages."""
        self.weight = weight
        interactions = dataset.interactions
        row_of = {item: row for row, item in enumerate(interactions.item_ids)}
        user_of = {user: row for row, user in enumerate(interactions.user_ids)}
        items = np.array([row_of.get(item, -1) for item in examples.item_ids], dtype=np.int64)
        self.examination = examination(examples.positions, examples.propensities, examples.clicked)
        weights = click_weights(examples.propensities, self.examination[examples.positions], largest)
        pages = [rows for rows in _pages(examples) if _tells(examples.clicked[rows])]
        users = np.array([user_of.get(examples.user_ids[rows[0]], -1) for rows in pages], dtype=np.int64)
        times = np.array([examples.served_times_ms[rows[0]] for rows in pages], dtype=np.int64)
        self.items, self.weights = _padded([items[rows] for rows in pages], [
            weights[rows] * examples.clicked[rows] * (items[rows] >= 0) for rows in pages
        ])  # fmt: skip
        self._histories: Histories = histories_at(dataset, newest_before(interactions, users, times, length))
        self._item_vectors = item_vectors
        self.clicks = int((self.weights > 0).sum())

    def __len__(self) -> int:
        return len(self.items)

    def loss(self, scorer: Scorer, rows: IntArray) -> Tensor:
        """The mean over clicks of the pages `rows`, weighted; weights add up to 1 (self-normalised)."""
        items, kinds, gaps, mask = self._histories.tensors(rows, device())
        vectors = self._item_vectors.to(device())
        history = vectors[items.clamp(min=0)] * mask.unsqueeze(-1)
        shown, weights = place(self.items[rows]), place(self.weights[rows]).float()
        mixed, _ = scorer.interest_attention(history, kinds, gaps, mask, vectors[shown.clamp(min=0)])
        logits = scorer.interest(mixed).squeeze(-1).masked_fill(shown < 0, -1e4)
        losses = -(F.log_softmax(logits, dim=-1) * weights).sum()
        return losses / weights.sum().clamp(min=1e-6)


def newest_before(interactions: Interactions, users: IntArray, times_ms: IntArray, length: int) -> IntArray:
    """[P, L] positions of the newest events that users [P] (-1: unknown) had before times_ms [P], -1 for padding.

    An event at the time itself is not before it: the page was made without it.
    """
    found = np.full((len(users), length), -1, dtype=np.int64)
    for row, (user, time) in enumerate(zip(users.tolist(), times_ms.tolist(), strict=True)):
        if user < 0:
            continue
        events = interactions.user_events(user)
        events = events[: np.searchsorted(interactions.times_ms[events], time)][-length:]
        if len(events):
            found[row, -len(events) :] = events
    return found


def _pages(examples: Examples) -> list[IntArray]:
    """The rows of each page."""
    rows: dict[str, list[int]] = {}
    for row, request_id in enumerate(examples.request_ids):
        rows.setdefault(request_id, []).append(row)
    return [np.array(page, dtype=np.int64) for page in rows.values()]


def _tells(clicked: BoolArray) -> bool:
    return bool(clicked.any() and not clicked.all())


def _padded(items: list[IntArray], weights: list[FloatArray]) -> tuple[IntArray, FloatArray]:
    """[P, K] each, -1 and 0 for padding."""
    width = max((len(page) for page in items), default=0)
    padded = np.full((len(items), width), -1, dtype=np.int64)
    counted = np.zeros((len(items), width))
    for row, (page, own) in enumerate(zip(items, weights, strict=True)):
        padded[row, : len(page)] = page
        counted[row, : len(own)] = own
    return padded, counted
