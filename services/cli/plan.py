"""What `recmesh up` has to run: scenarios, a state folder and ports → process specifications. Nothing starts here."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from services.cli.state import StateFolder
from services.runtime.config import Settings
from services.runtime.errors import SetupError
from services.runtime.scenario import Scenario

HOST = "127.0.0.1"


class PortPair(Settings):
    """Where a process listens on the loopback interface."""

    grpc: int = Field(ge=1, le=65535)
    """gRPC port."""
    metrics: int = Field(ge=1, le=65535)
    """Port of /metrics."""

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
    ports: PortPair
    config_path: Path
    config: dict[str, Any] = field(repr=False)
    log_path: Path
    health_service: str
    scenario: str | None = None

    @property
    def address(self) -> str:
        """gRPC, host:port."""
        return f"{HOST}:{self.ports.grpc}"

    @property
    def metrics_address(self) -> str:
        """HTTP, host:port."""
        return f"{HOST}:{self.ports.metrics}"


def triton_name(scenario: str) -> str:
    """Name of the process that is a scenario's Triton."""
    return f"triton-{scenario}"


def scoring_name(scenario: str) -> str:
    """Name of the process that is a scenario's scoring service."""
    return f"scoring-{scenario}"


def process_names(scenarios: Iterable[str]) -> list[str]:
    """Names of all processes, in the order they start."""
    pools = [name for scenario in scenarios for name in (triton_name(scenario), scoring_name(scenario))]
    return ["feedback", "feature", *pools, "candidate", "ranking"]


def check_ports(ports: dict[str, PortPair], names: list[str], where: str) -> None:
    """Exactly the processes must have ports, and no port may be given twice. SetupError says what is wrong."""
    if missing := [name for name in names if name not in ports]:
        raise SetupError(f"{where}: no ports for {', '.join(missing)}; give each {{grpc: PORT, metrics: PORT}}")
    if unknown := [name for name in ports if name not in names]:
        raise SetupError(f"{where}: {', '.join(unknown)} is not a process here; processes: {', '.join(names)}")
    owners: dict[int, str] = {}
    for name, pair in ports.items():
        for port in (pair.grpc, pair.metrics):
            if port in owners:
                raise SetupError(f"{where}: port {port} is given to {owners[port]} and to {name}")
            owners[port] = name


def plan_processes(
    scenarios: dict[str, Scenario], scenario_files: list[Path], state: StateFolder, ports: dict[str, PortPair]
) -> list[ProcessSpec]:
    """Every process, in the order of starting.

    `ports` has an entry per name of `process_names`. Each process gets a settings file of its own in the state folder.
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
    specs = [
        service("feedback", 1, {"store": {"engine": "sqlite", "path": str(state.root / "feedback")}} | privacy),
        service(
            "feature",
            2,
            {"store": {"engine": "lmdb", "path": str(state.root / "feature")}, "feedback": address("feedback")}
            | privacy,
        ),
    ]
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
    specs.append(
        service("ranking", 5, consumers | privacy | {"candidate": address("candidate"), "spool": str(state.spool)})
    )
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
