"""What processes hold, and what is in their folders, once all work and all faults have stopped."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil

from minga_peer.share.file_reader import MAX_OPEN_FILES
from tests.chaos.ledger import Ledger
from tests.chaos.parts import Part, PeerPart
from tests.support.exposition import scraped

REST_LIMIT_SECONDS = 20.0
END_LIMIT_SECONDS = 90.0
"""Unused connections, and the tasks that have them, are given up after a minute."""
POLL_SECONDS = 0.5
STORE_FILES = 8
"""The index and its companions, which come and go."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """What one process has."""

    sockets: int
    open_files: int
    """Without partial downloads that were interrupted, which are kept open to be served."""
    deleted_files: int
    """Open ones in the shared folder that have no name any more: they take space on the disk."""
    threads: int
    tasks: int
    memory_mib: int

    def most(self, other: "Held") -> "Held":
        """The greater of each."""
        return Held(*(max(getattr(self, one.name), getattr(other, one.name)) for one in fields(Held)))


def allowed(peer_count: int, *, at_the_end: bool) -> Held:
    """More than the most that a process of its kind had before the first fault.

    A call's connection to every peer and from each, and eight of HTTP, which are gone in the end; files that
    are kept open to be served again; pools of threads that are filled when they are needed; buffers of transfers.
    """
    connections = (4 if at_the_end else 10) * peer_count
    return Held(
        connections,
        open_files=MAX_OPEN_FILES + STORE_FILES,
        deleted_files=0,
        threads=40,
        tasks=connections,
        memory_mib=250,
    )


class LeakWatch:
    """Compares every process with the first look at its kind, so that one that was started again is compared too."""

    def __init__(self, ledger: Ledger, peer_count: int) -> None:
        self._ledger = ledger
        self._peer_count = peer_count
        self._first: dict[str, Held] = {}
        self.most = Held(0, 0, 0, 0, 0, 0)

    async def begin(self, parts: Sequence[Part]) -> None:
        """Before anything has happened."""
        for part, held in await _held_by(parts):
            self._first[part.kind] = held.most(self._first.get(part.kind, held))

    async def check(self, parts: Sequence[Part], *, at_the_end: bool = False) -> None:
        """At rest: every process releases what exceeds its limits in time."""
        excess: list[tuple[Part, str]] = []
        most = allowed(self._peer_count, at_the_end=at_the_end)
        try:
            async with asyncio.timeout(END_LIMIT_SECONDS if at_the_end else REST_LIMIT_SECONDS):
                while excess := self._excess(await _held_by(parts), most):  # noqa: ASYNC110 - of other processes
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            for part, sentence in excess:
                self._ledger.violated(f"{sentence}; connections: {_connections(part)}")
        for sentence in debris(part.share for part in parts if isinstance(part, PeerPart)):
            self._ledger.violated(sentence)

    def _excess(self, found: Iterable[tuple[Part, Held]], most: Held) -> list[tuple[Part, str]]:
        listed = []
        for part, held in found:
            self.most = self.most.most(held)
            listed += [(part, sentence) for sentence in excess_of(part.name, held, self._first[part.kind], most)]
        return listed


def excess_of(name: str, held: Held, first: Held, most: Held) -> Iterator[str]:
    """Sentences about what is more than it may be."""
    for one in fields(Held):
        now, before = getattr(held, one.name), getattr(first, one.name)
        if now > before + getattr(most, one.name):
            yield f"{name} has {now} {one.name.replace('_', ' ')}, at first it was {before}"


def debris(shares: Iterable[Path]) -> Iterator[str]:
    """Sentences about files that belong to nothing. A partial download that was interrupted stays, to be resumed."""
    for share in shares:
        state = share / ".minga"
        parts = list((state / "parts").glob("*"))
        whole = {path.stem for path in parts if path.suffix == ".data"} & {
            path.stem for path in parts if path.suffix == ".meta"
        }
        for path in parts:
            if path.name.split(".")[0] not in whole:
                yield f"{path} belongs to no part"
        for path in state.iterdir() if state.exists() else ():
            if path.name not in ("parts", "lock", "lease", "integrity.json") and not path.name.startswith(
                "index.sqlite"
            ):
                yield f"{path} is no known file"


async def _held_by(parts: Sequence[Part]) -> list[tuple[Part, Held]]:
    return list(zip(parts, await asyncio.gather(*map(_held, parts)), strict=True))


async def _held(part: Part) -> Held:
    tasks = 0
    if part.metrics_address is not None:
        tasks = int((await scraped(part.metrics_address)).value(f"minga_{part.kind}_tasks"))
    process = psutil.Process(part.pid)
    links = await asyncio.to_thread(_open_links, part.pid)
    files = [link for link in links if link.startswith("/") and not link.startswith("/dev/")]
    share = f"{part.share}/" if isinstance(part, PeerPart) else "no such folder"
    return Held(
        sum(link.startswith("socket:") for link in links),
        sum("/.minga/parts/" not in link for link in files),
        sum(link.startswith(share) and link.endswith(" (deleted)") for link in files),
        process.num_threads(),
        tasks,
        process.memory_info().rss // MIB,
    )


def _open_links(pid: int) -> list[str]:
    """What a process's descriptors stand for; those that close meanwhile are left out."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.append(os.readlink(descriptor))
    return links


def _connections(part: Part) -> str:
    """How many of each kind, to find the reason."""
    known = psutil.Process(part.pid).net_connections()
    kinds = Counter(
        f"{one.status} {'to' if one.raddr and one.raddr.port < one.laddr.port else 'at'} port "
        f"{min(one.laddr.port, one.raddr.port) if one.raddr else one.laddr.port}"
        for one in known
        if one.laddr
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8))
