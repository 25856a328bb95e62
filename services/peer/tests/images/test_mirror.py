"""What clients of a registry's protocol get of the mirror (OCI distribution-spec 1.1; containerd's source)."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from minga_core.errors import (
    BusyError,
    FileNotFoundInDirectoryError,
    InvalidNameError,
    LimitExceededError,
    MingaError,
    NoSourcesError,
    NoSpaceError,
    PeerUnavailableError,
    PermissionDeniedError,
    StorageError,
    UnauthenticatedError,
)
from minga_peer.images.answers import refusal
from minga_runtime.trust.callers import Callers
from minga_runtime.trust.key_sources import parse_sources
from minga_runtime.trust.members import Member, Role
from services.peer.tests.images.conftest import Mirrored, running_mirror
from services.peer.tests.images.registry import INDEX, MANIFEST, sha256
from tests.support.grants import Issuer, write_keys

LAYER = bytes(range(256)) * 4096


async def test_containerd_pulls(mirrored: Mirrored) -> None:
    """The requests of containerd 1.6 to 2.x, in their order, with the headers that each one needs."""
    digest = mirrored.registry.add_image("latest", LAYER)
    tag = await mirrored.ask("lib/x/manifests/latest", "HEAD", Accept=f"{MANIFEST}, {INDEX}, */*")
    assert (tag.status_code, tag.headers["docker-content-digest"]) == (200, digest)
    assert tag.headers["content-type"] == MANIFEST
    assert tag.headers["content-length"] == str(len(mirrored.registry.manifests[digest]))
    head = await mirrored.ask(f"lib/x/manifests/{digest}", "HEAD")
    assert {key: head.headers[key] for key in ("content-type", "content-length", "docker-content-digest")} == {
        key: tag.headers[key] for key in ("content-type", "content-length", "docker-content-digest")
    }
    manifest = await mirrored.ask(f"lib/x/manifests/{digest}", Accept=f"{MANIFEST}, */*")
    assert (sha256(manifest.content), manifest.headers["content-type"]) == (digest, MANIFEST)
    blob = await mirrored.ask(f"lib/x/blobs/{sha256(LAYER)}", **{"Accept-Encoding": "zstd;q=1.0, gzip;q=0.8"})
    assert (blob.status_code, blob.content) == (200, LAYER)
    assert "content-encoding" not in blob.headers
    assert blob.headers["content-length"] == str(len(LAYER))
    assert blob.headers["docker-content-digest"] == sha256(LAYER)
    assert blob.headers["etag"] == f'"{sha256(LAYER)}"'


async def test_ranges_as_containerd_asks_for_them(mirrored: Mirrored) -> None:
    """Several open-ended ones, and from 0, are 206; behind the end 416 with the size; several in one all of it."""
    mirrored.registry.add_image("latest", LAYER)
    path, size = f"lib/x/blobs/{sha256(LAYER)}", len(LAYER)
    for start in (0, 1, 500_000, size - 1):
        answer = await mirrored.ask(path, Range=f"bytes={start}-")
        assert (answer.status_code, answer.content) == (206, LAYER[start:])
        assert answer.headers["content-range"] == f"bytes {start}-{size - 1}/{size}"
    last = await mirrored.ask(path, Range="bytes=-10")
    assert (last.status_code, last.content) == (206, LAYER[-10:])
    beyond = await mirrored.ask(path, Range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    several = await mirrored.ask(path, Range="bytes=0-1,5-6")
    assert (several.status_code, several.content) == (200, LAYER)
    assert mirrored.registry.count("GET", "blobs") == 1


async def test_a_manifest_has_ranges_too(mirrored: Mirrored) -> None:
    """containerd 2.1.0 to 2.1.2 ask for `bytes=0-` of everything."""
    digest = mirrored.registry.add_image("latest", LAYER)
    answer = await mirrored.ask(f"lib/x/manifests/{digest}", Range="bytes=0-")
    assert (answer.status_code, sha256(answer.content)) == (206, digest)


@pytest.mark.parametrize("layer", [b"", b"1"])
async def test_the_smallest_layers(mirrored: Mirrored, layer: bytes) -> None:
    """Whole, and never a body that is shorter than it says."""
    mirrored.registry.add_image("latest", layer)
    for method in ("HEAD", "GET"):
        answer = await mirrored.ask(f"lib/x/blobs/{sha256(layer)}", method)
        assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(layer)))
        assert answer.content == (layer if method == "GET" else b"")


async def test_podman_has_the_registry_in_the_path(mirrored: Mirrored) -> None:
    """No `ns`; `:` of a port is `_`, and the tag is asked for by GET."""
    digest = mirrored.registry.add_image("latest", LAYER)
    place = mirrored.ns.replace(":", "_")
    assert (await mirrored.ask("", ns="")).json() == {}
    manifest = await mirrored.ask(f"{place}/lib/x/manifests/latest", ns="", Accept=MANIFEST)
    assert (sha256(manifest.content), manifest.headers["docker-content-digest"]) == (digest, digest)
    assert (await mirrored.ask(f"{place}/lib/x/blobs/{sha256(LAYER)}", ns="")).content == LAYER


async def test_all_types_that_a_client_takes_are_asked_for(mirrored: Mirrored) -> None:
    """skopeo and podman send a header for each. A registry that is asked for one type alone may answer a list with the
    manifest of some platform in it."""
    mirrored.registry.add_image("latest", LAYER)
    headers = [("Accept", MANIFEST), ("Accept", INDEX)]
    await mirrored.client.head("/v2/lib/x/manifests/latest", params={"ns": mirrored.ns}, headers=headers)
    asked = mirrored.registry.asked[-1].headers["accept"]
    assert {MANIFEST, INDEX} <= set(asked.split(", "))


async def test_a_client_that_takes_anything_gets_a_manifest_of_any_type(mirrored: Mirrored) -> None:
    """As curl asks. Registries answer 404 for OCI manifests to whom does not name their type."""
    mirrored.registry.add_image("latest", LAYER)
    await mirrored.ask("lib/x/manifests/latest", "HEAD", accept="*/*")
    assert {MANIFEST, INDEX} <= set(mirrored.registry.asked[-1].headers["accept"].split(", "))


async def test_the_registry_counts_one_manifest_whatever_tags_are_asked_for(mirrored: Mirrored) -> None:
    """Registries limit pulls by GETs of manifests: a tag costs a HEAD, its manifest is that of the swarm."""
    mirrored.registry.add_image("latest", LAYER)
    for _ in range(3):
        await mirrored.ask("lib/x/manifests/latest")
    assert mirrored.registry.count("GET", "manifests") == 1
    assert mirrored.registry.count("HEAD", "manifests") >= 3


async def test_a_tag_is_never_stale(mirrored: Mirrored) -> None:
    """It moves, and with the registry away it is nowhere."""
    first = mirrored.registry.add_image("latest", LAYER)
    assert (await mirrored.ask("lib/x/manifests/latest")).headers["docker-content-digest"] == first
    second = mirrored.registry.add_image("latest", LAYER, b"new")
    for method in ("HEAD", "GET"):
        answer = await mirrored.ask("lib/x/manifests/latest", method)
        assert answer.headers["docker-content-digest"] == second
    mirrored.registry.status = 500
    assert (await mirrored.ask("lib/x/manifests/latest")).status_code == 503
    assert (await mirrored.ask(f"lib/x/manifests/{second}")).status_code == 200


async def test_a_manifest_that_does_not_say_its_type(mirrored: Mirrored) -> None:
    """Every peer answers the same, the one that fetched it and the one that has it from the swarm."""
    digest = mirrored.registry.add_image("latest", LAYER, mediaType=MANIFEST)
    plain = {k: v for k, v in json.loads(mirrored.registry.manifests[digest]).items() if k != "mediaType"}
    data = json.dumps(plain).encode()
    mirrored.registry.manifests[sha256(data)] = data
    for source in ("upstream", "peers"):
        answer = await mirrored.ask(f"lib/x/manifests/{sha256(data)}")
        assert (answer.headers["content-type"], answer.headers["x-minga-source"]) == (MANIFEST, source)


@pytest.mark.parametrize("data", [b"", b"no json", b"[]", b'{"manifests": [], "layers": []}', b"[" * 100_000])
async def test_what_is_no_manifest_is_not_served_as_one(mirrored: Mirrored, data: bytes) -> None:
    """A layer's digest in a manifest's path; and what is an index for one client and an image for another."""
    mirrored.origins.put(data)
    answer = await mirrored.ask(f"lib/x/manifests/{sha256(data)}")
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    "path",
    [
        *("lib/x/manifests/sha256:1", "lib/x/blobs/latest", "lib/x/blobs/sha512:" + "0" * 128, "lib/x/tags/list"),
        *(
            "_catalog",
            "LIB/x/manifests/a",
            "lib/%2e%2e/x/manifests/a",
            "lib//x/manifests/a",
            "manifests/a",
            "x/manifests/",
        ),
        *("lib/x/referrers/sha256:" + "0" * 64, "lib/x/blobs/uploads/1", "lib/x/manifests/-tag", "lib/%00/manifests/a"),
    ],
)
async def test_what_is_not_mirrored_is_404(mirrored: Mirrored, path: str) -> None:
    """And costs the registry no request."""
    assert (await mirrored.ask(path)).status_code == 404
    assert mirrored.registry.asked == []


@pytest.mark.parametrize("ns", ["evil.example", "169.254.169.254", "127.0.0.1:1", "docker.io"])
async def test_no_other_registry_is_asked(mirrored: Mirrored, ns: str) -> None:
    """A peer is no open fetcher, whatever a client names."""
    assert (await mirrored.ask("lib/x/manifests/latest", ns=ns)).status_code == 404
    assert (await mirrored.ask("", ns=ns)).status_code == 404


async def test_what_the_registry_does_not_have(mirrored: Mirrored) -> None:
    """404 and not a redirect, for all of it; no body is waited for."""
    for path in (f"lib/x/manifests/{sha256(b'1')}", f"lib/x/blobs/{sha256(b'1')}", "lib/x/manifests/none"):
        for method in ("HEAD", "GET"):
            assert (await mirrored.ask(path, method)).status_code == 404


@pytest.mark.parametrize("status", [400, 418, 429, 500, 502, 503])
async def test_a_registry_that_fails_is_503(mirrored: Mirrored, status: int) -> None:
    """Never its 429, which containerd 1.x repeats without a pause."""
    mirrored.registry.add_image("latest", LAYER)
    mirrored.registry.status = status
    for path in ("lib/x/manifests/latest", f"lib/x/blobs/{sha256(LAYER)}"):
        assert (await mirrored.ask(path, "HEAD")).status_code == 503


async def test_a_registry_with_tokens_for_anybody(mirrored: Mirrored) -> None:
    """The peer gets one for each repository, once, and no client sees a challenge."""
    mirrored.registry.demand = "bearer"
    digest = mirrored.registry.add_image("latest", LAYER)
    for path in ("manifests/latest", f"manifests/{digest}", f"blobs/{sha256(LAYER)}"):
        assert (await mirrored.ask(f"lib/x/{path}")).status_code == 200
    assert mirrored.registry.tokens == 1
    mirrored.clock.ahead_seconds = 295
    assert (await mirrored.ask("lib/x/manifests/latest")).status_code == 200
    assert mirrored.registry.tokens == 2


@pytest.mark.parametrize("expires_in", [None, 0, 1, -1, "x", 1e300, []])
async def test_odd_ends_of_tokens(mirrored: Mirrored, expires_in: object) -> None:
    """None stands for a minute; what is no number is no answer."""
    mirrored.registry.demand, mirrored.registry.expires_in = "bearer", expires_in
    mirrored.registry.add_image("latest", LAYER)
    good = expires_in in (None, 0, 1, [])
    assert (await mirrored.ask("lib/x/manifests/latest", "HEAD")).status_code == (200 if good else 503)


@pytest.mark.parametrize("realm", ["http://[x", "https://user:pw@r.example/t", "http://169.254.169.254/t", "http:///"])
async def test_a_realm_that_is_not_asked(mirrored: Mirrored, realm: str) -> None:
    """What is no URL, and what is in the peer's own network: the registry does not choose where the peer goes."""
    mirrored.registry.demand, mirrored.registry.realm = "bearer", realm
    mirrored.registry.add_image("latest", LAYER)
    assert (await mirrored.ask("lib/x/manifests/latest", "HEAD")).status_code == 404
    assert mirrored.registry.tokens == 0


