"""Leases: who is alive, who was overtaken, and who has to say everything again."""

from datetime import UTC, datetime, timedelta

import pytest

from minga_core.errors import InvalidArgumentError, LeaseSupersededError, PeerNotFoundError, RegisterAgainError
from minga_core.ids import PeerId, new_generation
from tests.conformance.harness import LONG, SHORT, Harness, lease, peer, row


async def test_a_registered_peer_is_listed_with_what_it_said(directory: Harness) -> None:
    """A lease makes the peer visible with its own figures."""
    await directory.register("a", generation=1 << 60, free=77)
    record = await directory.reader.get_peer(PeerId("a"))
    assert record.info == peer("a", 1 << 60, 77)
    assert (record.file_count, record.active_serves) == (0, 0)
    assert timedelta(minutes=4) < record.lease_remaining <= timedelta(minutes=5)


async def test_an_unknown_peer_is_not_found(directory: Harness) -> None:
    """get_peer raises an error of its own for an unknown id."""
    with pytest.raises(PeerNotFoundError):
        await directory.reader.get_peer(PeerId("nobody"))


async def test_a_lease_that_is_not_renewed_ends(directory: Harness) -> None:
    """Liveness is the lease alone: its end takes the peer out of every answer, before any reaping."""
    await directory.register("a", ttl=SHORT)
    await directory.push("a", [row("x")])
    await directory.let_end("a")
    assert await directory.holders("x") == {}
    assert (await directory.reader.stats()).live_peers == 0
    with pytest.raises(PeerNotFoundError):
        await directory.reader.get_peer(PeerId("a"))


async def test_a_heartbeat_renews_for_the_time_that_was_granted(directory: Harness) -> None:
    """A peer that asked for a short lease is listed for that long, whichever replica granted it."""
    for peer_id, ttl in (("short", timedelta(seconds=5)), ("long", LONG)):
        await directory.register(peer_id, ttl=ttl)
        await directory.push(peer_id, [row("x")])
        assert await directory.beat(peer_id) == "ok"
        record = await directory.reader.get_peer(PeerId(peer_id))
        assert (record.info.free_bytes, record.active_serves) == (50, 2)
        assert ttl / 2 < record.lease_remaining <= ttl


async def test_a_push_keeps_its_lease_and_no_other(directory: Harness) -> None:
    """A renewal by a push is that of its own lease: of a later one it is refused, as the push is."""
    await directory.register("a", ttl=4 * SHORT)
    await directory.register("b", ttl=SHORT)
    begun = directory.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    async with begun as push:
        assert push.ttl == 4 * SHORT
        await directory.let_end("b")
        before = (await directory.reader.get_peer(PeerId("a"))).lease_remaining
        await push.renew()
        assert (await directory.reader.get_peer(PeerId("a"))).lease_remaining > before
        await directory.register("a", generation=2)
        with pytest.raises((RegisterAgainError, LeaseSupersededError)):
            await push.renew()


async def test_a_heartbeat_without_a_lease_is_told_to_register_again(directory: Harness) -> None:
    """Unknown peers, ended leases and later generations that never registered have to register."""
    assert await directory.beat("a") == "register_again"
    await directory.register("a", ttl=SHORT)
    assert await directory.beat("a", 2) == "register_again"
    await directory.let_end("a")
    assert await directory.beat("a") == "register_again"


async def test_a_heartbeat_with_another_revision_is_told_to_push(directory: Harness) -> None:
    """Revisions that differ mean: push the whole table; a table never pushed differs from every revision."""
    await directory.register("a")
    assert await directory.beat("a", revision=0) == "push_table"
    await directory.push("a", [row("x")], revision=5)
    assert await directory.beat("a", revision=5) == "ok"
    assert await directory.beat("a", revision=6) == "push_table"


async def test_a_greater_generation_takes_over_at_once(directory: Harness) -> None:
    """The table of the smaller generation is dropped, and each of its calls raises the owner's address."""
    small, great = (1 << 53) + 1, (1 << 53) + 2
    await directory.register("a", generation=small)
    await directory.push("a", [row("x")], small)
    await directory.register("a", generation=great)
    owner = (await directory.reader.get_peer(PeerId("a"))).info.address
    assert await directory.holders("x") == {}
    for call in (
        directory.register("a", generation=small),
        directory.beat("a", small),
        directory.push("a", [row("x")], small),
    ):
        with pytest.raises(LeaseSupersededError) as caught:
            await call
        assert caught.value.owner_address == owner
    await directory.settle()
    assert await directory.names() == []


