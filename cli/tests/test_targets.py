"""Which path a file goes to, and that it cannot leave the folder."""

from pathlib import Path

import pytest

from minga import parse_name
from minga.errors import InvalidArgumentError
from minga_cli.targets import Layout, Wanted, refuse_collisions


def target(text: str, output: str | None, name: str | None = None, *, several: bool = False) -> str | None:
    """Where `name`, wanted as `text`, goes."""
    wanted = Wanted.parse(text)
    layout = Layout(output, into_share=False, several=several)
    found = layout.item(wanted, parse_name(name or text)).target
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
    assert Layout(None, into_share=True, several=False).item(wanted, name).target is None
    assert Layout("x", into_share=True, several=False).item(wanted, name).target == Path("x")


def test_two_files_of_one_path_are_refused() -> None:
    """Before either overwrites the other."""
    layout = Layout("o/", into_share=False, several=True)
    items = [layout.item(Wanted.parse(name), parse_name(name)) for name in ("x/a", "y/a")]
    with pytest.raises(InvalidArgumentError, match="would both go to o/a"):
        refuse_collisions(items)
    refuse_collisions(items[:1] * 2)
