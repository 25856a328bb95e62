"""`minga shell`: the menu, with answers from a script."""

from pathlib import Path

import pytest

from minga import ClientSettings
from minga_cli.menu import menu

from .conftest import FakeDaemon, FakeLocator, Minga


class Script:
    """Answers in order; None is Ctrl-C."""

    def __init__(self, *answers: str | None) -> None:
        self.answers = list(answers)
        self.offered: list[str] = []

    async def choose(self, question: str, choices: list[str]) -> str | None:
        answer = self.answers.pop(0)
        assert answer is None or answer in choices
        return answer

    async def name(self, question: str, known: list[str]) -> str | None:
        self.offered = known
        return self.answers.pop(0)

    async def path(self, question: str, default: str = "") -> str | None:
        return self.answers.pop(0)


@pytest.fixture
def settings(locator: FakeLocator, daemon: FakeDaemon) -> ClientSettings:
    """A machine with a daemon."""
    daemon.locator = locator.url
    return ClientSettings(locator=locator.url, control=daemon.socket)


async def test_download_offers_names_and_fetches(
    settings: ClientSettings, locator: FakeLocator, daemon: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into the shared folder when no path is given."""
    locator.share("a")
    daemon.contents = {"a": b"abc"}
    script = Script("Download", "a", "", "Close")
    await menu(settings, script)
    assert script.offered == ["a"]
    assert (daemon.share_dir / "a").read_bytes() == b"abc"
    assert capsys.readouterr().out.startswith("a: 3 B in ")


async def test_an_error_is_told_and_the_menu_comes_again(
    settings: ClientSettings, locator: FakeLocator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A shell does not end because one file is missing."""
    locator.share("a")
    await menu(settings, Script("Upload", "/nowhere/at/all", "List", "Close"))
    out, err = capsys.readouterr()
    assert err == "minga: cannot read /nowhere/at/all: no such file or directory\n"
    assert out.endswith("  a\n")


@pytest.mark.parametrize("answers", [["Close"], [None], ["Download", None, None], ["Upload", None, "Close"]])
async def test_not_answering_goes_back_and_closing_ends(
    settings: ClientSettings, locator: FakeLocator, answers: list[str | None]
) -> None:
    """Ctrl-C in a question is no answer; in the menu it closes."""
    locator.share("a")
    script = Script(*answers)
    await menu(settings, script)
    assert script.answers == []


def test_without_a_terminal_there_is_no_shell(minga: Minga, tmp_path: Path) -> None:
    """The error names the commands for scripts."""
    ended = minga("shell")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("minga: the shell needs a terminal (")
