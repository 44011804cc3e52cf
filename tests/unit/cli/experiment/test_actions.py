"""Starting, changing and ending an experiment in a state folder."""

import pytest
import yaml

from services.cli.experiment.actions import roll_back, set_shares, start_experiment, stop_experiment
from services.cli.experiment.files import ExperimentFiles
from services.ranking.experiment_file import read_experiment
from services.runtime.errors import InvalidFieldError, SetupError
from services.runtime.scenario import Scenario
from tests.unit.cli.experiment.test_shares import experiment

HEAD = {"description": "d", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}


def scenario(**ranking):
    return Scenario("video", HEAD | {"ranking": ranking}, "video.yaml")


@pytest.fixture
def files(state):
    return ExperimentFiles(state, scenario())


def plain(name="e-1", **changes):
    return experiment(name=name, **changes)


def test_an_experiment_from_start_to_end(state, files):
    start_experiment(state, scenario(), plain(), "for fun")
    assert read_experiment(files.path, scenario()) == plain()
    set_shares(state, scenario(), {"bold": 20}, "it goes well")
    changed = roll_back(state, scenario(), "e-1", "bold", "ctr", "it does not")
    assert files.running() == changed
    ended = stop_experiment(state, scenario(), "enough")
    assert ended == changed
    assert files.running() is None
    lines = files.decisions()
    assert [line.action for line in lines] == ["start", "step", "roll back", "end"]
    assert [line.reason for line in lines] == ["for fun", "it goes well", "it does not", "enough"]
    assert (lines[2].variant, lines[2].guardrail) == ("bold", "ctr")
    assert lines[2].shares == {"control": 90, "bold": 0, "next": 10}
    assert lines[3].shares == {}
    assert lines[-1].settings == ended
    assert [line.time for line in lines] == sorted(line.time for line in lines)


def test_one_at_a_time_and_a_name_for_each(state):
    start_experiment(state, scenario(), plain())
    with pytest.raises(SetupError, match="'e-1' runs; end it first: recmesh experiment stop video"):
        start_experiment(state, scenario(), plain("e-2"))
    stop_experiment(state, scenario())
    with pytest.raises(SetupError, match="there was an experiment 'e-1'"):
        start_experiment(state, scenario(), plain())
    start_experiment(state, scenario(), plain("e-2"))


def test_a_version_that_does_not_serve_is_refused(state, files):
    (state.models / "video" / "VARIANTS").write_text("")
    with pytest.raises(SetupError, match=r"'next': model_version 'v2' does not serve \(served: v1\); run"):
        start_experiment(state, scenario(), plain())
    assert not files.path.exists()


def test_what_does_not_fit_the_scenario_is_refused(state):
    blended = plain(
        variants=[{"name": "a", "percent": 50}, {"name": "b", "percent": 50, "blend": {"conversion": 1}}],
    )
    with pytest.raises(SetupError, match=r"'b': blend\.conversion weighs a task"):
        start_experiment(state, scenario(), blended)


def test_the_scenario_files_experiment_can_be_changed_and_ended(state):
    document = plain().model_dump(mode="json", exclude_unset=True)
    configured = scenario(experiment=document)
    files = ExperimentFiles(state, configured)
    assert files.running() == plain()
    set_shares(state, configured, {"bold": 20})
    assert yaml.safe_load(files.path.read_text())["variants"][1]["percent"] == 20
    stop_experiment(state, configured)
    assert files.running() is None


def test_without_an_experiment_there_is_nothing_to_change(state):
    with pytest.raises(SetupError, match="no experiment runs; start one: recmesh experiment start video FILE"):
        set_shares(state, scenario(), {"bold": 20})
    with pytest.raises(SetupError, match="no experiment runs"):
        stop_experiment(state, scenario())
    assert roll_back(state, scenario(), "e-1", "bold", "ctr", "why") is None


def test_a_roll_back_that_comes_late_changes_nothing(state, files):
    start_experiment(state, scenario(), plain())
    assert roll_back(state, scenario(), "e-0", "bold", "ctr", "why") is None
    assert roll_back(state, scenario(), "e-1", "bold", "ctr", "why") is not None
    assert roll_back(state, scenario(), "e-1", "bold", "ctr", "again") is None
    assert [line.action for line in files.decisions()] == ["start", "roll back"]


def test_a_wrong_share_leaves_the_file_as_it_was(state, files):
    start_experiment(state, scenario(), plain())
    with pytest.raises(InvalidFieldError, match="shares"):
        set_shares(state, scenario(), {"bold": 95})
    assert files.running() == plain()
    assert len(files.decisions()) == 1


def test_a_decision_that_cannot_be_read_is_named(state, files):
    start_experiment(state, scenario(), plain())
    with files.decisions_path.open("a") as file:
        file.write('{"time": "2026\n')
    with pytest.raises(SetupError, match=r"video.jsonl: line 2: .*; mend it or remove it"):
        files.decisions()
