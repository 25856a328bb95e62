"""The cache of the Hugging Face hub's clients, as they document it: blobs, refs, snapshots of links, and trees.

Everything is written beside its place and moved there: a client that runs meanwhile finds all of a file, or none.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minga.errors import InvalidArgumentError, UnavailableError

COPY_BYTES = 1 << 30
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
KINDS = ("datasets", "spaces")


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a commit, as the hub lists it. git_id: of its blob, or of what stands for it in git."""

    path: str
    size_bytes: int
    git_id: str
    sha256: str = ""
    """Of a file that is not in git itself."""

    @property
    def etag(self) -> str:
        """What the hub says of its content, which is the name of its blob."""
        return self.sha256 or self.git_id


def parse_entry(entry: Mapping[str, Any]) -> TreeFile:
    """A file of the hub's list. Raises UnavailableError for what would leave the cache, or is none."""
    try:
        lfs = entry.get("lfs") or {}
        file = TreeFile(str(entry["path"]), int(entry["size"]), str(entry["oid"]), str(lfs.get("oid", "")))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UnavailableError("the hub lists what is no file") from None
    parts = file.path.split("/")
    if {"", ".", ".."} & set(parts) or re.search(r"[\\\0-\x1f]", file.path) or not _ID.fullmatch(file.etag):
        raise UnavailableError(f"the hub lists a file that no cache can have: {file.path[:200]!r}")
    return file


def default_cache(environment: Mapping[str, str]) -> Path:
    """Where clients look unless they are set otherwise."""
    if cache := environment.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    return home_of(environment) / "hub"


def home_of(environment: Mapping[str, str]) -> Path:
    """What clients keep besides: the token."""
    base = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(environment.get("HF_HOME") or f"{base}/huggingface").expanduser()


class RepositoryCache:
    """What a cache has of one repository, `org/name` or `datasets/org/name`. All of it blocks, and raises OSError."""

    def __init__(self, cache: Path, repository: str) -> None:
        first, _, rest = repository.partition("/")
        kind, name = (first, rest) if first in KINDS and rest else ("models", repository)
        self.folder = cache / f"{kind}--{name.replace('/', '--')}"

    def has(self, file: TreeFile) -> bool:
        """Whether its blob is there."""
        with suppress(OSError):
            return self._blob(file).stat().st_size == file.size_bytes
        return False

    @contextmanager
    def placing(self, file: TreeFile) -> Iterator[Path]:
        """A path to write its blob to, which is moved to its place at the end of the block; an error leaves nothing."""
        blob = self._blob(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f"{file.etag[:40]}.", suffix=".incomplete", dir=blob.parent)
        os.close(descriptor)
        try:
            yield Path(name)
            # As clients make theirs: by the umask.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(name, 0o666 & ~umask)
            os.replace(name, blob)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def link(self, commit: str, file: TreeFile) -> None:
        """Have the snapshot of a commit show a file whose blob is there."""
        place = self.folder / "snapshots" / commit / file.path
        place.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(self._blob(file), place.parent)
        with suppress(OSError):
            if os.readlink(place) == target:
                return
        temporary = place.with_name(f".{place.name[:200]}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(place)

    def finish(self, revision: str, commit: str, listed: list[TreeFile]) -> None:
        """Once all is there: what the commit has, for clients from 1.22 on, and what the revision stands for."""
        files = {file.path: _tree_fields(file) for file in sorted(listed, key=lambda file: file.path)}
        _write(self.folder / "trees" / f"{commit}.json", json.dumps({"format_version": 1, "files": files}, indent=1))
        if revision != commit:
            _write(self.folder / "refs" / revision, commit)

    def _blob(self, file: TreeFile) -> Path:
        return self.folder / "blobs" / file.etag


def copy_shared(source: Path, target: Path, size_bytes: int) -> bool:
    """Copy a file, by sharing its blocks where the file system can; False when it is not there as expected."""
    try:
        with source.open("rb") as reading, target.open("r+b") as writing:
            if os.fstat(reading.fileno()).st_size != size_bytes:
                return False
            _copy(reading.fileno(), writing.fileno(), size_bytes)
            return os.fstat(writing.fileno()).st_size == size_bytes
    except FileNotFoundError:
        return False


def _copy(source: int, target: int, size_bytes: int) -> None:
    try:
        done = 0
        while done < size_bytes and (count := os.copy_file_range(source, target, min(COPY_BYTES, size_bytes - done))):
            done += count
    except OSError:
        # Another file system, or one that cannot.
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        with open(source, "rb", closefd=False) as reading, open(target, "wb", closefd=False) as writing:
            shutil.copyfileobj(reading, writing, 1024 * 1024)


def _tree_fields(file: TreeFile) -> dict[str, object]:
    fields: dict[str, object] = {"size": file.size_bytes, "blob_id": file.git_id}
    return fields | ({"lfs_sha256": file.sha256, "lfs_size": file.size_bytes} if file.sha256 else {})


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def check_commit(text: object) -> str:
    """The id of a commit. Raises UnavailableError."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-f]{40}", text):
        raise UnavailableError("the hub names no commit")
    return text


def parse_repository(text: str) -> tuple[str, str]:
    """`REPO[@REV]`: the repository, and the revision. Raises InvalidArgumentError."""
    repository, _, revision = text.removeprefix("hf://").partition("@")
    revision = revision or "main"
    part = r"[A-Za-z0-9_][A-Za-z0-9._-]*"
    if not re.fullmatch(rf"(?:(?:datasets|spaces)/)?{part}(?:/{part})?", repository):
        raise InvalidArgumentError(f"{repository[:100]!r} is no repository: org/name, or datasets/org/name")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]*", revision) or ".." in revision:
        raise InvalidArgumentError(f"{revision[:100]!r} is no branch, tag or commit")
    return repository, revision
