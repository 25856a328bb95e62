"""Tags: what a holder may say of the time of a version, in a network whose registries have a publication key."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from minga_core.clock import SystemClock
from minga_core.errors import InvalidArgumentError, RegistryUnavailableError, RowRefusedError
from minga_core.ids import ContentId
from minga_core.names import Name
from minga_core.records import MAX_INSTANT_NS, Publication, RowKey
from minga_directory import connect_reader, connect_writer
from minga_directory.connect import connect
from minga_directory.directory import DirectoryReader, Version
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_runtime.grpc_errors import error_from_rpc
from minga_runtime.trust.publication_keys import TICKET_SECONDS, PublicationKeys
from services.registry.tests.support import (
    RememberedDirectory,
    Running,
    beat,
    begin,
    end,
    register_request,
    row,
    rows,
    serving,
)

pytestmark = pytest.mark.redis

LIMIT_SECONDS = 10.0
OLD, NEW = b"o" * 32, b"n" * 32
NAME, GOOD, EVIL = Name("model"), ContentId(b"g" * 32), ContentId(b"e" * 32)
YEAR_NS = 365 * 86_400 * 10**9

Proof = tuple[Timestamp, bytes]


class Net:
    """A registry with keys that a test may change, over a directory on a real server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys = PublicationKeys([OLD])
        self.registry: Running
        self.reader: DirectoryReader

    async def join(self, *peer_ids: str) -> None:
        """Register peers, each at an address of its own."""
        for peer_id in peer_ids:
            await self.registry.stub.Register(register_request(peer_id=peer_id), timeout=LIMIT_SECONDS)

    async def publish(
        self, peer_id: str, content_id: ContentId, *, name: str = NAME, found: Timestamp | None = None, **said: bool
    ) -> Proof:
        """What the registry says to a publication."""
        one = pb.Publication(name=name, content_id=content_id.raw, found_modified_time=found, **said)
        request = pb.PublishRequest(peer_id=peer_id, generation=7, publications=[one])
        response = await self.registry.stub.Publish(request, timeout=LIMIT_SECONDS)
        (published,), (tag,) = response.published_times, response.tags
        return published, tag

    async def announce(self, peer_id: str, *put: pb.FileRow, revision: int = 1) -> None:
        """Push a table."""
        steps = (begin(peer_id=peer_id, revision=revision), rows(*put), end(len(put)))
        await self.registry.stub.PushTable(iter(steps), timeout=LIMIT_SECONDS)

    async def share(self, peer_id: str, content_id: ContentId) -> Proof:
        """Register a peer, publish a content and push it; the time and its tag."""
        await self.join(peer_id)
        proof = await self.publish(peer_id, content_id)
        await self.announce(peer_id, held(content_id, proof))
        return proof

    async def versions(self, name: str = NAME) -> Sequence[Version]:
        """The versions of a name, the default first."""
        return await self.reader.find(Name(name))

    async def newest(self) -> ContentId:
        """What somebody gets who asks for the name."""
        return (await self.versions())[0].content_id

    @property
    def unproven(self) -> float:
        """Rows that were counted."""
        return self.registry.metric("minga_registry_unproven_rows_total")


def held(content_id: ContentId, proof: Proof, name: str = NAME) -> pb.FileRow:
    """A row with a time and what is to prove it."""
    published, tag = proof
    return row(name, content_id=content_id.raw, published_time=published, tag=tag)


