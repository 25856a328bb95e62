"""One file added on one peer: how long until every locator names it. Real peers, real files."""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench.directory.session import Session
from bench.directory.stats import percentile
from bench.netns import LabError
from bench.product import LocatorClient
from bench.results import Outcome
from minga_core.errors import FileNotFoundInDirectoryError
from minga_core.names import parse_name

P99_SECONDS = 1.0
LOCATORS = 2
FILE_BYTES = 64 * 1024
APART_SECONDS = 0.15
POLL_SECONDS = 0.02
FIRST_POLL_SECONDS = 0.3
"""Nothing is found before a file has been unchanged for longer than this."""
LIMIT_SECONDS = 20.0


class Added:
    """Files come one after the other on peers in turn; each is looked for at every locator."""

    name = "added"

    async def run(self, session: Session) -> Outcome:
        """Measures; see the class."""
        scale = session.scale
        outcome = Outcome(
            self.name,
            f"{scale.added_files} files of {FILE_BYTES // 1024} KiB, one after the other on {scale.added_peers} real "
            f"peers, looked for every {POLL_SECONDS * 1000:g} ms at {LOCATORS} locators",
        )
        async with session.network() as network, AsyncExitStack() as stack:
            await network.start_store()
            await network.start_registry()
            for _ in range(LOCATORS):
                await network.start_locator()
            shares = [session.directory / "shares" / str(number) for number in range(scale.added_peers)]
            for number, share in enumerate(shares):
                share.mkdir(parents=True)
                await network.start_peer(number, share)
            clients = [LocatorClient(f"http://{address}") for address in network.locators]
            for client in clients:
                await stack.enter_async_context(client)
            meter = network.meter()
            async with asyncio.TaskGroup() as group:
                tasks = []
                for number in range(scale.added_files):
                    share = shares[number % len(shares)]
                    tasks.append(group.create_task(_found_everywhere(share, number, clients)))
                    await asyncio.sleep(APART_SECONDS)
            outcome.uses.append(meter.read("files come, and are looked for"))
        seconds = [task.result() for task in tasks]
        p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
        outcome.judge(
            "one file added → found everywhere, p99 from its last byte on",
            f"≤ {P99_SECONDS:g} s",
            f"{p99:.2f} s (p50 {p50:.2f}, worst {max(seconds):.2f})",
            p99 <= P99_SECONDS,
        )
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
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        try:
            await client.find_file(parse_name(name))
            return
        except FileNotFoundInDirectoryError:
            await asyncio.sleep(POLL_SECONDS)
    raise LabError(f"{name} was not found within {LIMIT_SECONDS:g} s")


def _write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(os.urandom(FILE_BYTES))
