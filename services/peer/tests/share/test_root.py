"""The shared folder's paths stay inside of it."""

import os
import socket
import unicodedata
from pathlib import Path

import pytest

from minga_core.errors import NameTakenError
from minga_peer.share.conditions import Kind
from minga_peer.share.root import Root

NFC, NFD = unicodedata.normalize("NFC", "é🎉.bin"), unicodedata.normalize("NFD", "é🎉.bin")


@pytest.fixture
def root(tmp_path: Path) -> Root:
    path = tmp_path / "root"
    path.mkdir()
    return Root(path)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"secret")
    return path


def part_of(tmp_path: Path, data: bytes = b"new") -> Path:
    path = tmp_path / "part"
    path.write_bytes(data)
    return path


def test_regular_files_are_found_with_their_names(root: Root) -> None:
    """Folders are walked; our own state is not there."""
    for path in ("a", "b/c/d", ".hidden/e", ".minga/index.sqlite", "b/.minga-parts/x.data"):
        (root.path / path).parent.mkdir(parents=True, exist_ok=True)
        (root.path / path).write_bytes(b"x")
    assert set(root.scan().files) == {"a", "b/c/d", ".hidden/e"}
    assert set(root.scan("b").files) == {"b/c/d"}


def test_links_pipes_and_sockets_are_told_and_not_shared(root: Root, outside: Path) -> None:
    """Neither a link to a file or folder nor a special file is followed, opened or read."""
    (root.path / "link").symlink_to(outside / "secret")
    (root.path / "folder").symlink_to(outside)
    (root.path / "loop").symlink_to(root.path)
    os.mkfifo(root.path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root.path / "socket"))
        scan = root.scan()
    assert scan.files == {}
    lines = scan.problems[Kind.NOT_A_FILE].lines
    assert lines["link"] == "link is a symbolic link, not a regular file"
    assert lines["pipe"] == "pipe is a pipe, not a regular file"
    assert lines["socket"] == "socket is a socket, not a regular file"
    assert set(lines) == {"link", "folder", "loop", "pipe", "socket"}
    paths = ("link", "folder/secret", "pipe", "socket")
    assert root.look(paths) == dict.fromkeys(paths)


