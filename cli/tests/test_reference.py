"""docs/cli.md is what the commands say of themselves; every error has an exit code."""

from pathlib import Path

from minga.errors import Code
from minga_cli.exit_codes import EXIT_CODES, MEANINGS, ExitCode
from minga_cli.reference import cli_markdown

CLI_MD = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_reference_is_up_to_date() -> None:
    """`make references` writes it anew; no option and no argument is without a word on it."""
    text = cli_markdown()
    assert CLI_MD.read_text() == text
    assert [row for row in text.splitlines() if row.startswith("* `") and ": " not in row] == []


def test_every_error_has_a_documented_exit_code() -> None:
    """A new error cannot be forgotten; exit code 1 stands for bugs alone, and no error is success."""
    assert set(EXIT_CODES) == set(Code)
    assert set(MEANINGS) == set(ExitCode)
    assert [code for code, exit_code in EXIT_CODES.items() if exit_code is ExitCode.BUG] == [Code.INTERNAL]
    assert ExitCode.OK not in EXIT_CODES.values()
