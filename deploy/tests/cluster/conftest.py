"""Clusters for tests, and the figures that they leave behind."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy.tests.cluster.manifests import Manifests, parse, render
from deploy.tests.support.engine import REPOSITORY, Engine

K8S = REPOSITORY / "deploy/k8s"
TEST_REDIS = "minga-test/redis:7"
NODE_DISK = "components/node-disk"
PEER_VOLUMES = "components/peer-volumes"

_FIGURES = pytest.StashKey[list[str]]()
_NO_ROOT = pytest.StashKey[str]()

Rendered = Callable[..., Manifests]


@pytest.fixture(scope="session")
def cluster_engine(request: pytest.FixtureRequest) -> Engine:
    """The engine with our images, where this process may put addresses on its bridges; tests skip where it may not."""
    reason = ""
    if os.geteuid() != 0:
        reason = "root is needed: the cluster puts its Services' addresses on the engine's bridge"
    elif not os.environ.get("DOCKER_HOST", "unix://").startswith("unix://"):
        reason = "the engine must be on this machine: the cluster is part of its network"
    if reason:
        request.config.stash[_NO_ROOT] = reason
        pytest.skip(reason)
    images: Engine = request.getfixturevalue("images")
    return images


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Gives the manifests of an overlay, or of a base with components, by their folders below deploy/k8s."""

    def make(base: str, *components: str) -> Manifests:
        folder = tmp_path_factory.mktemp("kustomization").resolve()
        (folder / "kustomization.yaml").write_text(_kustomization(folder, base, components))
        return parse(render(folder))

    return make


def _kustomization(folder: Path, base: str, components: Sequence[str]) -> str:
    def relative(name: str) -> str:
        return os.path.relpath((K8S / name).resolve(), folder)

    lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization", f"resources: [{relative(base)}]"]
    return "\n".join([*lines, f"components: [{', '.join(map(relative, components))}]"])


def local_images(manifests: Manifests) -> dict[str, str]:
    """What stands for the images of the manifests on the engine."""
    names = {
        one.image for workload in manifests.workloads for one in workload.pod.containers + workload.pod.init_containers
    }
    return {name: TEST_REDIS if name.startswith("redis:") else f"{name.partition(':')[0]}:dev" for name in names}


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are printed at the end."""
    found: list[str] = []
    request.config.stash[_FIGURES] = found
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The figures; and tests that did not run must not look like tests that passed."""
    if reason := config.stash.get(_NO_ROOT, None):
        terminalreporter.section("CLUSTER TESTS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(reason, red=True)
    if found := config.stash.get(_FIGURES, []):
        terminalreporter.section("the emulated cluster")
        for line in found:
            terminalreporter.write_line(line)
