"""Every rule and every panel, asked of a real Prometheus that scrapes a real mesh under load, returns series.

What this mesh cannot have is listed with the reason, and must indeed return nothing, so that the lists stay true.
"""

import math
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import yaml

from deploy.grafana.boards import BOARDS
from services.cli.state import StateFolder, write_text_atomically
from tests.e2e.tiny_state import USER_COUNT, make_tiny_state
from tests.e2e.up_process import UpProcess, needs_triton
from tests.support.prometheus_process import PrometheusProcess, needs_prometheus
from tests.support.waiting import wait_for

pytestmark = [needs_triton, needs_prometheus]

DAY = "a day of history"
EARLIER = "an earlier version with impressions"

RULE_NEEDS = {
    "scenario:recmesh_previous_impressions:increase3d": EARLIER,
    "scenario:recmesh_previous_clicks:increase3d": EARLIER,
    "scenario:recmesh_ctr_against_previous:ratio": EARLIER,
    "scenario:recmesh_ctr_with_previous:ratio": EARLIER,
    "scenario:recmesh_ctr_against_previous:zscore": EARLIER,
    "scenario:recmesh_ctr_against_yesterday:ratio": DAY,
    "scenario:recmesh_ctr_with_yesterday:ratio": DAY,
    "scenario:recmesh_ctr_against_yesterday:zscore": DAY,
    "scenario_version:recmesh_click_probability_drift:ks1d": DAY,
}
"""Recorded series that this mesh cannot have."""

HAS = "a running experiment"
"""What a panel may need and this mesh has."""

MAY_COME = {"a degraded answer", "a failure", "an alert", "an event that came before its impression"}
"""What a panel may need and a busy machine may give: such a panel may be empty or not."""


EXPERIMENT = {
    "name": "order",
    "salt": "observability",
    "variants": [{"name": "control", "percent": 50}, {"name": "plain", "percent": 50, "diversity": {"method": "none"}}],
}


class Load(threading.Thread):
    """Users who look, click and rate until `stop`."""

    def __init__(self, mesh: UpProcess) -> None:
        super().__init__(daemon=True)
        self._mesh = mesh
        self._ended = threading.Event()

    def run(self) -> None:
        """One user after the other."""
        turn = 0
        while not self._ended.wait(0.1):
            turn += 1
            user = f"u{turn % USER_COUNT}" if turn % 10 else f"new{turn}"
            try:
                answer = self._mesh.recommend("video", user)
                position = turn % len(answer.items)
                item_id = answer.items[position].item_id
                self._mesh.click("video", user, item_id, answer.request_id, position)
                self._mesh.rate("video", user, item_id, 5.0, answer.request_id, position)
            except grpc.RpcError:
                # A busy machine; what is asked is whether there are series, not how good they are.
                continue

    def stop(self) -> None:
        """End it and wait."""
        self._ended.set()
        self.join(30)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusProcess]:
    folder = tmp_path_factory.mktemp("observability")
    files = make_tiny_state(folder, ("video",))
    experiment = StateFolder(folder).experiments / "video.yaml"
    write_text_atomically(experiment, yaml.safe_dump(EXPERIMENT))
    mesh = UpProcess(folder, files)
    try:
        mesh.wait_until_up()
        wait_for(lambda: mesh.is_whole("video"))
        load = Load(mesh)
        load.start()
        with PrometheusProcess(folder) as server:
            yield server
        load.stop()
    finally:
        mesh.close()


def has_values(series: list[dict[str, Any]]) -> bool:
    """Whether some series has a number."""
    return any(math.isfinite(float(one["value"][1])) for one in series)


def empty_after_a_while(prometheus: PrometheusProcess, expressions: dict[str, str], seconds: float = 120) -> list[str]:
    """Names of the expressions that have given no number in this time."""
    missing = dict(expressions)

    def ask() -> bool:
        for name, expression in list(missing.items()):
            if has_values(prometheus.query(expression)):
                del missing[name]
        return not missing

    try:
        wait_for(ask, seconds)
    except AssertionError:
        return sorted(missing)
    return []


def filled(expression: str) -> str:
    """With what Grafana puts in place of its variables."""
    chosen = {"$namespace": ".*", "$scenario": ".*", "$__rate_interval": "30s"}
    for name, value in chosen.items():
        expression = expression.replace(name, value)
    return expression


def test_every_recorded_rule_returns_series(prometheus: PrometheusProcess) -> None:
    names = {rule["name"] for rule in prometheus.rules() if rule["type"] == "recording"}
    assert set(RULE_NEEDS) <= names
    assert empty_after_a_while(prometheus, {name: name for name in names - set(RULE_NEEDS)}) == []
    assert [name for name in RULE_NEEDS if has_values(prometheus.query(name))] == []


def test_every_rule_is_evaluated_without_error(prometheus: PrometheusProcess) -> None:
    wait_for(lambda: all(rule["health"] != "unknown" for rule in prometheus.rules()))
    assert [(rule["name"], rule["lastError"]) for rule in prometheus.rules() if rule["health"] != "ok"] == []


def test_everything_that_alerts_compare_is_there(prometheus: PrometheusProcess) -> None:
    alerts = [rule for rule in prometheus.rules() if rule["type"] == "alerting"]
    assert alerts
    pattern = r"[a-z_]+:recmesh_[a-z_]+:[a-z0-9_]+|\b(?:recmesh|nv)_[a-z_]+|\bup\b"
    # `recmesh up` has no rollout controller.
    operands = {name for rule in alerts for name in re.findall(pattern, rule["query"])}
    operands = {name for name in operands if not name.startswith("recmesh_rollout_")}
    needs = RULE_NEEDS
    assert empty_after_a_while(prometheus, {name: name for name in operands - set(needs)}) == []


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_every_panel_returns_series(prometheus: PrometheusProcess, board: Any) -> None:
    def expressions(wanted: Callable[[str], bool]) -> dict[str, str]:
        return {
            f"{panel.title} {place}": filled(query.expression)
            for panel in board.panels
            if wanted(panel.needs)
            for place, query in enumerate(panel.queries)
        }

    assert empty_after_a_while(prometheus, expressions(lambda needs: needs in ("", HAS))) == []
    impossible = expressions(lambda needs: needs not in {"", HAS} | MAY_COME)
    assert [name for name, expression in impossible.items() if has_values(prometheus.query(expression))] == []


def test_targets_say_which_service_they_are(prometheus: PrometheusProcess) -> None:
    up = {(one["metric"]["job"], one["metric"].get("scenario", "")) for one in prometheus.query("up == 1")}
    services = {(f"recmesh-{name}", "") for name in ("ranking", "feature", "candidate", "scoring", "feedback")}
    assert up == services | {("recmesh-triton", "video")}
