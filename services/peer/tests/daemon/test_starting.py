"""What a daemon refuses before it starts."""

import asyncio
import os
import tempfile
import threading
from pathlib import Path

import pytest

from minga_core.errors import SettingsError, StorageError
from minga_engine.settings import default_control_socket
from minga_peer.daemon.main import running_daemon
from minga_peer.daemon.socket_file import claim_socket
from minga_peer.origins import upstream
from minga_peer.settings import PeerSettings
from minga_runtime.settings import load_settings


def test_a_share_that_is_not_utf8_is_refused() -> None:
    """Fault C20: the daemon died at the first look into its folder."""
    with pytest.raises(SettingsError, match="not valid UTF-8"):
        load_settings(PeerSettings, share_dir=Path("/srv/\udcff"))


def test_chunks_are_not_served_to_other_hosts_without_certificates(tmp_path: Path) -> None:
    """Their port is as open as the other one."""
    with pytest.raises(SettingsError, match=r"^MINGA_HTTP_LISTEN: .*MINGA_OPEN=1"):
        load_settings(PeerSettings, share_dir=tmp_path, listen="127.0.0.1:0", http_listen="192.0.2.1:0")


@pytest.mark.parametrize("setting", ["share_dir", "state_dir"])
def test_a_relative_folder_where_the_current_one_was_deleted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """Fault C20: `minga peer --share x` in a deleted folder was a traceback."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    here.rmdir()
    with pytest.raises(SettingsError, match=f"--{setting.replace('_', '-')}: x is relative, and the current folder"):
        load_settings(PeerSettings, **{"share_dir": tmp_path, "open": True, setting: Path("x")})


@pytest.mark.parametrize("kind", ["link", "open to others", "another user's"])
def test_a_control_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Fault C9: the user who made /tmp/minga-UID first could take the socket's place."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    socket = default_control_socket()
    claim_socket(socket)
    if kind == "link":
        socket.parent.rename(tmp_path / "theirs")
        socket.parent.symlink_to("theirs")
    elif kind == "open to others":
        socket.parent.chmod(0o750)
    else:
        uid = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
        socket.parent.rename(tmp_path / f"minga-{uid + 1}")
        socket = default_control_socket()
    with pytest.raises(StorageError, match="minga-"):
        claim_socket(socket)


@pytest.mark.parametrize("setting", ["fetch_allow", "images"])
async def test_who_fetches_for_others_is_ready_for_the_first_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """The HTTP client takes longer to make than all else that comes before a first byte."""
    made = threading.Event()
    monkeypatch.setattr(upstream, "_new_client", made.set)
    (tmp_path / "share").mkdir()
    settings = load_settings(
        PeerSettings,
        share_dir=tmp_path / "share",
        peer_id="p",
        listen="127.0.0.1:0",
        registry="127.0.0.1:1",
        locator="http://127.0.0.1:1",
        control=tmp_path / "control",
        **{setting: "http://127.0.0.1:1"},
    )
    async with running_daemon(settings):
        assert await asyncio.to_thread(made.wait, 30)
