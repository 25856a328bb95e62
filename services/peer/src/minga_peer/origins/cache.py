"""What was fetched from origins stays within a limit: what was not used for longest goes first, never anything else.

When each file was used, where it was from, and which are pinned, is in `cache.json` of the state folder; what it does
not have was used when it came.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from minga_core.clock import Clock
from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, MingaError, NoSpaceError
from minga_core.names import ORIGINS_PREFIX, Name, parse_name
from minga_core.records import HoldingState
from minga_core.units import format_bytes, parse_bytes
from minga_engine.parts.disk import DiskPool
from minga_peer.origins._metrics import OriginMetrics
from minga_peer.share.json_file import replace_json
from minga_peer.share.store import ContentStore
from minga_peer.share.table import RowsChanged
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

CHECK_SECONDS = 30.0
"""How often the limit is held to besides when something comes, and uses are saved: what a crash forgets of them."""


@dataclass(frozen=True, slots=True)
class Limit:
    """Of what is kept: so many bytes, or a share of the peer's capacity."""

    size_bytes: int = 0
    share: float = 0.0

    def of(self, capacity_bytes: int) -> int:
        """In bytes."""
        return self.size_bytes or int(self.share * capacity_bytes)


def parse_limit(text: str) -> Limit:
    """`20%` of the capacity, or bytes as `500GB`; `0` keeps nothing that is not in use. Raises InvalidArgumentError."""
    if not text.endswith("%"):
        return Limit(parse_bytes(text))
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise InvalidArgumentError(f"{text!r} is not a share: 0% to 100%, or bytes as 500GB")
    return Limit(share=percent / 100)


