"""What travels with a name beside its bytes. It belongs to the name and is no part of the content id (ADR 31)."""

from typing import NamedTuple


class FileAttributes(NamedTuple):
    """What of a file is kept besides its name and its bytes."""

    modified_ns: int | None = None
    """Modification time, nanoseconds since 1970; None: that of putting the file in place."""
    executable: bool = False
    """Whether the file's owner may execute it, as far as the umask lets."""


NO_ATTRIBUTES = FileAttributes()
"""Of a file of which nothing is known."""
