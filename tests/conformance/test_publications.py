"""Times of publication: who is the newest version of a name, whatever clocks, losses and liars say."""

import time
from contextlib import aclosing
from functools import partial
from itertools import permutations

import pytest

from minga_core.errors import RegisterAgainError
from minga_core.names import Name
from minga_core.records import MAX_INSTANT_NS, REFUSED, FileRow, Publication
from minga_directory import keys, lookup
from minga_directory.connect import connect
from minga_directory.publishing import EARLIEST_FOUND_NS, MAX_VERSIONS_READ, STEP_NS
from tests.conformance.harness import Harness, content, lease, row

HOUR_NS = 3_600 * 1_000_000_000


def new(name: str, version: str = "v1") -> Publication:
    """A content that is given a name now."""
    return Publication(row(name, version).key)


def changed(name: str, version: str, ago_ns: int) -> Publication:
    """A content that its peer may have published before."""
    return Publication(row(name, version).key, changed_ago_ns=ago_ns)


def found(name: str, version: str = "v1", modified_ns: int = 1_000) -> Publication:
    """A file about which its peer knows nothing else."""
    return Publication(row(name, version).key, modified_ns)


async def share(directory: Harness, peer_id: str, *rows: FileRow) -> None:
    """The table of a peer, which is registered first."""
    await directory.register(peer_id)
    await directory.push(peer_id, rows)


async def order(directory: Harness, name: str = "x") -> list[str]:
    """Short content ids of a name's versions, the default first."""
    return list(await directory.holders(name))


def shorts(*versions: str) -> list[str]:
    """Short content ids."""
    return [content(version).short for version in versions]


async def test_who_may_only_join_has_the_time_that_is_known_or_none(directory: Harness) -> None:
    """However it asks: a version that is not known is refused, also where the name has no other."""
    await directory.register("b")
    for _ in range(2):
        for asked in (new, partial(changed, ago_ns=5), found):
            wanted = [asked("x", "known"), asked("x", "evil"), asked("y", "evil")]
            times = await directory.publish("b", *(each._replace(join_only=True) for each in wanted))
            assert times == [REFUSED, REFUSED, REFUSED]
        await share(directory, "a", row("x", "known", published=0))
    await share(directory, "a", row("x", "known", published=77))
    for asked in (new, partial(changed, ago_ns=5), found):
        joined, own, refused = await directory.publish(
            "b",
            asked("x", "known")._replace(join_only=True),
            new("x", "v2"),
            asked("x", "evil")._replace(join_only=True),
        )
        assert (joined, refused) == (77, REFUSED)
        assert own > 77


async def test_what_is_published_later_is_newer(directory: Harness) -> None:
    """Also within one call, by the clock of the store, and by another peer."""
    await directory.register("a")
    await directory.register("b")
    times = await directory.publish("a", new("x", "v1"), new("y"), new("x", "v2"))
    times += await directory.publish("b", *(new("x", f"v{number}") for number in range(3, 1_003)))
    times += await directory.publish("a", new("x", "v1"))
    assert times == sorted(set(times))


async def test_nothing_is_visible_by_being_published(directory: Harness) -> None:
    """Rows carry the times."""
    await directory.register("a")
    await directory.publish("a", new("x"), found("y"))
    assert await directory.names() == []
    assert await directory.holders("x") == {}


async def test_who_has_no_lease_publishes_nothing(directory: Harness) -> None:
    """Not yet registered, or in another generation."""
    with pytest.raises(RegisterAgainError):
        await directory.publish("a", new("x"))
    await directory.register("a")
    with pytest.raises(RegisterAgainError):
        await directory.publish("a", new("x"), generation=2)


async def test_an_old_content_that_is_published_again_is_the_newest(directory: Harness) -> None:
    """Also while others hold it with its old time."""
    await share(directory, "a", row("x", "old", published=1_000), row("x", "new", published=2_000))
    await share(directory, "b", row("x", "old", published=1_000))
    assert await order(directory) == shorts("new", "old")
    (again,) = await directory.publish("b", new("x", "old"))
    await directory.change("b", [row("x", "old", published=again)])
    assert await order(directory) == shorts("old", "new")
    (listed,) = (await directory.reader.list_names()).entries
    assert (listed.content_id, listed.published_ns) == (content("old"), again)