async def test_private_images_are_404(mirrored: Mirrored) -> None:
    """With the client's own rights they may be had: at the registry. It is not asked again for each layer."""
    mirrored.registry.demand = "basic"
    digest = mirrored.registry.add_image("latest", LAYER)
    for path in ("manifests/latest", f"manifests/{digest}", f"blobs/{sha256(LAYER)}"):
        answer = await mirrored.ask(f"lib/x/{path}", authorization="Basic dTpw")
        assert answer.status_code == 404
        assert "www-authenticate" not in answer.headers
    assert all("authorization" not in each.headers for each in mirrored.registry.asked)
    assert len({each.path for each in mirrored.registry.asked}) == 1


async def test_a_wrong_digest_is_not_passed_on(mirrored: Mirrored) -> None:
    """Nor tried again at once: the client asks elsewhere."""
    mirrored.registry.add_image("latest", LAYER)
    mirrored.registry.blobs[sha256(LAYER)] = LAYER[:-1] + b"!"
    path = f"lib/x/blobs/{sha256(LAYER)}"
    for _ in range(2):
        answer = await mirrored.ask(path)
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (503, "UNAVAILABLE")
    assert mirrored.origins.open_count == 1


@pytest.mark.parametrize("failure", [NoSourcesError("gone"), PeerUnavailableError("gone"), StorageError("disk")])
async def test_what_broke_off_is_left_to_the_registry_for_a_minute(mirrored: Mirrored, failure: Exception) -> None:
    """The answer is cut short of its length; the rest is refused, so that containerd takes it from the next host."""
    mirrored.registry.add_image("latest", LAYER)
    path = f"lib/x/blobs/{sha256(LAYER)}"
    mirrored.origins.failure, mirrored.origins.good_bytes = failure, 200_000  # type: ignore[assignment]
    with pytest.raises(Exception, match="peer closed connection"):
        await mirrored.ask(path)
    mirrored.origins.failure = None
    assert (await mirrored.ask(path, Range="bytes=262144-")).status_code == 503
    mirrored.clock.ahead_seconds = 61
    assert (await mirrored.ask(path, Range="bytes=262144-")).content == LAYER[262144:]


