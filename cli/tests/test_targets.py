"""Which path a file goes to, and that it cannot leave the folder."""

from pathlib import Path

import pytest

from minga_cli.targets import FetchItem, Layout, Wanted, make_room, refuse_collisions
from minga_core.errors import InvalidArgumentError, StorageError
from minga_core.names import parse_name


def target(text: str, output: str | None, name: str | None = None, *, several: bool = False) -> str | None:
    """Where `name`, wanted as `text`, goes."""
    wanted = Wanted.parse(text)
    layout = Layout(output, into_share=False, several=several)
    found = layout.item(wanted, parse_name(name or text), 0).target
    return str(found) if found else None


@pytest.mark.parametrize(
    ("text", "output", "name", "expected"),
    [
        ("d/a", None, None, "a"),
        ("d/a", "b", None, "b"),
        ("d/a", "new/", None, "new/a"),
        ("d/a", "there", None, "there/a"),
        ("d/a", "there/b", None, "there/b"),
        ("d/e/", None, "d/e/f/g", "e/f/g"),
        ("d/e/", "new", "d/e/f/g", "new/f/g"),
        ("d/e/", "new/", "d/e/f/g", "new/e/f/g"),
        ("d/e/", "there", "d/e/f/g", "there/e/f/g"),
    ],
)
def test_paths_are_as_cp_would_make_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, output: str | None, name: str | None, expected: str
) -> None:
    """`there` is a folder that exists, `new` does not."""
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    assert target(text, output, name) == expected


def test_of_several_names_the_path_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files cannot become one."""
    monkeypatch.chdir(tmp_path)
    assert target("d/a", "new", several=True) == "new/a"


def test_into_the_shared_folder_there_is_no_target() -> None:
    """The daemon decides; with a PATH there is one all the same."""
    wanted, name = Wanted.parse("a"), parse_name("a")
    assert Layout(None, into_share=True, several=False).item(wanted, name, 0).target is None
    assert Layout("x", into_share=True, several=False).item(wanted, name, 0).target == Path("x")


def test_two_files_of_one_path_are_refused() -> None:
    """Before either overwrites the other."""
    layout = Layout("o/", into_share=False, several=True)
    items = [layout.item(Wanted.parse(name), parse_name(name), 0) for name in ("x/a", "y/a")]
    with pytest.raises(InvalidArgumentError, match="would both go to o/a"):
        refuse_collisions(items)
    refuse_collisions(items[:1] * 2)


def folder_item(base: Path, relative: str) -> FetchItem:
    """A file below a base."""
    return Layout(str(base), into_share=False, several=False).item(Wanted.parse("t/"), parse_name(f"t/{relative}"), 0)


def test_room_is_made_for_a_tree(tmp_path: Path) -> None:
    """Folders above the target appear."""
    item = folder_item(tmp_path / "new", "a/b/c")
    make_room(item)
    assert (tmp_path / "new/a/b").is_dir()


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    """A name from the network cannot write through a link that somebody left in the tree."""
    base, outside = tmp_path / "base", tmp_path / "outside"
    base.mkdir()
    outside.mkdir()
    (base / "a").symlink_to(outside)
    with pytest.raises(StorageError, match="leads out of"):
        make_room(FetchItem(parse_name("t/a/b/c"), 0, base, folder_item(tmp_path / "x", "a/b/c").relative))
    assert list(outside.iterdir()) == []


def test_a_link_that_stays_inside_is_fine(tmp_path: Path) -> None:
    """Links are not forbidden as such."""
    base = tmp_path / "base"
    (base / "real").mkdir(parents=True)
    (base / "a").symlink_to("real")
    make_room(FetchItem(parse_name("t/a/b/c"), 0, base, folder_item(tmp_path / "x", "a/b/c").relative))
    assert (base / "real/b").is_dir()


def test_a_folder_in_the_way_and_a_file_in_the_way_are_told(tmp_path: Path) -> None:
    """One line each, with what to do where something can be done."""
    (tmp_path / "base/a").mkdir(parents=True)
    (tmp_path / "base/f").write_text("")
    relative = folder_item(tmp_path / "x", "a").relative
    with pytest.raises(StorageError, match="is a folder") as caught:
        make_room(FetchItem(parse_name("t/a"), 0, tmp_path / "base", relative))
    assert "puts the file inside it" in caught.value.hint
    with pytest.raises(StorageError, match="cannot write"):
        make_room(FetchItem(parse_name("t/f/a"), 0, tmp_path / "base", folder_item(tmp_path / "x", "f/a").relative))
