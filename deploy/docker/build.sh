#!/usr/bin/env bash
# Builds an image of the node without pulling anything: a static binary by cargo, then the image by buildah, podman or docker,
# whichever is there. Usage: deploy/docker/build.sh [IMAGE], "pairdb-node:local" when left out.
#
# BINARY   a static binary that there is; without it one is built
# PROFILE  cargo's profile, "release" when left out
# TARGET   what to build for, glibc of this machine's processor when left out; a musl target needs that target and a C
#          compiler for musl
# BUILDER  buildah, podman or docker; "none" lays out the context alone, and says where
# CARGO    another cargo
set -euo pipefail
cd "$(dirname "$0")/../.."

image=${1:-pairdb-node:local}
target=${TARGET:-$(uname -m)-unknown-linux-gnu}
profile=${PROFILE:-release}

builder=${BUILDER:-}
if [ -z "$builder" ]; then
    for tool in buildah podman docker; do
        if command -v "$tool" >/dev/null; then builder=$tool && break; fi
    done
fi
if [ -z "$builder" ]; then
    echo "error: none of buildah, podman and docker is there (Debian: apt-get install buildah)" >&2
    exit 1
fi

if [ -z "${BINARY:-}" ]; then
    # With --target the flags are for the node alone, not for what builds it. glibc warns that getaddrinfo, linked statically,
    # loads libraries at run time where /etc/nsswitch.conf asks for more than files and dns. The image has no such file, and
    # glibc's own "files" and "dns" stand in the binary: names are looked up in /etc/hosts and by /etc/resolv.conf.
    RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
        "${CARGO:-cargo}" build --locked --profile "$profile" --target "$target" --bin pairdb-node
    # The profile "dev" is the one whose directory has another name.
    BINARY=${CARGO_TARGET_DIR:-target}/$target/${profile/#dev/debug}/pairdb-node
fi

# A binary that names an interpreter, or libraries, would not start in an empty image.
# On a line of its own: without readelf there is an end here, and no image.
parts=$(readelf --program-headers --dynamic "$BINARY")
if grep -E 'INTERP|\(NEEDED\)' <<<"$parts" >&2; then
    echo "error: $BINARY is not static" >&2
    exit 1
fi

context=$(mktemp -d)
if [ "$builder" != none ]; then trap 'rm -rf "$context"' EXIT; fi
install -m 0755 "$BINARY" "$context/pairdb-node"
install -d "$context/data"
cp deploy/docker/Dockerfile "$context/Dockerfile"

case $builder in
    # OCI's own format has no health check.
    buildah | podman) "$builder" build --format docker --tag "$image" "$context" ;;
    docker) docker build --tag "$image" "$context" ;;
    none) echo "$context" && exit ;;
    *) echo "error: BUILDER=$builder: must be buildah, podman, docker or none" >&2 && exit 1 ;;
esac
echo "built $image with $builder"
