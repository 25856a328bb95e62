"""cli/man/minga.1, the manual page, made from the commands themselves, as docs/cli.md is."""

import re
from collections.abc import Iterator

import typer
from typer.core import TyperCommand, TyperGroup

from minga_cli.exit_codes import MEANINGS
from minga_cli.main import app
from minga_cli.version import VERSION

_ROFF = str.maketrans({"\\": r"\e", "-": r"\-", '"': r"\(dq", "`": r"\(ga", "~": r"\(ti", "^": r"\(ha"})
"""Characters that roff would show as others: a hyphen that is no minus, a quotation mark, an accent."""
_CODE = re.compile(r"`([^`]+)`")

_OUTPUT = (
    "Results go to standard output, all else to standard error. An error is one line that begins with `minga:`, with "
    "what to do in brackets."
)
_VARIABLES = "Every setting is a variable; these are those of the command. A flag wins over its variable."
_ENVIRONMENT = {
    "MINGA_LOCATOR": "URL of the locator, as http://host:50052.",
    "MINGA_CONTROL": "Socket of the peer on this machine.",
    "MINGA_CREDENTIALS": "Folder that `minga join` has written: this machine's part in a secure network.",
    "MINGA_SOURCE_WAIT": "Seconds to wait for a source, unless `--wait` is given; 0: for ever.",
    "NO_COLOR": "No colour, when it is set to anything.",
    "TMPDIR": "Folder for what is read without a peer on this machine, and for standard input.",
}
_FILES = {
    "$XDG_RUNTIME_DIR/minga/peer.sock": "Socket of this user's peer; in the temporary folder without that variable.",
    ".mingaignore": "In a shared folder, or one that is put: patterns of what is left out, as in .gitignore.",
    ".minga-parts": "Beside a file that is fetched without a peer: what of it has arrived, for the next attempt.",
}
_EXAMPLES = {
    "minga up": "A network on this machine, to try it out.",
    "minga peer --share ~/data --registry HOST:50051 --locator http://HOST:50052": "Share a folder.",
    "minga put model.bin --as models/model.bin --replicas 2": "Upload a file, to two peers.",
    "minga get models/ -o /data/": "Fetch all below a name.",
    "minga cat logs/today.gz | zcat | head": "Read a file while it arrives.",
    "minga doctor": "What is wrong on this machine, and what to do.",
}


def manual_page() -> str:
    """The whole page, in man(7) macros and ASCII."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    context = typer.Context(group, info_name="minga")
    lines = [
        f'.TH MINGA 1 "" "Minga {VERSION}" "User Commands"',
        ".SH NAME",
        r"minga \- get the same files to many machines",
        ".SH SYNOPSIS",
        ".B minga",
        _text(" ".join(group.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(group.help or ""),
        *_paragraphs(_OUTPUT),
        ".SH OPTIONS",
        *_params(group, context),
        ".SH COMMANDS",
    ]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert isinstance(command, TyperCommand)
        lines += _command(command, typer.Context(command, info_name=f"minga {name}"))
    lines += [".SH EXIT STATUS", *_listed({str(int(code)): meaning for code, meaning in MEANINGS.items()})]
    lines += [".SH ENVIRONMENT", *_paragraphs(_VARIABLES), *_listed(_ENVIRONMENT)]
    lines += [".SH FILES", *_listed(_FILES), ".SH EXAMPLES", *_listed(_EXAMPLES)]
    return "\n".join(['.\\" Made from the code by "make references"; do not edit.', *lines, ""])


def _command(command: TyperCommand, context: typer.Context) -> Iterator[str]:
    yield f'.SS "{context.info_name} {_text(" ".join(command.collect_usage_pieces(context)))}"'
    yield from _paragraphs(command.help or "")
    yield from _params(command, context)


def _params(command: TyperCommand | TyperGroup, context: typer.Context) -> Iterator[str]:
    records = [(param, param.get_help_record(context)) for param in command.get_params(context)]
    # Every command has it.
    listed = [record for param, record in records if record is not None and param.name != "help"]
    return _listed(dict(listed))


def _listed(items: dict[str, str]) -> Iterator[str]:
    for term, meaning in items.items():
        yield ".TP"
        yield rf"\fB{_text(term)}\fR"
        yield _text(meaning)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """One line of text: backquotes as bold, everything else as it is."""
    return "".join(
        rf"\fB{_escaped(part)}\fR" if number % 2 else _escaped(part) for number, part in enumerate(_CODE.split(text))
    ).lstrip()


def _escaped(text: str) -> str:
    """What roff shows as `text`: a hyphen that can be copied, no request at the beginning of a line."""
    shown = text.translate(_ROFF)
    shown = "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in shown)
    return rf"\&{shown}" if shown.startswith((".", "'")) else shown
