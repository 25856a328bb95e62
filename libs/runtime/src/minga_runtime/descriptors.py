"""The limit on open files of the process, and how many of them connections may use."""

import contextlib
import resource

MAX_CONNECTIONS = 100_000


def raise_limit() -> None:
    """Raise the soft limit to the hard limit. Never raises an error.

    The soft limit is 1,024 for the sake of programs that call select(2); others are to raise it
    (https://0pointer.net/blog/file-descriptor-limits.html). A registry has a connection from each peer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems refuse the hard limit that they report.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def max_connections() -> int:
    """Connections that a server accepts: three quarters of the process's descriptors, so that a flood of clients leaves
    some for the connections to Redis."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MAX_CONNECTIONS, soft * 3 // 4)
