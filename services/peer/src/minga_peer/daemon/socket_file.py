"""The control socket's path: in a folder of its owner's, and a stale socket is removed."""

import socket
from pathlib import Path

from minga_core.errors import AlreadyRunningError, StorageError
from minga_engine.settings import check_control_folder

# Linux: sizeof(sockaddr_un.sun_path) is 108, with the closing NUL (unix(7)); macOS has 104.
MAX_SOCKET_PATH_BYTES = 103
MAX_FOLDER_PATH_BYTES = MAX_SOCKET_PATH_BYTES - len("/.12345678/s")
"""The socket is made in a temporary folder there."""


def claim_socket(path: Path) -> None:
    """Make way for a server at `path`. Blocks for at most a second.

    Raises AlreadyRunningError when a daemon answers there, StorageError when the folder cannot be made, or
    is another user's.
    """
    if len(str(path).encode()) > MAX_SOCKET_PATH_BYTES or len(str(path.parent).encode()) > MAX_FOLDER_PATH_BYTES:
        raise StorageError(
            f"the control socket's path has over {MAX_SOCKET_PATH_BYTES} bytes, or its folder over "
            f"{MAX_FOLDER_PATH_BYTES}: {path}",
            hint="set MINGA_CONTROL to a shorter path",
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_control_folder(path)
        if not path.exists():
            return
        if _daemon_answers(path):
            raise AlreadyRunningError(
                f"a peer daemon answers at {path} already",
                hint="stop it, or give this one another --control and --share",
            )
        path.unlink()
    except OSError as error:
        raise StorageError(f"cannot make the control socket {path}: {error.strerror}") from error


def _daemon_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
