"""The registry dies between any two commands: nothing is lost, and nothing stays that the reaper does not take away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from minga_core.errors import StoreUnavailableError
from minga_core.ids import PeerId
from minga_core.names import Name
from minga_core.records import FileRow
from minga_directory import RedisDirectoryWriter, keys
from tests.conformance.crashing import crashing
from tests.conformance.harness import Harness, content, eventually, lease, over, raw, row

pytestmark = pytest.mark.redis

OLD = [row("kept"), row("gone"), row("shared"), row("file", "v1")]
NEW = [row("kept"), row("new"), row("shared"), row("file", "v2")]
Step = Callable[[Harness], Awaitable[None]]


async def whole(directory: Harness) -> None:
    """A whole table in place of the old one."""
    await directory.push("a", NEW, revision=2)


async def changed(directory: Harness) -> None:
    """The same by a change."""
    await directory.change("a", [row("new"), row("file", "v2")], [row("gone").key, row("file", "v1").key])


async def taken_over(directory: Harness) -> None:
    """A restarted peer with the new table."""
    await directory.register("a", generation=2)
    await directory.push("a", NEW, 2)


async def left(directory: Harness) -> None:
    """A peer leaves."""
    await directory.writer.leave(lease("a"))


DATABASES = 16
"""Of one server: so many crashes are tried at the same time, since most of the time goes by waiting."""
Trial = Callable[[Any, Harness, int], Awaitable[None]]
"""Of a plain client, a directory, and the number of commands."""


async def every_crash(redis_url: str, count: int, trial: Trial) -> None:
    """Runs the trial for a death after 0, 1, … count - 1 commands, each in a directory of its own."""

    async def in_database(database: int) -> None:
        url = f"{redis_url}?db={database}"
        client = raw(url)
        for commands in range(database, count, DATABASES):
            await client.flushdb()
            async with over(url) as directory:
                await prepared(directory)
                await trial(client, directory, commands)
        await client.aclose()

    async with asyncio.TaskGroup() as group:
        for database in range(DATABASES):
            group.create_task(in_database(database))


async def shown(directory: Harness) -> tuple[set[str], list[str]]:
    """Names under which a lives and has something, with the content; and the catalogue."""
    found = set()
    for name in ("kept", "gone", "new", "shared", "file"):
        for version in await directory.reader.find(Name(name)):
            if any(holder.peer_id == "a" for holder in version.holders):
                found.add(f"{name} {version.content_id.short}")
    return found, await directory.names()


def table(rows: list[FileRow]) -> set[str]:
    """What `shown` shows of such a table."""
    return {f"{one.key.name} {one.key.content_id.short}" for one in rows}


async def prepared(directory: Harness) -> None:
    """Peer a with the old table, and another holder of one of its rows."""
    await directory.register("other")
    await directory.push("other", [row("shared")])
    await directory.register("a")
    await directory.push("a", OLD)


async def crash_at(directory: Harness, step: Step, commands: int) -> bool:
    """Does the step with a registry that dies after so many commands; whether it died."""
    dying = crashing(directory.store, commands)
    try:
        await step(Harness(RedisDirectoryWriter(dying), directory.reader))
    except StoreUnavailableError:
        return True
    return dying.life.spent >= commands


async def commands_of(redis_url: str, step: Step) -> int:
    """How many commands the step takes when nothing goes wrong."""
    async with raw(redis_url) as client:
        await client.flushall()
    async with over(redis_url) as directory:
        counting = crashing(directory.store, 1_000_000)
        await prepared(directory)
        await step(Harness(RedisDirectoryWriter(counting), directory.reader))
    return counting.life.spent


@pytest.mark.parametrize("step", [whole, changed, taken_over, left])
async def test_a_crash_anywhere_leaves_the_old_or_the_new_and_a_retry_heals_it(redis_url: str, step: Step) -> None:
    """For every number of commands:

    1. Right after the crash, answers show the old table, the new one, or (taken over, left) none; never a mixture.
    2. After the step is done again and all is reaped, answers and catalogue are those of a step without a crash.
    """
    after = set() if step is left else table(NEW)
    allowed = [table(OLD), after, set()] if step in (taken_over, left) else [table(OLD), after]
    catalogue = sorted({"shared", *(name.split()[0] for name in after)})

    async def trial(client: Any, directory: Harness, commands: int) -> None:
        await crash_at(directory, step, commands)
        found, names = await shown(directory)
        assert found in allowed, f"after {commands} commands"
        assert {name.split()[0] for name in found} <= set(names), f"after {commands} commands"
        # A change that is visible already cannot be made again, and the peer's heartbeat says so.
        if step is not changed or await directory.beat("a", revision=2) != "ok":
            await step(directory)
        await directory.until_names(catalogue)
        assert (await shown(directory))[0] == after, f"after {commands} commands"

    await every_crash(redis_url, await commands_of(redis_url, step), trial)


@pytest.mark.parametrize("step", [whole, changed, taken_over, left])
async def test_a_crash_and_the_peers_death_leave_nothing(redis_url: str, step: Step) -> None:
    """When the peer dies with its registry, the reaper takes away all that both have written."""

    async def trial(client: Any, directory: Harness, commands: int) -> None:
        await crash_at(directory, step, commands)
        await die(client)
        await directory.until_names(["shared"])
        await eventually(lambda: nothing_left_of_a(client, directory))

    await every_crash(redis_url, await commands_of(redis_url, step), trial)


async def test_a_reaper_that_dies_is_followed_by_another(redis_url: str) -> None:
    """Reaping may be cut off anywhere; what remains is done by the next one."""

    async def trial(client: Any, directory: Harness, commands: int) -> None:
        await die(client)
        await directory.let_time_pass()
        await crash_at(directory, reaped, commands)
        await directory.until_names(["shared"])
        await eventually(lambda: nothing_left_of_a(client, directory))

    await every_crash(redis_url, 40, trial)


async def reaped(directory: Harness) -> None:
    """All of it."""
    await directory.settle()


async def die(client: Any, peer_id: str = "a") -> None:
    """A peer's lease ends."""
    await client.delete(keys.peer(PeerId(peer_id)))
    await client.zadd(keys.LEASES, {peer_id: 1}, xx=True)


