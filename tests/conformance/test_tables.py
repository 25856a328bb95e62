"""Pushes: whole or not at all, on the revision they say, and only by the owner of the lease."""

import time

import pytest

from minga_core.errors import RegisterAgainError, TableRevisionMismatchError
from minga_core.ids import PeerId
from minga_core.names import Name
from minga_core.records import MAX_INSTANT_NS, HoldingState
from minga_directory.connect import connect
from minga_directory.push import MAX_CHANGE_ROWS
from tests.conformance.harness import SHORT, Harness, content, lease, over, row


async def test_a_whole_push_replaces_the_table(directory: Harness) -> None:
    """Rows that are not in the new table are gone, those in both stay."""
    await directory.register("a")
    await directory.push("a", [row("old"), row("both")])
    await directory.push("a", [row("both"), row("new")], revision=2)
    assert await directory.names() == ["both", "new"]
    assert await directory.holders("old") == {}
    assert await directory.beat("a", revision=2) == "ok"
    assert (await directory.reader.get_peer(PeerId("a"))).file_count == 2


async def test_a_change_adds_replaces_and_removes(directory: Harness) -> None:
    """A change touches the rows it names and no other."""
    await directory.register("a")
    await directory.push("a", [row("gone"), row("kept"), row("grown", partial=True)])
    await directory.change("a", [row("new"), row("grown")], [row("gone").key, row("never").key])
    assert await directory.names() == ["grown", "kept", "new"]
    grown = (await directory.reader.find(row("grown").key.name))[0]
    assert grown.holders[0].state is HoldingState.COMPLETE
    assert await directory.beat("a", revision=2) == "ok"
    assert (await directory.reader.get_peer(PeerId("a"))).file_count == 3


async def test_two_contents_under_one_name_are_two_rows(directory: Harness) -> None:
    """A peer may hold an old content and a part of the new one under the same name."""
    await directory.register("a")
    await directory.push("a", [row("x", "v1", published=1), row("x", "v2", published=2, partial=True)])
    versions = await directory.reader.find(row("x").key.name)
    assert [(version.published_ns, version.complete_count, version.partial_count) for version in versions] == [
        (1, 1, 0),
        (2, 0, 1),
    ]
    await directory.change("a", [row("x", "v2", published=2)], [row("x", "v1").key])
    versions = await directory.reader.find(row("x").key.name)
    assert [(version.published_ns, version.complete_count) for version in versions] == [(2, 1)]


async def test_changes_make_no_table_larger_than_it_may_be(directory: Harness) -> None:
    """However many of them there are; what fits is taken."""
    await directory.register("a")
    await directory.push("a", [row("x"), row("y")])
    await directory.change("a", [row("z")], max_rows=3)
    with pytest.raises(TableRevisionMismatchError):
        await directory.change("a", [row("more")], base=2, max_rows=3)
    await directory.until_names(["x", "y", "z"])
    await directory.change("a", remove=[row("x").key], base=2, max_rows=3)
    await directory.change("a", [row("more")], base=3, max_rows=3)
    await directory.until_names(["more", "y", "z"])


async def test_nothing_is_visible_before_the_commit(directory: Harness) -> None:
    """Answers show the old table until the commit."""
    await directory.register("a")
    await directory.push("a", [row("old")])
    begun = directory.writer.push_table(lease("a"), whole=True, base_revision=0, revision=2)
    async with begun as push:
        await push.put([row("new")])
        assert await directory.holders("new") == {}
        assert await directory.holders("old") != {}
        assert await push.commit() == 2
    assert await directory.holders("new") != {}
    assert await directory.holders("old") == {}


async def test_a_push_that_breaks_leaves_the_old_table(directory: Harness) -> None:
    """Leaving the push without a commit discards it, and its names do not stay in the catalogue."""
    await directory.register("a")
    await directory.push("a", [row("old")])
    begun = directory.writer.push_table(lease("a"), whole=True, base_revision=0, revision=2)
    async with begun as push:
        await push.put([row("new")])
    assert await directory.beat("a", revision=1) == "ok"
    assert await directory.holders("old") != {}
    await directory.push("a", [row("old")], revision=3)
    await directory.until_names(["old"])


