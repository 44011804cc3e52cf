"""What `recmesh promote` does with verdicts; the checks themselves are made up."""

import json

import pytest
import typer

from services.cli.promote import command
from services.cli.promote.report import refusals
from services.cli.state import StateFolder
from services.runtime.bundle import current_version, served_versions
from services.runtime.errors import SetupError
from services.runtime.promotions import Check, append_promotion, read_promotions
from tests.support.tiny_bundle import make_tiny_bundle

PASSES = [
    Check(name="quality", verdict="pass", reason="as good", figures={"queries": 300}),
    Check(name="off_policy", verdict="undecided", reason="not enough: 3 groups"),
]
FAILS = [Check(name="quality", verdict="fail", reason="surely below", figures={"queries": 300}), PASSES[1]]
SCENARIO = """
scenarios:
  video:
    description: Films.
    events: [click]
    tasks: {click: {events: [click]}}
"""


@pytest.fixture
def state(tmp_path):
    for version in ("v1", "v2", "v3"):
        make_tiny_bundle(tmp_path / "models", version=version, current=version == "v2", items=5)
    (tmp_path / "video.yaml").write_text(SCENARIO)
    return StateFolder(tmp_path)


@pytest.fixture
def asked(monkeypatch):
    """What was checked: (candidate, incumbent), each time; the verdicts are PASSES unless set."""
    found = {"pairs": [], "checks": PASSES}

    def run_checks(folders, scenario, files, candidate, incumbent, settings):
        found["pairs"].append((candidate.manifest.model_version, incumbent.manifest.model_version))
        return found["checks"]

    monkeypatch.setattr(command, "run_checks", run_checks)
    return found


def promote(state, version=None, **options):
    command.promote("video", version, state=state.root, scenario_file=[state.root / "video.yaml"], **options)


def lines(state):
    return [(line.version, line.base, line.outcome) for line in read_promotions(state.models, "video")]


def test_the_newest_version_that_is_not_current_becomes_a_canary(state, asked, capsys):
    promote(state)
    assert asked["pairs"] == [("v3", "v2")]
    assert lines(state) == [("v3", "v2", "passed")]
    assert served_versions(state.models, "video") == ["v2", "v3"]
    assert "v3: canary at 10 %" in capsys.readouterr().out


def test_a_failed_check_refuses_with_status_3(state, asked, tmp_path, capsys):
    asked["checks"] = FAILS
    with pytest.raises(typer.Exit) as exit_:
        promote(state, "v1", json_file=tmp_path / "found.json")
    assert exit_.value.exit_code == 3
    assert lines(state) == [("v1", "v2", "refused")]
    line = read_promotions(state.models, "video")[0]
    assert (line.reason, line.checks, line.experiment) == ("quality: surely below", FAILS, "")
    assert served_versions(state.models, "video") == ["v2"]
    assert not (state.root / "experiments").exists()
    assert "refused: quality: surely below" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["version"], found["base"], found["passed"]) == ("v1", "v2", False)
    assert found["checks"][0] == {
        "name": "quality", "verdict": "fail", "reason": "surely below", "figures": {"queries": 300}
    }  # fmt: skip


def test_force_goes_past_it_and_says_so(state, asked, capsys):
    asked["checks"] = FAILS
    promote(state, "v1", force=True)
    assert lines(state) == [("v1", "v2", "forced")]
    assert served_versions(state.models, "video") == ["v2", "v1"]
    assert "FORCED" in capsys.readouterr().out


def test_check_only_changes_nothing(state, asked):
    promote(state, check_only=True)
    asked["checks"] = FAILS
    with pytest.raises(typer.Exit) as exit_:
        promote(state, check_only=True)
    assert exit_.value.exit_code == 3
    assert lines(state) == []
    assert served_versions(state.models, "video") == ["v2"]


def test_a_version_on_its_way_is_not_checked_again(state, asked, monkeypatch):
    promote(state)
    turns = []
    monkeypatch.setattr(command, "take_turn", lambda *arguments: turns.append(1) or command.Turn("wait", "v3", 10, ""))
    promote(state)
    assert (len(asked["pairs"]), turns) == (1, [1])
    with pytest.raises(SetupError, match="v3 is on its way to users; see it through"):
        promote(state, "v1")


def test_a_canary_that_was_rolled_back_is_status_4(state, asked, monkeypatch):
    promote(state)
    turns = [command.Turn("wait", "v3", 10, ""), command.Turn("roll back", "v3", 0, "guardrail ctr")]
    monkeypatch.setattr(command, "take_turn", lambda *arguments: turns.pop(0))
    with pytest.raises(typer.Exit) as exit_:
        promote(state, finish=True, every=0.1)
    assert (exit_.value.exit_code, turns) == (4, [])


@pytest.mark.parametrize(("outcome", "status"), [("promoted", None), ("rolled_back", 4)])
def test_a_canary_that_somebody_else_saw_through_is_told(state, asked, monkeypatch, capsys, outcome, status):
    promote(state)
    begun = read_promotions(state.models, "video")[-1]

    def take_turn(*arguments):
        end = {"outcome": outcome, "reason": "by recmesh up", "checks": []}
        append_promotion(state.models, "video", begun.model_copy(update=end))
        return command.Turn("wait", "v3", 10, "")

    monkeypatch.setattr(command, "take_turn", take_turn)
    if status is None:
        promote(state, finish=True, every=0.1)
    else:
        with pytest.raises(typer.Exit) as exit_:
            promote(state, finish=True, every=0.1)
        assert exit_.value.exit_code == status
    assert "by recmesh up" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "options", "message"),
    [
        ("v2", {}, "v2 is the current version already"),
        ("v9", {}, "no version 'v9'; there are: v1, v2, v3"),
        (None, {"check_only": True, "force": True}, "contradict each other"),
        (None, {"every": 5.0}, "--every belongs to --finish"),
        ("v1", {"finish": True}, "--finish goes on with the canary"),
        (None, {"finish": True}, "no version is on its way"),
    ],
)
def test_what_cannot_be_is_refused(state, asked, version, options, message):
    with pytest.raises(SetupError, match=message):
        promote(state, version, **options)
    assert current_version(state.models, "video") == "v2"


def test_a_required_check_must_decide():
    assert refusals(PASSES, ("quality",)) == []
    assert refusals(PASSES, ("quality", "off_policy")) == [
        "off_policy is required and does not decide: not enough: 3 groups"
    ]
    assert refusals(FAILS, ()) == ["quality: surely below"]
