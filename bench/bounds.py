"""The lower bound of a distribution: arithmetic only. Rates are the links' (Mbit/s), so a system pays for its headers.

A TCP connection over 1,500-byte Ethernet carries 1,448 bytes of payload in 1,514: no system can be below 1.046.
"""

from collections.abc import Mapping, Sequence

HEADER_RATIO = 1514 / 1448


def bytes_per_second(rate_mbit: float) -> float:
    """Of a rate in 10^6 bit/s."""
    return rate_mbit * 1e6 / 8


def swarm_bound(size_bytes: int, seed_up_mbit: float, up_mbit: Sequence[float], down_mbit: Sequence[float]) -> float:
    """Seconds until the last of the downloaders can have the file: `max(F/u_s, F/d, N·F/(u_s + N·u))`.

    The seed must send every byte once; the slowest downloader must take all; all that is received must be sent
    by some host (Kumar and Ross 2006). up_mbit, down_mbit: one item a downloader.
    """
    supply = bytes_per_second(seed_up_mbit + sum(up_mbit))
    return max(
        size_bytes / bytes_per_second(seed_up_mbit),
        size_bytes / bytes_per_second(min(down_mbit)),
        len(down_mbit) * size_bytes / supply,
    )


def one_server_bound(size_bytes: int, seed_up_mbit: float, down_mbit: Sequence[float]) -> float:
    """Seconds when the seed alone sends: what a plain server needs at least."""
    return max(
        len(down_mbit) * size_bytes / bytes_per_second(seed_up_mbit), size_bytes / bytes_per_second(min(down_mbit))
    )


def group_bound(size_bytes: int, seed_up_mbit: float, rates_mbit: Mapping[str, float], host: str) -> float:
    """Seconds until one host of an uneven swarm can have the file, if all that are as fast are to have it by then.

    `max(F/u_s, F/d_h, |G|·F/(u_s + Σu))` with G the hosts that are at least as fast; rates_mbit: of each downloader,
    both ways.
    """
    own = rates_mbit[host]
    as_fast = sum(rate >= own for rate in rates_mbit.values())
    supply = bytes_per_second(seed_up_mbit + sum(rates_mbit.values()))
    return max(
        size_bytes / bytes_per_second(seed_up_mbit), size_bytes / bytes_per_second(own), as_fast * size_bytes / supply
    )
