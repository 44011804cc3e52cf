#!/usr/bin/env bash
# Unpacks Debian's nats-server into a folder, for `recmesh up --event-log jetstream` and tests. Usage: install.sh FOLDER
# Nothing is installed on the machine: the package itself would start a service.
set -euo pipefail
folder=$1

if command -v nats-server >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "error: nats-server is not on PATH, and this is no Debian to take the package from" >&2
    exit 1
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
if ! apt-get download -q -o APT::Sandbox::User=root nats-server; then
    # The lists of packages may be old or missing; only root may renew them.
    [ "$(id -u)" = 0 ] && apt-get update -q && apt-get download -q -o APT::Sandbox::User=root nats-server
fi
cd - >/dev/null
mkdir -p "$folder"
dpkg-deb -x "$scratch"/nats-server_*.deb "$folder"
"$folder/usr/sbin/nats-server" --version
