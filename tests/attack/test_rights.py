"""Members that want more than their rights: names that are not theirs, grants that are no good, proofs of others."""

import asyncio
import base64
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import grpc.aio
import jwt
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from minga_core.ids import new_generation
from minga_locator.cache import MAX_AGE_SECONDS
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2 as pb
from tests.support.grants import Issuer, flipped

from .attacker import Attacker
from .calls import upload
from .network import CONTENTS, Network
from .victim import HOST

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

FAR_FUTURE, LONG_AGO = Timestamp(seconds=9_223_372_036), Timestamp(seconds=-9_000_000_000)
"""Of the years 2262 and 1684."""
GOOD, EVIL = bytes(31) + b"g", bytes(31) + b"!"
EVIL_ID = f"b3:{EVIL.hex()}"


async def test_names_of_others_are_refused_whether_they_exist_or_not(secure: Network) -> None:
    """And lists leave them out."""
    for name in ("ops/key", "data-secret", "secret.bin.old"):
        answer = await secure.member("command").get(secure.story.net.locator.address, f"/v1/files/{name}")
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")
    listing = await secure.member("command").get(secure.story.net.locator.address, "/v1/files")
    assert {each["name"] for each in listing.json()["files"]} == set(CONTENTS)


TRICKS = (
    "data-secret/x",
    "data.",
    "dat",
    "data/../ops/key",
    "data/./../ops/key",
    "data//../ops/key",
    "../ops/data/x",
    "/data/tiny.txt",
    "ops/../data/tiny.txt",
    "DATA/tiny.txt",
    "Secret.bin",
    "secret.bin/",
    "d\u0430ta/tiny.txt",  # a Cyrillic letter
    "data\u0301/x",  # an accent on the last letter
    "data\u2215x",  # what looks like a slash
    "\uff44ata/x",  # a full-width letter
    "data\\..\\ops",
    "data\0/x",
    "data ",
    " data/x",
)
"""Names that look like `data` or `secret.bin`, below or beside which they are not."""


@pytest.mark.parametrize("name", TRICKS)
async def test_a_name_that_looks_like_one_of_ours_is_not(secure: Network, name: str) -> None:
    """Neither read, nor listed, nor placed at the locator, nor stored at a peer: it is another name, or none."""
    member, locator = secure.member("command"), secure.story.net.locator.address
    for path in (quote(name), quote(name, safe="")):
        # Sent as it is: clients make a/b of a/x/../b.
        request = f"GET /v1/files/{path} HTTP/1.1\r\nHost: {locator}\r\n\r\n"
        status = (await member.http(locator, request.encode())).split()[1]
        assert status in (b"400", b"403"), (path, status)
    for path, body in (
        ("/v1/files:lookup", {"names": [name]}),
        ("/v1/placements", {"name": name, "size_bytes": 4, "replicas": 1, "publish": EVIL_ID}),
    ):
        answer = await member.post(locator, path, body)
        assert answer.status_code in (400, 403, 422) or answer.json() == {"versions": [None]}, answer.text
    listing = await member.get(locator, f"/v1/files?prefix={quote(name, safe='')}")
    assert not listing.is_success or not {each["name"] for each in listing.json()["files"]} - set(CONTENTS)
    source = peer_pb2.Source(peer_id="peer-2", address=secure.story.peers[1].address)
    replicate = peer_pb2.ReplicateFileRequest(name=name, content_id=EVIL, sources=[source], overwrite=True)
    for method, messages in (("StoreFile", upload(name)), ("ReplicateFile", [replicate])):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await secure.at_peer(member, method, *messages)
        assert caught.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT), method


@contextmanager
def suppress_invalid_name() -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
            raise


@pytest.mark.parametrize("name", TRICKS)
async def test_such_a_name_is_not_published_either(secure: Network, tmp_path: Path, name: str) -> None:
    """By a peer that may publish `data`, at the registry."""
    async with RawPeer(secure, tmp_path, "tricky") as peer:
        with suppress_invalid_name():
            when, tag = await peer.publish(name, EVIL)
            assert (when.seconds, tag) == (0, b"")


