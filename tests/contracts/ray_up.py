"""What is wrong with cluster/aws.yaml or gcp.yaml, without a cloud: `faults(text)`.

It asks Ray's own validator, Amazon's own model of a machine (botocore) or a table of Google's fields, and then looks
for what this project promises of a cluster: a head without work, an empty pool of A100s, tokens, one storage, SSH only,
least privilege. It launches nothing. test_ray_up.py uses it.
"""

import copy
import functools
import os
import re
import shlex
import tomllib
from pathlib import Path

import botocore.session
import botocore.validate
import click
import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start

ROOT = Path(__file__).resolve().parents[2]
CLOUDS = ("aws", "gcp")
# vCPUs and GPUs of the machines that the files name.
MACHINES = {
    "m6i.xlarge": (4, 0),
    "m6i.8xlarge": (32, 0),
    "p4d.24xlarge": (96, 8),
    "n2-standard-4": (4, 0),
    "n2-standard-32": (32, 0),
    "a2-highgpu-1g": (12, 1),
}
# Fields of Compute Engine's v1 API (instances.insert and firewalls.insert) as far as the files use them: a type, a
# tuple of the values that there are, or what the items of a list or the fields of an object are.
DISK = {"diskSizeGb": int, "diskType": str, "sourceImage": str}
INSTANCE = {
    "machineType": str,
    "tags": {"items": [str]},
    "metadata": {"items": [{"key": str, "value": str}]},
    "scheduling": {
        "provisioningModel": ("SPOT", "STANDARD"),
        "instanceTerminationAction": ("DELETE", "STOP"),
        "automaticRestart": bool,
        "onHostMaintenance": ("MIGRATE", "TERMINATE"),
    },
    "networkInterfaces": [{"subnetwork": str, "accessConfigs": [{"name": str, "type": ("ONE_TO_ONE_NAT",)}]}],
    "serviceAccounts": [{"email": str, "scopes": [str]}],
    "shieldedInstanceConfig": {"enableSecureBoot": bool, "enableVtpm": bool, "enableIntegrityMonitoring": bool},
    "disks": [{"boot": bool, "autoDelete": bool, "type": ("PERSISTENT", "SCRATCH"), "initializeParams": DISK}],
}
FIREWALL = {
    "name": str,
    "direction": ("INGRESS", "EGRESS"),
    "sourceRanges": [str],
    "sourceTags": [str],
    "targetTags": [str],
    "allowed": [{"IPProtocol": str, "ports": [str]}],
}


def read(cloud):
    return (ROOT / "cluster" / f"{cloud}.yaml").read_text(encoding="utf-8")


def misfits(value, shape, where=""):
    """Where a value is not of the shape: a type, a tuple of values, a list of one shape, or fields."""
    if isinstance(shape, dict):
        unknown = [f"{where}.{key} is no field" for key in value.keys() - shape.keys()]
        return unknown + [
            m for key in value.keys() & shape.keys() for m in misfits(value[key], shape[key], f"{where}.{key}")
        ]
    if isinstance(shape, list):
        if not isinstance(value, list):
            return [f"{where} is no list"]
        return [m for item in value for m in misfits(item, shape[0], where)]
    fits = value in shape if isinstance(shape, tuple) else type(value) is shape
    return [] if fits else [f"{where} is {value!r}"]


@functools.cache
def ec2():
    return botocore.session.get_session().get_service_model("ec2")


def amazon_misfits(operation, given):
    """What botocore would refuse to send."""
    report = botocore.validate.ParamValidator().validate(given, ec2().operation_model(operation).input_shape)
    return report.generate_report().splitlines()


def by_ray(config):
    """What `ray up` says before it asks anything of a cloud."""
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        return [f"Ray: {error.message}"]
    except (ValueError, AssertionError) as error:
        return [f"Ray: {error}"]
    return []


