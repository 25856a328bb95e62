"""What makes a peer the same one after a restart."""

import errno
import os
import stat
from pathlib import Path

import pytest

from minga_core.ids import new_generation, parse_peer_id
from minga_core.records import Lease
from minga_peer.daemon.lease_file import new_lease

NOW_SECONDS = 1_700_000_000.0
HOUR_SECONDS = 3600.0


def started(state_dir: Path, now_seconds: float = NOW_SECONDS) -> Lease:
    """The lease of a start at that time, which is kept."""
    lease, problem = new_lease(state_dir, parse_peer_id("p"), now_seconds)
    assert not problem
    return lease


def test_the_token_is_the_same_at_each_start_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Two peers have different ones."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    token = started(tmp_path / "a").token
    assert len(token) == 16
    assert started(tmp_path / "a").token == token
    assert started(tmp_path / "b").token != token
    (path,) = (tmp_path / "a").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_later_start_has_a_greater_generation_also_when_the_clock_was_put_back(tmp_path: Path) -> None:
    """Else its own lease of before would be a later peer's, and end it. A clock that was wrong by years is no measure:
    no registry has believed it."""
    times = [NOW_SECONDS, NOW_SECONDS - HOUR_SECONDS, NOW_SECONDS - 23 * HOUR_SECONDS, NOW_SECONDS + HOUR_SECONDS]
    generations = [started(tmp_path, at).generation for at in times]
    assert generations == sorted(set(generations))
    started(tmp_path, NOW_SECONDS * 2)
    assert started(tmp_path).generation < new_generation(NOW_SECONDS + 1)


@pytest.mark.parametrize("size_bytes", [0, 16, 25])
def test_a_file_of_another_length_is_replaced(
    tmp_path: Path, size_bytes: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As if it was lost; what a crash has left of another attempt is no obstacle. The log has no token."""
    started(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(bytes(size_bytes))
    path.with_name(path.name + ".new").write_bytes(b"half")
    token = started(tmp_path).token
    assert token == started(tmp_path).token
    assert len(token) == 16
    assert [record.message for record in caplog.records] == ["lease_token_replaced"]
    assert token.hex() not in caplog.text


def test_a_token_that_cannot_be_read_is_not_replaced(tmp_path: Path) -> None:
    """The peer starts with another one, for this time."""
    (tmp_path / "lease").mkdir()
    lease, problem = new_lease(tmp_path, parse_peer_id("p"), NOW_SECONDS)
    assert problem.startswith("cannot read the lease token")
    assert len(lease.token) == 16
    assert [path.name for path in tmp_path.iterdir()] == ["lease"]


def test_on_a_full_disk_a_token_is_not_kept_and_one_from_before_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk keeps no peer from starting."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        lease, problem = new_lease(tmp_path, parse_peer_id("p"), NOW_SECONDS)
        assert problem.startswith("cannot keep the lease token")
        assert len(lease.token) == 16
        assert not (tmp_path / "lease").exists()
    token = started(tmp_path).token
    monkeypatch.setattr(os, "fsync", full)
    assert new_lease(tmp_path, parse_peer_id("p"), NOW_SECONDS)[0].token == token
