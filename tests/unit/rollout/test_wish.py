"""A wish's ConfigMap: what may be said, and what is said of what may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rollout.wish import parse_wish
from services.runtime.errors import SetupError

GATE = '{"scenario": "video", "version": "v2", "base": "v1", "passed": true, "reasons": [], "checks": []}'


def test_a_version_is_enough():
    wish = parse_wish({"model_version": " v2\n"}, "w")
    assert (wish.model_version, wish.steps) == ("v2", (5, 25, 50, 100))
    assert [(step.percent, step.min_impressions) for step in wish.canary_steps] == [(5, 2000), (25, 4000), (50, 6000)]


def test_everything_may_be_said():
    wish = parse_wish(
        {
            "model_version": "v2", "steps": "[10, 12.5, 100]", "min_impressions": "100, 900",
            "guardrails": "max_ctr_drop: 0.05", "paused": "True", "gate.json": GATE,
        },
        "w",
    )  # fmt: skip
    assert [(step.percent, step.min_impressions) for step in wish.canary_steps] == [(10, 100), (12.5, 1000)]
    assert (wish.guardrails.max_ctr_drop, wish.paused, wish.gate.passed) == (0.05, True, True)
    assert wish.guardrails.limits().max_ctr_drop == 0.05


def test_pausing_is_no_other_wish():
    plain, paused = (parse_wish({"model_version": "v2", **more}, "w") for more in ({}, {"paused": "true"}))
    assert plain.digest == paused.digest != parse_wish({"model_version": "v2", "steps": "50, 100"}, "w").digest


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "model_version: is missing"),
        ({"model_version": "  "}, "model_version: is missing"),
        ({"model_version": "../v2"}, "model_version"),
        ({"model_version": "v2", "stepps": "5"}, "stepps: unknown key"),
        ({"model_version": "v2", "steps": "5, many, 100"}, "no list of numbers; write e.g. '5, 25, 50, 100'"),
        ({"model_version": "v2", "steps": ""}, "no list of numbers"),
        ({"model_version": "v2", "steps": "5, 120"}, "120 is no share of the users"),
        ({"model_version": "v2", "steps": "0, 100"}, "0 is no share of the users"),
        ({"model_version": "v2", "steps": "nan, 100"}, "nan is no share of the users"),
        ({"model_version": "v2", "steps": "0.001, 100"}, "more than two decimals"),
        ({"model_version": "v2", "steps": "25, 5, 100"}, "5 comes after 25; give shares that rise"),
        ({"model_version": "v2", "steps": "5, 50"}, "ends at 50; add 100"),
        ({"model_version": "v2", "min_impressions": "0"}, "give a whole number of at least 1"),
        ({"model_version": "v2", "min_impressions": "inf"}, "give a whole number of at least 1"),
        ({"model_version": "v2", "min_impressions": "1, 2"}, "has 2 numbers; give one, or one for each of the 3"),
        ({"model_version": "v2", "guardrails": "max_ctr_drop: 2"}, "guardrails.max_ctr_drop"),
        ({"model_version": "v2", "guardrails": "- 1"}, "guardrails: is no mapping"),
        ({"model_version": "v2", "guardrails": "{"}, "guardrails: cannot be read as YAML"),
        ({"model_version": "v2", "guardrails": "max_drop: 1"}, "max_drop: unknown setting"),
        ({"model_version": "v2", "paused": "yes"}, "give true or false"),
        ({"model_version": "v2", "gate.json": "{}"}, "has no 'version'"),
        ({"model_version": "v3", "gate.json": GATE}, "is about version 'v2', not 'v3'"),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(SetupError) as error:
        parse_wish(data, "ConfigMap w")
    assert str(error.value).startswith("ConfigMap w: ")
    assert message in str(error.value)


@given(
    st.dictionaries(
        st.sampled_from(["model_version", "steps", "min_impressions", "guardrails", "paused", "gate.json"]), st.text()
    )
)
def test_no_text_is_a_crash(data):
    try:
        wish = parse_wish(data, "w")
    except SetupError:
        return
    assert wish.steps[-1] == 100
    assert len(wish.canary_steps) == len(wish.steps) - 1
