"""Ports for what cannot be given any free one."""

import socket
from contextlib import ExitStack


def free_ports(count: int) -> int:
    """The first of so many that follow each other and are free, below those that systems give away by themselves."""
    for first in range(20_000, 30_000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first
    raise AssertionError("no ports are free")
