"""The files of cluster/ are what Ray and Kubernetes take, and close what need not be open."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from jobs.cli.app import app
from tests.cluster.checks import (
    CLUSTER,
    EXPOSURES,
    KUBERAY,
    LAUNCHERS,
    ROOT,
    SECRETS,
    found,
    image_faults,
    pod_faults,
    text_of,
    token_faults,
    tracked,
)

POLICIES = ("kuberay-network-policy.yaml", "kuberay-metrics.yaml")
MANIFESTS = (*KUBERAY, *POLICIES)
SCHEMA = json.loads((CLUSTER.parent / "tests/cluster/kubernetes-schema.json").read_text())

_EXAMPLES = "says what is searched for"
ALLOWED_EXPOSURES = {
    (
        "cluster/kuberay-job.yaml",
        'dashboard-host: "0.0.0.0"',
    ): "KubeRay's operator submits the job from another pod; "
    "the token, a ClusterIP service and the network policy are in the way",
    (
        "tests/cluster/nodes.py",
        'arguments += ["--dashboard-host", self._ip, "--dashboard-port", str(self._dashboard)]',
    ): "the tests' own clusters, on this machine's address or one in a network namespace, with a token",
}
ALLOWED_FILES = {
    "tests/cluster/checks.py": _EXAMPLES,
    "tests/cluster/test_files.py": _EXAMPLES,
    "tests/cluster/test_aws.py": _EXAMPLES,
    "tests/cluster/test_slurm.py": _EXAMPLES,
}


def read(name: str) -> str:
    return (CLUSTER / name).read_text()


def broken(name: str, old: str, new: str) -> str:
    """The text of file `name` with `old` replaced, which must be there."""
    text = read(name)
    assert old in text, f"{name} has no {old!r} to break"
    return text.replace(old, new)


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = document["spec"]
    return spec.get("rayClusterSpec", spec)


# Kubernetes


def manifest_errors(text: str) -> list[str]:
    errors = []
    for document in yaml.safe_load_all(text):
        definition = SCHEMA["definitions"][document["kind"]]
        validator = jsonschema.Draft7Validator({**definition, "definitions": SCHEMA["definitions"]})
        errors += [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
    return errors


def test_the_readme_names_every_file() -> None:
    files = {path.name for path in tracked() if path.parent == CLUSTER and path.suffix not in (".md", ".py")}
    assert len(files) > 8
    assert {name for name in files if f"`{name}`" not in read("README.md")} == {"Dockerfile.dockerignore"}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_fit_the_schemas(name: str) -> None:
    assert manifest_errors(read(name)) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("kuberay-cluster.yaml", "secretName:", "secret_name:"),
        ("kuberay-cluster.yaml", "mode: token", "mode: tokens"),
        ("kuberay-cluster.yaml", "minReplicas: 0", "minReplicas: none"),
        ("kuberay-cluster.yaml", 'num-cpus: "0"', "num-cpus: 0"),
        ("kuberay-cluster.yaml", "rayStartParams: {}\n", "\n"),
        ("kuberay-cluster.yaml", "httpGet:", "httpget:"),
        ("kuberay-job.yaml", "submissionMode: HTTPMode", "submissionMode: HTTP"),
        ("kuberay-job.yaml", "ttlSecondsAfterFinished", "ttlSeconds"),
        ("kuberay-job.yaml", "version: v2", "version: 2"),
        ("kuberay-network-policy.yaml", "policyTypes: [Ingress]", "policyTypes: Ingress"),
        ("kuberay-network-policy.yaml", "ingress:", "ingres:"),
        ("kuberay-metrics.yaml", "interval: 15s", "intervall: 15s"),
    ],
)
def test_broken_manifests_are_found(name: str, old: str, new: str) -> None:
    assert manifest_errors(broken(name, old, new))


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_have_limits_and_probes_and_no_privileges(name: str) -> None:
    assert pod_faults(cluster_of(yaml.safe_load(read(name)))) == []


@pytest.mark.parametrize("name", KUBERAY)
def test_a_worker_whose_pod_is_deleted_has_time_to_finish_what_is_in_work(name: str) -> None:
    """Ray drains a node that gets SIGTERM; it ends what runs there after half a minute, if not told else."""
    from ray._private import ray_constants

    told = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert ray_constants.RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S == 30
    for group in cluster_of(yaml.safe_load(read(name)))["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        (drains,) = (each["value"] for each in pod["containers"][0]["env"] if each["name"] == told)
        assert 60 < int(drains) <= pod["terminationGracePeriodSeconds"] - 10, "grace_s of a job is 60"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("runAsNonRoot: true", "runAsNonRoot: false", "may be root"),
        ("runAsUser: 10001", "runAsUser: 0", "may be root"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "privileges"),
        ("drop: [ALL]", "drop: []", "capabilities"),
        ('limits: {cpu: "2", memory: 8Gi}', 'limits: {cpu: "2"}', "no limits"),
        ("livenessProbe: *alive", "readinessProbe: *alive", "no livenessProbe"),
        ("{name: home, mountPath", "{name: hom, mountPath", "volumes"),
        ("seccompProfile: {type: RuntimeDefault}", "seccompProfile: {type: Unconfined}", "seccomp"),
    ],
)
def test_pods_that_may_more_are_found(old: str, new: str, fault: str) -> None:
    faults = pod_faults(cluster_of(yaml.safe_load(broken("kuberay-cluster.yaml", old, new))))
    assert any(fault in each for each in faults), faults


def test_both_kuberay_clusters_are_the_same_but_for_what_a_job_needs() -> None:
    """They are two files since each is applied as it is; a change of one is a change of both."""
    documents = (
        json.dumps(yaml.safe_load(read(name))) for name in KUBERAY
    )  # no part of them is shared any more
    standing, own = (cluster_of(json.loads(each)) for each in documents)
    head = own["headGroupSpec"]
    assert head["rayStartParams"].pop("dashboard-host") != standing["headGroupSpec"]["rayStartParams"].pop(
        "dashboard-host"
    )
    assert head["template"]["spec"]["containers"][0]["ports"].pop() == {
        "name": "dashboard",
        "containerPort": 8265,
    }
    for group in [head, *own["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["volumes"].pop() == {"name": "job", "configMap": {"name": "nst-job"}}
        assert pod["containers"][0]["volumeMounts"].pop()["name"] == "job"
    assert own == standing


def test_what_a_rayjob_runs_is_a_command_of_ours_that_waits_for_the_lease() -> None:
    text = read("kuberay-job.yaml")
    job = yaml.safe_load(text)["spec"]["entrypoint"].partition(" || ")[0]
    (training,) = re.findall(r"nst train .*", text)
    assert "--pool ray" in job, "whatever the job file says"
    for line in (job, training):
        assert line.endswith(" --address auto --wait-for-lease")
        asked = CliRunner().invoke(app, shlex.split(line)[1:])
        assert asked.stderr == "error: job file '/job/job.toml': No such file or directory\n"


@pytest.mark.parametrize(("status", "ends"), [(0, 0), (2, 1), (3, 0), (4, 1), (75, 1)])
def test_a_rayjob_whose_photographs_failed_is_not_done_again(tmp_path: Path, status: int, ends: int) -> None:
    (tmp_path / "nst").write_text(f"#!/bin/sh\nexit {status}\n")
    (tmp_path / "nst").chmod(0o755)
    entrypoint = yaml.safe_load(read("kuberay-job.yaml"))["spec"]["entrypoint"]
    done = subprocess.run(["sh", "-c", entrypoint], env={"PATH": f"{tmp_path}:/bin:/usr/bin"}, check=False)
    assert done.returncode == ends


def policy_faults(text: str) -> list[str]:
    """Who may reach a pod of nst but its own pods, KubeRay's operator (jobs API), and Prometheus (metrics)."""
    policies = {
        each["metadata"]["name"]: each["spec"]
        for each in yaml.safe_load_all(text)
        if each["kind"] == "NetworkPolicy"
    }
    others = {"kuberay-operator": [8265], "prometheus": [8080]}
    ours = {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "nst"}}}
    faults = []
    if policies.get("nst-nobody") != {"podSelector": {}, "policyTypes": ["Ingress"]}:
        faults.append("what no policy names is open")
    for name, spec in policies.items():
        for rule in spec.get("ingress", []):
            peers = rule.get("from", [])
            if not peers:
                faults.append(f"{name}: everybody")
            for peer in peers:
                ports = [port["port"] for port in rule.get("ports", [])]
                name_of = peer.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/name")
                named = {"namespaceSelector", "podSelector"} == set(peer) and all(
                    each["matchLabels"] for each in peer.values()
                )
                if peer != ours and not (named and ports == others.get(name_of)):
                    faults.append(f"{name}: {peer}")
    return faults


