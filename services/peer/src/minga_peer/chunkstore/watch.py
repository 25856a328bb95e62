"""News of the shared folder from the operating system, as relative paths. A hint only: a scan finds what it misses."""

import logging
from collections.abc import AsyncGenerator
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

from minga_core.names import HIDDEN_ROOT
from minga_runtime.logs import log_event

log = logging.getLogger(__name__)

STEP_MILLIS = 50
GROUP_MILLIS = 200
"""News that come within this time are told together."""


class _OutsideOfState(DefaultFilter):
    """Everything but our own state; `DefaultFilter` would hide editors' and VCS files, which people do share."""

    def __init__(self, root: Path) -> None:
        self._hidden = str(root / HIDDEN_ROOT)

    def __call__(self, change: Change, path: str) -> bool:
        return path != self._hidden and not path.startswith(self._hidden + "/")


async def changed_paths(root: Path) -> AsyncGenerator[set[str], None]:
    """Sets of paths, relative to `root`, that were made, changed or removed. Ends when watching is not possible."""
    try:
        async for changes in awatch(
            root,
            watch_filter=_OutsideOfState(root),
            step=STEP_MILLIS,
            debounce=GROUP_MILLIS,
            recursive=True,
            ignore_permission_denied=True,
        ):
            yield {str(Path(path).relative_to(root)) for _, path in changes if path != str(root)}
    except (OSError, RuntimeError) as error:
        # Too many folders for inotify, or a file system without news.
        log_event(log, logging.WARNING, "watch_failed", root=root, error=error, instead="scans")
