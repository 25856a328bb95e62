"""Assemble answers from the holders that were found. Pure."""

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from minga_core.ids import ContentId, PeerId
from minga_core.records import HoldingState
from minga_directory.codec import RowSummary
from minga_directory.directory import Holder, Version

SAMPLE_HOLDERS = 100
"""Holders of a content that are checked; of more, a random sample stands for all, and counts are estimates."""


class Found(NamedTuple):
    """A living peer whose table has the content, with its row."""

    holder: Holder
    row: RowSummary


def version_of(
    content_id: ContentId, found: Sequence[Found], max_holders: int, rng: random.Random, *, scale: float = 1.0
) -> Version:
    """The version that these living holders (at least one) make.

    scale: how many holders each of them stands for, when they are a sample.
    """
    rows = {one.row for one in found}
    return version_of_rows(content_id, rows, [one.holder for one in found], max_holders, rng, scale=scale)


def version_of_rows(
    content_id: ContentId,
    rows: Collection[RowSummary],
    holders: Sequence[Holder],
    max_holders: int,
    rng: random.Random,
    *,
    scale: float = 1.0,
) -> Version:
    """As `version_of`, of the different rows that the holders have: mostly all have equal ones."""
    row = min(rows, key=_precedence)
    complete = [holder.state for holder in holders].count(HoldingState.COMPLETE)
    return Version(
        content_id=content_id,
        size_bytes=row.size_bytes,
        published_ns=row.published_ns,
        modified_ns=row.modified_ns,
        executable=row.executable,
        holders=chosen_holders(holders, max_holders, rng),
        complete_count=round(complete * scale),
        partial_count=round((len(holders) - complete) * scale),
    )


def _precedence(row: RowSummary) -> tuple[int, bool, int, bool]:
    """The latest claim comes first; of equal ones a complete file, then the one that was modified first: copies may
    have times of their own."""
    return -row.published_ns, row.state is not HoldingState.COMPLETE, row.modified_ns, row.executable


def chosen_holders(holders: Sequence[Holder], max_holders: int, rng: random.Random) -> tuple[Holder, ...]:
    """A random sample in random order; complete ones first when there are more than `max_holders`."""
    random_key = rng.random
    # A third of what `rng.sample` costs, and this is on the way of every look-up.
    shuffled = sorted(holders, key=lambda _: random_key())
    if len(shuffled) > max_holders:
        shuffled.sort(key=lambda holder: holder.state is not HoldingState.COMPLETE)
    return tuple(shuffled[:max_holders])


def default_first(versions: Iterable[Version]) -> list[Version]:
    """Versions with the default first: the newest published one that is available, and only then those that are not.

    Content ids decide between equals. The default has `newer_incomplete` when a newer version comes after it.
    """
    ordered = sorted(
        versions, key=lambda version: (not is_available(version), -version.published_ns, version.content_id)
    )
    if any(version.published_ns > ordered[0].published_ns for version in ordered[1:]):
        ordered[0] = replace(ordered[0], newer_incomplete=True)
    return ordered


def is_available(version: Version) -> bool:
    """Whether a peer has all of it. So many partial holders that only a sample was checked are no broken-off upload:
    the sample may lack the complete one."""
    return version.complete_count > 0 or version.partial_count > SAMPLE_HOLDERS


def merge_found(best: dict[PeerId, Found], found: Iterable[Found]) -> None:
    """Adds holders under one more name: one entry a peer, complete rather than partial, the row that was published
    last."""
    for one in found:
        known = best.setdefault(one.holder.peer_id, one)
        states = (known.holder.state, one.holder.state)
        state = HoldingState.COMPLETE if HoldingState.COMPLETE in states else HoldingState.PARTIAL
        row = min(known.row, one.row, key=_precedence)
        best[one.holder.peer_id] = Found(known.holder._replace(state=state), row)
