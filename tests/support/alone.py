"""A network namespace with a loopback and nothing else: what goes elsewhere fails there at once, and is counted."""

import ctypes
import fcntl
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_SET_FLAGS, _UP = 0x8914, 1
_NET = Path("/proc/thread-self/net")
_libc = ctypes.CDLL(None, use_errno=True)
_inside = False


def is_alone() -> bool:
    """Whether this thread is in the block of `alone`, as far as that is allowed here."""
    return _inside


@contextmanager
def alone() -> Iterator[Callable[[], int]]:
    """Have this thread, and the threads and processes that it starts, run in such a namespace.

    Gives the count of connections and packets so far that there was no way for. Without the right to make one the block
    runs where it is, and nothing is counted.
    """
    global _inside
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(_CLONE_NEWNET):
            yield lambda: 0
            return
        _inside = True
        try:
            with socket.socket() as any_socket:
                fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", _UP))
            yield _without_a_way
        finally:
            _inside = False
            if _libc.setns(before, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot go back to the network of before")
    finally:
        os.close(before)


def _without_a_way() -> int:
    names, values = re.findall(r"^Ip: (.*)$", (_NET / "snmp").read_text(), re.MULTILINE)
    ipv4 = dict(zip(names.split(), map(int, values.split()), strict=True))["OutNoRoutes"]
    ipv6 = re.search(r"^Ip6OutNoRoutes\s+(\d+)", (_NET / "snmp6").read_text(), re.MULTILINE)
    return ipv4 + (int(ipv6[1]) if ipv6 else 0)