async def test_a_prefix_is_of_whole_parts_in_one_normal_form(secure: Network) -> None:
    """Whichever form a name is asked for in; a grant whose prefix is in another form, or no name, is refused."""
    locator, who = secure.story.net.locator.address, Attacker(secure.authority.pem)

    async def status(prefix: str, name: str) -> int:
        grant = secure.issuer.grant("curl", read=(prefix,))
        return (await who.get(locator, f"/v1/files/{quote(name)}", grant)).status_code

    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert [await status(composed, f"{each}/x") for each in (composed, decomposed, "cafe")] == [404, 404, 403]
    assert [await status("cafe", f"{each}/x") for each in (composed, decomposed, "cafe", "caf")] == [403, 403, 404, 403]
    for prefix in (decomposed, "data/../ops", "data//x", "./data", "/", "", "data\0", "..", "data/*/../.."):
        assert await status(prefix, "data/tiny.txt") == 401, prefix


def hmac_with_the_public_key(issuer: Issuer) -> str:
    secret = base64.urlsafe_b64decode(issuer.jwk["x"] + "==")
    return jwt.encode(issuer.claims("evil", read=("*",)), secret, "HS256", headers={"kid": issuer.key_id})


BAD_GRANTS: dict[str, Callable[[Issuer], str]] = {
    "no JWT": lambda issuer: "x.y.z",
    "of another key": lambda issuer: Issuer().grant("evil", read=("*",)),
    "alg none": lambda issuer: jwt.encode(issuer.claims("evil", read=("*",)), None, "none"),
    "HS256 with the public key": hmac_with_the_public_key,
    "expired": lambda issuer: issuer.grant("evil", read=("*",), exp=int(time.time()) - 3600),
    "for another network": lambda issuer: issuer.grant("evil", read=("*",), aud="other"),
    "of another issuer": lambda issuer: issuer.grant("evil", read=("*",), iss="minga:other"),
    "never ends": lambda issuer: issuer.grant("evil", read=("*",), exp=None),
    "of another member": lambda issuer: issuer.grant("spiffe://test/peer/peer-1", read=("*",)),
    "with another bit in its head": lambda issuer: flipped(issuer.grant("evil", read=("*",)), 0),
    "with another bit in its claims": lambda issuer: flipped(issuer.grant("evil", read=("*",)), 1),
    "with another bit in its signature": lambda issuer: flipped(issuer.grant("evil", read=("*",)), 2),
    "endless": lambda issuer: "x" * 9000,
}


@pytest.mark.parametrize("kind", BAD_GRANTS)
async def test_a_grant_that_is_no_good_is_refused(secure: Network, kind: str) -> None:
    """With a certificate and without: it is not passed over."""
    grant = BAD_GRANTS[kind](secure.issuer)
    for who in (secure.member("command"), Attacker(secure.authority.pem)):
        answer = await who.get(secure.story.net.locator.address, "/v1/files/secret.bin", grant)
        assert answer.status_code in (400, 401, 403, 431), answer.text


async def test_uploads_need_the_right_to_publish(secure: Network) -> None:
    """Also those that a peer is to fetch by itself, and those that replace a file."""
    source = peer_pb2.Source(peer_id="peer-2", address=secure.story.peers[1].address)
    replicate = peer_pb2.ReplicateFileRequest(name="ops/evil", content_id=EVIL, sources=[source], overwrite=True)
    for method, messages in (("StoreFile", upload("ops/evil")), ("ReplicateFile", [replicate])):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await secure.at_peer(secure.member("command"), method, *messages)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED, method


class RawPeer:
    """A member with a good certificate and a lease of its own, by raw calls. Inside the block it lives."""

    def __init__(self, net: Network, folder: Path, peer_id: str) -> None:
        self._net = net
        self._who = Attacker(net.authority.pem, net.authority.issue(folder / peer_id, "peer", peer_id))
        self._of = {"peer_id": peer_id, "generation": new_generation(time.time()), "lease_token": os.urandom(16)}
        self._revision = 0

    async def __aenter__(self) -> "RawPeer":
        register = pb.RegisterRequest(**self._of, address=f"{HOST}:1")
        register.asked_ttl.seconds = 60
        await self._net.at_registry(self._who, "Register", register)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._net.at_registry(self._who, "Leave", pb.LeaveRequest(**self._of))

    async def publish(self, name: str, content_id: bytes, ticket: bytes = b"") -> tuple[Timestamp, bytes]:
        """The time and the tag that the registry gives."""
        wanted = pb.Publication(name=name, content_id=content_id, ticket=ticket)
        (raw,) = await self._net.at_registry(self._who, "Publish", pb.PublishRequest(**self._of, publications=[wanted]))
        answer = pb.PublishResponse.FromString(raw)
        return answer.published_times[0], b"".join(answer.tags)

    async def announce(self, name: str, content_id: bytes, time: Timestamp, tag: bytes) -> None:
        """A table with that row alone."""
        row = pb.FileRow(name=name, content_id=content_id, size_bytes=1, state=pb.HOLDING_STATE_COMPLETE, tag=tag)
        row.published_time.CopyFrom(time)
        self._revision += 1
        steps = (
            pb.PushTableRequest(begin=pb.TableBegin(**self._of, whole=True, revision=self._revision)),
            pb.PushTableRequest(rows=pb.TableRows(put=[row])),
            pb.PushTableRequest(end=pb.TableEnd(put_count=1)),
        )
        await self._net.at_registry(self._who, "PushTable", *steps)


