"""Where a run's figures go: TensorBoard always, Weights & Biases and MLflow when `training.trackers` names them.

<state>/training/<scenario>/runs/<run>/    TensorBoard's event file; <run> is the UTC time at which the run began

Figures are named <step>/loss, <step>/learning_rate, <step>/validation by the pipeline's steps ("language-model",
"user-tower", …), counted by optimiser steps of their own; a run's settings are its hyperparameters, the figures of its
bundle its final metrics. Weights & Biases and MLflow are configured by their own environment variables (WANDB_MODE,
WANDB_PROJECT, MLFLOW_TRACKING_URI, …); without MLFLOW_TRACKING_URI the store is <state>/training/<scenario>/mlflow.db.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

from services.runtime.bundle import Manifest
from services.runtime.errors import SetupError
from services.training.config import TrackerName
from services.training.distributed import is_main
from services.training.evaluation import FULL

PROJECT = "recmesh"
RUNS = "runs"
_MLFLOW_BATCH = 200

Hyperparameters = Mapping[str, str | float | bool]


class Tracker(Protocol):
    """One place where figures go."""

    def record(self, step: str, number: int, values: Mapping[str, float]) -> None:
        """As `services.training.progress.Recorder`."""

    def finish(self, metrics: Mapping[str, float]) -> None:
        """The run succeeded, with these final metrics."""

    def close(self) -> None:
        """Write everything out."""


class TensorBoardTracker:
    """An event file in `folder`."""

    def __init__(self, folder: Path, settings: Hyperparameters) -> None:
        self._settings = dict(settings)
        self._writer = SummaryWriter(str(folder))
        # HParams needs the final metrics; a run that is interrupted has its settings at least as text.
        lines = "".join(f"    {name}: {value}\n" for name, value in settings.items())
        self._writer.add_text("settings", lines)

    def record(self, step: str, number: int, values: Mapping[str, float]) -> None:
        """Scalars <step>/<name>."""
        for name, value in values.items():
            self._writer.add_scalar(f"{step}/{name}", value, number)

    def finish(self, metrics: Mapping[str, float]) -> None:
        """The HParams entry, in the same folder."""
        self._writer.add_hparams(self._settings, dict(metrics), run_name=".")

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class WandbTracker:
    """A run of Weights & Biases; its files lie in `folder`."""

    def __init__(self, folder: Path, scenario: str, settings: Hyperparameters) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=scenario,
            name=folder.name,
            dir=folder,
            config=dict(settings),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._steps: set[str] = set()

    def record(self, step: str, number: int, values: Mapping[str, float]) -> None:
        """Each pipeline step has an axis of its own, since W&B's common one may only grow."""
        axis = f"{step}/step"
        if step not in self._steps:
            self._run.define_metric(f"{step}/*", step_metric=axis)
            self._steps.add(step)
        self._run.log({axis: number, **{f"{step}/{name}": value for name, value in values.items()}})

    def finish(self, metrics: Mapping[str, float]) -> None:
        """The run's summary."""
        self._run.summary.update(dict(metrics))

    def close(self) -> None:
        """Wait until everything is written or sent."""
        self._run.finish()


class MlflowTracker:
    """A run of MLflow, in the experiment recmesh-<scenario>."""

    def __init__(self, folder: Path, scenario: str, settings: Hyperparameters) -> None:
        import mlflow

        # Without a store of its own, a file of the working folder would be taken.
        store = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.parent.parent.absolute() / 'mlflow.db'}")
        self._client = mlflow.MlflowClient(tracking_uri=store)
        name = f"{PROJECT}-{scenario}"
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._run_id = self._client.create_run(experiment_id, run_name=folder.name).info.run_id
        self._status = "KILLED"
        self._waiting: list[Any] = []
        for setting, value in settings.items():
            self._client.log_param(self._run_id, setting, value)

    def record(self, step: str, number: int, values: Mapping[str, float]) -> None:
        """Metrics <step>/<name>, written some at a time."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # MLflow's names know no "@".
        named = {f"{step}/{name}".replace("@", ":"): value for name, value in values.items()}
        self._waiting += [Metric(name, value, now, number) for name, value in named.items()]
        if len(self._waiting) >= _MLFLOW_BATCH:
            self._write()

    def finish(self, metrics: Mapping[str, float]) -> None:
        """Metrics final/<name>; the run counts as finished."""
        self.record("final", 0, metrics)
        self._status = "FINISHED"

    def close(self) -> None:
        """Write the rest and end the run: FINISHED when it finished, else KILLED."""
        self._write()
        self._client.set_terminated(self._run_id, self._status)

    def _write(self) -> None:
        self._client.log_batch(self._run_id, metrics=self._waiting)
        self._waiting = []


@contextmanager
def track_run(
    folder: Path, scenario: str, settings: Mapping[str, Any], trackers: Sequence[TrackerName]
) -> Iterator[Sequence[Tracker]]:
    """The trackers of one run under `folder` (a scenario's training folder), closed in the end whatever happens.

    settings: nested JSON-able training settings. Of many processes that train together only the main one tracks; the
    others get no trackers. SetupError when a tracker's package is not installed.
    """
    if not is_main():
        yield ()
        return
    run = folder / RUNS / f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}"
    flat = flatten(settings)
    with ExitStack() as stack:
        opened: list[Tracker] = [TensorBoardTracker(run, flat)]
        stack.callback(opened[0].close)
        for name in trackers:
            try:
                tracker = _OPTIONAL[name](run, scenario, flat)
            except ModuleNotFoundError as error:
                raise SetupError(
                    f"training.trackers: {name}: {error.name} is not installed; run: pip install 'recmesh[tracking]'"
                ) from None
            stack.callback(tracker.close)
            opened.append(tracker)
        yield opened


_OPTIONAL: dict[TrackerName, Callable[[Path, str, Hyperparameters], Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """Nested settings by dotted names, what is neither number nor boolean as text."""
    flat: dict[str, str | float | bool] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, int | float) else str(value)
    return flat


def final_metrics(manifest: Manifest) -> dict[str, float]:
    """The bundle's own figures, by slice and metric."""
    return {f"{row.slice}/{row.metric}": row.value for row in manifest.metrics if row.method == FULL}
