#!/usr/bin/env bash
# Protos: style, breaking changes since the last commit, and whether the committed stubs are current.
# Usage: check-protos.sh BIN
set -euo pipefail
bin=$1
"$bin/buf" lint protos

for revision in HEAD HEAD~1; do
    if git rev-parse --quiet --verify "$revision:protos" >/dev/null; then
        "$bin/buf" breaking protos --against ".git#ref=$(git rev-parse $revision),subdir=protos"
    fi
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mapfile -t files < <(find protos -name '*.proto')
"$bin/python" -m grpc_tools.protoc -Iprotos --python_out="$scratch" --pyi_out="$scratch" \
    --grpc_python_out="$scratch" "${files[@]}"
while read -r file; do
    if ! cmp --silent "$scratch/$file" "protos/$file"; then
        echo "error: protos/$file is not what its proto generates; run: make proto" >&2
        exit 1
    fi
done < <(cd "$scratch" && find . -type f)
echo "protos: linted, no breaking change, stubs current"
