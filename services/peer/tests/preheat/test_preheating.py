"""A peer fetches for others what its settings let them have, all of it, and no more than it keeps."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from minga_core.clock import SystemClock
from minga_core.errors import (
    BusyError,
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
    MingaError,
    NoSpaceError,
    PermissionDeniedError,
    UnavailableError,
)
from minga_core.origin_names import Endpoints
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.preheating import PreheatOrder, PreheatStep, preheat_peer
from minga_peer.daemon.preheat_doors import hub_planner
from minga_peer.images.registries import Registries, parse_registries
from minga_peer.images.upstream import ImageUpstream
from minga_peer.images.walking import ImageWalk
from minga_peer.models.hub import Hub
from minga_peer.models.kept import HubOrKept, KeptRevisions
from minga_peer.origins.cache import Limit
from minga_peer.origins.naming import OriginNames
from minga_peer.preheat.preheating import Planner, Preheating
from minga_peer.preheat.urls import UrlPlan
from minga_runtime.quotas import DailyQuota
from minga_runtime.trust.audit import Audit
from services.peer.tests.images.registry import INDEX, StubRegistry, sha256, stub_registry
from services.peer.tests.transfer.conftest import Network, TestPeer, eventually, noise
from tests.support.hub import LARGE, Repository, StubHub, stub_hub
from tests.support.origin import Origin, origin

MIB = 1024 * 1024


@dataclass
class World:
    """Peers, and what they fetch from."""

    network: Network
    origin: Origin
    registry: StubRegistry
    hub: StubHub
    connections: PeerConnections

    async def peer(self, peer_id: str = "p0") -> TestPeer:
        """One that fetches from all of these for others."""
        peer = await self.network.peer(peer_id)
        now, origins = SystemClock().monotonic, peer.origins
        hub = Hub(self.hub.url, origins.upstream, now)
        kept = KeptRevisions(peer.root / ".minga" / "hub", now)
        urls = UrlPlan(origins, OriginNames(Endpoints(s3=self.origin.url, hub=self.hub.url), hub))
        registries = Registries(parse_registries(self.registry.url))
        images = ImageWalk(registries, ImageUpstream(origins.upstream, now), origins)
        planners: dict[str, Planner] = dict.fromkeys(("http", "https", "s3", "gs"), urls.allowed)
        planners |= {"oci": images.plan, "hf": hub_planner(HubOrKept(hub, kept, now), origins, urls)}
        peer.service.preheater = Preheating(origins, planners)
        return peer

    async def fetch(self, peer: TestPeer, item: str, platform: str = "", *, pin: bool = False) -> PreheatStep:
        """Ask a peer; its last step."""
        return [step async for step in self.steps(peer, item, platform, pin=pin)][-1]

    def steps(
        self, peer: TestPeer, item: str, platform: str = "", *, pin: bool = False
    ) -> AsyncGenerator[PreheatStep, None]:
        return preheat_peer(self.connections, peer.source, PreheatOrder(item, platform, pin))

    async def refusal(self, peer: TestPeer, item: str, platform: str = "", *, pin: bool = False) -> MingaError:
        with pytest.raises(MingaError) as refused:
            await self.fetch(peer, item, platform, pin=pin)
        return refused.value

    @property
    def image(self) -> str:
        """An image's reference, up to its tag."""
        return f"oci://{self.registry.url.removeprefix('http://')}/lib/x"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        network = Network(tmp_path, stack)
        place = await stack.enter_async_context(origin())
        registry = await stack.enter_async_context(stub_registry())
        hub = await stack.enter_async_context(stub_hub())
        network.allowed = [place.url]
        network.reached = [registry.url, hub.url, hub.cdn]
        yield World(network, place, registry, hub, await stack.enter_async_context(PeerConnections()))


def names(peer: TestPeer) -> set[str]:
    return {file.name for file in peer.origins.cache.files()}


async def test_one_copy_of_a_url_leaves_its_origin(world: World) -> None:
    """Whatever the number of peers, all at once; again it costs nothing; with a digest it is the same file."""
    peers = [await world.peer(f"p{number}") for number in range(3)]
    data = noise(5 * MIB)
    url = world.origin.put("/model.bin", data)
    steps = await asyncio.gather(*(world.fetch(peer, url) for peer in peers))
    assert {(step.held_bytes, step.size_bytes, step.file_count) for step in steps} == {(len(data), len(data), 1)}
    assert sorted(step.upstream_bytes for step in steps) == [0, 0, len(data)]
    assert sorted(step.peers_bytes for step in steps) == [0, len(data), len(data)]
    assert world.origin.count("GET") == 1
    again = await world.fetch(peers[0], url)
    assert (again.local_bytes, again.upstream_bytes) == (len(data), 0)
    for peer in peers:
        path = peer.root / next(iter(names(peer)))
        assert path.read_bytes() == data
    by_digest = await world.fetch(peers[0], f"{url}#sha256={sha256(data).removeprefix('sha256:')}")
    assert by_digest.resolved == sha256(data)


