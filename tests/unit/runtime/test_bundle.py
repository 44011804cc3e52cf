import os

import pytest

from services.runtime.bundle import (
    VARIANTS,
    BaseModelInfo,
    Manifest,
    current_version,
    model_versions,
    open_bundle,
    open_current_bundle,
    open_version,
    seal_bundle,
    serve_versions,
    served_versions,
    set_current_version,
    set_variants,
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


class TestServedVersions:
    @pytest.fixture
    def models(self, tmp_path):
        (tmp_path / "video").mkdir()
        return tmp_path

    def test_the_current_one_comes_first_and_each_once(self, models):
        assert served_versions(models, "video") == []
        set_variants(models, "video", ["v2"])
        assert served_versions(models, "video") == []  # nothing to serve beside
        set_current_version(models, "video", "v1")
        assert served_versions(models, "video") == ["v1", "v2"]
        (models / "video" / VARIANTS).write_text("v3\n\n v1 \nv2\nv3\n")
        assert served_versions(models, "video") == ["v1", "v3", "v2"]
        set_variants(models, "video", [])
        assert served_versions(models, "video") == ["v1"]

    def test_what_serves_before_and_after_is_named_at_every_moment(self, models, monkeypatch):
        serve_versions(models, "video", "v1", ["v2", "v3"])
        seen = []
        replace = os.replace

        def watched(*arguments):
            replace(*arguments)
            seen.append(served_versions(models, "video"))

        monkeypatch.setattr("services.runtime.bundle.os.replace", watched)
        serve_versions(models, "video", "v2", ["v1", "v2"])
        assert all({"v1", "v2"} <= set(named) for named in seen)
        assert served_versions(models, "video") == ["v2", "v1"]


def test_a_version_in_a_folder_of_another_name_is_refused(sealed, tmp_path):
    with pytest.raises(SetupError, match="holds version 20260101-000000-abcdef"):
        open_version(tmp_path, "video", "v1")
    right = sealed.path.rename(sealed.path.with_name("20260101-000000-abcdef"))
    assert open_version(tmp_path, "video", right.name).path == right
    assert model_versions(tmp_path, "video") == [right.name]
