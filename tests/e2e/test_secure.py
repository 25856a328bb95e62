"""Secure networks of whole processes: members work as in an open one, everybody else is refused everywhere."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from minga import AsyncClient
from minga_cli.localnet import LocalPeer
from minga_core.errors import LocatorUnavailableError, PeerUnavailableError, PermissionDeniedError, UnauthenticatedError
from minga_core.ids import ContentId, parse_address, parse_peer_id
from minga_core.names import parse_name
from minga_engine.wire.connections import PeerConnections
from minga_engine.wire.http_format import ChunkRequest
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.transport import PeerTransport
from minga_protos.peer.v1 import peer_pb2
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceStub
from minga_protos.registry.v1 import registry_pb2
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_runtime.trust.credentials import LOOK_SECONDS, Credentials, TlsFiles
from minga_runtime.trust.members import SERVERS, USERS
from tests.support.authority import DAY, Authority

from .conftest import Story, eventually, noise, running

KIB = 1024
SECRET = noise(600 * KIB)


@dataclass
class Secure:
    """A secure network of two peers, the first of which shares `secret.bin`."""

    story: Story
    authority: Authority
    folder: Path
    content_id: ContentId
    http_port: int
    """Of the first peer."""

    @property
    def peer(self) -> LocalPeer:
        return self.story.peers[0]


def files(folder: Path) -> TlsFiles:
    return TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


@asynccontextmanager
async def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Secure]:
    """The environment has the credentials of a command."""
    authority, folder = Authority(), tmp_path / "credentials"
    authority.issue_all(folder, 2)
    for name, file in (("CERT", "tls.crt"), ("KEY", "tls.key"), ("CA", "ca.crt")):
        monkeypatch.setenv(f"MINGA_TLS_{name}", str(folder / "command" / file))
    async with running(tmp_path, 2, credentials=folder) as story:
        async with AsyncClient(locator=story.net.locator_url) as client:
            (story.peers[0].share_dir / "secret.bin").write_bytes(SECRET)

            async def found() -> bool:
                return [file.name async for file in client.ls()] == ["secret.bin"]

            await eventually(found, "the file can be found")
            content_id = (await client.info("secret.bin")).versions[0].content_id
        net = Secure(story, authority, folder, content_id, http_port=0)
        answer: Any = await reads_a_manifest(net, Stranger(authority.pem, folder / "command"))
        net.http_port = answer.http_port
        yield net


async def test_members_share_find_fetch_and_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a daemon and without one, large files and small ones, one hop and between peers."""
    async with secure(tmp_path, monkeypatch) as net:
        async with AsyncClient(locator=net.story.net.locator_url, standalone=True) as client:
            await client.get("secret.bin", tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == SECRET
            (tmp_path / "small").write_bytes(b"small")
            assert (await client.put(tmp_path / "small", "small.txt", replicas=2)).missing_replicas == 0
        await net.story.download(net.story.peers[1], "secret.bin")
        assert (net.story.peers[1].share_dir / "secret.bin").read_bytes() == SECRET
        assert (net.story.peers[1].share_dir / "small.txt").read_bytes() == b"small"


# Every one of these attacks returns what it got, and raises or returns None when it was refused.
Attack = Callable[[Secure, "Stranger"], Awaitable[object]]


@dataclass
class Stranger:
    """Somebody with some certificate, or none, who trusts the network's CA."""

    ca: bytes
    folder: Path | None = None
    plain: bool = False

    def channel(self, target: str, server_name: str) -> grpc.aio.Channel:
        if self.plain:
            return grpc.aio.insecure_channel(target)
        own = [(self.folder / file).read_bytes() for file in ("tls.key", "tls.crt")] if self.folder else [None, None]
        tls = grpc.ssl_channel_credentials(self.ca, *own)
        return grpc.aio.secure_channel(target, tls, [("grpc.ssl_target_name_override", server_name)])

    def context(self) -> ssl.SSLContext | None:
        if self.plain:
            return None
        context = ssl.create_default_context(cadata=self.ca.decode())
        context.check_hostname = False
        if self.folder:
            context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")
        return context


async def registers(net: Secure, who: Stranger) -> object:
    async with who.channel(net.story.net.registry_address, "localhost") as channel:
        stub: Any = RegistryServiceStub(channel)
        request = registry_pb2.RegisterRequest(peer_id="peer-1", generation=2**62, address="10.9.9.9:1")
        return await stub.Register(request, timeout=5)


async def sends_heartbeats(net: Secure, who: Stranger) -> object:
    async with who.channel(net.story.net.registry_address, "localhost") as channel:
        call = RegistryServiceStub(channel).KeepLease(  # type: ignore[call-overload]
            iter([registry_pb2.HeartbeatRequest(peer_id="peer-1", generation=1)]), timeout=5
        )
        return await call.read()


async def pushes_a_table(net: Secure, who: Stranger) -> object:
    async with who.channel(net.story.net.registry_address, "localhost") as channel:
        begin = registry_pb2.TableBegin(peer_id="peer-1", generation=1, whole=True, revision=2)
        stub: Any = RegistryServiceStub(channel)
        return await stub.PushTable(iter([registry_pb2.PushTableRequest(begin=begin)]), timeout=5)


async def publishes(net: Secure, who: Stranger) -> object:
    async with who.channel(net.story.net.registry_address, "localhost") as channel:
        stub: Any = RegistryServiceStub(channel)
        return await stub.Publish(registry_pb2.PublishRequest(peer_id="peer-1", generation=1), timeout=5)


async def leaves(net: Secure, who: Stranger) -> object:
    async with who.channel(net.story.net.registry_address, "localhost") as channel:
        stub: Any = RegistryServiceStub(channel)
        return await stub.Leave(registry_pb2.LeaveRequest(peer_id="peer-1", generation=1), timeout=5)


async def reads_a_manifest(net: Secure, who: Stranger) -> object:
    async with who.channel(net.peer.address, "peer-1.peer.minga") as channel:
        call: Any = PeerServiceStub(channel).GetManifest(
            peer_pb2.GetManifestRequest(content_id=net.content_id.raw), timeout=5
        )
        return await call.read()


async def writes_a_file(net: Secure, who: Stranger) -> object:
    async with who.channel(net.peer.address, "peer-1.peer.minga") as channel:
        begin = peer_pb2.StoreBegin(name="evil", content_id=net.content_id.raw)
        call: Any = PeerServiceStub(channel).StoreFile(iter([peer_pb2.StoreFileRequest(begin=begin)]), timeout=5)
        return await call.read()


async def fetches_a_chunk(net: Secure, who: Stranger) -> object:
    return await chunk(net, who, requester=None)


async def chunk(net: Secure, who: Stranger, requester: SourceAddress | None) -> bytes | None:
    """The answer's beginning when it is a good one."""
    host = net.peer.address.rpartition(":")[0]
    name = None if who.plain else host
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, net.http_port, ssl=who.context(), server_hostname=name)
        try:
            request = ChunkRequest(net.content_id, ((0, 1),), requester)
            writer.write(request.encode(parse_address(net.peer.address)))
            answer = await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.transport.abort()
    return answer if answer.startswith(b"HTTP/1.1 200") else None


