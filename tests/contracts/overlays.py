"""The overlays of cluster/kuberay as they are applied, and with something in them broken."""

import copy

from tests.contracts.kustomize import operate, render
from tests.contracts.manifest_pods import Object
from tests.contracts.manifest_rules import PARTS, ROOT

KUBERAY = ROOT / "cluster" / "kuberay"
OVERLAYS = sorted(path.name for path in (KUBERAY / "overlays").iterdir())
RENDERED = {name: render(KUBERAY / "overlays" / name) for name in OVERLAYS}

# Where things stand in them, for JSON 6902.
CLUSTER, ENCODE, TRAIN, SERVE = PARTS
HEAD, CPU, A100 = "/spec/headGroupSpec", "/spec/workerGroupSpecs/0", "/spec/workerGroupSpecs/1"
POD, RAY = "/template/spec", "/template/spec/containers/0"
OF_JOB, OF_SERVICE = "/spec/rayClusterSpec", "/spec/rayClusterConfig"


def broken(name: str, *operations: tuple, overlay: str = "qwen3-0.6b") -> list[Object]:
    """The objects of an overlay after JSON 6902 operations `(op, path, value)` on one, `Kind name`, of them."""
    objects = copy.deepcopy(RENDERED[overlay])
    (item,) = (item for item in objects if f"{item['kind']} {item['metadata']['name']}" == name)
    for op, path, *value in operations:
        operate(item, {"op": op, "path": path, **({"value": value[0]} if value else {})})
    return objects