def at(nanos: int) -> Timestamp:
    """An instant."""
    return Timestamp(seconds=nanos // 10**9, nanos=nanos % 10**9)


@pytest.fixture
async def net(redis_url: str) -> AsyncIterator[Net]:
    """Over an empty directory."""
    net = Net(redis_url)
    async with (
        aclosing(connect_writer(redis_url)) as writer,
        aclosing(connect_reader(redis_url)) as net.reader,
        serving(writer, keys=lambda: net.keys) as net.registry,
    ):
        yield net


async def test_a_publication_is_proven_and_its_holders_are_believed(net: Net) -> None:
    """Also a copy that carries time and tag on; the proof is that of the locator, which has the same key."""
    published, tag = await net.share("a", GOOD)
    assert tag == net.keys.tag(RowKey(NAME, GOOD), published.ToNanoseconds())
    await net.join("b")
    await net.announce("b", held(GOOD, (published, tag)))
    (version,) = await net.versions()
    assert (version.published_ns, version.complete_count) == (published.ToNanoseconds(), 2)
    assert net.unproven == 0


@pytest.mark.parametrize("year", [1678, 1999, 2262])
async def test_a_forged_time_owns_no_name_and_demotes_nothing(net: Net, year: int) -> None:
    """For a content of the liar's own, or for the good one."""
    nanos = min(MAX_INSTANT_NS, (year - 1970) * YEAR_NS)
    published, _ = await net.share("a", GOOD)
    await net.join("b")
    await net.announce("b", held(EVIL, (at(nanos), b"")), held(GOOD, (at(nanos), b"x" * 16)))
    first, second = await net.versions()
    assert (first.content_id, first.published_ns, first.complete_count) == (GOOD, published.ToNanoseconds(), 2)
    assert (second.content_id, second.published_ns) == (EVIL, 0)
    # A time before 1970 is none.
    assert net.unproven == (0 if nanos < 0 else 2)


async def test_a_tag_of_something_else_proves_nothing(net: Net) -> None:
    """Of another name that the liar may publish, of the good content, or of another time."""
    published, stolen = await net.share("a", GOOD)
    await net.join("b")
    own = await net.publish("b", EVIL, name="own")
    later = at(published.ToNanoseconds() + 1)
    for revision, proof in enumerate((own, (published, stolen), (later, stolen)), start=1):
        await net.announce("b", held(EVIL, proof), revision=revision)
        assert [version.published_ns for version in await net.versions()] == [published.ToNanoseconds(), 0]
    await net.announce("b", held(GOOD, (later, stolen)), revision=9)
    assert await net.newest() == GOOD
    assert net.unproven == 4


async def test_an_old_publication_that_is_shown_again_stays_old(net: Net) -> None:
    """Of a peer that is back after a month with what it had: its proof is good, and is of then."""
    before = await net.share("a", EVIL)
    await net.share("b", GOOD)
    await net.registry.stub.Leave(pb.LeaveRequest(peer_id="a", generation=7), timeout=LIMIT_SECONDS)
    await net.join("a")
    await net.announce("a", held(EVIL, before))
    assert await net.newest() == GOOD
    assert net.unproven == 0


async def test_an_old_content_that_is_put_again_is_the_newest(net: Net) -> None:
    """With another time, and another proof."""
    before = await net.share("a", GOOD)
    await net.share("b", EVIL)
    again = await net.publish("a", GOOD)
    assert again[1] != before[1]
    await net.announce("a", held(GOOD, again), revision=2)
    assert await net.newest() == GOOD


async def test_a_registry_with_another_key_makes_nothing_newer(net: Net) -> None:
    """What it has signed is nothing to the network; and it believes nothing that the network has signed."""
    good = await net.share("a", GOOD)
    network, net.keys = net.keys, PublicationKeys([b"x" * 32])
    await net.join("b")
    stranger = await net.publish("b", EVIL)
    net.keys = network
    await net.announce("b", held(EVIL, stranger))
    assert await net.newest() == GOOD
    net.keys = PublicationKeys([b"x" * 32])
    await net.announce("a", held(GOOD, good), revision=2)
    assert [version.published_ns for version in await net.versions()] == [0, 0]


async def test_a_store_that_has_lost_everything_is_as_before(net: Net) -> None:
    """In whatever order peers come back; who lies has the same chance as before: none."""
    published = [await net.share(peer_id, ContentId(peer_id.encode() * 32)) for peer_id in "abc"]
    before = [(version.content_id, version.published_ns) for version in await net.versions()]
    async with aclosing(connect(net.url)) as store:
        await store.one("FLUSHALL")
    await net.join("d", *"cab")
    await net.announce("d", held(EVIL, (at(MAX_INSTANT_NS), published[0][1])))
    for peer_id in "cab":
        await net.announce(peer_id, held(ContentId(peer_id.encode() * 32), published["abc".index(peer_id)]))
    after = [(version.content_id, version.published_ns) for version in await net.versions()]
    assert after == [*before, (EVIL, 0)]


async def test_a_partial_file_and_an_unpublished_one_need_no_proof(net: Net) -> None:
    """They have no time, and are no lie."""
    await net.join("a")
    part = row(NAME, content_id=GOOD.raw, state=pb.HOLDING_STATE_PARTIAL)
    await net.announce("a", part, row("other"))
    assert net.unproven == 0


async def test_keys_are_changed_under_pushes_and_publications(net: Net) -> None:
    """1. The new key verifies at all registries. 2. It signs: peers see its id, and ask for new tags, which have the
    times of before. 3. The old one is dropped."""
    old = await net.share("a", GOOD)
    await net.share("b", EVIL)
    assert await net.newest() == EVIL
    net.keys = PublicationKeys([OLD, NEW])
    await net.announce("a", held(GOOD, old), revision=2)
    first = await beat(net.registry, pb.HeartbeatRequest(peer_id="a", generation=7, table_revision=2))
    net.keys = PublicationKeys([NEW, OLD])
    second = await beat(net.registry, pb.HeartbeatRequest(peer_id="a", generation=7, table_revision=2))
    registered = await net.registry.stub.Register(register_request(), timeout=LIMIT_SECONDS)
    assert first.publication_key_id != second.publication_key_id == registered.publication_key_id
    new = await net.publish("a", GOOD, found=old[0])
    assert new[0] == old[0]
    assert new[1][:2] == second.publication_key_id
    net.keys = PublicationKeys([NEW])
    await net.announce("a", held(GOOD, new), revision=3)
    assert net.unproven == 0
    assert [version.content_id for version in await net.versions()] == [EVIL, GOOD]
    # Who has not asked in time has a tag that proves nothing any more.
    await net.announce("a", held(GOOD, old), revision=4)
    assert net.unproven == 1


async def test_without_a_key_there_are_no_tags_and_times_are_believed(directory: RememberedDirectory) -> None:
    """An open network, as before."""
    async with serving(directory) as registry:
        response = await registry.stub.Register(register_request(), timeout=LIMIT_SECONDS)
        assert response.publication_key_id == b""
        publication = pb.Publication(name=NAME, content_id=GOOD.raw)
        request = pb.PublishRequest(peer_id="a", generation=7, publications=[publication])
        assert not (await registry.stub.Publish(request, timeout=LIMIT_SECONDS)).tags
        steps = (begin(), rows(held(GOOD, (at(5), b""))), end(1))
        await registry.stub.PushTable(iter(steps), timeout=LIMIT_SECONDS)
        assert [found.published_ns for found in directory.committed[0].rows] == [5]


async def test_tags_and_tickets_that_are_too_long_are_refused(directory: RememberedDirectory) -> None:
    """At the edge."""
    async with serving(directory) as registry:
        steps = (begin(), rows(held(GOOD, (at(5), b"x" * 17))), end(1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await registry.stub.PushTable(iter(steps), timeout=LIMIT_SECONDS)
        assert isinstance(error_from_rpc(caught.value, RegistryUnavailableError), RowRefusedError)
        publication = pb.Publication(name=NAME, content_id=GOOD.raw, ticket=b"x" * 65)
        request = pb.PublishRequest(peer_id="a", generation=7, publications=[publication])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await registry.stub.Publish(request, timeout=LIMIT_SECONDS)
        assert isinstance(error_from_rpc(caught.value, RegistryUnavailableError), InvalidArgumentError)


async def test_a_ticket_is_good_for_its_own_upload(directory: RememberedDirectory) -> None:
    """For a day, by the registry's clock; where there is no key none is."""
    keys, key = PublicationKeys([OLD]), RowKey(NAME, GOOD)
    async with serving(directory, keys=lambda: keys) as registry:
        ticket = keys.ticket(key, registry.clock.wall())
        assert registry.service.ticket_is_good(Publication(key, ticket=ticket))
        assert not registry.service.ticket_is_good(Publication(RowKey(NAME, EVIL), ticket=ticket))
        assert not registry.service.ticket_is_good(Publication(key))
        registry.clock.advance(TICKET_SECONDS)
        assert not registry.service.ticket_is_good(Publication(key, ticket=ticket))
    async with serving(directory) as registry:
        assert not registry.service.ticket_is_good(Publication(key, ticket=ticket))


@pytest.mark.parametrize("believes", [True, False])
async def test_times_without_a_tag_count_while_a_network_moves(redis_url: str, believes: bool) -> None:
    """A peer comes back whose versions nobody else has, from the time before there was a key: the newest stays the
    newest, whether it is pushed as it was or asked for first. Otherwise it is older than what is proven."""
    net = Net(redis_url)
    async with (
        aclosing(connect_writer(redis_url)) as writer,
        aclosing(connect_reader(redis_url)) as net.reader,
        serving(writer, system_clock=SystemClock(), keys=lambda: net.keys, believes=believes) as net.registry,
    ):
        older, _ = await net.share("a", GOOD)
        newer = at(older.ToNanoseconds() + 1)
        await net.join("b")
        await net.announce("b", held(EVIL, (newer, b"")))
        assert await net.newest() == (EVIL if believes else GOOD)
        assert net.unproven == (0 if believes else 1)
        other = ContentId(b"x" * 32)
        published, tag = await net.publish("b", other, found=at(older.ToNanoseconds() + 2), was_published=True)
        assert tag == net.keys.tag(RowKey(NAME, other), published.ToNanoseconds())
        assert (published.ToNanoseconds() == older.ToNanoseconds() + 2) == believes
        ahead, _ = await net.publish("b", other, found=at(MAX_INSTANT_NS), was_published=True)
        assert ahead.ToNanoseconds() <= time.time_ns()
