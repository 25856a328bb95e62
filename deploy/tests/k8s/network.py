"""NetworkPolicies, evaluated: who may open a connection to whom. Pure.

As https://kubernetes.io/docs/concepts/services-networking/network-policies/ has it: a pod that no policy selects for a
direction is open in it; one that some select may do what at least one rule of theirs allows, and nothing else. A
connection must be allowed at both its ends.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.tests.k8s.rendering import selects

Policy = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Somebody on the network: a pod, or an address outside, which has no namespace."""

    name: str
    namespace: str = ""
    labels: Mapping[str, str] | None = None
    address: str = ""

    @property
    def namespace_labels(self) -> dict[str, str]:
        """Every namespace has its name as a label."""
        return {"kubernetes.io/metadata.name": self.namespace}


def allowed(policies: Iterable[Policy], source: Place, target: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether `source` may connect to a port of `target`."""
    policies = list(policies)
    leaves = _permits(policies, "Egress", source, target, port, protocol)
    return leaves and _permits(policies, "Ingress", target, source, port, protocol)


def _permits(policies: list[Policy], direction: str, subject: Place, other: Place, port: int, protocol: str) -> bool:
    mine = [policy["spec"] for policy in policies if _about(policy, direction, subject)]
    if not mine:
        return True
    rules = [rule for spec in mine for rule in spec.get(direction.lower(), [])]
    peers = "to" if direction == "Egress" else "from"
    return any(_rule_allows(rule, peers, subject.namespace, other, port, protocol) for rule in rules)


def _about(policy: Policy, direction: str, subject: Place) -> bool:
    spec = policy["spec"]
    if spec.keys() - {"podSelector", "policyTypes", "ingress", "egress"}:
        raise ValueError(f"not understood: {sorted(spec)}")
    return (
        subject.namespace == policy["metadata"]["namespace"]
        and direction in spec["policyTypes"]
        and selects(spec["podSelector"], subject.labels or {})
    )


def _rule_allows(rule: Mapping[str, Any], peers: str, namespace: str, other: Place, port: int, protocol: str) -> bool:
    if rule.keys() - {peers, "ports"}:
        raise ValueError(f"not understood: {sorted(rule)}")
    # No list, or an empty one, stands for all.
    ports, sides = rule.get("ports") or [], rule.get(peers) or []
    by_port = not ports or any(_port_matches(each, port, protocol) for each in ports)
    return by_port and (not sides or any(_side_matches(each, namespace, other) for each in sides))


def _port_matches(rule: Mapping[str, Any], port: int, protocol: str) -> bool:
    if rule.keys() - {"port", "protocol"} or not isinstance(rule["port"], int):
        raise ValueError(f"not understood: {rule}")
    return rule["port"] == port and rule.get("protocol", "TCP") == protocol


def _side_matches(rule: Mapping[str, Any], namespace: str, other: Place) -> bool:
    if "ipBlock" in rule:
        block = rule["ipBlock"]
        if rule.keys() != {"ipBlock"} or block.keys() != {"cidr"}:
            raise ValueError(f"not understood: {rule}")
        # Which address a pod has is nobody's to know: blocks are for what is outside.
        return bool(other.address) and ipaddress.ip_address(other.address) in ipaddress.ip_network(block["cidr"])
    if rule.keys() - {"podSelector", "namespaceSelector"}:
        raise ValueError(f"not understood: {rule}")
    if not other.namespace:
        return False
    if "namespaceSelector" in rule:
        here = selects(rule["namespaceSelector"], other.namespace_labels)
    else:
        here = other.namespace == namespace
    return here and selects(rule.get("podSelector", {}), other.labels or {})
