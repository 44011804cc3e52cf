"""What `recmesh up` has to run: scenarios, a state folder and ports → process specifications. Nothing starts here."""

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, model_validator

from services.cli.engines import (
    NATS,
    VALKEY,
    Engines,
    event_log_store,
    feature_store,
    nats_settings,
    server_program,
    valkey_settings,
)
from services.cli.state import Protocol, StateFolder
from services.runtime.config import Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario

HOST = "127.0.0.1"


class PortPair(Settings):
    """Where a process listens on the loopback interface."""

    grpc: int = Field(ge=1, le=65535)
    """gRPC port; of an engine's server, the port of its own protocol."""
    metrics: int | None = Field(default=None, ge=1, le=65535)
    """Port of /metrics; an engine's server has none."""

    @model_validator(mode="after")
    def _check(self) -> "PortPair":
        if self.grpc == self.metrics:
            raise ValueError("grpc and metrics must differ")
        return self


@dataclass(frozen=True)
class ProcessSpec:
    """One process to run. `stage` orders the stop: the highest stage stops first."""

    name: str
    stage: int
    command: list[str]
    ports: PortPair | None
    config_path: Path
    config: dict[str, Any] = field(repr=False)
    log_path: Path
    health_service: str
    scenario: str | None = None
    protocol: Protocol = "grpc"
    data_path: Path | None = None
    """A folder that must be there before it starts."""
    pause_s: float = 0.0
    """Least time between its end and its next start, in seconds."""

    @property
    def address(self) -> str:
        """Of its protocol, host:port; empty for none."""
        return "" if self.ports is None else f"{HOST}:{self.ports.grpc}"

    @property
    def metrics_address(self) -> str:
        """HTTP, host:port; empty for none."""
        return "" if self.ports is None or self.ports.metrics is None else f"{HOST}:{self.ports.metrics}"

    @property
    def config_text(self) -> str:
        """What `config_path` holds, by its suffix: YAML, JSON, or the lines of a .conf."""
        if self.config_path.suffix == ".json":
            return json.dumps(self.config, indent=2) + "\n"
        if self.config_path.suffix == ".conf":
            return "".join(f"{name} {json.dumps(value)}\n" for name, value in self.config.items())
        return yaml.safe_dump(self.config, sort_keys=False)


@dataclass(frozen=True)
class UpdatePlan:
    """How `recmesh update` runs beside the mesh."""

    every_minutes: float
    serve: str
    """Its option --serve."""


def triton_name(scenario: str) -> str:
    """Name of the process that is a scenario's Triton."""
    return f"triton-{scenario}"


def scoring_name(scenario: str) -> str:
    """Name of the process that is a scenario's scoring service."""
    return f"scoring-{scenario}"


def process_names(scenarios: Iterable[str], engines: Engines = Engines()) -> list[str]:  # noqa: B008 - it is frozen
    """Names of all processes that listen, in the order they start."""
    pools = [name for scenario in scenarios for name in (triton_name(scenario), scoring_name(scenario))]
    return [*engines.own, "feedback", "feature", *pools, "candidate", "ranking"]


def check_ports(ports: dict[str, PortPair], names: list[str], where: str) -> None:
    """Exactly the processes must have ports, and no port may be given twice. SetupError says what is wrong."""
    if missing := [name for name in names if name not in ports]:
        raise SetupError(f"{where}: no ports for {', '.join(missing)}; give each {{grpc: PORT, metrics: PORT}}")
    if unknown := [name for name in ports if name not in names]:
        raise SetupError(f"{where}: {', '.join(unknown)} is not a process here; processes: {', '.join(names)}")
    owners: dict[int, str] = {}
    for name, pair in ports.items():
        if (pair.metrics is None) != (name in (NATS, VALKEY)):
            needs = "has no metrics; give only {grpc: PORT}" if pair.metrics else "needs metrics: PORT, too"
            raise SetupError(f"{where}: {name} {needs}")
        for port in (pair.grpc, pair.metrics):
            if port is None:
                continue
            if port in owners:
                raise SetupError(f"{where}: port {port} is given to {owners[port]} and to {name}")
            owners[port] = name


