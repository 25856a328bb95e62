"""docs/scale.md: the text of `scale.md.in`, figures and tables as they are computed. `make references` writes it."""

from dataclasses import replace
from pathlib import Path
from string import Template
from textwrap import fill

from bench.directory.model import tables
from bench.directory.model.comeback import unknown_share
from bench.directory.model.costs import MEASURED, MICROS, UnitCosts
from bench.directory.model.limits import COPIES, FILES, limits, registered_in_time, rows_in_time
from bench.directory.model.steady import lookup_commands, lookup_locator, steady, store_wait
from bench.directory.model.tables import BILLION, MIDDLE, minutes
from minga_directory.keys import CONTENT_SHARDS, NAME_SHARDS
from minga_directory.leases import MAX_RECOVERY_SECONDS
from minga_directory.reader import MAX_PEERS_IN_STATS, MAX_SCANNED_NAMES
from minga_directory.store import ANSWER_SECONDS
from minga_peer.clients.registry import PUSH_TIMEOUT
from minga_peer.daemon.announcer import JITTER, MAX_RETRY_SECONDS
from minga_peer.daemon.registry import PUSH_TIMEOUT

TEXT = Path(__file__).parent / "scale.md.in"
WIDTH = 120


def scale_markdown(costs: UnitCosts = MEASURED) -> str:
    """The page."""
    return filled(Template(TEXT.read_text()).substitute(values(costs)))


def values(costs: UnitCosts = MEASURED) -> dict[str, str]:
    """What stands in the text, by the names that it has there."""
    return {**_tables(costs), **_of_a_day(costs), **_of_limits(costs), **_of_a_loss(costs)}


def _tables(costs: UnitCosts) -> dict[str, str]:
    return {
        "needs": tables.needs(costs),
        "first_to_break": tables.first_to_break(costs),
        "comebacks": tables.comebacks(costs),
        "unknown": tables.unknown(costs),
        "departures": tables.departures(costs),
        "checks": tables.checks(),
    }


def _of_a_day(costs: UnitCosts) -> dict[str, str]:
    it = BILLION
    single = costs.entry_bytes(1)
    return {
        "copies": f"{COPIES}",
        "files": f"{FILES:,}",
        "interval": f"{it.interval_seconds:g}",
        "beats": f"{it.beats:,.0f}",
        "changes": f"{it.changes_a_day:g}",
        "entries": tables.count(it.entries),
        "primaries": f"{it.primaries}",
        "entry_bytes": f"{costs.entry_bytes(COPIES):.0f}",
        "single_bytes": f"{single:.0f}",
        "single_memory": tables.memory(it.entries * single),
    }


def _of_limits(costs: UnitCosts) -> dict[str, str]:
    it, load = BILLION, steady(BILLION, costs)
    shard = (it.entries * costs.entry_holder_bytes + it.contents * costs.content_bytes) / CONTENT_SHARDS
    pages = it.contents / MAX_SCANNED_NAMES
    return {
        "rows_in_time": f"{tables.round_down(rows_in_time(it, costs)):,}",
        "rows_in_time_of_eight": f"{tables.round_down(rows_in_time(replace(it, max_pushes=8), costs)):,}",
        "places": f"{ANSWER_SECONDS / store_wait(replace(MIDDLE, registries=1, max_pushes=1), costs):.0f}",
        "places_of_two": f"{2 * it.max_pushes}",
        "push_timeout": f"{PUSH_TIMEOUT.total_seconds():g}",
        "registry_memory": tables.memory(load.registry_bytes),
        "registry_connections": f"{load.registry_connections:,}",
        "connects": f"{load.connects_a_second:.0f}",
        "hottest_contents": tables.hottest_contents(it.primaries),
        "shard_memory": tables.memory(shard),
        "names_a_shard": f"{it.contents / NAME_SHARDS / 1e6:.3g}",
        "content_shards": f"{CONTENT_SHARDS}",
        "name_shards": f"{NAME_SHARDS}",
        "all_slots": f"{CONTENT_SHARDS + NAME_SHARDS + 1}",
        "lookup_commands": f"{lookup_commands(it)}",
        "lookup_in_steps": f"{lookup_locator(it, costs) / 1e3:.1f}",
        "lookup_at_once": f"{lookup_locator(MIDDLE, costs) / 1e3:.1f}",
        "scanned_names": f"{MAX_SCANNED_NAMES:,}",
        "search_pages": f"{pages:,.0f}",
        "search_minutes": minutes(pages * costs.search_page * MICROS),
        "stats_peers": f"{MAX_PEERS_IN_STATS:,}",
        "stats_seconds": f"{MAX_PEERS_IN_STATS * costs.peer_listed * MICROS:.1f}",
        "store_clients": f"{load.store_clients:,}",
        "all_slot_cores": f"{load.all_slot_cores:.2f}",
        "all_slot_peers": tables.count(limits(costs)[-1].peers),
    }


def _of_a_loss(costs: UnitCosts) -> dict[str, str]:
    it = BILLION
    tries = it.peers / (0.75 * MAX_RETRY_SECONDS)
    return {
        "noticed": f"{(1 + JITTER) * it.interval_seconds:g}",
        "max_fill": minutes(MAX_RECOVERY_SECONDS),
        "retry_least": f"{MAX_RETRY_SECONDS / 2:g}",
        "retry_most": f"{MAX_RETRY_SECONDS:g}",
        "tries": f"{tables.round_down(tries):,}",
        "refusing_cores": f"{tries * costs.refused_push * MICROS:.0f}",
        "answer_seconds": f"{ANSWER_SECONDS:g}",
        "registered_in_time": f"{tables.round_down(registered_in_time(costs)):,}",
        "enough_back": f"{1 - 0.01 ** (1 / COPIES):.0%}",
        "unknown_at_fifth": f"{unknown_share(0.2, COPIES):.0%}",
        "failed_lookups": f"{1 - (1 - 1 / it.primaries) ** (COPIES + 2):.0%}",
    }


def filled(text: str) -> str:
    """The text with its paragraphs and points in full lines; tables, titles and everything else as it was."""
    blocks = text.split("\n\n")
    return "\n\n".join(block if block.startswith(("#", "|")) else _filled(block) for block in blocks).rstrip() + "\n"


def _filled(block: str) -> str:
    points = block.replace("\n  ", " ").split("\n- ") if block.startswith("- ") else [block]
    indent = "  " if block.startswith("- ") else ""
    marked = [points[0], *(f"- {point}" for point in points[1:])]
    return "\n".join(
        fill(point, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) for point in marked
    )
