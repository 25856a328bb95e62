"""The menu of `minga shell`, and the peer that it starts when none runs on this machine.

A peer that runs already is used and left running; one that the shell had to start ends with it. A network that is
away, or a peer that does not start, is reported and is no reason to close: each command does what it can, or says why
not.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import questionary

from minga import AsyncClient, ClientSettings
from minga.errors import MingaError, StorageError
from minga_cli.get import GetRequest, get_files
from minga_cli.listing import list_files
from minga_cli.localprocess import LocalProcess, module_command
from minga_cli.network import show_status
from minga_cli.output import note, print_error, safe, say
from minga_cli.put import expand, put_files
from minga_cli.running import traced
from minga_cli.targets import Wanted

START_LIMIT = timedelta(seconds=30)
STOP_GRACE = timedelta(seconds=5)
MAX_CHOICES = 500
"""Names offered while typing."""

_DOWNLOAD, _UPLOAD, _LIST, _STATUS, _CLOSE = "Download", "Upload", "List", "Status", "Close"
_MENU = [_DOWNLOAD, _UPLOAD, _LIST, _STATUS, _CLOSE]


class Questions(Protocol):
    """Asks people. An answer is None when they press Ctrl-C or Ctrl-D."""

    async def choose(self, question: str, choices: list[str]) -> str | None:
        """One of the choices."""
        ...

    async def name(self, question: str, known: list[str]) -> str | None:
        """A text, with the known ones offered while typing."""
        ...

    async def path(self, question: str, default: str = "") -> str | None:
        """A path."""
        ...


async def run_menu(settings: ClientSettings, locator: str | None, share: Path | None) -> None:
    """Start a peer when none runs, and offer the menu until it is closed. locator: as given with the command."""
    questions = _Questionary()
    async with AsyncExitStack() as stack:
        if not await _peer_runs(settings):
            folder = share or await _share_dir(questions)
            if folder is None:
                return
            try:
                await stack.enter_async_context(own_peer(settings, locator, folder))
            except MingaError as error:
                print_error(error)
                note("minga: going on without a peer here: this machine shares nothing, and files go where you say")
        await _check_locator(settings)
        await menu(settings, questions)


async def _check_locator(settings: ClientSettings) -> None:
    """Report at once, and not at the first command, that there is no locator."""
    try:
        async with AsyncClient(settings, retry_budget=timedelta(0)) as client:
            await client.stats()
    except MingaError as error:
        print_error(error)


async def menu(settings: ClientSettings, questions: Questions) -> None:
    """Offer the menu until it is closed. A command that fails says why, and the menu comes again."""
    actions: dict[str, Callable[[AsyncClient, Questions], Awaitable[None]]] = {
        _DOWNLOAD: _download,
        _UPLOAD: _upload,
        _LIST: lambda client, _: list_files(client.ls()),
        _STATUS: lambda client, _: show_status(client),
    }
    while (choice := await questions.choose("What shall it be?", _MENU)) not in (None, _CLOSE):
        try:
            async with AsyncClient(settings) as client:
                await actions[choice](client, questions)
        except MingaError as error:
            print_error(error)


async def _download(client: AsyncClient, questions: Questions) -> None:
    names: list[str] = []
    async with aclosing(client.ls()) as files:
        async for file in files:
            names.append(file.name)
            if len(names) == MAX_CHOICES:
                break
    if not names:
        say("there is nothing to download yet")
        return
    name = await questions.name("Which file, or folder/ ?", names)
    if not name:
        return
    if await client.uses_daemon():
        target = await questions.path("Where to? Empty: into the shared folder alone")
    else:
        target = await questions.path("Where to?", os.environ.get("MINGA_SHARE_DIR", ""))
    if target is not None:
        request = GetRequest([Wanted.parse(name.strip())], output=_expanded(target))
        await traced(client.settings, "get", get_files(client, request))


async def _upload(client: AsyncClient, questions: Questions) -> None:
    path = await questions.path("Which file or folder?")
    if not path:
        return
    upload = await asyncio.to_thread(expand, [Path(_expanded(path) or path)], None)
    replicas = await questions.choose("On how many peers?", ["1", "2", "3"])
    if replicas is not None:
        await traced(client.settings, "put", put_files(client, upload, int(replicas), overwrite=False))


def _expanded(path: str) -> str | None:
    """What was typed for a path, `~` resolved and a `/` at the end kept; None for nothing."""
    return os.path.expanduser(path.strip()) or None


async def _share_dir(questions: Questions) -> Path | None:
    """The folder to share: as set, or as answered."""
    if known := os.environ.get("MINGA_SHARE_DIR"):
        return Path(known)
    answer = await questions.path("No peer runs here; one will be started. Which folder shall it share?", "~/minga")
    return Path(_expanded(answer) or answer) if answer else None


async def _peer_runs(settings: ClientSettings) -> bool:
    async with AsyncClient(settings) as client:
        return await client.available()


@asynccontextmanager
async def own_peer(settings: ClientSettings, locator: str | None, share: Path) -> AsyncIterator[LocalProcess]:
    """A peer of this shell's own, with the settings of the environment; it ends with the block.

    Raises UnavailableError, AlreadyRunningError or StorageError when it does not start.
    """
    with await asyncio.to_thread(_folders, share) as folder:
        command = _peer_command(settings, locator, share)
        peer = LocalProcess(
            "the peer",
            lambda: command,
            Path(folder) / "peer.log",
            on_death=lambda error: note(f"minga: {safe(str(error))}"),
            inherit_settings=True,
            log_hint="`minga peer` shows more",
            folder=Path(),  # where relative paths of the settings begin
        )
        try:
            await peer.start()
            await peer.until(lambda: _peer_runs(settings), START_LIMIT)
            say(f"a peer is running and shares {safe(str(share))}")
            yield peer
        finally:
            await peer.stop(STOP_GRACE)


def _folders(share: Path) -> "tempfile.TemporaryDirectory[str]":
    """Makes the shared folder, and one for the peer's log."""
    try:
        share.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix="minga-shell-")
    except OSError as error:
        raise StorageError(f"cannot make the folders of a peer: {error}") from error


def _peer_command(settings: ClientSettings, locator: str | None, share: Path) -> list[str]:
    """The command line, with absolute paths: the peer works in another folder."""
    flags = ["--control", str(settings.control.absolute()), *(["--locator", locator] if locator else [])]
    return module_command("minga_peer", *flags, "--share", str(share.absolute()))


class _Questionary:
    """Questions on the terminal."""

    async def choose(self, question: str, choices: list[str]) -> str | None:
        """Ask on the terminal."""
        return await _answer(questionary.select(question, choices=choices))

    async def name(self, question: str, known: list[str]) -> str | None:
        """Ask on the terminal."""
        return await _answer(questionary.autocomplete(question, choices=known, match_middle=True))

    async def path(self, question: str, default: str = "") -> str | None:
        """Ask on the terminal."""
        return await _answer(questionary.path(question, default=default))


async def _answer(question: questionary.Question) -> str | None:
    """The answer; None for Ctrl-C and Ctrl-D, which the terminal passes to the question while it is open."""
    try:
        answer = await question.unsafe_ask_async()
    except (KeyboardInterrupt, EOFError):
        return None
    return answer if isinstance(answer, str) else None
