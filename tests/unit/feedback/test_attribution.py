from typing import Any

import pytest

from services.feedback.attribution import Attribution, AttributionRules, Labels, Outcome, ShownItem, attribute
from services.feedback.config import FeedbackSettings
from services.feedback.records import Feedback
from services.runtime.scenario import EVENT_NUMBERS, ScenarioHead

HEAD = ScenarioHead.model_validate(
    {
        "description": "films",
        "events": ["view", "click", "play", "rating", "dismiss"],
        "tasks": {
            "click": {"events": ["click", "play", "rating"]},
            "conversion": {"events": ["rating"], "min_value": 4},
            "rating": {"events": ["rating"], "min": 1, "max": 5},
        },
    }
)
RULES = AttributionRules(HEAD, FeedbackSettings(attribution_window_s=100, attribution_windows_s={"rating": 1000}))
NOTHING = Labels(False, False, 0.0)
SERVED_MS = 1_000_000


class Shown:
    """Answers by request_id: (user, item) to the item as shown."""

    def __init__(self, closed: tuple[str, ...] = (), **answers: dict[tuple[str, str], ShownItem]) -> None:
        self._closed = closed
        self._answers = answers

    def has_answer(self, request_id: str) -> bool:
        return request_id in self._answers or request_id in self._closed

    def is_closed(self, request_id: str) -> bool:
        return request_id in self._closed

    def in_answer(self, request_id: str, user_id: str, item_id: str) -> ShownItem | None:
        return self._answers.get(request_id, {}).get((user_id, item_id))

    def newest(self, user_id: str, item_id: str, until_ms: int) -> ShownItem | None:
        found = [answer[user_id, item_id] for answer in self._answers.values() if (user_id, item_id) in answer]
        served = [shown for shown in found if shown.served_time_ms <= until_ms]
        return max(served, key=lambda shown: shown.served_time_ms, default=None)


def shown(offset: int, served_ms: int = SERVED_MS, labels: Labels = NOTHING) -> ShownItem:
    return ShownItem(offset, 2, served_ms, "m1", "ann", labels)


def event(kind: str = "click", after_s: float = 10, **fields: Any) -> Feedback:
    time_ms = SERVED_MS + int(after_s * 1000)
    plain = Feedback("e1", "anna", "alien", EVENT_NUMBERS[kind], time_ms, None, "", None)
    return plain._replace(**fields)


ANNA = ("anna", "alien")


def test_a_named_answer_wins_over_a_newer_one() -> None:
    items = Shown(old={ANNA: shown(1)}, new={ANNA: shown(2, SERVED_MS + 5_000)})
    expected = Attribution(Outcome.ATTRIBUTED, shown(1), Labels(True, False, 0.0))
    assert attribute(event(request_id="old"), RULES, items, may_wait=True) == expected


def test_without_a_name_the_newest_answer_before_the_event_counts() -> None:
    items = Shown(a={ANNA: shown(1)}, b={ANNA: shown(2, SERVED_MS + 5_000)}, c={ANNA: shown(3, SERVED_MS + 60_000)})
    found = attribute(event(), RULES, items, may_wait=True)
    assert found.shown is not None
    assert found.shown.answer_offset == 2


@pytest.mark.parametrize("named", ["other_user", "other_item"])
def test_a_named_answer_that_does_not_fit_gives_way_to_the_newest(named: str) -> None:
    items = Shown(fits={ANNA: shown(1)}, other_user={("bert", "alien"): shown(2)}, other_item={("anna", "x"): shown(3)})
    found = attribute(event(request_id=named), RULES, items, may_wait=True)
    assert found.shown == shown(1)


def test_a_named_answer_that_is_not_here_is_waited_for() -> None:
    items = Shown(older={ANNA: shown(1)})
    assert attribute(event(request_id="coming"), RULES, items, may_wait=True) == Attribution(Outcome.WAITING)
    assert attribute(event(request_id="coming"), RULES, items, may_wait=False).shown == shown(1)


