"""inotify(7), by way of the C library: which names changed in which folders. Linux only."""

import ctypes
import os
import struct
from contextlib import suppress
from typing import NamedTuple

# linux/inotify.h
IN_MODIFY = 0x2
IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_UNMOUNT = 0x2000
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x1000000
_IN_DONT_FOLLOW = 0x2000000
IN_ISDIR = 0x40000000

IN_GONE = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED
"""The watched folder itself is not at its path any more."""
_CONTENTS = IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
_MASK = _CONTENTS | IN_DELETE_SELF | IN_MOVE_SELF | _IN_ONLYDIR | _IN_DONT_FOLLOW
_HEADER = struct.Struct("iIII")
"""struct inotify_event without its name: wd, mask, cookie, length of the name."""
_READ_BYTES = 256 * 1024

_libc = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """Something that happened."""

    wd: int
    """Descriptor of the watch; -1 for IN_Q_OVERFLOW."""
    mask: int
    name: str
    """The entry of the watched folder, as `os.fsdecode` has it; empty for the folder itself."""


class Inotify:
    """One queue of events, with its watches. All methods but `read` block for the file system at most."""

    def __init__(self) -> None:
        """Raises OSError: EMFILE when this user has too many of them."""
        self._descriptor = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """Readable when there are events."""
        return self._descriptor

    def add(self, folder: str) -> int:
        """Watch a folder; the watch's descriptor, the same for a folder that is watched already.

        Raises OSError: ENOSPC when this user's watches are used up.
        """
        return _checked(_libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK))

    def remove(self, wd: int) -> None:
        """End a watch. Not an error when the kernel has ended it already."""
        _libc.inotify_rm_watch(self._descriptor, wd)

    def read(self) -> list[Event]:
        """All events that wait, without blocking."""
        events: list[Event] = []
        with suppress(BlockingIOError):
            while data := os.read(self._descriptor, _READ_BYTES):
                events += _parsed(data)
        return events

    def close(self) -> None:
        """End all watches."""
        os.close(self._descriptor)


def _parsed(data: bytes) -> list[Event]:
    events: list[Event] = []
    start = 0
    while start < len(data):
        wd, mask, _, length = _HEADER.unpack_from(data, start)
        start += _HEADER.size + length
        events.append(Event(wd, mask, os.fsdecode(data[start - length : start].rstrip(b"\0"))))
    return events


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
