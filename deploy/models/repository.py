"""A model repository for a pool that loads all of it at start, sized as the scenario says."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from deploy.triton.model_config import PARTS, pool_config
from deploy.triton.settings import TritonSettings
from services.runtime.bundle import Bundle


def lay_out(repository: Path, bundles: Iterable[Bundle], settings: TritonSettings) -> list[str]:
    """Fill `repository` with `<part>-<model_version>` of every part that is served; returns these names.

    The models' files are linked; config.pbtxt is written with the pool's own sizes, which otherwise travel with the
    load request.
    """
    shutil.rmtree(repository, ignore_errors=True)
    names = []
    for bundle in bundles:
        for part in PARTS:
            if part == "reranker" and bundle.manifest.served_reranker is None:
                continue
            source = (bundle.triton_path / part).resolve()
            name = f"{part}-{bundle.manifest.model_version}"
            folder = repository / name
            folder.mkdir(parents=True)
            sized = pool_config((source / "config.pbtxt").read_text(), getattr(settings, part), settings)
            config = json_format.Parse(sized, pb.ModelConfig())
            (folder / "config.pbtxt").write_text(text_format.MessageToString(config))
            for entry in source.iterdir():
                if entry.name != "config.pbtxt":
                    (folder / entry.name).symlink_to(entry)
            names.append(name)
    return names
