#!/usr/bin/env bash
# Makes the environment that the sequential baselines run in. Usage: install.sh FOLDER
set -euo pipefail
folder=$1
here=$(cd "$(dirname "$0")" && pwd)

# numpy 1 ends with Python 3.12.
bash "$here/../../../tools/new-venv.sh" "$folder" 3.12
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar off --no-deps \
    --requirement "$here/requirements.txt"
