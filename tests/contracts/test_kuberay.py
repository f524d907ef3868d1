"""cluster/kuberay: what the overlays become is what Kubernetes and KubeRay take, and keeps its promises.

Rules are in manifest_rules.py; the second half breaks a manifest in each way that they look for. What jobs and server
are told is in test_kuberay_programs.py, and who reaches whom in test_kuberay_network.py.
"""

import re
import shutil
import subprocess

import pytest
import yaml

from tests.contracts.kustomize import Mistake, documents, render
from tests.contracts.manifest_pods import pods
from tests.contracts.manifest_rules import PARTS, ROOT, RULES
from tests.contracts.manifest_schemas import OLDEST, as_pod_template, core_problems
from tests.contracts.overlays import (
    A100,
    CLUSTER,
    CPU,
    ENCODE,
    HEAD,
    KUBERAY,
    OF_JOB,
    OF_SERVICE,
    OVERLAYS,
    POD,
    RAY,
    RENDERED,
    SERVE,
    TRAIN,
    broken,
)


def test_each_config_has_an_overlay():
    assert sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")) == OVERLAYS


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_keeps_the_rule(overlay, rule):
    assert list(RULES[rule](RENDERED[overlay])) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_older_kubernetes_takes_it_too(overlay):
    core = [item for item in RENDERED[overlay] if item["apiVersion"] != "ray.io/v1"]
    core += [as_pod_template({"metadata": {"labels": pod.labels}, "spec": pod.spec}) for pod in pods(RENDERED[overlay])]
    assert [problem for item in core for problem in core_problems(item, OLDEST)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_thin(overlay):
    """It names what differs between encoders: namespace, commands, the server's configuration, pools to leave out."""
    (tree,) = documents(KUBERAY / "overlays" / overlay / "kustomization.yaml")
    assert tree.keys() == {"apiVersion", "kind", "namespace", "resources", "patches"}
    assert tree["resources"] == ["../../base"]
    changed = [operation for patch in tree["patches"] for operation in yaml.safe_load(patch["patch"])]
    for operation in changed:
        assert operation["path"] in {"/spec/entrypoint", "/spec/serveConfigV2"} or operation["op"] == "remove"


def test_the_demo_encoder_needs_no_gpu_and_the_others_may_have_them():
    roles = {name: {pod.role for pod in pods(objects)} for name, objects in RENDERED.items()}
    assert {name for name, found in roles.items() if "a100" not in found} == {"minilm"}


def test_the_registry_is_named_in_one_place_and_is_none_until_somebody_fills_it_in():
    files = [path for path in KUBERAY.rglob("*.yaml") if "registry.invalid" in path.read_text(encoding="utf-8")]
    assert files == [KUBERAY / "base" / "kustomization.yaml"]


@pytest.mark.parametrize("file", sorted(KUBERAY.rglob("*.yaml")), ids=lambda file: str(file.relative_to(KUBERAY)))
def test_parts_that_comments_tell_to_apply_are_there(file):
    text = file.read_text(encoding="utf-8")
    named = re.findall(r"-l app\.kubernetes\.io/component=(\w+)", text)
    named += [part for group in re.findall(r"component in \(([^)]*)\)", text) for part in group.split(", ")]
    assert set(named) <= {*PARTS.values(), "shared"}
    for overlay in re.findall(r"cluster/kuberay/overlays/([\w.-]+)", text):
        assert overlay in OVERLAYS


def has_kustomize() -> bool:
    """Whether there is a kubectl whose kustomize is new enough to copy fields (version 5)."""
    if shutil.which("kubectl") is None:
        return False
    told = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, check=False)
    return "Kustomize Version: v5" in told.stdout


