"""Uploads that may go on later, after a lost connection and after a crash.

Of each there are two files in the state folder: `tus-ID.json` says what it is, and `tus-ID.part` has its bytes, whose
number is its offset. All of them are there only while it is being placed.
"""

import asyncio
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from minga_core.clock import Clock
from minga_core.errors import BusyError, MingaError, NotFoundError, Refusal
from minga_core.names import Name, parse_name
from minga_engine.parts.disk import DiskPool, storage_errors

KEPT_SECONDS = 24 * 60 * 60.0
"""An upload is removed when nothing of it has come for so long."""
SWEEP_SECONDS = 600.0
MAX_KEPT = 1024
"""Unfinished ones, half of them of one caller."""
MAX_FINISHED = 1024
"""Finished ones that are remembered: a client may not have seen the answer to its last bytes."""
_ID_BYTES = 18
_RECORD = re.compile(r"tus-([A-Za-z0-9_-]{24})\.json")


@dataclass(frozen=True, slots=True)
class Upload:
    """What is being uploaded. owner: who alone may go on with it. metadata: as its client sent it."""

    upload_id: str
    name: Name
    size_bytes: int
    replicas: int
    owner: str
    metadata: str


class UploadLockedError(Exception):
    """Another request is writing to that upload, or has it placed."""


class KeptUploads:
    """For the event loop's thread alone; `load` comes first."""

    def __init__(self, folder: Path, pool: DiskPool, clock: Clock) -> None:
        self._folder = folder
        self._pool = pool
        self._clock = clock
        self._unfinished: dict[str, Upload] = {}
        self._finished: dict[str, Upload] = {}
        self._locked: set[str] = set()

    async def load(self) -> None:
        """Go on with what was kept when the process ended. Removes what is damaged."""
        found = await self._pool.run(_load, self._folder)
        self._unfinished = {upload.upload_id: upload for upload in found}
        await self.expire()

    async def run(self) -> None:
        """Remove what expires, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self.expire()

    async def expire(self) -> None:
        """Remove unfinished uploads of which nothing has come for KEPT_SECONDS."""
        for upload in list(self._unfinished.values()):
            with suppress(UploadLockedError), self.locked(upload):
                found = await self._pool.run(_stat, self.path(upload))
                if found is None or self._clock.wall() > found.st_mtime + KEPT_SECONDS:
                    await self.remove(upload)

    async def create(self, name: Name, size_bytes: int, replicas: int, owner: str, metadata: str) -> Upload:
        """A new upload, of which nothing is there. Raises BusyError, NoSpaceError, StorageError."""
        upload = Upload(secrets.token_urlsafe(_ID_BYTES), name, size_bytes, replicas, owner, metadata)
        self._check_room(owner)
        with self.locked(upload):
            self._unfinished[upload.upload_id] = upload
            try:
                await self._pool.run(_create, self._folder, upload)
            except BaseException:
                await self.remove(upload)
                raise
        return upload

    def _check_room(self, owner: str) -> None:
        own, retry_after = sum(upload.owner == owner for upload in self._unfinished.values()), timedelta(minutes=1)
        if own >= MAX_KEPT // 2:
            text = f"{own:,} unfinished uploads of yours are kept already"
            raise BusyError(text, retry_after=retry_after, refusal=Refusal.QUOTA)
        if len(self._unfinished) >= MAX_KEPT:
            raise BusyError(f"{MAX_KEPT:,} unfinished uploads are kept already", retry_after=retry_after)

    def find(self, upload_id: str, owner: str) -> Upload:
        """The upload of that id. Raises NotFoundError, also where it is another caller's."""
        upload = self._unfinished.get(upload_id) or self._finished.get(upload_id)
        if upload is None or upload.owner != owner:
            raise _not_found()
        return upload

    @contextmanager
    def locked(self, upload: Upload) -> Iterator[None]:
        """Nothing else writes to it inside the block. Raises UploadLockedError."""
        if upload.upload_id in self._locked:
            raise UploadLockedError("another request is writing to this upload")
        self._locked.add(upload.upload_id)
        try:
            yield
        finally:
            self._locked.discard(upload.upload_id)

    def path(self, upload: Upload) -> Path:
        """Its bytes."""
        return self._folder / f"tus-{upload.upload_id}.part"

    async def progress(self, upload: Upload) -> tuple[int, float]:
        """How many of its bytes are here, and when it expires. Raises NotFoundError, StorageError."""
        if upload.upload_id in self._finished:
            return upload.size_bytes, self._clock.wall() + KEPT_SECONDS
        found = await self._pool.run(_stat, self.path(upload))
        if found is None:
            raise _not_found()
        return found.st_size, found.st_mtime + KEPT_SECONDS

    async def reopen(self, upload: Upload) -> None:
        """Have its client send the last byte again, where all are here: it could not be placed."""
        await self._pool.run(_shorten, self.path(upload), upload.size_bytes)

    async def finish(self, upload: Upload) -> None:
        """It is placed: its bytes are removed here."""
        await self.remove(upload)
        self._finished[upload.upload_id] = upload
        if len(self._finished) > MAX_FINISHED:
            del self._finished[next(iter(self._finished))]

    async def remove(self, upload: Upload) -> None:
        """Forget an upload and its bytes."""
        self._finished.pop(upload.upload_id, None)
        if self._unfinished.pop(upload.upload_id, None) is not None:
            await self._pool.run(_remove, self._folder, upload.upload_id)


def _not_found() -> NotFoundError:
    return NotFoundError("there is no such upload, or no longer", hint="begin a new one")


def _load(folder: Path) -> list[Upload]:
    """The unfinished uploads of a folder, which has nothing else of any afterwards."""
    found = [upload for path in folder.glob("tus-*.json") if (upload := _read(path)) is not None]
    known = {f"tus-{upload.upload_id}" for upload in found}
    for path in folder.glob("tus-*"):
        if path.stem not in known or path.suffix not in (".json", ".part"):
            _delete(path)
    return found


def _read(path: Path) -> Upload | None:
    """None for what is damaged, or has no bytes."""
    try:
        matched = _RECORD.fullmatch(path.name)
        record: dict[str, Any] = json.loads(path.read_bytes())
        upload = Upload(**record)
        parse_name(upload.name)
        good = matched is not None and matched[1] == upload.upload_id and upload.size_bytes > 0
        if not good:
            return None
        _shorten(path.with_suffix(".part"), upload.size_bytes)
    except (OSError, ValueError, TypeError, MingaError):
        return None
    return upload


def _create(folder: Path, upload: Upload) -> None:
    record, part = (folder / f"tus-{upload.upload_id}.{kind}" for kind in ("json", "part"))
    with storage_errors("cannot keep uploads"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            # A crash in between leaves bytes that `load` removes.
            part.touch(mode=0o600, exist_ok=False)
            temporary = record.with_suffix(".new")
            temporary.write_text(json.dumps(asdict(upload)))
            temporary.replace(record)
        except BaseException:
            _remove(folder, upload.upload_id)
            raise


def _stat(path: Path) -> os.stat_result | None:
    """None when there is no such file."""
    with storage_errors("cannot go on with the upload"):
        try:
            return path.stat()
        except FileNotFoundError:
            return None


def _shorten(path: Path, size_bytes: int) -> None:
    """Leave at most all bytes but the last one."""
    with storage_errors("cannot keep the upload"):
        if path.stat().st_size >= size_bytes:
            os.truncate(path, max(0, size_bytes - 1))


def _remove(folder: Path, upload_id: str) -> None:
    for kind in ("json", "new", "part"):
        _delete(folder / f"tus-{upload_id}.{kind}")


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