async def test_a_name_of_a_store_is_the_file_behind_it(world: World) -> None:
    """As far as its URL is allowed; a key may have any character."""
    peer = await world.peer()
    world.origin.put("/bucket/a%20b%23c.bin", b"stored")
    assert (await world.fetch(peer, "s3://bucket/a b#c.bin")).upstream_bytes == 6
    digest = sha256(b"stored").removeprefix("sha256:")
    step = await world.fetch(peer, f"s3://bucket/a b#c.bin#sha256={digest}")
    assert (step.held_bytes, step.resolved) == (6, f"sha256:{digest}")
    assert isinstance(await world.refusal(peer, "gs://bucket/a"), PermissionDeniedError)


async def test_a_peer_fetches_only_what_it_lets_others_have(world: World) -> None:
    """And says which setting keeps it; nothing is asked of the others. Without its network no item goes anywhere."""
    peer = await world.peer()
    async with origin() as other:
        denied = {
            other.put("/a.bin", b"a"): "fetches nothing from",
            "oci://registry.example/x:1": "does not mirror registry.example",
        }
        for item, why in denied.items():
            refused = await world.refusal(peer, item)
            assert isinstance(refused, PermissionDeniedError)
            assert why in str(refused)
        assert not other.requests
    for item in (
        "",
        "a/name",
        "ftp://h/a",
        "http://",
        "oci://x",
        "oci://",
        "hf:///x",
        "s3://x",
        "hf://a/b@../c",
        "x" * 9000,
    ):
        assert isinstance(await world.refusal(peer, item), InvalidArgumentError), item
    url = world.origin.put("/a.bin", b"a")
    for item, platform in ((f"{url}#x", ""), (url, "linux/amd64"), ("hf://a/b", "linux/amd64")):
        assert isinstance(await world.refusal(peer, item, platform), InvalidArgumentError), item
    peer.service.preheater = Preheating(peer.origins, {})
    for item, setting in (("oci://a.example/x:1", "MINGA_IMAGES"), ("HF://a/b", "MINGA_HUB")):
        assert (await world.refusal(peer, item)).hint == f"{setting} is not set"
    peer.service.preheater = None
    assert isinstance(await world.refusal(peer, url), PermissionDeniedError)
    assert names(peer) == set()


async def test_what_an_origin_does_not_give_is_an_error(world: World) -> None:
    """Credentials, nothing there, broken, and what nobody would find again."""
    peer = await world.peer()
    url = world.origin.put("/a.bin", b"a")
    assert isinstance(await world.refusal(peer, f"{world.origin.url}/none"), FileNotFoundInDirectoryError)
    world.origin.faults.admits = ("Basic x",)
    assert "the origin refuses" in str(await world.refusal(peer, url))
    world.origin.faults.admits = ()
    world.origin.faults.status = 500
    assert isinstance(await world.refusal(peer, url), UnavailableError)
    world.origin.faults.status = 200
    world.origin.faults.no_validator = True
    assert "nothing that identifies" in str(await world.refusal(peer, url))
    assert (await world.fetch(peer, f"{url}#sha256={sha256(b'a').removeprefix('sha256:')}")).held_bytes == 1
    wrong = await world.refusal(peer, f"{url}#sha256={64 * '0'}")
    assert "in place of" in str(wrong)
    assert names(peer) == {f"origins/{sha256(b'a').replace(':', '/')}"}


async def test_more_than_is_kept_is_refused_before_it_comes(world: World) -> None:
    """Its files would evict each other, or itself; pinned it may be more than the limit, and what is pinned is not
    there for others."""
    world.network.cache_limit = Limit(3 * MIB)
    peer = await world.peer()
    large, small = world.origin.put("/large", noise(4 * MIB)), world.origin.put("/small", noise(2 * MIB, seed=2))
    refused = await world.refusal(peer, large)
    assert isinstance(refused, NoSpaceError)
    assert "it has 4 MiB, and this peer keeps 3 MiB" in str(refused)
    assert world.origin.count("GET") == 0
    layers = [noise(MIB, seed=seed) for seed in range(4)]
    world.registry.add_image("1", *layers)
    assert isinstance(await world.refusal(peer, f"{world.image}:1"), NoSpaceError)
    assert world.registry.count("GET", "blobs") == 0
    assert (await world.fetch(peer, large, pin=True)).held_bytes == 4 * MIB
    assert [file.pinned for file in peer.origins.cache.files() if "large" in file.name] == [True]
    assert isinstance(await world.refusal(peer, small), NoSpaceError)
    assert (await world.fetch(peer, small, pin=True)).held_bytes == 2 * MIB


