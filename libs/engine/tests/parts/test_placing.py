"""Small files put in place many at a time: what is on the disk when, and what one that fails does to the others."""

import errno
import os
from pathlib import Path

import pytest

from libs.engine.tests.parts.support import manifest_of
from minga_core.names import Name
from minga_engine.parts import placing
from minga_engine.parts.files import open_folder, sync_file_systems
from minga_engine.parts.placing import SmallContent, SmallFile, place_all


def placed_at(path: Path) -> tuple[Path, str, SmallFile]:
    """A file whose bytes are its name."""
    data = path.name.encode()
    content = SmallContent.of(data, manifest_of(data).content_id)
    return path.parent, path.name, SmallFile(Name(path.name), content, published_ns=5)


def test_small_files_are_there_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes of all are synced before the first has its name, and all names afterwards: two syncs for any number."""
    paths = [tmp_path / f"{number % 3}" / f"{number}" for number in range(50)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    named_when_synced: list[int] = []

    def sync(folders: set[int]) -> None:
        assert len(folders) == 3
        named_when_synced.append(sum(path.exists() for path in paths))

    monkeypatch.setattr(placing, "sync_file_systems", sync)
    assert None not in place_all([placed_at(path) for path in paths], open_folder)
    assert named_when_synced == [0, 50]
    assert all(path.read_text() == path.name for path in paths)


def test_no_more_files_are_open_than_a_part_of_what_the_process_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of them, in their order, once those have their names: a program may need its descriptors itself."""
    monkeypatch.setattr(placing, "MAX_OPEN", 4)
    (tmp_path / "5").write_text("taken")
    before, open_when_synced = len(os.listdir("/proc/self/fd")), []
    monkeypatch.setattr(
        placing, "sync_file_systems", lambda folders: open_when_synced.append(len(os.listdir("/proc/self/fd")) - before)
    )
    found = place_all([placed_at(tmp_path / f"{number}") for number in range(10)], open_folder)
    assert [fingerprint is not None for fingerprint in found] == [number != 5 for number in range(10)]
    # Four files and their folder, twice each.
    assert open_when_synced == [5, 5, 5, 5, 3, 3]
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_without_a_name_are_where_the_caller_says(tmp_path: Path) -> None:
    """They are linked from there; a folder of another file system has none of them, and takes no file."""
    parts = tmp_path / "parts"
    parts.mkdir()
    with open_folder(parts) as nameless:
        assert None not in place_all([placed_at(tmp_path / "a")], open_folder, nameless)
    assert (tmp_path / "a").read_text() == "a"
    with open_folder(Path("/dev/shm")) as nameless:
        if os.fstat(nameless).st_dev != tmp_path.stat().st_dev:
            assert place_all([placed_at(tmp_path / "b")], open_folder, nameless) == [None]
    assert not (tmp_path / "b").exists()


def test_of_bytes_that_a_disk_does_not_write_no_file_gets_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that fails says so, once for all of them."""

    def refuse(folders: set[int]) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(placing, "sync_file_systems", refuse)
    with pytest.raises(OSError, match="input/output"):
        place_all([placed_at(tmp_path / "a")], open_folder)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_placed_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder is missing, its name is taken, or the disk is full for it; no descriptor stays open."""
    (tmp_path / "taken").write_text("mine")
    write = placing.write_at

    def fill_up(descriptor: int, data: bytes, offset: int) -> None:
        if data == b"full":
            raise OSError(errno.ENOSPC, "no space left on device")
        write(descriptor, data, offset)

    monkeypatch.setattr(placing, "write_at", fill_up)
    before = os.listdir("/proc/self/fd")
    paths = [tmp_path / "taken", tmp_path / "missing/x", tmp_path / "full", tmp_path / "good"]
    found = place_all([placed_at(path) for path in paths], open_folder)
    assert [fingerprint is not None for fingerprint in found] == [False, False, False, True]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"taken": "mine", "good": "good"}
    assert os.listdir("/proc/self/fd") == before


def test_a_sync_that_the_kernel_refuses_is_an_error(tmp_path: Path) -> None:
    """It is not taken for one that went well: syncfs(2) is called by way of C, which reports by errno."""
    with open_folder(tmp_path) as folder:
        sync_file_systems([folder, folder])
    path_only = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            sync_file_systems([path_only])
    finally:
        os.close(path_only)
