#!/usr/bin/env bash
# Makes a virtual environment, unless it is there. Usage: new-venv.sh FOLDER NEWEST_PYTHON, e.g. new-venv.sh .venv 3.13
set -euo pipefail
folder=$1 newest=$2

if [ -x "$folder/bin/python" ]; then
    exit 0
fi
python=""
for name in python3.11 python3 python3.12 python3.13; do
    if command -v "$name" >/dev/null && "$name" - "$newest" <<'CHECK' 2>/dev/null; then
import sys
newest = tuple(int(part) for part in sys.argv[1].split("."))
sys.exit(not (3, 11) <= sys.version_info[:2] <= newest)
CHECK
        python=$name
        break
    fi
done
if [ -z "$python" ]; then
    echo "error: Python 3.11 to $newest is needed and none was found on PATH" >&2
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
"$python" -m venv "$folder"
