"""`minga shell`: the commands as a menu, with a peer behind it.

A peer that runs already is used and left running; one that the shell had to start ends with it. A network that is
away, or a peer that does not start, is told and is no reason to close: each command does what it can, or says why not.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from minga_cli.context import client_settings, globals_of, make_locator
from minga_cli.get import GetRequest, get_files
from minga_cli.listing import list_files
from minga_cli.localprocess import READY_POLL_SECONDS, LocalProcess, module_command
from minga_cli.network import show_status
from minga_cli.output import note, on_terminal, safe, say
from minga_cli.put import expand, put_files
from minga_cli.running import run_async
from minga_cli.targets import Wanted
from minga_cli.tracing import traced
from minga_core.errors import InvalidArgumentError, MingaError, StorageError, UnavailableError

if TYPE_CHECKING:
    from questionary import Question

    from minga.settings import ClientSettings

START_LIMIT = timedelta(seconds=30)
STOP_GRACE = timedelta(seconds=5)
MAX_CHOICES = 500
"""Names offered to choose from; with more, the name is typed."""

_DOWNLOAD, _UPLOAD, _LIST, _STATUS, _CLOSE = "Download", "Upload", "List", "Status", "Close"
_MENU = [_DOWNLOAD, _UPLOAD, _LIST, _STATUS, _CLOSE]


class Questions(Protocol):
    """Asks people. Every answer is None when they would rather not say (Ctrl-C, Ctrl-D)."""

    async def choose(self, question: str, choices: list[str]) -> str | None:
        """One of the choices."""
        ...

    async def name(self, question: str, known: list[str]) -> str | None:
        """A text, with the known ones offered while typing."""
        ...

    async def path(self, question: str, default: str = "") -> str | None:
        """A path."""
        ...


def shell(
    context: typer.Context,
    share: Annotated[
        Path | None,
        typer.Option(help="Folder to share when a peer has to be started; MINGA_SHARE_DIR or a question otherwise."),
    ] = None,
) -> None:
    """Download, upload and list by menu.

    Starts a peer when none runs on this machine, and ends it on closing.
    """
    if not (sys.stdin.isatty() and on_terminal(sys.stdout)):
        raise InvalidArgumentError("the shell needs a terminal", hint="scripts use `minga get`, `put` and `ls`")
    run_shell(context, share)


def run_shell(context: typer.Context, share: Path | None = None) -> None:
    """Runs the shell on this terminal until it is closed. Raises SettingsError."""
    settings = client_settings(context)
    locator = globals_of(context).locator
    run_async(_shell(settings, locator, share), on_interrupt="closed", cleanup_limit=STOP_GRACE * 2)


async def _shell(settings: "ClientSettings", locator: str | None, share: Path | None) -> None:
    questions = _Questionary()
    async with AsyncExitStack() as stack:
        if not await _peer_runs(settings):
            folder = share or await _share_dir(questions)
            if folder is None:
                return
            try:
                await stack.enter_async_context(own_peer(settings, locator, folder))
            except MingaError as error:
                _tell(error)
                note("minga: going on without a peer here: this machine shares nothing, and files go where you say")
        await _greet(settings)
        await menu(settings, questions)


async def _greet(settings: "ClientSettings") -> None:
    """Says at once, and not at the first command, that there is no locator."""
    try:
        async with make_locator(settings) as locator:
            await locator.stats()
    except MingaError as error:
        _tell(error)


def _tell(error: MingaError) -> None:
    hint = f" ({error.hint})" if error.hint else ""
    note(f"minga: {safe(str(error) + hint)}")


async def menu(settings: "ClientSettings", questions: Questions) -> None:
    """Offers the menu until it is closed. A command that fails says why, and the menu comes again."""
    actions: dict[str, Callable[[ClientSettings, Questions], Awaitable[None]]] = {
        _DOWNLOAD: _download,
        _UPLOAD: _upload,
        _LIST: lambda settings, _: list_files(settings),
        _STATUS: lambda settings, _: show_status(settings),
    }
    while (choice := await questions.choose("What shall it be?", _MENU)) not in (None, _CLOSE):
        try:
            await actions[choice](settings, questions)
        except MingaError as error:
            _tell(error)


async def _download(settings: "ClientSettings", questions: Questions) -> None:
    async with make_locator(settings) as locator:
        page = await locator.list_files(page_size=MAX_CHOICES)
    if not page.files:
        say("there is nothing to download yet")
        return
    name = await questions.name("Which file, or folder/ ?", [file.name for file in page.files])
    if not name:
        return
    if await _peer_runs(settings):
        target = await questions.path("Where to? Empty: into the shared folder alone")
    else:
        target = await questions.path("Where to?", os.environ.get("MINGA_SHARE_DIR", ""))
    if target is not None:
        request = GetRequest([Wanted.parse(name.strip())], output=_expanded(target))
        await traced(settings, "get", get_files(settings, request))


async def _upload(settings: "ClientSettings", questions: Questions) -> None:
    path = await questions.path("Which file or folder?")
    if not path:
        return
    items = await asyncio.to_thread(lambda: list(expand([Path(_expanded(path) or path)], None)))
    if not items:
        raise InvalidArgumentError("there is no file in there")
    replicas = await questions.choose("On how many peers?", ["1", "2", "3"])
    if replicas is not None:
        await traced(settings, "put", put_files(settings, items, int(replicas), overwrite=False))


def _expanded(path: str) -> str | None:
    """What was typed for a path, `~` resolved and a `/` at the end kept; None for nothing."""
    return os.path.expanduser(path.strip()) or None


async def _share_dir(questions: Questions) -> Path | None:
    """The folder to share: as set, or as answered."""
    if known := os.environ.get("MINGA_SHARE_DIR"):
        return Path(known)
    answer = await questions.path("No peer runs here; one will be started. Which folder shall it share?", "~/minga")
    return Path(_expanded(answer) or answer) if answer else None


async def _peer_runs(settings: "ClientSettings") -> bool:
    from minga.control import ControlClient

    async with ControlClient(settings.control) as control:
        return await control.available()


@asynccontextmanager
async def own_peer(settings: "ClientSettings", locator: str | None, share: Path) -> AsyncIterator[LocalProcess]:
    """A peer of this shell's own, with the settings of the environment; it leaves and ends with the block.

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
            folder=Path(),  # where a `.env` may lie
        )
        try:
            await peer.start()
            await _until_it_answers(settings, peer)
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


