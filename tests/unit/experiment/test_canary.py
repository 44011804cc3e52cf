import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.experiment.canary import CanaryCounts, CanaryStep, next_move
from services.experiment.guardrails import Decision

GOES_ON = Decision("continue", "", "no guardrail is crossed beyond doubt")
CROSSED = Decision("roll back", "ctr", "CTR 1 % against 5 %")
STEPS = (CanaryStep(percent=10, min_impressions=100), CanaryStep(percent=50, min_impressions=1_000))


@pytest.mark.parametrize(
    ("percent", "impressions", "action", "after"),
    [
        (10, 99, "wait", 10),
        (10, 100, "raise", 50),
        (50, 999, "wait", 50),
        (50, 1_000, "promote", 100),
        # A hand has set another share: it counts as the step below.
        (30, 99, "wait", 30),
        (30, 100, "raise", 50),
        (80, 1_000, "promote", 100),
        (5, 0, "raise", 10),
    ],
)
def test_the_share_grows_with_impressions(percent, impressions, action, after):
    move = next_move(STEPS, percent, CanaryCounts(impressions, 50, GOES_ON))
    assert (move.action, move.percent) == (action, after)


def test_a_wait_says_for_what():
    assert "99 of 100 impressions at 10 %" in next_move(STEPS, 10, CanaryCounts(99, 50, GOES_ON)).reason


def test_nothing_grows_while_the_guardrails_cannot_speak():
    move = next_move(STEPS, 50, CanaryCounts(1_000_000, 49, GOES_ON))
    assert (move.action, move.percent) == ("wait", 50)
    assert move.reason.startswith("49 of the 50 users in each arm")


@given(st.floats(0.01, 99.99), st.integers(0, 10_000))
def test_a_crossed_guardrail_goes_before_everything(percent, impressions):
    move = next_move(STEPS, percent, CanaryCounts(impressions, 50, CROSSED))
    assert (move.action, move.percent) == ("roll back", 0)
    assert move.reason == "guardrail ctr: CTR 1 % against 5 %"


@given(
    st.lists(st.tuples(st.integers(1, 9_999), st.integers(1, 10_000)), min_size=1, max_size=6),
    st.lists(st.integers(0, 3_000), max_size=30),
)
def test_a_canary_without_trouble_only_grows_and_ends(pairs, gains):
    shares = sorted({share for share, _ in pairs})
    counts = sorted(count for _, count in pairs)
    steps = [CanaryStep(percent=s / 100, min_impressions=c) for s, c in zip(shares, counts, strict=False)]
    percent, impressions = steps[0].percent, 0
    for gain in [*gains, *[counts[-1]] * len(steps)]:
        impressions += gain
        move = next_move(steps, percent, CanaryCounts(impressions, 50, GOES_ON))
        # Whoever was killed before doing it finds the same move.
        assert next_move(steps, percent, CanaryCounts(impressions, 50, GOES_ON)) == move
        assert move.percent >= percent
        if move.action == "promote":
            assert impressions >= steps[-1].min_impressions
            return
        percent = move.percent
    pytest.fail("it never ended")
