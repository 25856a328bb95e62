"""Which registry a request of a mirror is for."""

import pytest

from minga_peer.images.registries import Registries, parse_registries

HUB, OTHER, LOCAL = parse_registries("docker.io, ghcr.io,http://127.0.0.1:5000")


def test_docker_io_is_where_docker_asks_for_it() -> None:
    """Docker Hub's registry has another name than its images."""
    assert (HUB.name, HUB.url) == ("docker.io", "https://registry-1.docker.io")
    assert (OTHER.url, LOCAL.url) == ("https://ghcr.io", "http://127.0.0.1:5000")


@pytest.mark.parametrize(
    ("repository", "namespace", "found"),
    [
        ("library/x", "docker.io", (HUB, "library/x")),
        ("library/x", None, (HUB, "library/x")),
        ("docker.io/library/x", None, (HUB, "library/x")),
        ("team/x", "GHCR.io", (OTHER, "team/x")),
        ("ghcr.io/team/x", None, (OTHER, "team/x")),
        ("127.0.0.1_5000/x", None, (LOCAL, "x")),
        ("team/x", "quay.io", None),
        ("quay.io/team/x", None, None),
    ],
)
def test_a_request_is_for_the_registry_that_its_client_means(
    repository: str, namespace: str | None, found: object
) -> None:
    """By what it says (containerd), by the beginning of the path (podman), or Docker's own (Docker)."""
    assert Registries((HUB, OTHER, LOCAL)).find(repository, namespace) == found