def test_pods_are_reached_by_each_other_the_operator_and_prometheus_only() -> None:
    assert policy_faults("---\n".join(map(read, POLICIES))) == []
    for name in KUBERAY:
        cluster = cluster_of(yaml.safe_load(read(name)))
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            assert group["template"]["metadata"]["labels"] == {"app.kubernetes.io/part-of": "nst"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  podSelector: {}\n", "  podSelector: {matchLabels: {app: x}}\n"),
        ("            matchLabels: {app.kubernetes.io/part-of: nst}\n", "            matchLabels: {}\n"),
        ("          podSelector:\n            matchLabels: {app.kubernetes.io/name: kuberay-operator}\n", ""),
        ("        - {protocol: TCP, port: 8265}", "        - {protocol: TCP, port: 6379}"),
        ("          podSelector:\n            matchLabels: {app.kubernetes.io/name: prometheus}\n", ""),
        (
            "            matchLabels: {kubernetes.io/metadata.name: monitoring}\n",
            "            matchLabels: {}\n",
        ),
        ("        - {protocol: TCP, port: 8080}", "        - {protocol: TCP, port: 8265}"),
        ("      ports:\n        - {protocol: TCP, port: 8080}\n", ""),
    ],
)
def test_wider_policies_are_found(old: str, new: str) -> None:
    text = "---\n".join(map(read, POLICIES))
    assert old in text
    assert policy_faults(text.replace(old, new))