def by_the_cloud(config):
    """Node types that the cloud would refuse, and machines that are not what their `resources` say."""
    aws = config["provider"]["type"] == "aws"
    for name, node_type in config["available_node_types"].items():
        node, offered = node_type["node_config"], node_type["resources"]
        if refused := amazon_refuses(node) if aws else misfits(node, INSTANCE):
            yield from (f"{name}: {refusal}" for refusal in refused)
            continue
        cpus, gpus = MACHINES.get(node["InstanceType" if aws else "machineType"], (None, None))
        if name == config["head_node_type"]:
            cpus = 0
        if (offered.get("CPU"), offered.get("GPU", 0)) != (cpus, gpus):
            yield f"{name}: resources {offered} are not those of its machine"
        disk = node["BlockDeviceMappings"][0]["Ebs"] if aws else node["disks"][0]["initializeParams"]
        if disk["VolumeSize" if aws else "diskSizeGb"] < 100:
            yield f"{name}: no room on the disk for an image and what Ray spills"
        if aws and not (disk.get("Encrypted") and node["MetadataOptions"]["HttpTokens"] == "required"):
            yield f"{name}: the disk is not encrypted, or old metadata requests are answered"


def amazon_refuses(node):
    """SubnetIds is Ray's word, not Amazon's: Ray asks for one of them after the other."""
    given = {key: value for key, value in node.items() if key != "SubnetIds"}
    return amazon_misfits("RunInstances", {**given, "MinCount": 1, "MaxCount": 1})


def by_pools(config):
    """The head, the pools, and the time until an idle machine goes."""
    types, head = config["available_node_types"], config["head_node_type"]
    if types[head]["resources"] != {"CPU": 0}:
        yield "the head takes work"
    gpu_pools = {name: t for name, t in types.items() if t["resources"].get("GPU")}
    if not gpu_pools or not any(t["resources"].get("CPU") and name not in gpu_pools for name, t in types.items()):
        yield "a pool of CPUs or of GPUs is missing"
    if not any(t.get("min_workers", 0) >= 1 for name, t in types.items() if name not in {head, *gpu_pools}):
        yield "no CPUs to begin with, so drivers and models land on the head"
    for name, pool in gpu_pools.items():
        if pool.get("min_workers") != 0 or pool["resources"].get("accelerator_type:A100") != 1:
            yield f"{name} is not empty at first, or Ray would not know that it has A100s"
        container = pool["docker"]
        if not container["worker_image"].endswith("-cuda") or "--gpus=all" not in container["worker_run_options"]:
            yield f"{name} has no image for CUDA, or its container no GPU"
    if not 0 < config.get("idle_timeout_minutes", 0) <= 30 or config["provider"].get("cache_stopped_nodes"):
        yield "idle machines stay, or are kept stopped"


def by_addresses(config):
    """Public addresses are the head's alone, and only SSH is open."""
    provider, types = config["provider"], dict(config["available_node_types"])
    if not provider.get("use_internal_ips") or not provider.get("use_external_head_ip"):
        yield "workers are reached by public addresses"
    public = set(types.pop(config["head_node_type"])["node_config"].get("SubnetIds", []))
    for name, pool in types.items():
        node = pool["node_config"]
        if any("accessConfigs" in interface for interface in node.get("networkInterfaces", [])):
            yield f"{name} has a public address"
        if public.intersection(node.get("SubnetIds", [])):
            yield f"{name} is in the head's public subnet"
    rules = config["metadata"].get("ssh_rules", []) + config["metadata"].get("firewall", [])[:1]
    opened = [(rule["FromPort"], rule["ToPort"]) for rule in rules if "FromPort" in rule]
    opened += [port for rule in rules for allowed in rule.get("allowed", []) for port in allowed.get("ports", ["all"])]
    if opened not in ([(22, 22)], ["22"]) or "0.0.0.0/0" in str(rules):
        yield "more than SSH is open, or to everybody"


def options(config):
    """The container's environment, and its other options, on every node."""
    given = [o for o in config["docker"]["run_options"] if not o.startswith("-e ")]
    pairs = [o.removeprefix("-e ").split("=", 1) for o in config["docker"]["run_options"] if o.startswith("-e ")]
    return dict(pairs), given


