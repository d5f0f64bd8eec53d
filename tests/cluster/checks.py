"""What the files of clusters must not do. Each check takes a text and gives its faults; none is good."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHERS = ("ray-aws.yaml", "ray-onprem.yaml")
KUBERAY = ("kuberay-cluster.yaml", "kuberay-job.yaml")
_LOOPBACK = r"(?:127\.0\.0\.1|localhost|::1)(?![\w.])"

EXPOSURES = {
    "every address": re.compile(r"(?<![\d.])0\.0\.0\.0(?![\d.])"),
    "every IPv6 address": re.compile(r"::/0|\[::\]"),
    "dashboard beyond loopback": re.compile(
        rf"""dashboard[-_]host["']?\s*(?::\s|[=\s,])\s*["']?(?!{_LOOPBACK}|["'\s,=]|$)"""
    ),
    "service beyond the cluster": re.compile(r"\b(?:serviceT|t)ype:\s*[\"']?(?:LoadBalancer|NodePort)\b"),
    "ingress": re.compile(r"kind:\s*Ingress\b|enableIngress:\s*true"),
    "port of the machine": re.compile(r"\bhostPort\b|\bhostNetwork:\s*true|\bnodePort:"),
    "port of an image": re.compile(r"^\s*EXPOSE\b", re.I),
    "published port": re.compile(r"(?:\s-p|--publish)[ =](?!127\.0\.0\.1:)[\d.:]*\d+:\d+"),
    "socket on every address": re.compile(r"""\(\s*(?:""|'')\s*,\s*(?:\d+|port)\s*\)|INADDR_ANY"""),
    "forwarding for others": re.compile(
        rf"port-forward\b.*--address[ =](?!{_LOOPBACK})|ssh\b.*\s-L\s*(?:\*|0\.0\.0\.0):|GatewayPorts"
    ),
    "public address": re.compile(r"AssociatePublicIpAddress:\s*true|use_internal_ips:\s*false"),
}

SECRETS = {
    "AWS key": re.compile(r"(?<![A-Z0-9])(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Z])"),
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "token of a service": re.compile(
        r"\b(?:gh[pousr]_\w{36}|github_pat_\w{22,}|xox[abprs]-[\w-]{10,}|hf_\w{30,}|sk-[\w-]{20,}|AIza[\w-]{35})"
    ),
    "JSON web token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\."),
    "value of a secret": re.compile(
        r"""(?i)(?:secret|token|passw(?:or)?d|api_?key|access_?key)\w*["']?\s*[:=]\s*["']?"""
        r"""(?=[\w+/=-]*\d)(?=[\w+/=-]*[a-z])[\w+/=-]{20,}"""
    ),
    "Secret of Kubernetes": re.compile(r"^\s*kind:\s*Secret\b"),
}


def tracked() -> list[Path]:
    """Every file that is, or would be, in the repository."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [ROOT / name for name in sorted(set(done.stdout.decode().split("\0"))) if (ROOT / name).is_file()]


def text_of(path: Path) -> str | None:
    """None: it is no text."""
    data = path.read_bytes()
    if b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def found(patterns: dict[str, re.Pattern[str]], text: str) -> list[tuple[str, str]]:
    """Of every line that a pattern is found in, the pattern's name and the line."""
    return [
        (name, line.strip())
        for line in text.splitlines()
        for name, pattern in patterns.items()
        if pattern.search(line)
    ]


def token_faults(name: str, text: str) -> list[str]:
    """Ways in which what file `name` of cluster/ launches would answer callers without a token."""
    if name in LAUNCHERS:
        return _launcher_token_faults(yaml.safe_load(text))
    if name in KUBERAY:
        spec = yaml.safe_load(text)["spec"]
        return _kuberay_token_faults(spec.get("rayClusterSpec", spec), text)
    if name == "slurm.sbatch":
        lines = [line.split("#")[0] for line in text.splitlines()]
        on = next(
            (n for n, line in enumerate(lines) if re.search(r"export .*\bRAY_AUTH_MODE=token\b", line)), None
        )
        first = next(n for n, line in enumerate(lines) if "ray start" in line)
        faults = [] if on is not None and on < first else ["authentication is not on before `ray start`"]
        if on is None or "RAY_AUTH_TOKEN_PATH=$token" not in lines[on]:
            faults.append("the token is not handed on as a file")
        return faults
    if name == "Dockerfile":
        on = any(re.match(r"ENV .*\bRAY_AUTH_MODE=token\b", line) for line in text.splitlines())
        return [] if on else ["the image does not turn authentication on"]
    raise AssertionError(f"nothing is known about {name}")


