"""The index of digests."""

import sqlite3
from pathlib import Path

import pytest

from minga_core.errors import StorageError
from minga_core.names import Name
from minga_engine.parts.files import Stamp
from minga_peer.share.index import Index, IndexedFile

from .conftest import manifest_of, noise

DATA = noise(300_000)
MANIFEST = manifest_of(DATA)
FILE = IndexedFile(Name("a/b"), "a/b", Stamp(300_000, 17, (1 << 64) - 1, 1 << 63), MANIFEST.content_id, 99)


def filled(path: Path) -> None:
    index = Index(path)
    assert index.open() == {}
    index.write([(FILE, MANIFEST)], ())
    index.close()


def test_what_was_written_is_known_after_opening_again(tmp_path: Path) -> None:
    """Files with all fields, also inodes above 2^63, and manifests."""
    filled(tmp_path / "index")
    index = Index(tmp_path / "index")
    assert index.open() == {FILE.name: FILE}
    assert index.manifest(FILE.content_id) == MANIFEST
    index.write((), [FILE.name])
    index.close()
    assert Index(tmp_path / "index").open() == {}


def test_manifests_of_no_file_are_forgotten_at_the_next_opening(tmp_path: Path) -> None:
    """The index does not grow with what was once there."""
    filled(tmp_path / "index")
    index = Index(tmp_path / "index")
    index.open()
    index.write((), [FILE.name])
    index.close()
    index.open()
    assert index.manifest(FILE.content_id) is None
    index.close()


@pytest.mark.parametrize("damage", ["noise", "truncated", "other schema", "newer version", "bad row"])
def test_a_damaged_index_is_set_aside_and_made_anew(tmp_path: Path, damage: str) -> None:
    """It is a cache: the files are hashed again, and the old one is kept for whoever wants to look."""
    path = tmp_path / "index"
    filled(path)
    if damage == "noise":
        path.write_bytes(noise(8192))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with sqlite3.connect(path) as database:
            database.execute(
                {
                    "other schema": "ALTER TABLE files RENAME COLUMN mtime TO changed",
                    "newer version": "PRAGMA user_version = 9",
                    "bad row": "UPDATE files SET content = x'00'",
                }[damage]
            )
        database.close()
    index = Index(path)
    assert index.open() == {}
    index.write([(FILE, MANIFEST)], ())
    assert index.manifest(FILE.content_id) == MANIFEST
    index.close()
    assert path.with_suffix(".broken").exists()


def test_a_disk_that_refuses_does_not_cost_the_index(tmp_path: Path) -> None:
    """What cannot be opened is not therefore damaged: nothing is set aside."""
    (tmp_path / "index").mkdir()
    with pytest.raises(StorageError, match="cannot open the index"):
        Index(tmp_path / "index").open()
    assert (tmp_path / "index").is_dir()


def test_a_manifest_that_does_not_prove_itself_is_not_given(tmp_path: Path) -> None:
    """A flipped bit in the index is never served."""
    filled(tmp_path / "index")
    with sqlite3.connect(tmp_path / "index") as database:
        database.execute("UPDATE manifests SET manifest = substr(manifest, 1, 40) || x'00' || substr(manifest, 42)")
    database.close()
    index = Index(tmp_path / "index")
    index.open()
    assert index.manifest(FILE.content_id) is None
    index.close()


def test_a_write_that_fails_is_not_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is shared all the same; it is hashed again after a restart."""
    index = Index(tmp_path / "index")
    index.open()

    def refuse(*arguments: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Index, "_put", refuse)
    index.write([(FILE, MANIFEST)], ())
    index.close()
