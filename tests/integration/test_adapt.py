"""`recmesh adapt` on a tiny scenario with a tiny, randomly initialised BERT: tables in, sealed bundle out."""

from pathlib import Path

import numpy as np
import onnxruntime
import pyarrow as pa
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from services.cli.adapt import adapt
from services.model.history import build_history_inputs
from services.model.text import content_hash
from services.runtime.bundle import Bundle, open_current_bundle
from services.runtime.errors import SetupError
from services.training import assemble, pipeline
from services.training.exported import open_session
from services.training.reproduce import largest_difference
from tests.support.tiny_training import HOUR_MS, make_base_model, make_tables, small_training, write_scenarios


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder in which `recmesh adapt tiny` has run."""
    folder = tmp_path_factory.mktemp("state")
    make_base_model(folder / "base")
    make_tables(folder / "data" / "tiny")
    file = write_scenarios(folder / "tiny.yaml", tiny=small_training(folder / "base"))
    adapt("tiny", state=folder, scenario_file=[file])
    return folder


@pytest.fixture(scope="module")
def bundle(state: Path) -> Bundle:
    return open_current_bundle(state / "models", "tiny")


def session(bundle: Bundle, part: str) -> onnxruntime.InferenceSession:
    return open_session(bundle.triton_path / part / "1" / "model.onnx", threads=1)


def test_the_bundle_is_whole(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.tasks == ["click", "conversion", "rating"]
    assert manifest.reranker is not None
    assert manifest.reranker.reranker_weight >= 0
    assert set(manifest.calibration) == set(manifest.tasks)
    steps = manifest.method["steps"]
    assert {"language-model", "user-tower", "features", "scorer", "reranker"} <= set(steps)
    assert [row["round"] for row in steps["user-tower"]["rounds"]] == [1, 2]
    assert all({"loss", "validation"} <= set(row) for row in steps["user-tower"]["rounds"])
    assert {(row.method, row.slice, row.metric) for row in manifest.metrics} >= {
        (method, "all", "ndcg@10") for method in ("full", "popularity", "item_knn", "ease", "frozen_text")
    }
    assert np.allclose(np.linalg.norm(np.load(bundle.path / "item_vectors.npy"), axis=1), 1.0, atol=1e-5)
    items = pa.parquet.read_table(bundle.path / "items.parquet").to_pylist()
    assert [row["content_hash"] for row in items] == [content_hash(row["text"]) for row in items]


def test_every_part_runs_from_history_to_scores(bundle: Bundle) -> None:
    manifest = bundle.manifest
    vectors = np.load(bundle.path / "item_vectors.npy")
    history = build_history_inputs(vectors[:3], [8, 8, 8], [0, HOUR_MS, 2 * HOUR_MS], manifest.history_length)
    (user_vector,) = session(bundle, "user_encoder").run(["user_vector"], history)
    outputs = session(bundle, "scorer").run(
        [*manifest.tasks, "attention"],
        {
            "user_vector": user_vector, **history, "candidate_vectors": vectors[None, :7],
            "features": np.zeros((1, 7, len(manifest.feature_names)), np.float32),
        },
    )  # fmt: skip
    assert [output.shape for output in outputs] == [(1, 7)] * 3 + [(1, 7, manifest.history_length)]
    ids, mask = np.array([[2, 5, 7, 3]]), np.ones((1, 4), np.int64)
    (vector,) = session(bundle, "item_encoder").run(["vector"], {"input_ids": ids, "attention_mask": mask})
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-4)
    (logits,) = session(bundle, "reranker").run(
        ["click"],
        {
            "history_ids": ids, "history_mask": mask, "candidate_ids": np.repeat(ids[None], 3, axis=1),
            "candidate_mask": np.repeat(mask[None], 3, axis=1),
        },
    )  # fmt: skip
    assert np.ptp(logits) == pytest.approx(0.0, abs=1e-5)


def test_configs_are_complete(bundle: Bundle) -> None:
    for part in ("item_encoder", "user_encoder", "scorer", "reranker"):
        text = (bundle.triton_path / part / "config.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        assert not config.name
        assert config.backend == "onnxruntime"
        assert config.max_batch_size > 0
        assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO
        assert config.HasField("dynamic_batching")
        assert config.model_warmup
        found = session(bundle, part)
        assert {tensor.name for tensor in config.input} == {tensor.name for tensor in found.get_inputs()}
        assert {tensor.name for tensor in config.output} == {tensor.name for tensor in found.get_outputs()}


def test_a_second_run_repeats_nothing(state: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a finished step was repeated")

    for step in ("adapt_items", "train_users", "train_scorer", "train_reranker"):
        monkeypatch.setattr(pipeline, step, fail)
    monkeypatch.setattr(assemble, "export_bundle", fail)
    adapt("tiny", state=state, scenario_file=[state / "tiny.yaml"])
    assert open_current_bundle(state / "models", "tiny").manifest.model_version == bundle.manifest.model_version


def test_an_interrupted_run_continues(state: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Other settings of the re-ranker alone: the steps before it are kept, and so is what it had done."""
    training = small_training(state / "base")
    training["reranker"]["steps"] = 20
    file = write_scenarios(tmp_path / "tiny.yaml", tiny=training)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(assemble, "calibrate_bundle", interrupt)
        with pytest.raises(KeyboardInterrupt):
            adapt("tiny", state=state, scenario_file=[file])
    for step in ("adapt_items", "train_users", "train_scorer", "train_reranker"):
        monkeypatch.setattr(pipeline, step, interrupt)
    monkeypatch.setattr(assemble, "export_bundle", interrupt)
    before = open_current_bundle(state / "models", "tiny").manifest.model_version
    adapt("tiny", state=state, scenario_file=[file])
    assert open_current_bundle(state / "models", "tiny").manifest.model_version > before


