"""`minga rm`."""

import io

import pytest

from minga_core.errors import FileNotFoundInDirectoryError

from .conftest import FakeDaemon, Minga


def test_rm_removes_from_the_local_peer(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """--yes does not ask."""
    (daemon.share_dir / "a").write_text("")
    ended = minga_with_daemon("rm", "a", "--yes")
    assert (ended.code, ended.out) == (0, "a is removed from this machine\n")
    assert not (daemon.share_dir / "a").exists()


def test_rm_does_not_delete_when_nobody_can_answer(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """A script without --yes deletes nothing."""
    (daemon.share_dir / "a").write_text("")
    ended = minga_with_daemon("rm", "a")
    assert ended.code == 2
    assert (daemon.share_dir / "a").exists()


@pytest.mark.parametrize(("answer", "stays"), [("y\n", False), ("n\n", True), ("\n", True)])
def test_rm_asks(
    minga_with_daemon: Minga, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, answer: str, stays: bool
) -> None:
    """Only a yes deletes."""
    stdin = io.StringIO(answer)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    (daemon.share_dir / "a").write_text("")
    assert minga_with_daemon("rm", "a").code == 0
    assert (daemon.share_dir / "a").exists() is stays


def test_rm_shows_no_bidi_override_in_its_question(minga_with_daemon: Minga, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault of the field: the question named another file than the one to be deleted."""
    stdin = io.StringIO("n\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    assert "Delete a\ufffdgpj.exe from" in minga_with_daemon("rm", "a\u202egpj.exe").err


def test_rm_of_what_is_not_there_is_3(minga_with_daemon: Minga, daemon: FakeDaemon) -> None:
    """The daemon's own words."""
    daemon.errors["a"] = FileNotFoundInDirectoryError("a is not in the shared folder")
    ended = minga_with_daemon("rm", "a", "--yes")
    assert (ended.code, ended.err) == (3, "minga: a is not in the shared folder\n")


def test_rm_without_a_daemon_is_5(minga: Minga) -> None:
    """There is nobody to remove it."""
    ended = minga("rm", "a", "--yes")
    assert ended.code == 5
    assert ended.err.startswith("minga: no peer daemon answers at ")
