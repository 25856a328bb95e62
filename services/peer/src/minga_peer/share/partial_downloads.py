"""The parts that a store has: those being written and those of earlier runs, which are served and may be resumed."""

import logging
from collections.abc import Iterable
from pathlib import Path

from minga_core.clock import Clock
from minga_core.errors import MingaError, StorageError
from minga_core.ids import ContentId
from minga_core.records import RowKey
from minga_engine.parts.disk import DiskPool
from minga_engine.parts.part import Part
from minga_engine.parts.part_files import PartFiles, PartTarget, decode_meta
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_KEPT_PARTS = 256
"""Parts that nobody writes, each with an open descriptor; older ones than the newest so many are deleted."""
PART_LIFE_SECONDS = 7 * 24 * 3600.0
"""A part that nobody has resumed for a week is deleted."""


class Shelf:
    """Parts by row and by content. Only for the event loop's thread, save `kept_targets`."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self._clock = clock
        self._parts: dict[RowKey, Part] = {}
        self._of_content: dict[ContentId, list[Part]] = {}

    def get(self, key: RowKey) -> Part | None:
        """The part of that row."""
        return self._parts.get(key)

    def put(self, part: Part) -> None:
        """Takes a part."""
        self._parts[key_of_part(part)] = part
        self._of_content.setdefault(part.target.content_id, []).append(part)

    def drop(self, part: Part) -> None:
        """Forgets a part; no error when it is not here."""
        if self._parts.get(key_of_part(part)) is not part:
            return
        del self._parts[key_of_part(part)]
        others = self._of_content[part.target.content_id]
        others.remove(part)
        if not others:
            del self._of_content[part.target.content_id]

    def best(self, content_id: ContentId) -> Part | None:
        """The part with the most chunks of a content; None when there is none."""
        return max(self._of_content.get(content_id, ()), key=lambda part: part.held_count, default=None)

    def all(self) -> list[Part]:
        """Every part."""
        return list(self._parts.values())

    @property
    def whole_bytes(self) -> int:
        """What the parts will have once they are whole."""
        return sum(part.manifest.size_bytes for part in self._parts.values())

    @property
    def unwritten_bytes(self) -> int:
        """What the parts have still to write."""
        return sum(part.manifest.size_bytes - part.held_bytes for part in self._parts.values())

    def kept_targets(self) -> list[PartTarget]:
        """What earlier runs left on disk that is worth taking over; deletes what is damaged, stale or too many.

        Blocks; for the start only. Raises OSError.
        """
        paths = list(self.folder.iterdir())
        found = [found for path in paths if path.suffix == ".meta" and (found := self._read(path)) is not None]
        found.sort(key=lambda each: each[1], reverse=True)
        kept = [target for target, _ in found[:MAX_KEPT_PARTS]]
        stems = {target.stem() for target in kept}
        self._delete(path for path in paths if path.name.partition(".")[0] not in stems)
        return kept

    def _read(self, meta: Path) -> tuple[PartTarget, float] | None:
        """What a part is to become and when it was last used; None when there is nothing to resume."""
        try:
            target = decode_meta(meta.read_bytes())
            status = PartFiles(self.folder, target).data_path.stat()
        except FileNotFoundError:
            # It became a file, and the process died before the rest was tidied up.
            return None
        except (MingaError, OSError) as error:
            log_event(log, logging.WARNING, "part_damaged", part=meta.name, error=error)
            return None
        if target.stem() != meta.stem:
            log_event(log, logging.WARNING, "part_damaged", part=meta.name, error="it is named after another content")
            return None
        if status.st_nlink > 1:
            # The process died between giving the file its name and taking this one away: it is whole and shared.
            return None
        if self._is_stale(status.st_mtime):
            log_event(log, logging.INFO, "part_expired", name=target.name)
            return None
        return target, status.st_mtime

    async def expire(self, pool: DiskPool) -> None:
        """Deletes the parts that nobody writes and that have become stale, or are too many."""
        used = [(await pool.run(part.files.last_used), part) for part in self.all() if not part.writing]
        used.sort(key=lambda each: each[0], reverse=True)
        for rank, (last_used, part) in enumerate(used):
            if part.writing or (rank < MAX_KEPT_PARTS and not self._is_stale(last_used)):
                continue
            log_event(log, logging.INFO, "part_expired", name=part.target.name)
            try:
                await part.discard()
            except StorageError as error:
                log_event(log, logging.WARNING, "part_not_deleted", part=part.target.name, error=error)

    def _is_stale(self, last_used: float) -> bool:
        """Whether a part that was last used then is to be deleted."""
        return self._clock.wall() - last_used > PART_LIFE_SECONDS

    @staticmethod
    def _delete(paths: Iterable[Path]) -> None:
        for path in paths:
            try:
                path.unlink()
            except OSError as error:
                log_event(log, logging.WARNING, "part_not_deleted", part=path.name, error=error)


def key_of_part(part: Part) -> RowKey:
    """The row that the part will have."""
    return RowKey(part.target.name, part.target.content_id)
