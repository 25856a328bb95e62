"""The secret that makes a peer the same one after a restart."""

import errno
import os
import stat
from pathlib import Path

import pytest

from minga_core.errors import NoSpaceError, StorageError
from minga_peer.daemon.lease_token import lease_token


def test_it_is_the_same_at_each_start_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Two peers have different ones."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    token = lease_token(tmp_path / "a")
    assert len(token) == 16
    assert lease_token(tmp_path / "a") == token
    assert lease_token(tmp_path / "b") != token
    (path,) = (tmp_path / "a").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("size_bytes", [0, 15, 17])
def test_one_of_another_length_is_replaced(tmp_path: Path, size_bytes: int, caplog: pytest.LogCaptureFixture) -> None:
    """As if it was lost; what a crash has left of another attempt is no obstacle. The log has no token."""
    (path,) = (lease_token(tmp_path), *tmp_path.iterdir())[1:]
    path.write_bytes(bytes(size_bytes))
    path.with_name(path.name + ".new").write_bytes(b"half")
    token = lease_token(tmp_path)
    assert token == lease_token(tmp_path)
    assert len(token) == 16
    assert [record.message for record in caplog.records] == ["lease_token_replaced"]
    assert token.hex() not in caplog.text


def test_one_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """The peer does not start: with a new one at each start it would wait for its own lease."""
    (tmp_path / "lease-token").mkdir()
    with pytest.raises(StorageError, match="cannot keep the lease token"):
        lease_token(tmp_path)


def test_one_that_cannot_be_kept_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, on a full disk."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpaceError, match="cannot keep the lease token"):
        lease_token(tmp_path)
    assert not (tmp_path / "lease-token").exists()
