"""One registry, many peers without files, and a store that loses everything: how long registrations alone take.

`python -m bench.directory.crowd 4000` prints who is back by when. The model's `validation` has two such runs.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.directory.network import Network, running_network
from bench.directory.usage import cpu_seconds
from minga_core.ids import PeerId
from minga_directory import keys

SHARE = 0.99
JOINING = 16
POLL_SECONDS = 0.5
QUIET_SECONDS = 6.0
"""Until all beat as if they had come at any time."""


async def run(peers: int, limit_seconds: float) -> None:
    """Prints a line every half second until nearly all are back, or the limit."""
    with tempfile.TemporaryDirectory() as folder:
        async with running_network(Path(folder) / "n") as network:
            await network.start_store()
            address = await network.start_registry()
            beats = await network.worker("beats", "beats")
            await beats.ask("start", addresses=[address], mode="stream", first=0, count=peers, at_once=JOINING)
            await asyncio.sleep(QUIET_SECONDS)
            pid = network.pids["registry-1"]
            cpu, started = cpu_seconds(pid), time.monotonic()
            await network.store.empty()
            back = 0
            while back < SHARE * peers and time.monotonic() < started + limit_seconds:
                await asyncio.sleep(POLL_SECONDS)
                asked_at = time.monotonic() - started
                registered, back = await _state(network)
                used = cpu_seconds(pid) - cpu
                print(
                    f"{asked_at:5.1f} s: {registered:,} registered, {back:,} back, registry {used:.1f} s of processor",
                    flush=True,
                )


async def _state(network: Network) -> tuple[int, int]:
    """Peers that have registered, and those whose (empty) table is there as well."""
    client: Any = network.store.client
    ids = await client.zrange(keys.PEERS, 0, -1)
    async with client.pipeline(transaction=False) as pipe:
        for peer_id in ids:
            pipe.hget(keys.peer(PeerId(peer_id.decode())), "revision")
        revisions = await pipe.execute()
    return len(ids), sum(revision == b"1" for revision in revisions)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.directory.crowd", description=__doc__)
    parser.add_argument("peers", type=int)
    parser.add_argument("--limit", type=float, default=120.0, metavar="SECONDS")
    asked = parser.parse_args()
    asyncio.run(run(asked.peers, asked.limit))


if __name__ == "__main__":
    main()
