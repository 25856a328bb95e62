"""Secure networks with grants, of whole processes: who may read and publish what, and grants that are no good."""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest

from minga import AsyncClient
from minga.control import ControlClient
from minga.settings import ClientSettings
from minga_cli.localnet import LocalPeer
from minga_core.errors import (
    FileNotFoundInDirectoryError,
    InvalidNameError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from minga_core.ids import digest
from minga_protos.peer.v1 import peer_pb2
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceStub
from minga_protos.registry.v1 import registry_pb2
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_runtime.trust.watched_file import LOOK_SECONDS
from tests.attack.attacker import Attacker
from tests.support.authority import Authority
from tests.support.grants import Issuer, write_keys

from .conftest import Story, eventually, noise, running

DAY = 86_400
PARTS = ("registry", "locator", "peer-1", "peer-2")
SECRET = noise(300 * 1024)


@dataclass
class Granted:
    """A network of two peers: the first may publish everything, the second `data-b` alone."""

    story: Story
    folder: Path
    """Credentials of each part, by its name, and of clients."""
    authority: Authority = field(default_factory=Authority)
    issuer: Issuer = field(default_factory=Issuer)

    def give(self, member: str, issuer: Issuer | None = None, **rights: Any) -> str:
        """Write the grant of a member, given as `role/name`, into its folder."""
        token = (issuer or self.issuer).grant(f"spiffe://test/{member}", **rights)
        path = self.folder / member.rpartition("/")[2] / "grant.jwt"
        path.with_suffix(".new").write_text(token)
        path.with_suffix(".new").replace(path)
        return token

    def client(self, name: str, **rights: Any) -> AsyncClient:
        """A client that may do so much."""
        own = self.authority.issue(self.folder / name, "client", name)
        self.give(f"client/{name}", **rights)
        settings = ClientSettings(
            locator=self.story.net.locator_url,
            tls_cert=own / "tls.crt",
            tls_key=own / "tls.key",
            tls_ca=own / "ca.crt",
            grant=own / "grant.jwt",
        )
        return AsyncClient(settings, standalone=True)

    def write_keys(self, *issuers: Issuer) -> None:
        for part in PARTS:
            write_keys(self.folder / part / "grant-keys.json", *issuers)

    def give_peers(self, issuer: Issuer | None = None) -> None:
        self.give("peer/peer-1", issuer, read=("*",), publish=("*",))
        self.give("peer/peer-2", issuer, read=("*",), publish=("data-b",))

    @asynccontextmanager
    async def web(self, token: str) -> AsyncIterator[httpx.AsyncClient]:
        """As curl is, without a certificate."""
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        async with httpx.AsyncClient(
            base_url=self.story.net.locator_url,
            verify=context,
            trust_env=False,
            headers={"Authorization": f"Bearer {token}"} if token else {},
        ) as client:
            yield client


@asynccontextmanager
async def granted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Granted]:
    """`data-a/x` and `data-b/x` are shared by the first peer."""
    made = Granted(None, tmp_path / "credentials")  # type: ignore[arg-type]
    made.authority.issue_all(made.folder, 2)
    made.write_keys(made.issuer)
    made.give_peers()
    for part in ("registry", "locator"):
        (made.folder / part / "publication.key").write_text("5a" * 32)
    for name, file in (("CERT", "tls.crt"), ("KEY", "tls.key"), ("CA", "ca.crt")):
        monkeypatch.setenv(f"MINGA_TLS_{name}", str(made.folder / "command" / file))
    async with running(tmp_path, 2, credentials=made.folder) as made.story:
        async with made.client("reader", read=("*",)) as client:
            for folder in ("data-a", "data-b"):
                await drop(made.story.peers[0], f"{folder}/x", SECRET)
            await found(client, "data-a/x", "data-b/x")
        yield made


async def drop(peer: LocalPeer, name: str, data: bytes) -> None:
    (peer.share_dir / name).parent.mkdir(exist_ok=True)
    (peer.share_dir / name).write_bytes(data)


async def found(client: AsyncClient, *names: str) -> None:
    async def all_are() -> bool:
        return set(names) <= {file.name async for file in client.ls()}

    await eventually(all_are, f"{names} can be found")


