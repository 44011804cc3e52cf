"""Brings one bundle to its place and verifies it. What is not whole never gets there."""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from deploy.models.settings import BucketSource, FolderSource, Source
from services.runtime.bundle import Bundle, open_version
from services.runtime.errors import SetupError

if TYPE_CHECKING:
    from obstore.store import S3Config


def fetch_bundle(source: Source, models: Path, scenario: str, version: str) -> Bundle:
    """The verified bundle at models/<scenario>/<version>. SetupError says what is missing or altered.

    One that is there and whole is kept, so that a container that is started again does not fetch anew.
    """
    place = models / scenario / version
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        try:
            return open_version(models, scenario, version)
        except SetupError:
            _remove(place)
    if isinstance(source, FolderSource):
        _link(source, place, scenario, version)
    else:
        _download(source, place, scenario, version)
    try:
        return open_version(models, scenario, version)
    except SetupError:
        _remove(place)
        raise


def _link(source: FolderSource, place: Path, scenario: str, version: str) -> None:
    folder = Path(source.path.format(scenario=scenario, version=version))
    if not folder.is_dir():
        raise SetupError(f"{folder}: no such bundle; put version {version} of {scenario} there, or correct the version")
    place.unlink(missing_ok=True)
    place.symlink_to(folder)


def _download(source: BucketSource, place: Path, scenario: str, version: str) -> None:
    bucket, _, prefix = source.url.removeprefix("s3://").partition("/")
    root = str(PurePosixPath(prefix, scenario, version))
    scratch = place.with_name(f".{place.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    plain = (source.endpoint or "").startswith("http://")
    try:
        config: S3Config = {"region": source.region, "virtual_hosted_style_request": False}
        if source.endpoint:
            config["endpoint"] = source.endpoint
        store = S3Store(
            bucket,
            config=config,
            client_options={"allow_http": plain},
            retry_config={"max_retries": source.retries},
        )
        names = [entry["path"] for batch in obstore.list(store, prefix=root) for entry in batch]
        for name in names:
            file = scratch / PurePosixPath(name).relative_to(root)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as target:
                for part in obstore.get(store, name).stream():
                    target.write(part)
    except (BaseError, OSError) as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise SetupError(f"{source.url}/{scenario}/{version}: cannot be fetched: {error}") from error
    if not names:
        raise SetupError(f"{source.url}/{scenario}/{version}: no such bundle; put it there, or correct the version")
    os.replace(scratch, place)


def _remove(place: Path) -> None:
    if place.is_symlink():
        place.unlink()
    else:
        shutil.rmtree(place, ignore_errors=True)
