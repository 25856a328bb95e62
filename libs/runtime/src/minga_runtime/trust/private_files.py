"""Files of secrets: nobody else may read them, and none is ever half written."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_private(path: Path, content: str | bytes) -> None:
    """Make or replace a file, at once and for good, with mode 0600. Raises OSError."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def write_private_if_new(path: Path, content: str) -> bool:
    """As `write_private`, unless that is what the file has in it; whether it was written. Raises OSError."""
    with suppress(FileNotFoundError):
        if path.read_text() == content:
            return False
    write_private(path, content)
    return True