async def test_teams_publish_and_read_what_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of team b reads and uploads below `data-b` alone, by whatever way; a peer of team b cannot make its file
    the version that others get of a name of team a."""
    async with granted(tmp_path, monkeypatch) as net:
        async with net.client("b", read=("data-b",), publish=("data-b",)) as client:
            assert [file.name async for file in client.ls()] == ["data-b/x"]
            assert [file.name async for file in client.find("x")] == ["data-b/x"]
            await client.get("data-b/x", tmp_path / "copy")
            assert (tmp_path / "copy").read_bytes() == SECRET
            (tmp_path / "new").write_bytes(b"new")
            assert (await client.put(tmp_path / "new", "data-b/new", replicas=2)).missing_replicas == 0
            assert [file.name async for file in client.ls()] == ["data-b/new", "data-b/x"]
            for name in ("data-a/x", "data-a/none", "data-b-secret/x", "data-", "data-B/x"):
                with pytest.raises(PermissionDeniedError):
                    await client.info(name)
                with pytest.raises(PermissionDeniedError):
                    await client.get(name, tmp_path / "never")
                with pytest.raises(PermissionDeniedError):
                    await client.put(tmp_path / "new", name)
            for name in ("data-b/../data-a/x", "/data-b/x"):
                with pytest.raises(InvalidNameError):
                    await client.info(name)
            with pytest.raises(FileNotFoundInDirectoryError):
                await client.info("data-b/none")

        async with net.client("a", read=("data-a",), publish=("data-a",)) as client:
            # The second peer has no right of its own to this name: what it was sent has a ticket.
            assert (await client.put(tmp_path / "new", "data-a/new", replicas=2)).missing_replicas == 0
            assert (await client.info("data-a/new")).versions[0].complete_count == 2
        async with net.client("all", read=("*",)) as client:
            content_id = (await client.info("data-a/x")).versions[0].content_id
            await drop(net.story.peers[1], "data-a/x", b"evil")
            await drop(net.story.peers[1], "data-b/y", b"good")
            await found(client, "data-b/y")
            with pytest.raises(PermissionDeniedError, match="may not publish 'x'"):
                await client.put(tmp_path / "new", "x")
        async with ControlClient(net.story.peers[1].control) as control:

            async def is_refused() -> bool:
                texts = [text for each in (await control.status()).conditions for text in each.examples]
                return any("no right to publish 'data-a/x'" in text for text in texts)

            await eventually(is_refused, "the peer's status says that its file is not published")
        async with net.client("later", read=("*",)) as client:
            assert [version.content_id for version in (await client.info("data-a/x")).versions] == [content_id]


def flipped(token: str) -> str:
    """The token with one bit of its claims changed."""
    head, claims, signature = token.split(".")
    data = bytearray(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    at = data.index(b"data-b")
    data[at + 5] ^= 3  # data-a
    return f"{head}.{base64.urlsafe_b64encode(data).rstrip(b'=').decode()}.{signature}"


def unsigned(token: str) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"none","kid":"1"}').rstrip(b"=").decode()
    return f"{head}.{token.split('.')[1]}."


async def test_grants_that_are_no_good_count_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused with its reason, over a member's certificate and without one, at locator, registry and peer."""
    async with granted(tmp_path, monkeypatch) as net:
        now, rights = int(time.time()), {"read": ("*",), "publish": ("*",)}
        sign = net.issuer.grant
        own = "spiffe://test/peer/peer-1"
        bad = {
            unsigned(sign(own, **rights)): "is not one of",
            flipped(sign(own, read=("data-b",))): "signature does not match",
            Issuer().grant(own, **rights): "signature does not match",
            sign(own, **rights, exp=now - DAY): "expired at",
            sign(own, **rights, nbf=now + 2 * DAY - 60): "a clock is off by 1 day, 23:",
            sign(own, **rights, aud="other"): "for the network 'other'",
            Issuer("other").grant(own, **rights): "issued by 'minga:other'",
            "a.b.c": "is not a JWT",
        }
        for token, reason in bad.items():
            for attack in (looks_up, publishes, uploads, replicates):
                assert reason in await refusal(attack(net, token, "peer-1")), attack.__name__
        for skewed in (sign("bot", read=("*",), exp=now - 270), sign("bot", read=("*",), iat=now + 270, nbf=now + 270)):
            async with net.web(skewed) as web:
                assert (await web.get("/v1/files/data-a/x")).status_code == 200


