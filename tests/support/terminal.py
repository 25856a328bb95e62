"""A process on a terminal of its own (a pty), for tests of what people see and type."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

import pytest

LIMIT_SECONDS = 30.0
DOWN, UP, ENTER = "\x1b[B", "\x1b[A", "\r"
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-B0-2]|[=>78])")


class Terminal:
    """A process on a terminal of its own, and what it wrote there."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._side, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 300, 0, 0))
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=environment, start_new_session=True
        )
        os.close(other)
        self._raw = b""
        self._seen = 0

    def shows(self, text: str) -> None:
        """Returns once `text` stands there, after what was looked for before."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while (found := self.text.find(text, self._seen)) < 0:
            if time.monotonic() > deadline or not self._read(deadline):
                pytest.fail(f"{text!r} does not come after what is here:\n{self.text}")
        self._seen = found + len(text)

    def type(self, *keys: str) -> None:
        """Types."""
        os.write(self._side, "".join(keys).encode())

    def ended(self) -> int:
        """The exit code, once it has ended."""
        deadline = time.monotonic() + LIMIT_SECONDS
        # Read to the end: a process that writes to a full terminal would wait for us.
        while self._read(deadline):
            pass
        return self.process.wait(LIMIT_SECONDS)

    @property
    def text(self) -> str:
        """All that it wrote, without escapes."""
        return _ESCAPES.sub("", self._raw.decode(errors="replace"))

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.wait(LIMIT_SECONDS)
        os.close(self._side)

    def _read(self, deadline: float) -> bool:
        """Reads what there is; False at the end, or at the deadline."""
        if not select.select([self._side], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._side, 65536)
        except OSError:  # EIO: nobody is at the other end any more
            return False
        self._raw += data
        return bool(data)
