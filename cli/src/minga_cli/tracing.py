"""A command as a trace: it begins here, and everything that other processes do for it is a part of it."""

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from minga_cli.exit_codes import EXIT_CODES, ExitCode
from minga_core.errors import MingaError
from minga_runtime.tracing import export_traces, span

if TYPE_CHECKING:
    from minga.settings import ClientSettings

T = TypeVar("T")


async def traced(settings: "ClientSettings", command: str, work: Coroutine[Any, Any, T]) -> T:
    """The result of a command's work. Its spans are sent before this returns, within a second, when they are wanted."""
    if settings.traces is None:
        return await work
    from minga_cli.version import VERSION

    try:
        with (
            export_traces(settings.traces, "minga-command", VERSION, retry=False, on_loss=_tell),
            span(f"minga {command}", {"process.executable.name": "minga"}) as whole,
        ):
            try:
                result = await work
            except MingaError as error:
                whole.set({"process.exit.code": int(EXIT_CODES[error.code])})
                raise
            whole.set({"process.exit.code": result if isinstance(result, int) else int(ExitCode.OK)})
            return result
    finally:
        work.close()  # when it never began; else this does nothing


def _tell(problem: str) -> None:
    """One line; the command itself is none the worse for it."""
    sys.stderr.write(f"minga: the trace of this command is not whole: {problem}\n")