async def test_a_stolen_grant_is_worth_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that is sent an upload sees the client's grant, which counts over that client's certificate alone; what
    anybody may show counts at the locator alone."""
    async with granted(tmp_path, monkeypatch) as net:
        net.authority.issue(net.folder / "thief", "peer", "thief")
        stolen = net.give("client/command", read=("*",), publish=("*",))
        for attack in (looks_up, publishes, uploads, replicates):
            assert "counts over its own certificate alone" in await refusal(attack(net, stolen, "thief"))
        async with net.web(stolen) as web:
            assert (await web.get("/v1/files/data-a/x")).status_code == 401
        bearer = net.issuer.grant("bot", read=("data-a",), publish=("*",))
        for attack in (publishes, uploads, replicates):
            assert "the grant of 'bot' is not of peer thief" in await refusal(attack(net, bearer, "thief"))
        async with net.web(bearer) as web:
            assert (await web.get("/v1/files/data-a/x")).status_code == 200
            assert (await web.get("/v1/files/data-b/x")).status_code == 403
            assert [file["name"] for file in (await web.get("/v1/files")).json()["files"]] == ["data-a/x"]
        for headers in ({}, {"Authorization": "Basic Ym90OmJvdA=="}):
            async with net.web("") as web:
                refused = await web.get("/v1/files/data-a/x", headers=headers)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        own = net.give("peer/thief", publish=("data-b",))
        assert (
            await refusal(uploads(net, own, "thief")) == "may not publish 'data-a/x': the right to publish is of data-b"
        )
        for attack in (uploads, replicates):
            assert "may not publish" in await refusal(attack(net, "", "thief"))


async def refusal(attack: Awaitable[Any]) -> str:
    """Why an attack was refused."""
    try:
        answer = await attack
    except grpc.aio.AioRpcError as error:
        refused = error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
        return (error.details() or "") if refused else f"not refused: {error}"
    assert isinstance(answer, httpx.Response), answer
    assert answer.status_code in (401, 403), answer.text
    return str(answer.json()["detail"])


def metadata(token: str) -> Any:
    return (("authorization", f"Bearer {token}"),) if token else ()


async def looks_up(net: Granted, token: str, member: str) -> httpx.Response:
    """With a certificate and without one."""
    who = Attacker(net.authority.pem, net.folder / member)
    async with httpx.AsyncClient(base_url=net.story.net.locator_url, verify=who.context(), trust_env=False) as client:  # type: ignore[arg-type]
        answer = await client.get("/v1/files/data-a/x", headers={"Authorization": f"Bearer {token}"})
    async with net.web(token) as web:
        refused = await web.get("/v1/files")
        assert refused.status_code == 401, refused.text
    return answer


async def publishes(net: Granted, token: str, member: str) -> object:
    who = Attacker(net.authority.pem, net.folder / member)
    async with who.channel(net.story.net.registry_address, "localhost") as channel:
        stub: Any = RegistryServiceStub(channel)
        publication = registry_pb2.Publication(name="data-a/x", content_id=digest(b""))
        request = registry_pb2.PublishRequest(peer_id=member, generation=1, publications=[publication])
        return await stub.Publish(request, timeout=5, metadata=metadata(token))


async def uploads(net: Granted, token: str, member: str) -> object:
    who = Attacker(net.authority.pem, net.folder / member)
    async with who.channel(net.story.peers[0].address, "peer-1.peer.minga") as channel:
        begin = peer_pb2.StoreBegin(name="data-a/x", content_id=digest(b""), manifest_size_bytes=100, overwrite=True)
        steps = [peer_pb2.StoreFileRequest(begin=begin), peer_pb2.StoreFileRequest(manifest_part=bytes(100))]
        call: Any = PeerServiceStub(channel).StoreFile(iter(steps), timeout=5, metadata=metadata(token))
        return await call.read()


async def replicates(net: Granted, token: str, member: str) -> object:
    who = Attacker(net.authority.pem, net.folder / member)
    async with who.channel(net.story.peers[0].address, "peer-1.peer.minga") as channel:
        source = peer_pb2.Source(peer_id="peer-2", address="10.9.9.9:1")
        request = peer_pb2.ReplicateFileRequest(name="data-a/x", content_id=digest(b""), sources=[source])
        call: Any = PeerServiceStub(channel).ReplicateFile(request, timeout=5, metadata=metadata(token))
        return await call.read()


async def test_keys_are_exchanged_under_load_and_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second key is trusted, all grants are of it, the first one is trusted no more.

    It takes seconds, since files are looked at once a second.
    """
    async with granted(tmp_path, monkeypatch) as net:
        stop, done = asyncio.Event(), {"look-ups": 0, "uploads": 0}

        async def look_up(client: AsyncClient) -> None:
            await client.info("data-b/x")
            done["look-ups"] += 1

        async def upload(client: AsyncClient) -> None:
            (tmp_path / "source").write_bytes(noise(100))
            await client.put(tmp_path / "source", f"data-b/{done['uploads']}", replicas=2)
            done["uploads"] += 1

        async def repeat(client: AsyncClient, work: Callable[[AsyncClient], Awaitable[None]]) -> None:
            while not stop.is_set():
                await work(client)
                await asyncio.sleep(0.02)

        rights: Any = {"read": ("data-b",), "publish": ("data-b",)}
        new = Issuer(key_id="2")
        async with net.client("b", **rights) as client, asyncio.TaskGroup() as group:
            for work in (look_up, upload):
                group.create_task(repeat(client, work))
            for exchange in (
                lambda: net.write_keys(net.issuer, new),
                lambda: (net.give_peers(new), net.give("client/b", new, **rights)),
                lambda: net.write_keys(new),
            ):
                before = dict(done)
                exchange()
                await asyncio.sleep(1.5 * LOOK_SECONDS)
                await eventually(lambda before=before: more_of_each(before, done), "the work goes on")  # type: ignore[misc]
            stop.set()
        async with net.client("late", read=("*",)) as client:
            with pytest.raises(UnauthenticatedError, match="the key '1' that signed the grant is not one of"):
                await client.info("data-b/x")


async def more_of_each(before: dict[str, int], now: dict[str, int]) -> bool:
    return all(now[kind] > before[kind] for kind in now)