async def newest(net: Network, name: str) -> dict[str, object]:
    """Its content, time and tag, as an auditor sees them that may read everything."""
    grant = net.issuer.grant("auditor", read=("*",))
    answer = await Attacker(net.authority.pem).get(net.story.net.locator.address, f"/v1/files/{name}", grant)
    version = answer.json()["versions"][0]
    return {key: version[key] for key in ("content_id", "published_time", "tag")}


async def test_no_name_is_hijacked_and_no_version_demoted(secure: Network, tmp_path: Path) -> None:
    """By a time of 2262 without a proof, with an invented one, or with that of the good version; nor is the good
    version made old by a time that somebody else shows for it."""
    async with RawPeer(secure, tmp_path, "good") as good, RawPeer(secure, tmp_path, "bad") as bad:
        when, stolen = await good.publish("data/own", GOOD)
        await good.announce("data/own", GOOD, when, stolen)
        listed = await newest(secure, "data/own")
        assert listed["tag"]
        for tag in (b"", os.urandom(16), stolen, stolen[:2] + os.urandom(14)):
            await bad.announce("data/own", EVIL, FAR_FUTURE, tag)
            assert await newest(secure, "data/own") == listed
        for claimed in (FAR_FUTURE, LONG_AGO, Timestamp(seconds=1)):
            await bad.announce("data/own", GOOD, claimed, stolen)
            assert await newest(secure, "data/own") == listed


async def test_a_publication_that_is_replayed_is_as_old_as_it_was(secure: Network, tmp_path: Path) -> None:
    """A peer announces the former content again: with its own proof, and with the time and the tag of the newest."""
    async with RawPeer(secure, tmp_path, "good") as good, RawPeer(secure, tmp_path, "stale") as stale:
        then, former = await good.publish("data/replayed", EVIL)
        await stale.announce("data/replayed", EVIL, then, former)
        now, tag = await good.publish("data/replayed", GOOD)
        await good.announce("data/replayed", GOOD, now, tag)
        listed = await newest(secure, "data/replayed")
        assert listed["content_id"] == f"b3:{GOOD.hex()}"
        for claimed, shown in ((then, former), (now, former), (now, tag), (FAR_FUTURE, former)):
            await stale.announce("data/replayed", EVIL, claimed, shown)
            # Longer than the locator keeps an answer.
            await asyncio.sleep(MAX_AGE_SECONDS + 0.1)
            assert await newest(secure, "data/replayed") == listed


async def test_a_name_without_the_right_is_not_published(secure: Network, tmp_path: Path) -> None:
    """Nor with a ticket that is invented, nor is the tag of an own name a proof of it."""
    async with RawPeer(secure, tmp_path, "bad") as bad:
        for ticket in (b"", os.urandom(26), bytes(26)):
            when, tag = await bad.publish("ops/evil", EVIL, ticket)
            assert (when.seconds, tag) == (0, b"")
        when, tag = await bad.publish("data/own", EVIL)
        assert when.seconds > 0
        await bad.announce("ops/evil", EVIL, when, tag)
        grant = secure.issuer.grant("auditor", read=("*",))
        locator = secure.story.net.locator.address
        auditor = Attacker(secure.authority.pem)
        assert (await auditor.get(locator, "/v1/files/ops/evil", grant)).status_code == 404
        listed = (await auditor.get(locator, "/v1/files", grant)).json()["files"]
        assert "ops/evil" not in [file["name"] for file in listed]
