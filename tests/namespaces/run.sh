#!/usr/bin/env bash
# Three nodes, each in a network namespace of its own, on a switch in a fourth: they join by gossip, one is killed, comes back with
# its data, is cut off, is let back, drains, and leaves; after each step all sides must see the same (see nodes.py). Needs root,
# iproute2 and Python 3; the network of the machine itself is not touched. NODE names a binary of the node, CARGO another cargo.
# Exit code 0: everything was as it should be.
set -euo pipefail
cd "$(dirname "$0")/../.."
if [ "$(id -u)" != 0 ]; then echo "error: only root makes network namespaces" >&2 && exit 1; fi
for tool in ip python3; do
    command -v "$tool" >/dev/null || { echo "error: $tool is not there (Debian: apt-get install iproute2 python3)" >&2 && exit 1; }
done
if [ -z "${NODE:-}" ]; then
    "${CARGO:-cargo}" build --locked --bin pairdb-node
    NODE=${CARGO_TARGET_DIR:-target}/debug/pairdb-node
fi
exec timeout --kill-after 10s 600s python3 tests/namespaces/nodes.py "$(realpath "$NODE")"
