"""What the hub said to everybody of repositories that were fetched ahead of time: for when it cannot be reached."""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

from minga_core.errors import UnavailableError
from minga_core.ids import digest
from minga_peer.gateway.recent import Recent, Remembered
from minga_peer.models.hub import ApiAnswer, Described, Hub
from minga_peer.models.requests import HubFile
from minga_peer.share.json_file import replace_json
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

MAX_KEPT = 256
"""Revisions of repositories: those that were kept first are forgotten first."""
LOADED_SECONDS = 60.0
MAX_LOADED = 8
AWAY_SECONDS = 10.0
"""A hub that could not be reached is not asked again for so long where its answer is known: to find that out may take
seconds, and a model has many files."""
MAIN = "main"
_CALL = re.compile(
    r"/api/(models|datasets|spaces)/([^/]+(?:/[^/]+)?)(?:/(?:revision/(?P<revision>[^/]+)|tree/(?P<tree>[^/]+)(?P<folder>/.+)?))?"
)
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_JSON = {"content-type": "application/json"}

A = TypeVar("A", Described, ApiAnswer)


@dataclass(frozen=True, slots=True)
class KeptRevision:
    """What the hub said of a revision. about: of the repository then. entries: its files and folders, as it lists
    them."""

    commit: str
    about: Mapping[str, Any]
    entries: list[Mapping[str, Any]]

    def file(self, path: str) -> Described:
        """What it would say of a file."""
        headers = {"x-repo-commit": self.commit}
        for entry in self.entries:
            if entry.get("path") == path and entry.get("type") == "file":
                return Described(200, headers, f'"{_oid(entry)}"', int(entry["size"]), kept=True)
        return Described(
            404, headers | {"x-error-code": "EntryNotFound", "x-error-message": "Entry not found"}, "", None
        )

    def tree(self, folder: str, query: str) -> ApiAnswer:
        """What it would list."""
        below = f"{folder}/" if folder else ""
        found = [entry for entry in self.entries if str(entry.get("path")).startswith(below)]
        if parse_qs(query).get("recursive", [""])[0].lower() != "true":
            found = [entry for entry in found if "/" not in str(entry["path"]).removeprefix(below)]
        if folder and not found:
            absent = {"x-error-code": "EntryNotFound", "x-error-message": "Entry not found"}
            return ApiAnswer(404, _JSON | absent, "", b"{}", kept=True)
        return ApiAnswer(200, _JSON, "", json.dumps(found).encode(), kept=True)


class KeptRevisions:
    """Those of one peer, in a folder of its own. now: monotonic seconds."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder = folder
        self._loaded = Remembered[KeptRevision](now, LOADED_SECONDS, MAX_LOADED)

    async def keep(self, repository: str, revision: str, kept: KeptRevision) -> None:
        """Keep it, for its commit too. What cannot be kept is logged: the hub will be asked."""
        kept = replace(kept, entries=list(filter(_is_entry, kept.entries)))
        names = [self._name(repository, each) for each in dict.fromkeys((revision, kept.commit))]
        try:
            await asyncio.to_thread(_write, self._folder, names, kept)
        except OSError as error:
            log_event(log, logging.WARNING, "hub_answers_not_kept", repository=repository, error=error)
        for name in names:
            self._loaded.put(name, kept)

    async def describe(self, file: HubFile) -> Described | None:
        """As `Hub.describe`; None for what was not kept."""
        kept = await self._find(file.repository, unquote(file.revision))
        return None if kept is None else kept.file(unquote(file.path))

    async def call(self, target: str) -> ApiAnswer | None:
        """As `Hub.call` with GET; None for what was not kept."""
        path, _, query = target.partition("?")
        found = _CALL.fullmatch(path)
        if found is None:
            return None
        repository = found[2] if found[1] == "models" else f"{found[1]}/{found[2]}"
        kept = await self._find(repository, unquote(found["revision"] or found["tree"] or MAIN))
        if kept is None:
            return None
        if found["tree"]:
            return kept.tree(unquote(found["folder"] or "").strip("/"), query)
        return ApiAnswer(200, _JSON, "", json.dumps(kept.about).encode(), kept=True)

    async def _find(self, repository: str, revision: str) -> KeptRevision | None:
        name = self._name(repository, revision)
        if (loaded := self._loaded.get(name)) is not None:
            return loaded
        kept = await asyncio.to_thread(_read, self._folder / name)
        if kept is not None:
            self._loaded.put(name, kept)
        return kept

    @staticmethod
    def _name(repository: str, revision: str) -> str:
        return f"{digest(f'{repository}@{revision}'.encode()).hex()}.json"


class HubOrKept:
    """Asks the hub, and answers what it said before while it cannot be reached. now: monotonic seconds."""

    def __init__(self, hub: Hub, kept: KeptRevisions, now: Callable[[], float]) -> None:
        self.hub = hub
        self.kept = kept
        self._away = Recent(now, AWAY_SECONDS)

    async def describe(self, file: HubFile, token: str, *, anew: bool) -> Described:
        """As `Hub.describe`."""
        return await self._asked(lambda: self.hub.describe(file, token, anew=anew), lambda: self.kept.describe(file))

    async def call(self, method: str, target: str, token: str, headers: Mapping[str, str], body: bytes) -> ApiAnswer:
        """As `Hub.call`."""

        def ask() -> Awaitable[ApiAnswer]:
            return self.hub.call(method, target, token, headers, body)

        return await (ask() if method == "POST" else self._asked(ask, lambda: self.kept.call(target)))

    async def _asked(self, ask: Callable[[], Awaitable[A]], before: Callable[[], Awaitable[A | None]]) -> A:
        """Raises UnavailableError, PermissionDeniedError."""
        if self.hub.url in self._away and (known := await before()) is not None:
            return known
        try:
            found = await ask()
        except UnavailableError:
            self._away.add(self.hub.url)
            if (known := await before()) is None:
                raise
            return known
        return found if found.status < 500 else await before() or found


def _oid(entry: Mapping[str, Any]) -> object:
    """What identifies the content of a file: its sha256, or its id in git."""
    lfs = entry.get("lfs")
    return lfs.get("oid") if isinstance(lfs, Mapping) else entry.get("oid")


def _is_entry(entry: object) -> bool:
    """Whether it is a file or folder as a hub lists them."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        return False
    is_file = isinstance(entry.get("size"), int) and _OID.fullmatch(str(_oid(entry))) is not None
    return is_file or entry.get("type") == "directory"


def _write(folder: Path, names: list[str], kept: KeptRevision) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in names:
        replace_json(folder / name, {"commit": kept.commit, "about": kept.about, "entries": kept.entries})
    found = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    for path in found[:-MAX_KEPT]:
        path.unlink(missing_ok=True)


def _read(path: Path) -> KeptRevision | None:
    """None for what is not there, or makes no sense."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        document = json.loads(path.read_bytes())
        entries = list(filter(_is_entry, document["entries"]))
        return KeptRevision(str(document["commit"]), dict(document["about"]), entries)
    return None
