"""`minga put`, and which files and names it makes of its arguments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minga import ContentId, PutPhase, PutProgress, PutResult, parse_peer_id
from minga.errors import InvalidArgumentError, InvalidNameError, NameTakenError, NoSpaceError
from minga_cli.put import expand

from .conftest import Minga


class FakeEngine:
    """Stands for the engine of a client without a daemon."""

    asked: list[tuple[str, int, bool]]

    def __init__(self, locator: Any, settings: Any, credentials: None, grant: None) -> None:
        """Takes what the real one takes."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def put(
        self, path: Path, name: Any, replicas: int, on_progress: Callable[[PutProgress], None], *, overwrite: bool
    ) -> PutResult:
        self.asked.append((name, replicas, overwrite))
        if name.endswith("taken"):
            raise NameTakenError(f"everybody has another {name}", hint="--overwrite replaces it")
        if name.endswith("huge"):
            raise NoSpaceError("no peer has room")
        for phase in PutPhase:
            on_progress(PutProgress(phase, 10, 5, 1, 2))
        peers = (parse_peer_id("peer-2"), parse_peer_id("peer-1"))
        failed = {parse_peer_id("peer-3"): "no space"} if name.endswith("partly") else {}
        return PutResult(name, ContentId(bytes(32)), 10, peers, name.endswith("there"), failed_peers=failed)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeEngine]:
    """No connections to peers; the command works in an empty folder."""
    FakeEngine.asked = []
    monkeypatch.setattr("minga.standalone.Engine", FakeEngine)
    monkeypatch.chdir(tmp_path)
    return FakeEngine


def names(files: list[str], as_name: str | None = None) -> list[str]:
    """The names that arguments lead to."""
    return [item.name for item in expand([Path(file) for file in files], as_name).items]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file, a folder, a link, and Minga's own state."""
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / ".minga").mkdir()
    for name in ("b", "a", "sub/c", ".minga/index"):
        (root / name).write_text(name)
    (root / "link").symlink_to("/etc/hostname")
    monkeypatch.chdir(tmp_path)
    return root


def test_a_folder_goes_up_under_its_name(tree: Path) -> None:
    """In order; without links and Minga's own state."""
    assert names(["data"]) == ["data/a", "data/b", "data/sub/c"]
    assert names(["./data/"]) == ["data/a", "data/b", "data/sub/c"]


def test_as_renames_and_a_slash_puts_below(tree: Path) -> None:
    """`--as NAME` is the name itself, `--as NAME/` a folder to put things in."""
    assert names(["data/a"], "x/y") == ["x/y"]
    assert names(["data/a"], "x/") == ["x/a"]
    assert names(["data"], "x") == ["x/a", "x/b", "x/sub/c"]
    assert names(["data/a", "data/b"], "x/") == ["x/a", "x/b"]