async def test_a_preheat_evicts_what_was_used_before_and_nothing_of_its_own(world: World) -> None:
    world.network.cache_limit = Limit(3 * MIB)
    peer = await world.peer()
    before = [world.origin.put(f"/{number}", noise(MIB, seed=number)) for number in range(3)]
    for url in before:
        await world.fetch(peer, url)
    world.registry.add_image("1", noise(MIB, seed=8), noise(MIB, seed=9))
    step = await world.fetch(peer, f"{world.image}:1")
    digests = [*world.registry.blobs, step.resolved]
    assert {f"origins/{digest.replace(':', '/')}" for digest in digests} <= names(peer)


async def test_an_image_comes_with_manifests_configuration_and_layers(world: World) -> None:
    """Of the platform that is wanted, and of no other. By tag and by digest; with a token that anybody gets; from other
    peers."""
    world.registry.demand = "bearer"
    layers = [noise(2 * MIB), b"", b"1"]
    amd, arm = world.registry.add_image("amd", *layers), world.registry.add_image("arm", noise(MIB, seed=3))
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            {"digest": amd, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": arm, "size": 1, "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {"digest": sha256(b"x"), "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}},
        ],
    }
    data = json.dumps(index).encode()
    world.registry.manifests[sha256(data)] = world.registry.manifests["1"] = data
    first, second = await world.peer("p0"), await world.peer("p1")
    step = await world.fetch(first, f"{world.image}:1", "linux/amd64")
    assert (step.resolved, step.file_count) == (sha256(data), 6)
    wanted = {sha256(data), amd, *(sha256(layer) for layer in layers)}
    assert {f"origins/{digest.replace(':', '/')}" for digest in wanted} < names(first)
    assert step.held_bytes == step.size_bytes == step.upstream_bytes + step.local_bytes
    asked = world.registry.count("GET", "blobs")
    other = await world.fetch(second, f"{world.image}@{sha256(data)}", "linux/amd64")
    assert (other.upstream_bytes, other.held_bytes) == (0, step.held_bytes)
    assert world.registry.count("GET", "blobs") == asked
    for platform in ("linux/arm64", "linux/arm64/v8"):
        assert (await world.fetch(first, f"{world.image}:1", platform)).file_count == 4
    missing = await world.refusal(first, f"{world.image}:1", "linux/s390x")
    assert "is not there for linux/s390x: for linux/amd64, linux/arm64" in str(missing)
    assert isinstance(await world.refusal(first, f"{world.image}:1", "../x"), InvalidArgumentError)
    # One that is for one platform alone is what it is.
    assert (await world.fetch(first, f"{world.image}:arm", "linux/amd64")).resolved == arm


async def test_a_layer_outlives_the_token_that_it_began_with(world: World) -> None:
    """Tokens are good for minutes, also on registries that redirect: for the rest of a layer that broke off, and for
    each of its parts, another one is got."""
    layer = noise(5 * MIB)
    world.registry.demand, world.registry.admits_once = "bearer", True
    world.registry.add_image("1", layer)
    world.registry.blobs_at = world.origin.url
    for digest, blob in world.registry.blobs.items():
        world.origin.put(f"/{digest}", blob)
    world.origin.faults.ends_after = 2 * MIB
    step = await world.fetch(await world.peer(), f"{world.image}:1")
    assert (step.upstream_bytes >= len(layer), step.held_bytes) == (True, step.size_bytes)
    assert world.origin.sent_bytes <= 1.2 * step.size_bytes


@pytest.mark.parametrize(
    "manifest",
    [
        {"config": {"digest": "sha256:1", "size": 1}, "layers": []},
        {"config": {"digest": "sha256:" + 64 * "0", "size": -1}, "layers": []},
        {"config": {"digest": "sha256:" + 64 * "0", "size": "9"}, "layers": []},
        {"config": None, "layers": [None]},
        {"config": [], "layers": {}},
        {"manifests": {"a": 1}},
        {"manifests": [None, {"platform": "x"}, {"platform": {}}]},
        {"manifests": [{"platform": {"os": "linux", "architecture": "amd64"}, "digest": "../../x"}]},
        {"layers": [], "manifests": []},
        {},
        [],
    ],
)
async def test_a_manifest_that_is_none_is_an_error(world: World, manifest: object) -> None:
    """Of a registry that answers anything."""
    data = json.dumps(manifest).encode()
    world.registry.manifests[sha256(data)] = world.registry.manifests["1"] = data
    peer = await world.peer()
    refused = await world.refusal(peer, f"{world.image}@{sha256(data)}", "linux/amd64")
    assert isinstance(refused, FileNotFoundInDirectoryError | InvalidArgumentError | UnavailableError)


