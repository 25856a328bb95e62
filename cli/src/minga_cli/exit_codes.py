"""Exit codes of the command, one for each kind of outcome, and the table from error codes to them."""

from enum import IntEnum

from minga.errors import Code


class ExitCode(IntEnum):
    """Exit codes of the `minga` command. They never change their meaning."""

    OK = 0
    BUG = 1
    USAGE = 2
    NOT_FOUND = 3
    NAME_TAKEN = 4
    UNAVAILABLE = 5
    STORAGE = 6
    INTEGRITY = 7
    CONFLICT = 8
    DENIED = 9
    HUNG_UP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "it is done, or was so already",
    ExitCode.BUG: "a bug in Minga; the traceback says where",
    ExitCode.USAGE: "a wrong argument, name or setting; nothing was done",
    ExitCode.NOT_FOUND: "no living peer has that file or content, or there is no such peer",
    ExitCode.NAME_TAKEN: "another content has that name, and `--overwrite` was not given",
    ExitCode.UNAVAILABLE: "locator, registry, daemon, peers or sources did not answer in time; try again later",
    ExitCode.STORAGE: "the disk refused: full, not permitted, broken",
    ExitCode.INTEGRITY: "bytes that are not what they should be, or a file that changed while it was read",
    ExitCode.CONFLICT: "another process has the port, the shared folder, the socket or the peer id",
    ExitCode.DENIED: "certificates: one end does not accept the other's, or its owner may not do that",
    ExitCode.HUNG_UP: "the terminal went away",
    ExitCode.INTERRUPTED: "Ctrl-C",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
    ExitCode.TERMINATED: "SIGTERM",
}
"""What each code means, for docs/cli.md."""

_CODES = {
    ExitCode.BUG: [Code.INTERNAL],
    ExitCode.USAGE: [Code.INVALID_ARGUMENT, Code.INVALID_NAME, Code.ROW_REFUSED, Code.INVALID_SETTINGS],
    ExitCode.NOT_FOUND: [Code.FILE_NOT_FOUND, Code.PEER_NOT_FOUND, Code.CONTENT_NOT_HELD],
    ExitCode.NAME_TAKEN: [Code.NAME_TAKEN],
    ExitCode.UNAVAILABLE: [
        *(Code.LIMIT_EXCEEDED, Code.BUSY, Code.NO_SOURCES, Code.STORE_UNAVAILABLE, Code.REGISTRY_UNAVAILABLE),
        *(Code.LOCATOR_UNAVAILABLE, Code.PEER_UNAVAILABLE, Code.DAEMON_UNAVAILABLE, Code.UNAVAILABLE),
        # The registry asks for these steps again: a later call may succeed.
        *(Code.REGISTER_AGAIN, Code.TABLE_REVISION_MISMATCH, Code.TABLE_INCOMPLETE),
    ],
    ExitCode.STORAGE: [Code.NO_SPACE, Code.STORAGE],
    ExitCode.INTEGRITY: [Code.INVALID_MANIFEST, Code.CONTENT_CHANGED, Code.CHUNK_CORRUPT],
    ExitCode.DENIED: [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED],
    ExitCode.CONFLICT: [Code.LEASE_SUPERSEDED, Code.PEER_ID_TAKEN, Code.ALREADY_RUNNING],
}
EXIT_CODES = {code: exit_code for exit_code, codes in _CODES.items() for code in codes}
"""Exit code of each error."""
