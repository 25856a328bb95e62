"""Say when contents are, or were, given their names. Nothing is stored: rows carry the times.

A time is made of a fencing token, which is drawn for it. Every time in the directory is at or below a token that was
drawn before (`push` clamps them), so it is later than all of them without a look at any.
"""

from collections.abc import Sequence

from minga_core.records import REFUSED, Lease, Publication
from minga_directory import keys
from minga_directory.codec import name_entry
from minga_directory.leases import check_lease
from minga_directory.replies import check_reply
from minga_directory.scripts import evalsha
from minga_directory.store import Command, Store

MAX_VERSIONS_READ = 100
"""Of each name, of which a found one becomes older than the newest. Of more, a random choice: the newest of some is not
above the newest of all, so that it does not become the newest either way. Bounds one answer to 6 MB."""
NAMES_A_READ = 250
STEP_NS = 1_000_000
"""By how much a found version is older than the newest that is known."""
EARLIEST_FOUND_NS = 1_000_000_000
"""Of a name of which nothing is known: there is room for older ones, and 0 means that there is no time yet."""


async def publish(store: Store, lease: Lease, publications: Sequence[Publication]) -> list[int]:
    """See DirectoryWriter. Raises what redis-py raises."""
    answer, token = await store.run([check_lease(lease), evalsha("draw", [keys.TOKENS], [])])
    check_reply(lease.peer_id, answer)
    # Tokens are microseconds, and there are at most 1,000: each has a nanosecond of its own.
    now_ns = int(token) * 1_000
    times = [now_ns + at for at in range(len(publications))]
    found = [at for at, each in enumerate(publications) if each.join_only or _is_earlier(each)]
    for start in range(0, len(found), NAMES_A_READ):
        some = found[start : start + NAMES_A_READ]
        wanted = [publications[at] for at in some]
        for at, time in zip(some, await _found_times(store, wanted, now_ns), strict=True):
            times[at] = time
    return times


def _is_earlier(publication: Publication) -> bool:
    """Whether it may have been published before."""
    return publication.found_modified_ns is not None or publication.changed_ago_ns is not None


async def _found_times(store: Store, wanted: Sequence[Publication], now_ns: int) -> list[int]:
    """For each its time."""
    commands: list[Command] = []
    for each in wanted:
        name = keys.name(each.key.name)
        commands.append(("HGET", name, each.key.content_id.raw))
        commands.append(("HRANDFIELD", name, MAX_VERSIONS_READ, "WITHVALUES"))
    answers = await store.run(commands)
    times = []
    for each, own, flat in zip(wanted, answers[::2], answers[1::2], strict=True):
        known = _published(each.key.content_id.raw, own)
        others = [_published(field, value) for field, value in zip(flat[::2], flat[1::2], strict=True)]
        times.append(known or _found_time(each, max(others, default=0), now_ns))
    return times


def _published(field: bytes, value: bytes | None) -> int:
    """The time in an index entry; 0 when there is none, or none yet."""
    entry = None if value is None else name_entry(bytes(field), bytes(value))
    return 0 if entry is None else max(0, entry.published_ns)


def _found_time(publication: Publication, newest_ns: int, now_ns: int) -> int:
    """The time of a version that is not known."""
    if publication.join_only:
        return REFUSED
    modified_ns = publication.found_modified_ns
    if modified_ns is None:
        return max(EARLIEST_FOUND_NS, now_ns - (publication.changed_ago_ns or 0))
    if newest_ns > 0:
        return max(1, min(modified_ns, newest_ns - STEP_NS))
    # Before what is published by the same call.
    return max(EARLIEST_FOUND_NS, min(modified_ns, now_ns - 1))
