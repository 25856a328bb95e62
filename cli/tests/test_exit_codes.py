"""One table from errors to exit codes."""

import pytest

from minga_cli.exit_codes import EXIT_CODES, MEANINGS, ExitCode
from minga_core.errors import ERROR_CLASSES, WIRE_STATUS, Code


def test_every_code_has_an_exit_code() -> None:
    """A new error cannot be forgotten: the table covers the whole enum."""
    assert set(EXIT_CODES) == set(Code)


def test_every_exit_code_is_documented() -> None:
    """What a script may meet, the reference explains."""
    assert set(MEANINGS) == set(ExitCode)


def test_only_a_bug_is_a_bug() -> None:
    """Exit code 1 stands for bugs alone; no known failure is success."""
    bugs = [code for code, exit_code in EXIT_CODES.items() if exit_code is ExitCode.BUG]
    assert bugs == [Code.INTERNAL]
    assert ExitCode.OK not in EXIT_CODES.values()


@pytest.mark.parametrize("code", [code for code in Code if WIRE_STATUS[code].http == 404])
def test_what_is_not_there_is_3(code: Code) -> None:
    """All of 404's family is one exit code."""
    assert EXIT_CODES[code] == 3
    assert code in ERROR_CLASSES
