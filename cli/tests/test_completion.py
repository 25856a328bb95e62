"""What a shell offers for a NAME."""

import os
import subprocess
import sys

from minga_cli.completion import step_by_folder

from .conftest import FakeLocator


def completed(incomplete: str, locator_url: str) -> "subprocess.CompletedProcess[str]":
    """What bash gets for `minga get <incomplete><TAB>`."""
    environment = os.environ | {
        "_MINGA_COMPLETE": "complete_bash",
        "COMP_WORDS": f"minga --locator {locator_url} get {incomplete}",
        "COMP_CWORD": "4",
    }
    return subprocess.run(
        [sys.executable, "-c", "from minga_cli.main import main; main()"],
        env=environment, capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip


def test_names_come_a_folder_at_a_time() -> None:
    """A folder of a thousand files is one offer."""
    names = ["data/a/1", "data/a/2", "data/b", "dates"]
    assert step_by_folder(names, "da") == ["data/", "dates"]
    assert step_by_folder(names[:3], "data/") == ["data/a/", "data/b"]


def test_bash_is_offered_names_of_the_catalogue(locator: FakeLocator) -> None:
    """Asked of the locator that the command line names."""
    locator.share("data/x")
    locator.share("date.txt")
    locator.share("other")
    found = completed("dat", locator.url)
    assert sorted(found.stdout.split()) == ["data/", "date.txt"]


def test_without_a_locator_nothing_is_offered_or_said() -> None:
    """A shell that prints errors while one types is worse than none."""
    found = completed("dat", "http://127.0.0.1:1")
    assert (found.stdout.strip(), found.stderr) == ("", "")
