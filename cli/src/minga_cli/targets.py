"""Which file of the network goes to which path here.

As cp does: with a PATH that is a folder, or ends in `/`, files go inside it; otherwise PATH is the file, or the folder,
itself. Folders keep their tree. Nothing is written here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from minga import parse_name, parse_prefix
from minga.errors import InvalidArgumentError
from minga.origin_urls import OriginUrl, parse_origin

if TYPE_CHECKING:
    from minga import FetchItem, Name


@dataclass(frozen=True, slots=True)
class Wanted:
    """A NAME as it was given: a file, or a folder when it ends in `/`."""

    name: str
    """Without the `/` at the end."""
    is_folder: bool
    origin: OriginUrl | None = None
    """Where it is fetched from instead; `name` is then what a copy of it is called."""

    @classmethod
    def parse(cls, text: str, publish_as: str | None = None) -> "Wanted":
        """What `text` means. publish_as: the name that a file of an origin gets. Raises InvalidNameError,
        InvalidArgumentError."""
        if (origin := parse_origin(text, publish_as)) is not None:
            return cls(origin.last_part, False, origin)
        if text.endswith("/"):
            return cls(parse_prefix(parse_name(text.removesuffix("/"))), True)
        return cls(parse_name(text), False)

    @property
    def reference(self) -> str:
        """What opens it."""
        return self.name if self.origin is None else str(self.origin)

    @property
    def last_part(self) -> str:
        """What it is called inside its folder."""
        return self.name.rpartition("/")[2]


class Layout:
    """Where the files of one command go. output: PATH as given, None when it was not; several: whether there is more
    than one NAME, so that PATH can only be a folder."""

    def __init__(self, output: str | None, *, into_share: bool, several: bool) -> None:
        self._into_share = into_share and output is None
        self._base = Path(output or ".")
        self._inside = output is None or several or output.endswith("/") or self._base.is_dir()

    def item(self, wanted: Wanted, name: "Name", size_bytes: int = 0) -> "FetchItem":
        """A file that `wanted` stands for: the file itself, or one below that folder."""
        from minga import FetchItem

        if self._into_share:
            return FetchItem(name, size_bytes, origin=wanted.origin)
        below = name[len(wanted.name) + 1 :] if wanted.is_folder else ""
        if self._inside:
            return FetchItem(name, size_bytes, self._base, PurePosixPath(wanted.last_part, below), wanted.origin)
        if wanted.is_folder:
            return FetchItem(name, size_bytes, self._base, PurePosixPath(below))
        return FetchItem(name, size_bytes, self._base.parent, PurePosixPath(self._base.name), wanted.origin)


def refuse_collisions(items: "Sequence[FetchItem]") -> None:
    """Raises InvalidArgumentError when two files would go to the same path."""
    seen: dict[Path, Name] = {}
    for item in items:
        if item.target is not None and seen.setdefault(item.target, item.name) != item.name:
            raise InvalidArgumentError(
                f"{seen[item.target]} and {item.name} would both go to {item.target}",
                hint="fetch them one at a time, each with its own -o",
            )
