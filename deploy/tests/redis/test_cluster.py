"""Three primaries and three replicas: slots that move, and primaries that die, under pushes and look-ups."""

import asyncio
import time
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from deploy.tests.redis.fleet import fleet_over
from deploy.tests.redis.programs import program
from deploy.tests.redis.topologies import ClusterStore, stop_replication
from minga_core.errors import StoreUnavailableError
from minga_core.ids import PeerId
from minga_core.names import Name
from minga_core.records import Lease
from minga_directory import connect_reader, keys
from minga_directory.connect import connect
from minga_directory.directory import HeartbeatOutcome, Renewal
from tests.conformance.harness import Generation, Harness, content, eventually, over, row

pytestmark = pytest.mark.timeout(180)

REAPED_WITHIN = 10.0


@pytest.fixture(params=["valkey", "redis-7"])
def store(request: pytest.FixtureRequest) -> Iterator[ClusterStore]:
    """A fresh one: each of these tests changes it."""
    made = ClusterStore(program(request.param))
    try:
        made.start()
        yield made
    finally:
        made.close()


def hint_slots() -> list[int]:
    """Of all shards, and of what belongs to no peer."""
    return [key_slot(mark.encode()) for mark in keys.incarnations()]


async def test_slots_that_move_under_pushes_and_look_ups_fail_no_call(store: ClusterStore) -> None:
    """Every shard's slot, and every peer's, goes to another primary key by key; no call fails, and nothing is lost."""
    async with fleet_over(store.url) as fleet, fleet.running():
        began = time.monotonic()
        slots = hint_slots() + [key_slot(each.peer_id.encode()) for each in fleet.peers]
        target = store.primaries[0]
        moved = await asyncio.to_thread(lambda: sum(1 for _ in store.migrate(slots, target)))
        assert moved > len(slots) // 2
        assert not fleet.failures(began), fleet.summary(began)
        await fleet.agreement()
        fleet.check_limits()
        # A slot that was moved has lost nothing: no peer is asked to push again.
        assert set(fleet.asked_again) == {HeartbeatOutcome.REGISTER_AGAIN}, fleet.asked_again


@pytest.mark.parametrize("half_way", ["before the first key", "between two keys"])
async def test_a_slot_in_the_middle_of_its_way_is_read_and_written(store: ClusterStore, half_way: str) -> None:
    """However long it takes: scripts whose keys are on both sides wait, and say so in time when that does not end."""
    async with over(store.url) as directory:
        await directory.register("a")
        await directory.push("a", [row("x"), row("y")])
        slot = key_slot(b"a")
        target = next(primary for primary in store.primaries if primary is not store.owner(slot))
        steps = store.migrate([slot], target)
        next(steps)
        if half_way == "between two keys":
            next(steps)
            # A script of one key finds it on either side; one of two keys that are apart gets TRYAGAIN.
            assert await directory.beat("a") == "ok"
            with pytest.raises(StoreUnavailableError, match="does not settle"):
                await directory.push("a", [row("x")], revision=2)
        assert list((await directory.holders("x")).values()) == [["a"]]
        for _ in steps:
            pass
        await directory.push("a", [row("x")], revision=2)
        await directory.until_names(["x"])


async def test_a_primary_killed_under_pushes_and_look_ups_is_followed_and_all_heals(store: ClusterStore) -> None:
    """1. A fleet works. 2. The primary of a shard is killed. 3. Every call ends in time. 4. After the failover the
    directory becomes the union of the tables, lost entries included. 5. The dead one comes back: no call fails."""
    async with fleet_over(store.url) as fleet, fleet.running():
        await asyncio.sleep(1.5)
        dead = store.owner(key_slot(keys.incarnations()[5].encode()))
        await asyncio.to_thread(store.fail_over, dead)
        await asyncio.sleep(1.0)
        until = time.monotonic()
        await fleet.agreement()
        assert not fleet.failures(until), fleet.summary(until)
        fleet.check_limits()
        fleet.changing = True
        back = time.monotonic()
        await asyncio.to_thread(store.bring_back, dead)
        assert await fleet.agreement() < REAPED_WITHIN
        assert not fleet.failures(back), fleet.summary(back)


async def test_a_dead_shard_keeps_no_lease_of_the_others_from_being_renewed(store: ClusterStore) -> None:
    """Heartbeats of a fleet travel together; those whose peer is on a living primary are renewed all the same."""
    async with over(store.url) as directory:
        ids = [f"peer-{number}" for number in range(12)]
        for each in ids:
            await directory.register(each)
        dead = store.owner(key_slot(ids[0].encode()))
        hurt = {each for each in ids if store.owner(key_slot(each.encode())) is dead}
        assert set(ids) - hurt
        dead.kill()
        renewals = [Renewal(Lease(PeerId(each), Generation(1)), -1, 1, 0) for each in ids]
        outcomes = await directory.writer.renew(renewals)
        failed = {each for each, outcome in zip(ids, outcomes, strict=True) if isinstance(outcome, Exception)}
        assert failed == hurt


