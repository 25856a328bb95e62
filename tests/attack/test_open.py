"""Attacks on an open network that it withstands: those on leases, tables and versions of others, on addresses, and on
this machine. What it does not withstand says docs/security.md."""

import asyncio
import os
import time
from pathlib import Path

import grpc.aio
import pytest

from minga_core.ids import new_generation, parse_address, parse_peer_id
from minga_engine.wire.http_format import END_OF_HEAD, ChunkResponse, decode_response
from minga_engine.wire.messages import SourceAddress
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2 as pb
from tests.e2e.conftest import eventually

from .attacker import LIMIT_SECONDS, Attacker
from .calls import upload
from .command import minga
from .network import CONTENTS, Network
from .victim import HOST, Victim

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

STRANGER = Attacker(plain=True)
FAR_FUTURE, LONG_AGO = 9_223_372_036, -9_000_000_000
"""Seconds since 1970: of the years 2262 and 1684."""
TOKENS = {"none": b"", "zeros": bytes(16), "ones": b"\xff" * 16}


async def refusal(call: object) -> str:
    """The code and sentence of a call that is refused; fails when it is not."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return f"{caught.value.code().name} {caught.value.details()}"


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("days", [0, 0.9, 2, 100_000])
async def test_a_living_lease_is_not_taken_over(opened: Network, token: str, days: float) -> None:
    """By no generation, of days ahead; nobody without the token ends it, rewrites its table or publishes under it."""
    generation = min(2**63 - 1, new_generation(time.time() + days * 86400))
    of = {"peer_id": "peer-1", "generation": generation, "lease_token": TOKENS[token]}
    register = pb.RegisterRequest(**of, address=f"{HOST}:1")
    reason = "a clock is wrong" if days > 1 else "peer-1"
    assert reason in await refusal(opened.at_registry(STRANGER, "Register", register))
    await refusal(opened.at_registry(STRANGER, "Publish", pb.PublishRequest(**of)))
    begin = pb.PushTableRequest(begin=pb.TableBegin(**of, whole=True, revision=2**40))
    await refusal(opened.at_registry(STRANGER, "PushTable", begin, pb.PushTableRequest(end=pb.TableEnd())))
    await opened.at_registry(STRANGER, "Leave", pb.LeaveRequest(**of))
    answers = await opened.at_registry(STRANGER, "KeepLease", pb.HeartbeatRequest(**of, table_revision=2**40))
    assert [pb.HeartbeatResponse.FromString(each).action for each in answers] == [pb.HEARTBEAT_ACTION_REGISTER_AGAIN]


async def test_leases_have_no_secret_in_any_answer(opened: Network) -> None:
    """Neither token nor generation nor revision: what would be needed to act for a peer."""
    for path in ("/v1/peers", "/v1/files", "/v1/files/secret.bin", f"/v1/contents/{opened.contents['secret.bin']}"):
        text = (await STRANGER.get(opened.story.net.locator.address, path)).text
        assert not any(word in text for word in ("lease_token", "generation", "revision")), path


async def push(net: Network, peer_id: str, *rows: pb.FileRow) -> None:
    """A stranger's own peer, and its table."""
    of = {"peer_id": peer_id, "generation": 2**50, "lease_token": bytes(15) + b"x"}
    await net.at_registry(STRANGER, "Register", pb.RegisterRequest(**of, address=f"{HOST}:1"))
    steps = (
        pb.PushTableRequest(begin=pb.TableBegin(**of, whole=True, revision=1)),
        pb.PushTableRequest(rows=pb.TableRows(put=rows)),
        pb.PushTableRequest(end=pb.TableEnd(put_count=len(rows))),
    )
    await net.at_registry(STRANGER, "PushTable", *steps)
    await asyncio.sleep(0)
    await net.at_registry(STRANGER, "Leave", pb.LeaveRequest(**of))


async def test_times_out_of_this_world_own_no_name(opened: Network) -> None:
    """A row of the year 2262 counts as of now at most: what is put after it is the newest. A row of 1684 for the good
    content does not make it old."""
    made = pb.FileRow(name="data/tiny.txt", content_id=bytes(32), state=pb.HOLDING_STATE_COMPLETE, size_bytes=1)
    made.published_time.seconds = FAR_FUTURE
    old = pb.FileRow(name="secret.bin", content_id=opened.contents["secret.bin"].raw, state=pb.HOLDING_STATE_COMPLETE)
    old.size_bytes, old.published_time.seconds = len(CONTENTS["secret.bin"]), LONG_AGO
    await push(opened, "clock", made, old)
    await opened.story.share(opened.story.peers[1], "data/tiny2.txt", b"after")
    version = await opened.story.version("data/tiny2.txt")
    listed = await opened.story.version("secret.bin")
    assert version is not None
    assert listed is not None
    assert listed.content_id == opened.contents["secret.bin"]
    assert version.published_ns > listed.published_ns
    (opened.story.peers[1].share_dir / "data" / "tiny2.txt").unlink()

    async def only_ours() -> bool:
        return await opened.story.names() == set(CONTENTS)

    await eventually(only_ours, "what is removed is not listed")


