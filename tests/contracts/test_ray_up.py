"""cluster/aws.yaml and gcp.yaml keep what they promise, and ray_up.py, which checks them, sees each broken promise.

Nothing is launched, and nothing is asked of a network.
"""

import logging
import os
import re
import subprocess

import pytest
import yaml

from tests.contracts.ray_up import CLOUDS, FIREWALL, ROOT, amazon_misfits, faults, misfits, read


@pytest.fixture(params=CLOUDS)
def cloud(request):
    return request.param


@pytest.fixture
def config(cloud):
    return yaml.safe_load(read(cloud))


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("ray.autoscaler._private.util").setLevel(logging.ERROR)


def test_a_file_keeps_its_promises(cloud):
    assert faults(read(cloud)) == []


def test_the_twins_differ_only_in_what_the_cloud_is():
    aws, gcp = (yaml.safe_load(read(cloud)) for cloud in CLOUDS)
    for key in ("docker", "file_mounts", "setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert aws[key] == gcp[key], key
    assert aws["available_node_types"].keys() == gcp["available_node_types"].keys()


def is_spot(node):
    return "spot" in str(node.get("InstanceMarketOptions", node.get("scheduling", {}))).lower()


def test_one_switch_makes_every_worker_spot_or_on_demand(cloud):
    text = read(cloud)
    spot, on_demand = re.findall(r"^  (?:# )?workers: &workers .*$", text, re.M)
    assert not spot.startswith("  #") and on_demand.startswith("  # ")
    flipped = text.replace(spot, spot.replace("  ", "  # ", 1)).replace(on_demand, on_demand.replace("# ", "", 1))
    assert flipped != text and faults(flipped) == []
    for given, expected in ((text, True), (flipped, False)):
        types = yaml.safe_load(given)["available_node_types"]
        workers = [t["node_config"] for name, t in types.items() if name != "head"]
        assert len(workers) == 2 and all(is_spot(node) is expected for node in workers)
        assert not is_spot(types["head"]["node_config"])


def test_the_rules_of_the_firewall_are_such_rules():
    aws, gcp = (yaml.safe_load(read(cloud))["metadata"] for cloud in CLOUDS)
    rules = aws["ssh_rules"] + aws["inside_rules"]
    assert amazon_misfits("AuthorizeSecurityGroupIngress", {"GroupId": "sg-1", "IpPermissions": rules}) == []
    assert [r for rule in gcp["firewall"] for r in misfits(rule, FIREWALL)] == []
    assert all("IpRanges" not in rule for rule in aws["inside_rules"]) and "sourceRanges" not in gcp["firewall"][1]
    head_alone = {t for name, t in tags(CLOUDS[1]) if name == "head"} - {
        t for name, t in tags(CLOUDS[1]) if name != "head"
    }
    assert set(gcp["firewall"][0]["targetTags"]) == head_alone


def tags(cloud):
    types = yaml.safe_load(read(cloud))["available_node_types"]
    return [(name, tag) for name, t in types.items() for tag in t["node_config"]["tags"]["items"]]


def test_every_command_is_one_that_bash_can_read(config):
    keys = [key for key in config if key.endswith("_commands")]
    commands = [command for key in keys for command in config[key]]
    assert len(commands) >= 9
    for command in commands:
        assert subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False).returncode == 0, command


