"""What an observer hears of a directory: each call once, how it ended, and nothing that changes the answer."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from minga_core.errors import LeaseSupersededError, PeerNotFoundError, StoreUnavailableError
from minga_core.ids import Address, ContentId, Generation, PeerId
from minga_core.names import parse_name
from minga_core.records import FetchClaim, FileRow, HoldingState, Lease, PeerInfo, Publication, RowKey
from minga_directory import (
    OUTCOMES,
    READER_OPERATIONS,
    WRITER_OPERATIONS,
    DirectoryReader,
    DirectoryWriter,
    HeartbeatOutcome,
    observed_reader,
    observed_writer,
)
from minga_directory.directory import Renewal
from tests.support.memory_directory import MemoryDirectory

LEASE, TTL = Lease(PeerId("a"), Generation(7), bytes(16)), timedelta(seconds=15)
INFO = PeerInfo(LEASE.peer_id, LEASE.generation, Address("a:50053"), "", 100, 60, "0.1.0")
NAME, CONTENT = parse_name("f"), ContentId(bytes(32))
ROW = FileRow(RowKey(NAME, CONTENT), 5, 1, 1, HoldingState.COMPLETE)
BEAT = Renewal(LEASE, 1, 60, 0)


class Heard:
    """Implements StoreObserver."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.seconds: list[float] = []

    def store_called(self, operation: str, outcome: str, seconds: float) -> None:
        """See StoreObserver."""
        assert outcome in OUTCOMES
        self.calls.append((operation, outcome))
        self.seconds.append(seconds)


async def push(writer: DirectoryWriter) -> int:
    """A push that puts a row and takes another one away."""
    change = writer.push_table(LEASE, whole=False, base_revision=1, revision=2)
    async with change as push:
        await push.put([ROW])
        await push.remove([RowKey(parse_name("old"), CONTENT)])
        await push.renew()
        return await push.commit()


async def push_whole(writer: DirectoryWriter) -> None:
    """The table that `push` changes."""
    async with writer.push_table(LEASE, whole=True, base_revision=0, revision=1) as push:
        await push.commit()


Writing = Callable[[DirectoryWriter], Awaitable[Any]]
Reading = Callable[[DirectoryReader], Awaitable[Any]]
WRITING: dict[str, tuple[Writing, list[str]]] = {
    "register": (lambda writer: writer.register(INFO, TTL, LEASE.token), ["register"]),
    "publish": (lambda writer: writer.publish(LEASE, [Publication(ROW.key)]), ["publish"]),
    "claim_fetch": (lambda writer: writer.claim_fetch(LEASE, FetchClaim(NAME, bytes(32), 1)), ["claim_fetch"]),
    "renew": (lambda writer: writer.renew([BEAT]), ["renew"]),
    "push": (push, ["push_begin", "push_rows", "push_rows", "push_renew", "push_commit"]),
    "leave": (lambda writer: writer.leave(LEASE), ["leave"]),
    "reap": (lambda writer: writer.reap(limit=5), ["reap"]),
    "lease_counts": (lambda writer: writer.lease_counts(), ["lease_counts"]),
    "ping": (lambda writer: writer.ping(), ["ping"]),
}
READING: dict[str, Reading] = {
    "find": lambda reader: reader.find(NAME, content_id=CONTENT, max_holders=3),
    "find_newest": lambda reader: reader.find_newest([NAME], max_holders=3),
    "find_content": lambda reader: reader.find_content(CONTENT, max_holders=3),
    "list_names": lambda reader: reader.list_names(prefix="f", query="*", after="", limit=5),
    "list_peers": lambda reader: reader.list_peers(after="", limit=5),
    "get_peer": lambda reader: reader.get_peer(LEASE.peer_id),
    "place": lambda reader: reader.place(parse_name("new"), 5, 1, content_id=None, margin_bytes=1),
    "stats": lambda reader: reader.stats(),
    "ping": lambda reader: reader.ping(),
}


@pytest.fixture
async def directory() -> MemoryDirectory:
    """A peer that shares a file."""
    memory = MemoryDirectory()
    await memory.register(INFO, TTL, LEASE.token)
    await push_whole(memory)
    return memory


