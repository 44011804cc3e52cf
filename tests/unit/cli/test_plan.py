"""Scenarios, state and ports → processes."""

from pathlib import Path

import pytest
import yaml

from deploy.triton.settings import LauncherSettings
from services.candidate.config import CandidateConfig
from services.cli.plan import PortPair, ProcessSpec, plan_processes, process_names
from services.cli.ports import choose_ports, read_ports
from services.cli.state import StateFolder
from services.feature.config import FeatureConfig
from services.feedback.config import FeedbackConfig
from services.ranking.config import RankingConfig
from services.runtime.config import parse_settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario
from services.scoring.config import ScoringConfig

HEAD = {"description": "x", "events": ["click"], "tasks": {"click": {"events": ["click"]}}}
SCENARIOS = {name: Scenario(name, HEAD, f"{name}.yaml") for name in ("video", "music")}
NAMES = process_names(SCENARIOS)


def plan(tmp_path: Path) -> dict[str, ProcessSpec]:
    specs = plan_processes(SCENARIOS, [Path("a.yaml")], StateFolder(tmp_path), choose_ports(NAMES))
    return {spec.name: spec for spec in specs}


def test_one_pool_and_one_scoring_service_per_scenario(tmp_path: Path) -> None:
    assert list(plan(tmp_path)) == NAMES
    assert set(NAMES) == {
        "feedback", "feature", "triton-video", "scoring-video", "triton-music", "scoring-music", "candidate", "ranking",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("feedback", FeedbackConfig),
        ("feature", FeatureConfig),
        ("scoring-music", ScoringConfig),
        ("candidate", CandidateConfig),
        ("ranking", RankingConfig),
        ("triton-music", LauncherSettings),
    ],
)
def test_each_process_accepts_its_settings(tmp_path: Path, name: str, kind: type) -> None:
    parse_settings(kind, plan(tmp_path)[name].config, name)


def test_a_caller_gets_the_address_of_whom_it_calls(tmp_path: Path) -> None:
    specs = plan(tmp_path)
    assert specs["scoring-music"].config["triton"]["address"] == specs["triton-music"].address
    assert specs["ranking"].config["scoring"]["music"]["address"] == specs["scoring-music"].address
    assert specs["scoring-music"].config["triton_repository"] == specs["triton-music"].config["repository"]


def test_whoever_calls_stops_before_whom_it_calls(tmp_path: Path) -> None:
    stages = {name: spec.stage for name, spec in plan(tmp_path).items()}
    order = ["ranking", "candidate", "scoring-video", "feature", "feedback", "triton-video"]
    assert sorted(order, key=lambda name: -stages[name]) == order


def test_chosen_ports_are_all_different() -> None:
    ports = choose_ports(NAMES)
    assert len({port for pair in ports.values() for port in (pair.grpc, pair.metrics)}) == 2 * len(NAMES)


def given_ports() -> dict[str, dict[str, int]]:
    return {name: {"grpc": 50000 + number, "metrics": 51000 + number} for number, name in enumerate(NAMES)}


def test_ports_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ports.yaml"
    path.write_text(yaml.safe_dump(given_ports()))
    assert read_ports(path, NAMES)["feedback"] == PortPair(grpc=50000, metrics=51000)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"feature": {"grpc": 50000, "metrics": 1}}, "port 50000 is given to feature and to feedback"),
        ({"rankin": {"grpc": 1, "metrics": 2}}, "rankin is not a process here"),
        ({"feature": {"grpc": 0, "metrics": 2}}, "feature: grpc"),
        ({"feature": {"grpc": 7, "metrics": 7}}, "must differ"),
        ({"feature": {"grcp": 7, "metrics": 8}}, "grcp: unknown setting"),
    ],
)
def test_wrong_ports_are_named(tmp_path: Path, change: dict, problem: str) -> None:
    path = tmp_path / "ports.yaml"
    path.write_text(yaml.safe_dump(given_ports() | change))
    with pytest.raises(SetupError, match=r"ports\.yaml") as raised:
        read_ports(path, NAMES)
    assert problem in str(raised.value)


@pytest.mark.parametrize("text", ["[]", "", "{feature: {grpc: 1, metrics: 2}}"])
def test_incomplete_ports_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ports.yaml"
    path.write_text(text)
    with pytest.raises(SetupError, match=r"ports\.yaml"):
        read_ports(path, NAMES)
