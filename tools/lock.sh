#!/usr/bin/env bash
# Prints exact versions of everything installed, as a constraints file. Usage: lock.sh BIN
set -euo pipefail
echo "# Exact versions, written by \`make lock\`. Ranges are in pyproject.toml."
# A local build tag such as +cpu names one index's file; the version itself is what is pinned.
"$1/python" -m pip freeze --exclude-editable --all | grep -vE '^(pip|setuptools|wheel)==' | sed -E 's/\+[a-z0-9.]+$//'
