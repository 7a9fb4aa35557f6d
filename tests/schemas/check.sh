#!/usr/bin/env bash
# Holds the manifests in deploy/kubernetes against the schemas of the Python package kubernetes-validate itself, strictly, and the
# copies in this directory against the package. PYTHON names an interpreter that has the package; otherwise one is made in a
# directory of its own, for which the package is fetched. The kinds of prometheus-operator are not in it: the tests in
# tests/deploy.rs have these. Exit code 0: all is as it should be.
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-}
if [ -z "$python" ] && python3 -c 'import kubernetes_validate' 2>/dev/null; then python=python3; fi
if [ -z "$python" ]; then
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
    python3 -m venv "$dir"
    "$dir/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0 >&2
    python=$dir/bin/python
fi

"$python" make.py --check
echo "ok: the schemas here are those of the package"
for version in 1.30 1.37; do
    for manifest in ../../deploy/kubernetes/*.yaml; do
        case $(sed -n 's/^kind: //p' "$manifest" | head -1) in
            # One of kubectl's own files, and two of prometheus-operator's.
            Kustomization | PrometheusRule | ServiceMonitor) continue ;;
        esac
        "$python" -m kubernetes_validate --strict --no-warn --kubernetes-version "$version" "$manifest"
    done
done
echo "ok: the manifests are valid"
