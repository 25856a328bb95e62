"""A network of whole processes with a publication key: what versions survive, and who cannot make one the newest."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from minga import AsyncClient
from minga_core.ids import ContentId
from minga_core.names import parse_name
from minga_core.records import MAX_INSTANT_NS, RowKey
from minga_engine.wire.locator import LocatorClient
from minga_engine.wire.locator_answers import FileVersion
from minga_locator.cache import MAX_AGE_SECONDS
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceStub
from minga_runtime.trust.publication_keys import PublicationKeys

from .conftest import Story, eventually, noise, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = b"k" * 32
NAME = "model"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    """Three peers, which the last test stops."""
    folder = tmp_path_factory.mktemp("tagged")
    (folder / "key").touch(0o600)
    (folder / "key").write_text(KEY.hex())
    flags = [f"--publication-key={folder / 'key'}"]
    async with running(folder, 3, registry_flags=flags, locator_flags=flags) as made:
        yield made


async def newest(story: Story) -> FileVersion:
    """What somebody gets who asks for the name."""
    version = await story.version(NAME)
    assert version is not None
    return version


async def is_newest(story: Story, version: FileVersion) -> bool:
    """Whether it is the newest, with the time that it had, and whole on all peers."""
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


async def test_nobody_owns_a_name_without_having_published_it(story: Story, tmp_path: Path) -> None:
    """A row of 2262, one with the tag of another version, and one that demotes the good one; then the attacker's peer
    is there first after the store was emptied. An old content that is put again is the newest."""
    old = await put(story, tmp_path, b"old")
    good = await put(story, tmp_path, b"good")
    keys = PublicationKeys([KEY])
    assert keys.has_signed(good.tag, RowKey(parse_name(NAME), good.content_id), good.published_ns)
    rows = (
        forged(b"a" * 32, MAX_INSTANT_NS),
        forged(b"b" * 32, good.published_ns, good.tag),
        forged(good.content_id.raw, good.published_ns - 1, good.tag),
    )
    await announce(story, *rows[:2])
    # Longer than the locator keeps an answer.
    await asyncio.sleep(MAX_AGE_SECONDS + 0.1)
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


async def test_nobody_stands_for_a_name_while_its_holders_are_away(story: Story, tmp_path: Path) -> None:
    """Nor for a name that nobody has published; a content that somebody announces is found by its id."""
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
