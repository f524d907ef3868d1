"""What the manifests of cluster/kuberay promise: rights, tokens, closed doors, pools, storage, versions.

Each rule takes the objects of one overlay and says, a sentence each, what breaks it; RULES names them all. Whether
Kubernetes would take an object at all is the business of manifest_schemas.py, and what the jobs and the server are
told that of manifest_programs.py.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from tests.contracts.manifest_pods import Pod, of_kind, pods, selects
from tests.contracts.manifest_schemas import clusters, problems

Object = dict[str, Any]
Rule = Callable[[list[Object]], Iterator[str]]

ROOT = Path(__file__).resolve().parents[2]
PARTS = {"RayCluster embinv": "cluster", "RayJob embinv-encode": "encode", "RayJob embinv-train": "train"}
PARTS |= {"RayService embinv": "serve"}
MAY_BE_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|CREDENTIAL|API_?KEY|ACCESS_KEY", re.IGNORECASE)
SECRETS = re.compile(r"embinv_[\w-]{20,}|hf_[A-Za-z]{10,}|AKIA[A-Z0-9]{12,}|-----BEGIN|[0-9a-f]{64}")
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def taken(objects: list[Object]) -> Iterator[str]:
    """Kubernetes and KubeRay know every field."""
    for item in objects:
        for problem in problems(item):
            yield f"{item['kind']} {item['metadata']['name']}: {problem}"


def with_tokens(objects: list[Object]) -> Iterator[str]:
    """Ray asks for a token in every cluster, and no container says otherwise."""
    for item in objects:
        for cluster in clusters(item):
            if cluster.get("authOptions", {}).get("mode") != "token":
                yield f"{item['kind']} {item['metadata']['name']}: authOptions.mode is not token"
    for pod in pods(objects):
        for container in pod.containers:
            if any(entry["name"] == "RAY_AUTH_MODE" for entry in container.get("env", [])):
                yield f"{pod}: {container['name']}: RAY_AUTH_MODE stands in its environment, and wins over authOptions"


def restricted(objects: list[Object]) -> Iterator[str]:
    """Pods are what the Pod Security Standard `restricted` allows, and cannot write to their own files."""
    for space in of_kind(objects, "Namespace"):
        if space["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
            yield "Namespace: pods that are more than `restricted` are let in"
    for pod in pods(objects):
        spec = pod.spec
        rights = spec.get("securityContext", {})
        if rights.get("runAsNonRoot") is not True or not rights.get("runAsUser", 0) > 0:
            yield f"{pod}: may be root"
        if rights.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{pod}: no seccompProfile"
        for door in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"):
            if spec.get(door):
                yield f"{pod}: {door}"
        allowed = {"name", "emptyDir", "persistentVolumeClaim", "secret", "configMap"}
        for volume in spec.get("volumes", []):
            if other := volume.keys() - allowed:
                yield f"{pod}: a volume of kind {other.pop()}"
        for container in pod.containers:
            own = container.get("securityContext", {})
            if own.get("runAsNonRoot") is False or own.get("runAsUser", 1) == 0:
                yield f"{pod}: {container['name']} may be root"
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{pod}: {container['name']} may gain rights"
            if own.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{pod}: {container['name']} keeps capabilities"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{pod}: {container['name']} may write to the files of its image"
            home = {entry["name"]: entry.get("value") for entry in container.get("env", [])}.get("HOME")
            writable = {m["mountPath"] for m in container.get("volumeMounts", []) if not m.get("readOnly")}
            if home not in writable or "/tmp" not in writable:
                yield f"{pod}: {container['name']} has no HOME or no /tmp that it can write to"


def closed(objects: list[Object]) -> Iterator[str]:
    """Nothing is opened to the outside: no ingress, no service with a door, no port of the machine."""
    for item in objects:
        name = f"{item['kind']} {item['metadata']['name']}"
        if item["kind"] in {"Ingress", "Gateway", "HTTPRoute", "Service"}:
            yield f"{name}: opens something"
        for cluster in clusters(item):
            head = cluster["headGroupSpec"]
            if head.get("enableIngress") or head.get("ingressOptions"):
                yield f"{name}: an ingress to the dashboard"
            if head.get("serviceType", "ClusterIP") != "ClusterIP" or "headService" in head:
                yield f"{name}: a service of the head that is not ClusterIP"
        if "serveService" in item.get("spec", {}):
            yield f"{name}: a service of its own for Serve"
    for pod in pods(objects):
        for container in pod.containers:
            for port in container.get("ports", []):
                if "hostPort" in port:
                    yield f"{pod}: port {port['containerPort']} of the machine"


def without_secrets(objects: list[Object]) -> Iterator[str]:
    """Secrets are named, and never written down."""
    for item in objects:
        if item["kind"] == "Secret":
            yield f"Secret {item['metadata']['name']} in the tree"
        if found := SECRETS.search(json.dumps(item)):
            yield f"{item['kind']} {item['metadata']['name']}: looks like a secret: {found[0][:8]}..."
    for pod in pods(objects):
        for container in pod.containers:
            for entry in container.get("env", []):
                if MAY_BE_SECRET.search(entry["name"]) and "value" in entry:
                    yield f"{pod}: {entry['name']} is written down"


def with_resources(objects: list[Object]) -> Iterator[str]:
    """Every container has requests and limits; memory as much asked for as allowed, or a node is promised twice."""
    for pod in pods(objects):
        for container in pod.containers:
            resources = container.get("resources", {})
            requests, limits = resources.get("requests", {}), resources.get("limits", {})
            if not {"cpu", "memory"} <= requests.keys() & limits.keys():
                yield f"{pod}: {container['name']} has no requests and limits"
            elif pod.cluster is not None and requests["memory"] != limits["memory"]:
                yield f"{pod}: {container['name']} asks for {requests['memory']} and may take {limits['memory']}"
            if ("nvidia.com/gpu" in limits) != (pod.role == "a100"):
                yield f"{pod}: {container['name']}: GPUs are for the A100 pool alone"


def with_pools(objects: list[Object]) -> Iterator[str]:
    """A head without work, CPUs, and A100 that come when they are asked for, as Ray's own autoscaler reads it."""
    for item in objects:
        for cluster in clusters(item):
            name = f"{item['kind']} {item['metadata']['name']}"
            options = cluster.get("autoscalerOptions", {})
            if cluster.get("enableInTreeAutoscaling") is not True or options.get("version") != "v2":
                yield f"{name}: no autoscaler v2"
            tree = {"metadata": {"namespace": "x", "name": "x"}, "spec": cluster}
            types = _derive_autoscaling_config_from_ray_cr(tree)["available_node_types"]
            if types["headgroup"]["resources"]["CPU"] != 0:
                yield f"{name}: the head takes work"
            if types["cpu"]["min_workers"] < 1:
                yield f"{name}: no CPUs to begin with, so no job's driver starts"
            for group in cluster["workerGroupSpecs"]:
                if not group["minReplicas"] <= group.get("replicas", 0) <= group["maxReplicas"]:
                    yield f"{name}, {group['groupName']}: replicas are not between their bounds"
            if "a100" in types:
                pool = types["a100"]
                if pool["min_workers"] != 0 or pool["max_workers"] < 1:
                    yield f"{name}: A100 that nobody has asked for"
                if pool["resources"].get("GPU") != 1 or pool["resources"].get("accelerator_type:A100") != 1:
                    yield f"{name}: the autoscaler does not know what the A100 pool holds"
                spec = next(g for g in cluster["workerGroupSpecs"] if g["groupName"] == "a100")["template"]["spec"]
                if not any("A100" in value or "a100" in value for value in spec.get("nodeSelector", {}).values()):
                    yield f"{name}: the A100 pool may land on any machine"
                if not any(t.get("key") == "nvidia.com/gpu" for t in spec.get("tolerations", [])):
                    yield f"{name}: the A100 pool is kept off machines with GPUs"