async def test_a_stream_keeps_no_second_lease(opened: Network) -> None:
    """Invented free space for any peer on one stream."""
    beats = [pb.HeartbeatRequest(peer_id=f"peer-{number}", generation=1, free_bytes=2**50) for number in (1, 2)]
    assert "one peer" in await refusal(opened.at_registry(STRANGER, "KeepLease", *beats))


async def test_a_victim_is_dialled_a_few_times_at_most(opened: Network) -> None:
    """Named as a source of a replica, which the attacker waits for."""
    async with Victim(silent=False).listening() as victim:
        port = int(victim.address.rpartition(":")[2])
        sources = [peer_pb2.Source(peer_id=f"evil-{at}", address=victim.address, http_port=port) for at in range(2)]
        request = peer_pb2.ReplicateFileRequest(name="evil", content_id=bytes(32), sources=sources)
        with pytest.raises(grpc.aio.AioRpcError):
            await opened.at_peer(STRANGER, "ReplicateFile", request)
        # Three tries each, and what gRPC adds to one meanwhile.
        assert victim.dialled <= 2 * 3 * 3


async def test_nobody_is_named_but_where_it_is(opened: Network) -> None:
    """Peer exchange names neither a victim's address nor an honest id at the attacker's."""
    for peer_id, address in (("peer-3", "10.9.9.9:1"), ("evil", "victim.example:80"), ("peer-2", f"{HOST}:1")):
        await opened.chunk(STRANGER, SourceAddress(parse_peer_id(peer_id), parse_address(address)))
    head = await opened.chunk(STRANGER, SourceAddress(parse_peer_id("other"), parse_address("127.0.0.1:1")))
    answer = decode_response(head.removesuffix(END_OF_HEAD))
    assert isinstance(answer, ChunkResponse)
    assert answer.sources == ()


@pytest.mark.parametrize("name", [".env", "data/.env", ".git/config", ".ssh/authorized_keys", "../outside", ".minga/x"])
async def test_secrets_and_settings_are_neither_shared_nor_stored(opened: Network, name: str) -> None:
    """Those in the shared folder are not listed, and nobody puts one there."""
    listing = await STRANGER.get(opened.story.net.locator.address, "/v1/files")
    assert {each["name"] for each in listing.json()["files"]} == set(CONTENTS)
    await refusal(opened.at_peer(STRANGER, "StoreFile", *upload(name)))


@pytest.mark.parametrize(
    "service", ["grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "grpc.health.v1.Health/Watch"]
)
async def test_no_stream_stands_outside_of_the_limits(opened: Network, service: str) -> None:
    """Reflection is off, and so is the stream of health."""
    for call in (opened.story.net.registry_address, opened.peer.address):
        assert "UNIMPLEMENTED" in await refusal(STRANGER.call(call, "", f"/{service}", pb.LeaveRequest()))


async def test_settings_do_not_come_from_the_folder_of_a_command(opened: Network) -> None:
    """A stranger may have put a `.env` there: here it would name another locator."""
    listed = await asyncio.to_thread(
        minga, "ls", folder=opened.peer.share_dir, MINGA_LOCATOR=opened.story.net.locator_url
    )
    assert listed.returncode == 0, listed.stderr
    assert "secret.bin" in listed.stdout


@pytest.mark.parametrize("kind", ["a link", "mode 0777", "another user's"])
@pytest.mark.parametrize(
    "command", [("status",), ("peer", "--share=share", "--registry=127.0.0.1:1", "--listen=127.0.0.1:0")]
)
async def test_a_control_folder_that_others_made_is_refused_on_both_sides(
    tmp_path: Path, kind: str, command: tuple[str, ...]
) -> None:
    """`/tmp/minga-UID` is made by whoever comes first: what answers there may be anybody."""
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "share").mkdir()
    folder = tmp_path / f"minga-{os.getuid()}"
    if kind == "a link":
        folder.symlink_to("elsewhere")
    else:
        folder.mkdir(mode=0o700)
        folder.chmod(0o777 if kind == "mode 0777" else 0o700)
    if kind == "another user's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a folder to another user")
        os.chown(folder, 12345, 12345)
    ended = await asyncio.to_thread(minga, *command, folder=tmp_path, TMPDIR=str(tmp_path))
    assert ended.returncode != 0
    assert str(folder) in ended.stderr


async def test_refusals_are_quick(opened: Network) -> None:
    """As all of these: see `LIMIT_SECONDS`, which is the deadline of each call here."""
    async with asyncio.timeout(LIMIT_SECONDS):
        await refusal(opened.at_registry(STRANGER, "Publish", pb.PublishRequest(peer_id="peer-1", generation=1)))