@dataclass(slots=True)
class _Use:
    at: float
    """Unix time."""
    pinned: bool = False
    url: str = ""


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of an origin that is here."""

    name: Name
    size_bytes: int
    used_at: float
    """Unix time of the last use here."""
    pinned: bool
    url: str
    """Where it was from when it was asked for here last, without its query, which may be a signature; may be empty."""


class Cache:
    """The files of origins of one peer. Only for the event loop's thread."""

    def __init__(self, store: ContentStore, limit: Limit, clock: Clock, pool: DiskPool, metrics: OriginMetrics) -> None:
        self.in_use: Callable[[Name], bool] = lambda name: False
        """Whether somebody reads a file now."""
        self._store = store
        self._limit = limit
        self._clock = clock
        self._pool = pool
        self._metrics = metrics
        self._path = store.state_dir / "cache.json"
        self._uses: dict[Name, _Use] = {}
        self._saved = True
        self._sizes: dict[Name, int] = {}
        self._came: dict[Name, float] = {}
        self._evicting = asyncio.Lock()
        self._table_changed(RowsChanged(tuple(store.table.rows())))
        store.table.on_change(self._table_changed)

    def _table_changed(self, change: RowsChanged) -> None:
        for row in change.put:
            name = row.key.name
            if name.startswith(ORIGINS_PREFIX) and row.state is HoldingState.COMPLETE:
                self._sizes[name] = row.size_bytes
                self._came[name] = row.modified_ns / 1e9
        for key in change.remove:
            if key.name in self._sizes and self._store.find(key.name) is None:
                del self._sizes[key.name], self._came[key.name]

    @property
    def limit_bytes(self) -> int:
        """How much is kept."""
        return self._limit.of(self._store.status().capacity_bytes)

    def files(self) -> list[CachedFile]:
        """What is here, the last used first."""
        found = [self._file(name, size_bytes) for name, size_bytes in self._sizes.items()]
        return sorted(found, key=lambda file: file.used_at, reverse=True)

    def _file(self, name: Name, size_bytes: int) -> CachedFile:
        use = self._uses.get(name) or _Use(self._came[name])
        return CachedFile(name, size_bytes, use.at, use.pinned, use.url)

    def used(self, name: Name, url: str) -> None:
        """Note that a file is used now. url: where it is from."""
        before = self._uses.get(name)
        self._uses[name] = _Use(self._clock.wall(), before is not None and before.pinned, url.partition("?")[0])
        self._saved = False

    async def pin(self, name: Name, *, pinned: bool) -> None:
        """Keep a file whatever the limit, or no more. Raises FileNotFoundInDirectoryError when it is not here."""
        if name not in self._sizes:
            raise FileNotFoundInDirectoryError(f"{name} is not a file of an origin that is here")
        file = self._file(name, 0)
        self._uses[name] = _Use(file.used_at, pinned, file.url)
        self._saved = False
        await self._save()

    def check_room(self, wanted: Mapping[Name, int], *, pinned: bool) -> None:
        """Check that files of these sizes can all be here at once. pinned: they will stay whatever the limit.

        Raises NoSpaceError: for more than is kept in all, beside what is pinned, each would make room for the next.
        """
        total = sum(wanted.values())
        others = [file for file in self.files() if file.name not in wanted]
        limit = self.limit_bytes - sum(file.size_bytes for file in others if file.pinned)
        if not pinned and total > limit:
            raise NoSpaceError(
                f"it has {format_bytes(total)}, and this peer keeps {format_bytes(max(0, limit))} of what it fetches",
                hint="MINGA_CACHE sets that; what is pinned stays whatever it says",
            )
        missing = sum(size_bytes for name, size_bytes in wanted.items() if name not in self._sizes)
        room = self._store.status().free_bytes + sum(file.size_bytes for file in others if not file.pinned)
        if missing > room:
            raise NoSpaceError(f"{format_bytes(missing)} needed, {format_bytes(room)} free")

    async def make_room(self, size_bytes: int = 0) -> None:
        """Delete files until so much more may come, if that can be; what is used or pinned stays."""
        async with self._evicting:
            held = sum(self._sizes.values())
            # Asked before they are put in order, which takes a tenth of a second for 100,000.
            if self._fits(held, size_bytes):
                return
            for file in reversed(self.files()):
                if self._fits(held, size_bytes):
                    return
                if not file.pinned and not self.in_use(file.name) and await self._evict(file):
                    held -= file.size_bytes

    def _fits(self, held_bytes: int, size_bytes: int) -> bool:
        return held_bytes + size_bytes <= self.limit_bytes and size_bytes <= self._store.status().free_bytes

    async def _evict(self, file: CachedFile) -> bool:
        try:
            await self._store.remove(file.name)
        except MingaError as error:
            log_event(log, logging.WARNING, "cached_file_not_evicted", name=file.name, error=error)
            return False
        self._metrics.evicted(file.size_bytes)
        size = format_bytes(file.size_bytes)
        log_event(log, logging.INFO, "cached_file_evicted", name=file.name, size=size, used_at=int(file.used_at))
        return True

    async def run(self) -> None:
        """Hold to the limit, and save what was used, until cancelled."""
        self._uses = await self._pool.run(_load, self._path) | self._uses
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            await self.make_room()
            await self._save()

    async def _save(self) -> None:
        if not self._saved:
            self._saved = True
            self._uses = {name: use for name, use in self._uses.items() if name in self._sizes or self.in_use(name)}
            document = {name: [use.at, use.pinned, use.url] for name, use in self._uses.items()}
            await self._pool.run(_write, self._path, document)

    async def aclose(self) -> None:
        """Save what was used."""
        await self._save()


def _load(path: Path) -> dict[Name, _Use]:
    """What was saved last; nothing when there is no file, or one that makes no sense. Blocking."""
    try:
        document = json.loads(path.read_bytes())
        return {
            parse_name(name): _Use(float(at), bool(pinned), *map(str, url[:1]))
            for name, (at, pinned, *url) in document.items()
        }
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, AttributeError, MingaError) as error:
        log_event(log, logging.WARNING, "cache_not_read", path=path, error=error)
    return {}


def _write(path: Path, document: dict[Name, Iterable[object]]) -> None:
    """Replace the file in one step. An error costs an order of eviction and pins, and is logged. Blocking."""
    try:
        replace_json(path, document)
    except OSError as error:
        log_event(log, logging.WARNING, "cache_not_written", path=path, error=error)
