"""An origin that limits each connection is asked over several; any other over one, or for a moment over one more."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from minga_core.chunks import ChunkSet, Geometry
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.pieces import Piece, Pieces
from minga_runtime.rate_limit import Limits, RateLimit
from tests.support import origin as origins
from tests.support.origin import Origin, OriginFaults, origin, sha256

from .conftest import Network, eventually, noise
from .test_origins import MIB, held_bytes, peers_of, read

RATE = 2.0 * MIB


@pytest.fixture
async def place(network: Network, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Origin]:
    """An origin whose connections are slow, for peers that look soon whether another one helps."""
    monkeypatch.setattr("minga_peer.origins.fetching.MEASURED_SECONDS", 0.4)
    monkeypatch.setattr("minga_peer.origins.pieces.PIECE_BYTES", MIB)
    async with origin() as running:
        network.allowed.append(running.url)
        running.faults.bytes_per_second = RATE
        yield running


async def second_given_up(place: Origin) -> None:
    """Wait until the second connection has ended, and have the first one go on, which stalls before the second one's
    piece: were it there before, it would have to ask for that itself."""

    def is_given_up() -> bool:
        connections = [task for task in asyncio.all_tasks() if task.get_name().startswith("origin-connection-")]
        return place.count("GET") == 2 and len(connections) == 1

    await eventually(is_given_up, "the second one is given up")
    place.released.set()


async def test_a_limit_of_each_connection_is_none_of_the_file(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four connections at most, each with what the others have not; followers get it all the same."""
    # A busy machine makes rates of any kind.
    monkeypatch.setattr("minga_peer.origins.fetching.GAIN", 0.5)
    peers = await peers_of(network, 2)
    data = noise(10 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    assert await asyncio.gather(*(read(peer, file) for peer in peers)) == [data] * 2
    # One that was closed just now may still be counted.
    assert 3 <= place.most_answering <= 5
    assert place.sent_bytes <= 1.1 * len(data)
    ranges = [each.headers for each in place.requests if each.method == "GET"][1:]
    assert all("range" in each and "if-range" in each for each in ranges)


async def test_an_origin_that_limits_the_client_is_left_alone(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another connection brings little, there are soon fewer."""
    # As above: no noise is so much.
    monkeypatch.setattr("minga_peer.origins.fetching.GAIN", 3.0)
    (peer,) = await peers_of(network, 1)
    data = noise(6 * MIB)
    place.faults.shared = True
    assert await read(peer, OriginFile(place.put("/a.bin", data))) == data
    # The second one, and the one that made room for it.
    assert place.most_answering <= 3
    assert place.sent_bytes <= 1.1 * len(data)


async def test_connections_are_left_to_other_files(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer has so many in all: those that only make one file faster are not made of the last half of them."""
    monkeypatch.setattr("minga_peer.origins.fetching.GAIN", 0.5)
    monkeypatch.setattr("minga_peer.origins.upstream.MAX_CONNECTIONS", 4)
    (peer,) = await peers_of(network, 1)
    files = {place.put(f"/{number}.bin", data): data for number, data in enumerate([noise(4 * MIB), noise(3 * MIB)])}
    assert await asyncio.gather(*(read(peer, OriginFile(url)) for url in files)) == list(files.values())
    assert place.most_answering <= 3


async def test_a_file_for_which_there_is_no_connection_waits_and_a_question_does_not(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault: the 65th file that came to a peer at once failed after eight seconds, and all that was asked then."""
    monkeypatch.setattr("minga_peer.origins.upstream.MAX_TRANSFERS", 1)
    (peer,) = await peers_of(network, 1)
    files = {place.put(f"/{number}.bin", data): data for number, data in enumerate([noise(2 * MIB), noise(MIB)])}
    place.faults.stalls_after = 100_000
    reading = [asyncio.create_task(read(peer, OriginFile(url, sha256(data)))) for url, data in files.items()]
    await eventually(
        lambda: place.sent_bytes > 0 and len(network.claims.claims) == 2, "one comes, and both are claimed"
    )
    assert (await peer.origins.described(OriginFile(next(iter(files))))).size_bytes == 2 * MIB
    assert place.count("GET") == 1
    place.released.set()
    assert await asyncio.gather(*reading) == list(files.values())


@pytest.mark.parametrize("fault", ["most_answers", "ignores_ranges", "no_ranges", "no_validator", "no_length"])
async def test_an_origin_that_takes_one_connection_is_read_over_one(
    network: Network, place: Origin, fault: str
) -> None:
    """It refuses the second, or gives it all of the file; or it is not asked at all."""
    (peer,) = await peers_of(network, 1)
    data = noise(3 * MIB)
    setattr(place.faults, fault, True)
    asked_twice = fault in ("most_answers", "ignores_ranges")
    place.faults.stalls_after = MIB // 2 if asked_twice else None
    reading = asyncio.create_task(read(peer, OriginFile(place.put("/a.bin", data), sha256(data))))
    if asked_twice:
        await second_given_up(place)
    assert await reading == data
    assert place.count("GET") == 1 + asked_twice
    assert place.sent_bytes <= 1.4 * len(data)


async def test_an_origin_that_counts_a_connection_that_has_ended_is_asked_once_more(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault: it refused the next request of the same client, and nobody got the file."""
    monkeypatch.setattr("minga_peer.origins.fetching.BUSY_SECONDS", 0.05)
    head = origins._head

    def busy_once(*asked: Any) -> tuple[int, dict[str, str]]:
        is_second = place.count("GET") == 2 and asked[1] == "GET"
        return (503, {"Content-Length": "0"}) if is_second else head(*asked)

    monkeypatch.setattr(origins, "_head", busy_once)
    (peer,) = await peers_of(network, 1)
    data = noise(3 * MIB)
    place.faults.ends_after = MIB
    assert await read(peer, OriginFile(place.put("/a.bin", data), sha256(data))) == data
    assert place.sent_bytes <= 1.4 * len(data)


async def test_a_second_connection_that_gets_another_version_is_given_up(network: Network, place: Origin) -> None:
    """The first one goes on with the version that it has."""
    (peer,) = await peers_of(network, 1)
    data = noise(3 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.stalls_after = MIB // 2
    async with peer.origins.open(file) as reader:
        assert await reader.read(0, 10) == data[:10]
        place.put("/a.bin", noise(3 * MIB, seed=2))
        await second_given_up(place)
        await reader.whole()
        assert await reader.read(3 * MIB - 10, 10) == data[-10:]


async def test_a_connection_that_breaks_leaves_its_piece_to_the_others(network: Network, place: Origin) -> None:
    """Each answer ends early."""
    (peer,) = await peers_of(network, 1)
    data = noise(4 * MIB)
    place.faults.ends_after = MIB
    assert await read(peer, OriginFile(place.put("/a.bin", data), sha256(data))) == data
    assert place.sent_bytes <= 1.3 * len(data)


async def test_who_takes_over_fetches_last_what_others_have_over_any_number_of_connections(
    network: Network, place: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault: the first connection that had nothing left to fetch began with it, whatever the others still fetched."""
    monkeypatch.setattr("minga_peer.origins.fetching.GAIN", 0.5)
    monkeypatch.setattr("minga_peer.origins.following.GAPS_SECONDS", 1.0)
    # One connection, at first.
    place.faults.bytes_per_second, place.faults.no_ranges = 0, True
    fetcher, full = await peers_of(network, 2)
    network.limits = Limits(RateLimit(None), RateLimit(2 * MIB))
    slow = await network.peer("slow")
    data = noise(7 * MIB)
    file = OriginFile(place.put("/a.bin", data), sha256(data))
    place.faults.stalls_after = 4 * MIB
    reading = [asyncio.create_task(read(peer, file)) for peer in (fetcher, full)]
    await eventually(lambda: held_bytes(full) >= 4 * MIB, "one follower has what there is")
    full.registry.may_claim.clear()
    send = origins._send

    async def stalls(origin: Origin, faults: OriginFaults, body: bytes, writer: asyncio.StreamWriter) -> None:
        """All but pieces: those come."""
        if len(body) > MIB:
            await send(origin, faults, body[: MIB // 2], writer)
            await origin.released.wait()
            body = body[MIB // 2 :]
        await send(origin, faults, body, writer)

    def has_the_end() -> bool:
        (part,) = slow.store.inventory.parts.values()
        count = part.manifest.geometry.chunk_count
        return not ChunkSet.from_ranges(count, [(count * 5 // 7, count)]) - part.held

    async with slow.origins.open(file) as reader:
        whole = asyncio.create_task(reader.whole())
        await eventually(lambda: held_bytes(slow) > 0, "the other one has begun")
        place.faults.stalls_after, place.faults.no_ranges = None, False
        monkeypatch.setattr(origins, "_send", stalls)
        await fetcher.die()
        await eventually(has_the_end, "another connection has brought the last two MiB")
        held = held_bytes(slow)
        await asyncio.wait({whole}, timeout=0.5)
        assert held_bytes(slow) - held < MIB // 2
        place.released.set()
        full.registry.may_claim.set()
        await whole
    assert await reading[1] == data
    reading[0].cancel()
    await asyncio.gather(reading[0], return_exceptions=True)


def test_pieces_are_taken_once_and_given_back() -> None:
    """1. Alone, a connection goes on behind its piece as long as nobody has taken what follows. 2. What is held is not
    asked for, but for a little between two gaps. 3. What did not come is left for others."""
    geometry = Geometry(320 * MIB)
    held = ChunkSet(geometry.chunk_count)
    step = 32 * MIB // geometry.chunk_size_bytes
    pieces = Pieces(geometry, held)
    first = pieces.take(alone=True)
    assert first == Piece(0, step, geometry.chunk_count)
    second = pieces.take(alone=False)
    assert second == Piece(step, 2 * step, 2 * step)
    assert pieces.has(first, step - 1)
    assert not pieces.has(first, step)
    assert not pieces.has(second, 2 * step)
    held.add(step)
    pieces.give_back(second, held)
    assert pieces.has(first, step) is False
    assert pieces.take(alone=True) == Piece(step + 1, 2 * step + 1, geometry.chunk_count)
    far = Pieces(geometry, ChunkSet(geometry.chunk_count, range(5, 10)))
    assert far.take(alone=True) == Piece(0, 5, 5)
    assert far.take(alone=False) == Piece(10, 10 + step, 10 + step)
