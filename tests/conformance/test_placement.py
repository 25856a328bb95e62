"""Where uploads go: round robin over the living with room, never to who has it."""

import os
from collections import Counter
from contextlib import suppress

import pytest

from minga_core.errors import NoSpaceError, PeerUnavailableError
from minga_core.names import Name
from minga_directory import placement
from tests.conformance.harness import SHORT, Harness, content, over, raw, row
from tests.support.redis_server import RedisServer


async def placed(
    directory: Harness, name: str = "new", replicas: int = 1, size: int = 10, **options: object
) -> list[str]:
    """The ids of the peers chosen."""
    records = await directory.reader.place(Name("new"), size, replicas, **options)  # type: ignore[arg-type]
    return [record.peer_id for record in records]


async def test_peers_take_turns(directory: Harness) -> None:
    """Each placement goes on where the last one ended, in order of ids, around the end."""
    for peer_id in ("c", "a", "b"):
        await directory.register(peer_id)
    assert [await placed(directory) for _ in range(4)] == [["a"], ["b"], ["c"], ["a"]]
    assert await placed(directory, replicas=2) == ["b", "c"]
    assert await placed(directory, replicas=2) == ["a", "b"]


async def test_replicas_are_different_peers(directory: Harness) -> None:
    """No peer is chosen twice for one upload, even when there are too few."""
    for peer_id in "abc":
        await directory.register(peer_id)
    assert sorted(await placed(directory, replicas=10)) == ["a", "b", "c"]
    assert await placed(directory, replicas=3) != []


async def test_only_peers_with_room_are_chosen(directory: Harness) -> None:
    """Free bytes must cover the size and the margin."""
    for peer_id, free in (("a", 10), ("b", 20), ("c", 30)):
        await directory.register(peer_id, free=free)
    assert set(await placed(directory, replicas=3, size=10, margin_bytes=10)) == {"b", "c"}
    with pytest.raises(NoSpaceError):
        await placed(directory, replicas=3, size=31)


async def test_skipped_peers_do_not_load_their_neighbours(directory: Harness) -> None:
    """With one peer full, the others still get equal shares."""
    for peer_id, free in (("a", 100), ("b", 0), ("c", 100), ("d", 100)):
        await directory.register(peer_id, free=free)
    shares = Counter([(await placed(directory))[0] for _ in range(30)])
    assert shares == {"a": 10, "c": 10, "d": 10}


async def test_a_holder_of_the_name_is_never_chosen(directory: Harness) -> None:
    """Without a content id, any content under that name counts, a part of it too."""
    for peer_id in "abc":
        await directory.register(peer_id)
    await directory.push("a", [row("new", "v1", partial=True)])
    await directory.push("b", [row("other", "v1")])
    assert sorted(await placed(directory, replicas=3)) == ["b", "c"]


async def test_a_holder_of_the_content_is_never_chosen(directory: Harness) -> None:
    """With a content id, whatever the content is called there, and only that content."""
    for peer_id in "abc":
        await directory.register(peer_id)
    await directory.push("a", [row("other", "v1")])
    await directory.push("b", [row("new", "v2")])
    assert sorted(await placed(directory, replicas=3, content_id=content("v1"))) == ["b", "c"]


async def test_the_dead_are_never_chosen(directory: Harness) -> None:
    """Not even before they are reaped; with nobody alive there is nobody to choose."""
    await directory.register("dead", ttl=SHORT)
    await directory.register("alive", ttl=SHORT * 2)
    await directory.let_end("dead")
    assert await placed(directory, replicas=2) == ["alive"]
    await directory.let_end("alive")
    with pytest.raises(PeerUnavailableError):
        await placed(directory, replicas=2)


@pytest.mark.redis
@pytest.mark.skipif("CONFORMANCE_URL" in os.environ, reason="counts the commands of servers of its own")
@pytest.mark.parametrize("store", ["redis", "cluster"])
async def test_a_placement_that_fits_nowhere_costs_a_bounded_number_of_commands(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    """1. In a fleet above the bound nobody has room: so it says, and has asked no more than the bound. 2. The last peer
    gets room: calls that follow find it. 3. It holds the name: nobody is left, which is no lack of room."""
    monkeypatch.setattr(placement, "PAGE", 16)
    monkeypatch.setattr(placement, "MAX_ASKED", 64)
    server: RedisServer = request.getfixturevalue(f"{store}_server")
    server.flush()
    async with over(server.url) as directory:
        for number in range(100):
            await directory.register(f"p{number:02}", free=5)
        before = await records_read(server)
        with pytest.raises(NoSpaceError):
            await placed(directory)
        assert await records_read(server) - before == 64
        await directory.register("p99", free=100)
        assert await placed(directory) == ["p99"]
        await directory.push("p99", [row("new")])
        outcomes = set()
        for _ in range(2):
            with suppress(NoSpaceError):
                outcomes.add(len(await placed(directory)))
        assert outcomes == {0}


async def records_read(server: RedisServer) -> int:
    """How many HMGET the server has run, those in scripts too."""
    async with raw(server.url.replace("+cluster", "")) as client:
        return int((await client.info("commandstats")).get("cmdstat_hmget", {"calls": 0})["calls"])