async def test_a_push_of_nothing_is_an_empty_table(directory: Harness) -> None:
    """A peer that shares nothing says so with an empty push."""
    await directory.register("a")
    await directory.push("a", [row("x")])
    await directory.push("a", [], revision=2)
    assert await directory.names() == []
    assert await directory.beat("a", revision=2) == "ok"
    assert (await directory.reader.get_peer(PeerId("a"))).file_count == 0


async def test_a_row_put_twice_is_taken_once(directory: Harness) -> None:
    """The last of two rows with one key counts."""
    await directory.register("a")
    await directory.push("a", [row("x", partial=True), row("x")])
    assert (await directory.reader.find(row("x").key.name))[0].complete_count == 1
    assert (await directory.reader.get_peer(PeerId("a"))).file_count == 1


@pytest.mark.redis
async def test_a_time_of_publishing_in_the_future_owns_no_name(on_redis: Harness) -> None:
    """It counts as that of the push: what is published later is newer."""
    for peer_id in "ab":
        await on_redis.register(peer_id)
    await on_redis.push("a", [row("x", "hijack", published=MAX_INSTANT_NS)])
    (version,) = await on_redis.reader.find(Name("x"))
    assert abs(version.published_ns - time.time_ns()) < 3600 * 1_000_000_000
    await on_redis.push("b", [row("x", "later", published=MAX_INSTANT_NS)])
    versions = await on_redis.reader.find(Name("x"))
    assert [version.content_id for version in versions] == [content("later"), content("hijack")]


async def test_instants_before_1970_are_kept(directory: Harness) -> None:
    """File systems and archives give such times; they are no reason to refuse a table."""
    old = row("old", published=-5)
    await directory.register("a")
    await directory.push("a", [old, row("old", "v2", published=5), row("old", "v3", published=-9)])
    versions = await directory.reader.find(old.key.name)
    assert [version.published_ns for version in versions] == [5, -5, -9]
    assert (await directory.reader.list_names()).entries[0].published_ns == 5


async def test_a_change_on_another_revision_is_refused(directory: Harness) -> None:
    """Then nothing changes, and the peer knows to push the whole table."""
    await directory.register("a")
    await directory.push("a", [row("x")], revision=4)
    with pytest.raises(TableRevisionMismatchError):
        await directory.change("a", [row("y")], base=3)
    assert await directory.holders("y") == {}
    assert await directory.beat("a", revision=4) == "ok"


async def test_a_change_before_any_table_is_refused(directory: Harness) -> None:
    """There is nothing to change, not even revision 0."""
    await directory.register("a")
    with pytest.raises(TableRevisionMismatchError):
        await directory.change("a", [row("y")], base=0)


async def test_a_push_without_a_lease_is_told_to_register_again(directory: Harness) -> None:
    """Unknown, ended, and not yet registered generations may not push."""
    with pytest.raises(RegisterAgainError):
        await directory.push("a", [row("x")])
    await directory.register("a", ttl=SHORT)
    with pytest.raises(RegisterAgainError):
        await directory.push("a", [row("x")], 2)
    await directory.let_end("a")
    with pytest.raises(RegisterAgainError):
        await directory.push("a", [row("x")])
    await directory.settle()
    await directory.until_names([])


async def test_a_lease_that_ends_during_a_push_ends_the_push(directory: Harness) -> None:
    """Even when the peer has registered again meanwhile: what was staged may have been reaped."""
    await directory.register("a", ttl=SHORT)
    begun = directory.writer.push_table(lease("a"), whole=True, base_revision=0, revision=2)
    async with begun as push:
        await push.put([row("x")])
        await directory.let_end("a")
        await directory.settle()
        await directory.register("a")
        with pytest.raises((RegisterAgainError, TableRevisionMismatchError)):
            await push.commit()
    await directory.until_names([])
    await directory.push("a", [row("x")])
    assert await directory.names() == ["x"]
    assert await directory.holders("x") != {}


