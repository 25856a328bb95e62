"""What a shell offers for a NAME: typed into real shells, where they are."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from minga_cli.completion import step_by_folder
from minga_cli.shell_completion import Typed, parse_line
from tests.support.terminal import Terminal

from .conftest import FakeLocator

NAMES = ("data/a:b.txt", "data/a@b", "data/with  space", "data/$x", "data/ümlaut", "data/sub/one", "other")
TYPED = {
    "minga cp minga:da": ["cp", "minga:data/X"],
    "minga cp minga:data/a:": ["cp", "minga:data/a:b.txt", "X"],
    "minga get data/w": ["get", "data/with  space", "X"],
    "minga get 'data/$": ["get", "data/$x", "X"],
    "minga get data/üm": ["get", "data/ümlaut", "X"],
    "minga get --limi": ["get", "--limit-down", "X"],
}
"""What a command gets after a tab and an X."""
COMMAND = f"""#!{sys.executable}
import os, sys
if "_MINGA_COMPLETE" in os.environ:
    from minga_cli import completion
    from minga_cli.__main__ import main
    # Other tests keep the processor busy.
    completion.LIMIT_SECONDS = 20.0
    main()
print("got", sys.argv[1:])
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `minga` that prints its arguments."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "minga").write_text(COMMAND)
    (folder / "minga").chmod(0o755)
    return folder


@pytest.fixture
def environment(locator: FakeLocator, command: Path, tmp_path: Path) -> dict[str, str]:
    """Of a shell: nothing of this user's, and a locator with NAMES."""
    for name in NAMES:
        locator.share(name)
    locale = {"LC_ALL": "C.UTF-8", "TERM": "dumb", "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    path = f"{command}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "MINGA_LOCATOR": locator.url, "PS1": "$ ", "INPUTRC": "/dev/null", **locale}


@pytest.fixture
def shell(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[Terminal]:
    """An interactive shell that completes `minga`, on a terminal."""
    name, *options = request.param
    if shutil.which(name) is None:
        pytest.skip(f"no {name}")
    with closing(Terminal([name, *options, "-i"], environment)) as terminal:
        begin = "" if name == "bash" else "PS1='$ '; autoload -Uz compinit; compinit -D -u; "
        terminal.type(f'{begin}eval "$(_MINGA_COMPLETE=source_{name} minga)"; echo rea""dy\n')
        terminal.shows("ready")
        yield terminal


@pytest.mark.parametrize(
    "shell", [("bash", "--norc", "--noprofile"), ("zsh", "-f")], indirect=True, ids=("bash", "zsh")
)
def test_a_shell_completes_names(shell: Terminal) -> None:
    """Also behind a colon, with what the shell must not see quoted, and with no space behind a folder."""
    for typed, arguments in TYPED.items():
        shell.type(typed, "\tX\n")
        shell.shows(f"got {arguments}")


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish_completes_names(environment: dict[str, str]) -> None:
    """By what it would offer: its own editor needs a terminal that answers. Its condition is an exit code."""
    asked = "complete -C 'minga cp minga:data/a'; complete -C 'minga get z'"
    script = f"_MINGA_COMPLETE=source_fish minga | source; {asked}"
    ended = subprocess.run(["fish", "--no-config", "-c", script], env=environment, capture_output=True, text=True)
    assert ended.stdout.splitlines() == ["minga:data/a:b.txt", "minga:data/a@b"]


@pytest.mark.parametrize(
    ("line", "typed"),
    [
        ("minga get ", Typed(["minga", "get", ""], 0, "")),
        ("minga cp minga:d", Typed(["minga", "cp", "minga:d"], 6, "")),
        (r"minga get a\ b\:c", Typed(["minga", "get", "a b:c"], 0, "")),
        ("minga get a:b c", Typed(["minga", "get", "a:b", "c"], 0, "")),
        ("minga get 'a:b c", Typed(["minga", "get", "a:b c"], 0, "'")),
        ("""minga get x"a'b""", Typed(["minga", "get", "xa'b"], 1, '"')),
        ("minga get 'a\\", Typed(["minga", "get", "a\\"], 0, "'")),
        ("minga get ''", Typed(["minga", "get", ""], 0, "")),
    ],
)
def test_a_line_is_parted_as_bash_does(line: str, typed: Typed) -> None:
    """Quotes and escapes, open ones too; `:` and the like part what is replaced, unless they are quoted."""
    assert parse_line(line, "\"'@><=;|&(:") == typed


def completed(command: Path, incomplete: str, locator_url: str) -> "subprocess.CompletedProcess[str]":
    """What bash gets for `minga get <incomplete><TAB>`."""
    environment = os.environ | {
        "_MINGA_COMPLETE": "complete_bash",
        "COMP_LINE": f"minga --locator {locator_url} get {incomplete}",
        "COMP_WORDBREAKS": ":",
    }
    return subprocess.run(
        [str(command / "minga")],
        env=environment, capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip


def test_names_come_a_folder_at_a_time() -> None:
    """A folder of a thousand files is one offer."""
    names = ["data/a/1", "data/a/2", "data/b", "dates"]
    assert step_by_folder(names, "da") == ["data/", "dates"]
    assert step_by_folder(names[:3], "data/") == ["data/a/", "data/b"]


def test_bash_is_offered_names_of_the_catalogue(command: Path, locator: FakeLocator) -> None:
    """Asked of the locator that the command line names."""
    locator.share("data/x")
    locator.share("date.txt")
    locator.share("other")
    found = completed(command, "dat", locator.url)
    assert sorted(found.stdout.split()) == ["data/", "date.txt"]


def test_without_a_locator_nothing_is_offered_or_said(command: Path) -> None:
    """A shell that prints errors while one types is worse than none."""
    found = completed(command, "dat", "http://127.0.0.1:1")
    assert (found.stdout.strip(), found.stderr) == ("", "")