@pytest.mark.parametrize(("stuck_from_byte", "limit"), [(0, "FIRST_BYTES_SECONDS"), (200_000, "STALL_SECONDS")])
async def test_what_hangs_is_cut(
    mirrored: Mirrored, monkeypatch: pytest.MonkeyPatch, stuck_from_byte: int, limit: str
) -> None:
    """containerd never leaves a mirror that only hangs: the whole pull ends with it."""
    monkeypatch.setattr(f"minga_peer.gateway.limited.{limit}", 0.05)
    mirrored.registry.add_image("latest", LAYER)
    mirrored.origins.stuck_from_byte = stuck_from_byte
    path = f"lib/x/blobs/{sha256(LAYER)}"
    if stuck_from_byte:
        with pytest.raises(httpx.RemoteProtocolError, match="peer closed connection"):
            await mirrored.ask(path)
    assert (await mirrored.ask(path)).status_code == 503


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BusyError("", retry_after=timedelta(seconds=1)), 503),
        *((error(""), 503) for error in (LimitExceededError, NoSpaceError, StorageError, NoSourcesError)),
        *((error(""), 404) for error in (UnauthenticatedError, PermissionDeniedError, InvalidNameError)),
        (FileNotFoundInDirectoryError(""), 404),
    ],
)
def test_no_error_keeps_a_client_from_the_registry(error: MingaError, status: int) -> None:
    """429 is repeated without a pause, 401 and 403 end a pull, and all others may be retried here."""
    assert refusal("/v2/lib/x/blobs/y", error).status_code == status


