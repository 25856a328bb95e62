"""`minga doctor`: whether this machine is fit for its network, and what to do where it is not."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from minga.errors import MingaError, SettingsError
from minga.units import format_seconds
from minga_cli import findings
from minga_cli.context import JsonOption, client_settings
from minga_cli.exit_codes import ExitCode
from minga_cli.findings import Finding, State
from minga_cli.output import counted, print_json, safe, say
from minga_cli.running import run_async

if TYPE_CHECKING:
    from minga import AsyncClient, ClientSettings, DaemonStatus

CONNECT_SECONDS = 2.0
MAX_PEERS = 64
"""Peers that are tried, all at once."""
MAX_OFFSET = timedelta(minutes=1)
"""Of the clock. Certificates and times of publication are off by as much."""
LISTED_PEERS = 5


def doctor(context: typer.Context, as_json: JsonOption = False) -> int:
    """Check this machine: what is wrong, and what to do.

    Settings, locator, registry and peers, the clock, credentials, room on the disk, limits of the system. The exit code
    is 0 when nothing keeps this machine from working, warnings or not; else that of the first problem, as of a command
    that runs into it.
    """
    try:
        settings = client_settings(context)
    except SettingsError as error:
        wrong = [Finding("settings", State.PROBLEM, line, code=ExitCode.USAGE) for line in str(error).splitlines()]
        found = [*wrong, *_machine(None)]
    else:
        found = run_async(_examine(settings))
    if as_json:
        print_json({"checks": [_json(finding) for finding in found]})
    else:
        _print(found)
    return next((finding.code for finding in found if finding.state is State.PROBLEM), ExitCode.OK)


def _json(finding: Finding) -> dict[str, Any]:
    return {"check": finding.check, "state": finding.state, "text": finding.text, "advice": finding.advice}


def _print(found: list[Finding]) -> None:
    for finding in found:
        say(f"{finding.state:<8} {finding.check:<12} {safe(finding.text)}")
        if finding.advice:
            say(f"{'':<8} {'':<12} → {safe(finding.advice)}")
    problems = sum(finding.state is State.PROBLEM for finding in found)
    warnings = sum(finding.state is State.WARNING for finding in found)
    words = [counted(problems, "problem")] if problems else []
    words += [counted(warnings, "warning")] if warnings else []
    say(", ".join(words) or "all is well")


async def _examine(settings: "ClientSettings") -> list[Finding]:
    """Everything, in the order in which one thing needs the other. Raises nothing of ours."""
    from minga import AsyncClient

    found = [Finding.good("settings", f"locator {settings.locator}, socket of the peer {settings.control}")]
    client = AsyncClient(settings, retry_budget=timedelta(0))
    try:
        # Entering renews credentials that are due.
        async with client:
            found += findings.credentials(client.credentials_end(), client.grant_end(), time.time())
            for path in _secrets(settings):
                found += findings.secret(path)
            found += [finding async for finding in _network(client)]
            status, about = await _daemon(client)
    except MingaError as error:
        found.append(Finding.of_error("credentials", error))
        status, about = None, []
    found += about
    if status is not None:
        found.append(await _registry(status))
    return [*found, *await asyncio.to_thread(_machine, status)]


def _machine(status: "DaemonStatus | None") -> list[Finding]:
    """What can be seen without the network."""
    folders = [(status.share_dir, "shared")] if status is not None else [(Path(), "the current folder")]
    return [*findings.disk(folders), *findings.temporary(), findings.inotify(), findings.open_files()]


def _secrets(settings: "ClientSettings") -> list[Path]:
    """Files that only this user should be able to read."""
    return [path for path in (settings.tls.key if settings.tls is not None else None, settings.grant) if path]


async def _network(client: "AsyncClient") -> AsyncIterator[Finding]:
    """The locator, the clock by it, and the peers that it names."""
    started = time.monotonic()
    try:
        figures = await client.stats()
        took = time.monotonic() - started
        url = client.settings.locator
        files = counted(figures.names, "name") + (" at least" if figures.lower_bound else "")
        yield Finding.good("locator", f"{url} answers in {format_seconds(took)}: {files}")
        yield _clock(await client.clock_offset())
        yield await _peers(client)
    except MingaError as error:
        yield Finding.of_error("locator", error)


def _clock(offset: timedelta | None) -> Finding:
    if offset is None:
        return Finding.warning("clock", "the locator does not say what time it is", "is it behind a proxy?")
    seconds = offset.total_seconds()
    if abs(offset) < MAX_OFFSET:
        return Finding.good("clock", "within a minute of the locator's")
    words = f"{format_seconds(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'} the locator's"
    advice = "set both clocks by NTP (`timedatectl set-ntp true`): certificates and grants count by time"
    return Finding.warning("clock", words, advice)


async def _peers(client: "AsyncClient") -> Finding:
    """Whether the peers that the locator names can be reached from here."""
    addresses: dict[str, str] = {}
    async with aclosing(client.peers()) as listed:
        async for peer in listed:
            addresses[peer.peer_id] = peer.address
            if len(addresses) == MAX_PEERS:
                break
    if not addresses:
        return Finding.warning("peers", "none is alive", "start one with `minga peer --share DIR`")
    answers = await asyncio.gather(*map(_connects, addresses.values()))
    lost = [
        f"{peer_id} at {address}" for (peer_id, address), why in zip(addresses.items(), answers, strict=True) if why
    ]
    text = f"{len(addresses) - len(lost)} of {len(addresses)} reachable"
    if not lost:
        return Finding.good("peers", text)
    text += f"; not {_some(lost)}"
    advice = "open the port in firewalls; a peer behind NAT needs MINGA_ADVERTISE"
    if len(lost) < len(addresses):
        return Finding.warning("peers", text, advice)
    return Finding("peers", State.PROBLEM, text, advice, ExitCode.UNAVAILABLE)


def _some(words: list[str]) -> str:
    more = f" and {len(words) - LISTED_PEERS} more" if len(words) > LISTED_PEERS else ""
    return ", ".join(islice(words, LISTED_PEERS)) + more


async def _daemon(client: "AsyncClient") -> "tuple[DaemonStatus | None, list[Finding]]":
    """The peer on this machine, when one runs, and what it says itself is wrong."""
    try:
        if not await client.available():
            return None, [await _no_daemon(client.settings.control)]
        status = await client.status()
        await client.uses_daemon()
    except MingaError as error:
        return None, [Finding.of_error("peer here", error)]
    found = [Finding.good("peer here", f"{status.peer_id} shares {status.share_dir}")]
    if client.other_network:
        text = f"its locator is {client.other_network}, not {client.settings.locator}"
        found.append(Finding.warning("peer here", text, "commands do not use it: set MINGA_LOCATOR as the peer has it"))
    found += (Finding.warning("peer here", item.text, _examples(item.examples)) for item in status.conditions)
    return status, found


async def _no_daemon(control: Path) -> Finding:
    """Why there is no answer at a socket."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_unix_connection(control)
    except (OSError, TimeoutError):
        return Finding.good("peer here", "none runs: commands fetch by themselves, and share nothing")
    writer.close()
    text = f"a process has {control} open and does not answer: commands fetch by themselves"
    return Finding.warning("peer here", text, "is the machine overloaded? else stop that peer, and start it again")


def _examples(examples: Iterable[str]) -> str:
    found = list(examples)
    return f"it concerns {_some(found)}" if found else "`minga status` says more"


async def _registry(status: "DaemonStatus") -> Finding:
    """Whether the registry of this machine's peer can be reached, and knows it."""
    if why := await _connects(status.registry):
        text = f"{status.registry} cannot be reached: {why}"
        return Finding(
            "registry", State.PROBLEM, text, "does it run there? MINGA_REGISTRY of the peer", ExitCode.UNAVAILABLE
        )
    if not status.registered:
        text = f"{status.registry} can be reached, and the peer here has no lease"
        return Finding.warning("registry", text, "its log says why; a new peer needs some seconds")
    return Finding.good("registry", f"{status.registry}; the peer here has its lease")


async def _connects(address: str) -> str:
    """Why nothing at host:port takes a connection; empty when it does."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        return f"no answer within {CONNECT_SECONDS:g} s"
    except (OSError, ValueError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return ""
