"""A run's tables say that they are simulated, whatever happened in it."""

import io
from typing import Any

from rich.console import Console

from services.cli.simulation.report import print_summary

COUNTS = {"sent": 20, "logged": 20, "joined": 20, "exported": 20}
RATE = {"shown": 20, "clicked": 1, "ctr": 0.05}
SUMMARY: dict[str, Any] = {
    "answers": 2, "users": 2, "people": 1, "requests_per_second": 1.5, "seed": 7, "run_id": "20260101-000000-abcdef",
    "counts": COUNTS, "events": COUNTS | {"logged": 19}, "errors": {"Recommend": {"UNAVAILABLE": 3}},
    "unacknowledged_events": 4, "degraded_answers": 1, "degraded_reasons": {"scoring_slow": 1}, "rungs": {"scorer": 2},
    "latency_ms": {"p50": 5.0}, "logged_without_acknowledgement": {"impressions": 10, "events": 0},
    "grouped_by": "model_version", "ctr": RATE, "ctr_by_group": {"": RATE, "v1": RATE}, "ctr_by_position": [RATE],
    "ctr_lift": None, "ctr_lift_of": None, "kills": None,
}  # fmt: skip


def printed(**changes: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_summary(SUMMARY | changes, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_line_outside_a_table_says_simulated() -> None:
    lines = printed().splitlines()
    assert all("simulated" in line for line in lines if line[0].isalnum())
    assert sum("simulated" in line for line in lines) >= 7
    assert any("NO" in line for line in lines)
    assert "UNAVAILABLE 3" in printed()
    assert "10 shown items" in printed()


def test_a_lift_is_told_with_its_interval() -> None:
    arms = {"arm": "v2", "control": "v1", "alpha": 0.05}
    assert "lift of v2 over v1: +10.0% (-5.0% to unbounded" in printed(
        ctr_lift={"value": 0.1, "low": -0.05, "high": None}, ctr_lift_of=arms
    )
    assert "v1 has no click" in printed(ctr_lift_of=arms)


def test_without_an_answer_there_is_no_latency() -> None:
    text = printed(latency_ms=None, rungs={}, ctr={"shown": 0, "clicked": 0, "ctr": None})
    assert "never answered" in text


def test_kills_are_told_with_what_came_of_them() -> None:
    killed = {"process": "ranking", "pid": 41, "new_pid": None, "at_s": 3.0, "whole_after_s": None}
    text = printed(kills={"recovered": False, "answerless_while_ranking_served": 0, "killed": [killed]})
    assert "simulated" in next(line for line in text.splitlines() if "kill -9" in line)
    assert "ranking" in text
    assert "never" in text
