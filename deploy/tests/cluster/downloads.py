"""Clients that download while something is rolled, and what became of each download."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from deploy.tests.cluster.cluster import Cluster
from deploy.tests.cluster.pods import Pod

PAUSE_SECONDS = 0.2
"""Between two downloads of a client: two processors carry the clients, too."""
DOWNLOAD_SECONDS = 90.0
_STOP_FILE = "/tmp/stop"

CLIENT_POD: dict[str, Any] = {
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "containers": [
        {
            "name": "client",
            "image": "minga/peer:dev",
            "command": ["sleep", "infinity"],
            "env": [{"name": "MINGA_LOCATOR", "value": "http://locator:50052"}],
            "securityContext": {"readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
}
"""A machine without a peer, which knows the locator's Service by its name and nothing else."""

# Look-ups as any HTTP client makes them: every other one on a connection of its own, the rest on one that is kept. A
# kept connection that the server has closed is opened again, once, before anything counts as failed (RFC 9110, 9.2.2).
_LOOKUPS = r"""
import collections, http.client, itertools, json, os, sys, time
url, stop = sys.argv[1], sys.argv[2]
host, path = url.removeprefix("http://").split("/", 1)
kept, tally, problems = http.client.HTTPConnection(host, timeout=10), collections.Counter(), []

def ask(connection):
    connection.request("GET", "/" + path)
    response = connection.getresponse()
    response.read()
    return response

for turn in itertools.count():
    if os.path.exists(stop):
        break
    connection = kept if turn % 2 else http.client.HTTPConnection(host, timeout=10)
    tally["run"] += 1
    try:
        try:
            response = ask(connection)
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
            if connection is not kept:
                raise
            kept.close()
            tally["reconnected"] += 1
            response = ask(kept)
        if response.status == 503 and response.headers.get("Retry-After"):
            tally["unavailable"] += 1
        elif response.status != 200:
            problems.append(f"status {response.status}")
    except Exception as error:
        problems.append(repr(error))
        connection.close()
    if connection is not kept:
        connection.close()
    time.sleep(0.05)
print(json.dumps({**tally, "problems": problems}))
"""


@dataclass(slots=True)
class Tally:
    """What a kind of client did during something."""

    run: int = 0
    problems: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    unavailable: int = 0
    """Look-ups that were told to come again (503 with Retry-After)."""

    def __str__(self) -> str:
        words = f"{self.run} run, {len(self.problems)} failed"
        if self.unavailable:
            words += f", {self.unavailable} told to come again"
        return words + (f", the longest {self.longest_seconds:.1f} s" if self.longest_seconds else "")


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who downloads one thing after the other. `kind` is what the figures are kept by."""

    kind: str
    download: Callable[[], Awaitable[str]]
    """What went wrong; empty when nothing did."""


def standalone(
    cluster: Cluster, pod: Pod, names: Sequence[str], kind: str, *options: str, pause: float = PAUSE_SECONDS
) -> Client:
    """`minga get` on a machine without a peer, the names in turn; what was fetched is removed."""
    turns = itertools.cycle(names)
    numbers = itertools.count()

    async def download() -> str:
        target = f"/tmp/{kind.replace(' ', '-')}-{next(numbers)}"
        command = f'minga get "$1" --output {target} {" ".join(options)} && rm {target}'
        return await _get(cluster, pod, pause, "sh", "-c", command, "sh", next(turns))

    return Client(kind, download)


def through_daemon(cluster: Cluster, pod: Pod, names: Iterator[str], *, pause: float = PAUSE_SECONDS) -> Client:
    """`minga get` on a machine with a peer, each name once: the peer becomes a holder."""

    async def download() -> str:
        return await _get(cluster, pod, pause, "minga", "get", next(names))

    return Client("minga get through a peer", download)


async def _get(cluster: Cluster, pod: Pod, pause: float, *command: str) -> str:
    try:
        ended = await cluster.exec(pod, *command, limit=DOWNLOAD_SECONDS)
    except TimeoutError as error:
        return str(error)
    if ended.code:
        return f"{command[-1]}: exit code {ended.code}: {ended.err.strip()}"
    await asyncio.sleep(pause)
    return ""


class Stream:
    """A steady stream of downloads and look-ups. Made by `stream_of`."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}

    @property
    def downloads(self) -> int:
        """How many have ended."""
        return sum(tally.run for tally in self.tallies.values())

    @property
    def problems(self) -> list[str]:
        """All that failed."""
        return [f"{kind}: {one}" for kind, tally in self.tallies.items() for one in tally.problems]

    def run(self, kind: str) -> int:
        """How many of a kind have ended."""
        return self.tallies.get(kind, Tally()).run

    def __str__(self) -> str:
        return "; ".join(f"{kind}: {tally}" for kind, tally in sorted(self.tallies.items()))

    async def keep(self, client: Client, stop: asyncio.Event) -> None:
        """One client's work; what runs when it is told to stop is finished."""
        tally = self.tallies.setdefault(client.kind, Tally())
        while not stop.is_set():
            started = time.monotonic()
            problem = await client.download()
            tally.run += 1
            tally.longest_seconds = max(tally.longest_seconds, time.monotonic() - started)
            if problem:
                tally.problems.append(problem)

    async def look_up(self, cluster: Cluster, pod: Pod, name: str) -> None:
        """Look-ups through the locator's Service until the stop file is there."""
        url = f"http://locator:50052/v1/files/{name}"
        ended = await cluster.exec(pod, "python", "-c", _LOOKUPS, url, _STOP_FILE, limit=10 * DOWNLOAD_SECONDS)
        if ended.code:
            self.tallies["look-ups"] = Tally(1, [ended.err])
            return
        found = json.loads(ended.out)
        self.tallies["look-ups"] = Tally(found["run"], found["problems"], unavailable=found.get("unavailable", 0))


@asynccontextmanager
async def stream_of(
    cluster: Cluster, clients: Sequence[Client], looker: Pod, looked_up: str, *, at_least: int = 1
) -> AsyncIterator[Stream]:
    """Everybody downloads inside the block, and for at least so many downloads each. Whole once the block has ended."""
    stream = Stream()
    stop = asyncio.Event()
    await cluster.exec(looker, "rm", "-f", _STOP_FILE)
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(stream.keep(client, stop), name=client.kind)
        group.create_task(stream.look_up(cluster, looker, looked_up), name="look-ups")
        try:
            # The stream is under way before anything happens to it.
            await cluster.until(lambda: stream.downloads >= len(clients), "as many downloads as there are clients")
            yield stream
            seen = {one.kind: stream.run(one.kind) for one in clients}
            await cluster.until(
                lambda: all(stream.run(kind) >= count + at_least for kind, count in seen.items()),
                "every client has downloaded something afterwards, too",
            )
        finally:
            stop.set()
            await cluster.exec(looker, "touch", _STOP_FILE)
