"""The HTML report: one well-formed file that needs nothing else and holds the evaluation's figures."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from services.cli.report.render import Report, render
from services.runtime.bundle import MetricRow
from services.training.ablate import Ablation, VariantRun
from services.training.checkpoints import StepLog
from services.training.evaluate import evaluate_methods
from services.training.evaluation import DifferenceRow
from services.training.few_shot import FewShotPoint
from services.training.reliability import reliability
from services.training.split import build_queries, temporal_split
from tests.unit.training.test_evaluate import Constant, Oracle, data_with_cold_items
from tests.unit.training.test_split import TASKS


def row(method: str, value: float, slice_name: str = "all", metric: str = "ndcg@10") -> MetricRow:
    return MetricRow(method=method, slice=slice_name, metric=metric, value=value, low=value - 0.01, high=value + 0.01)


def difference(method: str, baseline: str, value: float, metric: str = "ndcg@10") -> DifferenceRow:
    return DifferenceRow(baseline=baseline, **row(method, value, metric=metric).model_dump())


@pytest.fixture(scope="module", name="report")
def _report() -> Report:
    data = data_with_cold_items()
    split = temporal_split(data, TASKS)
    found = evaluate_methods([Constant(), Oracle()], build_queries(data, split, TASKS, "test"), split)
    generator = np.random.default_rng(0)
    return Report(
        facts={"scenario": "films & <more>", "model_version": "20260101-000000-tiny", "data_fingerprint": "abc123"},
        found=found,
        findings=["all: full is above constant"],
        slices={"all": "All queries"},
        columns={"ndcg@10": "NDCG@10", "mrr": "MRR"},
        settings={"seed": 7},
        logs={
            "language-model": StepLog(12.0, [{"round": n, "loss": 3.0 / n, "validation": -0.1 * n} for n in (1, 2, 3)]),
            "features": StepLog(3.0),
        },
        reliability=[
            reliability("click", "candidates", generator.random(200) < 0.02, generator.random(200) * 0.05),
            reliability("conversion", "items that came", generator.random(200) < 0.5, generator.random(200)),
        ],
        few_shot=[
            FewShotPoint(
                users=users, train_events=10 * users, validation_queries=5, test_queries=1234,
                rows=[row(name, 0.3, metric=metric) for name in ("full", "ease") for metric in ("auc", "ndcg@10")],
                differences=[difference("full", "ease", 0.02)], baseline_settings={},
            )
            for users in (16, 64)
        ],
        ablation=Ablation(
            variants=[
                VariantRun(name="base", says="as it is", seconds=10, queries=100),
                VariantRun(name="frozen", says="nothing learns", seconds=5, queries=100),
            ],
            rows=[row("base", 0.2718), row("frozen", 0.1414)],
            differences=[difference("frozen", "base", -0.1304)],
            left_out={"lora": "it is like that already"},
        ),
    )  # fmt: skip


@pytest.fixture(scope="module", name="page")
def _page(report: Report) -> str:
    return render(report)


def test_it_is_well_formed_and_complete(page: str, report: Report) -> None:
    root = ET.fromstring(page)
    assert root.tag == "html"
    links = {element.attrib["href"] for element in root.iter("a")}
    anchors = {f"#{element.attrib['id']}" for element in root.iter("h2")}
    assert links == anchors >= {
        "#tables", "#differences", "#cold-start", "#calibration", "#learning", "#few-shot", "#ablation", "#settings"
    }  # fmt: skip
    # A plot per slice's differences, the curve, two diagrams, one step with rounds, two few-shot figures, one ablation.
    drawings = list(root.iter("{http://www.w3.org/2000/svg}svg"))
    assert len(drawings) == len(report.found.query_counts) + 1 + 2 + 1 + 2 + 1
    assert "films &amp; &lt;more&gt;" in page


def test_it_needs_nothing_else(page: str) -> None:
    for attribute in re.findall(r"""(?:\s|:)(?:src|href)\s*=\s*["']([^"']*)["']""", page):
        assert attribute.startswith("#"), attribute
    assert not re.search(r"<(?:script|link|img|iframe|object)\b|@import|url\((?!#)", page)


def test_ids_are_those_of_one_page(page: str) -> None:
    ids = re.findall(r'\sid="([^"]+)"', page)
    repeated = {name for name in ids if ids.count(name) > 1}
    assert not repeated


def test_it_holds_the_figures(page: str, report: Report) -> None:
    text = "".join(ET.fromstring(page).itertext())
    for method in ("full", "constant"):
        for slice_name in report.found.query_counts:
            for metric in report.columns:
                found = report.found.row(method, slice_name, metric)
                assert found is not None
                assert f"{found.value:.4f}" in text
    for expected in (
        "0.2718", "-0.1304", "1,234", "abc123", "nothing learns", "lora is left out: it is like that already",
        "all: full is above constant", "language-model: 3 rounds, 12 s",
    ):  # fmt: skip
        assert expected in text, expected


def test_what_was_not_measured_is_not_there(report: Report) -> None:
    plain = Report(facts=report.facts, found=report.found, findings=(), slices={}, columns=report.columns, settings={})
    anchors = [element.attrib["id"] for element in ET.fromstring(render(plain)).iter("h2")]
    assert anchors == ["tables", "differences", "cold-start", "settings"]


def test_the_same_evaluation_gives_the_same_page(report: Report, page: str) -> None:
    assert render(report) == page
