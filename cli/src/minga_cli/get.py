"""`minga get`: files and folders from the network to this machine."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from minga import ContentId, parse_name
from minga.errors import (
    FileNotFoundInDirectoryError,
    InvalidArgumentError,
    LimitExceededError,
    MingaError,
    NameTakenError,
)
from minga.units import format_bytes, format_rate, format_seconds
from minga_cli.completion import complete_name
from minga_cli.context import (
    LimitDownOption,
    QuietOption,
    StandaloneOption,
    WaitOption,
    client_settings,
    run_with,
    source_wait,
)
from minga_cli.listing import not_found
from minga_cli.output import be_quiet, counted, safe, say
from minga_cli.passing import STREAM, uses_daemon, write_out
from minga_cli.progress_bar import TransferBar, show_fetched
from minga_cli.report import report
from minga_cli.targets import Layout, Wanted, refuse_collisions

if TYPE_CHECKING:
    from minga import AsyncClient, FetchItem, Progress

MAX_FILES = 1_000_000
"""Files of one folder: a command holds the list of what it fetches in memory."""
INTERRUPTED = "interrupted; what was fetched is kept, and the same command goes on from there"


def get(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME",
            help="Files, folders as `NAME/`, or URLs of files elsewhere: https://, s3://, gs://, hf://.",
            show_default=False,
            autocompletion=complete_name,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Where to; inside it when it is a folder or ends in `/`. Otherwise the peer's shared folder, or the "
            "current one when no peer runs here. `-`: write it to standard output, as `minga cat` does.",
        ),
    ] = None,
    content_id: Annotated[
        str | None, typer.Option(metavar="ID", help="That version (b3:…) instead of the newest.")
    ] = None,
    publish_as: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Publish a file of a URL under that name too.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another content of that name.")] = False,
    wait: WaitOption = None,
    standalone: StandaloneOption = False,
    limit_down: LimitDownOption = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say where the bytes came from, and where the time went.")
    ] = False,
    quiet: QuietOption = False,
) -> int | None:
    """Fetch files or folders, from many peers at once.

    From all that have any part of a file. Goes on where an earlier attempt ended; leaves alone what is there and
    whole. With a peer on this machine the file lands in its shared folder, which makes this machine a holder, and is
    copied from there to PATH.

    `https://…`, `s3://BUCKET/KEY`, `gs://BUCKET/OBJECT` and `hf://ORG/REPO@REVISION/PATH` are fetched by the peer on
    this machine, once for all machines, and then shared by them; `…#sha256=DIGITS` says what it must be. They are asked
    for with your credentials: ~/.netrc, those of the AWS and Google command lines, the hub's token (docs/origins.md).
    """
    from minga import AsyncClient

    be_quiet(wanted=quiet)
    to_output = output == STREAM
    alone = standalone or (to_output and limit_down is not None)
    client = AsyncClient(client_settings(context, limit_down=limit_down), standalone=alone)
    wanted = [Wanted.parse(name, publish_as) for name in names]
    if publish_as is not None and (len(wanted) > 1 or wanted[0].origin is None):
        raise InvalidArgumentError("--as is the name of one file that is fetched from a URL: give one URL")
    pinned = ContentId.parse(content_id) if content_id is not None else None
    if pinned is not None and (len(wanted) > 1 or wanted[0].is_folder or wanted[0].origin is not None):
        raise InvalidArgumentError(
            "--content-id is one version of one file: give one NAME that is no folder, and no URL"
        )
    if to_output:
        if explain:
            raise InvalidArgumentError("--explain would go to standard output, as the file does: give a path")
        limit = source_wait(wait)
        return run_with(client, "get", lambda client: write_out(client, wanted, pinned, limit))
    request = GetRequest(
        wanted, output, pinned, overwrite, source_wait(wait), limited=limit_down is not None, explain=explain
    )
    return run_with(client, "get", lambda client: get_files(client, request), INTERRUPTED)


@dataclass(frozen=True, slots=True)
class GetRequest:
    """A `minga get` as given."""

    wanted: list[Wanted]
    output: str | None = None
    content_id: ContentId | None = None
    overwrite: bool = False
    wait: timedelta | None = None
    limited: bool = False
    """A limit was given with the command: it holds for the command's own transfers alone."""
    explain: bool = False


