"""`minga get`: files and folders from the network to this machine."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from minga_cli.bars import TransferBar
from minga_cli.batch import Outcome, all_of, run_batch
from minga_cli.completion import complete_name
from minga_cli.context import RIDE_OUT, LimitDownOption, client_settings, make_locator
from minga_cli.lookup import explained, files_below
from minga_cli.output import counted, safe, say
from minga_cli.report import report_failures
from minga_cli.running import run_async
from minga_cli.targets import FetchItem, Layout, Wanted, refuse_collisions
from minga_cli.tracing import traced
from minga_core.errors import FileNotFoundInDirectoryError, InvalidArgumentError, MingaError, NameTakenError
from minga_core.ids import ContentId
from minga_core.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from minga.settings import ClientSettings
    from minga_cli.fetching import Fetcher, FetchOptions
    from minga_engine.progress import Progress
    from minga_engine.wire.locator import LocatorClient

AT_ONCE = 8
"""Files fetched at once: small ones are bound by round trips, not by bytes."""
SMALL_BYTES = 256 * 1024
"""Files of at most this size are one chunk, and are fetched many in one call (contract: peer.proto)."""
_INTERRUPTED = "interrupted; what was fetched is kept, and the same command goes on from there"


def get(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME", help="Files, or folders as `NAME/`.", show_default=False, autocompletion=complete_name
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Where to; inside it when it is a folder or ends in `/`. Otherwise the peer's shared folder, or the "
            "current one when no peer runs here.",
        ),
    ] = None,
    content_id: Annotated[
        str | None, typer.Option(metavar="ID", help="That version (b3:…) instead of the newest.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another content of that name.")] = False,
    wait: Annotated[
        float | None, typer.Option(min=0, metavar="SECONDS", help="How long to wait for a source; 0: for ever.")
    ] = None,
    standalone: Annotated[
        bool, typer.Option("--standalone", help="Do not use the peer on this machine: this one becomes no holder.")
    ] = False,
    limit_down: LimitDownOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say where the bytes came from, and where the time went.")
    ] = False,
) -> int:
    """Fetch files or folders, from many peers at once.

    From all that have any part of a file. Goes on where an earlier attempt ended; leaves alone what is there and
    whole. With a peer on this machine the file lands in its shared folder, which makes this machine a holder, and is
    copied from there to PATH.
    """
    settings = client_settings(context, limit_down=limit_down)
    wanted = [Wanted.parse(name) for name in names]
    pinned = ContentId.parse(content_id) if content_id is not None else None
    if pinned is not None and (len(wanted) > 1 or wanted[0].is_folder):
        raise InvalidArgumentError("--content-id is one version of one file: give one NAME that is no folder")
    patience = None if wait is None else timedelta(seconds=wait)
    limited = limit_down is not None
    request = GetRequest(wanted, output, pinned, overwrite, patience, standalone, limited=limited, explain=explain)
    return run_async(traced(settings, "get", get_files(settings, request)), on_interrupt=_INTERRUPTED)


@dataclass(frozen=True, slots=True)
class GetRequest:
    """A `minga get` as given."""

    wanted: list[Wanted]
    output: str | None = None
    content_id: ContentId | None = None
    overwrite: bool = False
    wait: timedelta | None = None
    standalone: bool = False
    limited: bool = False
    """A limit was given with the command: it holds for the command's own transfers alone."""
    explain: bool = False


async def get_files(settings: "ClientSettings", request: GetRequest) -> int:
    """Fetches all that is wanted and says how it went; the exit code.

    One file's error is raised; of several, each is told and the first decides the exit code.
    """
    started = time.monotonic()
    async with AsyncExitStack() as stack:
        locator = await stack.enter_async_context(make_locator(settings, RIDE_OUT))
        fetcher, into_share = await _choose(stack, settings, request, locator)
        layout = Layout(request.output, into_share=into_share, several=len(request.wanted) > 1)
        items = [item async for item in _items(locator, request.wanted, layout)]
        refuse_collisions(items)
        outcomes = await _fetch_all(items, fetcher, _title(request.wanted))
        if len(items) == 1 and outcomes[0].error is not None:
            raise await _hinted(locator, items[0], outcomes[0].error) from outcomes[0].error
    seconds = time.monotonic() - started
    code = _tell(outcomes, seconds)
    if request.explain:
        _explain(outcomes, seconds)
    return code


def _explain(outcomes: "list[Outcome[FetchItem, Progress]]", seconds: float) -> None:
    from minga_cli.explaining import explain

    explain([(outcome.item.name, outcome.result) for outcome in outcomes if outcome.result is not None], seconds)


async def _choose(
    stack: AsyncExitStack, settings: "ClientSettings", request: GetRequest, locator: "LocatorClient"
) -> "tuple[Fetcher, bool]":
    """The way to fetch, and whether it is the daemon's."""
    from minga.control import ControlClient
    from minga_cli.fetching import DaemonFetcher, FetchOptions, StandaloneFetcher

    options = FetchOptions(request.content_id, request.overwrite, request.wait)
    if not request.standalone:
        control = await stack.enter_async_context(ControlClient(settings.control))
        if await control.available():
            if request.limited:
                raise InvalidArgumentError(
                    "--limit-down is for what this command fetches itself; the peer on this machine has its own limits",
                    hint="add --standalone, or start the peer with --limit-down",
                )
            return DaemonFetcher(control, options), True
    # A fifth of the time of a whole command that lets the daemon work.
    from minga.standalone import TransferClient

    client = await stack.enter_async_context(TransferClient(locator, settings))
    return StandaloneFetcher(client, options, _patience(settings, options)), False


