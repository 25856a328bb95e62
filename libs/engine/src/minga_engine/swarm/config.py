"""The swarm's figures, with the measurements behind them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SwarmConfig:
    """How one download behaves. Durations in seconds, sizes in bytes."""

    max_sources: int = 24
    """Sources asked at once; more are kept in reserve. (design: up to 10. Simulated, 16 downloaders of 256 chunks over
    equal links: the last ends after 1.70 × the lower bound with 10, 1.31 × with 16, before uploads were queued; with
    32 downloaders, 1.78 with 16 and 1.21 to 1.40 with 24.)"""
    max_outstanding: int = 4
    """Requests in flight to a lone source that serves promptly; with several, they share these, and each has one at
    least. (design: 2 to 4. Simulated: four to each of many claim so much that others find nothing to request, 1.26
    instead of 1.10.)"""
    prompt_seconds: float = 0.05
    """A source that lets requests wait for longer has one at a time: more would only wait longer."""
    min_total: int = 4
    """Requests in flight to all sources together, whatever the rate."""
    total_seconds: float = 2.0
    """How much of the measured rate is asked for ahead from all sources together."""
    max_outstanding_bytes: int = 64 * 1024 * 1024
    """Chunk bytes in flight from all sources together: the bound of a download's memory. One request always passes."""
    max_candidates: int = 16
    """Chunks that a request lets its source choose among; more would starve other sources of unclaimed chunks."""
    random_first_chunks: int = 4
    """So many chunks are chosen at random before rarest-first begins, so that there is soon something to serve."""
    min_deadline_seconds: float = 1.0
    """No chunk is overdue before. (design: max(1 s, 3 × expected); twice that since requests wait for a slot)"""
    deadline_factor: float = 6.0
    """A chunk is overdue after so many times its expected duration."""
    unknown_rate_deadline_seconds: float = 6.0
    """A chunk from a source of unknown rate is overdue after this."""
    hedge_factor: float = 20.0
    """A source with nothing else to do takes over a chunk when it is so many times faster than the one sending it.
    (Simulated as above: with 4, uplinks are busy with second copies, and the ratio is 1.13 instead of 1.09 to 1.11.)"""
    end_chunks: int = 4
    """With so few chunks missing, and at most a sixteenth of them all, hedges are made sooner."""
    end_hedge_factor: float = 2.0
    """As hedge_factor, when few chunks are missing."""
    stall_seconds: float = 10.0
    """A source with requests and no byte for so long is dropped."""
    stall_backoff_seconds: float = 30.0
    """Pause after a stall, or after a source did not have what it had announced."""
    lost_backoff_seconds: float = 1.0
    """Pause after a lost connection; doubles with each loss in a row."""
    max_lost_backoff_seconds: float = 30.0
    """Bound of the doubled backoff."""
    unlisted_losses: int = 3
    """After so many losses in a row a source that only others have named is given up, until the directory names it:
    its address may be that of a host which has nothing to do with this network."""
    few_sources: int = 3
    """With fewer usable sources the directory is asked at the shorter interval."""
    find_sources_interval_seconds: float = 2.0
    """Interval of asking the directory while there are few usable sources."""
    refresh_sources_interval_seconds: float = 10.0
    """Interval of asking the directory otherwise, for new sources."""
    replace_interval_seconds: float = 10.0
    """How often a slow source may be exchanged for one in reserve."""
    replace_below_share: float = 0.25
    """A source slower than this share of the median is slow."""
    rate_memory_seconds: float = 2.0
    """Time constant of the rate estimate."""
    read_ahead_chunks: int = 4
    """Chunks that come before all others for a reader of one byte after the other: 64 MiB of the largest. (Simulated:
    16 readers of 256 chunks over equal links, the last ends after 1.1 × the time of downloads, with 1 as with 256.)"""
    awaited_seconds: float = 1.0
    """So long, at least, a reader that wants everything leaves the choice of the chunk to sources that others download
    from."""
    awaited_chunks: int = 24
    """As long as so many chunks take at the measured rate, if that is longer: a chunk goes through several peers.
    (Simulated, 7 readers of 256 chunks of 4 MiB over links of 100 Mbit/s, from a peer that fetches it meanwhile: the
    last ends after 1.45 × the time of one download when they wait for 1 s, 1.14 with 24 chunks.)"""
    max_awaited_seconds: float = 5.0
    """At most: clients give up after 10 seconds without a byte."""
