"""A network of whole processes with a publication key: what versions survive, and who cannot make one the newest."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from minga import AsyncClient
from minga_cli.localnet import LocalPeer
from minga_core.ids import ContentId
from minga_core.names import parse_name
from minga_core.records import MAX_INSTANT_NS, RowKey
from minga_engine.wire.locator import FileVersion, LocatorClient
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_runtime.trust.publication_keys import PublicationKeys

from .conftest import Story, eventually, noise, running

OLD, NEW = b"o" * 32, b"n" * 32
NAME = "model"


@asynccontextmanager
async def tagged(tmp_path: Path, peers: int = 2) -> AsyncIterator[Story]:
    """The key is the old one."""
    write_keys(tmp_path, OLD)
    flags = [f"--publication-key={tmp_path / 'key'}"]
    async with running(tmp_path, peers, registry_flags=flags, locator_flags=flags) as story:
        yield story


def write_keys(tmp_path: Path, *keys: bytes) -> None:
    """Replace the file of all registries and locators."""
    new = tmp_path / "key.new"
    new.touch(0o600)
    new.write_text("\n".join(key.hex() for key in keys))
    new.replace(tmp_path / "key")


async def newest(story: Story) -> FileVersion:
    """What somebody gets who asks for the name."""
    version = await story.version(NAME)
    assert version is not None
    return version


async def is_newest(story: Story, version: FileVersion) -> bool:
    """Whether it is the newest, with the time that it had, and whole on both peers."""
    found = await story.version(NAME)
    return (
        found is not None
        and (found.content_id, found.published_ns) == (version.content_id, version.published_ns)
        and found.complete_count == version.complete_count
    )


async def put(story: Story, tmp_path: Path, data: bytes) -> FileVersion:
    """Put a content under the name, on all peers; the version then."""
    (tmp_path / "out").write_bytes(data)
    async with AsyncClient(locator=story.net.locator_url, standalone=True) as client:
        await client.put(tmp_path / "out", NAME, replicas=len(story.peers), overwrite=True)
    return await newest(story)


async def announce(story: Story, *rows: pb.FileRow) -> None:
    """Have a peer of the attacker's announce rows, as whoever reaches the registry may."""
    lease: dict[str, Any] = {"peer_id": "evil", "generation": 1}
    async with grpc.aio.insecure_channel(story.net.registry_address) as channel:
        stub: Any = RegistryServiceStub(channel)
        await stub.Register(pb.RegisterRequest(**lease, address="127.0.0.1:1"), timeout=10)
        steps = (
            pb.PushTableRequest(begin=pb.TableBegin(**lease, whole=True, revision=1)),
            pb.PushTableRequest(rows=pb.TableRows(put=rows)),
            pb.PushTableRequest(end=pb.TableEnd(put_count=len(rows))),
        )
        await stub.PushTable(iter(steps), timeout=10)


async def leave(story: Story) -> None:
    """Have the attacker's peer leave: an upload that replaces other contents would wait for it."""
    async with grpc.aio.insecure_channel(story.net.registry_address) as channel:
        stub: Any = RegistryServiceStub(channel)
        await stub.Leave(pb.LeaveRequest(peer_id="evil", generation=1), timeout=10)

    async def gone() -> bool:
        async with LocatorClient(story.net.locator_url) as locator:
            return "evil" not in {str(peer.peer_id) async for peer in locator.iter_peers()}

    await eventually(gone, "it is no peer any more")


def forged(content: bytes, published_ns: int, tag: bytes = b"") -> pb.FileRow:
    """A row of the attacker's."""
    published = Timestamp(seconds=published_ns // 10**9, nanos=published_ns % 10**9)
    state = pb.HOLDING_STATE_COMPLETE
    return pb.FileRow(name=NAME, content_id=content, size_bytes=1, state=state, published_time=published, tag=tag)


async def test_nobody_owns_a_name_without_having_published_it(tmp_path: Path) -> None:
    """A row of 2262, one with the tag of another version, and one that demotes the good one; then the attacker's peer
    is there first after the store was emptied. An old content that is put again is the newest."""
    async with tagged(tmp_path) as story:
        old = await put(story, tmp_path, b"old")
        good = await put(story, tmp_path, b"good")
        keys = PublicationKeys([OLD])
        assert keys.has_signed(good.tag, RowKey(parse_name(NAME), good.content_id), good.published_ns)
        rows = (
            forged(b"a" * 32, MAX_INSTANT_NS),
            forged(b"b" * 32, good.published_ns, good.tag),
            forged(good.content_id.raw, good.published_ns - 1, good.tag),
        )
        await announce(story, *rows[:2])
        await asyncio.sleep(1)
        assert await is_newest(story, good)
        await story.net.flush_redis()
        await announce(story, *rows)

        async def is_back() -> bool:
            found = await story.version(NAME)
            return found is not None and found.published_ns == good.published_ns

        await eventually(is_back, "the good version is the newest again")
        await leave(story)
        again = await put(story, tmp_path, b"old")
        assert again.content_id == old.content_id
        assert again.published_ns > good.published_ns
        assert again.tag != old.tag


async def test_nobody_stands_for_a_name_while_its_holders_are_away(tmp_path: Path) -> None:
    """Nor for a name that nobody has published; a content that somebody announces is found by its id."""
    async with tagged(tmp_path, 3) as story:
        good = await put(story, tmp_path, noise(3 * 1024 * 1024))
        assert good.complete_count == 3
        row = forged(b"a" * 32, MAX_INSTANT_NS)
        free = forged(b"b" * 32, 0)
        free.name = "free"
        await asyncio.gather(*(peer.process.stop(timedelta(seconds=10)) for peer in story.peers))
        await announce(story, row, free)
        async with LocatorClient(story.net.locator_url) as locator:
            evil = (await locator.find_content(ContentId(free.content_id))).version
            assert [source.peer_id for source in evil.sources] == ["evil"]

        async def nothing() -> bool:
            return await story.version(NAME) is None

        await eventually(nothing, "the name is not answered from the locator's cache any more")
        assert await story.version("free") is None
        assert "free" not in await story.names()


def tags_of(peer: LocalPeer) -> set[bytes]:
    """The ids of the keys of a peer's tags, as its index has them."""
    index = peer.share_dir / ".minga/index.sqlite"
    with closing(sqlite3.connect(f"{index.as_uri()}?mode=ro", uri=True)) as database:
        return {bytes(tag[:2]) for (tag,) in database.execute("SELECT tag FROM files")}


async def test_the_key_is_changed_and_the_old_one_dropped(tmp_path: Path) -> None:
    """While files are put and found. The peers have new tags by then, so an emptied store fills with the same versions;
    copies that are made later have them too."""
    async with tagged(tmp_path) as story:
        await put(story, tmp_path, b"first")
        write_keys(tmp_path, OLD, NEW)
        await asyncio.sleep(1.2)
        good = await put(story, tmp_path, b"good")
        write_keys(tmp_path, NEW, OLD)

        async def renewed() -> bool:
            return all(tags_of(peer) == {PublicationKeys([NEW]).key_id} for peer in story.peers)

        await eventually(renewed, "both peers have tags of the new key")
        assert await is_newest(story, good)
        write_keys(tmp_path, NEW)
        await asyncio.sleep(1.2)
        await story.net.flush_redis()
        await announce(story, forged(b"a" * 32, MAX_INSTANT_NS, good.tag))
        await eventually(lambda: is_newest(story, good), "the good version is the newest again")
