"""Checks the manifests against the schemas of Kubernetes, and the configuration in them by the node: see check.sh."""

import os
import pathlib
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

HERE = pathlib.Path(__file__).parent
# The oldest version with all that is used, and the newest that the package knows.
OLDEST = "1.32"
# Kinds of the Prometheus operator, and kustomize's own: Kubernetes has no schema of them.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "Kustomization"}


def validate(name, document):
    """Says how many schemas a document was held against."""
    if document["kind"] in FOREIGN:
        return 0
    versions = [OLDEST, kubernetes_validate.latest_version()]
    for version in versions:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(part) for part in error.path)
            sys.exit(f"error: {name}, {document['kind']}, Kubernetes {version}: {path}: {error.message}")
    return len(versions)


def check_config(node, configmap, container):
    """Has the node look at its configuration as a pod has it."""
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "config.toml"
        file.write_text(configmap["data"]["config.toml"])
        fields = {"metadata.name": "pairdb-storage-node-0", "metadata.namespace": "pairdb", "status.podIP": "10.1.2.3"}
        pod = {entry["name"]: fields[entry["valueFrom"]["fieldRef"]["fieldPath"]] for entry in container["env"]}
        subprocess.run([node, "config", "check", "--config", file], env=os.environ | pod, check=True)


def main():
    documents = {}
    held = 0
    for file in sorted(HERE.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            held += validate(file.name, document)
            documents[document["kind"]] = document
    if not held:
        sys.exit("error: no document was held against a schema")
    container = documents["StatefulSet"]["spec"]["template"]["spec"]["containers"][0]
    check_config(sys.argv[1], documents["ConfigMap"], container)
    print(f"{len(documents)} kinds of documents, held against {held} schemas")


main()