async def test_a_file_that_may_have_been_published_before_is_as_old_as_its_last_change(directory: Harness) -> None:
    """A peer that was killed asks again for it. It keeps its time where that is known, and where it is not, because the
    peer was away for longer than its lease, what was published since is newer all the same."""
    await directory.register("a")
    old, newest = await directory.publish("a", new("x", "old"), new("x", "new"))
    await directory.push("a", [row("x", "old", published=old), row("x", "new", published=newest)])
    known, later, before, ancient = await directory.publish(
        "a",
        changed("x", "old", 0),
        changed("x", "other", 0),
        changed("x", "another", HOUR_NS),
        changed("x", "first", MAX_INSTANT_NS),
    )
    assert known == old
    assert later > newest
    assert old - HOUR_NS <= before < newest - HOUR_NS // 2
    assert ancient == EARLIEST_FOUND_NS


async def test_a_lost_index_never_makes_an_old_content_the_newest(directory: Harness) -> None:
    """What is known keeps its time; what is not comes before the newest, however late its file was modified."""
    await share(directory, "a", row("x", "v1", published=5 * HOUR_NS), row("x", "v2", published=6 * HOUR_NS))
    await directory.register("b")
    late, early, known, newest = await directory.publish(
        "b",
        found("x", "v0", MAX_INSTANT_NS),
        found("x", "v3", HOUR_NS),
        found("x", "v1", MAX_INSTANT_NS),
        found("x", "v2", 0),
    )
    assert (late, early) == (6 * HOUR_NS - STEP_NS, HOUR_NS)
    assert (known, newest) == (5 * HOUR_NS, 6 * HOUR_NS)
    await directory.push("b", [row("x", "v0", published=late), row("x", "v3", published=early)])
    assert await order(directory) == shorts("v2", "v0", "v1", "v3")


async def test_a_folder_that_is_shared_for_the_first_time_has_its_modification_times(directory: Harness) -> None:
    """Of names of which nothing is known; a file from the future has the present, and comes before what is published in
    the same call."""
    await directory.register("a")
    old, future, newer = await directory.publish(
        "a", found("x", "v1", HOUR_NS), found("y", "v1", MAX_INSTANT_NS), new("y", "v2")
    )
    assert old == HOUR_NS
    assert future < newer


async def test_many_found_files_have_times_of_their_own(directory: Harness) -> None:
    """They are looked up some at a time: the oldest of those before sets no bound."""
    modified = [HOUR_NS, *(2 * HOUR_NS + number for number in range(999))]
    await directory.register("a")
    publications = [found(f"n{number}", modified_ns=when) for number, when in enumerate(modified)]
    assert await directory.publish("a", *publications) == modified


@pytest.mark.parametrize("modified_ns", [0, 1, 1_000])
async def test_archives_whose_files_were_all_modified_at_once_are_kept_in_order(
    directory: Harness, modified_ns: int
) -> None:
    """Reproducible archives have 1970 in them: that is a time, not "none yet", and others find room before it."""
    await directory.register("a")
    (first,) = await directory.publish("a", found("x", "v1", modified_ns))
    assert first == EARLIEST_FOUND_NS
    await directory.push("a", [row("x", "v1", published=first)])
    await directory.register("b")
    (second,) = await directory.publish("b", found("x", "v2", modified_ns))
    assert 0 < second < first


async def test_a_row_without_a_time_is_before_all_others_and_says_nothing(directory: Harness) -> None:
    """An upload under way, a file whose peer has yet to ask: neither is the newest, nor known when one is found."""
    await share(directory, "a", row("x", "v1", published=1), row("x", "v2", published=0))
    assert await order(directory) == shorts("v1", "v2")
    await share(directory, "b", row("y", "v1", published=0), row("y", "v2", published=0))
    assert await directory.publish("b", found("y", "v1", HOUR_NS), found("y", "v3", HOUR_NS)) == [HOUR_NS, HOUR_NS]


async def test_an_early_time_demotes_nothing(directory: Harness) -> None:
    """Whoever announces a version with 1678, 1970 or none: of all claims the latest counts."""
    good = row("x", "good", published=2 * HOUR_NS)
    await share(directory, "a", good, row("x", "old", published=HOUR_NS))
    for number, published in enumerate((-MAX_INSTANT_NS, 0, 1)):
        await share(directory, f"liar{number}", row("x", "good", published=published))
    assert await order(directory) == shorts("good", "old")
    (version, _) = await directory.reader.find_content(content("good"))
    assert version is not None
    assert version.published_ns == 2 * HOUR_NS
    assert [entry.published_ns for entry in (await directory.reader.list_names()).entries] == [2 * HOUR_NS]
    await share(directory, "liar0", row("x", "good", published=-MAX_INSTANT_NS))
    assert await directory.publish("liar0", found("x", "good", 5)) == [2 * HOUR_NS]


