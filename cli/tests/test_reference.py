"""docs/cli.md is what the commands say of themselves."""

from pathlib import Path

from minga_cli.reference import cli_markdown

CLI_MD = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_reference_is_up_to_date() -> None:
    """`make references` writes it anew."""
    assert CLI_MD.read_text() == cli_markdown()


def test_everything_is_explained() -> None:
    """No option and no argument without a word on it."""
    rows = [line for line in cli_markdown().splitlines() if line.startswith("| `")]
    assert len(rows) >= 30
    assert [row for row in rows if row.endswith("|  |")] == []
