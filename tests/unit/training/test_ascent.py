"""Coordinate ascent on NDCG@10: it never gets worse where it looks, and what is chance does not pay."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from services.training.ascent import TopItems, ascend, best_alone, pays

QUERIES, ITEMS, PARTS = 200, 40, 3
ANY = torch.full((PARTS,), -torch.inf)


def items_of(seed: int = 0, informed: float = 1.0) -> TopItems:
    """Part 0 tells the item that came from others, `informed` standard deviations better than chance."""
    parts = torch.randn(QUERIES, ITEMS, PARTS, generator=torch.Generator().manual_seed(seed))
    parts[:, 0, 0] += informed
    others = torch.ones(QUERIES, ITEMS, dtype=torch.bool)
    others[:, 0] = False
    return TopItems(parts, parts[:, 0], others)


def test_ndcg_by_its_definition() -> None:
    items = TopItems(torch.zeros(4, 12, 1), torch.zeros(4, 1), torch.arange(12).expand(4, 12) > 0)
    better = torch.tensor([0, 1, 9, 10])
    scores = torch.where(torch.arange(12) <= better[:, None], 1.0, -1.0)
    assert items.ndcg(scores).tolist() == pytest.approx([1.0, 1 / np.log2(3), 1 / np.log2(11), 0.0])
    assert items.ndcg(torch.zeros(4, 12)).tolist() == [0.0] * 4, "ties count against the item that came"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.lists(st.floats(-2, 2, width=32), min_size=PARTS, max_size=PARTS))
def test_it_never_gets_worse_and_leaves_alone_what_is_not_free(seed: int, start: list[float]) -> None:
    items, weights = items_of(seed), torch.tensor(start)
    free = torch.tensor([1.0, 1.0, 0.0])
    reached = ascend(weights, free, items, ANY)
    assert items.value(reached).mean() >= items.value(weights).mean() - 1e-6
    assert reached[2] == weights[2]


def test_it_finds_the_part_that_knows() -> None:
    items = items_of(informed=2.0)
    reached = ascend(torch.ones(PARTS), torch.ones(PARTS), items, ANY)
    assert reached[0] > 2 * reached[1:].abs().max()
    assert items.value(reached).mean() > 1.1 * items.value(torch.ones(PARTS)).mean()


def test_what_is_better_for_others_pays_and_chance_does_not() -> None:
    users = np.arange(QUERIES) // 2

    def poor(rows: np.ndarray) -> Tensor:
        return torch.tensor([0.0, 1.0, 0.0])

    items = items_of(informed=2.0)
    assert pays(poor, lambda rows, fitted: torch.tensor([1.0, 0.0, 0.0]), items, users)
    assert not pays(poor, lambda rows, fitted: fitted, items, users)
    # Without information what is found on one half is chance on the other.
    nothing = items_of(informed=0.0)
    free = torch.ones(PARTS)
    assert not pays(poor, lambda rows, fitted: ascend(fitted, free, nothing.take(rows), ANY), nothing, users)


def test_no_weight_falls_below_its_least() -> None:
    items = items_of(informed=-2.0)
    free, start = torch.ones(PARTS), torch.tensor([0.1, 1.0, 1.0])
    assert ascend(start, free, items, ANY)[0] < 0.0
    assert ascend(start, free, items, torch.zeros(PARTS)).min() >= 0.0


def test_what_adds_no_more_than_chance_stays_out() -> None:
    items = items_of(informed=2.0)
    alone = torch.tensor([1.0, 0.0, 0.0])
    assert ascend(alone, torch.ones(PARTS), items, ANY)[1:].abs().max() < 0.3


def test_the_best_part_alone_takes_the_place_of_all_that_are_free() -> None:
    items = items_of(informed=2.0)
    alone = best_alone(torch.tensor([0.1, 1.0, 0.5]), torch.tensor([1.0, 1.0, 0.0]), items)
    assert alone[0] > 0.5
    assert alone[1:].tolist() == [0.0, 0.5]
