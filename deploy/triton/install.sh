#!/usr/bin/env bash
# Makes the environment that the local Triton runs in. Usage: install.sh FOLDER
set -euo pipefail
folder=$1
here=$(cd "$(dirname "$0")" && pwd)

# onnxruntime's pinned wheel begins with Python 3.11, numpy's ends with 3.12.
bash "$here/../../tools/new-venv.sh" "$folder" 3.12
python=$folder/bin/python

has_libpython() {
    "$python" - <<'CHECK'
import ctypes, os, sys, sysconfig
name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
try:
    ctypes.CDLL(name)
except OSError:
    sys.exit(not os.path.exists(os.path.join(sysconfig.get_config_var("LIBDIR"), name)))
CHECK
}

# The stub is linked against the interpreter's shared library.
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! has_libpython; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -q && apt-get install -qy "libpython$version"
    fi
    if ! has_libpython; then
        echo "error: libpython$version.so is missing; run: sudo apt-get install libpython$version (or build this Python" \
            "with --enable-shared)" >&2
        exit 1
    fi
fi

"$python" -m pip install --quiet --disable-pip-version-check --progress-bar off --no-deps \
    --requirement "$here/requirements.txt"
