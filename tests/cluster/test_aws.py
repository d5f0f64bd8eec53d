"""What Ray's launcher makes of cluster/ray-*.yaml: with its own code, and a pretended AWS."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

from tests.cluster.checks import CLUSTER, LAUNCHERS, ROOT

REGION = "us-west-2"


def load(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((CLUSTER / name).read_text())
    return config


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` reads it: Ray's defaults filled in, checked against Ray's schema."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    with_defaults: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(with_defaults)
    return with_defaults


@pytest.mark.parametrize("name", LAUNCHERS)
def test_ray_takes_the_launchers_files(name: str) -> None:
    config = prepared(load(name))
    heads = config["head_start_ray_commands"]
    assert sum("ray start --head" in each for each in heads) == 1
    assert all("--dashboard-host=127.0.0.1" in each for each in heads if "ray start" in each)
    assert all("--dashboard-host" not in each for each in config["worker_start_ray_commands"])


def test_no_machine_is_rented_that_has_no_work() -> None:
    types = prepared(load("ray-aws.yaml"))["available_node_types"]
    assert {each["min_workers"] for each in types.values()} == {0}


def started_without_work(config: dict[str, Any], *, v2: bool) -> int:
    """How many machines of one's own Ray's autoscaler starts, beside the head, where nothing is to be done."""
    from ray.autoscaler._private.resource_demand_scheduler import _add_min_workers_nodes
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.schema import AutoscalerInstance
    from ray.core.generated.instance_manager_pb2 import Instance, NodeKind

    (kind,), most = config["available_node_types"], config["max_workers"]
    if not v2:
        types = config["available_node_types"]
        return sum(_add_min_workers_nodes([], {kind: 1}, types, most, kind, [], None)[2].values())
    del config["auth"]["ssh_private_key"]
    head = Instance(instance_type=kind, instance_id="head", node_kind=NodeKind.HEAD, status=Instance.QUEUED)
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs(),
        max_num_nodes=most + 1,
        current_instances=[AutoscalerInstance(im_instance=head)],
    )
    return sum(each.count for each in ResourceDemandScheduler(None).schedule(request).to_launch)


def test_all_machines_of_ones_own_are_started() -> None:
    """By the autoscaler that the file asks for, whatever `ray up` says: the newer one leaves one out."""
    from ray.autoscaler._private.util import with_envs

    config = prepared(load("ray-onprem.yaml"))
    listed = len(config["provider"]["worker_ips"])
    assert started_without_work(copy.deepcopy(config), v2=True) < listed
    assert started_without_work(config, v2=False) == listed
    start = with_envs(config["head_start_ray_commands"], {"RAY_enable_autoscaler_v2": "1"})[-1]
    told = start.replace("~/venv/bin/ray start", "bash -c 'echo $RAY_enable_autoscaler_v2'")
    assert subprocess.run(["bash", "-c", told], capture_output=True, text=True, check=True).stdout == "0\n"


@pytest.mark.parametrize("name", LAUNCHERS)
def test_what_is_copied_is_there_and_is_all_that_is_installed(name: str) -> None:
    copied = {
        remote: local for remote, local in load(name)["file_mounts"].items() if "auth_token" not in remote
    }
    assert {local for local in copied.values() if not (ROOT / local).exists()} == set()
    assert {remote.removeprefix("~/nst/") for remote in copied} == set(copied.values())
    assert set(copied.values()) >= {"nst", "jobs", "cluster", "pyproject.toml", "constraints.txt", "README.md"}


def _misspell(config: dict[str, Any]) -> None:
    config["idle_timeout_minute"] = config.pop("idle_timeout_minutes")


def _no_head(config: dict[str, Any]) -> None:
    config["head_node_type"] = "boss"


def _too_many(config: dict[str, Any]) -> None:
    config["available_node_types"]["gpu_spot"]["min_workers"] = config["max_workers"] + 1


@pytest.mark.parametrize("damage", [_misspell, _no_head, _too_many])
def test_ray_refuses_damaged_files(damage: Any) -> None:
    import jsonschema

    config = load("ray-aws.yaml")
    damage(config)
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        prepared(config)


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A pretended account with a group that lets in its own members only; gives the ids to fill in."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "pretended")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("HOME", str(tmp_path))
    with mock_aws():
        ec2, iam = boto3.client("ec2", REGION), boto3.client("iam", REGION)
        network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        group = ec2.create_security_group(GroupName="nst", Description="nst", VpcId=network)["GroupId"]
        own = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[own])
        for name in ("nst-head", "nst-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        yield {"group": group, "image": image}


def filled_in(ids: dict[str, str]) -> dict[str, Any]:
    config = load("ray-aws.yaml")
    for node_type in config["available_node_types"].values():
        node_type["node_config"] |= {"ImageId": ids["image"], "SecurityGroupIds": [ids["group"]]}
    return config


def launch(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Has Ray's own code start one machine of each type; gives them as AWS describes them."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    config = bootstrap_aws(prepared(config))
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, node_type in config["available_node_types"].items():
        provider.create_node(node_type["node_config"], {"ray-user-node-type": name}, 1)
    machines = {}
    for reservation in boto3.client("ec2", REGION).describe_instances()["Reservations"]:
        for machine in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in machine["Tags"]}
            assert tags["ray-cluster-name"] == "nst", "aws-head-policy.json ends machines by this tag"
            machines[tags["ray-user-node-type"]] = machine
    return machines


def open_to_the_world() -> list[dict[str, Any]]:
    """Rules of the account's security groups that let in any address."""
    groups = boto3.client("ec2", REGION).describe_security_groups()["SecurityGroups"]
    open_rules = []
    for rule in [rule for group in groups for rule in group["IpPermissions"]]:
        ranges = {each["CidrIp"] for each in rule.get("IpRanges", [])}
        ranges |= {each["CidrIpv6"] for each in rule.get("Ipv6Ranges", [])}
        if ranges & {"0.0.0.0/0", "::/0"}:
            open_rules.append(rule)
    return open_rules


