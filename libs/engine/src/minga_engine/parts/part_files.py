"""What a part is on disk, and the order of writing that makes it survive `kill -9` and power cuts.

A part is up to three files in the parts folder, named after the content and the file:

==========  ====================================================================================
``.data``   the content, chunks at their offsets; holes until they come, and where they are zeros
``.meta``   what is being built: name, publishing time, attributes, manifest; with a checksum
``.held``   bitmap of the verified chunks whose data are synced, the data file's inode, and a checksum
==========  ====================================================================================

Data are synced before a bitmap that claims them is written, and the bitmap is replaced in one step. A power cut loses
at most the chunks since the last save, and the bitmap never claims a chunk that is not there. The inode keeps a bitmap
from being read for a data file that was made anew.
"""

import fcntl
import json
import os
import struct
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minga_core.attributes import NO_ATTRIBUTES, FileAttributes
from minga_core.chunks import ChunkSet
from minga_core.errors import (
    AlreadyRunningError,
    ChunkCorruptError,
    InvalidArgumentError,
    MingaError,
)
from minga_core.ids import ContentId, digest
from minga_core.manifest import Manifest
from minga_core.names import Name, parse_name
from minga_engine.parts.disk import storage_errors
from minga_engine.parts.files import Fingerprint, fsync_folder, mode_of, set_executable, set_modified
from minga_engine.parts.holes import copy_range, data_ranges, is_hole, is_zero, write_at

PART_LIFE_SECONDS = 7 * 24 * 3600.0
"""A part that was not resumed for a week is deleted."""
_META_VERSION = 1
_LENGTH = struct.Struct(">I")
_INODE = struct.Struct(">Q")
_CHECKSUM_BYTES = 32


@dataclass(frozen=True, slots=True)
class PartTarget:
    """What a part is to become."""

    name: Name
    manifest: Manifest
    content_id: ContentId
    published_ns: int
    """Its source's time of publication, or PUBLISH, or FOUND."""
    attributes: FileAttributes = NO_ATTRIBUTES
    tag: bytes = b""
    """The proof of published_ns, or a ticket for publishing it."""

    def stem(self) -> str:
        """The files' common name: the content, and enough of the name's digest to tell two names apart."""
        return f"{self.content_id.raw.hex()}-{digest(self.name.encode()).hex()[:16]}"


@dataclass(frozen=True, slots=True)
class OpenedPart:
    """A part's data file, locked, and what it has."""

    descriptor: int
    held: ChunkSet


class PartFiles:
    """The files of one part. Every method blocks. Raises NoSpaceError or StorageError."""

    def __init__(self, folder: Path, target: PartTarget) -> None:
        self.target = target
        """What it becomes: attributes and publishing time may change from one attempt to the next."""
        stem = target.stem()
        self.data_path = folder / f"{stem}.data"
        self._meta_path = folder / f"{stem}.meta"
        self._held_path = folder / f"{stem}.held"
        self.described = False
        """Whether `.meta` is on disk: without it the part is lost with the process."""
        self._writing = threading.Lock()

    def open(self) -> OpenedPart:
        """Open the data file, or make it with its full size. Raises AlreadyRunningError when another process has it."""
        with storage_errors(f"cannot write {self.target.name}"):
            self.data_path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(
                self.data_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode_of(self.target.attributes)
            )
            try:
                return OpenedPart(descriptor, self._load(descriptor))
            except BaseException:
                os.close(descriptor)
                raise

    def _load(self, descriptor: int) -> ChunkSet:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunningError(
                f"{self.target.name} is being written by another download already",
                hint="wait until that is done, or end it: the same command goes on where it stopped",
            ) from None
        status, size_bytes = os.fstat(descriptor), self.target.manifest.size_bytes
        if status.st_size == size_bytes:
            self.described = self._meta_path.exists()
            return self._saved(status.st_ino)
        try:
            self._delete_bitmap()
            os.ftruncate(descriptor, size_bytes)
        except OSError:
            # Of another size it is of no use to a later attempt.
            with suppress(MingaError):
                self.delete()
            raise
        return ChunkSet(self.target.manifest.geometry.chunk_count)

    def _saved(self, inode: int) -> ChunkSet:
        """The chunks that the bitmap on disk claims; none when there is no whole bitmap of this very data file."""
        count = self.target.manifest.geometry.chunk_count
        try:
            saved = self._held_path.read_bytes()
            body, checksum = saved[:-_CHECKSUM_BYTES], saved[-_CHECKSUM_BYTES:]
            if digest(body) == checksum and _INODE.unpack_from(body) == (inode,):
                return ChunkSet.from_bytes(count, body[_INODE.size :])
        except (FileNotFoundError, InvalidArgumentError, struct.error):
            return ChunkSet(count)
        return ChunkSet(count)

    def _delete_bitmap(self) -> None:
        """Delete the old bitmap durably before the data file gets a size that would make it valid again."""
        if self._held_path.exists():
            with fsync_folder(self._held_path.parent):
                self._held_path.unlink()

    def write(self, descriptor: int, index: int, data: bytes | bytearray | memoryview) -> None:
        """Verifies a chunk, then writes it. Raises ChunkCorruptError; then nothing was written."""
        manifest = self.target.manifest
        if not manifest.matches(index, data):
            raise ChunkCorruptError(f"chunk {index} of {self.target.name} fails its digest")
        offset, zero = manifest.geometry.offset(index), is_zero(data)
        # One writer at a time: the kernel lets no more into a file anyway, and waiting there costs processor time
        # (profile of 1 GiB from a fast source: a tenth of the receiver's).
        with storage_errors(f"cannot write {self.target.name}"), self._writing:
            if not (zero and is_hole(descriptor, offset, len(data))):
                write_at(descriptor, data, offset)

    def copy(self, descriptor: int, index: int, source: int) -> None:
        """Copy a chunk from a file that should have the same content, in the kernel where it can; then verify it.

        Raises ChunkCorruptError; what was written is void then.
        """
        manifest = self.target.manifest
        offset, length = manifest.geometry.offset(index), manifest.geometry.length(index)
        with storage_errors(f"cannot write {self.target.name}"):
            ranges = data_ranges(source, offset, offset + length)
            for start, end in ranges if is_hole(descriptor, offset, length) else ((offset, offset + length),):
                copy_range(source, descriptor, start, end)
            data = os.pread(descriptor, length, offset)
        if not manifest.matches(index, data):
            raise ChunkCorruptError(f"chunk {index} of {self.target.name} is not in the file it was copied from")

    def save(self, descriptor: int, bitmap: bytes) -> None:
        """Syncs the data, then claims those chunks."""
        with storage_errors(f"cannot save the progress of {self.target.name}"):
            os.fdatasync(descriptor)
            if not self.described:
                _replace(self._meta_path, encode_meta(self.target))
                self.described = True
            body = _INODE.pack(os.fstat(descriptor).st_ino) + bitmap
            _replace(self._held_path, body + digest(body))

    def sync(self, descriptor: int) -> Fingerprint:
        """Give the file its modification time and sync it; the fingerprint that it has from now on, wherever it is
        moved to."""
        with storage_errors(f"cannot write {self.target.name}"):
            set_modified(descriptor, self.target.attributes)
            os.fsync(descriptor)
            return Fingerprint.of(os.fstat(descriptor))

    def resume(self, descriptor: int) -> None:
        """Note the time of use, and give the file of an earlier attempt the mode that it has to have now."""
        with storage_errors(f"cannot write {self.target.name}"), suppress(FileNotFoundError):
            os.utime(self._held_path)
            set_executable(descriptor, self.target.attributes)

    def last_used(self) -> float:
        """Unix time of the last use of what a later attempt could resume; 0 when there is no such thing.

        That is the bitmap's: the data file may have the modification time of the content already.
        """
        try:
            return self._held_path.stat().st_mtime
        except OSError:
            return 0.0

    def forget(self) -> None:
        """Deletes everything but the data."""
        with storage_errors(f"cannot delete the progress of {self.target.name}"):
            for path in (self._held_path, self._meta_path):
                # A process that was killed may have left the next one half written.
                _successor(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)

    def delete(self) -> None:
        """Deletes the part, the claims before what they claim."""
        self.forget()
        with storage_errors(f"cannot delete the part of {self.target.name}"):
            self.data_path.unlink(missing_ok=True)


