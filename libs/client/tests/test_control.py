"""The daemon's client."""

import asyncio
import socket
import tempfile
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from minga.control import ControlClient
from minga_core.errors import DaemonUnavailableError, NameTakenError, StorageError
from minga_core.names import parse_name
from minga_engine.progress import DownloadPhase
from minga_engine.settings import default_control_socket
from tests.support.fake_daemon import FakeDaemon

A = parse_name("a")


async def test_a_stale_socket_is_no_daemon(short_dir: Path) -> None:
    """Left behind by a process that was killed: refused at once."""
    path = short_dir / "stale.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with ControlClient(path) as control:
        assert not await control.available()


async def test_no_socket_is_no_daemon(short_dir: Path) -> None:
    """Calls say how to start one."""
    async with ControlClient(short_dir / "none.sock") as control:
        assert not await control.available()
        with pytest.raises(DaemonUnavailableError) as caught:
            await control.status()
    assert "minga peer --share" in caught.value.hint


async def test_a_daemon_that_does_not_answer_counts_as_none_within_its_limit(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command does not hang on a daemon that hangs."""
    monkeypatch.setattr("minga.control.AVAILABLE_LIMIT", timedelta(seconds=0.5))
    daemon.deaf = True
    async with asyncio.timeout(5), ControlClient(daemon.socket) as control:
        assert not await control.available()


async def test_a_download_tells_its_progress(daemon: FakeDaemon) -> None:
    """From the first chunk to the path."""
    daemon.contents = {"a": b"1234"}
    async with ControlClient(daemon.socket) as control, aclosing(control.download(A)) as steps:
        seen = [step async for step in steps]
    assert [step.phase for step in seen] == [DownloadPhase.FETCHING, DownloadPhase.DONE]
    assert seen[0].held_bytes == 2
    assert seen[1].path == daemon.share_dir / "a"


async def test_closing_a_download_cancels_it(daemon: FakeDaemon) -> None:
    """The daemon learns that its client has gone."""
    daemon.contents, daemon.hang = {"a": b"1234"}, True
    async with ControlClient(daemon.socket) as control:
        async with aclosing(control.download(A)) as steps:
            assert (await anext(steps)).phase is DownloadPhase.FETCHING
        assert await asyncio.to_thread(daemon.cancelled.wait, 5)


async def test_the_daemons_errors_come_as_ours(daemon: FakeDaemon) -> None:
    """With their hint."""
    daemon.errors["a"] = NameTakenError("taken", hint="--overwrite replaces it")
    async with ControlClient(daemon.socket) as control:
        with pytest.raises(NameTakenError, match="taken") as caught:
            await control.remove(A)
    assert caught.value.hint == "--overwrite replaces it"


async def test_a_socket_in_a_folder_of_others_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault C9: `get -o` delivered what another user's "daemon" named."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = default_control_socket()
    path.parent.symlink_to(tmp_path)
    for ask in (ControlClient(path).available, ControlClient(path).status):
        with pytest.raises(StorageError, match="is a link"):
            await ask()
