#!/usr/bin/env bash
# Looks at a node's status page in a real browser: what it shows of a node under load, by keyboard, in the dark, on a phone,
# with hostile names, and when the node goes away. Needs Python 3 and a Chromium (BROWSER names another; without one it fails).
# Pictures are left in the target directory, under page/. NODE names a binary of the node, CARGO another cargo.
# Exit code 0: everything was as it should be.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
for browser in "${BROWSER:-}" chromium chromium-browser google-chrome; do
    if [ -n "$browser" ] && browser=$(command -v "$browser"); then
        break
    fi
done
if [ -z "${browser:-}" ]; then
    echo "no browser found: install chromium, or name one by BROWSER" >&2
    exit 1
fi
if [ -z "${NODE:-}" ]; then
    "${CARGO:-cargo}" build --locked --bin pairdb-node
    NODE=$target/debug/pairdb-node
fi
mkdir -p "$target/page"
export PYTHONDONTWRITEBYTECODE=1
exec timeout --kill-after 10s 600s python3 tests/page/check.py "$(realpath "$NODE")" "$browser" "$target/page"
