#!/usr/bin/env bash
# Talks to real nodes with a client that none of the node's code made: Google's gRPC for Python, with stubs generated from
# a proto file of its own (python/storage.proto). Needs Python 3 and a package index; `cargo test` needs neither.
# Exit code 0: every answer was as the wire contract has it. CARGO names another cargo.
set -euo pipefail
cd "$(dirname "$0")/../.."
clients=tests/clients/python
target=${CARGO_TARGET_DIR:-target}
work=$target/clients

"${CARGO:-cargo}" build --release --locked --bin pairdb-node
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$clients/requirements.txt"
mkdir -p "$work/stubs"
"$work/venv/bin/python" -m grpc_tools.protoc --proto_path "$clients" \
    --python_out "$work/stubs" --grpc_python_out "$work/stubs" storage.proto
PYTHONPATH=$work/stubs PYTHONDONTWRITEBYTECODE=1 \
    exec "$work/venv/bin/python" "$clients/check.py" "$target/release/pairdb-node"