def by_tokens_and_storage(config):
    """Token mode, where the token lies, the environment of Serve, /shared and what is kept there, the dashboard."""
    environment, given = options(config)
    if environment.get("RAY_AUTH_MODE") != "token":
        yield "no token mode"
    folder = os.path.dirname(environment.get("RAY_AUTH_TOKEN_PATH", "")) + "/"
    if folder not in config["file_mounts"] or "RAY_AUTH_TOKEN" in environment:
        yield "the token is in no folder that reaches every node, or stands in the file"
    pools = config["available_node_types"].values()
    if any(word in str(pool.get("docker", "")) for pool in pools for word in ("RAY_", "/shared")):
        yield "a pool has another environment or storage"
    lines = (ROOT / "cluster" / "serve.env").read_text(encoding="utf-8").splitlines()
    serving = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    if not environment.pop("EMBINV_WORK", "").startswith("/shared/"):
        yield "copies of an object store are where other nodes do not see them"
    rest = {k: v for k, v in environment.items() if not k.startswith("RAY_AUTH_") and k != "RAY_USAGE_STATS_ENABLED"}
    if rest != serving:
        yield f"the environment is not that of cluster/serve.env: {sorted(rest.items() ^ serving.items())}"
    if "-v /shared:/shared" not in given or not any("mount -t nfs" in c for c in config["initialization_commands"]):
        yield "/shared is not mounted on every node"
    if any("initialization_commands" in pool or "worker_setup_commands" in pool for pool in pools):
        yield "a pool is set up in another way"
    if not {"--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(given) or "--privileged" in given:
        yield "the container has rights that it does not need"
    for commands, head in ((config["head_start_ray_commands"], True), (config["worker_start_ray_commands"], False)):
        started = [shlex.split(c)[2:] for c in commands if c.startswith("ray start ")]
        try:
            flags = ray_start.make_context("start", started[0]).params if started else {}
        except click.ClickException as error:
            yield f"ray start: {error.message}"
            continue
        if head and (not flags.get("head") or flags.get("dashboard_host") != "127.0.0.1"):
            yield "the dashboard listens to the network"
        if head and (not flags.get("autoscaling_config") or not flags.get("disable_usage_stats")):
            yield "the head starts no workers, or reports its use"
        if not head and flags.get("address") != "$RAY_HEAD_IP:6379":
            yield "workers do not find the head"


def by_versions(config):
    """Image names: both targets, of this version of embinv and of the Ray in constraints.txt."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    ray = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    images = {"cpu": config["docker"]["image"]}
    for name, node_type in config["available_node_types"].items():
        if node_type["resources"].get("GPU"):
            images["cuda"] = node_type["docker"]["worker_image"]
        elif "docker" in node_type:
            yield f"{name} has an image of its own"
    for target, image in images.items():
        if image.rpartition("/")[2] != f"embinv:{version}-ray{ray[1]}-{target}":
            yield f"the image {image} is not that of these versions"
        if "FILL-IN" not in image:
            yield "the registry is no longer to be filled in"


def by_permissions(config):
    """Least privilege: known actions, none by a star, none on everything but looking."""
    actions = set(ec2().operation_names)
    for policy in ("head_policy", "worker_policy"):
        for statement in config["metadata"].get(policy, {}).get("Statement", []):
            for action in statement["Action"]:
                service, _, name = action.partition(":")
                if "*" in action or (service == "ec2" and name not in actions):
                    yield f"{policy}: {action} is no single action"
                if statement["Resource"] == "*" and not name.startswith("Describe"):
                    yield f"{policy}: {action} on everything"
                if name == "TerminateInstances" and "Condition" not in statement:
                    yield f"{policy}: it may end any machine"
    for permission in config["metadata"].get("head_permissions", []):
        if not re.fullmatch(r"compute\.[a-zA-Z]+\.[a-zA-Z]+", permission):
            yield f"head_permissions: {permission}"


def faults(text):
    """All that is wrong with a file."""
    config = yaml.load(text, yaml.CSafeLoader)
    found = by_ray(config)
    if not found:
        for check in (by_the_cloud, by_pools, by_addresses, by_tokens_and_storage, by_versions, by_permissions):
            found += check(config)
    return found
