#!/usr/bin/env bash
# Checks what is in this directory against the real thing: rules and their tests with promtool; then two nodes under load, which
# a Prometheus scrapes with the configuration that is here, its targets and intervals aside (see check.py). Needs prometheus and
# promtool (Debian's package "prometheus"), Python 3 and cargo; no root, no network. Takes two or three minutes after the build.
# NODE names a binary of the node, which is built otherwise; OTELCOL a collector, which then checks its configuration as well;
# CARGO another cargo. Exit code 0: everything holds.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in prometheus promtool python3; do
    command -v "$tool" >/dev/null || { echo "error: $tool is not there (Debian: apt-get install prometheus python3)" >&2; exit 1; }
done
promtool check config observability/prometheus/prometheus.yml
promtool test rules observability/prometheus/alerts_test.yml
if [ -n "${OTELCOL:-}" ]; then
    "$OTELCOL" validate --config observability/collector/config.yaml
    echo "the collector takes its configuration"
fi
if [ -z "${NODE:-}" ]; then
    "${CARGO:-cargo}" build --locked --bin pairdb-node
    NODE=${CARGO_TARGET_DIR:-target}/debug/pairdb-node
fi
exec timeout --kill-after 10s 300s python3 observability/check.py "$NODE"
