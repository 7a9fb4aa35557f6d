#!/usr/bin/env python3
"""Makes the schemas of Kubernetes in this directory of those in the Python package kubernetes-validate, which must be
installed: only what the kinds of the manifests refer to, a schema a line, without descriptions.

Usage: make.py [--check]. With --check nothing is written: the exit code is 1 when a file is not what would be."""

import importlib.metadata
import json
import pathlib
import sys

import kubernetes_validate

PACKAGE = "1.37.0"
VERSIONS = ["1.30", "1.37"]
# The files of the package that have the kinds, of which those of other groups have longer names.
KINDS = {
    "ConfigMap": "configmap-v1",
    "Namespace": "namespace-v1",
    "NetworkPolicy": "networkpolicy-networking-v1",
    "PodDisruptionBudget": "poddisruptionbudget-policy-v1",
    "Secret": "secret-v1",
    "Service": "service-v1",
    "StatefulSet": "statefulset-apps-v1",
}


def plain(schema):
    """The same schema without what judges nothing, its references into one document."""
    if isinstance(schema, list):
        return [plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {}
    for key, part in schema.items():
        if key == "properties":
            made[key] = {name: plain(of) for name, of in part.items()}
        elif key == "$ref":
            made[key] = "#/$defs/" + part.rsplit("/", 1)[1]
        elif key not in ("description", "$schema", "$id") and not key.startswith("x-kubernetes"):
            made[key] = plain(part)
    return made


def references(schema):
    if isinstance(schema, list):
        return {name for part in schema for name in references(part)}
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].removeprefix("#/$defs/")} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*(references(part) for part in schema.values()))


def made(version):
    schemas = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    definitions = json.loads((schemas / "_definitions.json").read_text())["$defs"]
    kinds = {kind: plain(json.loads((schemas / f"{file}.json").read_text())) for kind, file in KINDS.items()}
    for schema in kinds.values():
        # The package leaves them out, and every API server asks for them.
        schema["required"] = ["apiVersion", "kind", "metadata"]
    wanted, reached = references(kinds), {}
    while wanted:
        name = wanted.pop()
        if name not in reached:
            reached[name] = plain(definitions[name])
            wanted |= references(reached[name])
    lines = lambda of: ",\n".join(f"{json.dumps(name)}: {json.dumps(of[name], sort_keys=True)}" for name in sorted(of))
    return '{\n"$defs": {\n' + lines(reached) + '\n},\n"kinds": {\n' + lines(kinds) + "\n}\n}\n"


def main():
    installed = importlib.metadata.version("kubernetes-validate")
    if installed != PACKAGE:
        sys.exit(f"error: kubernetes-validate is {installed}: it must be {PACKAGE}")
    differ = False
    for version in VERSIONS:
        file, schemas = pathlib.Path(__file__).parent / f"kubernetes-{version}.json", made(version)
        if "--check" not in sys.argv[1:]:
            file.write_text(schemas)
        elif file.read_text() != schemas:
            print(f"error: {file} is not what the package has", file=sys.stderr)
            differ = True
    sys.exit(int(differ))


if __name__ == "__main__":
    main()
