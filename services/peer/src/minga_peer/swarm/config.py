"""The swarm's figures. Starting values from design.md, "Fetching"; measure and change them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SwarmConfig:
    """How one download behaves. Durations in seconds, sizes in bytes."""

    max_sources: int = 24
    """Sources asked at once; more are kept in reserve. (design: up to 10. Simulated, 16 downloaders of 256 chunks over
    equal links: the last ends after 1.70 × the lower bound with 10, 1.31 × with 16.)"""
    min_outstanding: int = 2
    """Requests in flight to a source whose rate is not known yet: one travels while one is served."""
    max_outstanding: int = 4
    """Requests in flight to the fastest source. (design: 2 to 4, about 1 s of its rate)"""
    prompt_seconds: float = 0.05
    min_total: int = 4
    total_seconds: float = 2.0
    outstanding_seconds: float = 1.0
    """How much of a source's measured rate is asked for ahead."""
    max_outstanding_bytes: int = 64 * 1024 * 1024
    """Chunk bytes in flight from all sources together: the bound of a download's memory. One request always passes."""
    max_candidates: int = 16
    """Chunks that a request lets its source choose among; more would starve other sources of unclaimed chunks."""
    random_first_chunks: int = 4
    """So many chunks are taken by lot before rarest-first begins, so that there is soon something to give."""
    min_deadline_seconds: float = 1.0
    """No chunk is overdue before. (design: max(1 s, 3 × expected))"""
    deadline_factor: float = 6.0
    """A chunk is overdue after so many times its expected duration."""
    unknown_rate_deadline_seconds: float = 6.0
    """A chunk from a source of unknown rate is overdue after this."""
    second_request_factor: float = 20.0
    """A source with nothing else to do takes over a chunk when it is so many times faster than who is sending it.
    (Simulated as above: with 2, uplinks are busy with second copies, and the ratio is 1.52 instead of 1.31.)"""
    end_chunks: int = 4
    """With so few chunks missing, second requests are made sooner."""
    end_second_request_factor: float = 2.0
    """As second_request_factor, then."""
    stall_seconds: float = 10.0
    """A source with requests and no byte for so long is dropped."""
    stall_bar_seconds: float = 30.0
    """For so long after a stall, or after it lacked what it had promised, a source is not asked."""
    lost_bar_seconds: float = 1.0
    """After a lost connection; doubles with each loss in a row."""
    max_lost_bar_seconds: float = 30.0
    """Bound of that."""
    few_sources: int = 3
    """With fewer usable sources the directory is asked again soon."""
    find_sources_interval_seconds: float = 2.0
    """How soon."""
    refresh_sources_interval_seconds: float = 10.0
    """How often it is asked for newcomers otherwise."""
    replace_interval_seconds: float = 10.0
    """How often a slow source may be exchanged for one in reserve."""
    replace_below_share: float = 0.25
    """A source slower than this share of the median is slow."""
    rate_memory_seconds: float = 2.0
    """Time constant of the rate estimate."""
    chunk_policy: str = "rarest_first"
    """Which chunks are asked for first; a name of `policies.CHUNK_POLICIES`."""
    source_policy: str = "near_complete_first"
    """Which sources are connected first; a name of `policies.SOURCE_POLICIES`."""
