"""Temporary folders of local networks."""

import multiprocessing
import os
import signal
import tempfile
from pathlib import Path
from typing import Any

import pytest

from minga_cli.localfolders import LocalFolders


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def make_and_die() -> None:
    """As a network that is killed."""
    LocalFolders.make(None)
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_folder_of_a_network_that_was_killed_is_removed_by_the_next(temp: Path) -> None:
    """The field: folders of `minga up` stayed behind after kill -9."""
    child = multiprocessing.get_context("fork").Process(target=make_and_die)
    child.start()
    child.join()
    (left,) = temp.iterdir()
    folders = LocalFolders.make(None)
    assert list(temp.iterdir()) == [folders.run]
    assert folders.run != left
    folders.remove()
    assert not list(temp.iterdir())


def die_while_removing() -> None:
    """As a network whose end takes too long: killed when it removes the last of the files that were shared."""
    folders = LocalFolders.make(None)
    shared = [folders.run / f"peer-{number}" / "file" for number in range(20)]
    for path in shared:
        path.parent.mkdir()
        path.touch()
    unlink, calls = os.unlink, []

    def counted(path: Any, **options: Any) -> None:
        calls.extend(["file"] if os.fspath(path).endswith("file") else [])
        if len(calls) == len(shared):
            os.kill(os.getpid(), signal.SIGKILL)
        unlink(path, **options)

    os.unlink = counted
    folders.remove()


def test_what_a_network_could_not_remove_is_removed_by_the_next(temp: Path) -> None:
    child = multiprocessing.get_context("fork").Process(target=die_while_removing)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert list(temp.rglob("file"))
    LocalFolders.make(None).remove()
    assert not list(temp.iterdir())


def test_folders_of_other_networks_and_other_folders_are_left_alone(temp: Path) -> None:
    """One that lives, one that is just being made, a link to a folder of somebody, and the control socket's."""
    living = LocalFolders.make(temp / "mine")
    (temp / "minga-up-new").mkdir()
    (temp / "data").mkdir()
    (temp / "data" / "lock").touch()
    (temp / "minga-up-link").symlink_to("data")
    (temp / f"minga-{os.getuid()}").mkdir()
    before = set(temp.rglob("*"))
    LocalFolders.make(temp / "mine").remove()
    assert set(temp.rglob("*")) == before
    living.remove()
