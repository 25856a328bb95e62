"""Which contents others have requested lately: a directory that was emptied gets their names before all others."""

from collections.abc import Sequence

from minga_core.ids import ContentId
from minga_core.records import FileRow

MAX_CONTENTS = 1_000
"""As many as one message of a push announces."""
MAX_ROWS = 2_000
"""That come first. A registry adds a change of any size to a table of 3,000 rows."""


class Requested:
    """The last contents that were requested from this peer. Only for the event loop's thread."""

    def __init__(self) -> None:
        self._contents: dict[ContentId, None] = {}

    def note(self, content_id: ContentId) -> None:
        """Note a request; of more than MAX_CONTENTS the one requested longest ago is forgotten."""
        self._contents.pop(content_id, None)
        self._contents[content_id] = None
        if len(self._contents) > MAX_CONTENTS:
            del self._contents[next(iter(self._contents))]

    def split(self, rows: Sequence[FileRow]) -> tuple[list[FileRow], list[FileRow]]:
        """The rows of those contents, at most MAX_ROWS, and all others."""
        first: list[FileRow] = []
        rest: list[FileRow] = []
        for row in rows:
            comes_first = row.key.content_id in self._contents and len(first) < MAX_ROWS
            (first if comes_first else rest).append(row)
        return first, rest
