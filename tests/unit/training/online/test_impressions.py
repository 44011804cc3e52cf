"""Weights of clicks, examination by place, and pages that see only what came before them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from services.training.dataset import Dataset, event_gaps
from services.training.online.impressions import (
    Examples,
    ShownPages,
    assumed_examination,
    click_weights,
    examination,
)
from services.training.split import Interactions
from services.training.train_scorer import Scorer

CHANCES = st.floats(min_value=1e-6, max_value=1.0)


@given(st.lists(st.tuples(CHANCES, CHANCES), min_size=1, max_size=30), st.floats(min_value=1.0, max_value=1e3))
def test_weights_are_inverse_and_cut(chances: list[tuple[float, float]], largest: float) -> None:
    propensities, examined = np.array(chances).T
    weights = click_weights(propensities, examined, largest)
    assert ((weights >= 1.0) & (weights <= largest)).all()
    assert weights == pytest.approx(np.minimum(1.0 / (propensities * examined), largest), rel=1e-9)
    order = np.argsort(propensities * examined)
    assert (np.diff(weights[order]) <= 1e-9).all()


@given(
    st.lists(
        st.tuples(st.integers(0, 19), st.floats(min_value=0.01, max_value=1.0), st.booleans()), min_size=1, max_size=200
    )
)
def test_examination_never_rises_and_stays_a_probability(rows: list[tuple[int, float, bool]]) -> None:
    positions, propensities, clicked = (np.array(column) for column in zip(*rows, strict=True))
    found = examination(positions, propensities, clicked)
    assert len(found) == positions.max() + 1
    assert found[0] == pytest.approx(1.0)
    assert (np.diff(found) <= 1e-12).all()
    assert ((found > 0) & (found <= 1.0)).all()


def test_examination_is_found_from_what_was_drawn() -> None:
    """The best item, shown most, is clicked more; only the place's own share is to be found."""
    generator = np.random.default_rng(0)
    true = np.array([1.0, 0.7, 0.3, 0.15])
    positions = np.tile(np.arange(4), 40_000)
    drawn = generator.random(len(positions)) < 0.4
    propensities = np.where(drawn, 0.1, 0.6 + 0.1)
    interest = np.where(drawn, 0.2, 0.5)
    clicked = generator.random(len(positions)) < true[positions] * interest
    assert examination(positions, propensities, clicked) == pytest.approx(true, abs=0.05)


def test_without_draws_the_assumption_holds() -> None:
    found = examination(np.arange(5), np.ones(5), np.ones(5, dtype=bool))
    assert found == pytest.approx(assumed_examination(5))


def interactions() -> Interactions:
    users, items, times = np.array([0, 1, 0, 0, 1]), np.array([0, 1, 2, 3, 2]), np.array([10, 20, 30, 40, 50])
    return Interactions(
        ["a", "b"], ["i0", "i1", "i2", "i3"], users, items, np.full(5, 2), times, np.full(5, np.nan, np.float32)
    )


def test_pages_teach_what_was_clicked_beside_what_was_not() -> None:
    events = interactions()
    dataset = Dataset("-", events, None, ["", "", "", ""], np.full(4, np.nan), event_gaps(events))  # type: ignore[arg-type]
    examples = Examples(
        request_ids=["p", "p", "q", "q", "r", "r"],
        user_ids=["a"] * 6,
        item_ids=["i0", "i1", "i1", "i2", "i2", "gone"],
        positions=np.array([0, 1] * 3),
        propensities=np.array([1.0, 0.05, 1.0, 1.0, 1.0, 1.0]),
        served_times_ms=np.full(6, 45),
        clicked=np.array([False, True, False, False, True, False]),
        feature_offsets=np.full(6, 4),
        history_counts=np.full(6, 9),
    )
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    pages = ShownPages(dataset, np.array([1, 2, 5, 4, 3]), vectors, examples, 4, 10.0, 0.5)
    assert len(pages) == 2
    assert pages._histories.items.tolist() == [[-1, -1, 0, 3]] * 2, "the third event came to the log after the page"
    assert pages.items.tolist() == [[0, 1], [2, -1]]
    assert pages.weights[0].tolist() == [0.0, 10.0]
    scorer = Scorer(8, 4, 8, ["popularity"], ["click"], 5)
    rows = np.array([0, 1])
    optimiser = torch.optim.Adam(scorer.parameters(), lr=0.05)
    before = pages.loss(scorer, rows).item()
    for _ in range(30):
        optimiser.zero_grad()
        pages.loss(scorer, rows).backward()
        optimiser.step()
    assert pages.loss(scorer, rows).item() < 0.2 * before
