"""`minga peers` and `minga status`: which peers are alive, and what the peer on this machine is doing."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import typer

from minga.errors import DaemonUnavailableError
from minga.units import format_bytes, format_rate, format_seconds
from minga_cli.context import JsonOption, run_look_up
from minga_cli.output import (
    counted,
    heading,
    local_time,
    print_json,
    print_json_list,
    print_table,
    rfc3339,
    safe,
    say,
)

if TYPE_CHECKING:
    from minga import AsyncClient, DaemonCondition, DaemonStatus, DaemonTransfer, ListedPeer, ScrubStatus

_PEER_FIELDS = (
    *("peer_id", "address", "zone", "capacity_bytes", "free_bytes", "file_count", "active_serves", "software_version"),
    "gateway_url",
)
_STATUS_FIELDS = (
    *("peer_id", "generation", "address", "registered", "table_revision", "announced_revision"),
    *(
        "file_count",
        "shared_bytes",
        "pending_hash_count",
        "ignored_count",
        "free_bytes",
        "sent_bytes",
        "received_bytes",
    ),
    *("active_serves", "registry", "locator", "software_version", "pid", "limit_up_bytes_per_second"),
    *("limit_down_bytes_per_second", "gateway_url"),
)


def peers(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the peers that are alive.

    With their address, free space, files, and how long their lease still lasts unless it is renewed.
    """
    run_look_up(context, "peers", lambda client: _peers(client, as_json=as_json))


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show what the peer on this machine is doing."""
    run_look_up(context, "status", lambda client: show_status(client, as_json=as_json))


async def _peers(client: "AsyncClient", *, as_json: bool) -> None:
    async with aclosing(client.peers()) as listed:
        if as_json:
            await print_json_list("peers", listed, _peer_json)
            return
        rows = [_peer_row(peer) async for peer in listed]
    titles = ["PEER", "ADDRESS", "ZONE", "FREE", "CAPACITY", "FILES", "SERVES", "LEASE"]
    print_table(titles, rows, right=titles[3:])


async def show_status(client: "AsyncClient", *, as_json: bool = False) -> None:
    """Print what the local peer is doing. Raises DaemonUnavailableError."""
    try:
        found = await client.status()
    except DaemonUnavailableError as error:
        raise DaemonUnavailableError("no peer runs on this machine", hint=error.hint) from error
    if as_json:
        print_json(status_json(found))
        return
    say(heading(found.peer_id))
    for line in status_lines(found):
        say(safe(line))
    if found.downloads:
        titles = ["DOWNLOAD", "HELD", "SIZE", "RATE", "SOURCES"]
        print_table(titles, [_transfer_row(transfer) for transfer in found.downloads], right=titles[1:])


def status_lines(status: "DaemonStatus") -> list[str]:
    """A daemon's status for people."""
    lease = "lives" if status.registered else "none"
    behind = status.table_revision - status.announced_revision
    announced = "all" if behind <= 0 else f"{counted(behind, 'change')} not yet announced to the registry"
    lines = [
        f"serves    {status.address or 'no address yet'}, up {format_seconds(status.uptime.total_seconds())}"
        f", pid {status.pid}, version {status.software_version}",
        f"shares    {status.share_dir}: {counted(status.file_count, 'file')}, {format_bytes(status.shared_bytes)}"
        f", {format_bytes(status.free_bytes)} free",
        f"registry  {status.registry}  lease: {lease}",
        f"locator   {status.locator}",
        f"announced {announced}",
        f"traffic   {format_bytes(status.sent_bytes)} sent, {format_bytes(status.received_bytes)} received"
        f", {counted(status.active_serves, 'chunk')} being served",
    ]
    if status.gateway_url:
        lines.insert(1, f"gateway   {status.gateway_url}")
    up, down = status.limit_up_bytes_per_second, status.limit_down_bytes_per_second
    if up or down:
        lines.append(f"limits    {_limit(up)} up, {_limit(down)} down")
    lines += _scrub_lines(status)
    if status.pending_hash_count:
        lines.append(f"hashing   {counted(status.pending_hash_count, 'file')} to go")
    if status.ignored_count:
        lines.append(f"ignored   {status.ignored_count:,} (files, and folders with all that is in them)")
    for condition in status.conditions:
        lines += _condition_lines(condition)
    return lines