def _patience(settings: "ClientSettings", options: "FetchOptions") -> timedelta | None:
    """How long to wait for a source; None: for ever."""
    return settings.source_wait_or_forever if options.wait is None else options.wait or None


async def _items(locator: "LocatorClient", wanted: list[Wanted], layout: Layout) -> AsyncIterator[FetchItem]:
    from minga_core.names import parse_name

    for one in wanted:
        if not one.is_folder:
            yield layout.item(one, parse_name(one.name), 0)
            continue
        async for file in files_below(locator, one):
            yield layout.item(one, file.name, file.size_bytes)


async def _fetch_all(items: list[FetchItem], fetcher: "Fetcher", title: str) -> "list[Outcome[FetchItem, Progress]]":
    """Small files together, the others and what gave trouble each on its own; outcomes in the order of the items."""
    with TransferBar(title, len(items), sum(item.size_bytes for item in items)) as bar:
        done: dict[FetchItem, Progress] = {}

        def told(item: FetchItem, progress: "Progress") -> None:
            done[item] = progress
            _show(bar, item, progress)
            bar.ended(item.name)

        async def fetch(item: FetchItem) -> "Progress":
            try:
                return await fetcher.fetch(item, lambda progress: _show(bar, item, progress))
            finally:
                bar.ended(item.name)

        async def alone(some: list[FetchItem]) -> "list[Outcome[FetchItem, Progress]]":
            return await run_batch(some, fetch, min(AT_ONCE, len(some)))

        limit_bytes = SMALL_BYTES if len(items) > 1 else -1
        small = [item for item in items if item.size_bytes <= limit_bytes]
        large = [item for item in items if item.size_bytes > limit_bytes]
        outcomes: list[Outcome[FetchItem, Progress]] = []

        async def fetch_large() -> None:
            outcomes.extend(await alone(large))

        await all_of([fetch_large(), *([fetcher.fetch_small(small, told)] if small else [])])
        outcomes += await alone([item for item in small if item not in done])
        outcomes += [Outcome(item, progress, None) for item, progress in done.items()]
        places = {item: place for place, item in enumerate(items)}
        return sorted(outcomes, key=lambda outcome: places[outcome.item])


def _show(bar: TransferBar, item: FetchItem, progress: "Progress") -> None:
    bar.update(
        item.name,
        progress.size_bytes or item.size_bytes,
        progress.held_bytes,
        before_bytes=progress.resumed_bytes,
        waiting=progress.message,
    )


async def _hinted(locator: "LocatorClient", item: FetchItem, error: MingaError) -> MingaError:
    """The error with what to do about it."""
    if isinstance(error, FileNotFoundInDirectoryError):
        return await explained(locator, item.name, error)
    if isinstance(error, NameTakenError):
        return NameTakenError(str(error), hint=error.hint or "--overwrite replaces it")
    return error


def _tell(outcomes: "list[Outcome[FetchItem, Progress]]", seconds: float) -> int:
    """Says how it went; the exit code."""
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    if len(outcomes) == 1:
        say(_one_line(outcomes[0].item, done[0], seconds))
        return 0
    present = sum(progress.phase == "already_present" for progress in done)
    parts = [f"{counted(len(done) - present, 'file')} fetched"]
    parts += [f"{present:,} already there"] if present else []
    parts += [f"{len(outcomes) - len(done):,} failed"] if len(done) < len(outcomes) else []
    say(f"{', '.join(parts)}: {_amounts(done, seconds)}")
    return report_failures([(outcome.item.name, outcome.error) for outcome in outcomes if outcome.error is not None])


def _one_line(item: FetchItem, progress: "Progress", seconds: float) -> str:
    place = safe(str(progress.path or item.target or ""))
    if progress.phase == "already_present":
        return f"{item.name} is there already, whole: {place}"
    return f"{item.name}: {_amounts([progress], seconds)}, to {place}"


def _amounts(done: "list[Progress]", seconds: float) -> str:
    """`1.5 GiB in 3.4 s (450 MiB/s) from 3 peers, 200 MiB of it were here before`."""
    fetched = [progress for progress in done if progress.phase != "already_present"]
    size_bytes = sum(progress.size_bytes for progress in fetched)
    before_bytes = sum(progress.resumed_bytes for progress in fetched)
    peers = {peer_id for progress in fetched for peer_id, count in progress.received_by_source.items() if count}
    words = f"{format_bytes(size_bytes)} in {format_seconds(seconds)}"
    if seconds > 0 and size_bytes > before_bytes:
        words += f" ({format_bytes((size_bytes - before_bytes) / seconds)}/s)"
    if peers:
        words += f" from {counted(len(peers), 'peer')}"
    return words + (f", {format_bytes(before_bytes)} of it were here before" if before_bytes else "")


def _title(wanted: list[Wanted]) -> str:
    first = wanted[0].last_part + ("/" if wanted[0].is_folder else "")
    return first if len(wanted) == 1 else f"{first} and {len(wanted) - 1} more"
