#!/usr/bin/env bash
# Builds the images with buildah, where it can; where it cannot, says why and ends well. Usage: build.sh [IMAGE …]
#
#   BASE  image to build on; empty: python:3.11-slim-bookworm where its registry can be reached, else a base made by
#         debootstrap (Debian 12 with its Python 3.11)
#   TAG   tag of the images (the version in pyproject.toml)
set -euo pipefail
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
tag=${TAG:-$version}
revision=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
images=("${@:-services}")
# Isolation by chroot and plain files: works in a container, without user namespaces and without overlays.
common=(--isolation=chroot --storage-driver=vfs)

skip() {
    echo "images not built: $1"
    exit 0
}

command -v buildah >/dev/null || skip "buildah is missing (Debian: apt-get install buildah)"
[ "$(id -u)" = 0 ] || skip "buildah builds here as root only"

made_base() {
    local name=localhost/recmesh-base:bookworm
    if ! buildah --storage-driver=vfs inspect --type image "$name" >/dev/null 2>&1; then
        command -v debootstrap >/dev/null || skip "no registry can be reached for a base image, and debootstrap is missing"
        local root
        root=$(mktemp -d)
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root" >&2 ||
            skip "debootstrap failed; see above"
        rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
        local container
        container=$(buildah --storage-driver=vfs from scratch)
        buildah --storage-driver=vfs copy --quiet "$container" "$root" / >/dev/null
        buildah --storage-driver=vfs commit --quiet --rm "$container" "$name" >/dev/null
        rm -rf "$root"
    fi
    echo "$name"
}

base=${BASE:-}
if [ -z "$base" ]; then
    default=docker.io/library/python:3.11-slim-bookworm
    if timeout 60 buildah --storage-driver=vfs pull --quiet "$default" >/dev/null 2>&1; then
        base=$default
    else
        base=$(made_base)
        [ -n "$base" ] || skip "there is no base image"
    fi
fi

# The package index that this machine's pip uses, so that the build uses it, too.
extra=()
for file in /etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf"; do
    if [ -f "$file" ]; then
        extra+=(--volume "$file:/etc/pip.conf:ro")
        break
    fi
done

# And the authorities that this machine trusts, where there are any.
authorities=/etc/ssl/certs/ca-certificates.crt
if [ -f "$authorities" ]; then
    extra+=(--volume "$authorities:$authorities:ro")
fi

for image in "${images[@]}"; do
    buildah "${common[@]:1}" bud "${common[0]}" --format oci --layers=false "${extra[@]}" \
        --build-arg BASE="$base" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
        --file "deploy/docker/$image.Dockerfile" --tag "recmesh/$image:$tag" .
done

# What the chart runs in the image of the services starts there, as the user it will be.
for image in "${images[@]}"; do
    [ "$image" = services ] || continue
    container=$(buildah --storage-driver=vfs from --pull-never "recmesh/$image:$tag")
    for program in services.{ranking,feature,candidate,feedback,scoring} deploy.models deploy.helm; do
        buildah --storage-driver=vfs run "${common[0]}" "$container" -- python -m "$program" --help >/dev/null
        echo "recmesh/$image:$tag: $program starts"
    done
    buildah --storage-driver=vfs run "${common[0]}" "$container" -- sh -c 'test "$(id -u)" = 10001 && ! python -c "import torch"' \
        2>/dev/null || { echo "error: recmesh/$image:$tag runs as root or holds torch" >&2; exit 1; }
    buildah --storage-driver=vfs rm "$container" >/dev/null
done
buildah --storage-driver=vfs images
