"""History inputs: right-aligned, true gaps, the same whether built for training or for serving."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.model.history import build_history_inputs, log_time_gaps


@given(count=st.integers(1, 12), length=st.integers(1, 8))
def test_newest_events_stand_at_the_end(count: int, length: int) -> None:
    vectors = np.arange(count, dtype=np.float32)[:, None] + np.array([[0.0, 100.0]], dtype=np.float32)
    kinds = np.arange(1, count + 1) % 11 + 1
    times = np.arange(count) * 1000

    inputs = build_history_inputs(vectors, kinds, times, length)

    kept = min(count, length)
    assert inputs["mask"].tolist() == [[0.0] * (length - kept) + [1.0] * kept]
    assert np.array_equal(inputs["item_vectors"][0, length - kept :], vectors[-kept:])
    assert np.array_equal(inputs["event_kinds"][0, length - kept :], kinds[-kept:])
    assert not inputs["item_vectors"][0, : length - kept].any()
    assert [inputs[name].dtype for name in ("item_vectors", "event_kinds", "time_gaps", "mask")] == [
        np.float32, np.int64, np.float32, np.float32,
    ]  # fmt: skip


def test_the_first_kept_event_has_its_true_gap() -> None:
    inputs = build_history_inputs(np.ones((3, 2), np.float32), [1, 1, 1], [0, 10_000, 30_000], 2)
    assert np.allclose(inputs["time_gaps"], np.log1p([[10.0, 20.0]]))


def test_gaps_of_unordered_times_are_zero() -> None:
    assert log_time_gaps([5_000, 1_000, 2_000]).tolist() == pytest.approx([0.0, 0.0, np.log1p(1.0)])


def test_empty_or_unequal_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        build_history_inputs(np.zeros((0, 2), np.float32), [], [], 4)
    with pytest.raises(ValueError, match="differ"):
        build_history_inputs(np.zeros((2, 2), np.float32), [1], [1, 2], 4)
