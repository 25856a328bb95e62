"""`minga preheat`: have other peers fetch something before it is wanted."""

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.errors import InvalidArgumentError, MingaError
from minga.units import format_bytes, format_seconds
from minga_cli.context import JsonOption, QuietOption, client_settings, run_with
from minga_cli.exit_codes import EXIT_CODES, ExitCode
from minga_cli.output import be_quiet, counted, note, print_json, safe, say
from minga_cli.progress_bar import TransferBar
from minga_cli.report import MAX_FAILURES

if TYPE_CHECKING:
    from minga import AsyncClient, Preheated, PreheatedPeer

ITEMS_AT_ONCE = 4
SHOW_SECONDS = 0.25
INTERRUPTED = "interrupted; what is whole stays where it is, and the same command fetches the rest"


def preheat(
    context: typer.Context,
    items: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT",
            help="NAME, https://…, hf://REPO[@REV], or an image: docker.io/library/alpine:3.20.",
            show_default=False,
        ),
    ],
    on: Annotated[
        str, typer.Option("--on", metavar="all|zone=ZONE|N", help="Which peers: all, those of a zone, or N of them.")
    ] = "all",
    platform: Annotated[
        str, typer.Option(metavar="OS/ARCH", help="Of an image: linux/arm64. [each peer's own]", show_default=False)
    ] = "",
    pin: Annotated[bool, typer.Option("--pin", help="It stays there, whatever their MINGA_CACHE.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Of a NAME: replace another content that a peer has under it.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="For all of it.")] = 3600,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int | None:
    """Have other peers fetch something before it is wanted; returns when all of them have it, or have failed.

    One copy leaves its origin, whatever the number of peers. What comes from elsewhere is cached there
    (`minga cache` on those machines), a NAME is held as after `minga get`. It is safe to repeat: those that have it
    answer at once. The exit code is that of the first failure. docs/preheat.md says what peers fetch for whom.
    """
    from minga import AsyncClient

    if not 0 < timeout <= timedelta.max.total_seconds() / 1000:
        raise InvalidArgumentError(f"--timeout {timeout:g} is no number of seconds")
    be_quiet(wanted=quiet)
    options = {"on": on, "platform": platform, "pin": pin, "overwrite": overwrite, "limit": timedelta(seconds=timeout)}

    async def work(client: "AsyncClient") -> int:
        return await _preheat(client, list(dict.fromkeys(items)), options, as_json=as_json)

    return run_with(AsyncClient(client_settings(context)), "preheat", work, INTERRUPTED)


async def _preheat(client: "AsyncClient", items: list[str], options: dict[str, Any], *, as_json: bool) -> int:
    started, turns = time.monotonic(), asyncio.Semaphore(ITEMS_AT_ONCE)
    title = items[0] if len(items) == 1 else counted(len(items), "item")
    outcomes: dict[str, Preheated | MingaError] = {}
    with TransferBar(title, len(items), 0, shown=not as_json) as bar:
        showing = _Showing(bar)

        async def one(item: str) -> None:
            async with turns:
                try:
                    outcomes[item] = await client.preheat(item, on_progress=showing.note, **options)
                except MingaError as error:
                    outcomes[item] = error
                bar.ended()

        await asyncio.gather(*(one(item) for item in items))
    if as_json:
        print_json({"items": [_document(item, outcomes[item]) for item in items]})
    else:
        for item in items:
            _report(item, outcomes[item], time.monotonic() - started)
    return next(filter(None, (_code(outcomes[item]) for item in items)), ExitCode.OK)


class _Showing:
    """Shows how far items are, a few times a second: each of many peers says something twice a second."""

    def __init__(self, bar: TransferBar) -> None:
        self._bar = bar
        self._shown_at: dict[str, float] = {}

    def note(self, preheated: "Preheated") -> None:
        """Show bytes on all of its peers."""
        if time.monotonic() - self._shown_at.get(preheated.item, 0.0) < SHOW_SECONDS:
            return
        self._shown_at[preheated.item] = time.monotonic()
        going = [peer.step for peer in preheated.by_peer.values() if peer.error is None]
        held, local = sum(step.held_bytes for step in going), sum(step.local_bytes for step in going)
        doing = f"on {len(preheated.done)} of {counted(preheated.wanted, 'peer')}"
        self._bar.update(
            preheated.item, preheated.size_bytes * preheated.wanted, held, resumed_bytes=local, doing=doing
        )


def _report(item: str, outcome: "Preheated | MingaError", seconds: float) -> None:
    if isinstance(outcome, MingaError):
        hint = f" ({outcome.hint})" if outcome.hint else ""
        note(f"minga: {safe(item)}: {safe(f'{outcome}{hint}')}")
        return
    done = outcome.done
    version = f" ({', '.join(outcome.resolved)})" if outcome.resolved else ""
    place = (
        f"on {len(done)} of {counted(outcome.wanted, 'peer')}"
        if outcome.missing
        else f"on {counted(len(done), 'peer')}"
    )
    amounts = [
        f"{format_bytes(amount)} {words}"
        for amount, words in (
            (sum(peer.step.upstream_bytes for peer in done), "from its origin"),
            (sum(peer.step.peers_bytes for peer in done), "from peers"),
            (sum(peer.step.local_bytes for peer in done), "there before"),
        )
        if amount
    ]
    size = format_bytes(outcome.size_bytes)
    said = ", ".join([f"{size} {place} in {format_seconds(seconds)}", *amounts])
    say(f"{safe(item)}{safe(version)}: {said}")
    for peer in outcome.failed[:MAX_FAILURES]:
        note(f"minga: {safe(item)} is not on {peer.peer_id}: {safe(_reason(peer))}")
    if len(outcome.failed) > MAX_FAILURES:
        note(f"minga: … and not on {len(outcome.failed) - MAX_FAILURES:,} more")


def _reason(peer: "PreheatedPeer") -> str:
    error = peer.error
    return "" if error is None else f"{error} ({error.hint})" if error.hint else str(error)


def _code(outcome: "Preheated | MingaError") -> int:
    if isinstance(outcome, MingaError):
        return EXIT_CODES[outcome.code]
    if not outcome.missing:
        return ExitCode.OK
    errors = [peer.error for peer in outcome.failed if peer.error is not None]
    return EXIT_CODES[errors[0].code] if errors else ExitCode.UNAVAILABLE


def _document(item: str, outcome: "Preheated | MingaError") -> dict[str, Any]:
    if not isinstance(outcome, MingaError):
        return outcome.document()
    return {"item": item, "error": {"code": outcome.code.value, "message": str(outcome)}}
