"""Whether an object is one that Kubernetes and KubeRay take: every key known, every value of its type.

Core kinds are checked against the JSON schemas of Kubernetes that `kubernetes-validate` ships, in their strict form,
in which an unknown key is an error. Ray's kinds are checked against a table of KubeRay v1.7.0's fields, written here
by hand from its API reference, since no schema of them can be installed; pods within them are core kinds again.
KubeRay's own refusals (its `ValidateRayClusterSpec` and the like), where a field may not stand beside another, follow
the table. What a manifest should say is the business of manifest_rules.py.
"""

import functools
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

Object = dict[str, Any]

KUBERNETES = "1.37.0"
OLDEST = "1.29.0"  # with which the manifests are to work too

# Ray's kinds: a field, `!` behind it where it is required, and its type. A tuple holds the values that are allowed,
# a dictionary the fields of a part, a list those of its items; MAP is one of strings, and `core` a kind of Kubernetes.
MAP = dict[str, str]
AUTH = {"mode!": ("token", "disabled"), "secretName": str, "enableK8sTokenAuth": bool}
AUTOSCALER = {
    "version": ("v1", "v2"),
    "upscalingMode": ("Default", "Aggressive", "Conservative"),
    "idleTimeoutSeconds": int,
    "image": str,
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "command": [str],
    "args": [str],
    "resources": "container",
    "securityContext": "container",
    "env": "container",
    "envFrom": "container",
    "volumeMounts": "container",
}
GROUP = {"rayStartParams": MAP, "resources": MAP, "labels": MAP, "template!": "template"}
HEAD = GROUP | {
    "serviceType": ("ClusterIP", "NodePort", "LoadBalancer"),
    "headService": "service",
    "enableIngress": bool,
    "ingressOptions": {
        "host": str,
        "path": str,
        "pathType": ("Exact", "Prefix", "ImplementationSpecific"),
        "tls": [dict],
    },
}
WORKERS = GROUP | {
    "groupName!": str,
    "replicas": int,
    "minReplicas!": int,
    "maxReplicas!": int,
    "numOfHosts": int,
    "idleTimeoutSeconds": int,
    "priority": int,
    "scaleStrategy": {"workersToDelete": [str]},
    "suspend": bool,
}
CLUSTER = {
    "rayVersion": str,
    "authOptions": AUTH,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": AUTOSCALER,
    "headGroupSpec!": HEAD,
    "workerGroupSpecs": [WORKERS],
    "headServiceAnnotations": MAP,
    "gcsFaultToleranceOptions": dict,
    "historyServerOptions": dict,
    "networkPolicy": dict,
    "tlsOptions": {"enabled": bool},
    "upgradeStrategy": {"type": ("Recreate", "None")},
    "managedBy": str,
    "suspend": bool,
}
JOB = {
    "entrypoint": str,
    "entrypointNumCpus": (int, float),
    "entrypointNumGpus": (int, float),
    "entrypointResources": str,
    "runtimeEnvYAML": str,
    "jobId": str,
    "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    "submitterPodTemplate": "template",
    "submitterConfig": {"backoffLimit": int},
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "preRunningDeadlineSeconds": int,
    "ttlSecondsAfterFinished": int,
    "shutdownAfterJobFinishes": bool,
    "deletionStrategy": dict,
    "rayClusterSpec": CLUSTER,
    "clusterSelector": MAP,
    "metadata": MAP,
    "managedBy": str,
    "suspend": bool,
}
SERVICE = {
    "serveConfigV2": str,
    "rayClusterConfig": CLUSTER,
    "serveService": "service",
    "upgradeStrategy": {
        "type": ("NewCluster", "NewClusterWithIncrementalUpgrade", "None"),
        "clusterUpgradeOptions": dict,
    },
    "rayClusterDeletionDelaySeconds": int,
    "excludeHeadPodFromServeSvc": bool,
    "serviceUnhealthySecondThreshold": int,
    "deploymentUnhealthySecondThreshold": int,
    "managedBy": str,
    "suspend": bool,
}
RAY_KINDS = {"RayCluster": CLUSTER, "RayJob": JOB, "RayService": SERVICE}
LONGEST_NAME = {"RayCluster": 53, "RayJob": 47, "RayService": 47}  # what KubeRay makes of it is longer

# Prometheus Operator's PodMonitor, as far as it is used.
POD_MONITOR = {
    "selector!": {"matchLabels": MAP},
    "namespaceSelector": {"any": bool, "matchNames": [str]},
    "podMetricsEndpoints!": [
        {
            "port": str,
            "path": str,
            "interval": str,
            "scrapeTimeout": str,
            "relabelings": [dict],
            "metricRelabelings": [dict],
        }
    ],
    "podTargetLabels": [str],
}


def problems(item: Object) -> list[str]:
    """What Kubernetes or KubeRay would refuse or ignore in an object."""
    kind, version = item["kind"], item["apiVersion"]
    if version == "ray.io/v1" and kind in RAY_KINDS:
        found = [*envelope(item), *fields(item["spec"], RAY_KINDS[kind], "spec")]
        return found or list(refusals(item))
    if (version, kind) == ("monitoring.coreos.com/v1", "PodMonitor"):
        return [*envelope(item), *fields(item["spec"], POD_MONITOR, "spec")]
    return core_problems(item)


def envelope(item: Object) -> Iterator[str]:
    """What stands around the `spec` of a kind that has no schema here: as around any other's."""
    if unknown := item.keys() - {"apiVersion", "kind", "metadata", "spec"}:
        yield f"{sorted(unknown)[0]}: not a field of {item['kind']}"
    yield from core_problems({"apiVersion": "v1", "kind": "ConfigMap", "metadata": item["metadata"]})


