"""A command as the root of a trace, which everything that other processes do for it joins."""

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from minga_cli.exit_codes import EXIT_CODES, ExitCode
from minga_core.errors import MingaError

if TYPE_CHECKING:
    from minga.settings import ClientSettings

T = TypeVar("T")


async def traced(settings: "ClientSettings", command: str, work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work. Where traces are on, this takes up to a second more to send the last spans."""
    if settings.traces is None:
        return await work
    from minga_cli.version import VERSION
    from minga_runtime.tracing import export_traces, span

    try:
        with (
            export_traces(settings.traces, "minga-command", VERSION, retry=False, on_loss=_print_loss),
            span(f"minga {command}", {"process.executable.name": "minga"}) as whole,
        ):
            try:
                result = await work
            except MingaError as error:
                whole.set_attribute("process.exit.code", int(EXIT_CODES[error.code]))
                raise
            whole.set_attribute("process.exit.code", result if isinstance(result, int) else int(ExitCode.OK))
            return result
    finally:
        work.close()  # when it never began; else this does nothing


def _print_loss(problem: str) -> None:
    """Print one line; the command itself has not failed."""
    sys.stderr.write(f"minga: the trace of this command is not whole: {problem}\n")
