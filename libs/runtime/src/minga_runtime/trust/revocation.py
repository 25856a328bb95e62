"""Who is no member any more, though its certificate or grant has not ended."""

from pathlib import Path

from minga_core.errors import InvalidArgumentError, PermissionDeniedError, Refusal
from minga_runtime.trust.watched_file import WatchedFile

MAX_LIST_BYTES = 4 * 1024 * 1024
"""As the authority's largest answer. A longer list is not read at all, and the one before stays."""
_NOBODY: frozenset[str] = frozenset()


class Revoked:
    """The file of MINGA_REVOKED, read again when it changes: a member's URI, or the subject or id of a grant, on each
    line. For any thread; a check costs a look-up in a set. Raises SettingsError when it is no good at the start.

    path: None where nobody is revoked.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file = None if path is None else WatchedFile(path, "MINGA_REVOKED", _parsed, MAX_LIST_BYTES)

    @property
    def anybody(self) -> bool:
        """Whether there is anything to check."""
        return bool(self.entries)

    @property
    def entries(self) -> frozenset[str]:
        """All that are named in the file: the same object until it changes."""
        return _NOBODY if self._file is None else self._file.current()

    def check(self, *ids: str) -> None:
        """Check somebody by what names it: a member's URI, a grant's subject and id. Raises PermissionDeniedError."""
        if not self.entries.isdisjoint(ids):
            raise PermissionDeniedError(
                f"{ids[0]} has been revoked", hint="ask who runs the network", refusal=Refusal.REVOKED
            )


def _parsed(data: bytes) -> frozenset[str]:
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InvalidArgumentError("it is not UTF-8") from error
    return frozenset(line.strip() for line in lines) - {""}