@pytest.mark.slow
@pytest.mark.parametrize("folder", [*(f"kuberay/overlays/{name}" for name in OVERLAYS), "grafana"])
def test_kubectl_renders_the_same(folder):
    if not has_kustomize():
        pytest.skip("needs a kubectl with kustomize 5; Debian's is older")
    command = ["kubectl", "kustomize", str(ROOT / "cluster" / folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)

    def by_name(objects):
        return {(item["kind"], item["metadata"]["name"]): item for item in objects}

    assert by_name(yaml.safe_load_all(told.stdout)) == by_name(render(ROOT / "cluster" / folder))


# A manifest that is broken in one way

BROKEN = {
    "taken": [
        (CLUSTER, ("add", "/spec/enableIntreeAutoscaling", True)),
        (CLUSTER, ("add", "/spec/autoscalerOptions/idleTimeOutSeconds", 60)),
        (CLUSTER, ("replace", "/spec/autoscalerOptions/version", "v3")),
        (CLUSTER, ("replace", "/spec/autoscalerOptions/idleTimeoutSeconds", "300")),
        (CLUSTER, ("add", "/spec/autoscalerOptions/resources/limit", {"cpu": "1"})),
        (CLUSTER, ("replace", "/spec/authOptions/mode", "tokens")),
        (CLUSTER, ("replace", f"{HEAD}/rayStartParams", {"num-cpus": 0})),
        (CLUSTER, ("remove", "/spec/headGroupSpec")),
        (CLUSTER, ("remove", f"{CPU}/template")),
        (CLUSTER, ("remove", f"{CPU}/minReplicas")),
        (CLUSTER, ("replace", f"{CPU}/maxReplicas", True)),
        (CLUSTER, ("add", f"{CPU}/replica", 1)),
        (CLUSTER, ("add", f"{HEAD}/rayStartParams/labels", "a=b")),
        (CLUSTER, ("add", f"{A100}/rayStartParams/num-gpus", "1")),
        (CLUSTER, ("replace", f"{A100}/groupName", "cpu")),
        (CLUSTER, ("replace", f"{HEAD}{POD}/restartPolicy", "Always")),
        (CLUSTER, ("add", f"{HEAD}{RAY}/envfrom", [])),
        (CLUSTER, ("add", f"{CPU}{POD}/toleration", [])),
        (CLUSTER, ("replace", f"{CPU}{RAY}/livenessProbe/httpGet/port", [52365])),
        (CLUSTER, ("add", "/metadata/label", {})),
        (CLUSTER, ("add", "/data", {})),
        (ENCODE, ("add", "/spec/backOffLimit", 1)),
        (ENCODE, ("replace", "/spec/activeDeadlineSeconds", 0)),
        (ENCODE, ("replace", "/spec/shutdownAfterJobFinishes", False)),
        (ENCODE, ("replace", "/spec/submissionMode", "SidecarMode")),
        (ENCODE, ("replace", "/spec/submissionMode", "K8SJobMode")),
        (ENCODE, ("replace", "/metadata/name", "embinv-encode-qwen3-0.6b")),
        (ENCODE, ("replace", "/metadata/name", "e" * 48)),
        (ENCODE, ("remove", "/spec/rayClusterSpec")),
        (ENCODE, ("add", "/spec/submitterPodTemplate/spec/container", [])),
        (SERVE, ("replace", "/spec/upgradeStrategy/type", "Rolling")),
        (SERVE, ("add", "/spec/serveConfig", "")),
        (SERVE, ("replace", "/spec/serveConfigV2", {})),
        ("Namespace embinv-qwen3-0-6b", ("replace", "/apiVersion", "v2")),
        ("NetworkPolicy names", ("add", "/spec/egres", [])),
        ("PodDisruptionBudget head-of-train", ("replace", "/spec/selector", [])),
        ("PersistentVolumeClaim embinv-shared", ("add", "/spec/resources/request", {})),
    ],
    "with_tokens": [
        (CLUSTER, ("remove", "/spec/authOptions")),
        (ENCODE, ("replace", f"{OF_JOB}/authOptions/mode", "disabled")),
        (SERVE, ("remove", f"{OF_SERVICE}/authOptions/mode")),
        (TRAIN, ("add", f"{OF_JOB}/headGroupSpec{RAY}/env/-", {"name": "RAY_AUTH_MODE", "value": "disabled"})),
        (CLUSTER, ("add", "/spec/autoscalerOptions/env/-", {"name": "RAY_AUTH_MODE", "value": "disabled"})),
    ],
    "restricted": [
        (CLUSTER, ("remove", f"{HEAD}{POD}/securityContext/runAsNonRoot")),
        (CLUSTER, ("replace", f"{HEAD}{POD}/securityContext/runAsUser", 0)),
        (CLUSTER, ("replace", f"{A100}{POD}/securityContext/seccompProfile/type", "Unconfined")),
        (CLUSTER, ("add", f"{CPU}{POD}/hostNetwork", True)),
        (CLUSTER, ("add", f"{CPU}{POD}/volumes/-", {"name": "x", "hostPath": {"path": "/"}})),
        (CLUSTER, ("add", f"{CPU}{RAY}/securityContext/runAsUser", 0)),
        (CLUSTER, ("add", f"{CPU}{RAY}/securityContext/runAsNonRoot", False)),
        (CLUSTER, ("remove", f"{CPU}{RAY}/securityContext/allowPrivilegeEscalation")),
        (CLUSTER, ("add", f"{CPU}{RAY}/securityContext/privileged", True)),
        (CLUSTER, ("add", f"{CPU}{RAY}/securityContext/capabilities/add", ["SYS_PTRACE"])),
        (CLUSTER, ("remove", f"{CPU}{RAY}/securityContext/capabilities")),
        (CLUSTER, ("remove", f"{CPU}{RAY}/securityContext/readOnlyRootFilesystem")),
        (CLUSTER, ("remove", "/spec/autoscalerOptions/securityContext")),
        (CLUSTER, ("remove", f"{CPU}{RAY}/volumeMounts/0")),
        (SERVE, ("remove", f"{OF_SERVICE}/headGroupSpec{RAY}/env/0")),
        (ENCODE, ("remove", "/spec/submitterPodTemplate/spec/securityContext")),
        (ENCODE, ("remove", "/spec/submitterPodTemplate/spec/containers/0/securityContext")),
        ("Namespace embinv-qwen3-0-6b", ("remove", "/metadata/labels/pod-security.kubernetes.io~1enforce")),
    ],
    "closed": [
        (CLUSTER, ("replace", f"{HEAD}/serviceType", "LoadBalancer")),
        (CLUSTER, ("replace", f"{HEAD}/serviceType", "NodePort")),
        (CLUSTER, ("add", f"{HEAD}/enableIngress", True)),
        (CLUSTER, ("add", f"{HEAD}/ingressOptions", {"host": "x"})),
        (SERVE, ("add", f"{OF_SERVICE}/headGroupSpec/headService", {"spec": {"type": "NodePort"}})),
        (SERVE, ("add", "/spec/serveService", {"spec": {"type": "LoadBalancer"}})),
        (CLUSTER, ("add", f"{CPU}{RAY}/ports/1/hostPort", 8000)),
        ("ServiceAccount embinv-head", ("replace", "/kind", "Ingress")),
    ],
    "without_secrets": [
        (CLUSTER, ("add", f"{HEAD}{RAY}/env/-", {"name": "HF_TOKEN", "value": "x"})),
        (CLUSTER, ("add", f"{HEAD}{RAY}/env/-", {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"})),
        (CLUSTER, ("add", f"{HEAD}{RAY}/env/-", {"name": "X", "value": "AKIA" + "A" * 16})),
        (SERVE, ("add", "/metadata/annotations", {"key": "embinv_" + "x" * 43})),
        ("ServiceAccount embinv-head", ("replace", "/kind", "Secret")),
    ],
    "with_resources": [
        (CLUSTER, ("remove", f"{HEAD}{RAY}/resources")),
        (CLUSTER, ("remove", f"{CPU}{RAY}/resources/limits/memory")),
        (CLUSTER, ("replace", f"{CPU}{RAY}/resources/requests/memory", "1Gi")),
        (CLUSTER, ("remove", f"{A100}{RAY}/resources/limits/nvidia.com~1gpu")),
        (CLUSTER, ("add", f"{CPU}{RAY}/resources/limits/nvidia.com~1gpu", "1")),
        (CLUSTER, ("remove", "/spec/autoscalerOptions/resources")),
        (ENCODE, ("remove", "/spec/submitterPodTemplate/spec/containers/0/resources/requests")),
    ],
    "with_pools": [
        (CLUSTER, ("replace", "/spec/enableInTreeAutoscaling", False)),
        (CLUSTER, ("remove", "/spec/autoscalerOptions/version")),
        (CLUSTER, ("replace", f"{HEAD}/rayStartParams/num-cpus", "2")),
        (CLUSTER, ("remove", f"{HEAD}/rayStartParams/num-cpus")),
        (CLUSTER, ("replace", f"{CPU}/minReplicas", 0)),
        (CLUSTER, ("replace", f"{CPU}/replicas", 9)),
        (CLUSTER, ("replace", f"{A100}/minReplicas", 1)),
        (CLUSTER, ("remove", f"{A100}/resources")),
        (CLUSTER, ("remove", f"{A100}{POD}/nodeSelector")),
        (CLUSTER, ("remove", f"{A100}{POD}/tolerations")),
    ],
    "with_one_version": [
        (CLUSTER, ("replace", "/spec/rayVersion", "2.59.0")),
        (CLUSTER, ("replace", f"{HEAD}{RAY}/image", "registry.invalid/embinv:0.1.0-ray2.59.0-cpu")),
        (CLUSTER, ("replace", f"{CPU}{RAY}/image", "embinv:0.1.0-ray2.60.0-cpu")),
        (CLUSTER, ("replace", f"{A100}{RAY}/image", "registry.invalid/embinv:0.1.0-ray2.60.0-cpu")),
        (CLUSTER, ("replace", f"{A100}{RAY}/image", "registry.invalid/embinv:latest")),
        (ENCODE, ("replace", "/spec/submitterPodTemplate/spec/containers/0/image", "rayproject/ray:2.60.0")),
        (CLUSTER, ("add", "/spec/autoscalerOptions/image", "rayproject/ray:2.60.0")),
    ],
    "with_shared_storage": [
        ("PersistentVolumeClaim embinv-shared", ("replace", "/spec/accessModes", ["ReadWriteOnce"])),
        ("PersistentVolumeClaim embinv-shared", ("replace", "/metadata/name", "shared")),
        (CLUSTER, ("replace", f"{CPU}{POD}/volumes/1/persistentVolumeClaim/claimName", "embinv")),
        (CLUSTER, ("remove", f"{CPU}{RAY}/volumeMounts/1")),
        (CLUSTER, ("replace", "/spec/autoscalerOptions/volumeMounts/0/name", "temporary")),
        (TRAIN, ("add", f"{OF_JOB}/workerGroupSpecs/1{RAY}/volumeMounts/1/readOnly", True)),
        (SERVE, ("remove", f"{OF_SERVICE}/workerGroupSpecs/0{RAY}/volumeMounts/1/readOnly")),
    ],
    "with_accounts": [
        ("ServiceAccount embinv-worker", ("remove", "/automountServiceAccountToken")),
        ("ServiceAccount embinv-worker", ("replace", "/metadata/name", "worker")),
        ("ServiceAccount embinv-worker", ("replace", "/kind", "RoleBinding")),
        (CLUSTER, ("remove", f"{CPU}{POD}/automountServiceAccountToken")),
        (CLUSTER, ("replace", f"{HEAD}{POD}/automountServiceAccountToken", False)),
        (CLUSTER, ("replace", f"{CPU}{POD}/serviceAccountName", "embinv-head")),
        (ENCODE, ("remove", "/spec/submitterPodTemplate/spec/serviceAccountName")),
    ],
    "with_budgets": [
        ("PodDisruptionBudget head-of-train", ("replace", "/spec/minAvailable", "50%")),
        ("PodDisruptionBudget head-of-train", ("add", "/spec/maxUnavailable", 0)),
        ("PodDisruptionBudget head-of-train", ("remove", "/spec/selector/matchLabels/ray.io~1node-type")),
        ("PodDisruptionBudget head-of-train", ("remove", "/spec/selector/matchLabels/app.kubernetes.io~1component")),
        ("PodDisruptionBudget head-of-serve", ("replace", "/kind", "Namespace")),
        ("PodDisruptionBudget workers-of-serve", ("replace", "/spec/minAvailable", 2)),
        (SERVE, ("replace", f"{OF_SERVICE}/workerGroupSpecs/0/minReplicas", 1)),
    ],
    "with_probes": [
        (CLUSTER, ("remove", f"{HEAD}{RAY}/livenessProbe")),
        (CLUSTER, ("remove", f"{A100}{RAY}/readinessProbe")),
        (CLUSTER, ("replace", f"{CPU}{RAY}/livenessProbe/httpGet/path", "/")),
        (SERVE, ("add", f"{OF_SERVICE}/workerGroupSpecs/0{RAY}/readinessProbe", {"httpGet": {"port": 8000}})),
    ],
    "with_parts": [
        ("NetworkPolicy names", ("remove", "/metadata/labels/app.kubernetes.io~1component")),
        ("NetworkPolicy names", ("replace", "/metadata/namespace", "default")),
        (ENCODE, ("replace", "/metadata/labels/app.kubernetes.io~1component", "train")),
        (ENCODE, ("replace", f"{OF_JOB}/headGroupSpec/template/metadata/labels/app.kubernetes.io~1component", "x")),
        (SERVE, ("remove", f"{OF_SERVICE}/workerGroupSpecs/1/template/metadata/labels/app.kubernetes.io~1part-of")),
        (TRAIN, ("replace", "/kind", "Namespaced")),
    ],
}


def test_every_rule_is_broken_by_something():
    assert BROKEN.keys() == RULES.keys()


@pytest.mark.parametrize(
    ("rule", "name", "operation"), [(rule, *case) for rule, cases in BROKEN.items() for case in cases], ids=str
)
def test_a_broken_manifest_breaks_its_rule(rule, name, operation):
    assert list(RULES[rule](broken(name, operation)))


# The renderer


def kustomization(folder, tree, **files):
    tree = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **tree}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    for name, objects in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(objects), encoding="utf-8")
    return folder


THING = {"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "one"}, "spec": {"a/b": [1, 2]}}


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"namePrefix": "x-"}, "namePrefix"),
        ({"labels": [{"pairs": {}, "includeSelectors": True}]}, "includeSelectors"),
        ({"images": [{"name": "a", "newName": "b", "newTag": "c"}]}, "newTag"),
        ({"patches": [{"path": "x.yaml", "target": {"kind": "Thing", "labelSelector": "a=b"}}]}, "x.yaml"),
        ({"patches": [{"patch": "[]", "target": {"kind": "Thing", "labelSelector": "a=b"}}]}, "labelSelector"),
        ({"patches": [{"patch": "[]", "target": {"kind": "Thing", "name": "two"}}]}, "no Thing two"),
        ({"patches": [{"patch": "spec: {}", "target": {"kind": "Thing"}}]}, "only lists"),
        ({"patches": [{"patch": "[{op: test, path: /a, value: 1}]", "target": {"kind": "Thing"}}]}, "not an operation"),
        ({"patches": [{"patch": "[{op: remove, path: /spec/x}]", "target": {"kind": "Thing"}}]}, "leads nowhere"),
        (
            {"patches": [{"patch": "[{op: replace, path: /spec/a~1b/2, value: 1}]", "target": {"kind": "Thing"}}]},
            "nowhere",
        ),
        ({"resources": ["things.yaml", "things.yaml"]}, "the same name"),
        ({"configMapGenerator": [{"name": "x", "files": []}]}, "disableNameSuffixHash"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_the_renderer_does_not_know_is_refused(tmp_path, tree, told):
    folder = kustomization(tmp_path, {"resources": ["things.yaml"], **tree}, things=[THING])
    with pytest.raises((Mistake, OSError), match=re.escape(told)):
        render(folder)


def test_operations_are_those_of_json_6902(tmp_path):
    operations = [
        {"op": "replace", "path": "/spec/a~1b/0", "value": 5},
        {"op": "add", "path": "/spec/a~1b/-", "value": 7},
        {"op": "add", "path": "/spec/a~1b/1", "value": 6},
        {"op": "remove", "path": "/spec/a~1b/2"},
        {"op": "add", "path": "/spec/new", "value": {"x": None}},
    ]
    patch = {"target": {"kind": "Thing"}, "patch": yaml.safe_dump(operations)}
    (item,) = render(kustomization(tmp_path, {"resources": ["things.yaml"], "patches": [patch]}, things=[THING]))
    assert item["spec"] == {"a/b": [5, 6, 7], "new": {"x": None}}
