"""Files of origins: fetched by one peer for all, followed by the others while they come, and never wrong."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from minga_core.errors import (
    BusyError,
    ContentChangedError,
    ContentNotHeldError,
    FileNotFoundInDirectoryError,
    InternalError,
    InvalidArgumentError,
    InvalidNameError,
    MingaError,
    PeerUnavailableError,
    PermissionDeniedError,
    UnavailableError,
)
from minga_core.ids import ContentId
from minga_core.names import Name, parse_upload_name
from minga_core.records import FetchClaim, Fetcher
from minga_engine.parts.provisional import ProvisionalPart
from minga_engine.wire.digests import HEAD_BYTES, DigestStep
from minga_peer.origins.cache import Limit, _load, parse_limit
from minga_peer.origins.origin_file import OriginFile, name_of
from minga_peer.origins.source import Source
from minga_peer.share.conditions import Kind
from minga_peer.share.part_store import PartStore
from minga_runtime.rate_limit import Limits, RateLimit
from tests.support.origin import Origin, origin, sha256

from .conftest import Network, TestPeer, eventually, noise

MIB = 1024 * 1024


@pytest.fixture
async def place(network: Network) -> AsyncIterator[Origin]:
    """An origin that all peers may fetch from."""
    async with origin() as running:
        network.allowed.append(running.url)
        yield running


async def read(peer: TestPeer, file: OriginFile, piece_bytes: int = 100_000) -> bytes:
    """All of it, in order."""
    data = bytearray()
    async with peer.origins.open(file) as reader:
        while piece := await reader.read(len(data), piece_bytes):
            data += piece
        assert len(data) == reader.size_bytes
    return bytes(data)


async def peers_of(network: Network, count: int) -> list[TestPeer]:
    return [await network.peer(f"p{number}") for number in range(count)]


def left_over(peer: TestPeer) -> list[str]:
    """Files of parts."""
    return [path.name for path in (peer.root / ".minga" / "parts").iterdir()]


# One peer and its origin.


@pytest.mark.parametrize("size_bytes", [0, 1, 256 * 1024, 256 * 1024 + 1, 3 * MIB])
async def test_a_file_of_any_size_is_fetched_and_then_here(network: Network, place: Origin, size_bytes: int) -> None:
    """By digest and by URL, and each from the origin once."""
    (peer,) = await peers_of(network, 1)
    data = noise(size_bytes)
    url = place.put("/some/file.bin", data)
    for file in (OriginFile(url), OriginFile(url, sha256(data))):
        assert await read(peer, file) == data
        assert await read(peer, file) == data
    assert place.count("GET") == 2
    await eventually(lambda: left_over(peer) == [], "it is in place")


@pytest.mark.parametrize(
    "faults", [["no_validator"], ["no_length"], ["no_head"], ["weak"], ["no_validator", "no_length"]]
)
async def test_an_origin_that_says_little_is_read_all_the_same(
    network: Network, place: Origin, faults: list[str]
) -> None:
    """Without a size it is kept first; what nothing identifies is fetched each time."""
    (peer,) = await peers_of(network, 1)
    for fault in faults:
        setattr(place.faults, fault, True)
    data = noise(MIB + 17)
    url = place.put("/a.bin", data)
    for _ in range(2):
        assert await read(peer, OriginFile(url)) == data
    identified = faults in (["no_length"], ["no_head"])
    heads = place.sent_bytes - place.sent_bytes // len(data) * len(data)
    assert (place.sent_bytes - heads, heads) == (len(data) * (1 if identified else 2), 2 * (faults == ["no_head"]))


async def test_what_changes_at_the_origin_is_another_file(network: Network, place: Origin) -> None:
    """The origin says which version is current."""
    (peer,) = await peers_of(network, 1)
    for data in (b"first", b"second", b"", b"first"):
        url = place.put("/a.txt", data)
        assert await read(peer, OriginFile(url)) == data
    assert place.count("GET") == 3


async def test_a_wrong_digest_gives_not_the_last_chunk(network: Network, place: Origin) -> None:
    """Nothing is kept of it; and nothing is read of a file of one chunk."""
    (peer,) = await peers_of(network, 1)
    data = noise(3 * MIB)
    url, wrong = place.put("/a.bin", data), sha256(b"other")
    async with peer.origins.open(OriginFile(url, wrong)) as reader:
        assert await reader.read(0, 1000) == data[:1000]
        with pytest.raises(ContentChangedError, match=sha256(data)):
            await reader.read(len(data) - 1, 1)
    with pytest.raises(ContentChangedError, match="the origin sent"):
        await read(peer, OriginFile(place.put("/b.bin", b"small"), wrong))
    assert left_over(peer) == []
    assert peer.store.find(name_of(OriginFile(url, wrong))) is None


async def test_an_origin_that_ends_early_is_asked_for_the_rest(network: Network, place: Origin) -> None:
    """As long as each answer brings a chunk; where it takes no ranges nothing is left."""
    (peer,) = await peers_of(network, 1)
    data = noise(5 * MIB)
    url = place.put("/a.bin", data)
    place.faults.ends_after = 2 * MIB
    assert await read(peer, OriginFile(url)) == data
    assert place.sent_bytes <= 1.2 * len(data)
    assert peer.metric("minga_peer_origin_stalls_total", who="origin") == place.count("GET") - 1
    place.faults.no_ranges = True
    with pytest.raises(UnavailableError, match=r"did not arrive|ended after"):
        await read(peer, OriginFile(url, sha256(data)))
    assert left_over(peer) == []


async def test_a_file_that_changes_in_the_middle_is_no_file(network: Network, place: Origin) -> None:
    """The rest of another version is not put behind the beginning of the first."""
    (peer,) = await peers_of(network, 1)
    data = noise(5 * MIB)
    file = await peer.origins.identified(OriginFile(place.put("/a.bin", data)))
    place.faults.ends_after = 2 * MIB
    async with peer.origins.open(file) as reader:
        assert await reader.read(0, 10) == data[:10]
        place.put("/a.bin", noise(5 * MIB, seed=2))
        with pytest.raises(ContentChangedError):
            await reader.whole()
    assert left_over(peer) == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, PermissionDeniedError),
        (403, PermissionDeniedError),
        (404, FileNotFoundInDirectoryError),
        (410, FileNotFoundInDirectoryError),
        (429, UnavailableError),
        (500, UnavailableError),
    ],
)
async def test_an_origin_that_refuses_is_named(
    network: Network, place: Origin, status: int, error: type[MingaError]
) -> None:
    """With its status; and it is no refusal of a caller of ours."""
    (peer,) = await peers_of(network, 1)
    url = place.put("/a.bin?secret=1", b"x")
    place.faults.status = status
    with pytest.raises(error, match=f"HTTP {status}") as raised:
        await read(peer, OriginFile(url))
    assert "secret" not in str(raised.value)
    assert raised.value.refusal is None
    with pytest.raises(error, match=f"HTTP {status}"):
        await read(peer, OriginFile(url, sha256(b"x")))


async def test_an_origin_that_is_down_or_encodes_is_an_error(network: Network, place: Origin) -> None:
    """Bytes that are not those of the file are not taken for it."""
    network.allowed.append("http://127.0.0.1:9")
    (peer,) = await peers_of(network, 1)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        await read(peer, OriginFile("http://127.0.0.1:9/a"))
    with pytest.raises(UnavailableError, match="is not found"):
        await read(peer, OriginFile("https://no-such-host.invalid/a"))
    place.faults.encoding = "gzip"
    with pytest.raises(UnavailableError, match="encodes"):
        await read(peer, OriginFile(place.put("/a.bin", b"x")))


async def test_a_redirect_is_followed_with_its_address_checked_and_without_credentials(
    network: Network, place: Origin
) -> None:
    """To another host that is allowed; not to one that is not; not round and round."""
    async with origin() as other:
        (peer,) = await peers_of(network, 1)
        target = other.put("/a.bin", b"there")
        place.faults.redirect_to = target
        secret = {"Authorization": "Bearer secret", "Accept": "x/y"}
        with pytest.raises(PermissionDeniedError, match="not on the public network"):
            await read(peer, OriginFile(place.url + "/a.bin", headers=secret))
        assert not other.requests
        peer.origins.upstream.allowed = type(peer.origins.upstream.allowed)([place.url, other.url])
        assert await read(peer, OriginFile(place.url + "/a.bin", headers=secret)) == b"there"
        assert all(each.headers["authorization"] == "Bearer secret" for each in place.requests)
        assert all("authorization" not in each.headers for each in other.requests)
        assert all(each.headers["accept"] == "x/y" for each in other.requests)
        place.faults.redirect_to = place.url + "/a.bin"
        with pytest.raises(UnavailableError, match="redirects more than"):
            await read(peer, OriginFile(place.url + "/a.bin"))


async def test_what_is_verified_is_here_before_it_has_its_name(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has read its last chunk finds it on this machine from then on."""
    (peer,) = await peers_of(network, 1)
    data, may_become, become = noise(MIB), asyncio.Event(), PartStore.become

    async def late(parts: PartStore, part: ProvisionalPart) -> None:
        await may_become.wait()
        await become(parts, part)

    monkeypatch.setattr(PartStore, "become", late)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await read(peer, file) == data
    async with peer.origins.open(file) as reader:
        assert (reader.source, reader.local) == (Source.LOCAL, True)
        assert await reader.read(10, 10) == data[10:20]
    may_become.set()
    await eventually(lambda: left_over(peer) == [], "it is in place")


