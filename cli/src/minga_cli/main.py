"""The `minga` command: all commands in one app, and how it ends.

What a command needs besides the command line itself is imported when it runs, so that help and completion are quick.
"""

import logging
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import _click as click

from minga.errors import MingaError
from minga_cli import shell_completion
from minga_cli.commands import CommandGroup
from minga_cli.context import Globals, configure_logs
from minga_cli.exit_codes import EXIT_CODES, ExitCode
from minga_cli.output import be_quiet, print_error

shell_completion.use_in_typer()
app = typer.Typer(
    name="minga",
    cls=CommandGroup,
    help="Get the same files to many machines: share folders, find files by name, fetch them from many peers at once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from minga_cli.version import VERSION

        typer.echo(f"minga {VERSION}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    locator: Annotated[str | None, typer.Option(help="URL of the locator. [MINGA_LOCATOR]", metavar="URL")] = None,
    control: Annotated[
        Path | None, typer.Option(help="Socket of the peer on this machine. [MINGA_CONTROL]", metavar="PATH")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show logs, and where an error comes from.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Keep the options that stand before the command's name."""
    be_quiet(wanted=False)
    context.obj = Globals(locator, control, debug)
    configure_logs(debug=debug)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process with an exit code of `ExitCode`."""
    _leave(run(sys.argv[1:] if arguments is None else arguments))


def _leave(code: int) -> NoReturn:
    """End the process at once: everything is closed, and the interpreter's own shutdown takes a sixth of a command."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, MingaError):  # the reader went away, or the error was printed
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run a command line; the exit code. Errors are one line on standard error, bugs a traceback."""
    try:
        outcome = app(arguments, prog_name="minga", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        _swallow_output()
        return ExitCode.BROKEN_PIPE
    except SystemExit as error:
        # Typer ends the process itself: after a broken pipe, and after completion, whose exit code shells look at.
        if not isinstance(error.__context__, BrokenPipeError):
            return error.code if isinstance(error.code, int) else ExitCode.OK
        _swallow_output()
        return ExitCode.BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("minga: interrupted\n")
        return ExitCode.INTERRUPTED
    except click.exceptions.ClickException as error:
        return _usage_error(error)
    except MingaError as error:
        return _known_error(error, debug="--debug" in arguments)
    except Exception as error:  # noqa: BLE001 - a bug; the process ends with its traceback
        if isinstance(error, FileNotFoundError) and not _has_folder():
            sys.stderr.write("minga: the current folder was deleted (change to another one)\n")
            return ExitCode.USAGE
        traceback.print_exc()
        sys.stderr.write("minga: this is a bug in Minga; the lines above say where\n")
        return ExitCode.BUG
    return outcome if isinstance(outcome, int) else ExitCode.OK


def _has_folder() -> bool:
    """Whether the current folder exists: paths of the command line may be relative to it."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _known_error(error: MingaError, *, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print_error(error)
    return EXIT_CODES[error.code]


def _usage_error(error: Any) -> int:
    """Print what the parser refused, and which help to read."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        sys.stdout.write(error.format_message() + "\n")
        return ExitCode.USAGE
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "minga"
    # What the parser's own library puts in front, and behind some messages, is nothing for people.
    message = error.format_message().replace(": Value error, ", ": ").rstrip(".")
    sys.stderr.write(f"minga: {message} (see `{path} --help`)\n")
    return ExitCode.USAGE


def _swallow_output() -> None:
    """The reader went away: what is still flushed at the end goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
