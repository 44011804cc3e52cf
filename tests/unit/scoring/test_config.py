import pytest
import yaml

from services.runtime.errors import SetupError
from services.runtime.scenario import load_scenarios
from services.scoring.config import ScoringConfig, own_scenario, scoring_settings

SCENARIO = {"description": "Films.", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}


@pytest.fixture
def make(tmp_path):
    def make(section=None, scenario="video"):
        file = tmp_path / "video.yaml"
        file.write_text(yaml.safe_dump({"scenarios": {"video": SCENARIO | {"scoring": section}}}))
        return ScoringConfig(
            server={"port": 0, "metrics_port": 0},
            scenario_files=[file],
            scenario=scenario,
            models=tmp_path,
            triton={"address": "127.0.0.1:1"},
            triton_repository=tmp_path,
            feature={"address": "127.0.0.1:2"},
        )

    return make


def test_the_own_scenario_is_found(make):
    scenario = own_scenario(make({"max_in_flight_calls": 5}))
    assert scenario.name == "video"
    assert scoring_settings(scenario).max_in_flight_calls == 5


def test_a_scenario_that_no_file_describes_is_refused(make):
    with pytest.raises(SetupError, match="scenario: 'music' is in no scenario file; they describe video"):
        own_scenario(make(scenario="music"))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"max_inflight_calls": 5}, "max_inflight_calls: unknown setting"),
        ({"embed_batch_items": 65}, "embed_batch_items"),
        ({"bundle_check_s": 0}, "bundle_check_s"),
    ],
)
def test_a_wrong_section_is_refused_by_name(make, section, words):
    config = make(section)
    with pytest.raises(SetupError, match=rf"scenarios.video.scoring: {words}"):
        scoring_settings(load_scenarios(config.scenario_files)["video"])
