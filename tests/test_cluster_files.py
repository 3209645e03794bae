"""The files in cluster/: judged by Ray's own launcher schema, KubeRay's resource definitions and bash."""

from __future__ import annotations

import copy
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.examples import ROOT

CLUSTER = ROOT / "cluster"
SUBMISSION_MODES = {"K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"}
Tree = dict[str, Any]


def tree_of(name: str) -> Tree:
    tree: Tree = yaml.safe_load((CLUSTER / name).read_text())
    return tree


def changed(tree: Tree, place: tuple[Any, ...], key: str, value: object) -> Tree:
    wrong = spot = copy.deepcopy(tree)
    for step in place:
        spot = spot[step]
    spot[key] = value
    return wrong


def check_launcher(tree: Tree) -> None:
    """As ``ray up`` does, without a cloud's library."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(tree)))


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_launcher_files_are_what_ray_up_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("boto3", "botocore", "googleapiclient"):
        monkeypatch.setitem(sys.modules, library, None)
    check_launcher(tree_of(name))


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "idle_timeout_minuts", 5),
        (("auth",), "ssh_usr", "x"),
        (("available_node_types", "gpu"), "min_worker", 1),
        (("available_node_types", "gpu"), "min_workers", "two"),
        ((), "head_node_type", "hed"),
    ],
)
def test_a_mistake_in_a_launcher_file_is_seen(name: str, place: tuple[str, ...], key: str, value: object) -> None:
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        check_launcher(changed(tree_of(name), place, key, value))


@pytest.fixture(scope="module")
def definitions() -> dict[str, Tree]:
    """OpenAPI schemas of RayCluster and RayJob, version v1."""
    folder = Path(os.environ.get("PLMRAY_SCHEMAS") or ROOT.parent / "shared" / "schemas")
    if not (folder / "kuberay_rayjobs_crd.yaml").is_file():
        pytest.skip(f"no KubeRay definitions under {folder}; set PLMRAY_SCHEMAS")
    found = {}
    for kind, name in (("RayCluster", "rayclusters"), ("RayJob", "rayjobs")):
        text = (folder / f"kuberay_{name}_crd.yaml").read_text()
        versions = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]["versions"]
        found[kind] = next(v["schema"]["openAPIV3Schema"] for v in versions if v["name"] == "v1")
    return found


def unknown_keys(value: Any, schema: Tree, place: str = "") -> Iterator[str]:
    """Keys that a definition does not name: an API server drops them in silence."""
    closed = "properties" in schema or "additionalProperties" in schema or schema.get("type") != "object"
    if schema.get("x-kubernetes-preserve-unknown-fields") or not closed:
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_keys(item, schema.get("items", {}), f"{place}[{index}]")
    elif isinstance(value, dict):
        named, others = schema.get("properties", {}), schema.get("additionalProperties", False)
        for key, item in value.items():
            if key in named or isinstance(others, dict):
                yield from unknown_keys(item, named.get(key, others), f"{place}.{key}")
            elif not others:
                yield f"{place}.{key}"


def check_kuberay(tree: Tree, definitions: dict[str, Tree]) -> None:
    """Raises ValueError or jsonschema's error for what an operator would refuse or ignore."""
    if tree["apiVersion"] != "ray.io/v1" or tree["kind"] not in definitions:
        raise ValueError(f"{tree['apiVersion']} {tree['kind']}")
    schema = definitions[tree["kind"]]
    jsonschema.validate(tree, schema)
    faults = list(unknown_keys(tree, schema))
    if tree["spec"].get("submissionMode", "K8sJobMode") not in SUBMISSION_MODES:
        faults.append(".spec.submissionMode")
    if faults:
        raise ValueError(f"unknown: {faults}")


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kuberay_files_are_what_its_definitions_say(name: str, definitions: dict[str, Tree]) -> None:
    tree = tree_of(f"kuberay/{name}")
    check_kuberay(tree, definitions)
    text = (CLUSTER / "kuberay" / name).read_text()
    assert "secretRef" in text
    spec = tree["spec"].get("rayClusterSpec", tree["spec"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        container = group["template"]["spec"]["containers"][0]
        assert container["resources"]["requests"]["memory"]
        assert not [e for e in container.get("env", []) if "KEY" in e["name"] or "TOKEN" in e["name"]]


@pytest.mark.parametrize(
    ("name", "place", "key", "value"),
    [
        ("raycluster.yaml", ("spec",), "enableInTreAutoscaling", True),
        ("raycluster.yaml", ("spec", "headGroupSpec", "template", "spec"), "terminationGrace", 5),
        ("raycluster.yaml", ("spec", "workerGroupSpecs", 0), "replicas", "two"),
        ("raycluster.yaml", (), "apiVersion", "ray.io/v1beta7"),
        ("rayjob.yaml", ("spec",), "submissionMode", "HttpMode"),
        ("rayjob.yaml", ("spec",), "backofLimit", 1),
        ("rayjob.yaml", ("spec", "rayClusterSpec", "headGroupSpec"), "rayStartParam", {}),
    ],
)
def test_a_mistake_in_a_kuberay_file_is_seen(
    definitions: dict[str, Tree], name: str, place: tuple[Any, ...], key: str, value: object
) -> None:
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        check_kuberay(changed(tree_of(f"kuberay/{name}"), place, key, value), definitions)


@pytest.mark.parametrize(
    "name", ["aws.yaml", "gcp.yaml", "kuberay/raycluster.yaml", "kuberay/rayjob.yaml", "Dockerfile"]
)
def test_ray_is_the_tested_one_everywhere(name: str) -> None:
    pinned = next(
        line.split("==")[1] for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")
    )
    text = (CLUSTER / name).read_text()
    assert pinned in text


@pytest.mark.parametrize("name", ["local.sh", "slurm.sbatch", "mlflow-server.sh"])
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n", str(CLUSTER / name)], check=True)
    assert (CLUSTER / name).stat().st_mode & stat.S_IXUSR


STAND_INS = {
    "srun": 'case "$*" in *--head*) ;; esac; sleep 60',
    "python": "exit 0",  # the nodes are all there
    "scontrol": 'echo "$@" >> requeued',
    "plmray": 'trap "exit 130" TERM; echo "$@" > asked; stat -c %a plmray_runs/.ray-token-* > mode; sleep 30 & wait',
}


@pytest.mark.parametrize(
    ("sent", "code", "requeues"), [(signal.SIGUSR1, 130, True), (signal.SIGTERM, 130, False)], ids=["time", "cancel"]
)
def test_a_slurm_job_ends_its_sweep_cleanly_and_goes_on_later(
    tmp_path: Path, sent: signal.Signals, code: int, requeues: bool
) -> None:
    """Slurm's and Ray's commands are stand-ins here; the script, its signals, token and exit code are real."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name, body in STAND_INS.items():
        file = tmp_path / ".venv" / "bin" / name
        file.write_text(f"#!/usr/bin/env bash\n{body}\n")
        file.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "2", "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "2"}
    environment = {**os.environ, **slurm, "HEAD_IP": "127.0.0.1"}
    command = ["bash", str(CLUSTER / "slurm.sbatch"), "sweep.yaml"]
    job = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    deadline = time.monotonic() + 20
    while not (tmp_path / "mode").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    job.send_signal(sent)
    assert job.wait(20) == code
    assert (tmp_path / "requeued").exists() == requeues
    assert "--resume --address 127.0.0.1:6379" in (tmp_path / "asked").read_text()
    assert (tmp_path / "mode").read_text().strip() == "600"
    assert not list(tmp_path.glob("plmray_runs/.ray-token-*")), "the token outlived the job"
