"""What went wrong with several files: a line for each of the first, and one exit code."""

from collections.abc import Sequence

from minga_cli.exit_codes import EXIT_CODES, ExitCode
from minga_cli.output import note, safe
from minga_core.errors import MingaError

MAX_LINES = 20


def report_failures(failures: Sequence[tuple[str, MingaError]]) -> int:
    """Tells failures on standard error; the exit code of the first, 0 when there is none."""
    for name, error in failures[:MAX_LINES]:
        note(f"minga: {safe(name)}: {safe(str(error))}")
    if len(failures) > MAX_LINES:
        note(f"minga: … and {len(failures) - MAX_LINES:,} more that failed")
    return EXIT_CODES[failures[0][1].code] if failures else ExitCode.OK
