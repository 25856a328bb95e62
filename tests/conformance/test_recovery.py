"""Redis is emptied, killed, or stands still: errors within the limit, and everything comes back by being said again."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import timedelta
from itertools import permutations
from unittest.mock import ANY

import pytest
import redis.asyncio as redis

from minga_core.errors import RegisterAgainError, SettingsError, StoreUnavailableError
from minga_core.ids import PeerId
from minga_core.names import Name
from minga_directory import connect_reader, connect_writer, keys
from minga_directory.leases import MAX_RECOVERY_SECONDS
from minga_directory.store import ANSWER_SECONDS
from tests.conformance.harness import Harness, content, lease, over, row
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that this test may kill."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


async def say_again(directory: Harness) -> None:
    """Do what the answer of a heartbeat says."""
    assert await directory.beat("a") == "register_again"
    await directory.register("a")
    assert await directory.beat("a") == "push_table"
    await directory.push("a", [row("x")])
    assert await directory.beat("a") == "ok"


async def test_an_emptied_directory_is_filled_again(on_redis: Harness, redis_server: RedisServer) -> None:
    """FLUSHALL and SCRIPT FLUSH under living peers: one heartbeat later all is back."""
    await on_redis.register("a")
    await on_redis.push("a", [row("x")])
    redis_server.flush()
    assert await on_redis.names() == []
    await say_again(on_redis)
    assert await on_redis.names() == ["x"]
    assert await on_redis.holders("x") != {}


@pytest.mark.parametrize("server", ["redis_server", "cluster_server"])
async def test_a_store_that_has_lost_everything_does_not_say_that_nobody_has_a_file(
    request: pytest.FixtureRequest, server: str
) -> None:
    """1. A new store: who is to know? 2. A peer has registered: what it does not share nobody does. 3. Emptied: who is
    to know? 4. One peer is asked to register again, and does: its files are known, those of others not yet.
    5. They have had the time that it takes; a lease that is lost later says nothing."""
    store: RedisServer = request.getfixturevalue(server)
    store.flush()
    fill = timedelta(minutes=1)
    async with (
        aclosing(connect_writer(store.url, warm_up=fill)) as writer,
        aclosing(connect_reader(store.url, refuse_while_recovering=True)) as reader,
    ):
        directory = Harness(writer, reader)
        await _doubts(directory, "no peer has pushed")
        await directory.register("a")
        assert await directory.holders("x") == {}
        store.flush()
        await _doubts(directory, "no peer has pushed")
        await say_again(directory)
        assert await directory.holders("x") != {}
        await _doubts(directory, "not every peer has pushed")
        for key in (keys.WARM_UP, keys.RECOVERING):
            assert 0 < await directory.store.one("PTTL", key) <= fill.total_seconds() * 1000
            await directory.store.one("DEL", key)
        assert await directory.beat("b") == "register_again"
        assert await directory.holders("y") == {}
        assert await reader.find_newest([Name("x"), Name("y")]) == [ANY, None]
        assert await reader.find_content(row("x").key.content_id) == (ANY, ["x"])
        assert await reader.find_content(content("other")) == (None, ())


@pytest.mark.parametrize("server", ["redis_server", "cluster_server"])
async def test_versions_are_in_the_same_order_in_whatever_order_peers_push_after_a_loss(
    request: pytest.FixtureRequest, server: str
) -> None:
    """Each holder says what it knows: one published again, one has the time from before, one is still uploading."""
    store: RedisServer = request.getfixturevalue(server)
    tables = {
        "a": [row("x", "old", published=1_000), row("x", "new", published=2_000)],
        "b": [row("x", "old", published=3_000)],
        "c": [row("x", "new", published=2_000), row("x", "under way", published=0)],
    }
    async with over(store.url) as directory:
        for peers in permutations(tables):
            store.flush()
            for peer_id in peers:
                await directory.register(peer_id)
                await directory.push(peer_id, tables[peer_id])
            versions = await directory.reader.find(Name("x"))
            found = [(version.content_id, version.published_ns) for version in versions]
            assert found == [(content("old"), 3_000), (content("new"), 2_000), (content("under way"), 0)], peers


async def test_a_store_is_doubted_until_every_living_peer_has_pushed(redis_server: RedisServer) -> None:
    """Many tables take longer than two heartbeats: a peer that waits for its turn beats meanwhile, and says that it has
    yet to push. One that never can does not keep the store recovering for ever."""
    redis_server.flush()
    fill = timedelta(seconds=5)
    async with (
        aclosing(connect_writer(redis_server.url, warm_up=fill)) as writer,
        aclosing(connect_reader(redis_server.url, refuse_while_recovering=True)) as reader,
        aclosing(redis.from_url(redis_server.url)) as client,
    ):
        directory = Harness(writer, reader)
        assert await directory.beat("b") == "register_again"
        await directory.register("b")
        await say_again(directory)
        for waits, kept_millis in (("a", 1_000), ("b", 5_000)):
            await client.pexpire(keys.RECOVERING, 1_000)
            await directory.beat(waits)
            assert kept_millis - 1_000 < await client.pttl(keys.RECOVERING) <= kept_millis
        await _doubts(directory, "not every peer has pushed")
        seconds, _ = await client.time()
        await client.set(keys.RECOVERING, seconds - MAX_RECOVERY_SECONDS, px=1_000)
        assert await directory.beat("b") == "push_table"
        assert await client.pttl(keys.RECOVERING) <= 1_000


async def _doubts(directory: Harness, words: str) -> None:
    """Every question after who has something that nobody seems to have."""
    reader = directory.reader
    for question in (
        reader.find(Name("y")),
        reader.find(Name("x"), content_id=content("other")),
        reader.find_newest([Name("x"), Name("y")]),
        reader.find_content(content("other")),
    ):
        with pytest.raises(StoreUnavailableError, match=words):
            await question


async def test_emptied_in_the_middle_of_a_push(on_redis: Harness, redis_server: RedisServer) -> None:
    """Half of the rows were forgotten: that push must not become visible, even when the lease is back."""
    await on_redis.register("a")
    begun = on_redis.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    async with begun as push:
        await push.put([row("x")])
        redis_server.flush()
        await on_redis.register("a")
        with pytest.raises(RegisterAgainError):
            await push.put([row("y")])
        with pytest.raises(RegisterAgainError):
            await push.commit()
    assert await on_redis.beat("a") == "push_table"
    await on_redis.push("a", [row("x"), row("y")])
    await on_redis.until_names(["x", "y"])


async def test_a_server_that_comes_back_empty_is_used_again(own_server: RedisServer) -> None:
    """Errors while it is away, none after, with the same writer and reader."""
    async with over(own_server.url) as directory:
        await directory.register("a")
        await directory.push("a", [row("x")])
        own_server.kill()
        for call in calls(directory):
            with pytest.raises(StoreUnavailableError):
                await call
        own_server.start()
        await say_again(directory)
        assert await directory.names() == ["x"]


async def test_a_server_that_stands_still_is_away_within_the_limit(own_server: RedisServer) -> None:
    """It accepts and never answers: every call of both ports raises in time, side by side as well."""
    async with over(own_server.url) as directory:
        await directory.register("a")
        own_server.pause()
        started = time.monotonic()
        results = await asyncio.gather(*calls(directory), return_exceptions=True)
        elapsed = time.monotonic() - started
        own_server.resume()
        assert [type(result) for result in results] == [StoreUnavailableError] * len(results)
        assert elapsed < 2 * ANSWER_SECONDS + 1
        await directory.writer.ping()


def calls(directory: Harness) -> list:  # type: ignore[type-arg]
    """One call of each method."""
    reader, writer = directory.reader, directory.writer
    return [
        directory.register("a"),
        directory.beat("a"),
        directory.push("a", [row("x")]),
        writer.leave(lease("a")),
        writer.reap(),
        writer.lease_counts(),
        writer.ping(),
        reader.find(Name("x")),
        reader.find_content(row("x").key.content_id),
        reader.list_names(),
        reader.list_peers(),
        reader.get_peer(PeerId("a")),
        reader.place(Name("x"), 1, 1),
        reader.stats(),
        reader.ping(),
    ]


async def test_nothing_listens_there() -> None:
    """A server that never was: one line that says so, at once, and no traceback of its own making."""
    reader = connect_reader("redis://127.0.0.1:1/0")
    with pytest.raises(StoreUnavailableError) as caught:
        await reader.ping()
    assert "\n" not in str(caught.value)
    await reader.aclose()


def test_a_url_that_is_none_is_a_setting_error() -> None:
    """Reported by the name of the setting, before anything connects."""
    with pytest.raises(SettingsError, match="MINGA_REDIS_URL"):
        connect_writer("http://somewhere")
