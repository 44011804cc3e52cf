"""Intervals that behave."""

import numpy as np
import pytest

from services.training.bootstrap import UserBootstrap, label_metrics


def test_interval_holds_the_mean_and_narrows_with_users():
    generator = np.random.default_rng(0)
    widths = []
    for user_count in (20, 500):
        users = np.repeat(np.arange(user_count), 5)
        found = UserBootstrap(users).mean(generator.random(len(users)))
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3


def test_users_are_resampled_not_queries():
    # Within a user all values are alike: many queries of few users say no more than those few users do.
    values = np.repeat([0.0, 1.0] * 5, 1000)
    found = UserBootstrap(np.repeat(np.arange(10), 1000)).mean(values)
    assert found.high - found.low > 0.4


def test_interval_has_its_level():
    generator = np.random.default_rng(1)
    users = np.repeat(np.arange(80), 3)
    hits = 0
    for _ in range(100):
        values = np.repeat(generator.normal(size=80), 3) + generator.normal(size=240)
        found = UserBootstrap(users, resamples=400).mean(values)
        hits += found.low <= 0 <= found.high
    assert 86 <= hits <= 100


def test_differences_are_paired():
    generator = np.random.default_rng(2)
    users = np.arange(200)
    weak = generator.normal(size=200)
    found = UserBootstrap(users).mean((weak + 0.1) - weak)
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.1)


def test_coverage_interval_holds_the_value():
    lists = np.arange(40).reshape(20, 2) % 30
    found = UserBootstrap(np.arange(20)).coverage(lists, 60)
    assert found.value == 0.5
    assert 0 <= found.low < 0.5 < found.high <= 1
    assert UserBootstrap(np.arange(1)).coverage(np.array([[3, -1]]), 10).value == 0.1


def test_label_metrics():
    generator = np.random.default_rng(3)
    probabilities = generator.random(2000)
    labels = generator.random(2000) < probabilities
    found = label_metrics(labels, probabilities, np.arange(2000) // 10)
    assert found["auc"].low < found["auc"].value < found["auc"].high
    assert found["auc"].value == pytest.approx(5 / 6, abs=0.03)
    assert found["ece"].value < 0.05
    assert found["log_loss"].value == pytest.approx(0.5, abs=0.05)
    assert "auc" not in label_metrics(np.ones(5, np.bool_), np.full(5, 0.9), np.arange(5))


def test_the_root_of_a_mean_is_that_of_its_ends():
    squares = np.random.default_rng(4).random(100)
    found, plain = UserBootstrap(np.arange(100)).root_mean(squares), UserBootstrap(np.arange(100)).mean(squares)
    assert (found.value, found.low, found.high) == pytest.approx(
        (np.sqrt(plain.value), np.sqrt(plain.low), np.sqrt(plain.high))
    )


def test_ratio_is_of_sums():
    users = np.repeat(np.arange(50), 2)
    below = np.random.default_rng(5).random(100)
    found = UserBootstrap(users).ratio(3 * below, below)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((3, 3, 3))
    mixed = UserBootstrap(users).ratio(np.ones(100), 1 + np.arange(100) % 2)
    assert mixed is not None
    assert mixed.value == pytest.approx(100 / 150)
    assert UserBootstrap(users).ratio(np.ones(100), np.zeros(100)) is None
    # One user alone has a denominator: resamples without that user are not counted.
    alone = UserBootstrap(np.arange(3)).ratio(np.ones(3), np.array([0.0, 0.0, 2.0]))
    assert alone is not None
    assert alone.value == 1.5
    assert np.isfinite([alone.low, alone.high]).all()
