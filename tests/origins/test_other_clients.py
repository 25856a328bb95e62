"""podman and skopeo, which name the registry in the path and ask for `/v2/` first; images made by umoci."""

import os
from pathlib import Path

import pytest

from tests.origins.networks import mirrors
from tests.origins.podman import Podman, policy_file
from tests.origins.programs import run
from tests.origins.registry import USER, docker_registry, layer_of

pytestmark = pytest.mark.e2e

COPY = ("copy", "-q", "--src-tls-verify=false")


async def make_image(folder: Path, *sizes: int) -> Path:
    """An OCI layout with a layer of each size, by umoci."""
    layout = folder / "layout"
    await run("umoci", "init", "--layout", str(layout))
    await run("umoci", "new", "--image", f"{layout}:1")
    for number, size in enumerate(sizes):
        (folder / f"file-{number}").write_bytes(os.urandom(size))
        await run("umoci", "insert", "--image", f"{layout}:1", str(folder / f"file-{number}"), f"/file-{number}")
    return layout


async def test_podman_and_skopeo_pull_an_image_of_umoci(tmp_path: Path) -> None:
    """By a mirror in registries.conf, by tag, and by the path of the mirror itself; the registry sends it once."""
    policy = ("--policy", str(policy_file(tmp_path)))
    layout = await make_image(tmp_path, 2_000_000, 1, 0)
    async with docker_registry(tmp_path / "registry") as registry:
        target = f"docker://{registry.name}/lib/x:1"
        await run("skopeo", *policy, "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:1", target)
        async with mirrors(tmp_path / "net", registry, 2) as found:
            with Podman(tmp_path, registry.name, found.urls[0]) as podman:
                assert await podman.pull("lib/x:1")
            place = f"docker://{found.urls[1].removeprefix('http://')}/{registry.name.replace(':', '_')}/lib/x:1"
            into = f"dir:{tmp_path / 'copied'}"
            await run("skopeo", *policy, *COPY, place, into)
            blobs = {path.name: path.stat().st_size for path in (tmp_path / "copied").iterdir()}
            digests = [name for name in blobs if len(name) == 64]
            assert len(digests) >= 2
            await registry.sent_once(*digests)


async def test_skopeo_copies_layers_of_no_byte_and_of_one(tmp_path: Path) -> None:
    """Through both peers; a layer of no bytes is all there at once."""
    policy = ("--policy", str(policy_file(tmp_path)))
    async with docker_registry(tmp_path / "registry") as registry:
        image = registry.push("lib/x", "1", [b"", b"1", layer_of(a=os.urandom(1000))])
        async with mirrors(tmp_path / "net", registry, 2) as found:
            for number, url in enumerate(found.urls):
                place = f"docker://{url.removeprefix('http://')}/{registry.name.replace(':', '_')}/lib/x:1"
                into = tmp_path / f"copied-{number}"
                await run("skopeo", *policy, *COPY, place, f"dir:{into}")
                sizes = [(into / digest.removeprefix("sha256:")).stat().st_size for digest in image.layers]
                assert sizes[:2] == [0, 1]
        await registry.sent_once(*image.layers)


async def test_podman_goes_to_the_registry_for_what_the_mirror_does_not_have(tmp_path: Path) -> None:
    """It chooses by the manifest. One for its user alone is 404 at the mirror, which asked for it as nobody."""
    async with docker_registry(tmp_path / "registry", private=True) as registry:
        registry.push("lib/x", "1", [layer_of(a=os.urandom(1000))])
        async with mirrors(tmp_path / "net", registry, 1) as found:
            with Podman(tmp_path, registry.name, found.urls[0]) as podman:
                assert await podman.pull("lib/x:1", "--creds", ":".join(USER))
            assert any("minga" in agent for agent in registry.agents())
