"""The page about simulated users: well formed, complete, and labelled as simulated in every part."""

import re
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from services.cli.report.simulated import render_simulation

RATE = {"shown": 1000, "clicked": 50, "ctr": 0.05}
NOTHING = {"shown": 0, "clicked": 0, "ctr": None}
COUNTS = {"sent": 1234, "logged": 1234, "joined": 1233, "exported": 1234}
SUMMARY: dict[str, Any] = {
    "scenario": "films & <more>", "model_version": "v2", "run_id": "20260101-000000-abcdef", "seed": 7, "users": 3,
    "people": 2, "answers": 100, "seconds": 60.0, "requests_per_second": 1.7, "counts": COUNTS, "events": COUNTS,
    "agree": False, "logged_without_acknowledgement": {"impressions": 10, "events": 4},
    "errors": {"Recommend": {"UNAVAILABLE": 5}, "RecordFeedback": {}}, "unacknowledged_events": 0,
    "degraded_answers": 8, "degraded_reasons": {"scoring_unavailable": 8}, "rungs": {"scorer": 92, "retrieval": 8},
    "empty_answers": 0, "latency_ms": {"p50": 12.34}, "grouped_by": "model_version", "ctr": RATE,
    "ctr_by_group": {"": NOTHING, "v1": RATE, "v2": RATE}, "ctr_by_position": [RATE, NOTHING],
    "ctr_over_time": [
        {"from_s": 0.0, "to_s": 30.0, "groups": {"": NOTHING, "v1": RATE, "v2": NOTHING}},
        {"from_s": 30.0, "to_s": 60.0, "groups": {"": NOTHING, "v1": RATE, "v2": RATE}},
    ],
    "ctr_lift": {"value": 0.1, "low": -0.05, "high": None},
    "ctr_lift_of": {"arm": "v2", "control": "v1", "alpha": 0.05},
    "kills": {
        "recovered": True, "answerless_while_ranking_served": 0,
        "killed": [{"process": "nats", "pid": 1, "new_pid": 2, "at_s": 3.0, "whole_after_s": 4.5}],
    },
    "settings": {"page_size": 10}, "machine": "a processor, 2 cores",
}  # fmt: skip


@pytest.fixture(scope="module", name="page")
def _page() -> str:
    return render_simulation(SUMMARY)


def test_every_part_says_simulated(page: str) -> None:
    root = ET.fromstring(page)
    headings = [element.text or "" for element in root.iter() if element.tag in ("title", "h1", "h2")]
    assert len(headings) == 7
    assert all("simulated" in text for text in headings)
    captions = [element.text or "" for element in root.iter("figcaption")]
    assert len(captions) == 2
    assert all("simulated" in text for text in captions)


def test_it_holds_the_figures_and_needs_nothing_else(page: str) -> None:
    text = "".join(ET.fromstring(page).itertext())
    for expected in (
        "1,234", "1,233", "The counts differ", "UNAVAILABLE 5", "scoring_unavailable 8", "p50 12.3 ms", "5.00%",
        "v2 over v1", "+10.0%", "-5.0% to unbounded", "95.00%", "10 shown items", "4 events", "nats", "4.5",
    ):  # fmt: skip
        assert expected in " ".join(text.split()), expected
    assert "films &amp; &lt;more&gt;" in page
    assert not re.search(r"<(?:script|link|img|iframe|object)\b|@import|url\((?!#)", page)


def test_a_run_without_an_answer_has_a_page() -> None:
    changes = {
        "answers": 0, "latency_ms": None, "rungs": {}, "ctr": NOTHING, "ctr_by_group": {}, "ctr_by_position": [],
        "ctr_over_time": [], "ctr_lift": None, "ctr_lift_of": None, "kills": None,
    }  # fmt: skip
    page = render_simulation(SUMMARY | changes)
    assert "never answered" in page
    assert not list(ET.fromstring(page).iter("{http://www.w3.org/2000/svg}svg"))
