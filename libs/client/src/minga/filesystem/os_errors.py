"""Errors of Minga as those of Python's own files: programs that use fsspec know no others."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from minga_core.errors import (
    BusyError,
    InvalidArgumentError,
    InvalidNameError,
    MingaError,
    NameTakenError,
    NoSourcesError,
    NoSpaceError,
    NotFoundError,
    PermissionDeniedError,
    StorageError,
    UnauthenticatedError,
    UnavailableError,
)

# OSError makes itself the subclass of its number: FileNotFoundError for ENOENT, and so on.
_NUMBERS: dict[type[MingaError], int] = {
    NotFoundError: errno.ENOENT,
    InvalidNameError: errno.ENOENT,
    NameTakenError: errno.EEXIST,
    PermissionDeniedError: errno.EACCES,
    UnauthenticatedError: errno.EACCES,
    NoSpaceError: errno.ENOSPC,
    NoSourcesError: errno.ETIMEDOUT,
    UnavailableError: errno.ECONNREFUSED,
    InvalidArgumentError: errno.EINVAL,
    BusyError: errno.EBUSY,
}


@contextmanager
def os_errors(path: str) -> Iterator[None]:
    """Raise each MingaError of the block as an OSError about `path`."""
    try:
        yield
    except MingaError as error:
        raise os_error(error, path) from error


def os_error(error: MingaError, path: str) -> OSError:
    """The error that a local file system would have raised."""
    text = f"{error} ({error.hint})" if error.hint else str(error)
    if isinstance(error, StorageError) and isinstance(error.__cause__, OSError):
        return OSError(error.__cause__.errno, text, path)
    kinds = (number for kind, number in _NUMBERS.items() if isinstance(error, kind))
    return OSError(next(kinds, errno.EIO), text, path)
