"""A primary, two replicas and three sentinels: failovers in the middle of pushes and look-ups."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from deploy.tests.redis.fleet import fleet_over
from deploy.tests.redis.programs import program
from deploy.tests.redis.topologies import SentinelStore, asked, stop_replication
from minga_core.errors import SettingsError, StoreRefusedError, StoreUnavailableError
from minga_core.names import Name
from minga_directory import connect_reader
from minga_directory.sentinel import ASK_AGAIN_SECONDS
from tests.conformance.harness import Harness, eventually, lease, over, row

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["valkey", "redis-7"])
def store(request: pytest.FixtureRequest) -> Iterator[SentinelStore]:
    """A fresh one: each of these tests kills some of it."""
    made = SentinelStore(program(request.param))
    try:
        made.start()
        yield made
    finally:
        made.close()


async def test_a_primary_killed_under_pushes_and_look_ups_is_followed_and_all_heals(store: SentinelStore) -> None:
    """1. A fleet works. 2. Its primary is killed. 3. Every call ends in time, in success or a clear error. 4. After the
    failover the directory becomes the union of the tables. 5. The dead one comes back as a replica: nothing happens."""
    async with fleet_over(store.url) as fleet, fleet.running():
        await asyncio.sleep(1.5)
        dead = await asyncio.to_thread(store.fail_over)
        await asyncio.sleep(1.0)
        changed_until = time.monotonic()
        await fleet.agreement()
        assert not fleet.failures(changed_until)
        fleet.check_limits()
        fleet.changing = True
        back = time.monotonic()
        await asyncio.to_thread(store.bring_back, dead)
        assert await fleet.agreement() < 5
        assert not fleet.failures(back)


async def test_a_primary_that_stands_still_is_left_and_not_returned_to_when_it_goes_on(store: SentinelStore) -> None:
    """Calls end in time though connections stay open; when the old primary wakes up (and believes for a moment that it
    is one still), nothing is asked there, and what is found in the end is what the peers have."""
    async with fleet_over(store.url) as fleet, fleet.running():
        await asyncio.sleep(1.0)
        old = store.primary
        old.pause()
        await asyncio.to_thread(store.wait_for_other, old)
        await asyncio.sleep(1.0)
        old.resume()
        await fleet.agreement()
        fleet.check_limits()


async def test_a_lost_tail_of_writes_is_noticed_by_heartbeats(store: SentinelStore) -> None:
    """Writes that no replica had when the primary died: a change, a first push, a registration, a leave. Each peer's
    next heartbeat asks for what is missing, and nothing is answered meanwhile that is not in a living peer's table."""
    async with over(store.url) as directory:
        for peer in ("changed", "pushed", "left", "kept"):
            await directory.register(peer)
        for peer in ("changed", "left", "kept"):
            await directory.push(peer, [row(f"{peer}/1"), row("shared")])
        old = store.primary
        await asyncio.to_thread(lambda: [asked(server.port).ping() for server in store.servers])
        await eventually(lambda: _in_step(store))
        stop_replication(old)
        await directory.change("changed", [row("changed/2")], [row("changed/1").key])
        await directory.push("pushed", [row("pushed/1")])
        await directory.register("new")
        await directory.push("new", [row("new/1")])
        await directory.writer.leave(lease("left"))
        old.kill()
        await asyncio.to_thread(store.wait_for_other, old)

        assert await directory.beat("kept") == "ok"
        assert await directory.beat("changed", revision=2) == "push_table"
        assert await directory.beat("pushed") == "push_table"
        assert await directory.beat("new") == "register_again"
        assert await directory.holders("changed/2") == {}
        await directory.push("changed", [row("changed/2"), row("shared")], revision=2)
        await directory.push("pushed", [row("pushed/1")])
        await directory.register("new")
        await directory.push("new", [row("new/1")])
        # Its deregistration was lost: it is listed until it leaves again, or its lease ends.
        assert await directory.writer.leave(lease("left"))
        await directory.until_names(["changed/2", "kept/1", "new/1", "pushed/1", "shared"])
        assert list((await directory.holders("shared")).values()) == [["changed", "kept"]]


async def _in_step(store: SentinelStore) -> bool:
    with asked(store.primary.port) as client:
        return client.wait(2, 1000) == 2


async def test_sentinels_may_be_away_when_the_primary_is_there(store: SentinelStore) -> None:
    """All of them, once the directory is connected; and two of three when it connects."""
    async with over(store.url) as directory:
        await directory.register("a")
        store.stop_sentinels(2)
        async with over(store.url) as later:
            assert await later.beat("a", revision=-1) == "ok"
        store.stop_sentinels(1)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            assert await directory.beat("a", revision=-1) == "ok"
            await asyncio.sleep(0.05)


async def test_without_any_sentinel_or_primary_it_says_which(store: SentinelStore) -> None:
    """One line, in time."""
    url = store.url
    for server in store.servers:
        server.kill()
    reader = connect_reader(url)
    with pytest.raises(StoreUnavailableError) as caught:
        await reader.ping()
    assert not isinstance(caught.value, StoreRefusedError)
    store.stop_sentinels(3)
    await asyncio.sleep(ASK_AGAIN_SECONDS)
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="no sentinel answers"):
        await reader.find(Name("x"))
    assert time.monotonic() - started < 3
    await reader.aclose()


async def test_a_service_that_the_sentinels_do_not_know_stops_a_process_at_start(store: SentinelStore) -> None:
    """It is a wrong setting, not an outage."""
    reader = connect_reader(store.url.replace("/directory", "/dircetory"))
    with pytest.raises(StoreRefusedError, match="dircetory"):
        await reader.ping()
    with pytest.raises(SettingsError, match="MINGA_REDIS_URL: the sentinels know nothing of 'dircetory'"):
        await reader.check_access()
    await reader.aclose()


async def test_two_failovers_in_a_row_are_followed(store: SentinelStore) -> None:
    """The second one to a server that had been a replica of the first one's."""
    async with over(store.url) as directory:
        await directory.register("a")
        dead = await asyncio.to_thread(store.fail_over)
        await eventually(lambda: _beats(directory))
        await asyncio.to_thread(store.bring_back, dead)
        await asyncio.to_thread(store.fail_over)
        await eventually(lambda: _beats(directory))


async def _beats(directory: Harness) -> bool:
    try:
        return await directory.beat("a", revision=-1) in ("ok", "register_again")
    except StoreUnavailableError:
        return False
