"""docs/cli.md, made from the commands themselves; a test holds the two together."""

from typing import Any

import typer

from minga_cli.exit_codes import MEANINGS
from minga_cli.main import app

_OPENING = """# The `minga` command

Made from the code by `make references`; do not edit.

Global options stand before the command's name: `minga --locator http://host:50052 ls`. Settings can come from `MINGA_`
variables and a `.env` file too, see [settings.md](settings.md).

Results go to standard output, all else to standard error. Colour and tables are for terminals (`NO_COLOR` turns colour
off); pipes get plain lines. An error is one line that begins with `minga:`, with what to do in brackets; a traceback
means a bug, or `--debug`.
"""

_JSON_SHAPES = """## JSON

`--json` prints one document. These keys stay; new ones may come. Sizes are in bytes, times RFC 3339 in UTC.

| command | document |
| --- | --- |
| `ls`, `find` | `{"files": [{"name", "content_id", "size_bytes", "published_time", "version_count"}]}` |
| `info` | `{"names": […], "versions": [{"content_id", "size_bytes", "published_time", "complete_count", \
"partial_count", "sources": [{"peer_id", "address", "zone", "state"}]}]}`, newest version first, \
`state` is `complete` or `partial` |
| `peers` | `{"peers": [{"peer_id", "address", "zone", "generation", "capacity_bytes", "free_bytes", "file_count", \
"active_serves", "table_revision", "software_version", "lease_remaining_seconds"}]}` |
| `status` | `{"peer_id", "generation", "address", "registered", "registry_problem", "table_revision", \
"announced_revision", "file_count", "shared_bytes", "pending_hash_count", "free_bytes", "sent_bytes", \
"received_bytes", "active_serves", "registry", "locator", "software_version", "pid", "share_dir", "uptime_seconds", \
"downloads": [{"name", "content_id", "size_bytes", "held_bytes", "rate_bytes_per_second", "active_source_count"}], \
"problems": […]}` |
"""


def cli_markdown() -> str:
    """The whole reference."""
    group: Any = typer.main.get_command(app)
    parts = [_OPENING, _options("## Global options", group)]
    parts += [_command(name, command) for name, command in group.commands.items()]
    return "\n".join([*parts, _exit_codes(), _JSON_SHAPES])


def _command(name: str, command: Any) -> str:
    arguments = " ".join(_usage(item) for item in command.params if item.param_type_name == "argument")
    usage = f"minga {name} [OPTIONS] {arguments}".rstrip()
    lines = [f"## minga {name}", "", f"`{usage}`", "", _prose(command.help or ""), "", ""]
    return "\n".join(lines) + _options("", command)


def _usage(argument: Any) -> str:
    word = argument.metavar or argument.name.upper()
    many = "…" if argument.nargs == -1 else ""
    return f"{word}{many}" if argument.required else f"[{word}{many}]"


def _options(title: str, command: Any) -> str:
    rows = [_row(item) for item in command.params if item.name != "help"]
    if not rows:
        return ""
    head = [title, ""] if title else []
    return "\n".join([*head, "| | |", "| --- | --- |", *rows, ""])


def _row(item: Any) -> str:
    if item.param_type_name == "argument":
        return f"| `{_usage(item)}` | {_cell(item.help or '')} |"
    is_flag = getattr(item, "is_flag", False)
    metavar = "" if is_flag else " " + (item.metavar or "X")
    default = "" if is_flag or item.default is None else f" Default {item.default}."
    return f"| `{', '.join(item.opts)}{metavar}` | {_cell(item.help or '')}{default} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines()).strip()


def _exit_codes() -> str:
    rows = [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["## Exit codes", "", "| code | means |", "| --- | --- |", *rows, ""])