def test_an_event_that_names_a_closed_answer_is_late_unless_another_fits() -> None:
    closed = Shown(closed=("r1",))
    assert attribute(event(request_id="r1"), RULES, closed, may_wait=True) == Attribution(Outcome.LATE)
    both = Shown(closed=("r1",), newer={ANNA: shown(2)})
    assert attribute(event(request_id="r1"), RULES, both, may_wait=True).shown == shown(2)


def test_an_answer_stays_open_as_long_as_anything_can_label_it() -> None:
    settings = FeedbackSettings(
        attribution_window_s=100, attribution_windows_s={"rating": 1000}, late_arrival_s=50, impression_wait_s=7
    )
    assert AttributionRules(HEAD, settings).close_after_ms == 1_057_000


def test_an_event_of_an_item_never_shown_waits_and_is_then_an_orphan() -> None:
    assert attribute(event(), RULES, Shown(), may_wait=True) == Attribution(Outcome.WAITING)
    assert attribute(event(), RULES, Shown(), may_wait=False) == Attribution(Outcome.ORPHAN)


@pytest.mark.parametrize(
    ("kind", "after_s", "outcome"),
    [
        ("click", 100, Outcome.ATTRIBUTED),
        ("click", 100.001, Outcome.LATE),
        ("rating", 1000, Outcome.ATTRIBUTED),
        ("rating", 1000.001, Outcome.LATE),
    ],
)
def test_each_kind_has_its_window(kind: str, after_s: float, outcome: Outcome) -> None:
    items = Shown(r={ANNA: shown(1)})
    assert attribute(event(kind, after_s, value=4.0), RULES, items, may_wait=True).outcome is outcome


def test_a_clock_that_runs_behind_does_not_lose_a_named_answer() -> None:
    items = Shown(r={ANNA: shown(1)})
    assert attribute(event(after_s=-2, request_id="r"), RULES, items, may_wait=True).outcome is Outcome.ATTRIBUTED
    assert attribute(event(after_s=-2), RULES, items, may_wait=True).outcome is Outcome.WAITING


@pytest.mark.parametrize(
    ("kind", "value", "labels"),
    [
        ("click", None, Labels(True, False, 0.0)),
        ("play", 30.0, Labels(True, False, 0.0)),
        ("rating", 3.5, Labels(True, False, 3.5)),
        ("rating", 4.0, Labels(True, True, 4.0)),
        ("rating", None, Labels(True, False, 0.0)),
        ("rating", 9.0, Labels(True, True, 0.0)),
        ("view", None, NOTHING),
        ("dismiss", None, NOTHING),
    ],
)
def test_what_an_event_says(kind: str, value: float | None, labels: Labels) -> None:
    assert RULES.labels(event(kind, value=value)) == labels


def test_kinds_of_no_task_are_unlabelled_even_where_the_item_was_shown() -> None:
    assert attribute(event("dismiss"), RULES, Shown(r={ANNA: shown(1)}), may_wait=True).outcome is Outcome.UNLABELLED


def test_labels_add_up_and_a_later_rating_replaces_an_earlier_one() -> None:
    items = Shown(r={ANNA: shown(1, labels=Labels(True, True, 5.0))})
    again = attribute(event("rating", value=2.0), RULES, items, may_wait=True)
    assert again.labels == Labels(True, True, 2.0)
    assert attribute(event("click"), RULES, items, may_wait=True) == Attribution(Outcome.REPEATED)


def test_a_scenario_with_clicks_only_has_no_other_labels() -> None:
    head = HEAD.model_copy(update={"tasks": HEAD.tasks.model_copy(update={"conversion": None, "rating": None})})
    rules = AttributionRules(head, FeedbackSettings())
    assert rules.labels(event("rating", value=5.0)) == Labels(True, False, 0.0)
    assert rules.window_ms(EVENT_NUMBERS["purchase"]) == 0
