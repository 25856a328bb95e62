"""Connections go along the arrows of the design's diagram, and along no others.

::

    client ──► locator ──► Redis ◄── registry ◄── peer
       └────────────────────────────────────────►  ▲ peer ⇄ peer
"""

from typing import Any

import pytest

from deploy.tests.k8s.network import Place, allowed
from deploy.tests.k8s.rendering import Combination, Object, every_combination, labels_of, of_kind, ref, workloads

REGISTRY, LOCATOR, PEER, BULK, METRICS, REDIS, DNS = 50051, 50052, 50053, 50054, 9464, 6379, 53
PORTS = (REGISTRY, LOCATOR, PEER, BULK, METRICS, REDIS, DNS, 443)

OTHERS = (
    Place("client", "apps", {"minga-client": "true"}),
    Place("stranger", "apps", {"app": "stranger"}),
    # Same labels, another namespace: a peer of somebody else's network.
    Place("foreign peer", "apps", {"app.kubernetes.io/name": "peer", "app.kubernetes.io/part-of": "minga"}),
    Place("intruder", "minga", {"app": "intruder"}),
    Place("prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    Place("ingress controller", "ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"}),
    Place("name server", "kube-system", {"k8s-app": "kube-dns"}),
    Place("node's name cache", address="169.254.20.10"),
    Place("outside", address="203.0.113.9"),
)
ARROWS = {
    ("client", "locator", LOCATOR),
    ("client", "peer", PEER),
    ("client", "peer", BULK),
    ("locator", "redis", REDIS),
    ("registry", "redis", REDIS),
    ("peer", "registry", REGISTRY),
    ("peer", "locator", LOCATOR),
    ("peer", "peer", PEER),
    ("peer", "peer", BULK),
    *(
        (part, server, DNS)
        for part in ("registry", "locator", "peer")
        for server in ("name server", "node's name cache")
    ),
}
SCRAPES = {
    ("prometheus", "registry", METRICS),
    ("prometheus", "peer", METRICS),
    ("prometheus", "locator", LOCATOR),
}
TO_REDIS_OUTSIDE = {
    (part, place.name, REDIS) for part in ("registry", "locator") for place in OTHERS if place.namespace != "minga"
}
"""Its address is the operator's to know: components/external-redis leaves its port open to anywhere, and says so."""


def policed() -> list[Combination]:
    """Those with components/network-policies; without, everybody may talk to everybody."""
    found = every_combination()
    return [one for one in found if "network-policies" in one.components or one.name.startswith("overlays/production")]


def arrows_of(combination: Combination) -> set[tuple[str, str, int]]:
    """What a combination is for."""
    objects = combination.objects()
    found = set(ARROWS)
    if of_kind(objects, "PodMonitor"):
        found |= SCRAPES
    if of_kind(objects, "Ingress"):
        found.add(("ingress controller", "locator", LOCATOR))
    if not any(ref(each) == "statefulset/redis" for each in workloads(objects)):
        found = {arrow for arrow in found if arrow[1] != "redis"} | TO_REDIS_OUTSIDE
    return found


@pytest.mark.parametrize("chosen", policed(), ids=str)
def test_exactly_the_arrows_are_allowed(chosen: Combination) -> None:
    """Every part and every stranger, in both directions, on every port there is and one that is none."""
    objects = chosen.objects()
    policies = of_kind(objects, "NetworkPolicy")
    assert policies
    everybody = [Place(each["metadata"]["name"], "minga", labels_of(each)) for each in workloads(objects)] + [*OTHERS]
    found = {
        (source.name, target.name, port)
        for source in everybody
        for target in everybody
        for port in PORTS
        # What others do among themselves is not ours.
        if "minga" in (source.namespace, target.namespace) and connects(policies, source, target, port)
    }
    assert found == arrows_of(chosen)


def connects(policies: list[Object], source: Place, target: Place, port: int) -> bool:
    """Over TCP, and names over UDP as well."""
    protocols = ("TCP", "UDP") if port == DNS else ("TCP",)
    return all(allowed(policies, source, target, port, protocol) for protocol in protocols)


# The model itself.


def policy(selector: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A policy in the namespace `here`."""
    types = [kind for kind in ("Ingress", "Egress") if kind.lower() in spec]
    return {"metadata": {"namespace": "here"}, "spec": {"podSelector": selector, "policyTypes": types, **spec}}


A, B = Place("a", "here", {"app": "a"}), Place("b", "here", {"app": "b"})
FAR = Place("b", "there", {"app": "b"})
NET = Place("net", address="192.0.2.7")
TO_A = {"matchLabels": {"app": "a"}}
TO_B = {"matchLabels": {"app": "b"}}


@pytest.mark.parametrize(
    ("policies", "source", "target", "expected"),
    [
        ([], B, A, True),
        ([policy({}, ingress=[])], B, A, False),
        ([policy(TO_B, ingress=[])], B, A, True),
        ([policy(TO_A, ingress=[{}])], B, A, True),
        ([policy(TO_A, ingress=[{"from": [{"podSelector": TO_B}]}])], B, A, True),
        ([policy(TO_A, ingress=[{"from": [{"podSelector": TO_B}]}])], FAR, A, False),
        ([policy(TO_A, ingress=[{"from": [{"namespaceSelector": {}, "podSelector": TO_B}]}])], FAR, A, True),
        ([policy(TO_A, ingress=[{"from": [{"namespaceSelector": {}}]}])], NET, A, False),
        ([policy(TO_A, ingress=[{"ports": [{"port": 2}]}])], B, A, False),
        ([policy(TO_A, ingress=[{"ports": [{"port": 1, "protocol": "UDP"}]}])], B, A, False),
        # One that allows is enough, of several.
        ([policy({}, ingress=[]), policy(TO_A, ingress=[{"ports": [{"port": 1}]}])], B, A, True),
        # Both ends must agree.
        ([policy(TO_A, ingress=[{}]), policy(TO_B, egress=[])], B, A, False),
        ([policy({}, egress=[{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}])], A, NET, True),
        ([policy({}, egress=[{"to": [{"ipBlock": {"cidr": "198.51.100.0/24"}}]}])], A, NET, False),
        ([policy({}, egress=[{"to": [{"podSelector": {}}]}])], A, NET, False),
    ],
)
def test_the_model_is_what_kubernetes_says(policies: list[Any], source: Place, target: Place, expected: bool) -> None:
    """Each rule of the documentation that is made use of."""
    assert allowed(policies, source, target, 1) is expected
