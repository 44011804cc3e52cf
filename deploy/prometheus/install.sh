#!/usr/bin/env bash
# Unpacks Debian's prometheus, promtool and alertmanager into a folder. Usage: install.sh FOLDER
# Nothing is installed on the machine: the packages themselves would start services.
set -euo pipefail
folder=$1

if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "error: prometheus and promtool are not on PATH, and this is no Debian to take the package from" >&2
    exit 1
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
packages=(prometheus prometheus-alertmanager)
if ! apt-get download -q -o APT::Sandbox::User=root "${packages[@]}"; then
    # The lists of packages may be old or missing; only root may renew them.
    [ "$(id -u)" = 0 ] && apt-get update -q && apt-get download -q -o APT::Sandbox::User=root "${packages[@]}"
fi
cd - >/dev/null
mkdir -p "$folder"
for package in "$scratch"/*.deb; do
    dpkg-deb -x "$package" "$folder"
done
"$folder/usr/bin/promtool" --version
