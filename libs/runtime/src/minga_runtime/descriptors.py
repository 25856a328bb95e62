"""Open files of the process, sockets among them: how many it may have, and how many of them callers may take."""

import contextlib
import resource

MAX_CONNECTIONS = 100_000


def raise_limit() -> None:
    """Takes as many as the system lets the process have. Never raises.

    Soft limits are 1,024 for the sake of programs that call select(2); others are to raise their own
    (https://0pointer.net/blog/file-descriptor-limits.html). A registry has a connection from each peer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems let nobody have what they say.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def max_connections() -> int:
    """How many a server takes: three of four of the process's descriptors, so that a flood never has the last one, with
    which the store is reached."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft * 3 // 4)
