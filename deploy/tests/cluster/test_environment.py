"""Environments as kubelet makes them."""

from typing import Any

import pytest

from deploy.tests.cluster.environment import MissingKeyError, PodFacts, Resolver, expanded
from deploy.tests.cluster.fields import Fields, NotEmulatedError
from deploy.tests.cluster.manifests import Manifests
from deploy.tests.cluster.podspec import ContainerSpec, parse_pod

ZONE = "metadata.labels['topology.kubernetes.io/zone']"
FACTS = PodFacts(
    "peer-0", "uid", {"topology.kubernetes.io/zone": "zone-a"}, {}, "node-1", "198.18.0.1", "198.18.0.7", "peer"
)
MANIFESTS = Manifests((), (), {"map": {"key": b"of a map"}}, {"secret": {"url": b"redis://:word@host"}})


def container(*variables: dict[str, Any], **more: Any) -> ContainerSpec:
    spec = {"name": "c", "image": "i", "env": list(variables), **more}
    pod = {"enableServiceLinks": False, "automountServiceAccountToken": False, "containers": [spec]}
    return parse_pod(Fields(pod, "pod")).containers[0]


def environment(*variables: dict[str, Any], **more: Any) -> dict[str, str]:
    return Resolver(MANIFESTS, FACTS).environment(container(*variables, **more))


def field(path: str) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {"fieldRef": {"fieldPath": path}}}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.nodeName", "node-1"),
        ("metadata.name", "peer-0"),
        ("status.podIP", "198.18.0.7"),
        (ZONE, "zone-a"),
        ("metadata.labels['none']", ""),
    ],
)
def test_facts_about_the_pod(path: str, value: str) -> None:
    """A label that the pod does not have is empty."""
    assert environment(field(path)) == {"V": value}


def test_an_unknown_fact_is_refused() -> None:
    """By its path."""
    with pytest.raises(NotEmulatedError, match=r"status\.phase"):
        environment(field("status.phase"))


def test_keys_of_config_maps_and_secrets() -> None:
    """One by one, or all of them."""
    reference = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "url"}}}
    found = environment(reference, envFrom=[{"configMapRef": {"name": "map"}, "prefix": "P_"}])
    assert found == {"P_key": "of a map", "A": "redis://:word@host"}


def test_a_missing_key_is_an_error_unless_it_is_optional() -> None:
    """kubelet would not start the container."""
    reference = {"name": "secret", "key": "none"}
    with pytest.raises(MissingKeyError, match="secret has no none"):
        environment({"name": "A", "valueFrom": {"secretKeyRef": reference}})
    assert environment({"name": "A", "valueFrom": {"secretKeyRef": {**reference, "optional": True}}}) == {}


def test_a_limit_as_a_variable_is_rounded_up() -> None:
    """In units of the divisor."""
    reference = {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}
    assert environment(reference, resources={"limits": {"memory": "1025Ki"}}) == {"M": "2"}


@pytest.mark.parametrize(("text", "value"), [("$(A)/x", "1/x"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("$A", "$A")])
def test_variables_in_values(text: str, value: str) -> None:
    """Known ones are replaced, others stay, and a dollar can be written."""
    assert expanded(text, {"A": "1"}) == value
