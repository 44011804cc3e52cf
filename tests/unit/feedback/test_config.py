from pathlib import Path
from typing import Any

import pytest

from services.feedback.config import FeedbackConfig, JetStreamSettings, feedback_settings
from services.feedback.jetstream_client import connect_options
from services.runtime.config import parse_settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario

PROCESS = {"server": {"port": 0, "metrics_port": 0}, "scenario_files": ["a.yaml"], "store": {"path": "feedback"}}

JETSTREAM = {"engine": "jetstream", "path": "feedback", "servers": ["nats://127.0.0.1:4222"]}


def scenario(section: dict[str, Any]) -> Scenario:
    values = {"description": "films", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
    return Scenario("video", {**values, "feedback": section}, "video.yaml: scenarios.video")


def test_defaults_are_complete() -> None:
    assert feedback_settings(scenario({})).attribution_windows_s == {}
    assert parse_settings(FeedbackConfig, PROCESS, "x").store.engine == "sqlite"
    assert parse_settings(FeedbackConfig, {**PROCESS, "store": JETSTREAM}, "x").store.engine == "jetstream"


def test_files_of_the_jetstream_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    settings = JetStreamSettings(**JETSTREAM, user="recmesh", password_file=tmp_path / "none")
    with pytest.raises(SetupError, match=r"password_file.*none"):
        connect_options(settings)
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    tls = {"certificate_file": broken, "key_file": broken, "ca_file": broken}
    with pytest.raises(SetupError, match="tls"):
        connect_options(JetStreamSettings(**JETSTREAM, tls=tls))


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"attribution_windows_s": {"purchase": 5}}, "attribution_windows_s.purchase"),
        ({"attribution_windows_s": {"click": 0}}, "attribution_windows_s.click"),
        ({"attribution_windows_s": {"clik": 5}}, "attribution_windows_s.clik"),
        ({"attribution_window_s": 0}, "attribution_window_s"),
        ({"impression_wait_s": -1}, "impression_wait_s"),
        ({"max_queued_count": 10}, "max_queued_count"),
        ({"retention_days": 0}, "retention_days"),
        ({"retention_hours": 3}, "retention_hours"),
    ],
)
def test_a_bad_section_names_file_and_setting(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(SetupError, match=r"video\.yaml") as raised:
        feedback_settings(scenario(section))
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"store": {"path": "x", "engine": "kafka"}}, "store: engine: is unknown; use sqlite or jetstream"),
        ({"store": {"path": "x", "engine": "jetstream"}}, "store.jetstream.servers"),
        ({"store": {**JETSTREAM, "servers": []}}, "store.jetstream.servers"),
        ({"store": {**JETSTREAM, "servers": ["nats-0:4222"]}}, "store.jetstream.servers.0"),
        ({"store": {**JETSTREAM, "replicas": 0}}, "store.jetstream.replicas"),
        ({"store": {**JETSTREAM, "prefix": "a.b"}}, "store.jetstream.prefix"),
        ({"store": {**JETSTREAM, "user": "recmesh"}}, "user and password_file go together"),
        ({"store": {"path": "x", "servers": ["nats://a:1"]}}, "store.sqlite.servers: unknown setting"),
        ({"store": "sqlite"}, "store"),
        ({"scenario_files": []}, "scenario_files"),
        ({"stor": {}}, "stor: unknown setting"),
    ],
)
def test_bad_process_settings_are_named(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(SetupError, match=r"feedback\.yaml") as raised:
        parse_settings(FeedbackConfig, {**PROCESS, **change}, "feedback.yaml")
    assert problem in str(raised.value)
