"""Scenarios, state and ports → processes."""

import json
from pathlib import Path

import pytest
import yaml

from deploy.triton.settings import LauncherSettings
from services.candidate.config import CandidateConfig
from services.cli.engines import Engines
from services.cli.plan import PortPair, ProcessSpec, UpdatePlan, plan_processes, plan_updates, process_names
from services.cli.ports import RANGE_VARIABLE, choose_ports, read_ports
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
EMBEDDED = Engines()
AT_SCALE = Engines(event_log="jetstream", feature_store="valkey")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both servers' programs are there."""
    monkeypatch.setattr("services.cli.plan.server_program", lambda name: Path("/usr/bin") / f"{name}-server")


def plan(tmp_path: Path, engines: Engines = EMBEDDED) -> dict[str, ProcessSpec]:
    ports = choose_ports(process_names(SCENARIOS, engines))
    specs = plan_processes(SCENARIOS, [Path("a.yaml")], StateFolder(tmp_path), ports, engines)
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


@pytest.mark.usefixtures("programs")
def test_engines_run_with_the_mesh_and_stop_after_what_uses_them(tmp_path: Path) -> None:
    specs = plan(tmp_path, AT_SCALE)
    assert list(specs)[:2] == ["nats", "valkey"]
    assert max(specs["nats"].stage, specs["valkey"].stage) < min(specs["feedback"].stage, specs["feature"].stage)
    feedback = parse_settings(FeedbackConfig, specs["feedback"].config, "feedback")
    assert feedback.store.engine == "jetstream"
    assert feedback.store.servers == [f"nats://{specs['nats'].address}"]
    feature = parse_settings(FeatureConfig, specs["feature"].config, "feature")
    assert feature.store.engine == "valkey"
    assert feature.store.addresses == [specs["valkey"].address]
    nats, valkey = json.loads(specs["nats"].config_text), specs["valkey"].config_text.splitlines()
    assert nats["jetstream"]["store_dir"] == str(tmp_path / "nats") == str(specs["nats"].data_path)
    assert {'appendonly "yes"', 'appendfsync "always"', f'dir "{tmp_path / "valkey"}"'} <= set(valkey)
    assert specs["valkey"].metrics_address == ""


def test_servers_that_run_already_are_not_started(tmp_path: Path) -> None:
    engines = Engines(event_log="nats://a:1,tls://b:2", feature_store="valkey://c:3")
    specs = plan(tmp_path, engines)
    assert list(specs) == NAMES
    assert specs["feedback"].config["store"]["servers"] == ["nats://a:1", "tls://b:2"]
    assert specs["feature"].config["store"]["addresses"] == ["c:3"]
    parse_settings(FeedbackConfig, specs["feedback"].config, "feedback")
    parse_settings(FeatureConfig, specs["feature"].config, "feature")


def test_updates_listen_nowhere_stop_first_and_pause(tmp_path: Path) -> None:
    updates = plan_updates(SCENARIOS, [Path("a.yaml")], StateFolder(tmp_path), UpdatePlan(0.5, "variant"))
    assert [spec.name for spec in updates] == ["update-video", "update-music"]
    assert min(spec.stage for spec in updates) > max(spec.stage for spec in plan(tmp_path).values())
    command = " ".join(updates[0].command)
    assert f"update video --state {tmp_path} --every 0.5 --serve variant --scenario-file {Path.cwd()}/a.yaml" in command
    assert (updates[0].address, updates[0].protocol, updates[0].pause_s) == ("", "none", 30)


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
        ({"feature": {"grpc": 7}}, "feature needs metrics: PORT"),
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


def test_an_engine_has_one_port(tmp_path: Path) -> None:
    path = tmp_path / "ports.yaml"
    names = process_names(SCENARIOS, AT_SCALE)
    both = {name: {"grpc": 40000 + number} for number, name in enumerate(AT_SCALE.own)}
    path.write_text(yaml.safe_dump(given_ports() | both))
    assert read_ports(path, names)["valkey"] == PortPair(grpc=40001)
    path.write_text(yaml.safe_dump(given_ports() | both | {"nats": {"grpc": 1, "metrics": 2}}))
    with pytest.raises(SetupError, match="nats has no metrics"):
        read_ports(path, names)


@pytest.mark.parametrize("text", ["[]", "", "{feature: {grpc: 1, metrics: 2}}"])
def test_incomplete_ports_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ports.yaml"
    path.write_text(text)
    with pytest.raises(SetupError, match=r"ports\.yaml"):
        read_ports(path, NAMES)


def test_ports_are_of_the_range_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RANGE_VARIABLE, "20000-20100")
    pairs = choose_ports(["a", "b"]).values()
    assert all(20_000 <= port < 20_100 for pair in pairs for port in (pair.grpc, pair.metrics))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("20000-20001", "no free port between 20000 and 20001"),
        *((text, "write LOW-HIGH") for text in ("1", "9-8", "a-b")),
    ],
)
def test_a_range_without_enough_ports_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str, problem: str) -> None:
    monkeypatch.setenv(RANGE_VARIABLE, text)
    with pytest.raises(SetupError, match=problem):
        choose_ports(["a", "b"])