async def test_a_flood_is_503() -> None:
    """Beyond what the gateway answers at once, too."""
    async with running_mirror(max_requests=1) as mirrored:
        mirrored.registry.add_image("latest", LAYER)
        mirrored.origins.stuck_from_byte = 0
        first = asyncio.create_task(mirrored.ask(f"lib/x/blobs/{sha256(LAYER)}"))
        async with asyncio.timeout(10):
            await mirrored.origins.opened.wait()
        assert (await mirrored.ask("lib/x/manifests/latest", "HEAD")).status_code == 503
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def test_on_the_loopback_it_needs_no_grant_and_elsewhere_one(tmp_path: Path) -> None:
    """containerd has none; what it gets here everybody gets from the registry. Files still need one."""
    keys = write_keys(tmp_path / "keys.json", Issuer())
    callers = Callers(Member("test", Role.PEER, "peer-1"), parse_sources(str(keys)))
    for loopback, status in ((True, 200), (False, 404)):
        async with running_mirror(callers, loopback=loopback) as mirrored:
            digest = mirrored.registry.add_image("latest", LAYER)
            for authorization in ({}, {"authorization": "Basic dTpw"}, {"authorization": "Bearer x"}):
                answer = await mirrored.ask(f"lib/x/manifests/{digest}", **authorization)
                assert answer.status_code == status
            assert (await mirrored.client.get("/files/x")).status_code == 401


