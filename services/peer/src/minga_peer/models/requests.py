"""What a path below `/hf` asks for. Pure."""

import re
from dataclasses import dataclass

from minga_core.errors import FileNotFoundInDirectoryError

_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,255}"
_FILE = re.compile(rf"/((?:(?:datasets|spaces|kernels)/)?{_PART}(?:/{_PART})?)/resolve/([^/]{{1,512}})/(.+)")
# Where the hub sends clients for the bytes themselves, which come from here.
_NOT_FOR_CLIENTS = re.compile(r"/api/resolve-cache/|/api/.*/xet-(?:read|write)-token/")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository, as its URL spells it."""

    repository: str
    """With `datasets/` and so on before it; one part or two."""
    revision: str
    path: str

    @property
    def target(self) -> str:
        """What follows the hub's URL."""
        return f"/{self.repository}/resolve/{self.revision}/{self.path}"

    def at(self, commit: str) -> "HubFile":
        """The same of one commit, for ever."""
        return HubFile(self.repository, commit, self.path)


@dataclass(frozen=True, slots=True)
class ApiCall:
    """Anything else that a client asks the hub. target: what follows the hub's URL, with its query."""

    target: str


def parse_request(path: str, query: str, method: str) -> HubFile | ApiCall:
    """path: percent-encoded, without `/hf`. Raises FileNotFoundInDirectoryError for what is not mirrored."""
    found = _FILE.fullmatch(path)
    if found is not None and not path.startswith("/api/") and method != "POST":
        return HubFile(found[1], found[2], found[3])
    is_answered = method != "POST" or "/paths-info/" in path
    if path.startswith("/api/") and is_answered and not _NOT_FOR_CLIENTS.match(path):
        return ApiCall(f"{path}?{query}" if query else path)
    raise FileNotFoundInDirectoryError(f"nothing of the hub is mirrored at {path[:200]}")
