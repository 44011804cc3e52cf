"""Settings of a scenario's pool (section `triton` of its file) and of the local launcher's process."""

from pathlib import Path

from pydantic import Field

from services.runtime.config import Settings


class PartSettings(Settings):
    """How one part of the model runs in the pool."""

    instances: int = Field(default=1, ge=1, le=64)
    """Copies that work at the same time; on a CPU each is a process with the model in its memory."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads of one copy within one execution, on a CPU."""


class TritonSettings(Settings):
    """A scenario's pool. Instances, threads and queues are applied when scoring loads a part, so the same bundle runs
    in pools of any size."""

    item_encoder: PartSettings = PartSettings(threads=2)
    """Runs for new items only."""
    user_encoder: PartSettings = PartSettings()
    """Runs once per request."""
    scorer: PartSettings = PartSettings()
    """Runs once per request over all candidates."""
    reranker: PartSettings = PartSettings(threads=2)
    """Runs once per request over the best candidates; the costliest part."""
    queue_delay_us: int = Field(default=0, ge=0, le=1_000_000)
    """How long a request may wait for others to join its batch, in microseconds."""
    queue_size: int = Field(default=64, ge=1)
    """Requests that may wait for one part; more are refused at once."""
    load_timeout_s: int = Field(default=120, ge=1)
    """How long a part may take to load before the load counts as failed."""
    stop_timeout_s: int = Field(default=5, ge=0)
    """After SIGTERM: how long executions in flight may take to finish."""


class LauncherSettings(Settings):
    """The process settings of `python -m deploy.triton`."""

    scenario: str
    """Whose pool it is."""
    scenario_files: list[Path] = Field(min_length=1)
    """Scenario files; one of them describes `scenario`."""
    repository: Path
    """Folder where the scoring service publishes the parts; made when missing. The assembled backends stand beside it
    in `<repository>.backends`."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    grpc_port: int = Field(ge=1, le=65535)
    """Port of inference and model control."""
    metrics_port: int = Field(ge=1, le=65535)
    """Port of /metrics."""
    python: Path | None = None
    """Interpreter of Triton's own environment. None: the environment variable RECMESH_TRITON_PYTHON, else
    .venv-triton/bin/python of this project."""
