"""What somebody may do with the names of a network. Pure values."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from minga_core.errors import InvalidArgumentError, PermissionDeniedError
from minga_core.names import Name, parse_name

EVERYTHING = "*"
MAX_PREFIXES = 100
"""Of each right: they are compared with each name."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Names at and below some folders. `data` has `data` and `data/x` in it, and not `data-secret`."""

    everything: bool
    folders: tuple[Name, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Self:
        """`*` for all names, or names of files or folders, in the form in which names are kept; a `/` at the end is as
        none. Raises InvalidArgumentError, InvalidNameError."""
        found = list(texts)
        if len(found) > MAX_PREFIXES:
            raise InvalidArgumentError(f"at most {MAX_PREFIXES} prefixes, not {len(found):,}")
        folders = []
        for text in found:
            if text == EVERYTHING:
                continue
            folder = parse_name(text.removesuffix("/"))
            if folder != text.removesuffix("/"):
                # Another program that reads the same grant would take it for another folder.
                raise InvalidArgumentError(f"the prefix {text[:80]!r} is not in the normal form NFC")
            folders.append(folder)
        return cls(EVERYTHING in found, tuple(folders))

    def __contains__(self, name: str) -> bool:
        return self.everything or any(name == folder or name.startswith(f"{folder}/") for folder in self.folders)

    def __str__(self) -> str:
        return EVERYTHING if self.everything else ", ".join(self.folders) or "nothing"


@dataclass(frozen=True, slots=True)
class Rights:
    """What its holder may do. admin: may manage the network's members."""

    read: Prefixes
    publish: Prefixes
    admin: bool = False

    def check_read(self, name: Name) -> None:
        """Raises PermissionDeniedError, whether there is a file of that name or not."""
        if name not in self.read:
            raise PermissionDeniedError(f"may not read {name!r}: the right to read is of {self.read}")

    def check_publish(self, name: Name) -> None:
        """Raises PermissionDeniedError."""
        if name not in self.publish:
            raise PermissionDeniedError(f"may not publish {name!r}: the right to publish is of {self.publish}")


def parse_rights(text: str) -> Rights:
    """Rights to read and to publish, written as `read=PREFIX,…;publish=PREFIX,…`; what is not there is not granted.

    Raises InvalidArgumentError, InvalidNameError.
    """
    found: dict[str, Prefixes] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        right, equals, prefixes = part.partition("=")
        if right not in ("read", "publish") or not equals or right in found:
            raise InvalidArgumentError(f"{part[:80]!r} is no right: `read=PREFIX,…;publish=PREFIX,…` is wanted")
        found[right] = Prefixes.parse(filter(None, map(str.strip, prefixes.split(","))))
    nothing = Prefixes(False)
    return Rights(found.get("read", nothing), found.get("publish", nothing))


ALL = Rights(Prefixes(True), Prefixes(True), admin=True)
NONE = Rights(Prefixes(False), Prefixes(False))