async def test_readers_of_one_machine_share_what_comes(network: Network, place: Origin) -> None:
    """Those that begin while it comes as well."""
    (peer,) = await peers_of(network, 1)
    data = noise(4 * MIB)
    file = OriginFile(place.put("/a.bin", data))
    place.faults.bytes_per_second = 8 * MIB
    first = [asyncio.create_task(read(peer, file)) for _ in range(3)]
    await eventually(lambda: place.sent_bytes > MIB, "it comes")
    assert await read(peer, file) == data
    assert await asyncio.gather(*first) == [data] * 3
    assert place.count("GET") == 1


async def test_a_file_goes_on_for_a_while_after_its_last_reader(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after one before: clients ask for a file by several requests, and what came would be dropped between two."""
    (peer,) = await peers_of(network, 1)
    data = noise(3 * MIB)
    place.faults.stalls_after = MIB
    async with peer.origins.open(OriginFile(place.put("/a.bin", data), sha256(data))):
        (arrival,) = peer.origins._running
    for seconds in (0.0, 3600.0):
        monkeypatch.setattr("minga_peer.origins.origins.LINGER_SECONDS", seconds)
        with peer.origins._used(arrival):
            pass
    # What is due by now is done.
    await asyncio.sleep(0)
    place.released.set()
    assert (await arrival.whole()).size_bytes == len(data)


async def test_all_that_comes_ends_at_once(network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that does not take the end of a claim keeps a peer that stops for one time, not one for each file."""
    (peer,) = await peers_of(network, 1)
    place.faults.stalls_after = 0
    files = [OriginFile(place.put(f"/{number}.bin", data), sha256(data)) for number, data in enumerate((b"1", b"2"))]
    reading = [asyncio.create_task(read(peer, file)) for file in files]
    await eventually(lambda: place.count("GET") == 2, "both come")
    claim_fetch, given_up, may_end = peer.registry.claim_fetch, set(), asyncio.Event()

    async def slow(claim: FetchClaim) -> Fetcher | None:
        if claim.release:
            given_up.add(claim.name)
            await may_end.wait()
        return await claim_fetch(claim)

    monkeypatch.setattr(peer.registry, "claim_fetch", slow)
    closing = asyncio.create_task(peer.origins.aclose())
    try:
        await eventually(lambda: given_up == set(map(name_of, files)), "each is given up")
    finally:
        may_end.set()
    await closing
    for each in await asyncio.gather(*reading, return_exceptions=True):
        assert isinstance(each, PeerUnavailableError)


async def test_a_reader_that_leaves_early_leaves_nothing(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Soon after the last one has left, the origin is not read any more."""
    monkeypatch.setattr("minga_peer.origins.origins.LINGER_SECONDS", 0.05)
    (peer,) = await peers_of(network, 1)
    place.faults.bytes_per_second = MIB
    file = OriginFile(place.put("/a.bin", noise(20 * MIB)))
    async with peer.origins.open(file) as reader:
        assert await reader.read(0, 1)
    await eventually(lambda: left_over(peer) == [], "it is dropped")
    await eventually(lambda: network.claims.claims == {}, "the claim is given up")


# Several peers.


async def test_peers_that_ask_at_once_cost_the_origin_one_copy(network: Network, place: Origin) -> None:
    """One fetches, three follow; all of them hold it in the end, and have the same content."""
    peers = await peers_of(network, 4)
    data = noise(8 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.bytes_per_second = 16 * MIB
    assert await asyncio.gather(*(read(peer, file) for peer in peers)) == [data] * 4
    assert place.sent_bytes <= 1.05 * len(data)
    await eventually(lambda: all(peer.store.find(name_of(file)) for peer in peers), "all hold it")
    assert len({str(row.key) for peer in peers if (row := peer.store.find(name_of(file)))}) == 1
    await eventually(lambda: network.claims.claims == {}, "the claim is given up")


async def test_first_bytes_are_read_before_there_is_a_chunk(network: Network, place: Origin) -> None:
    """At the peer that fetches and at those that follow; never those of a file of one chunk, which is its end too."""
    peers = await peers_of(network, 3)
    data, small = noise(3 * MIB), noise(200_000)
    file, other = (OriginFile(place.put(f"/{len(each)}", each), sha256(each)) for each in (data, small))
    place.faults.stalls_after = 100_000
    async with AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(peer.origins.open(file)) for peer in peers]
        for reader in readers:
            assert await reader.read(10, 100) == data[10:110]
            assert await reader.read(0, MIB) == data[:HEAD_BYTES]
        assert [held_bytes(peer) for peer in peers] == [0, 0, 0]
        first = await stack.enter_async_context(peers[0].origins.open(other))
        early = asyncio.create_task(first.read(0, 10))
        await eventually(lambda: place.sent_bytes >= 200_000, "its first bytes come")
        assert not (await asyncio.wait({early}, timeout=0.1))[0]
        place.released.set()
        assert await early == small[:10]
        assert await asyncio.gather(*(read(peer, file) for peer in peers)) == [data] * 3
    assert place.count("GET") == 2


@pytest.mark.parametrize(
    ("fault", "value", "copies"),
    [
        ("no_length", True, 1.05),
        ("no_ranges", True, 1.05),
        ("weak", True, 1.05),
        ("ends_after", MIB, 1.4),
        ("bytes_per_second", 2.0 * MIB, 1.05),
    ],
)
async def test_whatever_the_origin_does_is_borne_by_one_peer(
    network: Network, place: Origin, fault: str, value: object, copies: float
) -> None:
    """It says no size, takes no ranges, has no strong tag, ends early each time, or is slower than the swarm: it sends
    about one copy, and everybody has it."""
    peers = await peers_of(network, 3)
    data = noise(3 * MIB)
    setattr(place.faults, fault, value)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await asyncio.gather(*(read(peer, file) for peer in peers)) == [data] * 3
    assert place.sent_bytes <= copies * len(data)


async def test_an_origin_that_is_faster_than_the_swarm_sends_one_copy_too(network: Network, place: Origin) -> None:
    """The peer that fetches has it long before it has passed it on; the others wait for that."""
    network.limits = Limits(RateLimit(2 * MIB), RateLimit(None))
    peers = await peers_of(network, 3)
    data = noise(3 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await asyncio.gather(*(read(peer, file) for peer in peers)) == [data] * 3
    assert place.sent_bytes == len(data)


async def test_followers_of_a_file_that_changes_in_the_middle_have_no_file(network: Network, place: Origin) -> None:
    """They are cut as the peer that fetches, and the next one who asks gets the new version."""
    peers = await peers_of(network, 3)
    data, later = noise(5 * MIB), noise(5 * MIB, seed=2)
    file = await peers[0].origins.identified(OriginFile(place.put("/a.bin", data)))
    place.faults.ends_after = 2 * MIB
    place.faults.bytes_per_second = 4 * MIB
    reading = [asyncio.create_task(read(peer, file)) for peer in peers]
    await eventually(lambda: max(map(held_bytes, peers)) >= MIB, "it comes")
    place.put("/a.bin", later)
    ended = await asyncio.gather(*reading, return_exceptions=True)
    assert all(isinstance(each, ContentChangedError) for each in ended), ended
    assert [left_over(peer) for peer in peers] == [[], [], []]
    place.faults.ends_after = None
    assert await read(peers[1], OriginFile(file.url)) == later


async def test_followers_of_an_origin_that_goes_down_are_told_so(network: Network, place: Origin) -> None:
    """Each asks it once more, and then says what is wrong; nothing is left."""
    peers = await peers_of(network, 3)
    data = noise(5 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.ends_after = 2 * MIB
    place.faults.bytes_per_second = 4 * MIB
    reading = [asyncio.create_task(read(peer, file)) for peer in peers]
    await eventually(lambda: max(map(held_bytes, peers)) >= MIB, "it comes")
    place.faults.status = 503
    ended = await asyncio.gather(*reading, return_exceptions=True)
    assert all(isinstance(each, UnavailableError) for each in ended), ended
    assert "HTTP 503" in str(ended[0])
    assert [left_over(peer) for peer in peers] == [[], [], []]


async def test_who_comes_later_takes_it_from_those_that_have_it(network: Network, place: Origin) -> None:
    """And verifies it all the same."""
    peers = await peers_of(network, 2)
    data = noise(2 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await read(peers[0], file) == data
    await eventually(lambda: file_is_found(network, file), "it is announced")
    async with peers[1].origins.open(file) as reader:
        assert reader.source is Source.PEERS
        assert await reader.read(2 * MIB - 5, 5) == data[-5:]
    assert place.count("GET") == 1


async def test_what_was_found_is_not_looked_up_again(network: Network, place: Origin) -> None:
    """A mirror asks whether the swarm has a digest, and then opens what was found."""
    peers = await peers_of(network, 2)
    data = noise(2 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await read(peers[0], file) == data
    await eventually(lambda: file_is_found(network, file), "it is announced")
    found = await peers[1].origins.held(file.digest)
    assert found is not None
    network.directory.located.clear()
    async with peers[1].origins.open(file, found) as reader:
        assert await reader.read(0, 5) == data[:5]
        assert reader.source is Source.PEERS
    assert place.count("GET") == 1


def held_bytes(peer: TestPeer) -> int:
    return sum(part.held_bytes for part in peer.store.inventory.parts.values())


def file_is_found(network: Network, file: OriginFile) -> bool:
    return name_of(file) in network.directory.located


@pytest.mark.parametrize("size_bytes", [0, 1, 3 * MIB])
async def test_a_file_that_is_not_announced_yet_is_taken_from_its_fetcher(
    network: Network, place: Origin, size_bytes: int
) -> None:
    """Nobody reads it there any more, and no locator knows of it: its claim still names who has it."""
    peers = await peers_of(network, 2)
    peers[0].registry.may_announce.clear()
    data = noise(size_bytes)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await read(peers[0], file) == data
    await eventually(lambda: peers[0].store.find(name_of(file)) is not None, "it is in place")
    assert await read(peers[1], file) == data
    assert place.count("GET") == 1
    peers[0].registry.may_announce.set()


async def test_who_claims_what_is_held_by_now_is_followed_like_a_fetcher(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both looked before it was announced, and claim after: one copies it from its holder, and the other follows that
    one. Nobody is taken for lost, and the origin is not asked again."""
    monkeypatch.setattr("minga_peer.origins.following.SOURCE_WAIT", timedelta(seconds=1))
    holder, *late = await peers_of(network, 3)
    data = noise(4 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await read(holder, file) == data
    await eventually(lambda: file_is_found(network, file), "it is announced")
    found = network.directory.located.pop(name_of(file))
    late[0].registry.may_claim.clear()
    late[1].registry.may_claim.clear()
    reading = [asyncio.create_task(read(peer, file)) for peer in late]
    await eventually(lambda: all(peer.registry.claim_count == 1 for peer in late), "both have looked, and claim")
    network.directory.located[name_of(file)] = found
    for peer in late:
        peer.registry.may_claim.set()
    assert await asyncio.gather(*reading) == [data] * 2
    assert place.count("GET") == 1
    assert [peer.metric("minga_peer_origin_stalls_total", who="fetcher") for peer in late] == [0, 0]


@pytest.mark.parametrize("no_ranges", [False, True])
async def test_a_fetcher_that_dies_is_replaced_by_a_follower(network: Network, place: Origin, no_ranges: bool) -> None:
    """Which goes on from the end of its own beginning, or reads the origin from its start; no reader notices."""
    peers = await peers_of(network, 3)
    data = noise(8 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.stalls_after = 4 * MIB
    place.faults.no_ranges = no_ranges
    first = asyncio.create_task(read(peers[0], file))
    await eventually(lambda: place.sent_bytes > 0, "the first one fetches")
    others = [asyncio.create_task(read(peer, file)) for peer in peers[1:]]
    await eventually(lambda: min(map(held_bytes, peers[1:])) >= 3 * MIB, "the others have what there is")
    place.faults.stalls_after = None
    await peers[0].die()
    assert await asyncio.gather(*others) == [data] * 2
    # One is lost, and its successor not.
    assert [peer.metric("minga_peer_origin_stalls_total", who="fetcher") for peer in peers[1:]] == [1, 1]
    # A follower may lack the last MiB of the 4 that were sent; what no other one has is asked for after the rest.
    assert place.count("GET") <= (2 if no_ranges else 3)
    assert place.sent_bytes <= (1.5 if no_ranges else 1.15) * len(data)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_what_other_followers_have_is_not_fetched_again(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that lacks much takes over: what another one has comes from there, while the origin sends the rest,
    however long that takes."""
    monkeypatch.setattr("minga_peer.origins.following.GAPS_SECONDS", 0.4)
    fetcher, full = await peers_of(network, 2)
    network.limits = Limits(RateLimit(None), RateLimit(4 * MIB))
    slow = await network.peer("slow")
    data = noise(6 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.stalls_after = 5 * MIB
    reading = [asyncio.create_task(read(peer, file)) for peer in (fetcher, full)]
    await eventually(lambda: held_bytes(full) >= 5 * MIB, "one follower has what there is")
    full.registry.may_claim.clear()
    reading.append(asyncio.create_task(read(slow, file)))
    await eventually(lambda: held_bytes(slow) > 0, "the other one has begun")
    place.faults.stalls_after = None
    await fetcher.die()
    await eventually(lambda: place.count("GET") == 2, "it goes on")
    full.registry.may_claim.set()
    assert await asyncio.gather(*reading[1:]) == [data] * 2
    assert place.sent_bytes <= 1.1 * len(data)
    reading[0].cancel()
    await asyncio.gather(reading[0], return_exceptions=True)


async def test_who_takes_over_fetches_last_what_others_have(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its link that would be in the way of what nobody has, which the origin is asked for."""
    monkeypatch.setattr("minga_peer.origins.following.GAPS_SECONDS", 0.2)
    fetcher, full = await peers_of(network, 2)
    network.limits = Limits(RateLimit(None), RateLimit(2 * MIB))
    slow = await network.peer("slow")
    data = noise(5 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.stalls_after = 4 * MIB
    reading = [asyncio.create_task(read(peer, file)) for peer in (fetcher, full)]
    await eventually(lambda: held_bytes(full) >= 4 * MIB, "one follower has what there is")
    full.registry.may_claim.clear()
    async with slow.origins.open(file) as reader:
        whole = asyncio.create_task(reader.whole())
        await eventually(lambda: held_bytes(slow) > 0, "the other one has begun")
        place.faults.stalls_after = 0
        await fetcher.die()
        await eventually(lambda: place.count("GET") == 2, "it asks for the rest, which does not come yet")
        held = held_bytes(slow)
        await asyncio.wait({whole}, timeout=0.5)
        assert held_bytes(slow) - held < MIB // 2
        place.released.set()
        full.registry.may_claim.set()
        await whole
    assert await reading[1] == data
    assert place.sent_bytes <= 1.1 * len(data)
    reading[0].cancel()
    await asyncio.gather(reading[0], return_exceptions=True)


async def test_a_fetcher_with_wrong_digests_is_found_out_and_not_followed_again(
    network: Network, place: Origin
) -> None:
    """1. It swears to other bytes: no follower hands out the end of them, and nothing is kept. 2. The next time the
    follower fetches for itself."""
    liar, peer = await peers_of(network, 2)
    data, evil = noise(3 * MIB), noise(3 * MIB, seed=9)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    other = OriginFile(place.put("/evil.bin", evil), sha256(evil))
    # As a fetcher would that verifies nothing.
    async with liar.origins.open(other) as reader:
        located = await reader.whole()
    manifest = await liar.store.manifest(located.content_id)
    transfer_id = b"\x01" * 32
    liar.store.inventory.stand_ins.add(ContentId(transfer_id), located.content_id)

    async def lies(asked: bytes) -> AsyncIterator[DigestStep]:
        assert asked == transfer_id
        yield DigestStep(manifest.size_bytes, manifest.digests)
        yield DigestStep(whole=True)

    liar.service.digests = lies  # type: ignore[assignment]
    port = liar.service.http_port
    network.claims.claims[name_of(file)] = Fetcher(liar.peer_id, liar.source.address, port, transfer_id)
    async with peer.origins.open(file) as reader:
        assert await reader.read(0, 10) == evil[:10]
        with pytest.raises(ContentChangedError, match=r"p0 sent sha256:"):
            await reader.read(3 * MIB - 1, 1)
    assert left_over(peer) == []
    assert await read(peer, file) == data


async def test_a_fetcher_that_sends_another_beginning_is_found_out(network: Network, place: Origin) -> None:
    """Its digests are right, so all the rest would be: no reader gets the end of such a file."""
    liar, peer = await peers_of(network, 2)
    data = noise(3 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    async with liar.origins.open(file) as reader:
        located = await reader.whole()
    await eventually(lambda: file_is_found(network, file), "it is announced")
    network.directory.located.clear()
    manifest = await liar.store.manifest(located.content_id)
    transfer_id = b"\x01" * 32
    liar.store.inventory.stand_ins.add(ContentId(transfer_id), located.content_id)

    async def lies(asked: bytes) -> AsyncIterator[DigestStep]:
        yield DigestStep(manifest.size_bytes)
        yield DigestStep(head=b"x" * HEAD_BYTES)
        await begun.wait()
        yield DigestStep(digests=manifest.digests)
        yield DigestStep(whole=True)

    begun = asyncio.Event()
    liar.service.digests = lies  # type: ignore[assignment]
    port = liar.service.http_port
    network.claims.claims[name_of(file)] = Fetcher(liar.peer_id, liar.source.address, port, transfer_id)
    async with peer.origins.open(file) as reader:
        assert await reader.read(0, 10) == b"x" * 10
        begun.set()
        with pytest.raises(ContentChangedError, match="p0 sent another beginning"):
            await reader.read(3 * MIB - 1, 1)
    assert left_over(peer) == []
    assert await read(peer, file) == data


async def alive_and_nothing_else(transfer_id: bytes) -> AsyncIterator[DigestStep]:
    while True:
        yield DigestStep()
        await asyncio.sleep(0.01)


async def too_many_digests(transfer_id: bytes) -> AsyncIterator[DigestStep]:
    yield DigestStep(10, bytes(64))
    await asyncio.sleep(60)


@pytest.mark.parametrize("error", [None, PeerUnavailableError("not reached")])
async def test_a_fetcher_that_does_not_answer_in_time_keeps_its_claim(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch, error: MingaError | None
) -> None:
    """It lives, and others wait for processors and links as well: it is followed once more, and nobody takes over."""
    monkeypatch.setattr("minga_peer.origins.following.SILENCE_SECONDS", 0.5)
    fetcher, peer = await peers_of(network, 2)
    data = noise(3 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.stalls_after = MIB
    first = asyncio.create_task(read(fetcher, file))
    await eventually(lambda: place.sent_bytes > 0, "it fetches")
    claim = network.claims.claims[name_of(file)]
    follow, asked = fetcher.service.digests, []

    async def late(transfer_id: bytes) -> AsyncIterator[DigestStep]:
        asked.append(transfer_id)
        if len(asked) == 1:
            if error is not None:
                raise error
            await asyncio.sleep(60)
        async for step in follow(transfer_id):  # type: ignore[misc]
            yield step

    fetcher.service.digests = late  # type: ignore[assignment]
    second = asyncio.create_task(read(peer, file))
    await eventually(lambda: len(asked) == 2 and held_bytes(peer) > 0, "it is followed again")
    assert network.claims.claims[name_of(file)] == claim
    place.released.set()
    assert await asyncio.gather(first, second) == [data] * 2
    assert place.count("GET") == 1


async def test_followers_for_which_a_fetcher_has_no_room_wait_for_it(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For ten minutes, in which they ask again and again: it lives, and the origin is asked once. They find the file
    when it is there."""
    monkeypatch.setattr("minga_peer.origins.transfer.BUSY_SECONDS", 0.0)
    monkeypatch.setattr("minga_peer.origins.transfer.MAX_FETCHERS", 1)
    fetcher, peer = await peers_of(network, 2)
    data = noise(3 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.stalls_after = MIB
    first = asyncio.create_task(read(fetcher, file))
    await eventually(lambda: place.sent_bytes > 0, "it fetches")
    asked = []

    async def full(transfer_id: bytes) -> AsyncIterator[DigestStep]:
        asked.append(transfer_id)
        raise BusyError("too many followers", retry_after=timedelta(0))
        yield DigestStep()

    fetcher.service.digests = full  # type: ignore[assignment]
    with monkeypatch.context() as patched:
        patched.setattr("minga_peer.origins.transfer.MAX_BUSY", 3)
        with pytest.raises(UnavailableError, match="p0 fetches it, and has no room"):
            await read(peer, file)
    assert len(asked) == 3
    second = asyncio.create_task(read(peer, file))
    await eventually(lambda: len(asked) > 6, "it is asked again and again")
    place.released.set()
    assert await asyncio.gather(first, second) == [data] * 2
    assert place.count("GET") == 1


@pytest.mark.parametrize("error", [InternalError("a fault"), PermissionDeniedError("not you")])
async def test_a_fetcher_that_refuses_a_follower_keeps_nobody_from_the_origin(
    network: Network, place: Origin, error: MingaError
) -> None:
    """The follower fetches for itself, and the claim stays: others may do better."""
    fetcher, peer = await peers_of(network, 2)
    data = noise(3 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.stalls_after = MIB
    first = asyncio.create_task(read(fetcher, file))
    await eventually(lambda: place.sent_bytes > 0, "it fetches")
    claim = network.claims.claims[name_of(file)]

    async def refuses(transfer_id: bytes) -> AsyncIterator[DigestStep]:
        raise error
        yield DigestStep()

    fetcher.service.digests = refuses  # type: ignore[assignment]
    second = asyncio.create_task(read(peer, file))
    await eventually(lambda: place.count("GET") == 2, "it asks the origin")
    assert network.claims.claims[name_of(file)] == claim
    place.released.set()
    assert await asyncio.gather(first, second) == [data] * 2


async def half_a_head(transfer_id: bytes) -> AsyncIterator[DigestStep]:
    yield DigestStep(10, head=bytes(HEAD_BYTES // 2))


async def half_a_digest(transfer_id: bytes) -> AsyncIterator[DigestStep]:
    yield DigestStep(10, bytes(16))


async def silence(transfer_id: bytes) -> AsyncIterator[DigestStep]:
    await asyncio.sleep(60)
    yield DigestStep()


@pytest.mark.parametrize("steps", [alive_and_nothing_else, too_many_digests, half_a_head, half_a_digest, silence])
async def test_a_fetcher_that_brings_nothing_is_not_waited_for(
    network: Network,
    place: Origin,
    monkeypatch: pytest.MonkeyPatch,
    steps: Callable[[bytes], AsyncIterator[DigestStep]],
) -> None:
    """Whatever it says instead: the follower fetches."""
    monkeypatch.setattr("minga_peer.origins.following.STALL_SECONDS", 0.1)
    monkeypatch.setattr("minga_peer.origins.following.SILENCE_SECONDS", 0.5)
    liar, peer = await peers_of(network, 2)
    file = OriginFile(place.put("/a.bin", b"0123456789"), sha256(b"0123456789"))
    liar.service.digests = steps  # type: ignore[assignment]
    fetcher = Fetcher(liar.peer_id, liar.source.address, liar.service.http_port, b"\x01" * 32)
    network.claims.claims[name_of(file)] = fetcher
    assert await read(peer, file) == b"0123456789"
    assert place.count("GET") == 1


async def test_a_transfer_without_an_id_is_followed_by_nobody(network: Network, place: Origin) -> None:
    """That of a peer that fetches for itself alone."""
    (peer,) = await peers_of(network, 1)
    network.claims.away = True
    place.faults.stalls_after = 0
    async with peer.origins.open(OriginFile(place.put("/a.bin", b"x"), sha256(b"x"))):
        for wrong in (b"", bytes(32)):
            with pytest.raises(ContentNotHeldError):
                await anext(peer.origins.digests(wrong))
    place.released.set()


async def test_a_wrong_file_under_the_name_of_a_digest_is_not_believed(network: Network, place: Origin) -> None:
    """Any peer may announce one: it is not handed out whole, not kept, and not asked for again."""
    evil, peer = await peers_of(network, 2)
    data = noise(2 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    row = await evil.shares("any.bin", noise(2 * MIB, seed=3))
    network.directory.holds(row._replace(key=row.key._replace(name=name_of(file))), evil.source)
    with pytest.raises(ContentChangedError, match="what peers have"):
        await read(peer, file)
    assert peer.store.find(name_of(file)) is None
    assert await read(peer, file) == data


async def test_without_a_registry_each_fetches_for_itself(network: Network, place: Origin) -> None:
    """A registry that is away keeps nobody from the origin."""
    peers = await peers_of(network, 2)
    network.claims.away = True
    data = noise(MIB)
    file = OriginFile(place.put("/a.bin", data))
    place.faults.stalls_after = 0
    reading = [asyncio.create_task(read(peer, file)) for peer in peers]
    await eventually(lambda: place.count("GET") == 2, "both ask the origin")
    place.released.set()
    assert await asyncio.gather(*reading) == [data] * 2


async def test_holders_that_are_gone_are_no_reason_to_fail(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody gives what the directory names: the origin does."""
    monkeypatch.setattr("minga_peer.origins.arrival.SOURCE_WAIT", timedelta(seconds=0.2))
    holder, peer = await peers_of(network, 2)
    data = noise(MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await read(holder, file) == data
    await eventually(lambda: file_is_found(network, file), "it is announced")
    await holder.die()
    assert await read(peer, file) == data
    assert place.count("GET") == 2
    assert peer.metric("minga_peer_origin_stalls_total", who="holders") == 1


async def test_a_follower_takes_over_from_a_fetcher_that_is_refused(network: Network, place: Origin) -> None:
    """Its credentials may be better."""
    peers = await peers_of(network, 2)
    data = noise(MIB)
    url = place.put("/a.bin", data)
    place.faults.status = 401
    with pytest.raises(PermissionDeniedError):
        await read(peers[0], OriginFile(url, sha256(data)))
    place.faults.status = 200
    assert await read(peers[1], OriginFile(url, sha256(data))) == data


async def test_a_name_is_one_content(network: Network) -> None:
    """By digest, or by URL and validator; a date alone goes with the size."""
    del network
    url = "https://host/a/b.bin?x=1"
    by_digest = OriginFile("https://host/a/b.bin", f"sha256:{'ab' * 32}")
    assert name_of(by_digest) == Name(f"origins/sha256/{'ab' * 32}")
    tagged = [
        OriginFile(url, validator='"1"'),
        OriginFile(url, validator='"2"'),
        OriginFile(url + "2", validator='"1"'),
    ]
    dated = [OriginFile(url, validator="Tue, 01 Jan 2030 00:00:00 GMT", size_bytes=size) for size in (1, 2)]
    names = [name_of(file) for file in (*tagged, *dated)]
    assert len(set(names)) == 5
    assert all(name.startswith("origins/url/") and name.endswith("/b.bin") for name in names)
    for wrong in ("sha256:abc", "sha1:" + "0" * 40, "0" * 64):
        with pytest.raises(InvalidArgumentError):
            OriginFile(url, wrong)


async def test_only_what_was_fetched_is_shared_under_origins(network: Network, place: Origin) -> None:
    """1. A file that somebody drops there is a condition, and no row. 2. What was fetched is shared, also after it was
    touched; not once somebody has changed it."""
    (peer,) = await peers_of(network, 1)
    data = noise(1000)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    name = name_of(file)
    dropped = peer.root / name_of(OriginFile(file.url, sha256(b"dropped")))
    dropped.parent.mkdir(parents=True)
    dropped.write_bytes(b"dropped")
    assert await read(peer, file) == data
    await eventually(lambda: peer.store.find(name) is not None, "it is in place")
    peer.store.sync.rescan()
    conditions = peer.store.conditions
    await eventually(lambda: conditions.count(Kind.BAD_NAME) == 1, "the dropped one is refused")
    (peer.root / name).touch()
    await eventually(lambda: row_is(peer, name, (peer.root / name).stat().st_mtime_ns), "it is shared as it is now")
    (peer.root / name).write_bytes(b"changed")
    await eventually(lambda: conditions.count(Kind.BAD_NAME) == 2, "the changed one is refused")
    assert peer.store.table.rows() == []
    with pytest.raises(InvalidNameError, match="are for what peers fetch"):
        parse_upload_name(name)


def row_is(peer: TestPeer, name: Name, modified_ns: int) -> bool:
    row = peer.store.find(name)
    return row is not None and row.modified_ns == modified_ns


async def test_what_was_not_used_for_longest_is_evicted_and_nothing_else(network: Network, place: Origin) -> None:
    """1. A third file pushes the oldest out; 2. not when that is pinned, or was read since; 3. what was published is no
    matter of the limit. 4. Pins and uses outlast the process."""
    network.cache_limit = Limit(2 * MIB + 100)
    (peer,) = await peers_of(network, 1)
    await peer.shares("published.bin", noise(5 * MIB, seed=7))
    cache = peer.origins.cache
    names = []

    async def fetch(number: int) -> None:
        data = noise(MIB, seed=number)
        file = OriginFile(place.put(f"/{number}", data), sha256(data))
        async with peer.origins.open(file) as reader:
            await reader.whole()
        names.append(name_of(file))

    def here() -> list[int]:
        return [number for number, name in enumerate(names) if peer.store.find(name)]

    for number in range(3):
        await fetch(number)
    await eventually(lambda: here() == [1, 2], "the first one is evicted")
    cache.used(names[1], "http://host/one?signature=secret")
    await fetch(3)
    await eventually(lambda: here() == [1, 3], "the one that was not read")
    await cache.pin(names[1], pinned=True)
    for number in (4, 5):
        await fetch(number)
    await eventually(lambda: here() == [1, 5], "the pinned one stays")
    assert [(file.name, file.pinned) for file in cache.files()] == [(names[5], False), (names[1], True)]
    assert peer.store.find(Name("published.bin"))
    await cache.aclose()
    kept = _load(peer.root / ".minga" / "cache.json")[names[1]]
    assert (kept.pinned, kept.url) == (True, "http://host/one")
    with pytest.raises(FileNotFoundInDirectoryError):
        await cache.pin(Name("published.bin"), pinned=True)


async def test_what_was_published_of_an_origin_stays_when_that_is_evicted(network: Network, place: Origin) -> None:
    """As `minga get URL --as NAME` publishes it: the name is somebody's, the cached file nobody's."""
    network.cache_limit = Limit(MIB)
    (peer,) = await peers_of(network, 1)
    data = noise(MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    async with peer.origins.open(file) as reader:
        content_id = (await reader.whole()).content_id
        await peer.origins.publish(content_id, Name("mine.bin"), overwrite=False)
    await read(peer, OriginFile(place.put("/b.bin", noise(MIB, seed=2))))
    await eventually(lambda: peer.store.find(name_of(file)) is None, "the cached file is evicted")
    assert (peer.root / "mine.bin").read_bytes() == data
    assert peer.store.find(Name("mine.bin"))


async def test_uses_that_an_earlier_version_saved_are_read(tmp_path: Path) -> None:
    """Without a URL."""
    path = tmp_path / "cache.json"
    path.write_text(json.dumps({"origins/sha256/a": [1.5, True]}))
    assert [(use.at, use.pinned, use.url) for use in _load(path).values()] == [(1.5, True, "")]


def test_a_limit_is_a_share_or_bytes() -> None:
    assert parse_limit("20%").of(1000) == 200
    assert parse_limit("1.5%").of(1000) == 15
    assert parse_limit("500GB").of(1000) == 500_000_000_000
    assert parse_limit("0").of(1000) == 0
    for wrong in ("-1%", "101%", "x%", "%", "nan%", "5 apples", ""):
        with pytest.raises(InvalidArgumentError):
            parse_limit(wrong)
