"""Calibration recovers what made the data, and the re-ranker's weight vanishes when it says nothing."""

import numpy as np
import pytest

from services.training.calibrate import fuse, linear, platt


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def test_platt_recovers_scale_and_offset() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(5, 3, size=(200, 200)).astype(np.float32)
    labels = generator.random(logits.shape) < sigmoid(0.5 * logits - 4)
    found = platt(logits, labels)
    assert found.scale == pytest.approx(0.5, abs=0.03)
    assert found.offset == pytest.approx(-4, abs=0.2)


@pytest.mark.parametrize("label", [False, True])
def test_platt_of_one_class_is_finite(label: bool) -> None:
    found = platt(np.linspace(-1, 1, 50, dtype=np.float32), np.full(50, label))
    assert np.isfinite([found.scale, found.offset]).all()


def test_linear_is_least_squares() -> None:
    outputs = np.linspace(0, 1, 20, dtype=np.float32)
    found = linear(outputs, (1 + 4 * outputs).astype(np.float32))
    assert (found.scale, found.offset) == pytest.approx((4, 1), abs=1e-4)
    constant = linear(np.ones(20, np.float32), outputs)
    assert (constant.scale, constant.offset) == pytest.approx((0, 0.5), abs=1e-4)


def samples(informed: float) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(0)
    labels = np.zeros((500, 16), dtype=bool)
    labels[np.arange(500), generator.integers(16, size=500)] = True
    scorer = (generator.normal(size=labels.shape) + labels).astype(np.float32)
    reranker = (generator.normal(size=labels.shape) + informed * labels).astype(np.float32)
    return scorer, reranker, labels, np.ones_like(labels), np.arange(500) // 5


def test_an_informed_reranker_gets_weight() -> None:
    fusion = fuse(*samples(informed=1.0))
    assert fusion.reranker_weight == pytest.approx(fusion.scorer_weight, rel=0.3)


def test_a_misleading_reranker_gets_none() -> None:
    fusion = fuse(*samples(informed=-1.0))
    assert fusion.reranker_weight == 0.0
    assert fusion.scorer_weight > 0


def test_a_reranker_that_says_nothing_gets_none() -> None:
    """The likelihood alone would give it whatever weight chance suggests."""
    assert fuse(*samples(informed=0.0)).reranker_weight == 0.0


def test_fused_probabilities_are_calibrated() -> None:
    scorer, reranker, labels, known, users = samples(informed=1.0)
    probabilities = sigmoid(fuse(scorer, reranker, labels, known, users).apply(scorer, reranker))
    assert probabilities.mean() == pytest.approx(labels.mean(), abs=0.005)


def test_candidates_that_are_none_do_not_count() -> None:
    scorer, reranker, labels, known, users = samples(informed=1.0)
    wider = [np.concatenate([array, np.full((500, 4), fill)], axis=1) for array, fill in ((scorer, 9), (reranker, -9))]
    told = [np.concatenate([array, np.zeros((500, 4), bool)], axis=1) for array in (labels, known)]
    found, expected = fuse(*wider, *told, users), fuse(scorer, reranker, labels, known, users)
    assert vars(found) == pytest.approx(vars(expected), rel=1e-3)


def test_one_label_is_enough_for_a_finite_calibration() -> None:
    found = platt(np.array([3.0], np.float32), np.array([True]))
    assert np.isfinite([found.scale, found.offset]).all()
