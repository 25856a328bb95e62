"""Everything renders, alike with every kubectl, and says one thing in one place."""

import re
from importlib.metadata import version

import pytest
import yaml

from deploy.tests.k8s.rendering import (
    BASE,
    COMPONENTS,
    DEPLOY,
    K8S,
    Combination,
    RenderError,
    containers_of,
    kubectls,
    overlays,
    pod_of,
    ref,
    render,
    workloads,
)


def test_every_combination_renders_into_the_one_namespace(combination: Combination) -> None:
    """Without a warning, no object twice, and nothing outside `minga`."""
    objects = combination.objects()
    names = [ref(each) for each in objects]
    assert len(names) == len(set(names))
    outside = [
        ref(each) for each in objects if each["kind"] != "Namespace" and each["metadata"].get("namespace") != "minga"
    ]
    assert outside == []
    assert [ref(each) for each in objects if each["kind"] == "Namespace"] == ["namespace/minga"]


@pytest.mark.parametrize("overlay", overlays(), ids=str)
def test_every_kubectl_renders_the_same(overlay: Combination) -> None:
    """The machine's own and that of the virtual environment, where there are both."""
    assert len({render(overlay, kubectl) for kubectl in kubectls()}) == 1


def test_tls_for_a_redis_that_is_outside_is_refused() -> None:
    """That component is about the Redis in the namespace; listed with the one that takes it away, kustomize says so."""
    with pytest.raises(RenderError, match="redis"):
        render(Combination("both", BASE, ("external-redis", "redis-tls")))


def test_every_component_is_known_to_these_tests() -> None:
    """A new one must be in the table of combinations, or nothing here looks at it."""
    folders = {path.parent for path in K8S.glob("components/*/kustomization.yaml")} | {DEPLOY / "monitoring"}
    assert folders == set(COMPONENTS.values())


def test_every_file_is_part_of_something() -> None:
    """A manifest that no kustomization names would be applied by nobody."""
    for kustomization in K8S.rglob("kustomization.yaml"):
        folder, text = kustomization.parent, kustomization.read_text()
        orphans = [path.name for path in folder.glob("*.yaml") if path != kustomization and path.name not in text]
        assert orphans == [], folder


def test_versions_are_set_in_one_place() -> None:
    """The base's `images`: manifests name none, overlays change them the same way."""
    for path in (*K8S.rglob("*.yaml"), *(DEPLOY / "monitoring").glob("*.yaml")):
        if path.name != "kustomization.yaml":
            images = re.findall(r"^\s*(?:- )?image: (\S+)$", path.read_text(), re.MULTILINE)
            assert [image for image in images if ":" in image or "@" in image] == [], path
    images = yaml.safe_load((BASE / "kustomization.yaml").read_text())["images"]
    assert {one["name"] for one in images} == {"minga/registry", "minga/locator", "minga/peer", "redis"}
    ours = {one["name"]: one["newTag"] for one in images if one["name"] != "redis"}
    assert ours == {f"minga/{part}": version(f"minga-{part}") for part in ("registry", "locator", "peer")}


def test_every_container_has_a_version(combination: Combination) -> None:
    """Neither none nor `latest`, which change under a running network; and all containers of an image have the same."""
    images = [one["image"] for each in workloads(combination.objects()) for one in containers_of(pod_of(each))]
    assert [image for image in images if not re.fullmatch(r"[a-z/]+:(?!latest$)[\w.-]+", image)] == []
    names = {image.partition(":")[0] for image in images}
    assert len(set(images)) == len(names)
