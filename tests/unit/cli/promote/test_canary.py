"""A canary's turns on a real state folder, killed wherever a file is written; the counts are made up."""

from datetime import UTC, datetime, timedelta

import pytest

from services.cli.experiment.actions import roll_back, start_experiment, stop_experiment
from services.cli.experiment.files import ExperimentFiles
from services.cli.promote import canary as canary_module
from services.cli.promote.canary import CANARY, BusyError, alone, experiment_name, take_turn
from services.cli.state import StateFolder
from services.experiment.canary import CanaryCounts
from services.experiment.guardrails import Decision
from services.ranking.config import ExperimentSettings, VariantSettings
from services.runtime.bundle import current_version, served_versions, set_current_version, set_variants
from services.runtime.errors import SetupError
from services.runtime.promotions import Promotion, append_promotion, read_promotions
from services.runtime.scenario import Scenario
from services.training.settings.promotion import PromotionSettings

HEAD = {"description": "Films.", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
SCENARIO = Scenario("video", HEAD, "test")
SETTINGS = PromotionSettings.model_validate(
    {"steps": [{"percent": 10, "min_impressions": 100}, {"percent": 50, "min_impressions": 500}]}
)
START = datetime(2026, 1, 1, tzinfo=UTC)
GOES_ON = Decision("continue", "", "no guardrail is crossed beyond doubt")
CROSSED = Decision("roll back", "ctr", "CTR 1 % against 5 %")


class Killed(BaseException):
    """SIGKILL: nothing after it runs."""


def counted(impressions, decision=GOES_ON):
    return lambda settings: CanaryCounts(impressions, 1_000, decision)


def running(state):
    return ExperimentFiles(state, SCENARIO).running()


@pytest.fixture
def state(tmp_path):
    """v1 is current, v0 a variant, and v2 has passed the gate."""
    folders = StateFolder(tmp_path)
    (folders.models / "video").mkdir(parents=True)
    set_current_version(folders.models, "video", "v1")
    set_variants(folders.models, "video", ["v0"])
    passed(folders)
    return folders


def passed(folders, version="v2", after_s=0, outcome="passed"):
    begun = START + timedelta(seconds=after_s)
    line = Promotion(
        time=begun.isoformat(), version=version, base="v1", outcome=outcome, reason="so",
        experiment=experiment_name(begun),
    )  # fmt: skip
    append_promotion(folders.models, "video", line)


def turn(state, impressions=0, decision=GOES_ON):
    return take_turn(state, SCENARIO, SETTINGS, counted(impressions, decision))


def share(state):
    return {variant.name: (variant.percent, variant.model_version) for variant in running(state).variants}


def outcomes(state):
    return [(line.version, line.outcome) for line in read_promotions(state.models, "video")]


def test_a_canary_grows_and_becomes_current(state):
    started = turn(state)
    assert (started.action, started.percent, started.over) == ("start", 10, False)
    assert share(state) == {"control": (90, None), "canary": (10, "v2")}
    assert served_versions(state.models, "video") == ["v1", "v0", "v2"]
    assert turn(state, 99).action == "wait"
    assert turn(state, 100).action == "raise"
    assert share(state) == {"control": (50, None), "canary": (50, "v2")}
    done = turn(state, 500)
    assert (done.action, done.percent, done.over) == ("promote", 100, True)
    assert served_versions(state.models, "video") == ["v2", "v0"]
    assert running(state) is None
    assert outcomes(state) == [("v2", "passed"), ("v2", "promoted")]
    with pytest.raises(SetupError, match="no version is on its way"):
        turn(state)


def test_a_crossed_guardrail_takes_it_back(state):
    turn(state)
    done = turn(state, 50, CROSSED)
    assert (done.action, done.percent, done.over) == ("roll back", 0, True)
    assert done.reason == "guardrail ctr: CTR 1 % against 5 %"
    assert served_versions(state.models, "video") == ["v1", "v0"]
    assert running(state) is None
    assert outcomes(state) == [("v2", "passed"), ("v2", "rolled_back")]
    assert read_promotions(state.models, "video")[-1].reason == done.reason


def test_one_that_the_watch_has_taken_back_leaves(state):
    turn(state)
    roll_back(state, SCENARIO, running(state).name, CANARY, "ctr", "surely below")
    done = turn(state, 10_000)
    assert (done.action, done.reason) == ("roll back", "guardrail ctr: surely below")
    assert served_versions(state.models, "video") == ["v1", "v0"]


def test_one_whose_experiment_was_ended_by_hand_leaves(state):
    turn(state)
    stop_experiment(state, SCENARIO)
    assert turn(state, 10_000).reason == "its experiment was ended by hand"
    assert served_versions(state.models, "video") == ["v1", "v0"]


def test_one_that_was_taken_out_of_service_does_not_become_current(state):
    turn(state)
    set_variants(state.models, "video", ["v0"])
    done = turn(state, 10_000)
    assert (done.action, done.reason) == ("roll back", "it was taken out of service by hand")
    assert running(state) is None


def test_one_that_a_hand_made_current_has_ended(state):
    turn(state)
    set_current_version(state.models, "video", "v2")
    assert turn(state).action == "promote"
    assert running(state) is None


def test_another_experiment_stands_in_the_way(state):
    variants = (VariantSettings(name="control", percent=50), VariantSettings(name="bold", percent=50))
    start_experiment(state, SCENARIO, ExperimentSettings(name="bold", salt="saltsalt", variants=variants), "for a test")
    with pytest.raises(SetupError, match="experiment 'bold' runs"):
        turn(state)
    assert share(state) == {"control": (50, None), "bold": (50, None)}


def test_an_experiment_of_the_scenario_file_stands_in_the_way_too(state):
    variants = [{"name": "control", "percent": 50}, {"name": "bold", "percent": 50}]
    dealt = {"name": "bold", "salt": "saltsalt", "variants": variants}
    scenario = Scenario("video", HEAD | {"ranking": {"experiment": dealt}}, "test")
    with pytest.raises(SetupError, match="experiment 'bold' runs, and a canary is one"):
        take_turn(state, scenario, SETTINGS, counted(0))


def test_one_at_a_time(state):
    with (
        alone(state, SCENARIO),
        pytest.raises(BusyError, match="another `recmesh promote video` works"),
        alone(state, SCENARIO),
    ):
        pass


def test_a_second_canary_of_the_same_version_is_another_experiment(state):
    turn(state)
    turn(state, 50, CROSSED)
    passed(state, after_s=60, outcome="forced")
    assert turn(state).action == "start"
    assert share(state)["canary"] == (10, "v2")


WRITES = ("serve_versions", "start_experiment", "set_shares", "roll_back", "stop_experiment", "append_promotion")
LIVES = [(0, GOES_ON), (99, GOES_ON), (100, GOES_ON), (500, GOES_ON)]
SHORT_LIVES = [(0, GOES_ON), (50, CROSSED)]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("death", range(8))
@pytest.mark.parametrize(("life", "end"), [(LIVES, "promoted"), (SHORT_LIVES, "rolled_back")])
def test_whoever_was_killed_at_any_write_goes_on(state, monkeypatch, life, end, death, before):
    """The n-th write is the last one, or does not happen any more; then every turn is taken again until the end."""
    count = 0

    def deadly(function):
        def write(*arguments):
            nonlocal count
            count += 1
            if count == death + 1 and before:
                raise Killed
            function(*arguments)
            if count == death + 1:
                raise Killed

        return write

    for name in WRITES:
        monkeypatch.setattr(canary_module, name, deadly(getattr(canary_module, name)))
    for impressions, decision in life:
        for _ in range(3):
            try:
                done = turn(state, impressions, decision)
            except Killed:
                continue
            except SetupError:
                # The line of its end was the last write.
                break
            if done.action == "wait" or done.over:
                break
    assert outcomes(state) == [("v2", "passed"), ("v2", end)]
    assert running(state) is None
    if end == "promoted":
        assert served_versions(state.models, "video") == ["v2", "v0"]
    else:
        assert served_versions(state.models, "video") == ["v1", "v0"]
        assert read_promotions(state.models, "video")[-1].reason == "guardrail ctr: CTR 1 % against 5 %"
    assert current_version(state.models, "video") == ("v2" if end == "promoted" else "v1")
