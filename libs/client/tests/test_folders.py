"""The folders above a target, which names from the network must not leave."""

import os
from pathlib import Path, PurePosixPath

import pytest

from minga import FetchItem, parse_name
from minga.errors import StorageError
from minga.fetching import make_folders


def item(base: Path, relative: str) -> FetchItem:
    """A file below a base."""
    return FetchItem(parse_name(f"t/{relative}"), 0, base, PurePosixPath(relative))


def test_the_folders_of_a_tree_are_made(tmp_path: Path) -> None:
    """Above the target, and the base too."""
    make_folders(item(tmp_path / "new", "a/b/c"))
    assert (tmp_path / "new/a/b").is_dir()


def test_new_folders_are_there_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else so would the file not be. Folders that were there cost nothing."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    make_folders(item(tmp_path / "new", "a/b"))
    make_folders(item(tmp_path / "new", "a/c"))
    assert synced == [str(tmp_path), str(tmp_path / "new")]


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    """A name from the network cannot write through a link that somebody left in the tree; one that stays inside can."""
    base, outside = tmp_path / "base", tmp_path / "outside"
    (base / "real").mkdir(parents=True)
    outside.mkdir()
    (base / "a").symlink_to(outside)
    (base / "inside").symlink_to("real")
    with pytest.raises(StorageError, match="leads out of"):
        make_folders(item(base, "a/b/c"))
    assert list(outside.iterdir()) == []
    make_folders(item(base, "inside/b/c"))
    assert (base / "real/b").is_dir()


def test_a_folder_or_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    """With what to do where something can be done."""
    (tmp_path / "a").mkdir()
    (tmp_path / "f").write_text("")
    with pytest.raises(StorageError, match="is a folder") as caught:
        make_folders(item(tmp_path, "a"))
    assert "puts the file inside it" in caught.value.hint
    with pytest.raises(StorageError, match="cannot write"):
        make_folders(item(tmp_path, "f/a"))


def test_a_device_or_a_dangling_link_is_no_target(tmp_path: Path) -> None:
    """Fault C8: also without a daemon, and before anything is fetched; a link to a file is a file."""
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    for name in ("null", "gone"):
        with pytest.raises(StorageError, match="not replaced"):
            make_folders(item(tmp_path, name))
    make_folders(item(tmp_path, "link"))