async def get_files(client: "AsyncClient", request: GetRequest) -> int:
    """Fetch all that is wanted and print how it went; the exit code.

    One file's error is raised; of several, each has a line and the first decides the exit code.
    """
    started = time.monotonic()
    into_share = await uses_daemon(client)
    if into_share and request.limited:
        raise InvalidArgumentError(
            "--limit-down is for what this command fetches itself; the peer on this machine has its own limits",
            hint="add --standalone, or start the peer with --limit-down",
        )
    layout = Layout(request.output, into_share=into_share, several=len(request.wanted) > 1)
    with TransferBar(_title(request.wanted), 0, 0) as bar:
        async with aclosing(_items(client, request.wanted, layout, bar)) as items:
            outcomes = await client.get_many(
                items,
                content_id=request.content_id,
                overwrite=request.overwrite,
                wait=request.wait,
                on_progress=lambda item, progress: show_fetched(bar, item.name, progress, item.size_bytes),
                on_end=lambda item: bar.ended(),
            )
    seconds = time.monotonic() - started
    done = [outcome.result for outcome in outcomes if outcome.result is not None]
    if len(outcomes) > 1:
        present = sum(progress.phase == "already_present" for progress in done)
        code = report(outcomes, "fetched", present, _amounts(done, seconds))
    elif error := outcomes[0].error:
        raise await _with_hint(client, outcomes[0].item, error) from error
    else:
        code = 0
        say(_one_line(outcomes[0].item, done[0], seconds))
    if request.explain:
        from minga_cli.explaining import explain

        explain([(outcome.item.name, outcome.result) for outcome in outcomes if outcome.result is not None], seconds)
    return code


async def _items(
    client: "AsyncClient", wanted: list[Wanted], layout: Layout, bar: TransferBar
) -> "AsyncGenerator[FetchItem, None]":
    """What is wanted. A single folder is fetched while it is listed; of several NAMEs all files are known before one is
    written, for two of them may go to one path."""
    async with aclosing(_listed(client, wanted, layout)) as listed:
        if len(wanted) == 1:
            async for item in listed:
                bar.expect(item.size_bytes)
                yield item
            return
        items = [item async for item in listed]
    refuse_collisions(items)
    for item in items:
        bar.expect(item.size_bytes)
        yield item


async def _listed(client: "AsyncClient", wanted: list[Wanted], layout: Layout) -> "AsyncGenerator[FetchItem, None]":
    """A file for each NAME, or all that are below it when it is a folder."""
    for one in wanted:
        if not one.is_folder:
            yield layout.item(one, parse_name(one.name))
            continue
        count = 0
        async with aclosing(client.ls(one.name + "/")) as files:
            async for file in files:
                count += 1
                if count > MAX_FILES:
                    raise LimitExceededError(
                        f"{one.name}/ has over {MAX_FILES:,} files", hint="fetch its folders one by one"
                    )
                yield layout.item(one, file.name, file.size_bytes)
        if not count:
            raise FileNotFoundInDirectoryError(f"nobody shares a file under {one.name}/", hint="`minga ls` lists all")


async def _with_hint(client: "AsyncClient", item: "FetchItem", error: MingaError) -> MingaError:
    """The error with what to do about it."""
    if isinstance(error, FileNotFoundInDirectoryError) and item.origin is None:
        return await not_found(client, item.name, error)
    if isinstance(error, NameTakenError):
        return NameTakenError(str(error), hint=error.hint or "--overwrite replaces it")
    return error


def _one_line(item: "FetchItem", progress: "Progress", seconds: float) -> str:
    place = safe(str(progress.path or item.target or ""))
    if progress.phase == "already_present":
        return f"{safe(item.name)} is there already, whole: {place}"
    return f"{safe(item.name)}: {_amounts([progress], seconds)}, to {place}"


def _amounts(done: "list[Progress]", seconds: float) -> str:
    """`1.5 GiB in 3.4 s (450 MiB/s) from 3 peers, 200 MiB of it were here before`."""
    fetched = [progress for progress in done if progress.phase != "already_present"]
    size_bytes = sum(progress.size_bytes for progress in fetched)
    resumed_bytes = sum(progress.resumed_bytes for progress in fetched)
    peers = {peer_id for progress in fetched for peer_id, count in progress.received_by_source.items() if count}
    words = f"{format_bytes(size_bytes)} in {format_seconds(seconds)}"
    if seconds > 0 and size_bytes > resumed_bytes:
        words += f" ({format_rate((size_bytes - resumed_bytes) / seconds)})"
    if peers:
        words += f" from {counted(len(peers), 'peer')}"
    return words + (f", {format_bytes(resumed_bytes)} of it were here before" if resumed_bytes else "")


def _title(wanted: list[Wanted]) -> str:
    first = wanted[0].last_part + ("/" if wanted[0].is_folder else "")
    return first if len(wanted) == 1 else f"{first} and {len(wanted) - 1} more"
