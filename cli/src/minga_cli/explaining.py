"""What `minga get --explain` prints: where the bytes came from, and where the time went."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from minga import Explanation, PeerId, Phase, Progress, SlowReason, SlowSource, SourceShare, WaitCause
from minga.units import format_bytes, format_rate, format_seconds
from minga_cli.output import counted, print_table, safe, say

K = TypeVar("K")

MAX_ROWS = 12
"""Sources with a row of their own; the rest are summed up in one."""
MIN_SECONDS = 0.005
"""Phases and pauses below that are left out."""
MIN_SHARE = 0.02
"""So are causes of waiting with less than that share of all of it."""
AROUND_SECONDS = 0.1
"""Time of the command beside the download (to ask for it, to copy the file), from which on it is printed."""

_TITLES = ["  SOURCE", "BYTES", "SHARE", "CHUNKS", "RATE", "NOTES"]
_TITLES_OF_SEVERAL = ["RATE A FILE" if title == "RATE" else title for title in _TITLES]
_CAUSES = {
    WaitCause.QUEUE: "no source had begun to send",
    WaitCause.SILENCE: "the sources fell silent",
    WaitCause.BUSY: "all sources busy",
    WaitCause.NOTHING_NEW: "no source had anything new",
    WaitCause.NO_SOURCE: "no source reachable",
    WaitCause.LIMIT: "held back by the download limit",
    WaitCause.DISK: "the disk here was writing",
}
_PHASES = {
    Phase.LOCATING: "locating",
    Phase.MANIFEST: "manifest",
    Phase.WAITING: "waiting for any source",
    Phase.FETCHING: "fetching",
    Phase.FINISHING: "sync and rename",
}


def explain(done: Sequence[tuple[str, Progress]], command_seconds: float = 0.0) -> None:
    """Print the explanation of one download, or of several: summed up, with the slowest of them named.

    done: each file's name and last progress. command_seconds: how long the command took in all, as it printed.
    """
    found = [(name, explanation) for name, last in done if (explanation := _explanation_of(last)) is not None]
    if not found:
        say("  nothing had to be fetched")
        return
    whole = found[0][1] if len(found) == 1 else _summed([item for _, item in found])
    several = len(found) > 1
    if rows := _rows(whole):
        titles = _TITLES_OF_SEVERAL if several else _TITLES
        print_table(titles, rows, right=titles[1:5])
    lines = _lines_of_several(found) if several else _time_lines(whole, command_seconds)
    lines += [_waited(whole, side_by_side=several), _slowest(whole.slowest), _extra(whole)]
    shown = [(label, text) for label, text in lines if text]
    width = max((len(label) for label, _ in shown), default=0)
    for label, text in shown:
        say(f"  {label:<{width}}  {safe(text)}")


def _explanation_of(last: Progress) -> Explanation | None:
    """What is known of a download. Of one that came in a call with many others: its source, and no time of its own."""
    if last.explanation is not None or not last.received_by_source:
        return last.explanation
    sources = [
        SourceShare(peer_id, complete=True, received_bytes=count, chunk_count=1)
        for peer_id, count in last.received_by_source.items()
    ]
    return Explanation(size_bytes=last.size_bytes, resumed_bytes=last.resumed_bytes, sources=tuple(sources))


def _lines_of_several(found: Sequence[tuple[str, Explanation]]) -> list[tuple[str, str]]:
    name, slowest = max(found, key=lambda item: item[1].seconds)
    together = sum(item.seconds == 0 for _, item in found)
    words = f"{counted(together, 'small file')} came many in a call, without times of their own"
    return [
        ("slowest file", _of_file(name, slowest) if slowest.seconds else ""),
        ("together", words if together else ""),
    ]


def span(seconds: float) -> str:
    """A short duration for people: `8 ms`, `0.4 s`, `12 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.0995 else format_seconds(seconds)


def _rows(found: Explanation) -> list[list[str]]:
    shown, rest = found.sources[:MAX_ROWS], found.sources[MAX_ROWS:]
    total = sum(source.received_bytes for source in found.sources)
    rows = [_row(f"  {source.peer_id}", source, total, _notes(source)) for source in shown]
    if rest:
        others = _added(rest)
        rows.append(_row(f"  {counted(len(rest), 'other')}", replace(others, working_seconds=0.0), total, ""))
    return rows


def _row(label: str, source: SourceShare, total_bytes: int, notes: str) -> list[str]:
    share = f"{100 * source.received_bytes / total_bytes:.0f} %" if total_bytes else "-"
    rate = format_rate(source.rate) if source.rate > 0 else "-"
    return [label, format_bytes(source.received_bytes), share, f"{source.chunk_count:,}", rate, notes]


def _notes(source: SourceShare) -> str:
    """What there is to say of a source; empty when it just sent."""
    words = [] if source.complete else ["fetching it too"]
    words += ["same zone"] if source.same_zone else []
    words += [f"busy {_times(source.busy_answers)}"] if source.busy_answers else []
    words += [f"connection lost {_times(source.losses)}"] if source.losses else []
    words += [f"{counted(source.corrupt_chunks, 'wrong chunk')}: banned"] if source.corrupt_chunks else []
    known = source.losses or source.corrupt_chunks
    words += [] if known else [f"dropped {_times(count)}: {why}" for why, count in source.drops.items()]
    return ", ".join(words)


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _time_lines(found: Explanation, command_seconds: float) -> list[tuple[str, str]]:
    parts = [f"{span(part)} {_PHASES[phase]}" for phase, part in _in_order(found) if part >= MIN_SECONDS]
    words = f"{span(found.seconds)}: {', '.join(parts)}" if parts else span(found.seconds)
    around = command_seconds - found.seconds
    words += f"; {span(around)} more before and after it" if around >= AROUND_SECONDS else ""
    lines = [("time", words)]
    if (bound := _bound(found)) is not None:
        lines.append(("bound", bound))
    return lines


def _in_order(found: Explanation) -> list[tuple[Phase, float]]:
    return [(phase, found.phase_seconds[phase]) for phase in Phase if phase in found.phase_seconds]


def _bound(found: Explanation) -> str | None:
    """What the ratio is, and what it is measured by."""
    ratio = found.ratio_to_bound
    if ratio is None:
        return None
    if found.limited:
        by = f"the download limit of {format_rate(found.limit_rate)}"
    elif found.phase_seconds.get(Phase.FETCHING, 0.0) < 1.0:
        by = f"the rate while fetching, {format_rate(found.best_rate)}"
    else:
        by = f"the rate of the best second, {format_rate(found.best_rate)}"
    return f"{ratio:.2f} × the {span(found.bound_seconds)} that it takes at {by}"


def _waited(found: Explanation, *, side_by_side: bool) -> tuple[str, str]:
    total = sum(found.waited_seconds.values())
    worth = max(MIN_SECONDS, total * MIN_SHARE)
    parts = [(cause, part) for cause, part in found.waited_seconds.items() if part >= worth]
    if not parts:
        return "waited", ""
    parts.sort(key=lambda item: -item[1])
    causes = [_CAUSES[cause] + (f" ({span(part)})" if len(parts) > 1 else "") for cause, part in parts]
    added = ", added up over all files" if side_by_side else ""
    longest = span(found.longest_wait_seconds)
    words = "" if longest == span(total) else f"; the longest pause took {longest}"
    return "waited", f"nothing came for {span(total)}{added}: {', '.join(causes)}{words}"


def _slowest(slow: SlowSource | None) -> tuple[str, str]:
    if slow is None:
        return "slowest", ""
    source = slow.source
    queued, worked = span(source.queued_seconds), span(source.working_seconds)
    words = {
        SlowReason.CORRUPT: "it sent wrong bytes and was banned",
        SlowReason.LOST: f"its connection was lost {_times(source.losses)}",
        SlowReason.DROPPED: f"it was dropped: {', '.join(source.drops)}",
        SlowReason.BUSY: f"it answered busy {_times(source.busy_answers)}",
        SlowReason.QUEUE: f"{queued} of {worked} passed before it began to send",
        SlowReason.PARTIAL: "it was fetching the file itself",
        SlowReason.RATE: "nothing that can be seen from here says why",
        SlowReason.EVEN: "about as fast as the others",
    }[slow.reason]
    share = "" if slow.reason is SlowReason.EVEN else f", {100 * slow.share_of_median:.0f} % of the median"
    return "slowest", f"{source.peer_id}, {format_rate(source.rate)}{share}: {words}"


def _extra(found: Explanation) -> tuple[str, str]:
    """Work that was done twice or for nothing."""
    words = [f"{counted(found.hedges, 'late chunk')} requested from a second source"] if found.hedges else []
    words += [f"{counted(found.duplicates, 'chunk')} came twice"] if found.duplicates else []
    words += [f"{format_bytes(found.wasted_bytes)} came and were not kept"] if found.wasted_bytes else []
    return "extra", ", ".join(words)


def _of_file(name: str, found: Explanation) -> str:
    phase, part = max(_in_order(found), key=lambda item: item[1], default=(Phase.FETCHING, 0.0))
    words = f"{name}, {format_bytes(found.fetched_bytes)} in {span(found.seconds)}"
    return f"{words}, {span(part)} of it {_PHASES[phase]}"


def _summed(found: Sequence[Explanation]) -> Explanation:
    """Several downloads as one: bytes, counts and waits added up. No phases and no bound: they ran side by side."""
    by_source: dict[PeerId, list[SourceShare]] = {}
    for item in found:
        for source in item.sources:
            by_source.setdefault(source.peer_id, []).append(source)
    sources = sorted((_added(parts) for parts in by_source.values()), key=lambda source: -source.received_bytes)
    return Explanation(
        **_totals(found, ("size_bytes", "resumed_bytes", "wasted_bytes", "hedges", "duplicates")),
        sources=tuple(sources),
        waited_seconds=_merged(item.waited_seconds.items() for item in found),
        longest_wait_seconds=max(item.longest_wait_seconds for item in found),
    )


def _added(parts: Sequence[SourceShare]) -> SourceShare:
    """One source's, or several sources', parts as one."""
    counts = ("received_bytes", "chunk_count", "queued_seconds", "busy_answers", "losses", "corrupt_chunks")
    total = SourceShare(
        parts[0].peer_id,
        complete=all(part.complete for part in parts),
        same_zone=all(part.same_zone for part in parts),
        drops=_merged(part.drops.items() for part in parts),
        **_totals(parts, counts),
    )
    timed_bytes = sum(part.received_bytes for part in parts if part.working_seconds)
    seconds = sum(part.working_seconds for part in parts)
    if timed_bytes < total.received_bytes:
        # Some have no time of their own: they count as fast as the others, unless they are the most of it.
        known = timed_bytes > total.received_bytes / 2
        seconds = seconds * total.received_bytes / timed_bytes if known else 0.0
    return replace(total, working_seconds=seconds)


def _totals(parts: Sequence[object], names: Iterable[str]) -> dict[str, Any]:
    return {name: sum(getattr(part, name) for part in parts) for name in names}


def _merged(parts: "Iterable[Iterable[tuple[K, Any]]]") -> "dict[K, Any]":
    """Maps with their values added up."""
    total: Counter[K] = Counter()
    for items in parts:
        total.update(dict(items))
    return dict(total)
