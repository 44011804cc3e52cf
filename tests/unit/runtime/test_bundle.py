import pytest

from services.runtime.bundle import (
    BaseModelInfo,
    Manifest,
    current_version,
    open_bundle,
    open_current_bundle,
    seal_bundle,
    set_current_version,
)
from services.runtime.errors import SetupError


def manifest() -> Manifest:
    return Manifest(
        scenario="video",
        model_version="20260101-000000-abcdef",
        created_time="2026-01-01T00:00:00Z",
        data_fingerprint="abcdef",
        base_model=BaseModelInfo(name="tiny", licence="Apache-2.0"),
        method={},
        split={},
        metrics=[],
        tasks=["click"],
        calibration={},
        vector_dimension=8,
        history_length=4,
        history_events=8,
        item_text="{title}",
        item_tokens=8,
        item_encoder_version="1",
        feature_names=["cf"],
        history_recency={"cf": {"decay": 0.9}},
    )


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "video" / "v1"
    (path / "triton" / "scorer" / "1").mkdir(parents=True)
    (path / "triton" / "scorer" / "1" / "model.onnx").write_bytes(b"model")
    (path / "tokenizer.json").write_text("{}")
    return seal_bundle(path, manifest())


def test_a_sealed_bundle_opens_with_its_files_listed(sealed):
    opened = open_bundle(sealed.path)
    assert opened == sealed
    assert set(opened.manifest.files) == {"tokenizer.json", "triton/scorer/1/model.onnx"}


@pytest.mark.parametrize("name", ["tokenizer.json", "triton/scorer/1/model.onnx", "manifest.json"])
def test_an_altered_file_is_refused_by_name(sealed, name):
    with (sealed.path / name).open("a") as file:
        file.write(" ")
    with pytest.raises(SetupError, match=name + ".*checksum"):
        open_bundle(sealed.path)


@pytest.mark.parametrize("name", ["tokenizer.json", "manifest.json", "manifest.sha256"])
def test_a_missing_file_is_refused_by_name(sealed, name):
    (sealed.path / name).unlink()
    with pytest.raises(SetupError, match=name):
        open_bundle(sealed.path)


def test_current_points_to_one_version(sealed, tmp_path):
    assert current_version(tmp_path, "video") is None
    with pytest.raises(SetupError, match="recmesh adapt video"):
        open_current_bundle(tmp_path, "video")
    set_current_version(tmp_path, "video", "v1")
    assert current_version(tmp_path, "video") == "v1"
    assert open_current_bundle(tmp_path, "video") == sealed
