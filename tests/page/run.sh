#!/usr/bin/env bash
# Looks at a node's status page in a real browser: what it shows of a node under load, by keyboard, in the dark, on a phone,
# with hostile names, and when the node goes away. Needs Python 3 and a Chromium (BROWSER names another; without one it fails);
# `cargo test` needs neither. Pictures are left in the target directory, under page/. CARGO names another cargo.
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
"${CARGO:-cargo}" build --release --locked --bin pairdb-node
mkdir -p "$target/page"
PYTHONDONTWRITEBYTECODE=1 exec python3 tests/page/check.py "$target/release/pairdb-node" "$browser" "$target/page"