def delete_stale(folder: Path) -> None:
    """Delete what earlier processes have left and nobody resumed for PART_LIFE_SECONDS. Blocking. Raises no OSError.

    What a living process has open stays, since it has a lock on it.
    """
    with suppress(OSError):
        for stem in {path.name.partition(".")[0] for path in folder.iterdir()}:
            with suppress(OSError):
                _delete_if_stale(folder, stem)


def _delete_if_stale(folder: Path, stem: str) -> None:
    data, held = folder / f"{stem}.data", folder / f"{stem}.held"
    rest = [path for path in folder.glob(f"{stem}.*") if path != data]
    if data.exists():
        last_used = (held if held.exists() else data).stat().st_mtime
        if time.time() - last_used > PART_LIFE_SECONDS:
            with data.open("rb") as locked:
                fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _delete_all([*rest, data])
    else:
        # It became a file, and the process died before the rest was deleted.
        _delete_all(rest)


def _delete_all(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def encode_meta(target: PartTarget) -> bytes:
    """The ``.meta`` file: a JSON head with its length before it, then the manifest, then a checksum over both."""
    published = {"published_ns": target.published_ns, "tag": target.tag.hex()}
    fields = {"version": _META_VERSION, "name": target.name} | published | target.attributes._asdict()
    head = json.dumps(fields).encode()
    body = _LENGTH.pack(len(head)) + head + target.manifest.encode()
    return body + digest(body)


def decode_meta(data: bytes) -> PartTarget:
    """What a ``.meta`` file says. Raises InvalidArgumentError when it is damaged."""
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(body) < _LENGTH.size or digest(body) != checksum:
        raise InvalidArgumentError("the part's description is damaged")
    (length,) = _LENGTH.unpack_from(body)
    try:
        head = json.loads(body[_LENGTH.size : _LENGTH.size + length])
        if head["version"] != _META_VERSION:
            raise InvalidArgumentError(f"the part's description has version {head['version']}")
        manifest = Manifest.decode(body[_LENGTH.size + length :])
        attributes = FileAttributes(head.get("modified_ns"), head.get("executable", False))
        name, published_ns = parse_name(head["name"]), int(head["published_ns"])
        tag = bytes.fromhex(head.get("tag", ""))
        return PartTarget(name, manifest, manifest.content_id, published_ns, attributes, tag)
    except MingaError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidArgumentError(f"the part's description makes no sense: {error}") from error


def _replace(path: Path, data: bytes) -> None:
    """Replaces a small file in one step: after a crash there is the old one or the new one, whole. Raises OSError."""
    successor = _successor(path)
    try:
        descriptor = os.open(successor, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            write_at(descriptor, data, 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        successor.replace(path)
    except OSError:
        with suppress(OSError):
            successor.unlink()
        raise


def _successor(path: Path) -> Path:
    return path.with_name(path.name + ".new")
