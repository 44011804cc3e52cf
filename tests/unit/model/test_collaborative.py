"""Item-to-item weights and dense features against their plain definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.model.collaborative import (
    FEATURES,
    HistoryWeighting,
    ItemColumns,
    ItemWeights,
    compress,
    decayed_event_counts,
    dense_features,
    event_counts,
    history_scores,
    newness,
)

DENSE = np.array([[0, 0.5, 0, -0.25], [0.5, 0, 0.125, 0], [0, 0, 0, 0], [1, 0, 2, 0]], dtype=np.float32)


def sparse(dense: np.ndarray) -> ItemWeights:
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(dense)))])
    return ItemWeights(indptr, columns, dense[rows, columns])


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0])), max_size=8))
def test_scores_are_the_weighted_sum_of_the_rows(history):
    expected = sum((weight * DENSE[item] for item, weight in history), start=np.zeros(4, np.float32))
    items, weights = np.array(history).reshape(-1, 2).T
    scores = history_scores(sparse(DENSE), items.astype(np.int64), weights.astype(np.float32))
    assert scores.dtype == np.float32
    assert scores == pytest.approx(compress(expected), abs=1e-6)


@given(
    st.lists(
        st.tuples(st.integers(-1, 3), st.integers(0, 72), st.sampled_from([0.0, math.nan, -2.0, 1.0, 40.0])), max_size=8
    ),
    st.sampled_from([0.5, 1.0]),
    st.sampled_from([None, 24.0]),
    st.booleans(),
)
def test_an_event_counts_less_the_more_and_the_longer_ago_and_more_the_larger_its_value(
    history, decay, half_life, by_value
):
    history = sorted(history, key=lambda event: event[1])
    items = np.array([item for item, _, _ in history], dtype=np.int64)
    hours = [hour for _, hour, _ in history]
    values = np.array([value for _, _, value in history], dtype=np.float32)
    expected, later = [], []
    for item, hour, _ in reversed(history):
        lasting = 1.0 if half_life is None else 0.2 + 0.8 * 0.5 ** ((hours[-1] - hour) / half_life)
        repeated = item in later
        said = [math.log(1 + value) if value > 0 else 1.0 for other, _, value in history if other == item]
        meant = max(said) if by_value else 1.0
        expected.append(0.0 if repeated or item < 0 else decay ** len(later) * lasting * meant)
        later += [] if repeated else [item]
    times_ms = np.array(hours, dtype=np.int64) * 3_600_000
    weights = HistoryWeighting(decay, half_life, by_value).weights(items, times_ms, values)
    assert weights.dtype == np.float32
    assert weights.tolist() == pytest.approx(expected[::-1], abs=1e-6)


def test_compression_is_relative_and_keeps_the_order():
    scores = np.array([[0, 1, -2, 400], [0, 0, 0, 0]], np.float32)
    relative = compress(scores)
    assert np.argsort(relative[0]).tolist() == np.argsort(scores[0]).tolist()
    assert relative[0] == pytest.approx(compress(7 * scores)[0], rel=1e-5)
    assert relative[1].tolist() == [0, 0, 0, 0]
    assert compress(scores[0]).tolist() == relative[0].tolist()


def test_weights_survive_saving(tmp_path):
    weights = sparse(DENSE)
    weights.save(tmp_path / "history_cf.npz")
    loaded = ItemWeights.load(tmp_path / "history_cf.npz")
    for name in ("indptr", "indices", "weights"):
        assert getattr(loaded, name).tolist() == getattr(weights, name).tolist()


@pytest.mark.parametrize(
    ("indptr", "indices", "weights", "problem"),
    [
        ([0, 2], [0], [1.0], "indptr"),
        ([0, 2, 1], [0], [1.0], "indptr"),
        ([], [], [], "indptr"),
        ([0, 1], [0], [1.0, 2.0], "weights"),
        ([0, 1], [1], [1.0], "outside"),
        ([0, 1], [-1], [1.0], "outside"),
    ],
)
def test_broken_files_are_refused(tmp_path, indptr, indices, weights, problem):
    path = tmp_path / "history_cf.npz"
    ItemWeights(np.array(indptr, np.int64), np.array(indices, np.int64), np.array(weights, np.float32)).save(path)
    with pytest.raises(ValueError, match=problem):
        ItemWeights.load(path)


def test_counts_decay_by_half_in_a_half_life():
    day = 86_400_000
    items, times = np.array([0, 0, 2, 2]), np.array([0, 2 * day, 2 * day, 3 * day])
    assert event_counts(items, 4).tolist() == [2, 0, 2, 0]
    assert decayed_event_counts(items, times, 4, now_ms=2 * day, half_life_days=2).tolist() == [1.5, 0, 2, 0]


COLUMNS = ItemColumns(
    np.array([0, 3, 7], np.float32),
    np.array([0, 1, 0.5], np.float32),
    np.array([0.25, 0, 0], np.float32),
    np.array([6, 0, 1], np.float32),
)


def test_features_of_one_request_and_of_a_batch_agree():
    scores = np.array([[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]], dtype=np.float32)
    histories = {"cf": scores, "knn": scores + 1, "text": scores + 2}
    candidates = np.array([[2, 0], [1, -1]])
    batch = dense_features(FEATURES, histories, COLUMNS, candidates)
    assert batch.shape == (2, 2, 7)
    for row in range(2):
        own = {name: values[row] for name, values in histories.items()}
        assert np.array_equal(batch[row], dense_features(FEATURES, own, COLUMNS, candidates[row]))
    assert batch[0, 0] == pytest.approx([1.5, 2.5, 3.5, np.log(8), np.log(1.5), 0, 1])
    assert batch[0, 1, 5] == 0.25
    assert batch[1, 1].tolist() == [0] * 7
    only = dense_features(["popularity"], {}, COLUMNS, candidates[0])
    assert only[:, 0].tolist() == batch[0, :, 3].tolist()


def test_newness_falls_with_the_logarithm_of_the_age_and_is_0_for_what_nobody_knows():
    day, now = 86_400_000, 900_000_000_000
    ages = np.array([-30, 0, 9, 99, 40_000, np.nan])
    new = newness(now - ages * day, now)
    assert new[0] == new[1] == pytest.approx(np.log(36_526), rel=1e-6)
    assert new[1] - new[2] == pytest.approx(np.log(10), rel=1e-5)
    assert new[2] - new[3] == pytest.approx(np.log(10), rel=1e-5)
    assert new[4:].tolist() == [0, 0]


def test_an_unknown_feature_is_named():
    with pytest.raises(ValueError, match="'age'"):
        dense_features(["age"], {}, COLUMNS, np.array([0]))
