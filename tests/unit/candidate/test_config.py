import pytest
from pydantic import ValidationError

from services.candidate.config import CandidateSettings, QuotaSettings, candidate_settings, popular_kinds
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario

HEAD = {"description": "d", "events": ["view", "click"], "tasks": {"click": {"events": ["click"]}}}


def test_quotas_must_add_up_to_one():
    with pytest.raises(ValidationError, match=r"add up to 1\.2"):
        QuotaSettings(vector=0.7)


def test_popular_events_default_to_those_of_the_click_task():
    scenario = Scenario("video", HEAD, "file")
    assert popular_kinds(scenario, candidate_settings(scenario)) == {2}
    assert popular_kinds(scenario, CandidateSettings(popular_events=("view",))) == {1}


def test_popular_events_must_be_events_of_the_scenario():
    scenario = Scenario("video", {**HEAD, "candidate": {"popular_events": ["purchase"]}}, "file")
    with pytest.raises(SetupError, match=r"candidate: popular_events names 'purchase'"):
        candidate_settings(scenario)