# Core kinds


@functools.cache
def core_validator(kind: str, version: str, kubernetes: str) -> jsonschema.Draft202012Validator:
    """The strict schema of a kind; KeyError where there is none."""
    folder = f"kubernetes-json-schema/v{kubernetes}-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", version)
    try:
        schema = schema_contents(f"{folder}/{kind.lower()}-{group}.json", kubernetes)
    except FileNotFoundError as error:
        raise KeyError(f"{version} {kind}") from error
    return jsonschema.Draft202012Validator(schema, registry=definitions(folder, kubernetes))


@functools.cache
def definitions(folder: str, kubernetes: str) -> Registry:
    return Resource.from_contents(schema_contents(f"{folder}/_definitions.json", kubernetes)) @ Registry()


def core_problems(item: Object, kubernetes: str = KUBERNETES) -> list[str]:
    try:
        validator = core_validator(item["kind"], item["apiVersion"], kubernetes)
    except KeyError as error:
        return [f"{error.args[0]}: no such kind"]
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(item)]


def as_pod_template(template: Any) -> Object:
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": template}


# Ray's kinds


def fields(tree: Any, table: Any, where: str) -> Iterator[str]:
    """Where a tree differs from a table of fields."""
    if isinstance(table, dict):
        if not isinstance(tree, dict):
            yield f"{where}: {tree!r} is no mapping"
            return
        known = {name.removesuffix("!"): part for name, part in table.items()}
        for name in sorted(tree.keys() - known.keys()):
            yield f"{where}.{name}: KubeRay knows no such field"
        for name in sorted({name[:-1] for name in table if name.endswith("!")} - tree.keys()):
            yield f"{where}.{name}: is missing"
        for name in tree.keys() & known.keys():
            yield from fields(tree[name], known[name], f"{where}.{name}")
        if table is AUTOSCALER:
            container = {name: tree[name] for name, part in AUTOSCALER.items() if part == "container" and name in tree}
            found = core_problems(as_pod_template({"spec": {"containers": [{"name": "autoscaler", **container}]}}))
            yield from (f"{where}: {problem}" for problem in found)
    elif isinstance(table, list):
        if not isinstance(tree, list):
            yield f"{where}: {tree!r} is no list"
        else:
            for row, item in enumerate(tree):
                yield from fields(item, table[0], f"{where}[{row}]")
    elif table == "template":
        yield from (f"{where}: {problem}" for problem in core_problems(as_pod_template(tree)))
    elif table == "service":
        yield from (f"{where}: {problem}" for problem in core_problems({"apiVersion": "v1", "kind": "Service", **tree}))
    elif table == "container":
        return  # with its neighbours, above
    elif table == MAP:
        if not isinstance(tree, dict) or not all(isinstance(value, str) for value in tree.values()):
            yield f"{where}: {tree!r} is no mapping to strings; quote numbers"
    elif isinstance(table, tuple) and not isinstance(table[0], type):
        if tree not in table:
            yield f"{where}: {tree!r} is none of {', '.join(table)}"
    elif not isinstance(tree, table) or (isinstance(tree, bool) and table is not bool):
        yield f"{where}: {tree!r} is of another type than {table}"


def clusters(item: Object) -> list[Object]:
    """The descriptions of a Ray cluster in an object: one, or none."""
    spec = item.get("spec", {})
    found = {"RayCluster": spec, "RayJob": spec.get("rayClusterSpec"), "RayService": spec.get("rayClusterConfig")}
    return [found[item["kind"]]] if found.get(item["kind"]) else []


def refusals(item: Object) -> Iterator[str]:
    """What KubeRay says no to, though each field by itself is right."""
    name, spec = item["metadata"]["name"], item["spec"]
    if len(name) > LONGEST_NAME[item["kind"]] or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        yield f"metadata.name: {name!r} is too long, or not of lower-case letters, digits and hyphens"
    if item["kind"] != "RayCluster" and not clusters(item):
        yield "spec: there is no cluster"
    if item["kind"] == "RayJob":
        if spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"):
            yield "spec.ttlSecondsAfterFinished: does nothing without shutdownAfterJobFinishes"
        for limit in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
            if spec.get(limit, 1) < 1:
                yield f"spec.{limit}: {spec[limit]} is not above 0"
        if spec.get("submissionMode") == "SidecarMode" and "submitterPodTemplate" in spec:
            yield "spec.submitterPodTemplate: there is none in SidecarMode"
    for cluster in clusters(item):
        groups = {"headgroup": cluster["headGroupSpec"]}
        groups |= {group.get("groupName", "?"): group for group in cluster.get("workerGroupSpecs", [])}
        if len(groups) <= len(cluster.get("workerGroupSpecs", [])):
            yield "workerGroupSpecs: two groups of the same name"
        for group_name, group in groups.items():
            starts = group.get("rayStartParams", {})
            if group.get("resources") and starts.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
                yield f"{group_name}: resources stand in rayStartParams too"
            if "labels" in starts:
                yield f"{group_name}: labels belong into the group's own field"
            pod = group["template"]["spec"]
            version = cluster.get("autoscalerOptions", {}).get("version", "v2")
            if (
                cluster.get("enableInTreeAutoscaling")
                and version == "v2"
                and pod.get("restartPolicy", "Never") != "Never"
            ):
                yield f"{group_name}: restartPolicy must be Never with autoscaler v2"
