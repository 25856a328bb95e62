"""docs/cli.md, made from the commands themselves by typer; a test compares the two."""

import typer
from typer.cli import get_docs_for_click

from minga_cli.exit_codes import MEANINGS
from minga_cli.main import app

_OPENING = """# The `minga` command

Made from the code by `make references`; do not edit.

Global options stand before the command's name: `minga --locator http://host:50052 ls`. Settings can come from `MINGA_`
variables too, see [settings.md](settings.md).

Results go to standard output, all else to standard error. Colour and tables are for terminals (`NO_COLOR` turns colour
off); pipes get plain lines. An error is one line that begins with `minga:`, with what to do in brackets; a traceback
means a bug, or `--debug`.
"""

_KEPT = """## What is kept of a file

| | |
| --- | --- |
| kept | the bytes; the name, in Unicode form NFC; the modification time, from 1970 to 2262; whether its owner may \
execute it; holes of sparse files, in chunks |
| not kept | owner and group; all other permissions, setuid, setgid and sticky bits; extended attributes and access \
control lists; times of access, change and birth; hard links (each name is a file of its own); empty folders, and \
times and permissions of folders |
| left out | symbolic links, devices, pipes and sockets: neither shared nor followed, and not replaced by what is \
fetched, except a link to a file by `-o` with `--overwrite`; `put` follows a link that is named itself |

What arrives has the permissions of a new file, 0666 or 0777 less the umask: that of the peer in its shared folder, that
of the command with `-o`. Time and executable bit are those of the version when it was fetched or uploaded: a later
`chmod` where it is shared holds for copies made from then on, and is no new version. A file that is there already,
whole, is left alone.

`kill -9` leaves no half a file under its name. What was fetched so far is kept and resumed: in the peer's state folder,
or without a peer in `.minga-parts` beside the file. What nobody resumes for a week is deleted, by the peer or with the
next download into that folder. On a file system without nameless files (NFS, for one) an interrupted copy of `-o`
leaves `.XXXXXXXXXXXXXXXX.minga`, which can be deleted.
"""

_JSON_SHAPES = """## JSON

`--json` prints one document. These keys stay; new ones may come. Sizes are in bytes, times RFC 3339 in UTC.

| command | document |
| --- | --- |
| `ls`, `find` | `{"files": [{"name", "content_id", "size_bytes", "published_time", "version_count", \
"newer_incomplete"}]}` |
| `info` | `{"names": […], "newer_incomplete", "versions": [{"content_id", "size_bytes", "published_time", \
"modified_time", "executable", "complete_count", "partial_count", \
"sources": [{"peer_id", "address", "zone", "state"}]}]}`, newest version first, `state` is \
`complete` or `partial` |
| `ca status` | `{"network", "authority", "cas": [{"expires", "signs"}], "members": [{"member", "read", "publish", \
"joined", "issued", "expires", "state"}], "tokens": [{"id", "role", "name", "uses_left", "expires"}]}`; `state` is \
`member`, `expired` or `revoked`, `uses_left` null for any number |
| `doctor` | `{"checks": [{"check", "state", "text", "advice"}]}`, `state` is `ok`, `warning` or `problem` |
| `peers` | `{"peers": [{"peer_id", "address", "zone", "capacity_bytes", "free_bytes", "file_count", \
"active_serves", "software_version", "gateway_url", "lease_remaining_seconds"}]}` |
| `status` | `{"peer_id", "generation", "address", "registered", "table_revision", \
"announced_revision", "file_count", "shared_bytes", "pending_hash_count", "ignored_count", "free_bytes", "sent_bytes", \
"received_bytes", "active_serves", "registry", "locator", "software_version", "pid", "share_dir", "uptime_seconds", \
"downloads": [{"name", "content_id", "size_bytes", "held_bytes", "rate_bytes_per_second", "active_source_count"}], \
"conditions": [{"kind", "count", "examples": […], "begin_time", "text"}], \
"limit_up_bytes_per_second", "limit_down_bytes_per_second", "gateway_url"}` |
"""


def cli_markdown() -> str:
    """The whole reference."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="minga")
    commands = get_docs_for_click(obj=group, ctx=context, name="minga").split("\n", 2)[2]
    return "\n".join([_OPENING, commands, _KEPT, _exit_codes(), _JSON_SHAPES])


def _exit_codes() -> str:
    rows = [f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()]
    return "\n".join(["## Exit codes", "", "| code | means |", "| --- | --- |", *rows, ""])