def plan_processes(
    scenarios: dict[str, Scenario],
    scenario_files: list[Path],
    state: StateFolder,
    ports: dict[str, PortPair],
    engines: Engines = Engines(),  # noqa: B008 - it is frozen
) -> list[ProcessSpec]:
    """Every process, in the order of starting.

    `ports` has an entry per name of `process_names`. Each process gets a settings file of its own in the state folder.
    SetupError when an engine is to run here and its program is missing.
    """
    files = [str(path.absolute()) for path in scenario_files]

    def address(name: str) -> dict[str, str]:
        return {"address": f"{HOST}:{ports[name].grpc}"}

    def service(name: str, stage: int, config: dict[str, Any], process: str = "", scenario: str = "") -> ProcessSpec:
        process = process or name
        head = {
            "server": {"host": HOST, "port": ports[process].grpc, "metrics_port": ports[process].metrics},
            "scenario_files": files,
        }
        path = state.config(process)
        return ProcessSpec(
            name=process,
            stage=stage,
            command=[sys.executable, "-m", f"services.{name}", "--config", str(path)],
            ports=ports[process],
            config_path=path,
            config=head | config,
            log_path=state.log_file(process),
            health_service=f"recmesh.{name}.v1.{name.capitalize()}Service",
            scenario=scenario or None,
        )

    privacy = {"privacy": {"key_file": str(state.key)}}
    models = str(state.models)
    scoring = {name: address(scoring_name(name)) for name in scenarios}
    specs = [_plan_engine(name, state, ports[name]) for name in engines.own]
    own = {spec.name: spec.address for spec in specs}
    events = event_log_store(engines, state.root / "feedback", own.get(NATS, ""))
    features = feature_store(engines, state.root / "feature", own.get(VALKEY, ""))
    specs.append(service("feedback", 1, {"store": events} | privacy))
    specs.append(service("feature", 2, {"store": features, "feedback": address("feedback")} | privacy))
    for name, scenario in scenarios.items():
        specs.append(_plan_triton(scenario, files, state, ports[triton_name(name)]))
        scoring_config = {
            "scenario": name,
            "models": models,
            "triton": address(triton_name(name)),
            "triton_repository": str(state.triton(name)),
            "feature": address("feature"),
        }
        specs.append(service("scoring", 3, scoring_config, scoring_name(name), name))
    consumers = {"feature": address("feature"), "feedback": address("feedback"), "scoring": scoring}
    specs.append(service("candidate", 4, consumers | {"models": models, "index": {"engine": "faiss"}}))
    folders = {"spool": str(state.spool), "experiments": str(state.experiments)}
    specs.append(service("ranking", 5, consumers | privacy | {"candidate": address("candidate")} | folders))
    return specs


def _plan_triton(scenario: Scenario, files: list[str], state: StateFolder, ports: PortPair) -> ProcessSpec:
    name = triton_name(scenario.name)
    path = state.config(name)
    return ProcessSpec(
        name=name,
        stage=0,
        command=[sys.executable, "-m", "deploy.triton", "--config", str(path)],
        ports=ports,
        config_path=path,
        config={
            "scenario": scenario.name,
            "scenario_files": files,
            "repository": str(state.triton(scenario.name)),
            "host": HOST,
            "grpc_port": ports.grpc,
            "metrics_port": ports.metrics,
        },
        log_path=state.log_file(name),
        health_service="",
        scenario=scenario.name,
    )


def plan_updates(
    scenarios: Iterable[str], scenario_files: list[Path], state: StateFolder, plan: UpdatePlan
) -> list[ProcessSpec]:
    """A process per scenario that updates its model again and again; they start when everything serves."""
    return [_plan_update(name, scenario_files, state, plan) for name in scenarios]


def _plan_engine(name: str, state: StateFolder, ports: PortPair) -> ProcessSpec:
    path = state.config(name, "json" if name == NATS else "conf")
    data = state.engine_data(name)
    settings = nats_settings if name == NATS else valkey_settings
    return ProcessSpec(
        name=name,
        stage=0,
        command=[str(server_program(name)), *(["-c"] if name == NATS else []), str(path)],
        ports=ports,
        config_path=path,
        config=settings(HOST, ports.grpc, data),
        log_path=state.log_file(name),
        health_service="",
        protocol="nats" if name == NATS else "valkey",
        data_path=data,
    )


def _plan_update(scenario: str, files: list[Path], state: StateFolder, plan: UpdatePlan) -> ProcessSpec:
    name = f"update-{scenario}"
    command = [
        "nice", "-n", "10", sys.executable, "-m", "services.cli", "update", scenario, "--state", str(state.root),
        "--every", str(plan.every_minutes), "--serve", plan.serve,
    ]  # fmt: skip
    return ProcessSpec(
        name=name,
        stage=6,
        command=[*command, *(part for file in files for part in ("--scenario-file", str(file.absolute())))],
        ports=None,
        config_path=state.config(name),
        config={},
        log_path=state.log_file(name),
        health_service="",
        scenario=scenario,
        protocol="none",
        # One that was killed or crashed is not followed by the next at once.
        pause_s=60 * plan.every_minutes,
    )
