from typing import Any

import pytest

from services.feedback.config import FeedbackConfig, feedback_settings
from services.runtime.config import parse_settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario

PROCESS = {"server": {"port": 0, "metrics_port": 0}, "scenario_files": ["a.yaml"], "store": {"path": "feedback"}}


def scenario(section: dict[str, Any]) -> Scenario:
    values = {"description": "films", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
    return Scenario("video", {**values, "feedback": section}, "video.yaml: scenarios.video")


def test_defaults_are_complete() -> None:
    assert feedback_settings(scenario({})).attribution_windows_s == {}
    assert parse_settings(FeedbackConfig, PROCESS, "x").store.engine == "sqlite"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"attribution_windows_s": {"purchase": 5}}, "attribution_windows_s.purchase"),
        ({"attribution_windows_s": {"click": 0}}, "attribution_windows_s.click"),
        ({"attribution_windows_s": {"clik": 5}}, "attribution_windows_s.clik"),
        ({"attribution_window_s": 0}, "attribution_window_s"),
        ({"impression_wait_s": -1}, "impression_wait_s"),
        ({"max_queued_count": 10}, "max_queued_count"),
        ({"retention_days": 3}, "retention_days"),
    ],
)
def test_a_bad_section_names_file_and_setting(section: dict[str, Any], problem: str) -> None:
    with pytest.raises(SetupError, match=r"video\.yaml") as raised:
        feedback_settings(scenario(section))
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"store": {"path": "x", "engine": "kafka"}}, "store.engine"),
        ({"scenario_files": []}, "scenario_files"),
        ({"stor": {}}, "stor: unknown setting"),
    ],
)
def test_bad_process_settings_are_named(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(SetupError, match=r"feedback\.yaml") as raised:
        parse_settings(FeedbackConfig, {**PROCESS, **change}, "feedback.yaml")
    assert problem in str(raised.value)
