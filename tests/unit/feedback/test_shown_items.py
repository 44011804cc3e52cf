from services.feedback.records import Feedback, Impression, LogRecord
from services.feedback.shown_items import WINDOW_S, ShownItemCount

NOW = 1_700_000_000_000


def shown(*item_ids: str, served_ms: int = NOW) -> LogRecord:
    ones = [1.0] * len(item_ids)
    return LogRecord(1, Impression("r", "anna", served_ms, list(item_ids), ones, ones, ["ann"] * len(ones), "m1", 3))


def test_an_item_counts_once_and_for_a_day():
    time = 0.0
    count = ShownItemCount(clock=lambda: time)
    count.add([shown("a", "b"), shown("b", "c"), LogRecord(2, Feedback("e", "anna", "x", 2, NOW, None, "", None))], NOW)
    assert count.count == 3
    time = WINDOW_S / 2
    count.add([shown("a")], NOW)
    time = WINDOW_S + 1.0
    assert count.count == 1, "a was shown again since"


def test_a_log_read_from_its_beginning_does_not_count_as_today():
    count = ShownItemCount()
    count.add([shown("old", served_ms=NOW - 1000 * WINDOW_S), shown("new")], NOW)
    assert count.count == 1


def test_memory_is_bounded():
    count = ShownItemCount(capacity=2)
    count.add([shown("a", "b", "c")], NOW)
    assert count.count == 2
