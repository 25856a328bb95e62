"""One file added on one peer: how long until every locator names it. Real peers, real files."""

import asyncio
import os
import time
from pathlib import Path

from bench.directory.results import RowOutcome
from bench.directory.session import Session
from bench.directory.stats import millis, percentile
from bench.netns import LabError
from minga_core.errors import FileNotFoundInDirectoryError
from minga_core.names import parse_name
from minga_engine.wire.locator import LocatorClient
from minga_peer.settings import PeerSettings

P99_SECONDS = 1.0
LOCATORS = 2
FILE_BYTES = 64 * 1024
APART_SECONDS = 0.15
POLL_SECONDS = 0.02
FIRST_POLL_SECONDS = 0.3
"""Nothing is found before a file has been quiet for longer than this."""
LIMIT_SECONDS = 20.0


class Added:
    """Files come one after the other on peers in turn; each is looked for at every locator."""

    name = "added"

    async def measure(self, session: Session) -> RowOutcome:
        """See Row."""
        scale = session.scale
        outcome = RowOutcome(
            self.name,
            f"{scale.added_files} files of {FILE_BYTES // 1024} KiB, one after the other on {scale.added_peers} real "
            f"peers, looked for every {POLL_SECONDS * 1000:g} ms at {LOCATORS} locators.",
        )
        async with session.network() as network:
            await network.start_store()
            await network.start_registry()
            for _ in range(LOCATORS):
                await network.start_locator()
            shares = [session.directory / "shares" / str(number) for number in range(scale.added_peers)]
            for number, share in enumerate(shares):
                share.mkdir(parents=True)
                await network.start_peer(number, share)
            meter = network.meter()
            clients = [LocatorClient(f"http://{address}") for address in network.locators]
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = []
                    for number in range(scale.added_files):
                        share = shares[number % len(shares)]
                        tasks.append(group.create_task(_found_everywhere(share, number, clients)))
                        await asyncio.sleep(APART_SECONDS)
            finally:
                for client in clients:
                    await client.__aexit__(None, None, None)
            outcome.uses.append(meter.read("files come, and are looked for"))
        seconds = [task.result() for task in tasks]
        p99 = percentile(seconds, 0.99)
        quiet = PeerSettings.model_fields["quiet"].default.total_seconds()
        outcome.figure(
            "one file added → found everywhere, p99 from its last byte on",
            f"≤ {P99_SECONDS:g} s",
            f"{p99:.2f} s (p50 {percentile(seconds, 0.5):.2f}, worst {max(seconds):.2f})",
            p99 <= P99_SECONDS,
        )
        outcome.told("the same, without the time for which a file must be quiet", millis(p99 - quiet))
        outcome.details["seconds"] = [round(one, 4) for one in sorted(seconds)]
        return outcome


async def _found_everywhere(share: Path, number: int, clients: list[LocatorClient]) -> float:
    """Adds a file; the seconds from its last byte until every locator has named it."""
    name = f"added/{number:04}.bin"
    await asyncio.to_thread(_write, share / name)
    added_at = time.monotonic()
    await asyncio.sleep(FIRST_POLL_SECONDS)
    await asyncio.gather(*(_found(client, name) for client in clients))
    return time.monotonic() - added_at


async def _found(client: LocatorClient, name: str) -> None:
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            while True:
                try:
                    await client.find_file(parse_name(name))
                    return
                except FileNotFoundInDirectoryError:
                    await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise LabError(f"{name} was not found within {LIMIT_SECONDS:g} s") from None


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(FILE_BYTES))
