"""What a run's figures become in each tracker, read back with the tracker's own means."""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from services.runtime.errors import SetupError
from services.training.config import TrackerName
from services.training.progress import Reporter
from services.training.tracking import flatten, track_run
from tests.support.waiting import wait_for

# mlflow and wandb take seconds to import, which every process would spend that collects the tests.
if TYPE_CHECKING:
    from mlflow import MlflowClient

SETTINGS = {"seed": 7, "reranker": {"enabled": True, "targets": ["query"]}}


def run(folder: Path, *trackers: TrackerName) -> Path:
    """A run of three optimiser steps and one validation. Returns its folder."""
    with track_run(folder, "tiny", SETTINGS, trackers) as opened:
        reporter = Reporter(Console(quiet=True), opened)
        for number in range(3):
            reporter.record("user-tower", number, {"loss": 3.0 - number, "learning_rate": 0.5})
        reporter.record("user-tower", 2, {"validation": 0.25})
        reporter.record("scorer", 0, {"loss": 9.0})
        for tracker in opened:
            tracker.finish({"all/ndcg@10": 0.125})
    (place,) = (folder / "runs").iterdir()
    return place


def open_store(folder: Path) -> "MlflowClient":
    """What MLflow keeps where it is told nothing else."""
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def test_settings_are_flat_and_of_simple_types() -> None:
    assert flatten(SETTINGS) == {"seed": 7, "reranker.enabled": True, "reranker.targets": "['query']"}


def test_tensorboard_is_always_written(tmp_path: Path) -> None:
    events = EventAccumulator(str(run(tmp_path)))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("user-tower/loss")]
    assert found == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert [event.step for event in events.Scalars("scorer/loss")] == [0]
    assert events.Scalars("user-tower/validation")[0].value == 0.25
    assert events.Scalars("user-tower/learning_rate")[1].value == 0.5
    assert events.Scalars("all/ndcg@10")[0].value == 0.125
    assert b"reranker.enabled" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]


def test_a_run_that_fails_keeps_what_it_had(tmp_path: Path) -> None:
    def interrupted() -> None:
        with track_run(tmp_path, "tiny", SETTINGS, ["mlflow"]) as opened:
            Reporter(Console(quiet=True), opened).record("scorer", 0, {"loss": 9.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (place,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(place))
    events.Reload()
    assert events.Scalars("scorer/loss")[0].value == 9.0
    client = open_store(tmp_path)
    experiment = client.get_experiment_by_name("recmesh-tiny")
    assert client.search_runs([experiment.experiment_id])[0].info.status == "KILLED"


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(tmp_path, "mlflow")
    client = open_store(tmp_path)
    experiment = client.get_experiment_by_name("recmesh-tiny")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["reranker.enabled"] == "True"
    assert found.data.metrics["final/all/ndcg:10"] == 0.125
    history = client.get_metric_history(found.info.run_id, "user-tower/loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(0, 3.0), (1, 2.0), (2, 1.0)]


def wandb_records(data: bytes) -> Iterator[Any]:
    """What an offline run holds: blocks of 32 KiB of records (checksum, length, type) in LevelDB's log format."""
    from wandb.proto import wandb_internal_pb2

    place, block, whole = 7, 32_768, b""
    while place + 7 <= len(data):
        left = block - place % block
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if place + 7 + length > len(data):
            return  # it is being written
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    place = run(tmp_path, "wandb")
    (file,) = place.rglob("run-*.wandb")
    # W&B's own process writes the file, and may be a moment later than the call that ends the run.
    wait_for(lambda: any(record.HasField("exit") for record in wandb_records(file.read_bytes())))
    losses, summary, settings = [], {}, set()
    for record in wandb_records(file.read_bytes()):
        settings |= {item.key for item in record.run.config.update}
        row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        if "user-tower/loss" in row:
            losses.append((int(row["user-tower/step"]), float(row["user-tower/loss"])))
        summary |= {item.key or "/".join(item.nested_key): item.value_json for item in record.summary.update}
    assert losses == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert summary["all/ndcg@10"] == "0.125"
    assert {"seed", "reranker.enabled"} <= settings


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SetupError, match=r"training\.trackers: wandb"), track_run(tmp_path, "tiny", {}, ["wandb"]):
        pass