def test_a_bundle_is_made_again_from_its_manifest(state: Path, bundle: Bundle, tmp_path: Path) -> None:
    """In a state folder of its own, by the scenario file's other settings."""
    file = write_scenarios(tmp_path / "tiny.yaml", tiny={"base_model": str(state / "base"), "seed": 99})
    make_tables(tmp_path / "data" / "tiny")
    adapt("tiny", state=tmp_path, scenario_file=[file], from_manifest=bundle.path)
    again = open_current_bundle(tmp_path / "models", "tiny").manifest
    assert again.method["settings"] == bundle.manifest.method["settings"]
    assert again.environment == bundle.manifest.environment
    assert {"torch", "transformers", "python", "device"} <= again.environment.keys()
    assert largest_difference(bundle.manifest, again) < 1e-6
    assert [row["loss"] for row in again.method["steps"]["scorer"]["rounds"]] == [
        row["loss"] for row in bundle.manifest.method["steps"]["scorer"]["rounds"]
    ]


def test_a_manifest_of_other_data_is_refused(state: Path, bundle: Bundle, tmp_path: Path) -> None:
    file = write_scenarios(tmp_path / "tiny.yaml", tiny={"base_model": str(state / "base")})
    make_tables(tmp_path / "data" / "tiny")
    events = pa.parquet.read_table(tmp_path / "data" / "tiny" / "events.parquet")
    pa.parquet.write_table(events.slice(1), tmp_path / "data" / "tiny" / "events.parquet")
    with pytest.raises(SetupError, match="other tables"):
        adapt("tiny", state=tmp_path, scenario_file=[file], from_manifest=bundle.path)


def test_a_base_model_that_is_not_there(state: Path, tmp_path: Path) -> None:
    file = write_scenarios(tmp_path / "tiny.yaml", tiny=small_training(tmp_path / "nothing"))
    with pytest.raises(SetupError, match="base_model"):
        adapt("tiny", state=state, scenario_file=[file])
