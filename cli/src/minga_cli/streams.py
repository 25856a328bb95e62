"""Standard streams that may be closed, full, or unable to show a name."""

import io
import os
import sys
from typing import Any

from minga.errors import StorageError


class _Results(io.FileIO):
    """Standard output: what cannot be written is an error of the disk, and no bug."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StorageError(f"cannot write to standard output: {reason}") from error


class _Notes(io.FileIO):
    """Standard error: what cannot be written is dropped, since there is no other place to report it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def open_streams() -> None:
    """Give the process standard streams whose failures are handled, closed ones too. Once, at the start."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The next file opened would get the number. Writing to the output still fails, as it should.
            os.set_inheritable(os.open(os.devnull, mode), True)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(kind(number, "wb", closefd=False)),
            encoding=stream.encoding if stream else None,
            # A terminal that cannot show a name shows its escapes.
            errors="backslashreplace",
            line_buffering=number == 2 or os.isatty(number),
        )
        for number, kind, stream in ((1, _Results, sys.stdout), (2, _Notes, sys.stderr))
    )
