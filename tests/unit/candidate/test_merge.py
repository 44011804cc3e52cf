import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.candidate.merge import merge, rank_included, split_quotas

ranked_lists = st.lists(
    st.lists(st.integers(0, 40), unique=True, max_size=30).map(lambda rows: np.array(rows, dtype=np.int64)),
    min_size=1,
    max_size=4,
)


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), st.integers(0, 500))
def test_quotas_share_all_places(quotas, n):
    places = split_quotas(quotas, n)
    assert sum(places) == n
    assert all(abs(place - n * quota / sum(quotas)) < 1 for place, quota in zip(places, quotas, strict=True))


@given(ranked_lists, st.integers(0, 60), st.data())
def test_merge_keeps_its_promises(lists, n, data):
    quotas = data.draw(st.lists(st.floats(0.05, 1), min_size=len(lists), max_size=len(lists)))
    merged = merge(lists, quotas, n)
    everything = {row for rows in lists for row in rows.tolist()}
    # As many as asked for where there are that many, none twice.
    assert len(merged.rows) == min(n, len(everything)) == len(set(merged.rows.tolist()))
    # Falling and within (0, 1].
    assert np.all(np.diff(merged.scores) <= 0)
    assert np.all((merged.scores > 0) & (merged.scores <= 1 + 1e-6))
    # Each comes from a source that has it.
    for row, source in zip(merged.rows.tolist(), merged.sources.tolist(), strict=True):
        assert row in lists[source]
    # Each source gets at least its quota's places, as far as it can fill them with rows of its own.
    for source, (rows, places) in enumerate(zip(lists, split_quotas(quotas, n), strict=True)):
        others = {row for other, rows in enumerate(lists) if other != source for row in rows.tolist()}
        own = [row for row in rows.tolist() if row not in others]
        assert np.count_nonzero(merged.sources == source) >= min(places, len(own))


def test_quotas_decide_who_gets_in_and_ranks_decide_the_order():
    lists = [np.array([1, 2, 3, 4]), np.array([9, 2, 8])]
    merged = merge(lists, [0.5, 0.5], 4)
    # 2 stands in both lists, so it comes first, under the first source that took it.
    assert merged.rows.tolist() == [2, 1, 9, 8]
    assert merged.sources.tolist() == [0, 0, 1, 1]


def test_places_left_over_go_to_the_others():
    merged = merge([np.array([], dtype=np.int64), np.array([5, 6, 7])], [0.9, 0.1], 3)
    assert merged.rows.tolist() == [5, 6, 7]
    assert merged.sources.tolist() == [1, 1, 1]


def test_no_lists_at_all():
    assert merge([], [], 10).rows.tolist() == []


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20), st.booleans())
def test_included_items_are_ranked_by_the_sources_that_have_an_opinion(values, second):
    column = np.array(values, dtype=np.float32)
    scores = rank_included([column, column if second else None, None], [0.5, 0.3, 0.2], len(column))
    assert np.all((scores > 0) & (scores <= 1))
    # The same order as the column's, equal where it is equal.
    assert np.array_equal(np.sign(np.subtract.outer(scores, scores)), np.sign(np.subtract.outer(column, column)))


def test_without_any_opinion_included_items_are_equal():
    assert rank_included([None, None], [0.5, 0.5], 3).tolist() == pytest.approx([1, 1, 1])