def _launcher_token_faults(config: dict[str, Any]) -> list[str]:
    starts = [
        command
        for option in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config.get(option, ["ray start"])  # else Ray's own, which have no token
        if "ray start" in command
    ]
    faults = [
        f"without a token: {each}" for each in starts if not re.search(r"RAY_AUTH_MODE=token .*ray start", each)
    ]
    if len(starts) < 2:
        faults.append("a head and a worker are not both started")
    if config.get("file_mounts", {}).get("~/.ray/auth_token") != "~/.ray/auth_token":
        faults.append("the token is not copied to the machines")
    if not any("RAY_AUTH_MODE=token" in each for each in config.get("initialization_commands", [])):
        faults.append("shells on the machines do not use the token")
    if "chmod 600 ~/.ray/auth_token" not in config.get("setup_commands", []):
        faults.append("others on the machines may read the token")
    return faults


def _kuberay_token_faults(cluster: dict[str, Any], text: str) -> list[str]:
    options = cluster.get("authOptions", {})
    faults = []
    if options.get("mode") != "token":
        faults.append("authOptions.mode is not token")
    if not options.get("secretName"):
        faults.append("the token is of no Secret")
    if re.search(r"RAY_AUTH_(?:TOKEN|MODE)", text):
        faults.append("containers have their own idea of authentication")
    return faults


def pod_faults(cluster: dict[str, Any]) -> list[str]:
    """What a RayCluster's pods may do though they need not, or lack."""
    groups = [("head", cluster["headGroupSpec"])]
    groups += [(group["groupName"], group) for group in cluster["workerGroupSpecs"]]
    faults = []
    for name, group in groups:
        pod = group["template"]["spec"]
        security = pod.get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            faults.append(f"{name}: may be root")
        if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
            faults.append(f"{name}: no seccomp profile")
        for container in pod["containers"]:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                faults.append(f"{name}: may gain privileges")
            if own.get("capabilities") != {"drop": ["ALL"]} or not own.get("readOnlyRootFilesystem"):
                faults.append(f"{name}: keeps capabilities, or may write into its image")
            limits = container.get("resources", {}).get("limits", {})
            if not {"cpu", "memory"} <= limits.keys():
                faults.append(f"{name}: no limits")
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                if probe not in container:
                    faults.append(f"{name}: no {probe}")
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            if mounted != {volume["name"] for volume in pod["volumes"]}:
                faults.append(f"{name}: volumes and mounts differ")
    return faults


def image_faults(text: str, ignore: str) -> list[str]:
    """What is wrong with a Dockerfile and its list of what is not sent."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    steps = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    users = [value for step, value in steps if step == "USER"]
    faults = []
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        faults.append("it does not end as a user by number that is not root")
    for step, value in steps:
        if step == "ARG" and "IMAGE" in value and not re.search(r"=\w+:\d+\.\d+\.\d+-[\w-]+$", value):
            faults.append(f"not pinned: {value}")
        if step == "FROM" and value != "${PYTHON_IMAGE}":
            faults.append(f"not pinned: {value}")
        if step == "ADD":
            faults.append("ADD takes URLs and unpacks archives; COPY does not")
        if step == "COPY":
            for source in value.split()[:-1]:
                if not (ROOT / source).exists():
                    faults.append(f"copies {source}, which does not exist")
                if f"!{source}" not in ignore.splitlines():
                    faults.append(f"copies {source}, which is not sent")
        if step == "RUN" and "pip install" in value:
            for command in re.findall(r"pip install[^&]*", value):
                if command.startswith("pip install --system") and "--compile-bytecode" not in command:
                    faults.append("every process compiles what it imports")
                if "--no-cache" not in command:
                    faults.append("keeps a cache in a layer")
                if "--constraint constraints.txt" not in command and "--no-deps" not in command:
                    faults.append("installs versions that are not in constraints.txt")
                if re.search(r"https?://|--(?:extra-)?index|--find-links", command):
                    faults.append("names a package index")
    if "*" not in ignore.splitlines():
        faults.append("sends more than it copies")
    return faults