async def test_generations_are_compared_as_numbers(directory: Harness) -> None:
    """10 is later than 9, whatever texts would say."""
    await directory.register("a", generation=9)
    await directory.register("a", generation=10)
    with pytest.raises(LeaseSupersededError):
        await directory.beat("a", 9)


async def test_registering_again_keeps_the_table(directory: Harness) -> None:
    """A retry of Register by the same generation changes nothing but the figures."""
    await directory.register("a")
    await directory.push("a", [row("x")], revision=3)
    await directory.register("a", free=5)
    assert await directory.beat("a", revision=3) == "ok"
    assert list((await directory.holders("x")).values()) == [["a"]]


async def test_an_ended_lease_may_be_taken_by_any_generation(directory: Harness) -> None:
    """Only a living lease supersedes; what the dead one shared is not shared by the next."""
    await directory.register("a", generation=5, ttl=SHORT)
    await directory.push("a", [row("x")], 5)
    await directory.let_end("a")
    await directory.register("a", generation=4)
    assert await directory.holders("x") == {}
    assert await directory.beat("a", 4) == "push_table"
    await directory.settle()
    assert await directory.names() == []


async def test_leaving_takes_effect_at_once(directory: Harness) -> None:
    """After leave no answer names the peer, and its names are gone."""
    await directory.register("a")
    await directory.push("a", [row("x"), row("y")])
    assert await directory.writer.leave(lease("a"))
    assert await directory.is_gone("a")
    assert await directory.holders("x") == {}
    assert await directory.names() == []
    assert await directory.writer.lease_counts() == (0, 0)
    assert not await directory.writer.leave(lease("a"))


async def test_leaving_spares_another_generation(directory: Harness) -> None:
    """A late leave of an older process does not end the lease of the younger one."""
    await directory.register("a", generation=2)
    assert not await directory.writer.leave(lease("a"))
    assert not await directory.is_gone("a")
    assert not await directory.writer.leave(lease("unknown"))


async def test_the_reaper_unlists_the_dead_and_only_them(directory: Harness) -> None:
    """Names of dead peers go, shared ones stay, and a second pass finds nothing to do."""
    await directory.register("dead", ttl=SHORT)
    await directory.register("alive")
    await directory.push("dead", [row("only"), row("both")])
    await directory.push("alive", [row("both")])
    await directory.let_end("dead")
    assert await directory.writer.lease_counts() == (1, 1)
    await directory.settle()
    assert await directory.writer.lease_counts() == (1, 0)
    assert await directory.names() == ["both"]
    assert list((await directory.holders("both")).values()) == [["alive"]]
    assert await directory.writer.reap() == 0


async def test_reaping_is_bounded(directory: Harness) -> None:
    """No pass collects more rows than requested; passes add up."""
    await directory.register("a", ttl=SHORT)
    await directory.push("a", [row(f"n{i}") for i in range(25)])
    await directory.let_end("a")
    counts = [await directory.writer.reap(limit=10) for _ in range(20)]
    assert max(counts) <= 10
    assert sum(counts) == 25
    assert await directory.names() == []


@pytest.mark.redis
async def test_a_generation_from_the_far_future_takes_no_living_lease_over(on_redis: Harness) -> None:
    """It would own the peer id for good. A clock that is some hours ahead is believed."""
    await on_redis.register("a")
    for ahead in (timedelta(hours=25), timedelta(days=40_000)):
        with pytest.raises(InvalidArgumentError):
            await on_redis.register("a", generation=new_generation((datetime.now(UTC) + ahead).timestamp()))
    with pytest.raises(InvalidArgumentError):
        await on_redis.register("a", generation=(1 << 63) - 1)
    assert await on_redis.beat("a") == "push_table"
    await on_redis.register("a", generation=new_generation((datetime.now(UTC) + timedelta(hours=20)).timestamp()))