@pytest.mark.slow
def test_ray_starts_machines_that_nobody_reaches(aws: dict[str, str]) -> None:
    machines = launch(filled_in(aws))
    assert open_to_the_world() == []
    assert set(machines) == {"head", "gpu_spot"}
    for machine in machines.values():
        assert [group["GroupId"] for group in machine["SecurityGroups"]] == [aws["group"]]
        assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert "InstanceLifecycle" not in machines["head"], "on demand"
    assert machines["gpu_spot"]["InstanceLifecycle"] == "spot"
    profiles = {name: machine["IamInstanceProfile"]["Arn"].split("/")[-1] for name, machine in machines.items()}
    assert profiles == {"head": "nst-head", "gpu_spot": "nst-worker"}


def test_a_group_that_ray_makes_would_be_open(aws: dict[str, str]) -> None:
    """Why the file gives a group: without one, Ray lets everybody in to port 22."""
    config = filled_in(aws)
    for node_type in config["available_node_types"].values():
        del node_type["node_config"]["SecurityGroupIds"]
    launch(config)
    assert [rule["FromPort"] for rule in open_to_the_world()] == [22]


@pytest.mark.usefixtures("aws")
def test_what_is_not_filled_in_is_not_started(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError):
        launch(load("ray-aws.yaml"))
    assert "Failed to detect a security group" in capsys.readouterr().err
    assert boto3.client("ec2", REGION).describe_instances()["Reservations"] == []


def test_the_head_may_not_do_what_it_likes() -> None:
    policy = json.loads((CLUSTER / "aws-head-policy.json").read_text())
    statements = {each["Sid"]: each for each in policy["Statement"]}
    for each in statements.values():
        actions = [each["Action"]] if isinstance(each["Action"], str) else each["Action"]
        assert each["Effect"] == "Allow"
        assert all("*" not in action for action in actions)
    assert statements["GiveThemTheWorkersRoleOnly"]["Resource"].endswith(":role/nst-worker")
    ending = statements["EndMachinesOfThisCluster"]["Condition"]["StringEquals"]
    assert ending == {"aws:ResourceTag/ray-cluster-name": load("ray-aws.yaml")["cluster_name"]}
    bucket = json.loads((CLUSTER / "aws-s3-policy.json").read_text())
    assert {each["Resource"] for each in bucket["Statement"]} == {
        "arn:aws:s3:::BUCKET",
        "arn:aws:s3:::BUCKET/*",
    }
