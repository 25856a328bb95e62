"""Asks a hub: what it says of a file, and calls of its API, each with the token of who asks here."""

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minga_core.errors import (
    ContentChangedError,
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
    MingaError,
    UnavailableError,
)
from minga_core.ids import digest as key_of
from minga_core.origin_names import HubPath
from minga_peer.gateway.recent import Remembered
from minga_peer.models.requests import HubFile, parse_request
from minga_peer.origins.allowed import Url, parse_url
from minga_peer.origins.origin_file import OriginFile
from minga_peer.origins.upstream import MAX_REDIRECTS, REDIRECTS, OriginRefusedError, Upstream, redirected

if TYPE_CHECKING:
    import httpx

VIA = "1.1 minga-models"
"""In requests to the hub: a mirror that is asked by a mirror refuses, so that none asks itself in a circle."""
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of an answer of the API: lists of the files of a repository come in pages of 1,000."""
DESCRIBED_SECONDS = 60.0
"""A GET is of what the HEAD before it said, for so long."""
PUBLIC_SECONDS = 300.0
MAX_REMEMBERED = 10_000
_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_PASSED_ON = (
    *("content-type", "content-disposition", "last-modified", "cache-control", "retry-after"),
    *("x-repo-commit", "x-linked-etag", "x-linked-size", "x-error-code", "x-error-message"),
    *("ratelimit", "ratelimit-policy", "x-request-id", "x-total-count"),
)

_NOT_THERE = ("RepoNotFound", "EntryNotFound", "RevisionNotFound")
_OF_BODY = ("content-type", "cache-control", "last-modified")


def parse_hub(text: str) -> str:
    """The URL of a hub, without `/` at its end; empty for none. Raises InvalidArgumentError."""
    if not text:
        return ""
    url = parse_url(text.rstrip("/"))
    if url.target != url.path:
        raise InvalidArgumentError("the URL of a hub has no query")
    return str(url).rstrip("/")


@dataclass(frozen=True, slots=True)
class Described:
    """What the hub says of a file to one who asks with that token."""

    status: int
    headers: Mapping[str, str]
    etag: str
    """Strong, with its quotes; empty when the hub does not say it."""
    size_bytes: int | None
    kept: bool = False
    """It said so to everybody before, and cannot be reached now."""

    @property
    def sha256(self) -> str:
        """The digest of a file that the hub keeps by it; empty for one that is in git itself."""
        value = self.etag.strip('"')
        return f"sha256:{value}" if _SHA256.fullmatch(value) else ""

    @property
    def commit(self) -> str:
        """The commit that the revision stands for; empty when the hub does not say it."""
        value = self.headers.get("x-repo-commit", "")
        return value if _COMMIT.fullmatch(value) else ""


@dataclass(frozen=True, slots=True)
class ApiAnswer:
    """An answer of the API, decoded."""

    status: int
    headers: Mapping[str, str]
    link: str
    body: bytes
    kept: bool = False
    """As of Described."""


class Hub:
    """One for a process. url: see `parse_hub`. now: monotonic seconds. Implements HubFiles."""

    def __init__(self, url: str, upstream: Upstream, now: Callable[[], float]) -> None:
        self.url = url
        self.upstream = upstream
        self._place = parse_url(url).place
        self._described = Remembered[Described](now, DESCRIBED_SECONDS, MAX_REMEMBERED)
        self._public = Remembered[bool](now, PUBLIC_SECONDS, MAX_REMEMBERED)

    async def describe(self, file: HubFile, token: str, *, anew: bool) -> Described:
        """What the hub says of a file to the owner of that token, good or not. anew: and not what it said a moment ago.

        token: as `Authorization` has it; may be empty. Raises UnavailableError, PermissionDeniedError.
        """
        key = key_of(f"{token}\n{file.target}".encode())
        if not anew and (known := self._described.get(key)) is not None:
            return known
        found = await self._describe(file, token)
        if found.status == 200:
            self._described.put(key, found)
        return found

    async def is_public(self, file: HubFile, token: str) -> bool:
        """Whether the hub lets everybody have what is in that repository."""
        if not token:
            return True
        key = key_of(file.repository.encode())
        if (known := self._public.get(key)) is not None:
            return known
        try:
            status = (await self._describe(file, "")).status
        except MingaError:
            return False
        if status in (200, 401, 403, 404):
            self._public.put(key, status == 200)
        return status == 200

    def origin(self, file: HubFile, described: Described, token: str, *, private: bool) -> OriginFile:
        """Where its bytes are."""
        target = (file.at(described.commit) if described.commit else file).target
        headers, size = _headers(token), described.size_bytes
        return OriginFile(self.url + target, described.sha256, size, headers=headers, private=private)

    def small(self, file: HubFile, described: Described) -> OriginFile:
        """The same of a file that is in git itself, as everybody may have it: what the hub says of it identifies it."""
        commit = described.commit
        target = (file.at(commit) if commit else file).target
        return OriginFile(self.url + target, "", described.size_bytes, described.etag, headers=_headers(""))

    async def file(self, wanted: HubPath, headers: Mapping[str, str], digest: str) -> OriginFile:
        """What `hf://…` is now, to the owner of the token in the headers.

        digest: what it must be; may be empty. Raises FileNotFoundInDirectoryError, PermissionDeniedError,
        UnavailableError, ContentChangedError.
        """
        file = parse_request(wanted.target, "", "GET")
        if not isinstance(file, HubFile):
            raise FileNotFoundInDirectoryError(f"the hub has no files as {str(wanted)[:200]}")
        token = headers.get("Authorization", "")
        described = await self.describe(file, token, anew=True)
        if described.status != 200:
            raise _refused(wanted, described)
        if digest and described.sha256 not in ("", digest):
            raise ContentChangedError(f"{str(wanted)[:200]} is {described.sha256} at the hub, which is not {digest}")
        found = self.origin(file, described, token, private=not await self.is_public(file, token))
        return replace(found, digest=digest) if digest else found

    async def call(self, method: str, target: str, token: str, headers: Mapping[str, str], body: bytes) -> ApiAnswer:
        """A call of the API. Raises UnavailableError, PermissionDeniedError."""
        async with self._asked(method, target, {**headers, **_headers(token)}, body) as (response, seen):
            if response.status_code in REDIRECTS:
                raise UnavailableError(f"{self.url} redirects its API elsewhere")
            data = await _read(response)
            return ApiAnswer(response.status_code, seen, response.headers.get("link", ""), data)

    async def _describe(self, file: HubFile, token: str) -> Described:
        async with self._asked("HEAD", file.target, _headers(token)) as (response, seen):
            status = response.status_code
            if status in REDIRECTS:
                # The redirect's own, not the file's.
                status = 200
                seen = {name: value for name, value in seen.items() if name not in _OF_BODY}
            etag = seen.get("x-linked-etag") or seen.get("etag", "")
            etag = f'"{etag.removeprefix("W/").strip(chr(34))}"' if etag else ""
            # The length of a redirect is that of its own body.
            length = response.headers.get("content-length", "") if response.status_code == 200 else ""
            return Described(status, seen, etag, _number(seen.get("x-linked-size") or length))

    @asynccontextmanager
    async def _asked(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncGenerator[tuple["httpx.Response", dict[str, str]], None]:
        """The answer after redirects within the hub, and what it and they say. One to elsewhere is an answer: it is
        where the bytes are."""
        url, seen = parse_url(self.url + target), dict[str, str]()
        for _ in range(MAX_REDIRECTS + 1):
            async with self.upstream.ask(method, str(url), headers, body) as response:
                seen |= _passed_on(response.headers)
                following = self._following(url, response)
                if following is None:
                    yield response, seen
                    return
            url = following
        raise UnavailableError(f"{self.url} redirects more than {MAX_REDIRECTS} times")

    def _following(self, url: Url, response: "httpx.Response") -> Url | None:
        if response.status_code not in REDIRECTS:
            return None
        target = redirected(url, response.headers.get("location", ""))
        return target if target.place == self._place else None


def _refused(wanted: HubPath, described: Described) -> MingaError:
    """The error for what the hub does not give. It answers 401 for a repository that it does not show, too."""
    code, shown = described.headers.get("x-error-code", ""), str(wanted)[:200]
    why = f"the hub has no {shown} (HTTP {described.status}{', ' if code else ''}{code})"
    if described.status == 404 or code in _NOT_THERE:
        return FileNotFoundInDirectoryError(why, hint="private repositories need a token: HF_TOKEN, `hf auth login`")
    if described.status in (401, 403):
        return OriginRefusedError(f"the hub refuses {shown} (HTTP {described.status}{', ' if code else ''}{code})")
    return UnavailableError(f"the hub answers HTTP {described.status} for {shown}")


def _headers(token: str) -> dict[str, str]:
    return {"Via": VIA} | ({"Authorization": token} if token else {})


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """What a client gets of the hub's headers: none of xet's, with which it would go elsewhere for the bytes."""
    wanted = (*_PASSED_ON, "etag")
    return {name: headers[name] for name in wanted if name in headers}


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


async def _read(response: "httpx.Response") -> bytes:
    """The body, decoded. Raises UnavailableError for one that is too large."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > MAX_BODY_BYTES:
            raise UnavailableError("the hub's answer is too large")
    return bytes(data)
