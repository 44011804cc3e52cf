"""Item-to-item weights and popularity columns against their plain definitions."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from services.model.collaborative import compress, history_scores
from services.training.baselines import ease_weights
from services.training.features import expected_popularity, truncate_weights

TRAIN = (np.random.default_rng(3).random((40, 10)) < 0.3).astype(np.float32)
TRAIN[:, 0] = 0


def ease_rows():
    rows = ease_weights(csr_matrix(TRAIN), 3.0)
    dense = np.zeros((10, 10), np.float32)
    dense[rows.items] = rows.values
    return rows, dense


def test_weights_truncated_to_all_score_alike():
    rows, dense = ease_rows()
    for weights in (rows, csr_matrix(dense)):
        whole = history_scores(truncate_weights(weights, per_row=100), np.array([3, 0, 1]), np.array([0.25, 0.5, 1]))
        assert whole == pytest.approx(compress(0.25 * dense[3] + dense[1]), abs=1e-5)


def test_truncation_keeps_the_largest():
    rows, dense = ease_rows()
    for weights in (rows, csr_matrix(dense)):
        short = truncate_weights(weights, per_row=2)
        assert short.item_count == 10
        for row in range(1, 10):
            kept = short.indices[short.indptr[row] : short.indptr[row + 1]]
            assert set(kept) == set(np.argsort(-np.abs(dense[row]))[:2])
            assert list(kept) == sorted(kept)


def test_a_text_like_those_of_popular_items_promises_more():
    states = np.array([[1, 0.1], [1, 0], [0.1, 1], [0, 1], [1, 0.05], [0.05, 1]], np.float32)
    counts = np.array([200, 150, 6, 5, 0, 0], np.float32)
    cold = counts < 5
    promised = expected_popularity(states, counts, cold)
    assert promised[:4].tolist() == [0, 0, 0, 0]
    assert promised[4] > 0 > promised[5]
    assert promised[4] == pytest.approx(-promised[5])


def test_without_events_or_cold_items_nothing_is_promised():
    states = np.eye(3, dtype=np.float32)
    assert not expected_popularity(states, np.zeros(3, np.float32), np.ones(3, bool)).any()
    assert not expected_popularity(states, np.full(3, 9, np.float32), np.zeros(3, bool)).any()
