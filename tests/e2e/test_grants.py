"""Secure networks with grants, of whole processes: who may read and publish what, and grants that are no good."""

import base64
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio

from minga.control import ControlClient
from minga_core.errors import (
    FileNotFoundInDirectoryError,
    InvalidNameError,
    PermissionDeniedError,
)
from minga_core.ids import digest
from minga_protos.peer.v1 import peer_pb2
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceStub
from minga_protos.registry.v1 import registry_pb2
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from tests.attack.attacker import Attacker
from tests.support.grants import Issuer
from tests.support.origin import origin

from .conftest import eventually
from .granted import SECRET, Granted, drop, found, granted

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = 86_400


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Granted]:
    """One network for all tests."""
    async with granted(tmp_path_factory.mktemp("granted")) as made:
        yield made


async def test_teams_publish_and_read_what_is_theirs(net: Granted, tmp_path: Path) -> None:
    """A client of team b reads and uploads below `data-b` alone, by whatever way; a peer of team b cannot make its file
    the version that others get of a name of team a."""
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


async def test_peers_fetch_ahead_for_those_who_may_publish_origins(net: Granted, tmp_path: Path) -> None:
    """Anybody else is refused by each peer, and by the gateway, before anything is asked of the origin; a NAME is for
    those who may publish it."""
    async with origin() as place:
        url = place.put("/a.bin", b"a")
        async with net.client("b", read=("*",), publish=("data-b", "originsx", "origins/sha256")) as client:
            for item, folder in ((url, "origins"), ("data-a/x", "data-a/x")):
                failed = (await client.preheat(item)).failed
                assert {type(peer.error) for peer in failed} == {PermissionDeniedError}
                assert {str(peer.error).partition(":")[0] for peer in failed} == {f"may not publish '{folder}'"}
        (tmp_path / "ahead").write_bytes(b"ahead")
        async with net.client("operator", read=("*",), publish=("origins", "data-a")) as client:
            await client.put(tmp_path / "ahead", "data-a/ahead")
            # What MINGA_FETCH_ALLOW of these peers does not name.
            assert {str(peer.error)[:31] for peer in (await client.preheat(url)).peers} == {
                "this peer fetches nothing from "
            }
            assert (await client.preheat("data-a/ahead")).missing == 0
        async with ControlClient(net.story.peers[0].control) as control:
            gateway = (await control.status()).gateway_url
        grants = {"": 401, net.issuer.grant("bot", read=("*",), publish=("data-b",)): 403}
        grants[net.issuer.grant("bot", publish=("origins",))] = 200
        async with httpx.AsyncClient() as client:
            for grant, status in grants.items():
                headers = {"Authorization": f"Bearer {grant}"} if grant else {}
                answer = await client.post(f"{gateway}/preheat", json={"item": url}, headers=headers)
                assert answer.status_code == status
        assert answer.json()["missing"] == 2
        assert not place.requests


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


async def test_grants_that_are_no_good_count_nowhere(net: Granted, tmp_path: Path) -> None:
    """Each is refused with its reason, over a member's certificate and without one, at locator, registry and peer."""
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
    now = int(time.time())
    for skewed in (sign("bot", read=("*",), exp=now - 240), sign("bot", read=("*",), iat=now + 270, nbf=now + 270)):
        async with net.web(skewed) as web:
            assert (await web.get("/v1/files/data-a/x")).status_code == 200


async def test_a_stolen_grant_is_worth_nothing(net: Granted, tmp_path: Path) -> None:
    """A peer that is sent an upload sees the client's grant, which counts over that client's certificate alone; what
    anybody may show counts at the locator alone."""
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
        listed = {file["name"] for file in (await web.get("/v1/files")).json()["files"]}
        assert "data-a/x" in listed
        assert not any(name.startswith("data-b") for name in listed)
    for headers in ({}, {"Authorization": "Basic Ym90OmJvdA=="}):
        async with net.web("") as web:
            refused = await web.get("/v1/files/data-a/x", headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    own = net.give("peer/thief", publish=("data-b",))
    assert await refusal(uploads(net, own, "thief")) == "may not publish 'data-a/x': the right to publish is of data-b"
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