def _peer_command(settings: "ClientSettings", locator: str | None, share: Path) -> list[str]:
    """The command line, with absolute paths: the peer works in another folder."""
    flags = ["--control", str(settings.control.absolute()), *(["--locator", locator] if locator else [])]
    return module_command("minga_peer", *flags, "--share", str(share.absolute()))


async def _until_it_answers(settings: "ClientSettings", peer: LocalProcess) -> None:
    try:
        async with asyncio.timeout(START_LIMIT.total_seconds()):
            while not await _peer_runs(settings):
                peer.check()
                await asyncio.sleep(READY_POLL_SECONDS)
    except TimeoutError:
        raise UnavailableError(f"the peer did not start within {START_LIMIT.seconds} s{peer.tail()}") from None


class _Questionary:
    """Questions on the terminal."""

    async def choose(self, question: str, choices: list[str]) -> str | None:
        """See Questions."""
        import questionary

        return await _answer(questionary.select(question, choices=choices))

    async def name(self, question: str, known: list[str]) -> str | None:
        """See Questions."""
        import questionary

        return await _answer(questionary.autocomplete(question, choices=known, match_middle=True))

    async def path(self, question: str, default: str = "") -> str | None:
        """See Questions."""
        import questionary

        return await _answer(questionary.path(question, default=default))


async def _answer(question: "Question") -> str | None:
    """What was answered; None for Ctrl-C and Ctrl-D, which the terminal hands to the question while it is open."""
    try:
        answer = await question.unsafe_ask_async()
    except (KeyboardInterrupt, EOFError):
        return None
    return answer if isinstance(answer, str) else None