@pytest.mark.redis
async def test_a_clock_that_was_put_back_orders_as_before(on_redis: Harness, redis_url: str) -> None:
    """The last token is an hour ahead of the clock: so it is for a clock that was put back by an hour. What is
    published then is later than all before, and no time is cut."""
    await on_redis.register("a")
    async with aclosing(connect(redis_url)) as store:
        drawn = int(await store.one("GET", keys.TOKENS))
        await store.one("SET", keys.TOKENS, drawn + HOUR_NS // 1_000)
    (before,) = await on_redis.publish("a", new("x", "v1"))
    assert before - time.time_ns() > HOUR_NS // 2
    await on_redis.push("a", [row("x", "v1", published=before)])
    (after,) = await on_redis.publish("a", new("x", "v2"))
    await on_redis.change("a", [row("x", "v2", published=after)])
    versions = await on_redis.reader.find(Name("x"))
    assert [version.published_ns for version in versions] == [after, before]


@pytest.mark.redis
async def test_a_published_time_is_never_cut_by_the_push_that_carries_it(on_redis: Harness) -> None:
    """The push draws its token later; all times of a call are below that."""
    await on_redis.register("a")
    times = await on_redis.publish("a", *(new(f"n{number}") for number in range(1_000)))
    some = (0, 1, 998, 999)
    await on_redis.push("a", [row(f"n{number}", published=times[number]) for number in some])
    versions = await on_redis.reader.find_newest([Name(f"n{number}") for number in some])
    assert [version.published_ns if version else None for version in versions] == [times[number] for number in some]


async def test_a_name_with_very_many_versions_is_read_in_part_and_none_becomes_the_newest(directory: Harness) -> None:
    """Whatever part of them is read."""
    count = 3 * MAX_VERSIONS_READ
    await share(directory, "a", *(row("x", f"v{number}", published=HOUR_NS + number) for number in range(count)))
    await directory.register("b")
    unknown, known = await directory.publish("b", found("x", "other", MAX_INSTANT_NS), found("x", "v7", 5))
    assert HOUR_NS - STEP_NS <= unknown < HOUR_NS + count - 1
    assert known == HOUR_NS + 7


@pytest.mark.redis
async def test_an_old_content_with_very_many_holders_is_the_newest_when_one_publishes_it_again(
    on_redis: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a sample of them is read for an answer, and it may lack that one."""
    monkeypatch.setattr(lookup, "SAMPLE_HOLDERS", 2)
    monkeypatch.setattr(lookup, "MAX_SCRIPT_HOLDERS", 2)
    for number in range(20):
        await share(on_redis, f"p{number}", row("x", "old", published=1_000))
    await share(on_redis, "a", row("x", "new", published=2_000))
    assert await order(on_redis) == shorts("new", "old")
    (again,) = await on_redis.publish("p7", new("x", "old"))
    await on_redis.change("p7", [row("x", "old", published=again)])
    for _ in range(5):
        assert await order(on_redis) == shorts("old", "new")
        (version,) = await on_redis.reader.find_newest([Name("x")])
        assert version is not None
        assert (version.content_id, version.published_ns) == (content("old"), again)


async def test_a_version_has_the_file_of_the_holder_that_published_last(directory: Harness) -> None:
    """Its modification time and its executable bit, in every kind of look-up; of equal claims a complete holder's, then
    the file that was modified first: copies may have times of their own."""
    key = row("x").key

    def held(modified: int, published: int, *, executable: bool = False, partial: bool = False) -> FileRow:
        return row("x", published=published, partial=partial)._replace(modified_ns=modified, executable=executable)

    tables = {
        "a": held(50, HOUR_NS, executable=True),
        "b": held(90, HOUR_NS),
        "c": held(10, HOUR_NS, partial=True),
        "d": held(5, HOUR_NS - 1),
    }
    for peers in permutations(tables, 3):
        for peer_id in tables:
            await directory.writer.leave(lease(peer_id))
        for peer_id in peers:
            await share(directory, peer_id, tables[peer_id])
        expected = next(peer_id for peer_id in "abcd" if peer_id in peers)
        for version in (
            *await directory.reader.find(key.name),
            *await directory.reader.find_newest([key.name]),
            (await directory.reader.find_content(key.content_id))[0],
        ):
            assert version is not None
            of = tables[expected]
            assert (version.modified_ns, version.executable) == (of.modified_ns, of.executable), peers
