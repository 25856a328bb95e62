"""Whatever points at something points at what it means."""

from typing import Any

from deploy.tests.k8s.rendering import (
    Combination,
    Object,
    labels_of,
    of_kind,
    overlays,
    pod_of,
    ref,
    selects,
    workloads,
)


def chosen(selector: dict[str, Any], objects: tuple[Object, ...]) -> list[str]:
    """The workloads whose pods a selector takes."""
    return [each["metadata"]["name"] for each in workloads(objects) if selects(selector, labels_of(each))]


def test_each_part_is_labelled_as_itself(combination: Combination) -> None:
    """Objects, their pods and their selectors say the same."""
    for each in workloads(combination.objects()):
        own = {"app.kubernetes.io/name": each["metadata"]["name"], "app.kubernetes.io/part-of": "minga"}
        assert each["metadata"]["labels"] == own
        assert labels_of(each) == own
        assert each["spec"]["selector"] == {"matchLabels": own}


def test_everything_is_part_of_minga(combination: Combination) -> None:
    """So that `kubectl get all -l app.kubernetes.io/part-of=minga` is all."""
    for each in combination.objects():
        assert each["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "minga", ref(each)


def test_services_budgets_and_monitors_choose_the_part_that_they_are_called_after(combination: Combination) -> None:
    """Its pods, and nobody else's."""
    objects = combination.objects()
    found = 0
    for each in of_kind(objects, "Service"):
        assert chosen({"matchLabels": each["spec"]["selector"]}, objects) == [each["metadata"]["name"]], ref(each)
        found += 1
    for each in of_kind(objects, "PodDisruptionBudget", "PodMonitor"):
        assert chosen(each["spec"]["selector"], objects) == [each["metadata"]["name"]], ref(each)
    for each in of_kind(objects, "ServiceMonitor"):
        services = of_kind(objects, "Service")
        names = [
            one["metadata"]["name"] for one in services if selects(each["spec"]["selector"], one["metadata"]["labels"])
        ]
        assert names == [each["metadata"]["name"]]
    for each in workloads(objects):
        assert each["metadata"]["name"] in {one["metadata"]["name"] for one in of_kind(objects, "Service")}
    assert found >= 3


def test_no_network_policy_is_about_nobody(combination: Combination) -> None:
    """Neither its own selector, nor those of its rules that are about parts of Minga."""
    objects = combination.objects()
    for each in of_kind(objects, "NetworkPolicy"):
        assert chosen(each["spec"]["podSelector"], objects), ref(each)
        rules = each["spec"].get("ingress", []) + each["spec"].get("egress", [])
        for side in (side for rule in rules for side in rule.get("from", []) + rule.get("to", [])):
            if "podSelector" in side and "namespaceSelector" not in side:
                assert chosen(side["podSelector"], objects), ref(each)


def test_autoscalers_scale_what_is_there_and_nobody_else_does(combination: Combination) -> None:
    """A number of replicas in the manifest would fight with it at every apply."""
    objects = combination.objects()
    deployments = {each["metadata"]["name"]: each for each in of_kind(objects, "Deployment")}
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of_kind(objects, "HorizontalPodAutoscaler")}
    assert scaled in (set(), set(deployments))
    for name, each in deployments.items():
        assert ("replicas" in each["spec"]) != (name in scaled)
    for each in of_kind(objects, "HorizontalPodAutoscaler"):
        target = each["spec"]["scaleTargetRef"]
        assert (target["apiVersion"], target["kind"], target["name"]) == (
            "apps/v1",
            "Deployment",
            each["metadata"]["name"],
        )
        assert each["spec"]["minReplicas"] >= 2


def test_in_production_the_directory_survives_a_node(combination: Combination) -> None:
    """Wherever there is a budget: two replicas at least, on different nodes, of which updates take none away."""
    objects = combination.objects()
    budgets = {each["metadata"]["name"] for each in of_kind(objects, "PodDisruptionBudget")}
    for each in of_kind(objects, "Deployment"):
        strategy = each["spec"]["strategy"]["rollingUpdate"]
        assert (strategy["maxUnavailable"], strategy["maxSurge"]) == (0, 1)
        if each["metadata"]["name"] in budgets:
            assert each["spec"].get("replicas", 2) >= 2
            spread = pod_of(each)["topologySpreadConstraints"]
            assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
            for one in spread:
                # Kubernetes adds what matchLabelKeys name from the pod's own labels.
                keys = [key for key in one["matchLabelKeys"] if key != "pod-template-hash"]
                own = labels_of(each)
                counted = {"matchLabels": one["labelSelector"]["matchLabels"] | {key: own[key] for key in keys}}
                assert chosen(counted, objects) == [each["metadata"]["name"]]


def test_production_overlays_have_what_production_needs() -> None:
    """Budgets, autoscalers, policies and monitoring, for both."""
    for overlay in overlays():
        if overlay.name.startswith("overlays/production"):
            kinds = {each["kind"] for each in overlay.objects()}
            wanted = {"PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy", "PrometheusRule", "PodMonitor"}
            assert wanted <= kinds, overlay
