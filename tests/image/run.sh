#!/usr/bin/env bash
# Builds the image of the node by deploy/docker/build.sh, and tries what the image promises: it runs from nothing but itself, its
# health check says 0 while it serves, it stops in order when it is told to, and the check says 1 afterwards. Needs podman or
# docker, and what build.sh needs; it builds in release, and pulls nothing. TOOL names one of the two, IMAGE an image that is
# there already, and RUN_OPTIONS what each `run` is told beside (as `--cgroups=disabled` where there are none), in words parted by
# blanks. Exit code 0: everything was as it should be.
set -euo pipefail
cd "$(dirname "$0")/../.."

tool=${TOOL:-$(command -v podman || command -v docker || true)}
if [ -z "$tool" ]; then echo "error: neither podman nor docker is there (Debian: apt-get install podman)" >&2 && exit 1; fi

image=${IMAGE:-pairdb-node:tried}
if [ -z "${IMAGE:-}" ]; then BUILDER=$(basename "$tool") deploy/docker/build.sh "$image"; fi

read -r -a options <<<"${RUN_OPTIONS:-}"
name=pairdb-node-tried-$$
trap '"$tool" rm --force --volumes "$name" >/dev/null 2>&1 || true; "$tool" volume rm "$name" >/dev/null 2>&1 || true' EXIT
fail() {
    echo "error: $1" >&2
    "$tool" logs "$name" >&2 || true
    exit 1
}

# What the image says of its health, in a container of its own beside the node: by the volume that both have.
check=$("$tool" image inspect --format '{{json .Config.Healthcheck.Test}}' "$image" 2>/dev/null ||
    "$tool" image inspect --format '{{json .HealthCheck.Test}}' "$image")
[ "$check" = '["CMD","/pairdb-node","status"]' ] || fail "the health check of the image is $check"
status() {
    "$tool" run "${options[@]}" --rm --network none --volume "$name:/data" "$image" status
}

"$tool" run "${options[@]}" --detach --name "$name" --read-only --network none --volume "$name:/data" "$image" >/dev/null
begun=$SECONDS
until status >/dev/null 2>&1; do
    ((SECONDS - begun < 60)) || fail "it is not healthy within 60 s"
    sleep 0.5
done
echo "ok: the node serves, and the health check says 0"

"$tool" stop --time 60 "$name" >/dev/null
code=$("$tool" inspect --format '{{.State.ExitCode}}' "$name")
[ "$code" = 0 ] || fail "it stopped with $code"
echo "ok: it stops in order"

code=0
status >/dev/null 2>&1 || code=$?
[ "$code" = 1 ] || fail "the health check of a node that stopped says $code"
echo "ok: the health check says 1"