@pytest.mark.parametrize(("mounts", "status"), [("0", 0), ("1", 1)])
def test_a_machine_that_cannot_mount_the_storage_is_no_node(config, tmp_path, mounts, status):
    command = next(c for c in config["initialization_commands"] if "mount -t nfs" in c)
    said = tmp_path / "said"
    programs = {
        "mountpoint": f"test -e {tmp_path}/mounted",
        "sudo": f'echo "$@" >> {said}; test "$1" != mount || {{ test {mounts} = 0 && touch {tmp_path}/mounted; }}',
        "sleep": "true",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", f"({command})"], env=environment, check=False, timeout=20)
    tried = said.read_text(encoding="utf-8")
    assert ran.returncode == status and ("chown 1000:1000 /shared" in tried) is (status == 0)
    assert tried.count("mount -t nfs") == (1 if status == 0 else 6)


@pytest.mark.parametrize(
    ("vendor", "answers_from", "status", "asked"),
    [("0x8086", 1, 0, 0), ("0x10de", 1, 0, 2), ("0x10de", 4, 0, 5), ("0x10de", 999, 1, 91)],
)
def test_a_machine_of_google_with_a_gpu_waits_for_its_driver(tmp_path, vendor, answers_from, status, asked):
    commands = yaml.safe_load(read("gcp"))["initialization_commands"]
    [place] = [place for place, each in enumerate(commands) if "nvidia-smi" in each]
    count = tmp_path / "count"
    for name, script in {
        "cat": f"echo {vendor}",
        "nvidia-smi": f"echo >> {count}; test $(wc -l < {count}) -ge {answers_from}",
        "sleep": "true",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ran = subprocess.run(["bash", "-c", f"({commands[place]})"], env=environment, capture_output=True, check=False)
    times = len(count.read_text(encoding="utf-8").splitlines()) if count.exists() else 0
    assert (ran.returncode, times) == (status, asked)


def test_a_container_without_the_token_starts_no_ray(config, tmp_path):
    command = next(c for c in config["setup_commands"] if "RAY_AUTH_TOKEN_PATH" in c)
    token = tmp_path / "auth_token"
    for content, status in ((None, 1), ("", 1), ("abc", 0)):
        if content is not None:
            token.write_text(content, encoding="utf-8")
        environment = {**os.environ, "RAY_AUTH_TOKEN_PATH": str(token)}
        assert (
            subprocess.run(["bash", "-c", f"({command})"], env=environment, capture_output=True, check=False).returncode
            == status
        )


BREAKS = {
    "both: an unknown key": (r"^idle_timeout_minutes:", "idle_timeout_minute:", "Additional properties are not"),
    "both: an unknown key of a node type": (r"^    min_workers:", "    min_worker:", "Additional properties are not"),
    "both: a head that is no type": (r"^head_node_type: head", "head_node_type: haed", "must be one of"),
    "both: a pool without resources": (r"^    resources: \{CPU: 32\}\n", "", "'resources' is a required property"),
    "both: a head that works": (r"resources: \{CPU: 0\}", "resources: {CPU: 4}", "the head takes work"),
    "both: no CPUs from the start": (r"min_workers: 1", "min_workers: 0", "no CPUs to begin with"),
    "both: GPUs from the start": (r"min_workers: 0(\n    max_workers: [24])", r"min_workers: 1\1", "not empty"),
    "both: A100s unknown to Ray": (r', "accelerator_type:A100": 1', "", "would not know"),
    "both: more GPUs than there are": (r"GPU: \d", "GPU: 16", "are not those of its machine"),
    "both: a pool of CPUs is gone": (r"^  cpu:\n(    .*\n|\n)+(?=  a100:)", "", "a pool of CPUs or of GPUs is missing"),
    "both: no GPU in the container": (r"--gpus=all, ", "", "its container no GPU"),
    "both: public workers": (r"use_internal_ips: true", "use_internal_ips: false", "public addresses"),
    "both: idle machines stay": (r"^idle_timeout_minutes: 10", "idle_timeout_minutes: 0", "idle machines stay"),
    "both: a small disk": (r"(VolumeSize|diskSizeGb): 300", r"\1: 30", "no room on the disk"),
    "both: no tokens": (r"RAY_AUTH_MODE=token$", "RAY_AUTH_MODE=disabled", "no token mode"),
    "both: token mode is not said": (r"^    - -e RAY_AUTH_MODE=token\n", "", "no token mode"),
    "both: the token goes nowhere": (r"^  /etc/embinv/ray-token/:", "  /etc/embinv/other/:", "no folder that reaches"),
    "both: the token in the file": (r"-e RAY_AUTH_TOKEN_PATH=.*", "-e RAY_AUTH_TOKEN=abc", "stands in the file"),
    "both: a public dashboard": (r"--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "dashboard listens"),
    "both: no autoscaler": (r"--autoscaling-config=\S+", "", "starts no workers"),
    "both: a flag that is none": (r"--object-manager-port", "--object-manger-port", "ray start: No such"),
    "both: workers find no head": (r"\$RAY_HEAD_IP:6379", "$HEAD_IP:6379", "workers do not find the head"),
    "both: Serve's environment differs": (r"RAY_worker_niceness=0", "RAY_worker_niceness=15", "RAY_worker_niceness"),
    "both: Serve's environment lacks a line": (r"^ +- -e RAY_SERVE_LOG_TO_STDERR=0\n", "", "RAY_SERVE_LOG_TO_STDERR"),
    "both: copies on one node": (r"EMBINV_WORK=/shared/objects", "EMBINV_WORK=/tmp/objects", "nodes do not see them"),
    "both: copies at home": (r"^ +- -e EMBINV_WORK=.*\n", "", "nodes do not see them"),
    "both: no storage in the container": (r"^ +- -v /shared:/shared\n", "", "/shared is not mounted"),
    "both: no storage on the machine": (r"sudo mount -t nfs", "sudo mount -t ext", "/shared is not mounted"),
    "both: a pool without the storage": (r"^(  cpu:\n)", r"\1    initialization_commands: []\n", "in another way"),
    "both: a privileged container": (r"--cap-drop=ALL", "--privileged", "rights that it does not need"),
    "both: another Ray": (r"ray2\.60\.0-cpu", "ray2.59.0-cpu", "is not that of these versions"),
    "both: the CPU image on GPUs": (r"worker_image: \*cuda_image", "worker_image: *cpu_image", "no image for CUDA"),
    "both: a registry that is somebody's": (r"ghcr.io/FILL-IN/(\S+-cpu)", r"ghcr.io/somebody/\1", "to be filled in"),
    "both: SSH for everybody": (r"(CidrIp: |sourceRanges: \[)[\d./]+", r"\g<1>0.0.0.0/0", "open, or to everybody"),
    "aws: another port": (r"ToPort: 22", "ToPort: 8265", "open, or to everybody"),
    "gcp: another port": (r'ports: \["22"\]', 'ports: ["8265"]', "open, or to everybody"),
    "gcp: every port": (r', ports: \["22"\]', "", "open, or to everybody"),
    "aws: a field that Amazon lacks": (r"InstanceType: m6i.8xlarge", "Instancetype: m6i.8xlarge", "Instancetype"),
    "aws: a value of another type": (r"VolumeSize: 300", "VolumeSize: large", "VolumeSize"),
    "aws: stopped machines kept": (r"cache_stopped_nodes: false", "cache_stopped_nodes: true", "kept stopped"),
    "aws: an open disk": (r"VolumeSize: 300, VolumeType: gp3, Encrypted: true", "VolumeSize: 300", "is not encrypted"),
    "aws: old metadata requests": (r"HttpTokens: required", "HttpTokens: optional", "old metadata requests"),
    "aws: a public worker": (r"SubnetIds: \*private_subnets", "SubnetIds: [subnet-FILL-IN-public]", "public"),
    "aws: a star": (r'"ec2:RunInstances"', '"ec2:*"', "is no single action"),
    "aws: an action that is none": (r'"ec2:RunInstances"', '"ec2:RunInstance"', "is no single action"),
    "aws: a role for everything": (r"Resource: arn:aws:iam::\S+", 'Resource: "*"', "iam:PassRole on everything"),
    "gcp: a field that Google lacks": (r"onHostMaintenance", "onHostMaintain", "onHostMaintain is no field"),
    "gcp: a value that there is not": (r"provisioningModel: SPOT", "provisioningModel: CHEAP", "is 'CHEAP'"),
    "gcp: a public worker": (r"\[\{subnetwork: \*subnet\}\]", "[{subnetwork: *subnet, accessConfigs: []}]", "public"),
    "gcp: a wide permission": (r"- compute.disks.create", "- compute.*", "head_permissions: compute.*"),
}  # fmt: skip


def cloud_of(broken):
    """What concerns both is tried on one and on the other in turn: the files are twins, and one checker reads them."""
    whose = broken.split(":")[0]
    return CLOUDS[list(BREAKS).index(broken) % 2] if whose == "both" else whose


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_promise_is_seen(broken):
    pattern, replacement, said = BREAKS[broken]
    text, times = re.subn(pattern, replacement, read(cloud_of(broken)), flags=re.M)
    assert times, "the pattern hits nothing"
    found = faults(text)
    assert any(said in fault for fault in found), found


def test_the_image_holds_what_ray_up_needs_in_it():
    recipe = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"\brsync\b", recipe) and "openssh-client" in recipe, "the head sets workers up from its container"
    assert "USER 1000" in recipe, "the token that ray up copies belongs to uid 1000"
    assert "/etc/profile.d/" in recipe or "/usr/local/bin/ray" in recipe, "a login shell sets its own PATH"
