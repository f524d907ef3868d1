"""The pods that an overlay's objects become, with what KubeRay v1.7.0 adds to them: labels, and the autoscaler.

Read from its source: labelPod, BuildAutoscalerContainer and DefaultWorkerPodTemplate in controllers/ray/common/pod.go.
What else it adds (the init container of workers, /dev/shm) takes its rights from the Ray container.
"""

from dataclasses import dataclass
from typing import Any

from tests.contracts.manifest_schemas import clusters

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """One kind of pod of one object: `RayJob embinv-encode`, `head`."""

    owner: str
    role: str
    labels: dict[str, str]
    spec: Object
    containers: list[Object]
    least: int  # of them there are at least so many
    cluster: Object | None = None  # that it is a node of

    def __str__(self) -> str:
        return f"{self.owner}, {self.role}"

    @property
    def ray(self) -> Object:
        """Ray's own container."""
        return self.containers[0]


def pods(objects: list[Object]) -> list[Pod]:
    """All pods of Ray's kinds."""
    found = []
    for item in objects:
        owner = f"{item['kind']} {item['metadata']['name']}"
        for cluster in clusters(item):
            autoscaler = {"name": "autoscaler", "image": image_of(cluster), **cluster["autoscalerOptions"]}
            found.append(pod(owner, "head", cluster["headGroupSpec"], cluster, [autoscaler], 1))
            found += [
                pod(owner, group["groupName"], group, cluster, [], group["minReplicas"])
                for group in cluster["workerGroupSpecs"]
            ]
        if template := item.get("spec", {}).get("submitterPodTemplate"):
            labels, spec = template["metadata"]["labels"], template["spec"]
            found.append(Pod(owner, "submitter", labels, spec, spec["containers"], 1))
    return found


def pod(owner: str, role: str, group: Object, cluster: Object, beside: list[Object], least: int) -> Pod:
    template = group["template"]
    given = {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head" if role == "head" else "worker"}
    labels = {**template["metadata"]["labels"], **given, "ray.io/group": "headgroup" if role == "head" else role}
    spec = template["spec"]
    return Pod(
        owner, role, labels, spec, [*spec["containers"], *spec.get("initContainers", []), *beside], least, cluster
    )


def image_of(cluster: Object) -> str:
    return cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [item for item in objects if item["kind"] == kind]


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector means an object with these labels."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In", expression
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True
