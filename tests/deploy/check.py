"""deploy/kubernetes and deploy/compose against the published schemas, each with controls that must be refused."""

import pathlib
import subprocess
import sys
import tempfile

import compose_spec
import kubernetes_validate
import yaml

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
# The oldest that has all that the manifest says by default, and the newest of the package.
VERSIONS = ["1.29", "1.37"]
KINDS = ["ConfigMap", "Service", "Service", "PodDisruptionBudget", "StatefulSet"]


def kubernetes(text):
    """The kinds of a manifest whose every resource is as the schemas say, and has nothing else."""
    resources = list(yaml.safe_load_all(text))
    for version in VERSIONS:
        for resource in resources:
            kubernetes_validate.validate(resource, version, strict=True)
    return [resource["kind"] for resource in resources]


def compose(text):
    compose_spec.PyCompose.from_yaml(text).to_spec()
    return list(yaml.safe_load(text)["services"])


def refused(check, text, good, bad):
    assert good in text, f"the file has no {good!r}"
    try:
        check(text.replace(good, bad))
    except Exception as error:  # Each package has its own.
        print(f"control: {bad!r}: {(str(error) or repr(error)).splitlines()[0][:100]}")
        return
    raise AssertionError(f"{bad!r} was taken")


def settings(program, text):
    """What the pod's daemon is started with has no key that the program does not know, and no value it does not take."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "config.toml"
        file.write_text(text)
        done = subprocess.run([program, "config", "print", "--config", file], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(done.stderr)
    return done.stdout


def main():
    program = sys.argv[1]
    manifest = (DEPLOY / "kubernetes" / "tailmark.yml").read_text()
    kinds = kubernetes(manifest)
    assert kinds == KINDS, kinds
    for good, bad in [
        ("terminationGracePeriodSeconds: 60", "terminationGraceSeconds: 60"),
        ("replicas: 1", "replicas: one"),
        ("apiVersion: apps/v1", "apiVersion: apps/v9"),
        ("accessModes: [ReadWriteOncePod]", "accessModes: ReadWriteOncePod"),
        ("  serviceName: tailmark-pods\n", ""),
        ("readOnlyRootFilesystem: true", "readOnlyRoot: true"),
    ]:
        refused(kubernetes, manifest, good, bad)
    config = next(yaml.safe_load_all(manifest))["data"]["config.toml"]
    assert 'data_dir = "/var/lib/tailmark/log"' in settings(program, config)
    refused(lambda text: settings(program, text), config, "data_dir", "data_directory")

    stack = (DEPLOY / "compose" / "compose.yml").read_text()
    assert compose(stack) == ["tailmark"]
    for good, bad in [
        ("restart:", "restrat:"),
        ("stop_grace_period: 30s", "stop_grace_period: long"),
        ("127.0.0.1:50051:50051", "127.0.0.1:fifty:50051"),
    ]:
        refused(compose, stack, good, bad)
    print("deploy/ is as published: Kubernetes", *VERSIONS, "and Compose")


main()
