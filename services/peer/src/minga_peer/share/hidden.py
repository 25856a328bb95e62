"""What of a shared folder is never shared and never stored: Minga's own state, and what is ignored."""

import os
import threading
from pathlib import Path

from minga_core.errors import InvalidNameError
from minga_core.names import HIDDEN_ROOT
from minga_engine.parts.files import IGNORE_FILE, PARTS_FOLDER
from minga_engine.parts.ignoring import IgnoreRules

_RESERVED = (HIDDEN_ROOT, PARTS_FOLDER, IGNORE_FILE)


class Hidden:
    """Used from any thread; `reload` blocks."""

    def __init__(self, root: Path, state_dir: Path | None) -> None:
        """state_dir: where our own state is, which may be inside of the root. Only the defaults until `reload`."""
        self._root = root
        self._state = _path_inside(root, state_dir) if state_dir is not None else ""
        self._reloading = threading.Lock()
        self.rules = IgnoreRules()
        """Replaced by another object when they change."""
        self.problems: list[str] = []
        """Why the ignore file, or which lines of it, have no effect."""

    def reload(self) -> None:
        """Read the ignore file again. While it cannot be read the rules stay as they are: they may hide secrets."""
        with self._reloading:
            try:
                rules = IgnoreRules.of_folder(self._root)
            except OSError as error:
                self.problems = [f"{IGNORE_FILE} cannot be read: {(error.strerror or '').lower()}"]
                return
            self.problems = [f"{IGNORE_FILE}, {problem}" for problem in rules.problems]
            if rules.data != self.rules.data:
                self.rules = rules

    def entry(self, path: str, *, folder: bool) -> bool:
        """Whether an entry of a folder that is not hidden is hidden."""
        return self.is_own(path) or self.rules.ignores(path, folder=folder)

    def is_own(self, path: str) -> bool:
        """Whether an entry of a folder that is not hidden is Minga's own."""
        return path.rpartition("/")[2] in _RESERVED or path == self._state

    def file(self, path: str) -> bool:
        """Whether a file is hidden, itself or with a folder above it."""
        return self._is_reserved(path) or self.rules.ignores_file(path)

    def check(self, path: str) -> None:
        """Raises InvalidNameError when a file of that path would be hidden. path: printable."""
        if self._is_reserved(path):
            raise InvalidNameError(f"{path} cannot be stored: {', '.join(_RESERVED)} are reserved for Minga itself")
        if self.rules.ignores_file(path):
            raise InvalidNameError(
                f"{path} cannot be stored: this peer ignores such names", hint=f"by default, or by its {IGNORE_FILE}"
            )

    def _is_reserved(self, path: str) -> bool:
        """Whether a path is Minga's own. That of a share inside of this one is, too."""
        inside_state = self._state and (path == self._state or path.startswith(f"{self._state}/"))
        # All of them begin alike, and hardly any path has that in it.
        return bool(inside_state) or (HIDDEN_ROOT in path and not set(path.split("/")).isdisjoint(_RESERVED))


def _path_inside(root: Path, folder: Path) -> str:
    """A folder's path relative to the root, links followed; empty when it is not inside of it."""
    path, above = Path(os.path.realpath(folder)), Path(os.path.realpath(root))
    return str(path.relative_to(above)) if above in path.parents else ""
