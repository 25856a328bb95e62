"""Settings of a client and of a daemon: how this machine reaches the network, and how fast it sends and receives."""

import os
import stat
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from minga_core.errors import StorageError
from minga_core.units import format_rate
from minga_runtime.rate_limit import MIN_BYTES_PER_SECOND
from minga_runtime.settings import (
    ByteRate,
    HttpUrlText,
    Seconds,
    Settings,
)

DEFAULT_LOCATOR = "http://127.0.0.1:50052"


def default_control_socket() -> Path:
    """The control socket of this user: in XDG_RUNTIME_DIR, or a folder of the user's own in the temp directory."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(runtime) / "minga" if runtime else Path(tempfile.gettempdir()) / f"minga-{os.getuid()}"
    return folder / "peer.sock"


def gateway_socket(control: Path) -> Path:
    """The Unix socket of the HTTP gateway of the daemon with that control socket."""
    return control.with_suffix(".http")


def read_socket(control: Path) -> Path:
    """The Unix socket by which programs read files that the daemon with that control socket has, or fetches."""
    return control.with_suffix(".read")


def check_control_folder(socket: Path) -> None:
    """Check that nobody else can have made a socket in this user's folder in the temp directory. Blocking.

    Everybody may make a folder of that name there; a path that was chosen is its user's choice. Raises StorageError;
    OSError when the folder cannot be looked at. No folder is no error.
    """
    folder = socket.parent
    if folder.name != f"minga-{os.getuid()}" or folder.parent != Path(tempfile.gettempdir()):
        return
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise StorageError(
            f"{folder} is a link, a file, or another user's: what answers there may be anybody",
            hint="set MINGA_CONTROL to a path in a folder of your own",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise StorageError(f"other users may open {folder}", hint=f"chmod 700 {folder}")


def in_utf8(path: Path) -> Path:
    """`path`, which goes into messages and addresses. Raises ValueError when it is not valid UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError("the path is not valid UTF-8") from None
    return path


def absolute(path: Path) -> Path:
    """`path` from the root, which a process that works elsewhere later needs. Raises ValueError."""
    try:
        return path.absolute()
    except FileNotFoundError:
        raise ValueError(f"{path} is relative, and the current folder was deleted") from None


class TransferSettings(Settings):
    """Where the network is, and how contents are moved."""

    locator: HttpUrlText = DEFAULT_LOCATOR
    grant: Path | None = None
    control: Path = Field(default_factory=default_control_socket)
    source_wait: Seconds = timedelta(minutes=5)
    limit_up: ByteRate = 0
    limit_down: ByteRate = 0

    @field_validator("control")
    @classmethod
    def _control_in_utf8(cls, value: Path) -> Path:
        return in_utf8(value)

    @field_validator("limit_up", "limit_down")
    @classmethod
    def _moves(cls, value: int) -> int:
        if 0 < value < MIN_BYTES_PER_SECOND:
            raise ValueError(f"the least limit is {format_rate(MIN_BYTES_PER_SECOND)}; 0 is no limit")
        return value

    @model_validator(mode="after")
    def _locator_by_tls(self) -> Self:
        secret = "MINGA_TLS_CERT" if self.tls is not None else "MINGA_GRANT" if self.grant is not None else ""
        if secret and not self.locator.startswith("https://"):
            raise ValueError(f"MINGA_LOCATOR: with {secret} a URL with https:// is needed, not {self.locator}")
        return self

    @property
    def source_wait_or_forever(self) -> timedelta | None:
        """How long to wait for a source; None for ever."""
        return self.source_wait or None
