"""cluster/kuberay: what RayJobs run and what the RayService serves is understood by the jobs and by the server.

Rules are in manifest_programs.py; the second half breaks a manifest in each way that they look for.
"""

import re

import pytest

from tests.contracts.manifest_programs import PROGRAM_RULES, parsed
from tests.contracts.manifest_rules import ROOT
from tests.contracts.overlays import ENCODE, KUBERAY, OF_SERVICE, OVERLAYS, RAY, RENDERED, SERVE, TRAIN, broken


@pytest.mark.parametrize("rule", PROGRAM_RULES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_keeps_the_rule(overlay, rule):
    assert list(PROGRAM_RULES[rule](RENDERED[overlay])) == []


def test_commands_in_comments_are_ones_that_jobs_take():
    found = []
    for file in KUBERAY.rglob("*.yaml"):
        text = re.sub(r"\\\n\s*# *", " ", file.read_text(encoding="utf-8"))
        found += re.findall(r"#.*-- +(python /opt/\S+ .*)", text)
    assert found
    for command in found:
        parsed(command)


@pytest.mark.parametrize(
    "entrypoint",
    [
        "false",
        "python jobs/encode.py --config /opt/embinv/configs/minilm.yaml --texts /shared/a --out /shared/b",
        "python /opt/embinv/jobs/encoding.py --config C --texts T --out O",
        "python /opt/embinv/jobs/encode.py --config C --text T --to O",
        "python /opt/embinv/jobs/train.py --config C --data D",
    ],
)
def test_an_entrypoint_that_no_job_takes_is_refused(entrypoint):
    with pytest.raises(ValueError):
        parsed(entrypoint)


ENCODED = (
    "python /opt/embinv/jobs/encode.py --config /opt/embinv/configs/qwen3-0.6b.yaml --texts /shared/qwen3-0.6b/texts"
)
PAIRS = f"{ENCODED} --out /shared/qwen3-0.6b/pairs"
CONFIG = next(item["spec"]["serveConfigV2"] for item in RENDERED["qwen3-0.6b"] if item["kind"] == "RayService")


def entrypoint(text):
    return ("replace", "/spec/entrypoint", text)


def server(before, after):
    assert before in CONFIG
    return ("replace", "/spec/serveConfigV2", CONFIG.replace(before, after))


BROKEN = {
    "with_entrypoints": [
        (ENCODE, entrypoint(PAIRS)),  # no encoding.workers: of GPUs that are not there yet
        (ENCODE, entrypoint(f"{PAIRS} --set encoding.workers=9")),
        (ENCODE, entrypoint(f"{PAIRS} --set encoding.worker=4")),
        (ENCODE, entrypoint(f"{ENCODED} --out pairs --set encoding.workers=4")),
        (ENCODE, entrypoint(f"{ENCODED} --out /tmp/pairs --set encoding.workers=4")),
        (ENCODE, entrypoint(PAIRS.replace("configs/qwen3-0.6b", "configs/qwen3") + " --set encoding.workers=4")),
        (ENCODE, entrypoint(PAIRS.replace("/opt/embinv/configs", "configs") + " --set encoding.workers=4")),
        (ENCODE, ("remove", "/spec/entrypointNumCpus")),
        (ENCODE, ("remove", "/spec/ttlSecondsAfterFinished")),
        (ENCODE, ("remove", "/spec/backoffLimit")),
        (ENCODE, ("remove", "/spec/activeDeadlineSeconds")),
        (TRAIN, entrypoint(f"{PAIRS} --set encoding.workers=4")),
        (
            TRAIN,
            entrypoint(
                "python /opt/embinv/jobs/train.py --config /opt/embinv/configs/qwen3-0.6b.yaml --workers 4 "
                "--data /shared/qwen3-0.6b/pairs --out /shared/qwen3-0.6b/run"
            ),
        ),
    ],
    "with_one_encoder": [
        (ENCODE, entrypoint(PAIRS.replace("configs/qwen3-0.6b", "configs/qwen3-8b"))),
        (SERVE, server("name: qwen3-0.6b", "name: qwen3-8b")),
        ("Namespace embinv-qwen3-0-6b", ("replace", "/metadata/name", "embinv-qwen3-8b")),
    ],
    "with_server": [
        (SERVE, ("replace", "/spec/serveConfigV2", "applications")),
        (SERVE, ("replace", "/spec/serveConfigV2", CONFIG[: CONFIG.index("  - name: qwen3-0.6b")])),
        (SERVE, server("min_replicas", "min_replica")),
        (SERVE, server("http_options", "http_option")),
        (SERVE, server("route_prefix: null", "route_prefix: /invert")),
        (SERVE, server("serve_app.app:build_app", "serve_app.app:build")),
        (SERVE, server("keys_file: /etc/embinv/keys/keys.txt, ", "")),
        (SERVE, server("/etc/embinv/keys/keys.txt", "/shared/keys.txt")),
        (SERVE, server("port: 8000", "port: 8001")),
        (SERVE, server("EveryNode", "HeadOnly")),
        (SERVE, server(", on_head: false", "")),
        (SERVE, server("replicas: 2, ", "")),
        (SERVE, server("max_replicas_per_node: 1", "max_replicas_per_node: 2")),
        (SERVE, server("{num_cpus: 0.01}", "{num_cpus: 0}")),
        (SERVE, server("name: Gateway,", "name: Door,")),
        (SERVE, server("dim: 1024", "dim: 512")),
        (SERVE, server("/shared/checkpoints/qwen3-0.6b/1", "runs/checkpoint")),
        (SERVE, server("max_replicas: 4", "max_replicas: 1")),
        (SERVE, server("threads: 2", "threads: 64")),
        (SERVE, ("remove", f"{OF_SERVICE}/workerGroupSpecs/1")),
        (SERVE, ("add", f"{OF_SERVICE}/headGroupSpec{RAY}/volumeMounts/2/subPath", "keys.txt")),
    ],
    "with_serve_environment": [
        (SERVE, ("remove", f"{OF_SERVICE}/headGroupSpec{RAY}/env/3")),
        (SERVE, ("replace", f"{OF_SERVICE}/workerGroupSpecs/0{RAY}/env/9/value", "15")),
        (SERVE, ("remove", f"{OF_SERVICE}/workerGroupSpecs/1{RAY}/env/1")),
        (SERVE, ("add", f"{OF_SERVICE}/workerGroupSpecs/1{RAY}/env/-", {"name": "RAY_SERVE_X", "value": "1"})),
        (SERVE, ("add", f"{OF_SERVICE}/headGroupSpec{RAY}/envFrom", [{"secretRef": {"name": "embinv-credentials"}}])),
    ],
}


def test_every_rule_is_broken_by_something():
    assert BROKEN.keys() == PROGRAM_RULES.keys()


@pytest.mark.parametrize(
    ("rule", "name", "operation"),
    [(rule, *case) for rule, cases in BROKEN.items() for case in cases],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_broken_manifest_breaks_its_rule(rule, name, operation):
    assert list(PROGRAM_RULES[rule](broken(name, operation)))


def test_the_image_holds_what_entrypoints_run():
    text = (ROOT / "cluster" / "Dockerfile").read_text(encoding="utf-8")
    assert "WORKDIR /opt/embinv\n" in text
    for folder in ("jobs", "configs"):
        assert f"COPY {folder}/ {folder}/" in text
