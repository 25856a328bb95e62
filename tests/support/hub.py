"""A hub of models, as Hugging Face's answers: with redirects, xet's headers, gzip, and another host for large files."""

import asyncio
import gzip
import hashlib
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from minga_peer.gateway.server import door
from minga_runtime.sockets import listen_tcp

LARGE = 100_000
"""From so many bytes on a file is kept by its sha256."""
MAIN = "main"

Entry = dict[str, object]
"""Of a list of files and folders."""


@dataclass
class Repository:
    """files: by path. token: whose owner alone may have it; empty for everybody. gated: it is listed for everybody."""

    files: dict[str, bytes]
    token: str = ""
    gated: bool = False
    commit: str = ""

    def __post_init__(self) -> None:
        if not self.commit:
            self.commit = hashlib.sha1(
                repr([(path, sha256_of(data)) for path, data in sorted(self.files.items())]).encode()
            ).hexdigest()


@dataclass
class Asked:
    """A request that came. place: `hub`, or `cdn` for the host of large files."""

    place: str
    method: str
    path: str
    headers: Headers


@dataclass
class StubHub:
    """status: of all answers of the hub, 0 for the right ones. page: entries of a list. sent: bytes of large files."""

    url: str
    cdn: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    """By name, which begins with `datasets/` for data sets."""
    status: int = 0
    anonymous_status: int = 0
    """Of answers to requests without a token."""
    page: int = 1000
    cut_after: int | None = None
    """Answers with large files are cut after so many bytes."""
    bytes_per_second: float = math.inf
    """Of each answer with a large file."""
    sent: int = 0
    asked: list[Asked] = field(default_factory=list)

    def count(self, method: str, part: str, place: str = "hub") -> int:
        """Requests with that in their path."""
        return sum(each.method == method and part in each.path and each.place == place for each in self.asked)

    # The hub.

    async def hub(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, headers = scope["raw_path"].decode(), Headers(scope=scope)
        query = scope["query_string"].decode()
        self.asked.append(Asked("hub", scope["method"], path + (f"?{query}" if query else ""), headers))
        answer = await self._hub(path, query, scope["method"], headers, receive)
        await answer(scope, receive, send)

    async def _hub(self, path: str, query: str, method: str, headers: Headers, receive: Receive) -> Response:
        status = self.status or (0 if "authorization" in headers else self.anonymous_status)
        if status:
            return Response(None, status)
        if path.startswith("/api/resolve-cache/"):
            kind, first, second, commit, rest = path.removeprefix("/api/resolve-cache/").split("/", 4)
            return self._small(_key(kind, f"{first}/{second}"), unquote(rest), commit, headers)
        if path.startswith("/api/"):
            return await self._api(path, query, headers, receive)
        name, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        return self._resolve(name, unquote(revision), unquote(file), headers)

    def _refusal(self, name: str, revision: str, headers: Headers) -> Response | None:
        repository = self.repositories.get(name)
        if repository is None or (repository.token and headers.get("authorization") != f"Bearer {repository.token}"):
            if repository is not None and repository.gated:
                return Response(None, 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "ask for access"})
            return Response(None, 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        if revision not in (MAIN, repository.commit):
            return Response(None, 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"})
        return None

    def _resolve(self, name: str, revision: str, file: str, headers: Headers) -> Response:
        if (refusal := self._refusal(name, revision, headers)) is not None:
            return refusal
        repository = self.repositories[name]
        found = {"X-Repo-Commit": repository.commit}
        if file not in repository.files:
            return Response(None, 404, found | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such entry"})
        data = repository.files[file]
        if len(data) < LARGE:
            kind, plain = _kind(name)
            where = f"/api/resolve-cache/{kind}/{plain}/{repository.commit}/{file}"
            return Response(b"Temporary Redirect", 307, found | {"Location": where})
        digest = sha256_of(data)
        refresh = f"/api/models/{name}/xet-read-token/{repository.commit}"
        found |= {
            "Location": f"{self.cdn}/{digest}?Signature=x",
            "X-Linked-Size": str(len(data)),
            "X-Linked-ETag": f'"{digest}"',
            "X-Xet-Hash": digest,
            "X-Xet-Refresh-Route": refresh,
            "Link": f'<{self.url}{refresh}>; rel="xet-auth", <{self.cdn}/v1/{digest}>; rel="xet-reconstruction-info"',
        }
        return Response(b"Found. Redirecting", 302, found, "text/plain")

    def _small(self, name: str, file: str, commit: str, headers: Headers) -> Response:
        data = self.repositories[name].files[file]
        found = {"X-Repo-Commit": commit, "ETag": f'"{git_id(data)}"', "Content-Type": "text/plain; charset=utf-8"}
        if "gzip" in headers.get("accept-encoding", ""):
            return Response(
                gzip.compress(data), 200, found | {"Content-Encoding": "gzip", "ETag": f'W/"{git_id(data)}"'}
            )
        return Response(data, 200, found)

    async def _api(self, path: str, query: str, headers: Headers, receive: Receive) -> Response:
        kind, _, rest = path.removeprefix("/api/").partition("/")
        parts = rest.split("/")
        length = 1 if _key(kind, parts[0]) in self.repositories else 2
        plain, rest = "/".join(parts[:length]), parts[length:]
        name, revision = _key(kind, plain), unquote(rest[1]) if len(rest) > 1 else MAIN
        repository = self.repositories.get(name)
        if repository is None or not repository.gated:
            refusal = self._refusal(name, revision, headers)
            if repository is None or refusal is not None:
                return refusal or Response(None, 404)
        if not rest or rest[0] == "revision":
            files = [{"rfilename": file} for file in repository.files]
            gated = "manual" if repository.gated else False
            fields = {"id": plain, "modelId": plain, "sha": repository.commit, "private": False, "gated": gated}
            return JSONResponse({**fields, "tags": [], "downloads": 1, "likes": 0, "siblings": files})
        entries = [_entry(file, data) for file, data in repository.files.items()]
        if rest[0] == "tree":
            return self._tree(path, parse_qs(query), entries, unquote("/".join(rest[2:])))
        if rest[0] == "paths-info":
            body = (await receive())["body"]
            fields = json.loads(body) if body[:1] == b"{" else parse_qs(body.decode())
            wanted = fields["paths"]
            return JSONResponse([each for each in entries + _folders(entries) if each["path"] in wanted])
        return JSONResponse({"accessToken": "x", "exp": 4102444800, "casUrl": self.cdn})

    def _tree(self, path: str, query: dict[str, list[str]], entries: list[Entry], folder: str) -> Response:
        """A page of a folder's files and folders, with all below it where that is asked for."""
        below = f"{folder}/" if folder else ""
        found = [each for each in _folders(entries) + entries if str(each["path"]).startswith(below)]
        if query.get("recursive", [""])[0].lower() != "true":
            found = [each for each in found if "/" not in str(each["path"]).removeprefix(below)]
        if not found and folder:
            return Response(None, 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such entry"})
        start = int(query.get("cursor", ["0"])[0])
        following = f'<{self.url}{path}?cursor={start + self.page}&recursive=true&expand=false>; rel="next"'
        link = {"Link": following} if start + self.page < len(found) else {}
        return JSONResponse(found[start : start + self.page], headers=link)

    # The host of large files.

    async def large(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path, headers = scope["path"], Headers(scope=scope)
        self.asked.append(Asked("cdn", scope["method"], path, headers))
        found = [
            data
            for repository in self.repositories.values()
            for data in repository.files.values()
            if path == f"/{sha256_of(data)}"
        ]
        if not found:
            await Response(None, 404)(scope, receive, send)
            return
        data, asked = found[0], headers.get("range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        answer = {"Content-Length": str(len(data) - start), "ETag": f'"cdn-{sha256_of(data)}"'}
        if asked:
            answer["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        raw = [(name.lower().encode(), value.encode()) for name, value in answer.items()]
        await send({"type": "http.response.start", "status": 206 if asked else 200, "headers": raw})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        stop = len(data) if self.cut_after is None else min(len(data), start + self.cut_after)
        for at in range(start, stop, 65_536):
            piece = data[at : min(stop, at + 65_536)]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.sent += len(piece)
            await asyncio.sleep(len(piece) / self.bytes_per_second)
        if stop < len(data):
            raise ConnectionAbortedError("cut, as the test wants it")
        await send({"type": "http.response.body", "body": b""})


@lru_cache
def sha256_of(data: bytes) -> str:
    """Its hex digits, made once."""
    return hashlib.sha256(data).hexdigest()


@lru_cache
def git_id(data: bytes) -> str:
    """The id of a blob in git."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _kind(name: str) -> tuple[str, str]:
    """The kind of a repository, as the API has it, and its name without that."""
    kind, _, rest = name.partition("/")
    return (kind, rest) if kind in ("datasets", "spaces") and rest else ("models", name)


def _key(kind: str, plain: str) -> str:
    """How a repository is called in paths of files."""
    return plain if kind == "models" else f"{kind}/{plain}"


def _folders(entries: list[Entry]) -> list[Entry]:
    """The folders that those files are in."""
    found = {str(folder) for entry in entries for folder in PurePosixPath(str(entry["path"])).parents} - {"."}
    return [{"type": "directory", "path": folder, "size": 0, "oid": git_id(b"")} for folder in sorted(found)]


def _entry(file: str, data: bytes) -> Entry:
    entry: Entry = {"type": "file", "path": file, "size": len(data), "oid": git_id(data)}
    if len(data) >= LARGE:
        digest = sha256_of(data)
        entry |= {"lfs": {"oid": digest, "size": len(data), "pointerSize": 134}, "xetHash": digest}
    return entry


@asynccontextmanager
async def stub_hub() -> AsyncIterator[StubHub]:
    """One that runs."""
    hub, cdn = listen_tcp("127.0.0.1:0"), listen_tcp("127.0.0.1:0")
    stub = StubHub(*(f"http://127.0.0.1:{each.getsockname()[1]}" for each in (hub, cdn)))
    grace = timedelta(seconds=1)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await stub.hub(scope, receive, send)

    async def answer_large(scope: Scope, receive: Receive, send: Send) -> None:
        await stub.large(scope, receive, send)

    async with door(answer, hub, grace), door(answer_large, cdn, grace):
        yield stub