def test_prometheus_finds_the_metrics_of_every_pod() -> None:
    """KubeRay has Ray export them at 8080, a port of that container that it calls `metrics`."""
    policy, monitor = yaml.safe_load_all(read("kuberay-metrics.yaml"))
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"
    assert monitor["metadata"]["namespace"] == policy["metadata"]["namespace"]
    for name in KUBERAY:
        document = yaml.safe_load(read(name))
        assert document["metadata"]["namespace"] == monitor["metadata"]["namespace"]
        cluster = cluster_of(document)
        for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
            assert group["template"]["metadata"]["labels"] == monitor["spec"]["selector"]["matchLabels"]
            assert policy["spec"]["podSelector"] == monitor["spec"]["selector"]
            assert "metrics-export-port" not in group["rayStartParams"]
            ports = group["template"]["spec"]["containers"][0].get("ports", [])
            assert "metrics" not in [port["name"] for port in ports]


# Tokens


@pytest.mark.parametrize("name", [*LAUNCHERS, *KUBERAY, "slurm.sbatch", "Dockerfile"])
def test_every_launch_path_has_token_authentication(name: str) -> None:
    assert token_faults(name, read(name)) == []


def test_no_launch_path_is_forgotten() -> None:
    """Whatever in cluster/ starts Ray is checked above, by name."""
    known = {*LAUNCHERS, *KUBERAY, "slurm.sbatch", "Dockerfile", "README.md"}
    starts = {
        path.name
        for path in tracked()
        if path.parent == CLUSTER
        for text in [text_of(path) or ""]
        if "ray start" in text or "ray.io/v1" in text or text.startswith("#!") or "FROM " in text
    }
    assert starts <= known, starts - known
    assert starts >= {*LAUNCHERS, *KUBERAY, "slurm.sbatch", "Dockerfile"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("ray-aws.yaml", "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_JOB", "RAY_JOB"),
        ("ray-aws.yaml", "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ~/venv", "~/venv"),
        ("ray-aws.yaml", "worker_start_ray_commands:", "metadata_of_workers:"),
        ("ray-aws.yaml", "  ~/.ray/auth_token: ~/.ray/auth_token\n", ""),
        ("ray-aws.yaml", "  - chmod 600 ~/.ray/auth_token\n", ""),
        ("ray-onprem.yaml", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
        ("ray-onprem.yaml", "  ~/.ray/auth_token: ~/.ray/auth_token\n", ""),
        ("kuberay-cluster.yaml", "mode: token", "mode: disabled"),
        ("kuberay-cluster.yaml", "    secretName: nst-ray-token", "    #"),
        ("kuberay-job.yaml", "authOptions:", "autoscalerOption:"),
        ("kuberay-job.yaml", "{name: RAY_USAGE_STATS_ENABLED, value", "{name: RAY_AUTH_TOKEN, value"),
        ("slurm.sbatch", "export RAY_AUTH_MODE=token ", "export "),
        ("slurm.sbatch", "export RAY_AUTH_MODE=token", "# export RAY_AUTH_MODE=token"),
        ("slurm.sbatch", "RAY_AUTH_TOKEN_PATH=$token", ""),
        ("Dockerfile", "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled"),
    ],
)
def test_launch_paths_without_a_token_are_found(name: str, old: str, new: str) -> None:
    assert token_faults(name, broken(name, old, new))