@pytest.mark.parametrize("name", WRITING)
async def test_every_write_is_told_once_for_each_step(directory: MemoryDirectory, name: str) -> None:
    """With the operation's name, as ok; the answer is the directory's own."""
    heard, (write, steps) = Heard(), WRITING[name]
    await write(observed_writer(directory, heard))
    assert heard.calls == [(step, "ok") for step in steps]
    assert min(heard.seconds) >= 0


@pytest.mark.parametrize("name", READING)
async def test_every_read_is_told_once_and_answered_alike(directory: MemoryDirectory, name: str) -> None:
    """What the observer hears changes nothing of what the reader says."""
    await push(directory)
    heard, read = Heard(), READING[name]
    observed = await read(observed_reader(directory, heard))
    assert heard.calls == [(name, "ok")]
    if name not in (
        "get_peer",
        "list_peers",
        "find",
        "find_newest",
        "find_content",
        "place",
    ):  # the time left
        assert observed == await read(directory)


def test_the_closed_sets_are_what_the_ports_have() -> None:
    """A method that is added to a port gets its operation, or this fails."""

    def methods(port: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(port, inspect.isfunction) if not name.startswith("_")}

    assert set(READER_OPERATIONS) == methods(DirectoryReader) == set(READING)
    pushes = {"push_begin", "push_rows", "push_renew", "push_commit"}
    assert set(WRITER_OPERATIONS) == methods(DirectoryWriter) - {"push_table"} | pushes
    assert {step for _, steps in WRITING.values() for step in steps} == set(WRITER_OPERATIONS)


async def test_a_store_that_is_away_is_told_as_unavailable(directory: MemoryDirectory) -> None:
    """And the error passes through."""
    heard = Heard()
    directory.available = False
    with pytest.raises(StoreUnavailableError):
        await observed_reader(directory, heard).find(NAME)
    with pytest.raises(StoreUnavailableError):
        await observed_writer(directory, heard).reap()
    assert heard.calls == [("find", "unavailable"), ("reap", "unavailable")]


async def test_a_refusal_is_no_failure_of_the_store(directory: MemoryDirectory) -> None:
    """A lease that another owns, a peer that nobody knows: the store has answered."""
    heard = Heard()
    with pytest.raises(LeaseSupersededError):
        await observed_writer(directory, heard).register(
            PeerInfo(LEASE.peer_id, Generation(6), Address("b:1"), "", 100, 60, "0.1.0"), TTL, LEASE.token
        )
    with pytest.raises(PeerNotFoundError):
        await observed_reader(directory, heard).get_peer(PeerId("nobody"))
    assert heard.calls == [("register", "ok"), ("get_peer", "ok")]


class Odd(MemoryDirectory):
    """Answers as no store should."""

    async def ping(self) -> None:
        """Never."""
        await asyncio.Event().wait()

    async def lease_counts(self) -> tuple[int, int]:
        """A bug."""
        raise RuntimeError("bug")

    async def renew(self, renewals: Any) -> Any:
        """One of two shards is away."""
        return [HeartbeatOutcome.OK, StoreUnavailableError("away")]


async def test_a_call_that_its_caller_gave_up_is_told_as_unavailable() -> None:
    """The locator has a limit for a request, and a store that hangs must not be one of which nothing is heard."""
    heard = Heard()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await observed_writer(Odd(), heard).ping()
    assert heard.calls == [("ping", "unavailable")]


async def test_a_bug_is_told_as_an_error() -> None:
    """It is nobody's outage."""
    heard = Heard()
    with pytest.raises(RuntimeError, match="bug"):
        await observed_writer(Odd(), heard).lease_counts()
    assert heard.calls == [("lease_counts", "error")]


async def test_renewals_that_fail_in_part_are_told_as_unavailable() -> None:
    """They come back as answers, not as an error: a part of a Cluster is away."""
    heard = Heard()
    assert len(await observed_writer(Odd(), heard).renew([BEAT, BEAT])) == 2
    assert heard.calls == [("renew", "unavailable")]