async def test_a_private_image_is_refused(world: World) -> None:
    world.registry.demand = "basic"
    world.registry.add_image("1", b"layer")
    assert "wants credentials" in str(await world.refusal(await world.peer(), f"{world.image}:1"))


async def test_a_repository_comes_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All pages of its list; at a branch and at a commit; private ones are refused. Where there are too many small
    files, they are left to the hub."""
    weights = {f"w-{number}.bin": noise(LARGE + number, seed=number) for number in range(5)}
    small = {"config.json": b"{}", "a b.txt": b"", "again.json": b"{}"}
    repository = world.hub.repositories["org/model"] = Repository(small | weights)
    world.hub.repositories["org/private"] = Repository(weights, token="secret")
    world.hub.page = 2
    peer = await world.peer()
    step = await world.fetch(peer, "hf://org/model")
    assert (step.resolved, step.file_count) == (repository.commit, 8)
    assert step.upstream_bytes == step.size_bytes == sum(map(len, repository.files.values()))
    large = {f"origins/{sha256(data).replace(':', '/')}" for data in weights.values()}
    assert {name.rpartition("/")[2] for name in names(peer) - large} == {"config.json", "a_20b.txt", "again.json"}
    assert names(peer) >= large
    again = await world.fetch(peer, f"hf://org/model@{repository.commit}")
    assert again.local_bytes == step.size_bytes
    # A file of it, by its name in the store.
    one = await world.fetch(peer, "hf://org/model/w-1.bin")
    assert (one.file_count, one.local_bytes) == (1, LARGE + 1)
    assert isinstance(await world.refusal(peer, "hf://org/private/w-1.bin"), FileNotFoundInDirectoryError)
    for item in ("hf://org/private", "hf://org/none"):
        assert isinstance(await world.refusal(peer, item), PermissionDeniedError)
    assert isinstance(await world.refusal(peer, "hf://org/model@none"), FileNotFoundInDirectoryError)
    monkeypatch.setattr("minga_peer.models.walking.MAX_SMALL", 2)
    assert (await world.fetch(peer, "hf://org/model")).file_count == 5
    world.hub.status = 500
    assert isinstance(await world.refusal(peer, "hf://org/model"), UnavailableError)


async def test_one_that_leaves_ends_the_fetching(world: World) -> None:
    """What is whole stays; no slot stays taken."""
    peer = await world.peer()
    url = world.origin.put("/slow", noise(2 * MIB))
    world.origin.faults.stalls_after = MIB
    async with aclosing(world.steps(peer, url)) as steps:
        async for step in steps:
            if step.held_bytes:
                break
    await eventually(lambda: peer.service.quotas.preheats.held_count == 0, "its slot is free")
    assert names(peer) == set()


async def test_preheats_are_bounded_for_each_caller(world: World) -> None:
    """At once, and by what they bring in a day: what is here does not count."""
    peer = await world.peer()
    data = noise(2 * MIB)
    url, other = world.origin.put("/a", data), world.origin.put("/b", noise(2 * MIB, seed=2))
    peer.service.quotas.preheats.each, world.origin.faults.stalls_after = 1, 100
    async with aclosing(world.steps(peer, world.origin.put("/slow", data))) as steps:
        await anext(steps)
        assert isinstance(await world.refusal(peer, other), BusyError)
    world.origin.faults.stalls_after = None
    await eventually(lambda: peer.service.quotas.preheats.held_count == 0, "its slot is free")
    peer.service.quotas.uploaded = DailyQuota("uploads", 3 * MIB, "MINGA_UPLOAD_QUOTA")
    for _ in range(3):
        await world.fetch(peer, url)
    assert "MINGA_UPLOAD_QUOTA" in (await world.refusal(peer, other)).hint


async def test_the_audit_log_says_what_was_fetched_for_whom(world: World, tmp_path: Path) -> None:
    """Without the query of a URL; and how much had to come."""
    peer = await world.peer()
    peer.service.audit = audit = Audit(tmp_path / "audit.jsonl", "peer", CollectorRegistry())
    url = world.origin.put("/a.bin", b"abc")
    for _ in range(2):
        await world.fetch(peer, f"{url}?token=secret")
    await audit.aclose()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [(line["event"], line["item"], line["size_bytes"], line["sent_bytes"]) for line in lines] == [
        ("preheated", url, 3, 3),
        ("preheated", url, 3, 0),
    ]