def test_a_folder_that_is_swapped_for_a_link_is_refused_by_every_operation(
    root: Root, outside: Path, tmp_path: Path
) -> None:
    """Nothing outside is read, made, replaced or deleted through a link that has taken a folder's place."""
    (root.path / "a").symlink_to(outside)
    part = part_of(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        root.open("a/secret")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        root.place(part, "a/new", overwrite=True)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        root.place(part, "a/b/new", overwrite=False)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        root.remove("a/secret")
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        root.check_place("a/new", part.stat().st_dev)
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert root.scan("a").files == {}


def test_a_link_in_the_place_of_a_file_is_neither_replaced_nor_followed(
    root: Root, outside: Path, tmp_path: Path
) -> None:
    """Overwriting is for files: a link is its owner's, whatever it points to."""
    (root.path / "name").symlink_to(outside / "secret")
    with pytest.raises(NameTakenError):
        root.place(part_of(tmp_path), "name", overwrite=False)
    with pytest.raises(OSError, match="a symbolic link is there"):
        root.place(part_of(tmp_path), "name", overwrite=True)
    assert (root.path / "name").is_symlink()
    assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("entry", [b"\xff\xfe", b"a\nb", b"a\x1b[31mb", b"bell\x07"])
def test_names_that_are_no_text_are_told_in_one_printable_line(root: Root, entry: bytes) -> None:
    """Bytes that are not UTF-8, line breaks and terminal codes are problems, and cannot break the line that says so."""
    (root.path / os.fsdecode(entry)).write_bytes(b"x")
    scan = root.scan()
    assert scan.files == {}
    (line,) = scan.problems[Kind.BAD_NAME].lines.values()
    assert line.isprintable()
    line.encode()


@pytest.mark.parametrize("first", [NFC, NFD])
def test_of_two_spellings_of_one_name_the_normal_one_is_shared(root: Root, first: str) -> None:
    """Whichever came first, the file whose name is NFC on disk wins; the other is a problem."""
    for spelling in (first, NFD if first == NFC else NFC):
        (root.path / spelling).write_bytes(spelling.encode())
    scan = root.scan()
    assert {name: found.path for name, found in scan.files.items()} == {NFC: NFC}
    ((path, line),) = scan.problems[Kind.BAD_NAME].lines.items()
    assert path == NFD
    assert "another Unicode form" in line


def test_a_file_whose_name_is_decomposed_on_disk_is_found_under_its_normal_name(root: Root) -> None:
    """The path keeps the disk's bytes."""
    (root.path / NFD).write_bytes(b"x")
    (found,) = root.scan().files.values()
    assert (found.name, found.path) == (NFC, NFD)
    assert root.look([found.path]) == {found.path: found.fingerprint}


def test_a_folder_that_cannot_be_read_is_told_and_the_rest_is_found(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root reads everything, so the refusal is simulated where folders are opened."""
    (root.path / "closed").mkdir()
    (root.path / "open").mkdir()
    (root.path / "open/a").write_bytes(b"x")
    real = os.open

    def refuse(path: str, *arguments: object, **options: object) -> int:
        if path == "closed":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    scan = root.scan()
    assert set(scan.files) == {"open/a"}
    assert scan.problems[Kind.UNREADABLE].lines == {"closed": "closed cannot be read: permission denied"}


def test_placing_makes_folders_and_never_replaces_unasked(root: Root, tmp_path: Path) -> None:
    """The part is still there after a refusal, and gone after success."""
    part = part_of(tmp_path, b"one")
    root.place(part, "a/b/c", overwrite=False)
    assert not part.exists()
    part = part_of(tmp_path, b"two")
    with pytest.raises(NameTakenError):
        root.place(part, "a/b/c", overwrite=False)
    assert (part.read_bytes(), (root.path / "a/b/c").read_bytes()) == (b"two", b"one")
    root.place(part, "a/b/c", overwrite=True)
    assert (root.path / "a/b/c").read_bytes() == b"two"
    assert (root.path / "a/b/c").stat().st_nlink == 1


def test_placing_never_replaces_where_there_are_no_hard_links(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without link(2) the name is claimed first."""

    def no_links(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    root.place(part_of(tmp_path, b"one"), "a", overwrite=False)
    with pytest.raises(NameTakenError):
        root.place(part_of(tmp_path, b"two"), "a", overwrite=False)
    assert (root.path / "a").read_bytes() == b"one"


def test_removing_prunes_the_folders_that_it_empties(root: Root) -> None:
    """Up to the root, and not those that have something else."""
    for path in ("a/b/c/d", "a/e"):
        (root.path / path).parent.mkdir(parents=True, exist_ok=True)
        (root.path / path).write_bytes(b"x")
    root.remove("a/b/c/d")
    assert sorted(path.name for path in (root.path / "a").iterdir()) == ["e"]
    root.remove("a/e")
    assert list(root.path.iterdir()) == []


def test_what_was_removed_stays_removed_after_a_power_cut(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the file, and each from which an empty folder went, is synced."""
    (root.path / "a/b").mkdir(parents=True)
    (root.path / "a/b/c").write_bytes(b"x")
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    root.remove("a/b/c")
    assert synced == [str(root.path / "a/b"), str(root.path / "a"), str(root.path)]


def test_another_file_system_below_the_root_is_refused_before_anything_is_fetched(root: Root) -> None:
    """A file cannot be moved there in one step."""
    with pytest.raises(OSError, match="another file system"):
        root.check_place("a/b", root.path.stat().st_dev + 1)
    root.check_place("a/b", root.path.stat().st_dev)
