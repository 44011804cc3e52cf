"""An event is kept only with the consent that its kind needs."""

import pytest

from recmesh.feedback.v1 import feedback_service_pb2 as pb
from services.feedback.config import ConsentSettings, feedback_settings
from services.feedback.consent import Consent, ConsentRules
from services.feedback.converters import feedback_of
from services.runtime.errors import InvalidFieldError, SetupError
from services.runtime.pseudonym import PLAIN
from services.runtime.scenario import EVENT_NUMBERS, Scenario
from tests.support.stores import SCENARIOS, event

CLICK, RATING = EVENT_NUMBERS["click"], EVENT_NUMBERS["rating"]


@pytest.mark.parametrize(
    ("default", "consent", "allowed"),
    [
        ("denied", Consent.UNSPECIFIED, False),
        ("denied", Consent.GRANTED, True),
        ("denied", Consent.DENIED, False),
        ("granted", Consent.UNSPECIFIED, True),
        ("granted", Consent.GRANTED, True),
        ("granted", Consent.DENIED, False),
    ],
)
def test_what_the_event_says_counts_before_the_default(default: str, consent: Consent, allowed: bool) -> None:
    rules = ConsentRules(ConsentSettings(required=["rating"], default=default))
    assert rules.allow(RATING, consent) is allowed
    assert rules.allow(CLICK, consent), "a kind that needs none"


def test_numbers_are_those_of_the_proto() -> None:
    assert {f"CONSENT_{consent.name}": int(consent) for consent in Consent} == dict(pb.Consent.items())


def test_events_without_consent_are_left_out_and_counted() -> None:
    rules = ConsentRules(ConsentSettings(required=["rating"]))
    events = [
        event("e1", event_kind=RATING),
        event("e2", event_kind=RATING, consent=Consent.GRANTED),
        event("e3", event_kind=CLICK, consent=Consent.DENIED),
    ]
    request = pb.RecordFeedbackRequest(scenario="video", events=events)
    kept, dropped = feedback_of(request, frozenset({CLICK, RATING}), rules, PLAIN)
    assert [one.event_id for one in kept] == ["e2", "e3"]
    assert dropped == 1


def test_a_malformed_event_is_refused_with_or_without_consent() -> None:
    rules = ConsentRules(ConsentSettings(required=["rating"]))
    for bad in (event("", event_kind=RATING), event("e1", event_kind=RATING, consent=7)):
        with pytest.raises(InvalidFieldError, match=r"events\[0\]"):
            feedback_of(pb.RecordFeedbackRequest(events=[bad]), frozenset({RATING}), rules, PLAIN)


def test_a_kind_that_the_scenario_lacks_is_named() -> None:
    scenario = Scenario("video", {**SCENARIOS["video"], "feedback": {"consent": {"required": ["play"]}}}, "video.yaml")
    with pytest.raises(SetupError, match=r"feedback: consent.required: 'play' is not in the scenario's events"):
        feedback_settings(scenario)
