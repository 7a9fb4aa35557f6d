#!/usr/bin/env bash
# Makes prometheusrule.yaml of the alerts in observability/prometheus/alerts.yml; tests/deploy.rs fails when it was not run after a
# change of them.
set -euo pipefail
cd "$(dirname "$0")"
{
    cat <<'HEAD'
# Made by rules.sh of observability/prometheus/alerts.yml: change that.

apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: pairdb-storage-node
  namespace: pairdb
  labels:
    app.kubernetes.io/name: pairdb-storage-node
    app.kubernetes.io/part-of: pairdb
spec:
HEAD
    sed -n '/^groups:/,$ s/^\(.\)/  \1/p; /^groups:/,$ s/^$//p' ../../observability/prometheus/alerts.yml
} >prometheusrule.yaml
