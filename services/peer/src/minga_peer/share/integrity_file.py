"""What the scrub knows, over restarts: how far it is, and which files are damaged. One JSON file in the state folder.

It is a cache: without it the scrub begins anew, and finds damage again.
"""

import asyncio
import json
import logging
import struct
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minga_core.errors import MingaError
from minga_core.ids import ContentId
from minga_core.names import parse_name
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.files import Fingerprint
from minga_peer.share.conditions import Conditions, Kind
from minga_peer.share.damaged import DamagedFile, DamagedFiles
from minga_peer.share.indexed_file import IndexedFile
from minga_peer.share.json_file import replace_json
from minga_peer.share.scrub import Scrub, ScrubState
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_DAMAGED = 10_000
"""Damaged files that are remembered; the others are found again."""
SAVE_SECONDS = 10.0
"""Between two looks at whether there is something to save."""


class IntegrityFile:
    """Keeps the file in step with the scrub and the damaged files. Only for the event loop's thread."""

    def __init__(self, path: Path, scrub: Scrub, damaged: DamagedFiles, pool: DiskPool, conditions: Conditions) -> None:
        self._path = path
        self._conditions = conditions
        self._scrub = scrub
        self._damaged = damaged
        self._pool = pool
        self._saved = self._state()

    def _state(self) -> tuple[ScrubState, int]:
        return self._scrub.state, self._damaged.revision

    async def load(self) -> None:
        """Go on where an earlier run ended."""
        self._scrub.state, damaged = await self._pool.run(load, self._path)
        self._damaged.load(damaged)

    async def save(self) -> None:
        """Save what has changed since it was saved last."""
        now = self._state()
        if now != self._saved:
            self._saved = now
            problem = await self._pool.run(save, self._path, self._scrub.state, list(self._damaged))
            if problem:
                self._conditions.set(Kind.INDEX, f"{self._path} cannot be written: {problem}", self._path.name)
            else:
                self._conditions.clear(Kind.INDEX, self._path.name)

    async def save_regularly(self) -> None:
        """Save every now and then, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            await self.save()


def load(path: Path) -> tuple[ScrubState, list[DamagedFile]]:
    """What was saved last; nothing when there is no file, or one that makes no sense. Blocking."""
    try:
        document = json.loads(path.read_bytes())
        return _scrub_state(document["scrub"]), [_damaged(item) for item in document["damaged"]]
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, struct.error, MingaError) as error:
        log_event(log, logging.WARNING, "integrity_not_read", path=path, error=error)
    return ScrubState(), []


def save(path: Path, state: ScrubState, damaged: Sequence[DamagedFile]) -> str:
    """Replace the file in one step; what went wrong, or nothing: what is lost is found again. Blocking."""
    document = {
        "scrub": asdict(state),
        "damaged": [_item(each) for each in damaged[:MAX_DAMAGED]],
    }
    try:
        replace_json(path, document)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return ""


def _scrub_state(item: dict[str, Any]) -> ScrubState:
    return ScrubState(
        bool(item["under_way"]),
        float(item["began_at"]),
        float(item["ended_at"]),
        int(item["read_bytes"]),
        str(item["name"]),
        str(item["content"]),
        int(item["chunk_count"]),
    )


def _item(damaged: DamagedFile) -> dict[str, Any]:
    file = damaged.file
    return {
        "name": file.name,
        "path": file.path,
        "fingerprint": file.fingerprint.numbers,
        "content_id": str(file.content_id),
        "published_ns": file.published_ns,
        "tag": file.tag.hex(),
        "why": damaged.why,
        "since": damaged.since,
    }


def _damaged(item: dict[str, Any]) -> DamagedFile:
    size_bytes, modified_ns, changed_ns, inode, device, executable = map(int, item["fingerprint"])
    file = IndexedFile(
        parse_name(item["name"]),
        str(item["path"]),
        Fingerprint(size_bytes, modified_ns, changed_ns, inode, device, bool(executable)),
        ContentId.parse(item["content_id"]),
        int(item["published_ns"]),
        bytes.fromhex(item.get("tag", "")),
    )
    return DamagedFile(file, str(item["why"]), float(item["since"]))