def with_one_version(objects: list[Object]) -> Iterator[str]:
    """Image, rayVersion and constraints.txt name the same Ray, and the image this embinv."""
    for item in objects:
        for cluster in clusters(item):
            if cluster.get("rayVersion") != PINNED["ray"]:
                yield f"{item['kind']} {item['metadata']['name']}: rayVersion is not {PINNED['ray']}"
    for pod in pods(objects):
        tag = f"{VERSION}-ray{PINNED['ray']}-{'cuda' if pod.role == 'a100' else 'cpu'}"
        for container in pod.containers:
            if not re.fullmatch(rf"[\w./-]+/embinv:{re.escape(tag)}", container["image"]):
                yield f"{pod}: {container['name']} has image {container['image']}, not one of tag {tag}"


def with_shared_storage(objects: list[Object]) -> Iterator[str]:
    """/shared is one file system on every node, which those that serve do not write to; what is mounted is there."""
    claims = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "PersistentVolumeClaim")}
    for name, claim in claims.items():
        if claim["accessModes"] != ["ReadWriteMany"]:
            yield f"{name}: is not seen by every node"
    for pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
        for container in pod.containers:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{pod}: {container['name']}: there is no volume {mount['name']}"
        if pod.cluster is None:
            continue
        shared = next((mount for mount in pod.ray["volumeMounts"] if mount["mountPath"] == "/shared"), None)
        claim = volumes.get((shared or {}).get("name"), {}).get("persistentVolumeClaim", {})
        if claim.get("claimName") not in claims:
            yield f"{pod}: /shared is not the claim"
        elif (shared or {}).get("readOnly", False) != pod.owner.startswith("RayService"):
            yield f"{pod}: /shared is writable for what serves, or for reading alone for what works"


