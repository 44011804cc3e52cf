import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from services.ranking.answer_metrics import AnswerMetrics, category_diversity
from services.ranking.dependencies import ItemInfo, Rung
from services.ranking.page import Page, PageItem

LABELS = {"scenario": "video", "model_version": "v1"}


def page(*clicks: float | None, category: str = "drama", reasons: tuple[str, ...] = ()) -> Page:
    items = [
        PageItem(ItemInfo(f"i{n}", categories=(category,)), 0.5, click, None, None, "vector", "", 1.0, 0.5)
        for n, click in enumerate(clicks)
    ]
    return Page(items, Rung.SCORER, list(reasons), "v1", 1, 50, None, 0)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_only_what_was_shown_and_predicted_counts_for_calibration(registry):
    metrics = AnswerMetrics(registry)
    metrics.observe("video", page(0.5, 0.25, None), 0.01, 0.3, shown=True)
    metrics.observe("video", page(0.9), 0.01, 0.3, shown=False)
    assert registry.get_sample_value("recmesh_ranking_shown_click_probability_sum", LABELS) == 0.75
    assert registry.get_sample_value("recmesh_ranking_shown_click_probability_count", LABELS) == 2
    assert registry.get_sample_value("recmesh_ranking_answer_seconds_count", LABELS) == 2


def test_late_is_longer_than_the_deadline_and_begins_at_0(registry):
    metrics = AnswerMetrics(registry)
    metrics.start("video")

    def late() -> float | None:
        return registry.get_sample_value("recmesh_ranking_late_answers_total", {"scenario": "video"})

    assert late() == 0
    metrics.observe("video", page(0.5), 0.3, 0.3, shown=True)
    assert late() == 0
    metrics.observe("video", page(0.5), 0.31, 0.3, shown=True)
    assert late() == 1


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [((), 0), (("user_unknown",), 0), (("user_unknown", "scoring_too_slow"), 1), (("feature_failed", "x"), 1)],
)
def test_an_answer_is_degraded_once_and_not_by_a_new_user(registry, reasons, expected):
    metrics = AnswerMetrics(registry)
    metrics.start("video")
    metrics.observe("video", page(0.5, reasons=reasons), 0.1, 0.3, shown=True)
    assert registry.get_sample_value("recmesh_ranking_degraded_answers_total", {"scenario": "video"}) == expected


def test_diversity_is_the_share_of_pairs_that_differ():
    assert category_diversity([("a",), ("a",), ("b",)]) == pytest.approx(2 / 3)
    assert category_diversity([("a",), ("b",)]) == 1
    assert category_diversity([("a",), ("a",)]) == 0
    assert category_diversity([("a",)]) is None
    assert category_diversity([]) is None


@given(st.lists(st.sampled_from([("a",), ("b",), ("c",), ()]), min_size=2, max_size=12))
def test_diversity_agrees_with_counting_pairs(categories):
    pairs = [(one, other) for place, one in enumerate(categories) for other in categories[:place]]
    expected = sum(one != other for one, other in pairs) / len(pairs)
    assert category_diversity(categories) == pytest.approx(expected)
