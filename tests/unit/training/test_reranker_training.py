"""What the re-ranker is shown in training, and what each loss asks of it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from services.training.reranker_candidates import NegativePool, make_pool
from services.training.settings.reranker import RerankerSettings
from services.training.split import Interactions, Queries
from services.training.train_reranker import interest_loss

USERS, ITEMS, EVENTS, TRAIN_END = 6, 30, 150, 120


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    generator = np.random.default_rng(0)
    return Interactions(
        user_ids=[f"u{user}" for user in range(USERS)],
        item_ids=[f"i{item}" for item in range(ITEMS)],
        users=generator.integers(USERS, size=EVENTS),
        items=generator.integers(ITEMS - 2, size=EVENTS),
        kinds=np.full(EVENTS, 2),
        times_ms=np.arange(EVENTS),
        values=np.full(EVENTS, np.nan, dtype=np.float32),
    )


def pool_of(interactions: Interactions, size: int = 5) -> NegativePool:
    """Negatives where the scorer likes an item the more the higher its number."""
    queries = Queries(interactions, np.arange(20, 60))

    def score(batch: Queries) -> np.ndarray:
        return np.tile(np.arange(ITEMS, dtype=np.float32), (len(batch), 1))

    return make_pool(queries, TRAIN_END, score, size, batch=7, seed=1, step=lambda: None)


def test_nothing_that_the_user_had_in_train_is_a_negative(interactions: Interactions) -> None:
    pool = pool_of(interactions)
    for user, hard, easy in zip(pool.queries.users, pool.hard, pool.easy, strict=True):
        events = interactions.user_events(user)
        had = set(interactions.items[events[events < TRAIN_END]])
        chosen = [*hard[hard >= 0], *easy[easy >= 0]]
        assert not had & set(chosen)
        assert len(set(chosen)) == len(chosen)
        free = [item for item in range(ITEMS - 1, -1, -1) if item not in had]
        assert hard[hard >= 0].tolist() == free[:5]
        # The last two items never occur, so that no draw by popularity meets them.
        assert not {ITEMS - 1, ITEMS - 2} & set(easy)


def test_hard_and_easy_negatives_in_their_shares(interactions: Interactions) -> None:
    pool = pool_of(interactions)
    rows = np.flatnonzero((pool.easy >= 0).sum(axis=1) >= 2)
    assert len(rows)
    for share, hard in ((0.0, 0), (0.5, 1), (1.0, 2)):
        drawn = pool.draw(rows, 3, share, np.random.default_rng(0))
        assert drawn[:, 0].tolist() == pool.queries.targets[rows].tolist()
        for row, candidates in zip(rows, drawn, strict=True):
            assert np.isin(candidates[1:], pool.hard[row]).sum() == hard
            assert len(set(candidates)) == 3


def test_a_catalogue_that_is_too_small_repeats_itself(interactions: Interactions) -> None:
    pool = pool_of(interactions, size=1)
    drawn = pool.draw(np.array([0]), 6, 0.5, np.random.default_rng(0))
    assert drawn.shape == (1, 6)
    assert (drawn >= 0).all()
    assert pool.queries.targets[0] not in drawn[0, 1:]


def test_losses() -> None:
    logits, ratings = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]]), torch.tensor([0.25, 1.0])
    assert interest_loss("softmax", logits, ratings) == F.cross_entropy(logits, torch.zeros(2, dtype=torch.long))
    each = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0, 0.0, 0.0]] * 2))
    assert interest_loss("binary_cross_entropy", logits, ratings) == each
    assert interest_loss("squared_error", logits[:, :1], ratings) == pytest.approx((1.75**2 + 1.0**2) / 2)


@pytest.mark.parametrize("name", ["candidates", "hard_negative_share"])
def test_squared_error_has_no_negatives(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} has no effect with loss squared_error"):
        RerankerSettings.model_validate({"loss": "squared_error", name: 2 if name == "candidates" else 0.5})
