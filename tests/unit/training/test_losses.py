"""The user tower's losses against their definitions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from services.training.losses import binary_cross_entropy, gbce_exponent, sampled_softmax, squared_error

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
PLACES = torch.tensor([0, 2])


def test_softmax_over_everything_is_cross_entropy() -> None:
    assert torch.equal(sampled_softmax(LOGITS, PLACES, torch.zeros(3)), F.cross_entropy(LOGITS, PLACES))


def test_the_logq_correction_takes_out_how_items_are_drawn() -> None:
    """Item 0 came; over many draws of the others the odds against it are those of the whole catalogue."""
    generator = np.random.default_rng(0)
    scores = torch.from_numpy(generator.normal(size=40)).float()
    inclusion = torch.linspace(0.2, 0.9, 40)
    inclusion[0] = 1.0
    odds = []
    for _ in range(4000):
        drawn = torch.from_numpy(generator.random(40)).float() < inclusion
        loss = sampled_softmax(scores[None, drawn], torch.tensor([0]), inclusion[drawn].log())
        odds.append(loss.exp())
    whole = F.cross_entropy(scores[None], torch.tensor([0])).exp()
    assert torch.stack(odds).mean().item() == pytest.approx(whole.item(), rel=0.02)


def test_binary_cross_entropy_by_hand() -> None:
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    expected = F.binary_cross_entropy_with_logits(LOGITS, labels)
    assert binary_cross_entropy(LOGITS, PLACES) == pytest.approx(expected.item())
    halved = binary_cross_entropy(LOGITS, PLACES, positive_weight=0.5)
    positives = F.softplus(-LOGITS.gather(1, PLACES.unsqueeze(1))).sum() / 6
    assert halved.item() == pytest.approx((expected - 0.5 * positives).item())


@given(st.integers(1, 500), st.integers(2, 400), st.floats(0, 1))
def test_the_exponent_lies_between_the_sampling_rate_and_one(negatives: int, items: int, calibration: float) -> None:
    rate = min(1.0, negatives / (items - 1))
    exponent = gbce_exponent(negatives, items, calibration)
    assert rate - 1e-9 <= exponent <= 1 + 1e-9
    assert gbce_exponent(negatives, items, 0.0) == pytest.approx(1.0)
    assert gbce_exponent(negatives, items, 1.0) == pytest.approx(rate)


def test_squared_error_compares_interest() -> None:
    assert squared_error(torch.tensor([0.0, 100.0]), torch.tensor([0.0, 1.0])) == pytest.approx(0.125)
