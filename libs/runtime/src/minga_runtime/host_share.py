"""Closes connections of a host that has more than its share of a gRPC server's.

gRPC accepts by itself, in C, and counts connections in all alone: one host could have every one of them, and nobody
else would get in. So the kernel is asked whose they are, now and then, where there are many.
"""

import asyncio
import logging
import os
import socket
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from minga_runtime.logs import log_event
from minga_runtime.quotas import host_of

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
LOOK_AGAIN_SECONDS = 0.2
"""After a look that closed some: below the time in which a host could fill what the others are to have."""
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
DESCRIPTORS = Path("/proc/self/fd")
_ESTABLISHED = "01"


class HostShare:
    """Looks after the connections of one port. most: in all; one host may have half. Without /proc it does nothing."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._each = max(1, most // 2)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            closed = 0
            # No descriptor is left to look with, or there is no /proc.
            with suppress(OSError):
                closed = await asyncio.to_thread(self.close_excess)
            await asyncio.sleep(LOOK_AGAIN_SECONDS if closed else LOOK_SECONDS)

    def close_excess(self) -> int:
        """Close what each host has too many of; how many. Blocking. Raises OSError.

        Its newest connections, as far as the numbers of their inodes say: these grow, but each processor has a range
        of its own.
        """
        # Without so many descriptors nobody has so many connections.
        if len(os.listdir(DESCRIPTORS)) <= self._each:
            return 0
        by_host: dict[str, list[int]] = defaultdict(list)
        for host, inode in _connections(self._port):
            by_host[host].append(inode)
        closed = 0
        for host, inodes in by_host.items():
            if len(inodes) > self._each:
                closed += _close(set(sorted(inodes)[self._each :]), host)
                log_event(log, logging.WARNING, "connections_closed", host=host, count=len(inodes), limit=self._each)
        return closed


def _connections(port: int) -> Iterator[tuple[str, int]]:
    """The host at the other end of each connection to a port of this machine, and the inode of its socket."""
    ours = f":{port:04X}"
    for table in TABLES:
        # Without IPv6 there is no second table.
        with suppress(OSError), table.open() as lines:
            for line in lines:
                fields = line.split()
                if fields[1].endswith(ours) and fields[3] == _ESTABLISHED:
                    yield _host(fields[2].partition(":")[0]), int(fields[9])


def _host(digits: str) -> str:
    """The host that quotas count, from an address as the kernel prints it: words of 32 bits, each in the machine's own
    order."""
    words = [int(digits[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(digits), 8)]
    return host_of(str(ip_address(b"".join(words))))


def _close(inodes: set[int], host: str) -> int:
    """Shut these sockets of this process down; how many there were. gRPC closes them then."""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    closed = 0
    for name in os.listdir(DESCRIPTORS):
        with suppress(OSError):
            if os.readlink(DESCRIPTORS / name) in wanted:
                closed += _shut_down(int(name), host)
    return closed


def _shut_down(descriptor: int, host: str) -> bool:
    """Raises OSError."""
    # Our own descriptor of it: the number may be another connection's by now, and cannot change under this one.
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if host_of(connection.getpeername()[0]) != host:
            return False
        connection.shutdown(socket.SHUT_RDWR)
        return True
