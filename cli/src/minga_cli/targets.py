"""Which file of the network goes to which path here.

As cp does: with a PATH that is a folder, or ends in `/`, files go inside it; otherwise PATH is the file, or the folder,
itself. Folders keep their tree. Nothing here writes but `make_room`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from minga_core.errors import InvalidArgumentError, StorageError
from minga_core.names import Name, parse_name, parse_prefix

_NOWHERE = PurePosixPath()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A NAME as it was given: a file, or a folder when it ends in `/`."""

    name: str
    """Without the `/` at the end."""
    is_folder: bool

    @classmethod
    def parse(cls, text: str) -> "Wanted":
        """What `text` means. Raises InvalidNameError."""
        if text.endswith("/"):
            return cls(parse_prefix(parse_name(text.removesuffix("/"))), True)
        return cls(parse_name(text), False)

    @property
    def last_part(self) -> str:
        """What it is called inside its folder."""
        return PurePosixPath(self.name).name


@dataclass(frozen=True, slots=True)
class FetchItem:
    """One file to fetch."""

    name: Name
    size_bytes: int = 0
    """0 when it is not known yet."""
    base: Path | None = None
    """The folder that the target may not leave; None: the daemon's shared folder."""
    relative: PurePosixPath = _NOWHERE
    """Where below the base."""

    @property
    def target(self) -> Path | None:
        """Where it goes; None: the daemon's shared folder alone."""
        return self.base / self.relative if self.base is not None else None


class Layout:
    """Where the files of one command go. output: PATH as given, None when it was not; several: whether there is more
    than one NAME, so that PATH can only be a folder."""

    def __init__(self, output: str | None, *, into_share: bool, several: bool) -> None:
        self._into_share = into_share and output is None
        path = Path(output or ".")
        self._base = path
        self._inside = output is None or several or output.endswith("/") or path.is_dir()

    def item(self, wanted: Wanted, name: Name, size_bytes: int) -> FetchItem:
        """A file that `wanted` stands for: the file itself, or one below that folder."""
        if self._into_share:
            return FetchItem(name, size_bytes)
        below = PurePosixPath(name[len(wanted.name) + 1 :]) if wanted.is_folder else PurePosixPath()
        if self._inside:
            return FetchItem(name, size_bytes, self._base, wanted.last_part / below)
        if wanted.is_folder:
            return FetchItem(name, size_bytes, self._base, below)
        return FetchItem(name, size_bytes, self._base.parent, PurePosixPath(self._base.name))


def refuse_collisions(items: Sequence[FetchItem]) -> None:
    """Raises InvalidArgumentError when two files would go to the same path."""
    seen: dict[Path, Name] = {}
    for item in items:
        if item.target is not None and seen.setdefault(item.target, item.name) != item.name:
            raise InvalidArgumentError(
                f"{seen[item.target]} and {item.name} would both go to {item.target}",
                hint="fetch them one at a time, each with its own -o",
            )


def with_room(items: Sequence[FetchItem]) -> list[FetchItem]:
    """Those items above whose targets there are folders now, made if need be. Blocking.

    The others are left to `make_room`, which says what is wrong.
    """
    folders: dict[tuple[Path | None, PurePosixPath], bool] = {}
    found: list[FetchItem] = []
    for item in items:
        folder = item.base, item.relative.parent
        if folder not in folders:
            folders[folder] = _has_room(item)
        if folders[folder]:
            found.append(item)
    return found


def _has_room(item: FetchItem) -> bool:
    try:
        make_room(item)
    except StorageError:
        return False
    return True


def make_room(item: FetchItem) -> None:
    """Makes the folders above the target. Blocking.

    Raises StorageError when that is not possible, when the target is a folder, or when a symbolic link on the way leads
    out of the base: the names come from others.
    """
    if item.base is None or item.target is None:
        return
    try:
        item.base.mkdir(parents=True, exist_ok=True)
        root, folder = item.base.resolve(), item.base
        for part in item.relative.parent.parts:
            folder = folder / part
            folder.mkdir(exist_ok=True)
            if not folder.resolve().is_relative_to(root):
                raise StorageError(f"{folder} is a link that leads out of {item.base}; nothing was written")
    except OSError as error:
        raise StorageError(f"cannot write {item.target}: {(error.strerror or str(error)).lower()}") from error
    if item.target.is_dir():
        raise StorageError(f"{item.target} is a folder", hint=f"-o {item.target}/ puts the file inside it")