# The whole repository


def exposures(name: str, text: str) -> list[tuple[str, str]]:
    if name in ALLOWED_FILES:
        return []
    return [
        (pattern, line) for pattern, line in found(EXPOSURES, text) if (name, line) not in ALLOWED_EXPOSURES
    ]


def test_no_file_opens_a_port_to_the_world() -> None:
    files = tracked()
    assert len(files) > 100
    assert {path.name for path in files} >= {*LAUNCHERS, *KUBERAY, "slurm.sbatch", "Dockerfile", "README.md"}
    faults = {}
    for path in files:
        text = text_of(path)
        if text is not None and (lines := exposures(str(path.relative_to(ROOT)), text)):
            faults[str(path.relative_to(ROOT))] = lines
    assert faults == {}


def test_exceptions_are_still_needed() -> None:
    for (name, line), reason in ALLOWED_EXPOSURES.items():
        assert reason
        assert line in [found_line for _, found_line in found(EXPOSURES, (ROOT / name).read_text())]
    for name in ALLOWED_FILES:
        assert found(EXPOSURES, (ROOT / name).read_text()) or found(SECRETS, (ROOT / name).read_text())


@pytest.mark.parametrize(
    ("name", "line", "pattern"),
    [
        ("cluster/ray-aws.yaml", "  - ray start --head --dashboard-host=0.0.0.0", "every address"),
        ("cluster/ray-aws.yaml", "  - ray start --head --dashboard-host=10.0.0.1", "dashboard beyond loopback"),
        ("cluster/slurm.sbatch", "ray start --dashboard-host $head_ip", "dashboard beyond loopback"),
        ("cluster/kuberay-cluster.yaml", '      dashboard-host: "0.0.0.0"', "every address"),
        ("cluster/kuberay-cluster.yaml", "      dashboard-host: ::", "dashboard beyond loopback"),
        ("jobs/cli/app.py", 'ray.init(dashboard_host="192.168.0.2")', "dashboard beyond loopback"),
        ("cluster/ray-aws.yaml", "      - CidrIp: 0.0.0.0/0", "every address"),
        ("cluster/ray-aws.yaml", "      - CidrIpv6: ::/0", "every IPv6 address"),
        ("cluster/ray-aws.yaml", "  use_internal_ips: false", "public address"),
        ("cluster/kuberay-job.yaml", "    serviceType: LoadBalancer", "service beyond the cluster"),
        ("cluster/kuberay-job.yaml", "  type: NodePort", "service beyond the cluster"),
        ("cluster/kuberay-job.yaml", "kind: Ingress", "ingress"),
        ("cluster/kuberay-job.yaml", "- {containerPort: 8265, hostPort: 8265}", "port of the machine"),
        ("cluster/Dockerfile", "EXPOSE 8265", "port of an image"),
        ("README.md", "docker run -p 8265:8265 nst", "published port"),
        ("cluster/README.md", "kubectl port-forward --address 10.1.2.3 svc/x 8265", "forwarding for others"),
        ("jobs/cli/app.py", 'server.bind(("", 8265))', "socket on every address"),
    ],
)
def test_open_ports_are_found(name: str, line: str, pattern: str) -> None:
    text = f"{(ROOT / name).read_text()}\n{line}\n"
    assert pattern in [each for each, _ in exposures(name, text)]


