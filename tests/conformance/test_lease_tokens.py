"""A lease belongs to the token that it was granted for: nobody else takes it over, ends it, or writes under it."""

import pytest

from minga_core.errors import LeaseSupersededError, PeerIdTakenError, RegisterAgainError
from minga_core.names import Name
from minga_core.records import Publication
from tests.conformance.harness import LONG, SHORT, Harness, lease, row

MINE, OTHER = bytes(range(1, 17)), bytes(16)
NOT_MINE = pytest.mark.parametrize(
    "token",
    [OTHER, b"", MINE[:-1], MINE + b"\0", b"\0" + MINE[1:]],
    ids=["another", "none", "too short", "too long", "almost"],
)


async def state(directory: Harness) -> object:
    """All that the directory says of the peer but for the time that its lease has left."""
    record = await directory.reader.get_peer(lease("a").peer_id)
    return record.info, record.file_count, record.active_serves, await directory.holders("x")


@NOT_MINE
@pytest.mark.parametrize("generation", [1, 2, 3])
async def test_a_living_lease_is_not_taken_over_with_another_token(
    directory: Harness, token: bytes, generation: int
) -> None:
    """By no generation; nothing of it is changed, and the answer says who has it."""
    await directory.register("a", 2, token=MINE)
    await directory.push("a", [row("x")], 2, token=MINE)
    before = await state(directory)
    with pytest.raises(PeerIdTakenError, match=r"at a:3\b"):
        await directory.register("a", generation, free=1, token=token)
    assert await state(directory) == before
    assert await directory.beat("a", 2, token=MINE) == "ok"


@NOT_MINE
@pytest.mark.parametrize("generation", [1, 2, 3])
async def test_with_another_token_there_is_no_lease(directory: Harness, token: bytes, generation: int) -> None:
    """Every call is answered as for a peer that nobody knows, and nothing is changed, ended or renewed."""
    await directory.register("a", 2, token=MINE)
    await directory.push("a", [row("x")], 2, token=MINE)
    before = await state(directory)
    ends = (await directory.reader.get_peer(lease("a").peer_id)).lease_remaining
    for peer_id in ("nobody", "a"):
        assert await directory.beat(peer_id, generation, token=token) == "register_again"
        assert not await directory.writer.leave(lease(peer_id, generation, token))
        with pytest.raises(RegisterAgainError):
            await directory.push(peer_id, [row("y")], generation, token=token)
        with pytest.raises(RegisterAgainError):
            await directory.change(peer_id, remove=[row("x").key], generation=generation, token=token)
        with pytest.raises(RegisterAgainError):
            await directory.publish(peer_id, Publication(row("x").key), generation=generation, token=token)
    await directory.settle()
    assert await state(directory) == before
    assert (await directory.reader.get_peer(lease("a").peer_id)).lease_remaining <= ends
    assert await directory.names() == ["x"]
    assert await directory.beat("a", 2, token=MINE) == "ok"


async def test_a_peer_that_starts_again_takes_its_own_lease_over_at_once(directory: Harness) -> None:
    """The same token and a greater generation; its earlier self learns that it was superseded."""
    await directory.register("a", 1, token=MINE)
    await directory.push("a", [row("x")], token=MINE)
    await directory.register("a", 2, token=MINE)
    assert await directory.holders("x") == {}
    for call in (
        directory.register("a", 1, token=MINE),
        directory.beat("a", 1, token=MINE),
        directory.push("a", [row("x")], 1, token=MINE),
        directory.publish("a", Publication(row("x").key), token=MINE),
    ):
        with pytest.raises(LeaseSupersededError):
            await call
    assert not await directory.writer.leave(lease("a", 1, MINE))
    assert await directory.beat("a", 2, token=MINE) == "push_table"


async def test_of_two_peers_with_one_id_the_second_waits_for_the_first(directory: Harness) -> None:
    """1. The second is refused as long as the first lives. 2. Then it has the id, and the first is refused, whatever
    its generation. 3. Leaving frees the id at once."""
    await directory.register("a", 1, ttl=SHORT, token=MINE)
    await directory.push("a", [row("x")], token=MINE)
    with pytest.raises(PeerIdTakenError):
        await directory.register("a", 9, token=OTHER)
    await directory.let_end("a")
    await directory.register("a", 9, ttl=LONG, token=OTHER)
    assert await directory.holders("x") == {}
    with pytest.raises(PeerIdTakenError):
        await directory.register("a", 10, token=MINE)
    assert await directory.beat("a", 1, token=MINE) == "register_again"
    assert await directory.writer.leave(lease("a", 9, OTHER))
    await directory.register("a", 10, token=MINE)
    await directory.settle()
    assert await directory.names() == []


async def test_peers_without_a_token_are_as_they_were(directory: Harness) -> None:
    """A version without one: greater generations take over, and a peer with a token takes no such lease that lives."""
    await directory.register("a", 1)
    await directory.push("a", [row("x")])
    assert await directory.publish("a", Publication(row("x").key))
    with pytest.raises(PeerIdTakenError):
        await directory.register("a", 2, token=MINE)
    await directory.register("a", 2)
    with pytest.raises(LeaseSupersededError):
        await directory.beat("a", 1)
    assert await directory.writer.leave(lease("a", 2))


async def test_the_dead_are_reaped_whatever_their_token(directory: Harness) -> None:
    """An expired lease belongs to nobody."""
    await directory.register("a", ttl=SHORT, token=MINE)
    await directory.push("a", [row("x")], token=MINE)
    await directory.let_end("a")
    await directory.until_names([])
    assert await directory.reader.find(Name("x")) == []
    assert await directory.writer.lease_counts() == (0, 0)


async def test_a_push_that_began_ends_when_its_lease_is_another_peers(directory: Harness) -> None:
    """What one peer staged is not committed under the lease of the next."""
    await directory.register("a", ttl=SHORT, token=MINE)
    begun = directory.writer.push_table(lease("a", 1, MINE), whole=True, base_revision=0, revision=1)
    async with begun as push:
        await push.put([row("x")])
        await directory.let_end("a")
        await directory.register("a", token=OTHER)
        with pytest.raises(RegisterAgainError):
            await push.commit()
    assert await directory.holders("x") == {}
    assert await directory.beat("a", token=OTHER) == "push_table"
