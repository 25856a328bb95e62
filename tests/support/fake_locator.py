"""A locator that answers from dictionaries, for tests of clients."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

PUBLISHED = "2026-03-01T12:00:00Z"


def content_id(number: int) -> str:
    """A content id of which only the number matters."""
    return f"b3:{number:064x}"


@dataclass
class FakeLocator:
    """A locator's REST surface over plain dictionaries. `down` makes it answer as one whose store is away."""

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    peers: list[dict[str, Any]] = field(default_factory=list)
    down: bool = False
    page: int = 2
    """Items on a page, however many are asked for: lists are read to their end."""
    url: str = ""

    def share(self, name: str, size_bytes: int = 1024, number: int = 1, holders: tuple[str, ...] = ("peer-1",)) -> None:
        """Makes a file known."""
        sources = [
            {"peer_id": peer_id, "address": "10.0.0.1:50053", "zone": "", "state": "complete"} for peer_id in holders
        ]
        version = {
            "content_id": content_id(number),
            "size_bytes": size_bytes,
            "published_time": PUBLISHED,
            "tag": "",
            "modified_time": PUBLISHED,
            "executable": False,
            "complete_count": len(sources),
            "partial_count": 0,
            "sources": sources,
        }
        known = self.files.setdefault(name, {"name": name, "versions": [], "newer_incomplete": False})
        known["versions"].insert(0, version)

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """Status and document for a GET."""
        if self.down:
            return 503, {"code": "store_unavailable", "detail": "Redis is away"}
        if path == "/v1/files":
            start, _, after = query.get("page_token", "").partition(" ")
            query = query | {"page_token": start, "after": unquote(after) or query.get("after", "")}
            found = [self._listed(name) for name in sorted(self.files) if self._matches(name, query)]
            return 200, self._paged("files", found, query)
        if path == "/v1/stats":
            figures = {"live_peers": len(self.peers), "names": len(self.files), "capacity_bytes": 0, "free_bytes": 0}
            return 200, {**figures, "lower_bound": False}
        if path == "/v1/peers":
            return 200, self._paged("peers", self.peers, query)
        if path.startswith("/v1/contents/"):
            return self._content(path.removeprefix("/v1/contents/"))
        name = path.removeprefix("/v1/files/")
        if name in self.files:
            return 200, self.files[name]
        return 404, {"code": "file_not_found", "detail": f"nobody shares {name}"}

    def _content(self, wanted: str) -> tuple[int, Any]:
        holding = [file for file in self.files.values() if file["versions"][0]["content_id"] == wanted]
        if not holding:
            return 404, {"code": "file_not_found", "detail": "nobody shares that content"}
        return 200, {**holding[0]["versions"][0], "names": [file["name"] for file in holding]}

    def _listed(self, name: str) -> dict[str, Any]:
        versions = self.files[name]["versions"]
        newest = {key: versions[0][key] for key in ("content_id", "size_bytes", "published_time")}
        return {
            "name": name,
            **newest,
            "version_count": len(versions),
            "newer_incomplete": self.files[name]["newer_incomplete"],
        }

    @staticmethod
    def _matches(name: str, query: dict[str, str]) -> bool:
        after = query.get("after", "")
        return name.startswith(query.get("prefix", "")) and query.get("query", "") in name and name > after

    def _paged(self, key: str, found: list[Any], query: dict[str, str]) -> dict[str, Any]:
        start = int(query.get("page_token") or "0")
        more = start + self.page < len(found)
        token = f"{start + self.page} {quote(query.get('after', ''))}" if more else ""
        return {key: found[start : start + self.page], "next_page_token": token.rstrip()}


@pytest.fixture
def locator() -> Iterator[FakeLocator]:
    """A locator on a free port."""
    fake = FakeLocator()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            status, document = fake.answer(unquote(parts.path), query)
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class says so
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()
