"""One page that holds an evaluation: no network, no other file, readable on a phone, in the light and in the dark."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.cli.report import plots
from services.cli.report.environment import page_environment
from services.runtime.bundle import MetricRow
from services.training.ablate import Ablation
from services.training.checkpoints import StepLog
from services.training.evaluation import FULL, Evaluation, best_baseline
from services.training.few_shot import FewShotPoint
from services.training.paired import FIGURE_TITLES
from services.training.reliability import Reliability

_TEMPLATE = "report.html.j2"
_METRIC, _METRIC_TITLE = "ndcg@10", "NDCG@10"
ABLATION_COLUMNS = {
    ("all", "ndcg@10"): "NDCG@10",
    ("cold_items", "ndcg@10"): "cold items",
    ("cold_items_among_cold", "ndcg@10"): "cold among cold",
    ("all", "auc"): "AUC",
}
"""(slice, metric) → title of an ablation's columns."""


@dataclass(frozen=True)
class Report:
    """What the page tells."""

    facts: Mapping[str, str]
    """Scenario, model version, split, machine and so on, in order."""
    found: Evaluation
    findings: Sequence[str]
    """The whole model against the best baselines, in words."""
    slices: Mapping[str, str]
    """Titles of the slices."""
    columns: Mapping[str, str]
    """Metric → title of the tables' columns."""
    settings: Mapping[str, Any]
    """The model's training settings."""
    logs: Mapping[str, StepLog] = field(default_factory=dict)
    """How the model's training steps went."""
    reliability: Sequence[Reliability] = ()
    few_shot: Sequence[FewShotPoint] = ()
    ablation: Ablation | None = None


@dataclass(frozen=True)
class _Table:
    """The figures of one slice."""

    name: str
    title: str
    queries: int
    columns: Mapping[str, str]
    methods: Sequence[str]
    found: Evaluation

    def row(self, method: str, metric: str) -> MetricRow | None:
        """One cell."""
        return self.found.row(method, self.name, metric)


def render(report: Report) -> str:
    """The page as HTML that is XML, too."""
    parts = {
        "tables": _tables(report),
        "forests": _forests(report),
        "cold_start": _cold_start(report),
        "diagrams": [(found, plots.reliability_diagram(found)) for found in report.reliability],
        "curves": [
            (step, log, plots.learning_curve(step, log)) for step, log in report.logs.items() if len(log.rounds) > 1
        ],
        "few_shot": _few_shot(report.few_shot),
        "ablation": _ablation(report.ablation),
    }
    titles = {
        "tables": ("tables", "Figures"),
        "forests": ("differences", "Differences"),
        "cold_start": ("cold-start", "Cold start"),
        "diagrams": ("calibration", "Calibration"),
        "curves": ("learning", "Learning curves"),
        "few_shot": ("few-shot", "Few users"),
        "ablation": ("ablation", "Ablation"),
    }
    return (
        page_environment()
        .get_template(_TEMPLATE)
        .render(
            full=FULL,
            facts=report.facts,
            findings=report.findings,
            sections=[*(title for name, title in titles.items() if parts[name]), ("settings", "Settings")],
            baseline_settings=report.found.settings,
            settings=json.dumps(report.settings, indent=2),
            **parts,
        )
    )


def _tables(report: Report) -> list[_Table]:
    methods = list(dict.fromkeys(row.method for row in report.found.rows if row.metric == _METRIC))
    return [
        _Table(name, report.slices.get(name, name), count, report.columns, methods, report.found)
        for name, count in report.found.query_counts.items()
    ]


def _forests(report: Report) -> list[tuple[str, str]]:
    forests = []
    for name in report.found.query_counts:
        rows = [row for row in report.found.differences if (row.slice, row.metric) == (name, _METRIC)]
        if rows:
            svg = plots.forest(f"forest {name}", rows, True, f"{_METRIC_TITLE} of {FULL} − baseline")
            forests.append((svg, f"{report.slices.get(name, name)}."))
    return forests


def _cold_start(report: Report) -> str | None:
    """Of the whole model and the best baseline of each slice: more lines could not be told apart."""
    rows = [row for row in report.found.curves if (row.axis, row.metric) == ("item_train_events", _METRIC)]
    best = [best_baseline(report.found.rows, name, _METRIC) for name in report.found.query_counts]
    there = {row.method for row in rows}
    methods = [name for name in dict.fromkeys([FULL, *best]) if name is not None and name in there]
    return plots.cold_start(rows, methods) if rows else None


def _few_shot(points: Sequence[FewShotPoint]) -> dict[str, Any] | None:
    if not points:
        return None
    return {
        "points": points,
        "methods": list(dict.fromkeys(row.method for point in points for row in point.rows)),
        "metrics": FIGURE_TITLES,
        "plots": [
            (plots.few_shot(points, metric, title), f"{title} by the number of training users.")
            for metric, title in FIGURE_TITLES.items()
        ],
    }


def _ablation(found: Ablation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    measured = {
        (name, metric): title
        for (name, metric), title in ABLATION_COLUMNS.items()
        if any((row.slice, row.metric) == (name, metric) for row in found.rows)
    }
    return {
        "found": found,
        "columns": measured,
        "plots": [
            (plots.ablation_forest(found, name, metric, f"{title}: variant − base"), f"{title}, with 95 % intervals.")
            for (name, metric), title in measured.items()
            if any((row.slice, row.metric) == (name, metric) for row in found.differences)
        ],
    }
