"""Several registries, peers and reapers at once, interleaved on purpose and at random."""

import asyncio
import random
from contextlib import suppress
from datetime import timedelta

import pytest

from minga_core.errors import MingaError, RegisterAgainError, StoreUnavailableError, TableRevisionMismatchError
from minga_core.ids import PeerId
from minga_directory import RedisDirectoryWriter, keys
from minga_directory.codec import TAG_BYTES
from minga_directory.connect import connect
from minga_directory.directory import TablePush
from tests.conformance.crashing import pause
from tests.conformance.harness import Harness, content, eventually, lease, over, row, rows
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


async def test_a_reaper_that_races_a_registration_spares_the_new_lease(
    redis_url: str, redis_server: RedisServer
) -> None:
    """The reaper stops before each of its commands in turn; the peer registers and pushes; the reaper goes on."""
    for stop_before in range(20):
        async with over(redis_url) as directory:
            await directory.register("a", generation=1)
            await directory.push("a", rows(["x", "y"]))
            store = connect(redis_url)
            await store.one("DEL", keys.peer(PeerId("a")))
            await store.one("ZADD", keys.LEASES, "XX", 1, "a")

            came: list[int] = []

            async def comes_back(of: Harness = directory, done: list[int] = came) -> None:
                await of.register("a", generation=2)
                await of.push("a", rows(["y", "z"]), 2)
                done.append(2)

            reaper = RedisDirectoryWriter(store)
            pause(store, stop_before, comes_back)
            await reaper.reap()
            if not came:
                # The reaper had less to do than that.
                await comes_back()
            assert await directory.writer.lease_counts() == (1, 0), f"stopped before {stop_before}"
            assert await directory.beat("a", 2) == "ok"
            await directory.until_names(["y", "z"])
            assert list((await directory.holders("y")).values()) == [["a"]]
            await store.aclose()
            redis_server.flush()


async def test_a_remover_that_races_another_holder_leaves_the_name(redis_url: str, redis_server: RedisServer) -> None:
    """The last holder goes while another comes, stopped before every script in turn: the name stays listed."""
    for stop_before in range(12):
        async with over(redis_url) as directory:
            await directory.register("goes")
            await directory.push("goes", [row("x")])
            await directory.register("comes")

            async def comes(of: Harness = directory) -> None:
                await of.push("comes", [row("x")])

            store = connect(redis_url)
            leaver = RedisDirectoryWriter(store)
            pause(store, stop_before, comes)
            await leaver.leave(lease("goes"))
            if await directory.beat("comes") != "ok":
                await comes()
            await directory.settle()
            assert await directory.names() == ["x"], f"stopped before {stop_before}"
            assert list((await directory.holders("x")).values()) == [["comes"]]
            assert (await directory.reader.find_content(content("v1")))[1] == ["x"]
            await store.aclose()
            redis_server.flush()


async def test_a_comer_that_races_the_removal_of_the_last_holder_lists_the_name(cluster_server: RedisServer) -> None:
    """The same from the other side, where a push has the most steps: it stops before each of them in turn, and the last
    holder goes meanwhile, so that a mark of the remover may be met or not."""
    for stop_before in range(12):
        cluster_server.flush()
        async with over(cluster_server.url) as directory:
            await directory.register("goes")
            await directory.push("goes", [row("x")])
            await directory.register("comes")
            gone: list[bool] = []

            async def goes(of: Harness = directory, done: list[bool] = gone) -> None:
                done.append(await of.writer.leave(lease("goes")))

            store = connect(cluster_server.url)
            comer = Harness(RedisDirectoryWriter(store), directory.reader)
            pause(store, stop_before, goes)
            await comer.push("comes", [row("x")])
            if not gone:
                # The comer had less to do than that.
                await goes()
            await directory.settle()
            assert await directory.names() == ["x"], f"stopped before {stop_before}"
            assert list((await directory.holders("x")).values()) == [["comes"]]
            assert (await directory.reader.find_content(content("v1")))[1] == ["x"]
            await store.aclose()


