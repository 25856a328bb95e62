"""The command line as a function, on a machine with or without a daemon."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from minga_cli.main import run
from tests.support.fake_daemon import FakeDaemon, daemon, short_dir
from tests.support.fake_locator import FakeLocator, content_id, locator

__all__ = ["Ended", "FakeDaemon", "FakeLocator", "Minga", "content_id", "daemon", "locator", "short_dir"]


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class Minga:
    """`minga(...)` runs a command line in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
        self._capsys = capsys
        self._options = options

    def __call__(self, *arguments: str) -> Ended:
        code = run([*self._options, *arguments])
        out, err = self._capsys.readouterr()
        return Ended(code, out, err)


@pytest.fixture
def minga(
    capsys: pytest.CaptureFixture[str], locator: FakeLocator, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Minga:
    """The command on a machine without a daemon, in UTC."""
    _scrub(monkeypatch)
    return Minga(capsys, ["--locator", locator.url, "--control", str(short_dir / "none.sock")])


@pytest.fixture
def minga_with_daemon(
    capsys: pytest.CaptureFixture[str], locator: FakeLocator, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> Minga:
    """The command on a machine with a daemon of the same network."""
    _scrub(monkeypatch)
    daemon.locator = locator.url
    return Minga(capsys, ["--locator", locator.url, "--control", str(daemon.socket)])


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """--debug changes the process's logging; each test gets it as it was."""
    logger = logging.getLogger()
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def _scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    for name in ("MINGA_LOCATOR", "MINGA_CONTROL", "MINGA_SHARE_DIR"):
        monkeypatch.delenv(name, raising=False)
