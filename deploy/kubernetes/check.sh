#!/usr/bin/env bash
# Checks the manifests: each document against the schema of its kind, strictly (a field that Kubernetes does not know is an error),
# with the package kubernetes-validate, which carries the schemas; the configuration in them by the node itself; and, where
# kubectl is there, that kustomize puts them together. Needs Python 3, a package index for the first run, and cargo unless NODE
# names a binary of the node. tests/deploy.rs checks what needs none of that.
#
# VENV   directory for the Python packages, target/deploy-venv when left out
# CARGO  another cargo
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=${VENV:-${CARGO_TARGET_DIR:-target}/deploy-venv}
if [ ! -x "$venv/bin/python" ]; then python3 -m venv "$venv"; fi
"$venv/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate pyyaml

if [ -z "${NODE:-}" ]; then
    "${CARGO:-cargo}" build --locked --bin pairdb-node
    NODE=${CARGO_TARGET_DIR:-target}/debug/pairdb-node
fi
"$venv/bin/python" deploy/kubernetes/check.py "$NODE"

if command -v kubectl >/dev/null; then
    kubectl kustomize deploy/kubernetes >/dev/null
    echo "kustomize puts them together"
fi
