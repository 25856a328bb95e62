"""How a command ends: one exit code for each kind of outcome, one table from our errors to them."""

from enum import IntEnum

from minga_core.errors import Code


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
    HUNG_UP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "it is done, or was so already",
    ExitCode.BUG: "a bug in Minga; the traceback says where",
    ExitCode.USAGE: "a wrong argument, name or setting; nothing was done",
    ExitCode.NOT_FOUND: "nobody alive has that file, content or peer",
    ExitCode.NAME_TAKEN: "another content has that name, and `--overwrite` was not given",
    ExitCode.UNAVAILABLE: "locator, registry, daemon, peers or sources did not answer in time; try again later",
    ExitCode.STORAGE: "the disk said no: full, not permitted, broken",
    ExitCode.INTEGRITY: "bytes that are not what they should be, or a file that changed while it was read",
    ExitCode.CONFLICT: "another process has the port, the shared folder, the socket or the peer id",
    ExitCode.HUNG_UP: "the terminal went away",
    ExitCode.INTERRUPTED: "Ctrl-C",
    ExitCode.BROKEN_PIPE: "whoever read the output went away",
    ExitCode.TERMINATED: "SIGTERM",
}
"""What each code tells a script."""

EXIT_CODES: dict[Code, ExitCode] = {
    Code.INVALID_ARGUMENT: ExitCode.USAGE,
    Code.INVALID_NAME: ExitCode.USAGE,
    Code.INVALID_SETTINGS: ExitCode.USAGE,
    Code.INVALID_MANIFEST: ExitCode.INTEGRITY,
    Code.FILE_NOT_FOUND: ExitCode.NOT_FOUND,
    Code.PEER_NOT_FOUND: ExitCode.NOT_FOUND,
    Code.CONTENT_NOT_HELD: ExitCode.NOT_FOUND,
    Code.NAME_TAKEN: ExitCode.NAME_TAKEN,
    Code.LEASE_SUPERSEDED: ExitCode.CONFLICT,
    Code.ALREADY_RUNNING: ExitCode.CONFLICT,
    # The registry asks for these steps again; a command that meets one has met it at a bad moment.
    Code.REGISTER_AGAIN: ExitCode.UNAVAILABLE,
    Code.TABLE_REVISION_MISMATCH: ExitCode.UNAVAILABLE,
    Code.TABLE_INCOMPLETE: ExitCode.UNAVAILABLE,
    Code.LIMIT_EXCEEDED: ExitCode.UNAVAILABLE,
    Code.BUSY: ExitCode.UNAVAILABLE,
    Code.NO_SPACE: ExitCode.STORAGE,
    Code.STORAGE: ExitCode.STORAGE,
    Code.CONTENT_CHANGED: ExitCode.INTEGRITY,
    Code.CHUNK_CORRUPT: ExitCode.INTEGRITY,
    Code.NO_SOURCES: ExitCode.UNAVAILABLE,
    Code.STORE_UNAVAILABLE: ExitCode.UNAVAILABLE,
    Code.REGISTRY_UNAVAILABLE: ExitCode.UNAVAILABLE,
    Code.LOCATOR_UNAVAILABLE: ExitCode.UNAVAILABLE,
    Code.PEER_UNAVAILABLE: ExitCode.UNAVAILABLE,
    Code.DAEMON_UNAVAILABLE: ExitCode.UNAVAILABLE,
    Code.UNAVAILABLE: ExitCode.UNAVAILABLE,
    Code.INTERNAL: ExitCode.BUG,
}
"""The one table."""
