"""Measurements of the loop → figures → JSON and a table. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from services.cli.bench.loop_measure import LoopMeasurements
from services.cli.bench.report import percentiles

_NAMES = {
    "loop_ms": "RecordFeedback acknowledged → Recommend reflects it",
    "feature_lag_ms": "RecordFeedback acknowledged → GetUserFeatures shows it",
    "record_feedback_ms": "RecordFeedback sent → acknowledged",
    "recommend_ms": "Recommend, user at rest",
}


def summarise(measured: LoopMeasurements) -> dict[str, Any]:
    """All figures. ValueError when no user could be measured."""
    if not measured.acknowledged_ms:
        raise ValueError(f"no user could be measured: {dict(measured.left_out)}")
    return {
        "samples": len(measured.reflected_ms),
        "not_reflected": measured.not_reflected,
        "left_out": dict(measured.left_out),
        "loop_ms": _figures(measured.reflected_ms),
        "feature_lag_ms": _figures(measured.feature_ms),
        "record_feedback_ms": _figures(measured.acknowledged_ms),
        "recommend_ms": _figures(measured.recommend_ms),
        "answers_per_click": round(sum(measured.polls) / len(measured.polls), 2) if measured.polls else None,
    }


def _figures(times: Sequence[float]) -> dict[str, float] | None:
    return percentiles(times) | {"max": round(max(times), 3)} if times else None


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """The figures as a table."""
    table = Table("simulated users", "p50 ms", "p95 ms", "p99 ms", "max ms")
    for name, title in _NAMES.items():
        figures = summary[name] or {}
        table.add_row(title, *(f"{figures[q]:.1f}" if q in figures else "–" for q in ("p50", "p95", "p99", "max")))
    console.print(table)
    left_out = ", ".join(f"{reason} {count}" for reason, count in summary["left_out"].items()) or "none"
    console.print(
        f"{summary['samples']} simulated clicks reflected, {summary['not_reflected']} not; users left out: {left_out}",
        highlight=False,
    )
