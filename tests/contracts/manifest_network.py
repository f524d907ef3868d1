"""Who reaches whom under a set of NetworkPolicies, as Kubernetes documents them.

Traffic passes if the sender's egress and the receiver's ingress both let it out and in; a pod that no policy selects
in a direction is open in it. Ports are numbers; a host outside Kubernetes has an address and no labels.
"""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from tests.contracts.manifest_pods import of_kind, selects

Object = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """A pod, by the labels of it and of its namespace, or an address elsewhere."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, str] | None = None  # None: that of the policies
    address: str | None = None  # of no pod


def reaches(objects: list[Object], sender: Place, receiver: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether the policies among the objects let `sender` speak to a port of `receiver`."""
    return passes(objects, "Egress", sender, receiver, port, protocol) and passes(
        objects, "Ingress", receiver, sender, port, protocol
    )


def passes(objects: list[Object], direction: str, here: Place, there: Place, port: int, protocol: str) -> bool:
    if here.namespace is not None or here.address is not None:
        return True  # not ours to say
    policies = [
        policy["spec"]
        for policy in of_kind(objects, "NetworkPolicy")
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], here.labels)
    ]
    rules = [rule for policy in policies for rule in policy.get(direction.lower(), [])]
    return not policies or any(lets(rule, direction, there, port, protocol) for rule in rules)


def lets(rule: Object, direction: str, there: Place, port: int, protocol: str) -> bool:
    ports, peers = rule.get("ports"), rule.get("from" if direction == "Ingress" else "to")
    if ports and not any((item["port"], item["protocol"]) == (port, protocol) for item in ports):
        return False
    return not peers or any(is_peer(peer, there) for peer in peers)


def is_peer(peer: Object, there: Place) -> bool:
    if "ipBlock" in peer:
        # Addresses of pods are meant too, but none of ours needs to be reached that way.
        if there.address is None:
            return False
        address = ipaddress.ip_address(there.address)
        block = peer["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(part) for part in block.get("except", []))
    if there.address is not None:
        return False
    if "namespaceSelector" in peer:
        ours = {"kubernetes.io/metadata.name": "ours"}
        if not selects(peer["namespaceSelector"], ours if there.namespace is None else there.namespace):
            return False
    elif there.namespace is not None:
        return False
    return selects(peer.get("podSelector", {}), there.labels)