def _condition_lines(condition: "DaemonCondition") -> list[str]:
    """What is wrong, since when, and some of the files or other things concerned."""
    more = condition.count - len(condition.examples)
    return [
        f"problem   {condition.text} ({condition.kind}, since {local_time(condition.began_ns)})",
        *(f"          {example}" for example in condition.examples),
        *([f"          … and {more:,} more"] if more > 0 else []),
    ]


def _scrub_lines(status: "DaemonStatus") -> list[str]:
    """When everything that is shared was read last, how far the pass under way is."""
    scrub = status.scrub
    if scrub.period is None:
        return []
    last = f"all was read by {local_time(scrub.last_end_ns)}" if scrub.last_end_ns is not None else "no pass ended yet"
    now = f", {format_bytes(scrub.read_bytes)} of {format_bytes(status.shared_bytes)} in this pass"
    return [f"scrub     {last}{now if scrub.under_way else ''}"]


def _scrub_json(scrub: "ScrubStatus") -> dict[str, Any]:
    return {
        "period_seconds": scrub.period.total_seconds() if scrub.period is not None else None,
        "last_end_time": rfc3339(scrub.last_end_ns) if scrub.last_end_ns is not None else None,
        "under_way": scrub.under_way,
        "read_bytes": scrub.read_bytes,
    }


def status_json(status: "DaemonStatus") -> dict[str, Any]:
    """A daemon's status as JSON has it."""
    return {name: getattr(status, name) for name in _STATUS_FIELDS} | {
        "share_dir": str(status.share_dir),
        "uptime_seconds": round(status.uptime.total_seconds(), 3),
        "downloads": [_transfer_json(transfer) for transfer in status.downloads],
        "scrub": _scrub_json(status.scrub),
        "conditions": [_condition_json(condition) for condition in status.conditions],
    }


def _condition_json(condition: "DaemonCondition") -> dict[str, Any]:
    return {
        "kind": condition.kind,
        "count": condition.count,
        "examples": list(condition.examples),
        "begin_time": rfc3339(condition.began_ns),
        "text": condition.text,
    }


def _limit(bytes_per_second: int) -> str:
    return format_rate(bytes_per_second) if bytes_per_second else "none"


def _peer_row(peer: "ListedPeer") -> list[str]:
    return [
        peer.peer_id,
        peer.address,
        peer.zone or "-",
        format_bytes(peer.free_bytes),
        format_bytes(peer.capacity_bytes),
        f"{peer.file_count:,}",
        f"{peer.active_serves:,}",
        format_seconds(peer.lease_remaining.total_seconds()),
    ]


def _peer_json(peer: "ListedPeer") -> dict[str, Any]:
    remaining = round(peer.lease_remaining.total_seconds(), 3)
    return {name: getattr(peer, name) for name in _PEER_FIELDS} | {"lease_remaining_seconds": remaining}


def _transfer_row(transfer: "DaemonTransfer") -> list[str]:
    return [
        transfer.name,
        format_bytes(transfer.held_bytes),
        format_bytes(transfer.size_bytes),
        format_rate(transfer.rate_bytes_per_second),
        f"{transfer.active_source_count:,}",
    ]


def _transfer_json(transfer: "DaemonTransfer") -> dict[str, Any]:
    return {
        "name": transfer.name,
        "content_id": str(transfer.content_id) if transfer.content_id else None,
        "size_bytes": transfer.size_bytes,
        "held_bytes": transfer.held_bytes,
        "rate_bytes_per_second": round(transfer.rate_bytes_per_second, 1),
        "active_source_count": transfer.active_source_count,
    }
