"""cluster/aws.yaml as Ray would act on it: Ray's own code for EC2 against moto's EC2 in this process, and Ray's own
updater of a machine with a recorder in place of ssh. No machine is started and no network is used.
"""

import json
import logging
import os

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws import config as aws_config
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.aws.utils import client_cache, resource_cache
from ray.autoscaler._private.updater import NodeUpdater
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig

from tests.contracts.ray_up import read

pytestmark = pytest.mark.slow

HOST_FOLDER = "/tmp/ray_tmp_mount/embinv/etc/embinv/ray-token/"


class Recorder:
    """What would be run on a machine by ssh, in place of `subprocess`; it answers what a machine with docker would."""

    def __init__(self):
        self.ran = []
        self.answers = {
            "command -v docker": "/usr/bin/docker",
            ".State.Running": "",
            ".Config.Env": json.dumps(["PATH=/usr/local/bin", "HOME=/home/embinv"]),
            "info -f": "map[runc:{runc []}]",
            "/proc/meminfo": "MemAvailable: 16000000 kB",
            "printenv HOME": "/home/embinv",
        }

    def check_call(self, command, *_, **__):
        self.ran.append(" ".join(command))

    def check_output(self, command, *_, **__):
        self.ran.append(" ".join(command))
        return next((said for part, said in self.answers.items() if part in self.ran[-1]), "").encode()

    def only(self, part):
        found = [(place, line) for place, line in enumerate(self.ran) if part in line]
        assert len(found) == 1, (part, found)
        return found[0]


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """An account of EC2 set up as the file says, and the file filled in for it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps the key that it makes in ~/.ssh
    token = tmp_path / ".embinv" / "ray-token"
    token.mkdir(parents=True)
    (token / "auth_token").write_text("0" * 64, encoding="utf-8")
    logging.getLogger("ray.autoscaler._private").setLevel(logging.ERROR)
    with mock_aws():
        for cached in (client_cache, resource_cache, aws_config._get_subnets_or_die):
            cached.cache_clear()
        ec2, iam = boto3.client("ec2", "us-east-1"), boto3.client("iam")
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        filled = {"FILL-IN-account": "123456789012", "ami-FILL-IN": ec2.describe_images()["Images"][0]["ImageId"]}
        for kind, block in (("public", "10.0.0.0/24"), ("private", "10.0.1.0/24")):
            subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone="us-east-1a")["Subnet"]["SubnetId"]
            ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": kind == "public"})
            filled[f"subnet-FILL-IN-{kind}"] = subnet
        for kind in ("ssh", "inside"):
            group = ec2.create_security_group(GroupName=kind, Description=kind, VpcId=vpc)["GroupId"]
            filled[f"sg-FILL-IN-{kind}"] = group
        for profile in ("embinv-head", "embinv-worker"):
            iam.create_instance_profile(InstanceProfileName=profile)
        text = read("aws")
        for placeholder, value in filled.items():
            text = text.replace(placeholder, value)
        rules = yaml.safe_load(text)["metadata"]
        for kind in ("ssh", "inside"):
            group = filled[f"sg-FILL-IN-{kind}"]
            ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=rules[f"{kind}_rules"])
        yield text, ec2, iam


def bootstrapped(text):
    """The config as `ray up` completes it before it launches anything; that Amazon's machines are what `resources` says
    is looked up in a test of its own, since moto takes seconds to list them."""
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    return AWSNodeProvider.bootstrap_config(config)


@pytest.mark.parametrize("spot", [True, False])
def test_ray_launches_what_the_file_promises_and_makes_no_rights_of_its_own(cloud, spot):
    text, ec2, iam = cloud
    if not spot:
        text = text.replace("\n  workers: &workers {Inst", "\n  # {Inst").replace("\n  # workers:", "\n  workers:")
    groups = len(ec2.describe_security_groups()["SecurityGroups"])
    config = bootstrapped(text)
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    for name, node_type in config["available_node_types"].items():
        provider.create_node(node_type["node_config"], {"ray-node-type": name}, 1)
    started = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    machines = {next(t["Value"] for t in i["Tags"] if t["Key"] == "ray-node-type"): i for i in started}
    assert {name: i["InstanceType"] for name, i in machines.items()} == {
        "head": "m6i.xlarge",
        "cpu": "m6i.8xlarge",
        "a100": "p4d.24xlarge",
    }
    for name, machine in machines.items():
        head = name == "head"
        assert bool(machine.get("PublicIpAddress")) is head
        assert (machine.get("InstanceLifecycle") == "spot") is (spot and not head)
        assert machine["IamInstanceProfile"]["Arn"].endswith("embinv-head" if head else "embinv-worker")
        assert {group["GroupName"] for group in machine["SecurityGroups"]} == (
            {"ssh", "inside"} if head else {"inside"}
        )
    assert len(ec2.describe_security_groups()["SecurityGroups"]) == groups and iam.list_roles()["Roles"] == []


def test_the_resources_are_those_that_ray_knows_of_amazons_machines(cloud):
    config = prepare_config(yaml.safe_load(cloud[0]))
    told = {name: dict(node_type["resources"]) for name, node_type in config["available_node_types"].items()}
    for node_type in config["available_node_types"].values():
        node_type["resources"] = {}
    known = AWSNodeProvider.fillout_available_node_types_resources(config)["available_node_types"]
    for name in ("cpu", "a100"):
        assert {key: n for key, n in known[name]["resources"].items() if key != "memory"} == told[name]


@pytest.mark.parametrize("name", ["head", "cpu", "a100"])
def test_a_machine_is_given_the_token_and_the_storage_before_ray_starts(cloud, name):
    config = bootstrapped(cloud[0])
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    node_type = config["available_node_types"][name]
    [machine] = provider.create_node(node_type["node_config"], {"ray-node-type": name}, 1)
    provider.non_terminated_nodes({})  # Ray keeps the labels of what it has seen
    head, recorder = name == "head", Recorder()
    updater = NodeUpdater(
        node_id=machine,
        provider_config=config["provider"],
        provider=provider,
        auth_config=config["auth"],
        cluster_name=config["cluster_name"],
        file_mounts=config["file_mounts"],
        initialization_commands=config["initialization_commands"],
        setup_commands=config["head_setup_commands" if head else "worker_setup_commands"],
        ray_start_commands=config["head_start_ray_commands" if head else "worker_start_ray_commands"],
        runtime_hash="1",
        file_mounts_contents_hash="1",
        is_head_node=head,
        node_resources=node_type["resources"],
        process_runner=recorder,
        docker_config=AutoscalingConfig(config, skip_content_hash=True).get_docker_config(name),
    )
    updater.run()
    assert updater.exitcode == 0

    synced, line = recorder.only("rsync --rsh")
    assert line.endswith(HOST_FOLDER) and f"{os.environ['HOME']}/.embinv/ray-token/" in line
    mounted, _ = recorder.only("mount -t nfs4")
    made, container = recorder.only("docker run")
    checked, _ = recorder.only("test -s")
    started, start = recorder.only("ray start")
    assert synced < mounted < made < checked < started
    assert (
        f"-v {HOST_FOLDER}:/etc/embinv/ray-token/" in container.replace("//", "/") and "-v /shared:/shared" in container
    )
    assert (
        "-e RAY_AUTH_MODE=token" in container and "-e RAY_AUTH_TOKEN_PATH=/etc/embinv/ray-token/auth_token" in container
    )
    assert "--cap-drop=ALL" in container and ("--gpus=all" in container) is (name == "a100")
    assert f"embinv:0.1.0-ray2.60.0-{'cuda' if name == 'a100' else 'cpu'} bash" in container
    address = provider.external_ip(machine) if head else provider.internal_ip(machine)
    assert f"ubuntu@{address}" in start and "docker exec" in start
    assert ("--dashboard-host=127.0.0.1" in start) is head and "RAY_OVERRIDE_RESOURCES" in start
