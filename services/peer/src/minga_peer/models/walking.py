"""What a repository of a hub is made of, and what the hub says of it, as everybody may have it."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.errors import (
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
    PermissionDeniedError,
    UnavailableError,
)
from minga_peer.models.hub import ApiAnswer, Described, Hub
from minga_peer.models.kept import KeptRevision, KeptRevisions
from minga_peer.models.requests import HubFile
from minga_peer.origins.origin_file import OriginFile, name_of
from minga_peer.origins.planned import Plan, PlannedFile

MAX_FILES = 20_000
MAX_SMALL = 2_000
"""Where there are more small files, they come from the hub each time: each would cost the directory a claim and a row,
for a few bytes."""
MAX_PAGES = 100
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,255}"
# What has more parts is a file. A revision has slashes where the hub itself makes them, or as %2F.
_REVISION = r"refs/(?:convert/\w{1,64}|pr/\d{1,9})|[A-Za-z0-9_][A-Za-z0-9._%-]{0,255}"
_ITEM = re.compile(rf"(?i:hf)://((?:(?:datasets|spaces)/)?{_PART}(?:/{_PART})?)(?:@({_REVISION}))?")
_COMMIT, _SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
_NEXT = re.compile(r"<([^>]+)>\s*;\s*rel=\"?next\"?")


def is_repository(item: str) -> bool:
    """Whether it is all of a repository, and no file of it."""
    return _ITEM.fullmatch(item) is not None


class Origins(Protocol):
    """Where files come from; see `minga_peer.origins`."""

    def has(self, file: OriginFile) -> bool: ...

    async def identified(self, file: OriginFile) -> OriginFile: ...


@dataclass(frozen=True, slots=True)
class _TreeFile:
    """A file of a commit. described: as the hub would say of it, by its list."""

    file: HubFile
    described: Described

    @property
    def key(self) -> str:
        """What is kept once, however many files it is."""
        return self.described.sha256 or self.file.path


@dataclass(frozen=True, slots=True)
class ModelWalk:
    """Says what repositories are made of, as everybody may have them, and keeps that for when the hub is away."""

    hub: Hub
    kept: KeptRevisions
    origins: Origins

    async def plan(self, reference: str, platform: str) -> Plan:
        """The files of `hf://REPOSITORY[@REVISION]`. Asked without a token.

        Raises InvalidArgumentError, FileNotFoundInDirectoryError, PermissionDeniedError, UnavailableError.
        """
        found = _ITEM.fullmatch(reference)
        if platform or found is None or ".." in (found[2] or ""):
            raise InvalidArgumentError(f"{reference[:100]!r} is no repository: hf://org/name, or …@REVISION")
        repository, revision = found[1], unquote(found[2] or "main")
        first = repository.partition("/")[0]
        api = (
            f"/api/{repository}"
            if first in ("datasets", "spaces") and "/" in repository
            else f"/api/models/{repository}"
        )
        about = await self._json(f"{api}/revision/{quote(revision, safe='')}", dict)
        commit = str(about.get("sha"))
        if not _COMMIT.fullmatch(commit):
            raise UnavailableError("the hub names no commit")
        entries = await self._entries(api, repository, commit)
        files = [file for entry in entries if (file := _file(entry, repository, commit)) is not None]
        large = [each for each in files if each.described.sha256]
        if len(large) > MAX_FILES:
            raise InvalidArgumentError(f"{repository} has more than {MAX_FILES:,} large files")
        if len(files) - len(large) > MAX_SMALL:
            files = large
        await self.kept.keep(repository, revision, KeptRevision(commit, about, entries))
        return Plan(commit, tuple(map(self._planned, {each.key: each for each in files}.values())))

    async def _entries(self, api: str, repository: str, commit: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        target = f"{api}/tree/{commit}?recursive=true&expand=false"
        for _ in range(MAX_PAGES):
            answer = await self._call(target)
            found += await asyncio.to_thread(_parse, answer.body)
            if (following := _NEXT.search(answer.link)) is None:
                return found
            target = _same_path(target, following[1])
        raise UnavailableError(f"the hub lists {repository} on more than {MAX_PAGES} pages")

    def _planned(self, tree: _TreeFile) -> PlannedFile:
        if tree.described.sha256:
            file = self.hub.origin(tree.file, tree.described, "", private=False)
            return PlannedFile(name_of(file), file.size_bytes, partial(_as_it_is, file))
        file = self.hub.small(tree.file, tree.described)
        return PlannedFile(name_of(file), file.size_bytes, partial(self._small, file))

    async def _small(self, file: OriginFile) -> OriginFile:
        """The hub may say otherwise than by its list what identifies it: that counts."""
        return file if self.origins.has(file) else await self.origins.identified(replace(file, validator=""))

    async def _json(self, target: str, kind: type[dict[str, Any]]) -> dict[str, Any]:
        found = _decoded((await self._call(target)).body)
        if not isinstance(found, kind):
            raise UnavailableError("the hub answers what is not its API")
        return found

    async def _call(self, target: str) -> ApiAnswer:
        answer = await self.hub.call("GET", target, "", {"accept": "application/json"}, b"")
        if answer.status in (401, 403):
            # It says so of what does not exist, too.
            raise PermissionDeniedError(
                "the hub has no such repository for everybody", hint="private ones: `minga hf fill`"
            )
        if answer.status == 404:
            raise FileNotFoundInDirectoryError("the hub has no such repository, or no such revision of it")
        if answer.status != 200:
            raise UnavailableError(f"the hub answers HTTP {answer.status}")
        return answer


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UnavailableError("the hub answers what is not its API") from None


async def _as_it_is(file: OriginFile) -> OriginFile:
    return file


def _parse(body: bytes) -> list[Mapping[str, Any]]:
    found = _decoded(body)
    if not isinstance(found, list):
        raise UnavailableError("the hub answers what is not its API")
    return [entry for entry in found if isinstance(entry, dict)]


def _file(entry: Mapping[str, Any], repository: str, commit: str) -> _TreeFile | None:
    """None for what is no file."""
    lfs = entry.get("lfs")
    oid = lfs.get("oid") if isinstance(lfs, dict) else entry.get("oid")
    size, path, kind = entry.get("size"), entry.get("path"), _SHA256 if isinstance(lfs, dict) else _COMMIT
    good = isinstance(path, str) and isinstance(oid, str) and kind.fullmatch(oid) and entry.get("type") == "file"
    if not good or not isinstance(size, int) or not 0 <= size <= MAX_CONTENT_BYTES:
        return None
    if {"", ".", ".."} & set(str(path).split("/")):
        return None
    described = Described(200, {"x-repo-commit": commit}, f'"{oid}"', size)
    return _TreeFile(HubFile(repository, commit, quote(str(path))), described)


def _same_path(target: str, following: str) -> str:
    """The next page, of the same list. Raises UnavailableError for one that is elsewhere."""
    parts, path = urlsplit(following), target.partition("?")[0]
    if not parts.path.endswith(path) or not parse_qsl(parts.query):
        raise UnavailableError("the hub's next page is elsewhere")
    return f"{path}?{parts.query}"
