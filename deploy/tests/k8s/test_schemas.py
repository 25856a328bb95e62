"""Every object is what the Kubernetes versions in use call valid: strictly, so that a misspelt field is an error."""

import functools
import json
from typing import Any

import kubernetes_validate.utils
import pytest

from deploy.tests.k8s.rendering import Object, every_combination, ref

VERSIONS = ("1.27", "1.30", "1.33", "1.35", "1.37")
"""From the first with gRPC probes for everyone to the newest whose schemas there are."""
OPERATOR = "monitoring.coreos.com/v1"
"""The Prometheus operator's objects have no schema offline; the fields that are used are checked by hand below."""


@functools.lru_cache(maxsize=1)
def distinct_objects() -> dict[str, tuple[str, Object]]:
    """Each different object of all combinations: its text → its name and itself."""
    found: dict[str, tuple[str, Object]] = {}
    for combination in every_combination():
        for each in combination.objects():
            found.setdefault(json.dumps(each, sort_keys=True), (ref(each), each))
    return found


@pytest.fixture(scope="module", autouse=True)
def schemas_read_once() -> Any:
    """A version's definitions are megabytes, and asked for with every object."""
    original = kubernetes_validate.utils.schema_contents
    kubernetes_validate.utils.schema_contents = functools.lru_cache(maxsize=None)(original)
    yield
    kubernetes_validate.utils.schema_contents = original


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(version: str) -> None:
    """In each version, strictly."""
    assert version in kubernetes_validate.utils.all_versions() or any(
        known.startswith(f"{version}.") for known in kubernetes_validate.utils.all_versions()
    )
    checked = 0
    for name, each in distinct_objects().values():
        if each["apiVersion"] == OPERATOR:
            continue
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            path = ".".join(str(step) for step in error.path)
            pytest.fail(f"{name}, Kubernetes {version}, {path}: {error.message}")
        checked += 1
    assert checked > 30


def test_a_misspelt_field_is_an_error() -> None:
    """What the checks above rest on."""
    _, deployment = next(found for found in distinct_objects().values() if found[0] == "deployment/registry")
    changed = json.loads(json.dumps(deployment))
    changed["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(changed, VERSIONS[-1], strict=True)


OPERATOR_SPECS = {
    "ServiceMonitor": {"selector": dict, "endpoints": list},
    "PodMonitor": {"selector": dict, "podMetricsEndpoints": list},
    "PrometheusRule": {"groups": list},
}
ENDPOINT = {"port": str, "path": str, "interval": str}
RULE = {
    "record": str,
    "alert": str,
    "expr": str,
    "for": str,
    "labels": dict,
    "annotations": dict,
    "keep_firing_for": str,
}


def test_the_operators_objects_have_the_fields_that_it_knows() -> None:
    """Of its API, v1. What the rules say is promtool's business (deploy/tests/monitoring)."""
    kinds = set()
    for name, each in distinct_objects().values():
        if each["apiVersion"] != OPERATOR:
            continue
        kinds.add(each["kind"])
        _check(each["spec"], OPERATOR_SPECS[each["kind"]], name)
        for endpoint in each["spec"].get("endpoints", []) + each["spec"].get("podMetricsEndpoints", []):
            _check(endpoint, ENDPOINT, name)
        for group in each["spec"].get("groups", []):
            _check(group, {"name": str, "rules": list, "interval": str}, name)
            for rule in group["rules"]:
                _check(rule, RULE, name)
                assert ("record" in rule) != ("alert" in rule), name
    assert kinds == set(OPERATOR_SPECS)


def _check(found: Object, fields: dict[str, type], name: str) -> None:
    assert found.keys() <= fields.keys(), f"{name}: {sorted(found.keys() - fields.keys())}"
    for key, value in found.items():
        assert isinstance(value, fields[key]), f"{name}: {key}"
