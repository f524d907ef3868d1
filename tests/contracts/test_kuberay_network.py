"""cluster/kuberay/base/network.yaml: who reaches whom, and what else would be reached without each of its policies."""

import copy

import pytest

from tests.contracts.manifest_network import Place, reaches
from tests.contracts.manifest_pods import of_kind, pods
from tests.contracts.manifest_rules import PARTS
from tests.contracts.overlays import RENDERED

OBJECTS = RENDERED["qwen3-0.6b"]
PODS = {f"{PARTS[pod.owner]} {pod.role}": Place(pod.labels) for pod in pods(OBJECTS)}
CLIENT = {"embinv-client": "true"}
ELSEWHERE = {
    "operator": Place(
        {"app.kubernetes.io/name": "kuberay-operator"}, {"kubernetes.io/metadata.name": "kuberay-system"}
    ),
    "an operator of another namespace": Place({"app.kubernetes.io/name": "kuberay-operator"}, {}),
    "a pod of the operator's namespace": Place({}, {"kubernetes.io/metadata.name": "kuberay-system"}),
    "names": Place({"k8s-app": "kube-dns"}, {"kubernetes.io/metadata.name": "kube-system"}),
    "prometheus": Place({}, {"kubernetes.io/metadata.name": "monitoring"}),
    "a pod beside": Place({"app": "x"}),
    "a client beside": Place(CLIENT),
    "a client in a namespace that is let in": Place(CLIENT, {"embinv-clients": "true"}),
    "a client in another namespace": Place(CLIENT, {}),
    "a pod in a namespace that is let in": Place({}, {"embinv-clients": "true"}),
    "the hub": Place(address="18.0.0.1"),
    "the metadata of the machine": Place(address="169.254.169.254"),
}
ALL = PODS | ELSEWHERE

# sender, receiver, port: these pass
LET_IN = [
    *((f"{part} {one}", f"{part} {other}", 31234) for part in PARTS.values() for one, other in
      (("head", "cpu"), ("cpu", "head"), ("cpu", "a100"), ("a100", "cpu"), ("a100", "a100"))),
    ("encode submitter", "encode head", 8265),
    ("train submitter", "train head", 8265),
    *(("operator", f"{part} head", 8265) for part in PARTS.values()),
    ("operator", "serve head", 8000),
    ("a client in a namespace that is let in", "serve cpu", 8000),
    ("a client in a namespace that is let in", "serve a100", 8000),
    *(("prometheus", place, 8080) for place in PODS if not place.endswith("submitter")),
    ("prometheus", "encode head", 44217),
    ("encode cpu", "the hub", 443),
    ("train a100", "the hub", 443),
    ("cluster cpu", "the hub", 443),
    ("serve head", "the hub", 443),  # Kubernetes' own API has an address, and no label
]  # fmt: skip
# and these do not
KEPT_OUT = [
    *((f"{one} cpu", f"{other} head", port) for one in PARTS.values() for other in PARTS.values() if one != other
      for port in (6379, 8265, 10001, 8000)),
    *((stranger, "serve head", port) for port in (8265, 6379, 10001, 31234) for stranger in ELSEWHERE
      if (stranger, port) != ("operator", 8265)),
    *((stranger, "encode head", 8265) for stranger in ELSEWHERE if stranger != "operator"),
    ("a pod beside", "serve cpu", 8000),
    ("a client beside", "serve cpu", 8000),
    ("prometheus", "a pod beside", 443),
    ("a client in another namespace", "serve cpu", 8000),
    ("a pod in a namespace that is let in", "serve cpu", 8000),
    ("a client in a namespace that is let in", "encode cpu", 8000),
    ("operator", "serve cpu", 8265),
    ("prometheus", "serve head", 8265),
    ("serve cpu", "the hub", 443),
    ("serve a100", "the hub", 443),
    ("encode cpu", "the hub", 80),
    ("encode cpu", "the metadata of the machine", 443),
    ("encode cpu", "the metadata of the machine", 80),
    ("serve cpu", "a pod beside", 8000),
]  # fmt: skip


@pytest.mark.parametrize(("sender", "receiver", "port"), LET_IN)
def test_what_is_needed_passes(sender, receiver, port):
    assert reaches(OBJECTS, ALL[sender], ALL[receiver], port)


@pytest.mark.parametrize(("sender", "receiver", "port"), KEPT_OUT)
def test_what_is_not_needed_does_not_pass(sender, receiver, port):
    assert not reaches(OBJECTS, ALL[sender], ALL[receiver], port)


@pytest.mark.parametrize("place", PODS)
def test_every_pod_finds_names(place):
    assert reaches(OBJECTS, PODS[place], ELSEWHERE["names"], 53, "UDP")
    assert not reaches(OBJECTS, PODS[place], ELSEWHERE["a pod beside"], 53, "UDP")


@pytest.mark.parametrize("name", [item["metadata"]["name"] for item in of_kind(OBJECTS, "NetworkPolicy")])
def test_each_policy_is_needed(name):
    """Without it, something that should pass does not, or something that should not does."""
    left = [item for item in copy.deepcopy(OBJECTS) if item["metadata"]["name"] != name]
    right = all(reaches(left, ALL[one], ALL[other], port) for one, other, port in LET_IN)
    right = right and all(reaches(left, PODS[place], ELSEWHERE["names"], 53, "UDP") for place in PODS)
    wrong = any(reaches(left, ALL[one], ALL[other], port) for one, other, port in KEPT_OUT)
    assert not right or wrong


def test_a_pod_that_no_policy_names_speaks_to_nobody():
    stranger = Place({"app": "x"})
    for place in ALL.values():
        assert not reaches(OBJECTS, stranger, place, 443)
        assert not reaches(OBJECTS, place, stranger, 443)
    without = [item for item in OBJECTS if item["metadata"]["name"] != "deny-all"]
    assert reaches(without, ELSEWHERE["prometheus"], stranger, 443)