async def nothing_left_of_a(client: Any, directory: Harness) -> bool:
    """Whether no key mentions peer a any more, except those that expire (`removals`)."""
    await directory.clean_up()
    left = set(await client.keys("*"))
    kept, named = keys.holders(row("shared").key), keys.content_names(content("v1"))
    return (
        not any(b"{a}" in key and b":removals:" not in key for key in left)
        and {key for key in left if b":holders:" in key or b":content_names:" in key} == {kept, named}
        and (await client.hlen(kept), await client.hkeys(named)) == (1, [b"shared"])
        and keys.INTENTS.encode() not in left
        and await client.zrange(keys.LEASES, 0, -1) == [b"other"]
    )


async def test_an_abandoned_push_of_a_living_peer_is_cleaned_up_after_the_next_one(on_redis: Harness) -> None:
    """The registry dies in the middle of a push, and the peer pushes something else."""
    await on_redis.register("a")
    begun = on_redis.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    await begun.__aenter__()
    await begun.put([row("never")])
    assert await on_redis.names() == ["never"]
    await on_redis.push("a", [row("x")], revision=2)
    await on_redis.until_names(["x"])


async def test_a_push_that_only_pauses_is_not_cleaned_up(on_redis: Harness) -> None:
    """However long a peer takes between two batches, and however often the reaper passes: its index entries stay."""
    await on_redis.register("a")
    begun = on_redis.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    async with begun as push:
        await push.put([row("x")])
        for _ in range(3):
            await on_redis.store.run([("ZADD", keys.INTENTS, "XX", 1, each) for each, _ in await intents(on_redis)])
            await on_redis.settle()
            # The reaper has met the overdue note, and has put it off.
            assert [due > 1 for _, due in await intents(on_redis)] == [True]
        await push.commit()
    assert await on_redis.holders("x") != {}
    await on_redis.until_names(["x"])


async def intents(directory: Harness) -> list[tuple[bytes, float]]:
    """The notes of what is being done, and by when."""
    flat = await directory.store.one("ZRANGEBYSCORE", keys.INTENTS, "-inf", "+inf", "WITHSCORES")
    return [(member, float(due)) for member, due in zip(flat[::2], flat[1::2], strict=True)]