async def test_of_two_pushes_at_once_the_table_is_one_of_them(directory: Harness) -> None:
    """A push that was retried elsewhere while the first still runs never mixes with it."""
    await directory.register("a")
    first = directory.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    second = directory.writer.push_table(lease("a"), whole=True, base_revision=0, revision=1)
    async with first as one, second as other:
        await one.put([row("x"), row("first")])
        await other.put([row("x"), row("second")])
        await other.commit()
        with pytest.raises(TableRevisionMismatchError):
            await one.commit()
    await directory.settle()
    await directory.until_names(["second", "x"])
    assert list((await directory.holders("x")).values()) == [["a"]]


@pytest.mark.redis
async def test_a_change_too_large_to_copy_is_answered_with_push_the_whole_table(on_redis: Harness) -> None:
    """A whole table changes hands by renaming; of a change and its table one is copied, and must not hold Redis up."""
    await on_redis.register("a")
    await on_redis.push("a", [row(f"o{number}") for number in range(MAX_CHANGE_ROWS + 1)])
    begun = on_redis.writer.push_table(lease("a"), whole=False, base_revision=1, revision=2)
    async with begun as push:
        for start in range(0, MAX_CHANGE_ROWS, 1000):
            await push.put([row(f"n{number}") for number in range(start, start + 1000)])
        with pytest.raises(TableRevisionMismatchError):
            await push.put([row("x")])
    assert await on_redis.beat("a", revision=1) == "ok"


@pytest.mark.redis
async def test_a_change_that_removes_too_many_rows_is_answered_with_push_the_whole_table(on_redis: Harness) -> None:
    """Each of them is looked for in the table."""
    await on_redis.register("a")
    await on_redis.push("a", [row("x")])
    begun = on_redis.writer.push_table(lease("a"), whole=False, base_revision=1, revision=2)
    async with begun as push:
        with pytest.raises(TableRevisionMismatchError):
            await push.remove([row(f"n{number}").key for number in range(MAX_CHANGE_ROWS + 1)])
    assert await on_redis.beat("a", revision=1) == "ok"


@pytest.mark.redis
async def test_a_change_of_any_size_is_added_to_a_small_table(on_redis: Harness) -> None:
    """As when an emptied directory got the rows first that others request: the others come as a change. What the change
    says counts, and rows that it does not name stay."""
    await on_redis.register("a")
    await on_redis.push("a", [row("kept"), row("grown", partial=True), row("gone")])
    names = [f"n{number:04}" for number in range(MAX_CHANGE_ROWS + 1)]
    await on_redis.change("a", [row("grown"), *map(row, names)], [row("gone").key])
    await on_redis.until_names(["grown", "kept", *names])
    assert (await on_redis.reader.find(row("grown").key.name))[0].holders[0].state is HoldingState.COMPLETE
    assert (await on_redis.reader.get_peer(PeerId("a"))).file_count == len(names) + 2
    assert await on_redis.beat("a", revision=2) == "ok"


@pytest.mark.asks_keys
@pytest.mark.redis
async def test_a_change_whose_removals_ran_out_is_refused(redis_url: str) -> None:
    """Half of a change must never become visible."""
    async with over(redis_url) as directory:
        await directory.register("a")
        await directory.push("a", [row("x")])
        begun = directory.writer.push_table(lease("a"), whole=False, base_revision=1, revision=2)
        async with begun as push:
            await push.remove([row("x").key])
            store = connect(redis_url)
            assert await store.one("DEL", *await store.one("KEYS", "*:removals:*")) == 1
            await store.aclose()
            with pytest.raises(TableRevisionMismatchError):
                await push.commit()


@pytest.mark.asks_keys
@pytest.mark.redis
@pytest.mark.parametrize("whole", [True, False])
async def test_a_push_whose_rows_another_server_has_not_got_is_refused(redis_url: str, whole: bool) -> None:
    """As when a replica takes over between the rows and the commit: the table would have been without them for good."""
    async with over(redis_url) as directory:
        await directory.register("a")
        await directory.push("a", [row("x")])
        begun = directory.writer.push_table(lease("a"), whole=whole, base_revision=1, revision=2)
        async with begun as push:
            await push.put([row("x"), row("y")])
            store = connect(redis_url)
            assert await store.one("DEL", *await store.one("KEYS", "*:tombstones:{a}:*")) == 1
            await store.aclose()
            with pytest.raises(TableRevisionMismatchError):
                await push.commit()
        assert "x" in await directory.names()