def test_the_current_folder_has_its_own_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` and `..` are no names."""
    monkeypatch.chdir(tree)
    assert names(["."])[0] == "data/a"
    monkeypatch.chdir(tree / "sub")
    assert names([".."])[0] == "data/a"


def test_what_cannot_be_uploaded_is_refused_before_anything_is(tree: Path) -> None:
    """Missing files, bad names, two files of one name, several files under one name."""
    with pytest.raises(InvalidArgumentError, match="cannot read nowhere: no such file"):
        names(["nowhere"])
    with pytest.raises(InvalidArgumentError, match="neither a file nor a folder"):
        names(["/dev/null"])
    with pytest.raises(InvalidNameError):
        names(["data/a"], "../up")
    with pytest.raises(InvalidArgumentError, match="would both be"):
        names(["data/a", "data/sub/../a"])
    with pytest.raises(InvalidArgumentError, match="several files"):
        names(["data/a", "data/b"], "x")


def test_put_says_who_holds_it(minga: Minga, engine: type[FakeEngine], tree: Path) -> None:
    """One line; replicas and overwrite reach the upload."""
    ended = minga("put", "data/a", "--replicas", "2", "--overwrite")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("a: 10 B in ")
    assert ended.out.endswith(", on peer-1, peer-2\n")
    assert engine.asked == [("a", 2, True)]


def test_put_of_what_is_there_says_so(minga: Minga, engine: type[FakeEngine], tree: Path) -> None:
    """Uploading again is no error."""
    assert minga("put", "data/a", "--as", "there").out == "there is there already, on peer-1, peer-2\n"


def test_put_names_the_peers_that_did_not_store_it(minga: Minga, engine: type[FakeEngine], tree: Path) -> None:
    """It is a success all the same: as many as were asked for have it."""
    ended = minga("put", "data/a", "--as", "partly")
    assert (ended.code, ended.err) == (0, "minga: partly is not on peer-3: no space\n")


def test_a_taken_name_is_4_with_what_to_do(minga: Minga, engine: type[FakeEngine], tree: Path) -> None:
    """One line."""
    ended = minga("put", "data/a", "--as", "taken")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err == ("minga: everybody has another taken (--overwrite replaces it)\n")


def test_of_many_files_each_failure_is_listed(minga: Minga, engine: type[FakeEngine], tree: Path) -> None:
    """The others go up; the first failure decides the exit code."""
    (tree / "huge").write_text("")
    (tree / "taken").write_text("")
    ended = minga("put", "data")
    assert ended.code == 6
    assert ended.out.startswith("3 files uploaded, 2 failed: 30 B in ")
    assert ended.err.splitlines() == [
        "minga: data/huge: no peer has room",
        "minga: data/taken: everybody has another data/taken",
    ]


def test_one_bad_name_stops_no_put(minga: Minga, engine: type[FakeEngine], tree: Path) -> None:
    """Fault of the field: a file that cannot have a name stopped the whole folder."""
    (tree / "bad\nname").write_text("")
    (tree / "bad\udcff").write_text("")
    ended = minga("put", "data")
    assert [name for name, _, _ in engine.asked] == ["data/a", "data/b", "data/sub/c"]
    assert (ended.code, ended.err.count("minga: not uploaded: ")) == (2, 2)


def test_parts_of_downloads_are_not_uploaded(tree: Path) -> None:
    """Fault C11: names below `.minga-parts` vanish at a peer's next start."""
    (tree / "sub/.minga-parts").mkdir()
    (tree / "sub/.minga-parts/x.data").write_text("")
    assert names(["data"]) == ["data/a", "data/b", "data/sub/c"]


def test_put_of_a_folder_leaves_out_what_it_ignores(minga: Minga, engine: type[FakeEngine], tree: Path) -> None:
    """Defaults and the folder's own rules; a folder counts once. The ignore file itself is not uploaded."""
    (tree / ".git/objects").mkdir(parents=True)
    for name in (".git/config", ".git/objects/x", ".env", "b.log", "sub/c.log"):
        (tree / name).write_text("")
    (tree / ".mingaignore").write_text("*.log\n!b.log\n[z-a]\n")
    ended = minga("put", "data")
    assert [name for name, _, _ in engine.asked] == ["data/a", "data/b", "data/b.log", "data/sub/c"]
    assert ended.err.splitlines() == [
        "minga: not uploaded: data/.mingaignore, line 3: this is no rule of gitignore",
        "minga: 3 ignored, by .mingaignore or by default",
    ]


def test_a_folder_whose_ignore_file_cannot_be_read_is_not_uploaded(
    minga: Minga, engine: type[FakeEngine], tree: Path
) -> None:
    """It may name secrets."""
    (tree / ".mingaignore").mkdir()
    ended = minga("put", "data")
    assert (ended.code, engine.asked) == (2, [])
    assert ended.err == "minga: cannot read data/.mingaignore: not a regular file\n"


def test_a_dash_is_a_stream_and_no_file(minga: Minga, engine: type[FakeEngine], tree: Path) -> None:
    """Fault of the field: `-o -` wrote a file `-`. A file of that name is `./-`."""
    Path("-").write_text("")
    ended = minga("put", "-")
    assert ended.code == 2
    assert ended.err.endswith("(a file of that name is ./-)\n")
    assert minga("put", "./-").code == 0


def test_an_empty_folder_is_2(minga: Minga, engine: type[FakeEngine], tmp_path: Path) -> None:
    """Nothing to upload is most likely a mistake."""
    (tmp_path / "empty").mkdir()
    ended = minga("put", "empty")
    assert (ended.code, ended.err) == (2, "minga: there is no file in there\n")
