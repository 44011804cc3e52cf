"""CTR and lift."""

import pytest

from services.cli.simulation.figures import choose_arms, clicked_places, ctr_figures, ctr_lift
from services.experiment.sequential import MINIMUM_UNITS, Level
from services.simulation.counting import Place, SentEvent, ShownAnswer


def answers(group: str, count: int, begin: float = 0.0) -> list[ShownAnswer]:
    return [ShownAnswer(f"{group}-{n}", f"{group}-u{n}", ("a", "b"), group, begin + n / count) for n in range(count)]


def test_ctr_by_position_group_and_time() -> None:
    shown = [*answers("v1", 4), *answers("v2", 4, begin=9.0), ShownAnswer("short", "u", ("a",), "v2", 9.5)]
    clicked = {Place("v1-0", 1), Place("v2-0", 0), Place("v2-1", 0), Place("unknown", 0)}
    figures = ctr_figures(shown, clicked, 10.0)
    assert figures["ctr"] == {"shown": 17, "clicked": 3, "ctr": 0.176471}
    assert figures["ctr_by_position"] == [
        {"shown": 9, "clicked": 2, "ctr": 0.222222},
        {"shown": 8, "clicked": 1, "ctr": 0.125},
    ]
    assert figures["ctr_by_group"]["v1"] == {"shown": 8, "clicked": 1, "ctr": 0.125}
    assert figures["ctr_over_time"][0]["groups"]["v1"]["clicked"] == 1
    assert figures["ctr_over_time"][0]["groups"]["v2"] == {"shown": 0, "clicked": 0, "ctr": None}
    assert figures["ctr_over_time"][9]["groups"]["v2"]["shown"] == 9


def test_only_acknowledged_events_click() -> None:
    events = [SentEvent("e", Place("r", 0), "click", None, True), SentEvent("f", Place("r", 1), "click", None, False)]
    assert clicked_places(events) == {Place("r", 0)}


@pytest.mark.parametrize(
    ("groups", "arm", "control", "found"),
    [
        (["v2", "v1"], None, None, ("v2", "v1")),
        (["v2", "", "v1"], None, None, ("v2", "v1")),
        (["v1"], None, None, None),
        (["", "v1"], None, None, None),
        ([], None, None, None),
        (["v1", "v2", "v3"], None, None, None),
        (["v1", "v2", "v3"], "v3", None, ("v3", "v1")),
        (["v1", "v2", "v3"], "v1", None, ("v1", "v2")),
        (["v1", "v2", "v3"], "v3", "v2", ("v3", "v2")),
        (["v1", "v2"], None, "v2", ("v1", "v2")),
        (["v1", "v2"], "v9", "v1", None),
        (["v1", "v2"], "v1", "v1", None),
    ],
)
def test_the_arms(groups: list[str], arm: str | None, control: str | None, found: tuple[str, str] | None) -> None:
    assert choose_arms(groups, arm, control) == found


def test_a_lift_needs_enough_users() -> None:
    many = 20 * MINIMUM_UNITS
    shown = [*answers("v1", many), *answers("v2", many)]
    clicked = {Place(f"v1-{n}", 0) for n in range(many // 10)} | {Place(f"v2-{n}", 0) for n in range(many // 2)}
    found = ctr_lift(shown, clicked, "v2", "v1", Level())
    assert found is not None
    assert found["value"] == pytest.approx(4)
    assert found["low"] is not None
    assert 0 < found["low"] < 4
    few = [*answers("v1", 10), *answers("v2", 10)]
    assert ctr_lift(few, {Place("v1-0", 0)}, "v2", "v1", Level()) == {"value": -1.0, "low": -1.0, "high": None}
    assert ctr_lift(few, set(), "v2", "v1", Level()) is None