@pytest.mark.parametrize(
    "line",
    [
        "ray start --head --dashboard-host=127.0.0.1 --num-cpus=0",
        "ray start --dashboard-host localhost",
        "dashboard-host: 127.0.0.1  # why",
        "docker run -p 127.0.0.1:8265:8265 nst",
        "kubectl port-forward pod/head 8265:8265",
        "version 10.0.0.0",
        "serviceType: ClusterIP",
    ],
)
def test_what_is_closed_is_not_called_open(line: str) -> None:
    assert found(EXPOSURES, line) == []


def test_no_file_holds_a_secret() -> None:
    faults = {}
    for path in tracked():
        name, text = str(path.relative_to(ROOT)), text_of(path)
        if text is not None and name not in ALLOWED_FILES and (lines := found(SECRETS, text)):
            faults[name] = lines
    assert faults == {}


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("aws_access_key_id = AKIA" + "IOSFODNN7EXAMPLE", "AWS key"),
        ("-----BEGIN OPENSSH " + "PRIVATE KEY-----", "private key"),
        ("GH=ghp_" + "a1" * 18, "token of a service"),
        ("auth_token: " + "0a" * 32, "value of a secret"),
        ("export RAY_AUTH_TOKEN=" + "0a" * 32, "value of a secret"),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY", "value of a secret"),
        ("kind: Secret", "Secret of Kubernetes"),
    ],
)
def test_secrets_are_found(line: str, pattern: str) -> None:
    assert pattern in [name for name, _ in found(SECRETS, read("kuberay-cluster.yaml") + f"\n{line}\n")]


# The image


def test_the_image_is_pinned_and_is_not_root() -> None:
    assert image_faults(read("Dockerfile"), read("Dockerfile.dockerignore")) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("USER 10001:10001", "USER root", "not root"),
        ("USER 10001:10001\n", "", "not root"),
        ('CMD ["nst", "--help"]', "USER 0:0", "not root"),
        ("python:3.11.14-slim-bookworm", "python:slim", "not pinned"),
        ("FROM ${PYTHON_IMAGE}", "FROM python:latest", "not pinned"),
        ("COPY jobs jobs", "COPY job jobs", "does not exist"),
        ("COPY jobs jobs", "COPY tests jobs", "not sent"),
        (" --no-cache --constraint", " --constraint", "cache"),
        (" --compile-bytecode --no-cache --no-deps", " --no-cache --no-deps", "compiles"),
        (" --constraint constraints.txt --requirement", " --requirement", "constraints.txt"),
        ("--requirement", "--index-url https://example.org/simple --requirement", "index"),
    ],
)
def test_worse_images_are_found(old: str, new: str, fault: str) -> None:
    faults = image_faults(broken("Dockerfile", old, new), read("Dockerfile.dockerignore"))
    assert any(fault in each for each in faults), faults
