"""How good answers are, as far as ranking can see it: in time, by version, how likely a click, how varied."""

from collections import Counter as CountOf

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

from services.ranking.page import Page
from services.runtime.metrics import LATENCY_BUCKETS_S
from services.runtime.tracing import exemplar

# Reasons that lie in the user and not in the mesh.
_USERS_OWN = frozenset({"user_unknown", "history_unknown"})


class AnswerMetrics:
    """Per scenario; model versions are those that answered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "recmesh_ranking_answer_seconds",
            "Time Recommend took to make an answer, by the model version that it came from.",
            ["scenario", "model_version"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._late = Counter(
            "recmesh_ranking_late_answers_total",
            "Answers of Recommend that took longer than the scenario's ranking.deadline_ms.",
            ["scenario"],
            registry=registry,
        )
        self._degraded = Counter(
            "recmesh_ranking_degraded_answers_total",
            "Answers of Recommend with a degraded reason other than that the user or the history is unknown.",
            ["scenario"],
            registry=registry,
        )
        self._click_probability = Summary(
            "recmesh_ranking_shown_click_probability",
            "Predicted click probability of the items whose impression was logged; its mean over CTR is calibration.",
            ["scenario", "model_version"],
            registry=registry,
        )
        self._diversity = Summary(
            "recmesh_ranking_category_diversity_ratio",
            "Probability that two items of an answer differ in their first category.",
            ["scenario"],
            registry=registry,
        )

    def start(self, scenario: str) -> None:
        """Nothing late or degraded is a count of 0 and not an unknown one."""
        self._late.labels(scenario)
        self._degraded.labels(scenario)

    def observe(self, scenario: str, page: Page, seconds: float, deadline_s: float, shown: bool) -> None:
        """One answer of Recommend; `shown`: its impression was logged."""
        self._seconds.labels(scenario, page.model_version).observe(seconds, exemplar())
        if seconds > deadline_s:
            self._late.labels(scenario).inc()
        if not _USERS_OWN.issuperset(page.reasons):
            self._degraded.labels(scenario).inc()
        if shown:
            probability = self._click_probability.labels(scenario, page.model_version)
            for entry in page.items:
                if entry.click is not None:
                    probability.observe(entry.click)
        diversity = category_diversity([entry.item.categories[:1] for entry in page.items])
        if diversity is not None:
            self._diversity.labels(scenario).observe(diversity)


def category_diversity(categories: list[tuple[str, ...]]) -> float | None:
    """Share of the pairs of items that differ in their first category (Simpson's index, without replacement).

    One entry per item, empty where the item has none; None for fewer than two items.
    """
    count = len(categories)
    if count < 2:
        return None
    equal_pairs = sum(n * (n - 1) for n in CountOf(categories).values())
    return 1 - equal_pairs / (count * (count - 1))
