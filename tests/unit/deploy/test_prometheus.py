"""Rules, their tests and their runbooks belong together; the configuration names what is there."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.prometheus.settings import FOLDER, RULES, scrape_config

RULE_FILES = sorted(RULES.glob("*.yaml"))
RUNBOOKS = Path("docs/runbooks.md").read_text()


def rules(kind: str) -> list[dict[str, Any]]:
    found = [
        rule for file in RULE_FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]
    ]
    return [rule for rule in found if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}


def expectations() -> list[tuple[str, bool]]:
    """(alert, whether it must fire) of every case in the promtool tests."""
    found = []
    for file in FOLDER.glob("tests/*.yaml"):
        for case in yaml.safe_load(file.read_text())["tests"]:
            for check in case["promql_expr_test"]:
                match = re.fullmatch(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}', check["expr"])
                assert match, check["expr"]
                found.append((match[1], bool(check["exp_samples"])))
    return found


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tested_firing_and_silent_and_has_a_runbook(name: str) -> None:
    alert = ALERTS[name]
    assert {(name, True), (name, False)} <= set(expectations())
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
    assert f"\n## {name}\n**{alert['labels']['severity']}.**" in RUNBOOKS


def test_no_test_and_no_runbook_is_of_an_alert_that_is_gone() -> None:
    assert {name for name, _ in expectations()} == set(ALERTS)
    assert set(re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)) == set(ALERTS)


def test_every_rule_file_with_alerts_is_tested() -> None:
    loaded = {
        (file.parent / name).resolve()
        for file in FOLDER.glob("tests/*.yaml")
        for name in yaml.safe_load(file.read_text())["rule_files"]
    }
    assert loaded == set(RULE_FILES)


def test_recorded_names_are_level_metric_operation() -> None:
    names = {rule["record"] for rule in rules("record")}
    assert [name for name in names if not re.fullmatch(r"[a-z_]+:recmesh_[a-z_]+:[a-z0-9_]+", name)] == []


def test_the_configuration_points_into_the_state_folder(tmp_path: Path) -> None:
    config = scrape_config(tmp_path, scrape_interval="1s")
    assert config["global"]["scrape_interval"] == "1s"
    assert config["global"]["evaluation_interval"] == "15s"
    (discovery,) = config["scrape_configs"][0]["file_sd_configs"]
    assert discovery["files"] == [str(tmp_path / "run" / "prometheus-targets.json")]
    assert config["rule_files"] == [str(RULES / "*.yaml")]
    json.dumps(config)
