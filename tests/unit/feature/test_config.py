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

VALKEY = {"engine": "valkey", "addresses": ["127.0.0.1:6379"]}


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
        ({"interest_half_life_days": 0}, "interest_half_life_days"),
        ({"interest_max_categories": -1}, "interest_max_categories"),
        ({"interest_top_count": 1_001}, "interest_top_count"),
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
        ({"store": {"path": "x", "engine": "valkey2"}}, "store: engine: use lmdb"),
        ({"store": {"path": "x", "map_bytes": 5}}, "store.lmdb.map_bytes"),
        ({"store": {"engine": "lmdb"}}, "store.lmdb.path"),
        ({"store": {"engine": "valkey"}}, "store.valkey.addresses"),
        ({"store": VALKEY | {"path": "x"}}, "store.valkey.path: unknown setting"),
        ({"store": VALKEY | {"addresses": ["host"]}}, "'host' is not host:port"),
        ({"store": VALKEY | {"addresses": ["host:0"]}}, "'host:0' is not host:port"),
        ({"store": VALKEY | {"addresses": ["a:1", "b:1"]}}, "cluster: true"),
        ({"store": VALKEY | {"password_env": "A", "password_file": "b"}}, "not both"),
        ({"store": VALKEY | {"username": "anna"}}, "username needs"),
        ({"store": VALKEY | {"tls": {"key_file": "x"}}}, "certificate_file and key_file"),
        ({"store": VALKEY | {"key_prefix": "{a}"}}, "store.valkey.key_prefix"),
        ({"store": VALKEY | {"user_ttl_days": 0}}, "store.valkey.user_ttl_days"),
        ({"feedback": {"address": ""}}, "feedback.address"),
    ],
)
def test_bad_process_settings_are_named(change: dict[str, Any], problem: str):
    with pytest.raises(SetupError, match=r"feature\.yaml") as raised:
        parse_settings(FeatureConfig, {**PROCESS, **change}, "feature.yaml")
    assert problem in str(raised.value)
