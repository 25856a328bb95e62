"""Minga as the mirror of a hub of models: the hub on the seed, a peer and `minga hf fill` on each other host.

The hub is an nginx that answers what that command asks: two lists in JSON, and files with the hub's headers.
"""

import asyncio
import hashlib
import json
from pathlib import Path

from bench.systems.minga import Minga
from bench.systems.nginx import PORT, Nginx
from bench.systems.port import Arena

REPOSITORY, COMMIT = "bench/model", "0123456789abcdef0123456789abcdef01234567"


class HubServer(Nginx):
    """The content's folder as a model, of which the hub keeps every file by its sha256."""

    async def start(self) -> None:
        self._locations = await asyncio.to_thread(self._describe)
        await super().start()

    def _directives(self) -> str:
        return self._locations

    def _describe(self) -> str:
        """A location for each answer. Blocking."""
        files = [path for path in self.arena.content_paths() if path.is_file()]
        entries = [_entry(path, self.arena.content) for path in files]
        api = f"/api/models/{REPOSITORY}"
        found = [
            self._list(f"{api}/revision/main", {"id": REPOSITORY, "sha": COMMIT}),
            self._list(f"{api}/tree/{COMMIT}", entries),
        ]
        for file, entry in zip(files, entries, strict=True):
            headers = {"X-Repo-Commit": COMMIT, "X-Linked-ETag": f'"{entry["oid"]}"', "X-Linked-Size": entry["size"]}
            lines = "".join(f"add_header {name} '{value}'; " for name, value in headers.items())
            found.append(f"location = /{REPOSITORY}/resolve/{COMMIT}/{entry['path']} {{ {lines}alias {file}; }}")
        return "\n".join(found)

    def _list(self, path: str, body: object) -> str:
        """A location with JSON, from a file: a value in the configuration has at most 4 KiB."""
        file = self.arena.folder(self.arena.seeds[0]) / f"{path.rpartition('/')[2]}.json"
        file.write_text(json.dumps(body))
        return f"location = {path} {{ default_type application/json; alias {file}; }}"


class Hub(Minga):
    """Every peer mirrors the hub on the seed, which runs no peer."""

    name = "hub"
    commands = ("nginx",)

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._server = HubServer(arena)
        # Its cost is counted, and it ends, with the others.
        self._server.processes = self.processes
        self._flags += [f"--hub=http://{self.lab.hosts[arena.seeds[0]].address}:{PORT}", "--cache=100%"]

    async def start(self) -> None:
        await self._server.start()
        await self._start_services()
        await self._start_peers(self.arena.peers)

    async def fetch(self, host: str) -> None:
        await self.command(host, "hf", "fill", "--quiet", f"--cache={self._cache(host)}", REPOSITORY)

    def result(self, host: str) -> Path:
        return self._cache(host) / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / COMMIT

    def _cache(self, host: str) -> Path:
        return self.arena.folder(host) / "cache"


def _entry(path: Path, folder: Path) -> dict[str, object]:
    """As the hub lists a file that it keeps by its sha256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size, name = path.stat().st_size, str(path.relative_to(folder))
    return {"type": "file", "path": name, "size": size, "oid": digest, "lfs": {"oid": digest, "size": size}}