async def test_it_counts_where_answers_are_from(mirrored: Mirrored) -> None:
    """So that a hit ratio can be seen, and what was cut."""
    digest = mirrored.registry.add_image("latest", LAYER)
    for path in (f"manifests/{digest}", f"manifests/{digest}", f"blobs/{sha256(b'none')}", "tags/list"):
        await mirrored.ask(f"lib/x/{path}")
    mirrored.origins.failure = NoSourcesError("gone")
    await mirrored.ask(f"lib/x/blobs/{sha256(LAYER)}")
    counted = {
        (sample.labels["kind"], sample.labels["outcome"])
        for family in mirrored.series.collect()
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }
    answered = {("manifest", "upstream"), ("manifest", "peers")}
    assert counted == answered | {("blob", "absent"), ("blob", "failed"), ("other", "absent")}


async def test_in_a_secure_network_only_what_the_registry_gives_to_everybody(tmp_path: Path) -> None:
    """What peers have may have been fetched with credentials: knowing its digest is no right to read it. What the
    registry has once given to all is served while it is away."""
    keys = write_keys(tmp_path / "keys.json", Issuer())
    callers = Callers(Member("test", Role.PEER, "peer-1"), parse_sources(str(keys)))
    async with running_mirror(callers) as mirrored:
        secret = b"gated weights"
        mirrored.origins.put(secret)
        for method in ("HEAD", "GET"):
            assert (await mirrored.ask(f"lib/x/blobs/{sha256(secret)}", method)).status_code == 404
        mirrored.registry.add_image("latest", LAYER)
        for status in (0, 500):
            mirrored.registry.status = status
            assert (await mirrored.ask(f"lib/x/blobs/{sha256(LAYER)}")).content == LAYER
        assert (await mirrored.ask(f"lib/y/blobs/{sha256(LAYER)}")).status_code == 503
        mirrored.clock.ahead_seconds = 3601
        assert (await mirrored.ask(f"lib/x/blobs/{sha256(LAYER)}")).status_code == 503


async def test_a_mirror_refuses_a_mirror(mirrored: Mirrored) -> None:
    """MINGA_IMAGES that names a gateway would ask itself for ever."""
    mirrored.registry.add_image("latest", LAYER)
    await mirrored.ask("lib/x/manifests/latest", "HEAD")
    via = mirrored.registry.asked[-1].headers["via"]
    assert (await mirrored.ask("lib/x/manifests/latest", "HEAD", via=f"1.1 proxy, {via}")).status_code == 404


async def test_what_is_in_the_swarm_needs_no_registry(mirrored: Mirrored) -> None:
    """A pull by digest goes on while the registry is away."""
    digest = mirrored.registry.add_image("latest", LAYER)
    for path in (f"manifests/{digest}", f"blobs/{sha256(LAYER)}"):
        await mirrored.ask(f"lib/x/{path}")
    mirrored.registry.status = 500
    count = len(mirrored.registry.asked)
    for path in (f"manifests/{digest}", f"blobs/{sha256(LAYER)}"):
        for method in ("HEAD", "GET"):
            assert (await mirrored.ask(f"lib/x/{path}", method)).status_code == 200
    assert len(mirrored.registry.asked) == count


async def test_a_pull_from_the_swarm_looks_up_once(mirrored: Mirrored) -> None:
    """What was found decides whether the registry is asked, and is then what is read."""
    digest = mirrored.registry.add_image("latest", LAYER)
    paths = (f"manifests/{digest}", f"blobs/{sha256(LAYER)}")
    for path in paths:
        await mirrored.ask(f"lib/x/{path}")
    before = mirrored.origins.look_up_count
    for path in paths:
        assert (await mirrored.ask(f"lib/x/{path}")).headers["x-minga-source"] == "peers"
    assert mirrored.origins.look_up_count - before == len(paths)
