"""A registry of images in memory, behind a real port: public, with tokens for anybody, or with passwords."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from minga_peer.gateway.server import door
from minga_runtime.sockets import listen_tcp

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def sha256(data: bytes) -> str:
    """As digests are written."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: Headers


@dataclass
class StubRegistry:
    """demand: `bearer` for a token that anybody gets, `basic` for a password, or empty. status: of all answers, 0 for
    the right ones."""

    url: str
    demand: str = ""
    status: int = 0
    expires_in: object = 300
    blobs_at: str = ""
    """Where it redirects to for blobs, by their digests; else it has them itself."""
    admits_once: bool = False
    """A token is good for one blob."""
    realm: str = ""
    """Where tokens are, if not at its own `/tokens`."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    """By digest and by tag."""
    tokens: int = 0
    asked: list[Asked] = field(default_factory=list)

    def add_image(self, tag: str, *layers: bytes, **fields: object) -> str:
        """The digest of its manifest."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers"}}).encode()
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": self._described(config)}
        manifest |= {"layers": [self._described(layer) for layer in layers], **fields}
        data = json.dumps(manifest).encode()
        self.manifests[sha256(data)] = self.manifests[tag] = data
        return sha256(data)

    def count(self, method: str, kind: str) -> int:
        """Requests with that method for manifests, blobs or tokens."""
        return sum(each.method == method and f"/{kind}" in each.path for each in self.asked)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            self.asked.append(Asked(scope["method"], scope["path"], Headers(scope=scope)))
            await self._answer(scope)(scope, receive, send)

    def _described(self, blob: bytes) -> dict[str, object]:
        self.blobs[sha256(blob)] = blob
        return {"mediaType": "application/octet-stream", "digest": sha256(blob), "size": len(blob)}

    def _answer(self, scope: Scope) -> Response:
        path, query = scope["path"], parse_qs(scope["query_string"].decode())
        if path == "/tokens":
            assert query["service"] == ["stub"]
            self.tokens += 1
            body = {"token": f"token-{self.tokens}-{query['scope'][0]}", "expires_in": self.expires_in}
            return Response(json.dumps(body), 200, media_type="application/json")
        if self.status:
            return Response(b"", self.status)
        if self.demand and not self._admits(path, Headers(scope=scope).get("authorization", "")):
            place = self.realm or f"{self.url}/tokens"
            realm = f'Bearer realm="{place}",service="stub",scope="repository:{_repository(path)}:pull"'
            return Response(b"", 401, {"WWW-Authenticate": realm if self.demand == "bearer" else 'Basic realm="stub"'})
        kind, reference = path.split("/")[-2:]
        found = self.manifests if kind == "manifests" else self.blobs
        if "ns" in query or reference not in found:
            return Response(b"", 404)
        data = found[reference]
        if self.blobs_at and kind == "blobs":
            if self.admits_once and scope["method"] == "GET":
                self.tokens += 1
            return Response(b"", 307, {"Location": f"{self.blobs_at}/{reference}"})
        headers = {"Docker-Content-Digest": sha256(data), "Content-Length": str(len(data))}
        headers["Content-Type"] = json.loads(data).get("mediaType", MANIFEST) if kind == "manifests" else "any/blob"
        return Response(data if scope["method"] == "GET" else b"", 200, headers)

    def _admits(self, path: str, authorization: str) -> bool:
        return authorization == f"Bearer token-{self.tokens}-repository:{_repository(path)}:pull"


def _repository(path: str) -> str:
    return "/".join(path.split("/")[2:-2])


@asynccontextmanager
async def stub_registry() -> AsyncIterator[StubRegistry]:
    """One that runs."""
    listener = listen_tcp("127.0.0.1:0")
    registry = StubRegistry(f"http://127.0.0.1:{listener.getsockname()[1]}")
    async with door(registry, listener, timedelta(seconds=1)):
        yield registry
