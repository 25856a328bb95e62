"""`minga ca` and `minga token`, which run the authority; and `minga join`."""

import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from minga.errors import InvalidArgumentError, UnavailableError
from minga_cli.output import say

if TYPE_CHECKING:
    from minga.membership import Joined, JoinToken

DEFAULT_FOLDER = Path("~/.minga/credentials")


def ca(context: typer.Context) -> None:
    """Run the authority of a secure network, or change what it knows.

    `init` makes one, or prints Secrets with `--kubernetes`; `serve` runs it; `status` lists members and tokens,
    `--json` too; `revoke NAME` takes somebody out; `grant NAME` prints a bearer's grant, for curl; `rotate` and
    `rotate-grant-key` exchange keys. `minga ca COMMAND --help` lists its options.
    """
    _run_authority(*context.args)


def token(context: typer.Context) -> None:
    """Make tokens with which others join: `minga token create --role peer --publish data`.

    `minga token create --help` lists what a token can say.
    """
    _run_authority("token", *context.args)


def _run_authority(*arguments: str) -> NoReturn:
    """Replace this process. Raises UnavailableError when the authority is not installed."""
    from minga_cli.localprocess import module_command

    if find_spec("minga_authority") is None:
        raise UnavailableError("the authority is not installed", hint="pip install minga-authority")
    command = module_command("minga_authority", *arguments)
    sys.stdout.flush()
    os.execv(command[0], command)  # noqa: S606 - our own module, no shell


def join(
    text: Annotated[
        str, typer.Argument(metavar="TOKEN", help="What `minga token create` printed; - reads it from standard input.")
    ],
    directory: Annotated[Path, typer.Option("--dir", help="The credentials folder to write.")] = DEFAULT_FOLDER,
    name: Annotated[str, typer.Option(help="Who to be; the token's name, or this host's, unless given.")] = "",
) -> None:
    """Become a member of a secure network.

    Makes a key, which stays in its folder, and has it certified by the network's authority. Parts and commands that
    have the folder as MINGA_CREDENTIALS are that member, and renew what is in it. Joining again renews it too.
    """
    from minga.membership import JoinToken
    from minga_cli.running import run_async

    token = JoinToken.parse(sys.stdin.readline().strip() if text == "-" else text)
    folder = directory.expanduser().absolute()
    run_async(_join(token, folder, name), on_interrupt="not joined")


async def _join(token: "JoinToken", folder: Path, name: str) -> None:
    from minga.membership import join

    wanted = token.name or name or socket.gethostname().partition(".")[0]
    if name and name != wanted:
        raise InvalidArgumentError(f"the token is for {wanted}, not for {name}")
    joined = await join(token, folder, wanted)
    say(f"joined as {joined.owner.role} {joined.owner.name} of {joined.owner.network}: {folder}")
    for line in next_steps(joined, folder):
        say(line)


def next_steps(joined: "Joined", folder: Path) -> list[str]:
    """What to set and to run."""
    lines = [f"export MINGA_CREDENTIALS={folder}"]
    role = joined.owner.role
    if not joined.locator and role not in ("registry", "locator"):
        lines.append("export MINGA_LOCATOR=https://HOST:50052")
    if role == "peer":
        lines += [] if joined.registry else ["export MINGA_REGISTRY=HOST:50051"]
        return [*lines, "minga peer --share FOLDER"]
    if role in ("registry", "locator"):
        return [*lines, f"minga-{role} --redis-url redis://HOST:6379/0"]
    return [*lines, "minga ls"]