async def test_a_mark_that_stays_behind_says_nothing(redis_url: str) -> None:
    """A remover marks an entry, finds a new holder, and leaves it: it is answered and removed as any other."""
    async with over(redis_url) as directory:
        await directory.register("goes")
        await directory.push("goes", [row("x")])
        await directory.register("comes")
        store = connect(redis_url)
        leaver = RedisDirectoryWriter(store)
        entry = keys.content_names(content("v1"))

        async def marked() -> bool:
            return len(await store.one("HGET", entry, "x")) == TAG_BYTES

        for stop_before in range(12):
            await directory.register("goes", stop_before + 2)
            await directory.push("goes", [row("x")], stop_before + 2)
            await directory.writer.leave(lease("comes"))
            await directory.register("comes")
            pause(store, stop_before, lambda: directory.push("comes", [row("x")]))
            await leaver.leave(lease("goes", stop_before + 2))
            if await marked():
                break
        else:
            pytest.fail("no remover marked an entry and left it")
        assert list((await directory.holders("x")).values()) == [["comes"]]
        await directory.register("third")
        await directory.push("third", [row("x")])
        assert (await directory.reader.find_content(content("v1")))[1] == ["x"]
        await directory.writer.leave(lease("comes"))
        await directory.writer.leave(lease("third"))
        await directory.until_names([])
        assert not await store.one("EXISTS", entry)
        await store.aclose()


async def test_a_later_push_that_never_ends_does_not_spoil_an_earlier_one(on_redis: Harness) -> None:
    """Both write index entries of one row; the later is given up, the earlier may no longer commit."""
    await on_redis.register("a")
    earlier = on_redis.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    later = on_redis.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    async with earlier as first:
        await first.put([row("x")])
        async with later as second:
            await second.put([row("x")])
        with pytest.raises(TableRevisionMismatchError):
            await first.commit()
    await on_redis.until_names([])
    await on_redis.push("a", [row("x")])
    await on_redis.settle()
    assert await on_redis.names() == ["x"]


async def test_rows_that_an_abandoned_push_repeated_stay_listed(on_redis: Harness) -> None:
    """A push that repeats committed rows and is given up must not remove their index entries."""
    await on_redis.register("a")
    await on_redis.push("a", [row("x")])
    begun = on_redis.writer.push_table(lease("a"), whole=True, base_revision=0, revision=2)
    async with begun as push:
        await push.put([row("x"), row("y")])
    await on_redis.until_names(["x"])
    assert list((await on_redis.holders("x")).values()) == [["a"]]


async def test_a_push_that_races_the_removal_of_its_row_keeps_the_row(
    redis_url: str, redis_server: RedisServer
) -> None:
    """A row is removed, its remover stops before each of its commands in turn, and the row is pushed anew."""
    for stop_before in range(16):
        async with over(redis_url) as directory:
            await directory.register("a")
            await directory.push("a", [row("x")])
            store = connect(redis_url)
            remover = Harness(RedisDirectoryWriter(store), directory.reader)
            again = directory.writer.push_table(lease("a"), whole=True, base_revision=0, revision=3)

            async def puts(push: TablePush = again) -> None:
                await push.__aenter__()
                await push.put([row("x")])

            pause(store, stop_before, puts)
            await remover.change("a", remove=[row("x").key])
            if not await directory.names():
                # The remover had less to do than that.
                await puts()
            await again.commit()
            assert await directory.names() == ["x"], f"stopped before {stop_before}"
            assert list((await directory.holders("x")).values()) == [["a"]]
            await store.aclose()
            redis_server.flush()


