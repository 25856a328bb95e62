"""Where uploads go: round robin over the living with room, never to who has it."""

from collections import Counter

from minga_core.names import Name
from tests.conformance.harness import SHORT, Harness, content, row


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
    assert await placed(directory, replicas=3, size=31) == []


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
    assert await placed(directory, replicas=2) in (["alive"], [])
    if directory.clock:
        directory.clock.advance(10)
    await directory.let_end("alive")
    assert await placed(directory, replicas=2) == []