async def lists_files(net: Secure, who: Stranger) -> object:
    context = who.context()
    scheme = "http" if context is None else "https"
    url = f"{scheme}://{net.story.net.locator.address}"
    async with httpx.AsyncClient(verify=context or False, trust_env=False, timeout=5) as client:
        for path in ("/v1/peers", "/metrics", "/v1/contents/" + str(net.content_id), "/v1/files"):
            answer = await client.get(url + path)
            assert "secret" not in answer.text
            if answer.is_success:
                return answer
            assert answer.status_code in (401, 403)
            assert answer.json()["code"] in ("unauthenticated", "permission_denied")
    return None


AT_REGISTRY: tuple[Attack, ...] = (registers, sends_heartbeats, pushes_a_table, publishes, leaves)
AT_OTHERS: tuple[Attack, ...] = (reads_a_manifest, writes_a_file, fetches_a_chunk, lists_files)


async def cut_off_handshakes(net: Secure) -> None:
    """The first record of a TLS client at every port, cut anywhere, and what is no TLS."""
    hello = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="x").do_handshake()
    record = hello.read()
    host, _, port = net.peer.address.rpartition(":")
    others = (part.address.rpartition(":")[2] for part in (net.story.net.registry, net.story.net.locator))
    for number in (port, net.http_port, *others):
        for data in (record[:1], record[:5], record[: len(record) // 2], record + record, record + bytes(2000)):
            _, writer = await asyncio.open_connection(host, int(number))
            writer.write(data)
            await writer.drain()
            writer.close()


REFUSALS = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


async def refused(attack: Attack, net: Secure, who: Stranger) -> bool:
    try:
        return await attack(net, who) in (None, grpc.aio.EOF)
    except grpc.aio.AioRpcError as error:
        # grpc.aio loses the status of a stream that the server ends while it is written to.
        lost = error.code() is grpc.StatusCode.INTERNAL and error.details() == "Internal error from Core"
        return lost or error.code() in REFUSALS
    except (OSError, httpx.TransportError, asyncio.IncompleteReadError):
        return True


async def test_strangers_are_refused_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is listed, read or written, and no lease ends. As a check on the attacks, members succeed with them."""
    async with secure(tmp_path, monkeypatch) as net:
        authority, ca = net.authority, net.authority.pem
        everywhere = {
            "plain": Stranger(ca, plain=True),
            "no certificate": Stranger(ca),
            "another CA": Stranger(ca, Authority().issue(tmp_path / "1", "peer", "peer-1")),
            "another network": Stranger(ca, authority.issue(tmp_path / "2", "peer", "peer-1", network="other")),
            "ended": Stranger(ca, authority.issue(tmp_path / "3", "peer", "peer-1", life=-DAY)),
            "a locator": Stranger(ca, authority.issue(tmp_path / "4", "locator", "locator")),
            "no role": Stranger(ca, authority.issue(tmp_path / "5", "boss", "peer-1")),
        }
        for name, who in everywhere.items():
            for attack in (*AT_REGISTRY, *AT_OTHERS):
                assert await refused(attack, net, who), f"{name} {attack.__name__}"
        await cut_off_handshakes(net)
        at_registry = (net.folder / "command", authority.issue(tmp_path / "6", "peer", "peer-9"))
        for folder in at_registry:
            for attack in AT_REGISTRY:
                assert await refused(attack, net, Stranger(ca, folder)), f"{folder.name} {attack.__name__}"

        for attack in (reads_a_manifest, fetches_a_chunk, lists_files):
            assert not await refused(attack, net, Stranger(ca, net.folder / "command")), attack.__name__
        assert not await refused(publishes, net, Stranger(ca, net.folder / "peer-1"))
        another = SourceAddress(parse_peer_id("peer-2"), parse_address("10.9.9.9:1"))
        assert await chunk(net, Stranger(ca, net.folder / "peer-1"), another) is None

        async with AsyncClient(locator=net.story.net.locator_url) as client:
            assert [file.name async for file in client.ls()] == ["secret.bin"]
            assert {str(peer.address) async for peer in client.peers()} == {peer.address for peer in net.story.peers}
        assert sorted(path.name for path in net.peer.share_dir.iterdir() if path.is_file()) == ["secret.bin"]


async def test_probes_need_no_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes asks the locator for its health without one, and verifies nothing."""
    async with secure(tmp_path, monkeypatch) as net, httpx.AsyncClient(verify=False, trust_env=False) as client:
        url = f"https://{net.story.net.locator.address}"
        answers = {path: (await client.get(url + path)).status_code for path in ("/livez", "/readyz", "/docs")}
        assert answers == {"/livez": 200, "/readyz": 200, "/docs": 401}


async def test_a_stranger_learns_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that names the cause: at the locator, and at a peer that is not the one that was named."""
    async with secure(tmp_path, monkeypatch) as net:
        foreign = Authority().issue(tmp_path / "foreign", "client", "someone", trusted=net.authority.pem)
        credentials = Credentials(files(foreign), USERS)
        async with LocatorClient(net.story.net.locator_url, credentials=credentials) as locator:
            with pytest.raises(LocatorUnavailableError) as caught:
                await locator.find_file(parse_name("secret.bin"))
            assert caught.value.hint == "does it run, and trust the CA of MINGA_TLS_CERT?"
        credentials = Credentials(files(net.authority.issue(tmp_path / "registry", "registry", "r")), SERVERS)
        async with LocatorClient(net.story.net.locator_url, credentials=credentials) as locator:
            with pytest.raises(PermissionDeniedError, match="registry r may not use the locator"):
                await locator.find_file(parse_name("secret.bin"))
        foreign = Authority().issue(tmp_path / "deceived", "client", "someone")
        async with LocatorClient(net.story.net.locator_url, credentials=Credentials(files(foreign), USERS)) as locator:
            with pytest.raises(UnauthenticatedError, match=r"no TLS with the locator .*in certificate chain"):
                await locator.find_file(parse_name("secret.bin"))

        own = Credentials(files(net.folder / "command"), USERS)
        swapped = SourceAddress(net.story.peers[1].peer_id, parse_address(net.peer.address))
        async with PeerConnections(credentials=own) as connections:
            with pytest.raises(PeerUnavailableError, match="certificate is not of who was named"):
                await PeerTransport(connections).manifest(swapped, net.content_id)
            async with connections.to(swapped) as connection:
                with pytest.raises(PeerUnavailableError, match="what answers is peer peer-1, not peer peer-2"):
                    await connection.http_on(net.http_port).fetch(ChunkRequest(net.content_id, ((0, 1),), None), None)  # type: ignore[arg-type]


async def test_everything_is_exchanged_under_load_and_nothing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second CA is trusted, all certificates are of it, the first one is trusted no more.

    It takes seconds, since files are looked at once a second, and leases end after three.
    """
    async with secure(tmp_path, monkeypatch) as net:
        stop, done = asyncio.Event(), {"look-ups": 0, "downloads": 0, "uploads": 0}

        async def look_up(client: AsyncClient) -> None:
            await client.info("secret.bin")
            done["look-ups"] += 1

        async def download(client: AsyncClient) -> None:
            target = tmp_path / f"copy-{done['downloads']}"
            await client.get("secret.bin", target)
            assert target.read_bytes() == SECRET
            done["downloads"] += 1

        async def upload(client: AsyncClient) -> None:
            source = tmp_path / "source"
            source.write_bytes(noise(100))
            await client.put(source, f"up-{done['uploads']}", replicas=2)
            done["uploads"] += 1

        async def repeat(work: Callable[[AsyncClient], Awaitable[None]]) -> None:
            async with AsyncClient(locator=net.story.net.locator_url, standalone=True) as client:
                while not stop.is_set():
                    await work(client)
                    await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            for work in (look_up, download, upload):
                group.create_task(repeat(work))
            old, new = net.authority, Authority()
            for authority, trusted in ((old, new.pem), (new, old.pem), (new, b"")):
                authority.issue_all(net.folder, 2, trusted=trusted)
                before = dict(done)
                await asyncio.sleep(2 * LOOK_SECONDS)
                await eventually(lambda before=before: some_of_each(before, done), "the work goes on")  # type: ignore[misc]
            stop.set()
        former = Stranger(new.pem, old.issue(tmp_path / "former", "client", "someone"))
        for attack in AT_OTHERS:
            assert await refused(attack, net, former), attack.__name__
        for process in (net.story.net.registry, net.story.net.locator, net.peer):
            assert "credentials_renewed" in process.process.log_path.read_text()
        await asyncio.sleep(timedelta(seconds=3).total_seconds())
        async with AsyncClient(locator=net.story.net.locator_url) as client:
            assert len([peer async for peer in client.peers()]) == 2


async def some_of_each(before: dict[str, int], now: dict[str, int]) -> bool:
    return all(now[kind] > before[kind] for kind in now)
