"""How a transfer of several files went: a summary, a line for each of the first failures, and one exit code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minga_cli.exit_codes import EXIT_CODES, ExitCode
from minga_cli.output import counted, note, safe, say

if TYPE_CHECKING:
    from minga import Outcome

MAX_FAILURES = 20
"""Failures with a line of their own."""


def report(outcomes: "Sequence[Outcome[Any, Any]]", verb: str, present: int, amounts: str) -> int:
    """Print the summary and the failures; the exit code of the first failure, 0 when there is none.

    verb: `fetched`. present: how many were there already. amounts: bytes and time.
    """
    failures = [(outcome.item.name, outcome.error) for outcome in outcomes if outcome.error is not None]
    parts = [f"{counted(len(outcomes) - len(failures) - present, 'file')} {verb}"]
    parts += [f"{present:,} already there"] if present else []
    parts += [f"{len(failures):,} failed"] if failures else []
    say(f"{', '.join(parts)}: {amounts}")
    for name, error in failures[:MAX_FAILURES]:
        note(f"minga: {safe(name)}: {safe(str(error))}")
    if len(failures) > MAX_FAILURES:
        note(f"minga: … and {len(failures) - MAX_FAILURES:,} more that failed")
    return EXIT_CODES[failures[0][1].code] if failures else ExitCode.OK