async def _noticed(directory: Harness, wanted: str) -> bool:
    await directory.writer.reap()
    return await directory.beat("a", revision=2) == wanted


def _apart(store: ClusterStore) -> tuple[str, str]:
    """A name whose entries are all on other primaries than the peer `a`, and the version that has such a content."""
    home = store.owner(key_slot(keys.peer(PeerId("a")).encode()))

    def away(key: bytes) -> bool:
        return store.owner(key_slot(key)) is not home

    for number in range(10_000):
        name = f"file-{number}"
        if away(keys.name(Name(name)).encode()) and away(keys.content_names(content(name))):
            return name, name
    raise AssertionError("there is none")


async def test_hints_that_a_promoted_replica_lacks_are_pushed_again(store: ClusterStore) -> None:
    """The peer's own slot has the new revision, the shards of the row have lost it: revisions say that all is well.
    Before there were incarnation markers, the file was not found until its peer's table changed."""
    async with over(store.url) as directory:
        await directory.register("a")
        await directory.push("a", [row("kept")])
        name, version = _apart(store)
        holders = store.owner(key_slot(keys.content_names(content(version))))
        names = store.owner(key_slot(keys.name(Name(name)).encode()))
        await asyncio.to_thread(store.wait_until_whole)
        for primary in {holders, names}:
            stop_replication(primary)
        await directory.change("a", [row(name, version)])
        assert await directory.holders(name) != {}
        holders.kill()
        await asyncio.to_thread(store.wait_for_other, holders)

        await eventually(lambda: _answers(directory))
        assert await directory.holders(name) == {}
        await eventually(lambda: _noticed(directory, "push_table"), REAPED_WITHIN)
        await directory.push("a", [row("kept"), row(name, version)], revision=2)
        assert list((await directory.holders(name)).values()) == [["a"]]
        assert await directory.beat("a", revision=2) == "ok"


async def test_a_shard_that_comes_back_empty_is_filled_again(store: ClusterStore) -> None:
    """Without a replica that could take over: a primary that keeps nothing on disk is restarted."""
    async with over(store.url) as directory:
        await directory.register("a")
        name, version = _apart(store)
        await directory.push("a", [row(name, version)], revision=2)
        assert await directory.beat("a", revision=2) == "ok"
        victim = store.owner(key_slot(keys.content_names(content(version))))
        await asyncio.to_thread(store.remove_replicas_of, victim)
        victim.kill()
        victim.start()
        await asyncio.to_thread(store.wait_until_works)
        await eventually(lambda: _answers(directory))
        await eventually(lambda: _noticed(directory, "push_table"), REAPED_WITHIN)
        await directory.push("a", [row(name, version)], revision=2)
        assert list((await directory.holders(name)).values()) == [["a"]]


async def _answers(directory: Harness) -> bool:
    try:
        await directory.names()
    except StoreUnavailableError:
        return False
    return True


async def test_a_moved_slot_is_no_loss(store: ClusterStore) -> None:
    """Resharding asks no peer to push again."""
    async with over(store.url) as directory:
        await directory.register("a")
        await directory.push("a", [row("x")], revision=2)
        await asyncio.to_thread(lambda: list(store.migrate(hint_slots(), store.primaries[-1])))
        seen = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < seen + 3:
            await directory.writer.reap()
            assert await directory.beat("a", revision=2) == "ok"
            await asyncio.sleep(0.1)


async def test_a_node_that_knows_nobody_else_is_enough_to_begin_with(store: ClusterStore) -> None:
    """The URL may name dead nodes, as long as one lives."""
    living = store.servers[3]
    async with over(f"redis+cluster://127.0.0.1:1,127.0.0.1:{living.port}") as directory:
        await directory.register("a")
        await directory.push("a", [row("x")])
        assert await directory.beat("a") == "ok"


async def test_many_calls_at_once_wait_for_connections(store: ClusterStore) -> None:
    """More calls than connections are no error."""
    reader = connect_reader(store.url + "?max_connections=2")
    found = await asyncio.gather(*(reader.find(Name(f"n{number}")) for number in range(200)))
    assert found == [[]] * 200
    await reader.aclose()


async def test_an_askings_permission_is_not_taken_by_another_call(store: ClusterStore) -> None:
    """Many calls at once for a slot on its way: each asks on the connection that its command goes over."""
    client = connect(store.url)
    slot = key_slot(b"a")
    target = next(primary for primary in store.primaries if primary is not store.owner(slot))
    steps = store.migrate([slot], target)
    next(steps)
    await asyncio.gather(*(client.one("HSET", f"{{a}}{number}", "f", "v") for number in range(200)))
    assert await asyncio.gather(*(client.one("HGET", f"{{a}}{number}", "f") for number in range(200))) == [b"v"] * 200
    for _ in steps:
        pass
    assert await client.one("HGET", "{a}7", "f") == b"v"
    await client.aclose()
