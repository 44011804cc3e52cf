from typing import Any

import pytest

from services.feature.config import FeatureConfig, feature_settings
from services.runtime.config import parse_settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario

PROCESS = {
    "server": {"port": 0, "metrics_port": 0},
    "scenario_files": ["a.yaml"],
    "store": {"path": "feature"},
    "feedback": {"address": "127.0.0.1:1"},
}


def scenario(section: dict[str, Any]) -> Scenario:
    values = {"description": "films", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
    return Scenario("video", {**values, "feature": section}, "video.yaml: scenarios.video")


def test_defaults_are_complete():
    assert feature_settings(scenario({})).history_events is None
    assert parse_settings(FeatureConfig, PROCESS, "x").store.engine == "lmdb"


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"history_events": ["purchase"]}, "history_events: 'purchase'"),
        ({"history_events": ["clik"]}, "history_events"),
        ({"history_max_events": 0}, "history_max_events"),
        ({"history_max_events": 10_001}, "history_max_events"),
        ({"seen_max_items": 0}, "seen_max_items"),
        ({"history_max": 3}, "history_max: unknown setting"),
    ],
)
def test_a_bad_section_names_file_and_setting(section: dict[str, Any], problem: str):
    with pytest.raises(SetupError, match=r"video\.yaml") as raised:
        feature_settings(scenario(section))
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"store": {"path": "x", "engine": "valkey2"}}, "store.engine"),
        ({"store": {"path": "x", "map_bytes": 5}}, "store.map_bytes"),
        ({"feedback": {"address": ""}}, "feedback.address"),
    ],
)
def test_bad_process_settings_are_named(change: dict[str, Any], problem: str):
    with pytest.raises(SetupError, match=r"feature\.yaml") as raised:
        parse_settings(FeatureConfig, {**PROCESS, **change}, "feature.yaml")
    assert problem in str(raised.value)
