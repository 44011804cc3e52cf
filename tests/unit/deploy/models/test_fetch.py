"""Bundles from a folder and from a bucket: verified, kept, and never half there."""

from pathlib import Path

import pytest

from deploy.models.fetch import fetch_bundle
from deploy.models.settings import BucketSource, FolderSource
from services.runtime.bundle import Bundle
from services.runtime.errors import SetupError
from tests.support.bucket_double import BucketDouble
from tests.support.tiny_bundle import make_tiny_bundle

VERSION = "20260101-000000-tiny"


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    return make_tiny_bundle(tmp_path / "source")


@pytest.fixture
def bucket(tmp_path: Path, made: Bundle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    with BucketDouble("models", tmp_path / "source") as double:
        yield double


def folder_source(tmp_path: Path) -> FolderSource:
    return FolderSource(kind="folder", path=str(tmp_path / "source" / "{scenario}" / "{version}"))


def test_a_folder_is_linked_and_verified(tmp_path, made):
    bundle = fetch_bundle(folder_source(tmp_path), tmp_path / "models", "video", VERSION)
    assert bundle.path == tmp_path / "models" / "video" / VERSION
    assert bundle.path.resolve() == made.path


def test_a_bucket_gives_the_same_files(tmp_path, made, bucket):
    source = BucketSource(kind="s3", url="s3://models", endpoint=bucket.endpoint)
    bundle = fetch_bundle(source, tmp_path / "models", "video", VERSION)
    names = {file.relative_to(made.path) for file in made.path.rglob("*") if file.is_file()}
    assert {file.relative_to(bundle.path) for file in bundle.path.rglob("*") if file.is_file()} == names
    asked = bucket.reads
    fetch_bundle(source, tmp_path / "models", "video", VERSION)
    assert bucket.reads == asked, "what is there and whole is not fetched again"


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_an_altered_file_is_refused_and_leaves_nothing(tmp_path, made, bucket, kind):
    (made.path / "items.parquet").write_bytes(b"other")
    source = (
        folder_source(tmp_path)
        if kind == "folder"
        else BucketSource(kind="s3", url="s3://models", endpoint=bucket.endpoint)
    )
    with pytest.raises(SetupError, match=r"items\.parquet: checksum does not match"):
        fetch_bundle(source, tmp_path / "models", "video", VERSION)
    assert not list((tmp_path / "models" / "video").iterdir())


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_version_that_is_not_there_is_named(tmp_path, bucket, kind):
    source = (
        folder_source(tmp_path)
        if kind == "folder"
        else BucketSource(kind="s3", url="s3://models", endpoint=bucket.endpoint)
    )
    with pytest.raises(SetupError, match="no such bundle"):
        fetch_bundle(source, tmp_path / "models", "video", "20990101-000000-gone")


def test_a_damaged_copy_is_fetched_anew(tmp_path, made, bucket):
    source = BucketSource(kind="s3", url="s3://models", endpoint=bucket.endpoint)
    bundle = fetch_bundle(source, tmp_path / "models", "video", VERSION)
    (bundle.path / "items.parquet").write_bytes(b"other")
    again = fetch_bundle(source, tmp_path / "models", "video", VERSION)
    assert (again.path / "items.parquet").read_bytes() == (made.path / "items.parquet").read_bytes()


def test_a_store_that_is_away_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    source = BucketSource(kind="s3", url="s3://models", endpoint="http://127.0.0.1:9", retries=0)
    with pytest.raises(SetupError, match=r"s3://models/video/.*cannot be fetched"):
        fetch_bundle(source, tmp_path / "models", "video", VERSION)