def with_accounts(objects: list[Object]) -> Iterator[str]:
    """Only a head, whose autoscaler needs it, has a token of Kubernetes."""
    accounts = {item["metadata"]["name"]: item for item in of_kind(objects, "ServiceAccount")}
    for name, account in accounts.items():
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {name}: its token is mounted where nobody asked"
    for pod in pods(objects):
        if pod.spec.get("serviceAccountName") not in accounts:
            yield f"{pod}: there is no account {pod.spec.get('serviceAccountName')}"
        if pod.spec.get("automountServiceAccountToken") is not (pod.role == "head"):
            yield f"{pod}: has a token that it does not need, or not the one that it needs"
        if (pod.spec.get("serviceAccountName") == "embinv-head") != (pod.role == "head"):
            yield f"{pod}: is of another's account"
    if of_kind(objects, "ClusterRoleBinding") or of_kind(objects, "RoleBinding"):
        yield "a role is given to somebody; KubeRay makes those that it needs"


def with_budgets(objects: list[Object]) -> Iterator[str]:
    """A drained node waits for each head, and for the last worker that serves; and a drain can end."""
    budgets = [item["spec"] for item in of_kind(objects, "PodDisruptionBudget")]
    for budget in budgets:
        if type(budget.get("minAvailable")) is not int or "maxUnavailable" in budget:
            yield "a budget that Kubernetes cannot reckon for pods without a controller of its own"
    covered = {str(pod): [b for b in budgets if selects(b["selector"], pod.labels)] for pod in pods(objects)}
    for pod in pods(objects):
        wanted = pod.role == "head" or (pod.cluster is not None and PARTS.get(pod.owner) == "serve")
        if len(covered[str(pod)]) != wanted:
            yield f"{pod}: {len(covered[str(pod)])} budgets"
        if pod.role == "head" and any(
            budget in covered[str(o)] for budget in covered[str(pod)] for o in others(pod, objects)
        ):
            yield f"{pod}: shares its budget, so that another pod may stand for it"
    for budget in budgets:
        meant = [pod for pod in pods(objects) if selects(budget["selector"], pod.labels)]
        if meant and meant[0].role != "head" and sum(pod.least for pod in meant) <= budget["minAvailable"]:
            yield f"{meant[0].owner}: no worker could ever be drained"


def others(pod: Pod, objects: list[Object]) -> list[Pod]:
    return [other for other in pods(objects) if str(other) != str(pod)]


def with_probes(objects: list[Object]) -> Iterator[str]:
    """Ray's health decides about every node; a worker's readiness to serve is left to KubeRay, which asks Serve too."""
    for pod in pods(objects):
        if pod.cluster is None:
            continue
        names = {"livenessProbe", "readinessProbe"}
        if pod.owner.startswith("RayService") and pod.role != "head":
            names = {"livenessProbe"}
        if names != {"livenessProbe", "readinessProbe"} & pod.ray.keys():
            yield f"{pod}: probes are {sorted({'livenessProbe', 'readinessProbe'} & pod.ray.keys())}"
        for name in names & pod.ray.keys():
            if pod.ray[name].get("httpGet") != {"path": "/api/healthz", "port": 52365}:
                yield f"{pod}: {name} asks something else than Ray's agent"


def with_parts(objects: list[Object]) -> Iterator[str]:
    """One namespace; every object says which part it is of, and so do the pods."""
    (space,) = of_kind(objects, "Namespace")
    for item in objects:
        metadata = item["metadata"]
        part = PARTS.get(f"{item['kind']} {metadata['name']}", "shared")
        if metadata.get("labels", {}).get("app.kubernetes.io/component") != part:
            yield f"{item['kind']} {metadata['name']}: is not labelled as of part {part}"
        if item is not space and metadata.get("namespace") != space["metadata"]["name"]:
            yield f"{item['kind']} {metadata['name']}: is in another namespace"
    for pod in pods(objects):
        wanted = {"app.kubernetes.io/part-of": "embinv", "app.kubernetes.io/component": PARTS.get(pod.owner)}
        if not wanted.items() <= pod.labels.items():
            yield f"{pod}: is not labelled as of part {PARTS.get(pod.owner)}"
    if missing := PARTS.keys() - {pod.owner for pod in pods(objects)}:
        yield f"there is no {missing.pop()}"


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        taken,
        with_tokens,
        restricted,
        closed,
        without_secrets,
        with_resources,
        with_pools,
        with_one_version,
        with_shared_storage,
        with_accounts,
        with_budgets,
        with_probes,
        with_parts,
    )
}
