"""The chart ships what deploy/ holds, and its monitors find what it deploys."""

import json
from pathlib import Path

import pytest
import yaml

from deploy.grafana.boards import BOARDS
from tests.chart.helm import ROOT, files_of, needs_helm, render

pytestmark = needs_helm

ON = ("--set", "observability.monitors.enabled=true,observability.rules.enabled=true")
DASHBOARDS = ("--set", "observability.dashboards.enabled=true")
KINDS = {"ServiceMonitor", "PrometheusRule"}


@pytest.fixture(scope="module")
def documents():
    runbooks = ("--set", "observability.rules.runbooks=https://wiki.example/runbooks")
    return render(*files_of("four-on-gpu"), *ON, *DASHBOARDS, *runbooks)


def test_nothing_is_made_where_nothing_is_asked_for():
    assert not KINDS & {document["kind"] for document in render(*files_of("one-on-cpu"))}


def test_rules_are_those_of_deploy_with_links_to_the_runbooks(documents):
    shipped = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "PrometheusRule"}
    for file in Path(ROOT / "deploy/prometheus/rules").glob("*.yaml"):
        expected = yaml.safe_load(file.read_text().replace("docs/runbooks.md#", "https://wiki.example/runbooks#"))
        assert shipped.pop(f"recmesh-rules-{file.stem.replace('_', '-')}") == expected
    assert shipped == {}


def test_dashboards_carry_the_sidecars_label(documents):
    maps = [d for d in documents if d["kind"] == "ConfigMap" and "grafana_dashboard" in d["metadata"]["labels"]]
    assert {json.loads(text)["uid"] for d in maps for text in d["data"].values()} == {
        f"recmesh-{board.name}" for board in BOARDS
    }


def test_monitors_select_every_service_with_metrics_once(documents):
    monitors = [d["spec"]["selector"] for d in documents if d["kind"] == "ServiceMonitor"]

    def selects(selector, labels):
        expressions = selector.get("matchExpressions", [])
        return selector["matchLabels"].items() <= labels.items() and all(
            labels.get(e["key"]) in e["values"] for e in expressions
        )

    services = [d for d in documents if d["kind"] == "Service"]
    with_metrics = [d for d in services if "metrics" in {port["name"] for port in d["spec"]["ports"]}]
    assert len(with_metrics) == 4 + 2 * 4
    for service in with_metrics:
        found = [selector for selector in monitors if selects(selector, service["metadata"]["labels"])]
        assert len(found) == 1, service["metadata"]["name"]
