"""What an experiment's variants have earned, against the same counted from the shown items one by one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.feedback.attribution import AttributionRules
from services.feedback.config import FeedbackSettings
from services.feedback.example_store import CounterKey, ExampleStore
from services.feedback.records import Feedback, Impression, LogRecord, Team
from services.feedback.variant_totals import InterleavingCounts, VariantCounts
from services.runtime.scenario import EVENT_NUMBERS, TaskSettings
from tests.unit.feedback.test_attribution import HEAD
from tests.unit.feedback.test_example_store import NOW, log_of

# A conversion may come without a click.
_TASKS = HEAD.tasks.model_copy(update={"click": TaskSettings(events=["click"])})
RULES = AttributionRules(
    HEAD.model_copy(update={"tasks": _TASKS}), FeedbackSettings(attribution_window_s=100, impression_wait_s=60)
)
EMPTY = InterleavingCounts(0, 0, 0, 0, 0, 0, 0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ExampleStore]:
    store = ExampleStore(tmp_path, RULES)
    yield store
    store.close()


def shown(request_id: str, user_id: str, variant: str, teams: tuple[int, ...] = (), count: int = 3) -> Impression:
    items = ["a", "b", "c"][:count]
    plain = Impression(request_id, user_id, NOW, items, [0.5] * count, [1.0] * count, ["ann"] * count, "m1", 3)
    return plain._replace(experiment="e-1" if variant else "", variant=variant, teams=teams)


def did(event_id: str, user_id: str, item_id: str, request_id: str, kind: str, value: float | None = None) -> Feedback:
    return Feedback(event_id, user_id, item_id, EVENT_NUMBERS[kind], NOW + 1, value, request_id, None)


def click(event_id: str, user_id: str, item_id: str, request_id: str) -> Feedback:
    return did(event_id, user_id, item_id, request_id, "click")


def counts(store: ExampleStore) -> dict[str, VariantCounts]:
    return {variant.variant: variant for variant in store.variant_counts("e-1")[0]}


def test_sums_and_squares_are_over_users(store: ExampleStore) -> None:
    records: list[Impression | Feedback] = [
        shown("r1", "anna", "bold"),
        shown("r2", "anna", "bold"),
        shown("r3", "bert", "bold"),
        shown("r4", "carl", "control"),
        shown("r5", "dora", ""),
        click("e1", "anna", "a", "r1"),
        click("e2", "anna", "b", "r2"),
        click("e3", "anna", "b", "r2"),
        click("e4", "dora", "a", "r5"),
    ]
    store.apply(log_of(*records), NOW)
    found = counts(store)
    assert found["bold"] == VariantCounts("bold", 2, 1, 9, 2, 0, 45, 4, 0, 12, 0)
    assert found["control"] == VariantCounts("control", 1, 0, 3, 0, 0, 9, 0, 0, 0, 0)
    assert set(found) == {"bold", "control"}
    assert store.variant_counts("e-2") == ([], EMPTY)
    assert store.counts[CounterKey("variant_impressions", "e-1", "bold")] == 9
    assert store.counts[CounterKey("variant_clicks", "e-1", "bold")] == 2
    assert store.counts[CounterKey("variant_clicks", "e-1", "control")] == 0


def test_the_winner_of_an_interleaved_answer_changes_with_its_clicks(store: ExampleStore) -> None:
    teams = (Team.FIRST, Team.SECOND, Team.NEITHER)
    store.apply(log_of(shown("r1", "anna", "bold", teams)), NOW)

    def after(offset: int, item_id: str) -> tuple[int, int, int]:
        store.apply(log_of(click(f"e{offset}", "anna", item_id, "r1"), start=offset), NOW)
        return store.variant_counts("e-1")[1][:3]

    assert store.variant_counts("e-1")[1] == InterleavingCounts(0, 0, 1, 0, 0, 0, 0)
    assert after(2, "c") == (0, 0, 1)
    assert after(3, "b") == (0, 1, 0)
    assert after(4, "a") == (0, 0, 1)
    # What is shared says nothing for the variant alone.
    assert counts(store)["bold"][1:] == (0,) * 10
    assert CounterKey("variant_impressions", "e-1", "bold") not in store.counts


def test_a_user_who_changed_variants_is_one_user_of_the_interleaving(store: ExampleStore) -> None:
    teams = (Team.FIRST, Team.SECOND)
    records: list[Impression | Feedback] = [
        shown("r1", "anna", "bold", teams, 2),
        shown("r2", "anna", "control", teams, 2),
        click("e1", "anna", "a", "r1"),
        click("e2", "anna", "b", "r2"),
    ]
    store.apply(log_of(*records), NOW)
    assert store.variant_counts("e-1")[1] == InterleavingCounts(1, 1, 0, 1, 1, 2, 4)


def test_a_conversion_counts_with_its_click_alone(store: ExampleStore) -> None:
    store.apply(log_of(shown("r1", "anna", "bold"), did("e1", "anna", "a", "r1", "rating", 5)), NOW)
    example = store.page((0, 0), NOW * 2, 10).examples[0]
    assert (example.clicked, example.converted) == (False, True)
    assert (example.experiment, example.variant) == ("e-1", "bold")
    assert counts(store)["bold"].conversion_count == 0
    store.apply(log_of(click("e2", "anna", "a", "r1"), start=3), NOW)
    assert counts(store)["bold"].conversion_count == 1
    assert counts(store)["bold"].conversion_click_products == 1


def test_erasing_a_user_leaves_nothing_of_them(store: ExampleStore) -> None:
    store.apply(log_of(shown("r1", "anna", "bold"), shown("r2", "bert", "bold"), click("e1", "anna", "a", "r1")), NOW)
    store.delete_user("anna")
    assert counts(store)["bold"] == VariantCounts("bold", 1, 0, 3, 0, 0, 9, 0, 0, 0, 0)
    assert store.counts[CounterKey("variant_impressions", "e-1", "bold")] == 6, "counters name nobody and stay"


def test_a_user_goes_with_the_last_answer_that_retention_removes(store: ExampleStore) -> None:
    store.apply(log_of(shown("r1", "anna", "bold"), shown("r2", "bert", "bold"), shown("r3", "anna", "bold")), NOW)
    store.remove_until(2, 100)
    assert counts(store)["bold"].user_count == 1
    store.remove_until(3, 100)
    assert counts(store) == {}


@dataclass
class Reference:
    """Users' totals, counted again from the examples."""

    shown: dict[tuple[str, str], int] = field(default_factory=dict)
    clicked: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, store: ExampleStore) -> "Reference":
        found = cls()
        for example in store.page((0, 0), NOW * 2, 1_000).examples:
            if example.variant:
                key = example.variant, example.user_id
                found.shown[key] = found.shown.get(key, 0) + 1
                found.clicked[key] = found.clicked.get(key, 0) + example.clicked
        return found

    def counts(self, variant: str) -> tuple[int, ...]:
        rows = [(m, self.clicked[key]) for key, m in self.shown.items() if key[0] == variant]
        return (
            len(rows), sum(m for m, _ in rows), sum(c for _, c in rows), sum(m * m for m, _ in rows),
            sum(c * c for _, c in rows), sum(m * c for m, c in rows),
        )  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answers=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["bold", "control", ""])), max_size=6),
    clicks=st.lists(st.tuples(st.integers(0, 5), st.sampled_from("abc")), max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_whatever_comes_in_whatever_order_the_sums_are_those_of_the_shown_items(
    tmp_path_factory: pytest.TempPathFactory, answers, clicks, order
) -> None:
    records: list[Impression | Feedback] = [
        shown(f"r{number}", user, variant) for number, (user, variant) in enumerate(answers)
    ]
    records += [
        click(f"e{number}", answers[place][0], item, f"r{place}")
        for number, (place, item) in enumerate(clicks)
        if place < len(answers)
    ]
    order.shuffle(records)
    store = ExampleStore(tmp_path_factory.mktemp("totals"), RULES)
    try:
        if records:
            store.apply([LogRecord(offset, record) for offset, record in enumerate(records, 1)], NOW)
        reference = Reference.of(store)
        for variant, found in counts(store).items():
            sums = (
                found.user_count, found.impression_count, found.click_count, found.impression_squares,
                found.click_squares, found.click_impression_products,
            )  # fmt: skip
            assert sums == reference.counts(variant)
            # /metrics tells the same sums.
            told = (
                "users",
                "impressions",
                "clicks",
                "impression_squares",
                "click_squares",
                "click_impression_products",
            )
            assert sums == tuple(store.counts[CounterKey(f"variant_{name}", "e-1", variant)] for name in told)
        assert set(counts(store)) == {variant for variant, _ in reference.shown}
    finally:
        store.close()