@pytest.mark.asks_keys
async def test_a_process_that_stood_still_is_refused(redis_url: str) -> None:
    """Before each of its commands in turn, for so long that its peer left and all was cleaned up: entries written then
    would never be taken away."""
    for stop_before in range(9):
        async with over(redis_url) as directory:
            await directory.register("a")
            store = connect(redis_url)
            slow = RedisDirectoryWriter(store, late_after=timedelta(milliseconds=100))
            begun = slow.push_table(lease("a"), whole=True, base_revision=0, revision=1)

            async def much_later(of: Harness = directory) -> None:
                await of.writer.leave(lease("a"))
                await eventually(lambda: no_notes(redis_url, of))

            pause(store, stop_before, much_later)
            with suppress(MingaError):
                async with begun as push:
                    await push.put([row("x")])
                    await push.commit()
            if not await directory.is_gone("a"):
                await much_later()
            await directory.settle()
            assert await directory.names() == [], f"stopped before {stop_before}"
            assert await store.one("KEYS", "*holders*") == [], f"stopped before {stop_before}"
            await store.aclose()


async def no_notes(redis_url: str, directory: Harness) -> bool:
    """Whether garbage collection has removed all `tombstones` keys."""
    await directory.settle()
    store = connect(redis_url)
    count = await store.one("ZCARD", keys.INTENTS)
    await store.aclose()
    return int(count) == 0


async def test_everybody_at_once_ends_in_what_was_said_last(redis_url: str) -> None:
    """1. Six peers on three registries push, change, leave, and come back at random, with three reapers all the time.
    2. Each then says its last table. 3. After reaping, answers and catalogue are those tables, nothing else."""
    seed = random.randrange(1 << 32)
    last: dict[str, set[str]] = {}

    async def live(peer_id: str, directory: Harness, rng: random.Random) -> None:
        generation = 0
        for turn in range(12):
            if turn == 0 or rng.random() < 0.3:
                if rng.random() < 0.5:
                    await directory.writer.leave(lease(peer_id, generation + 1))
                generation += 1
                await directory.register(peer_id, generation)
            chosen = {f"n{rng.randrange(8)}" for _ in range(rng.randrange(6))}
            try:
                await directory.push(peer_id, [row(name) for name in chosen], generation, revision=turn)
            except (RegisterAgainError, TableRevisionMismatchError):
                continue
        last[peer_id] = {f"n{rng.randrange(8)}" for _ in range(3)}
        await directory.register(peer_id, generation)
        await directory.push(peer_id, [row(name) for name in last[peer_id]], generation, revision=99)

    async def reap(directory: Harness) -> None:
        while True:
            await directory.writer.reap()
            await asyncio.sleep(0)

    async with over(redis_url) as one, over(redis_url) as two, over(redis_url) as three:
        registries = [one, two, three]
        reapers = [asyncio.create_task(reap(registry)) for registry in registries]
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(6):
                    rng = random.Random(seed + number)
                    group.create_task(live(f"p{number}", registries[number % 3], rng))
        finally:
            for task in reapers:
                task.cancel()
            await asyncio.gather(*reapers, return_exceptions=True)
        await one.until_names(sorted(set().union(*last.values())))
        for name in await one.names():
            expected = sorted(peer_id for peer_id, names in last.items() if name in names)
            assert list((await one.holders(name)).values()) == [expected], f"seed {seed}"


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_step_that_comes_too_late_is_refused(redis_url: str, leaves: bool) -> None:
    """Others may have forgotten that it was intended; done again, it is done."""
    async with over(redis_url) as directory:
        await directory.register("a")
        store = connect(redis_url)
        slow = Harness(RedisDirectoryWriter(store, late_after=timedelta(milliseconds=50)), directory.reader)

        async def step(registry: Harness) -> None:
            if leaves:
                assert await registry.writer.leave(lease("a"))
            else:
                await registry.register("a", 2)

        # A registration announces itself first; a leave looks at its lease in between.
        pause(store, 2 if leaves else 1, lambda: eventually(lambda: overdue(redis_url)))
        with pytest.raises(StoreUnavailableError):
            await step(slow)
        assert (await directory.reader.get_peer(PeerId("a"))).info.generation == 1
        await step(directory)
        assert await directory.is_gone("a") is leaves
        await store.aclose()


async def overdue(redis_url: str) -> bool:
    """Whether the instant of some note has passed."""
    store = connect(redis_url)
    passed = await store.script("due", [keys.INTENTS], [1])
    await store.aclose()
    return bool(passed)
