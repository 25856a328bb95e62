"""HTTP load, as lean as Python allows: raw sockets under uvloop, requests made before the clock starts.

Closed loop: each connection sends its next request when it has the answer to the last; gives the greatest rate. Open
loop: requests are due at instants drawn beforehand (independent clients: a Poisson process), and each one's time counts
from when it was due, however long it waited for a connection: a server that stalls is charged for all who waited.
"""

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import accumulate
from typing import Any, cast
from urllib.parse import quote

from bench.directory import world
from bench.directory.stats import summary
from bench.directory.worker import serve
from minga_locator.page_tokens import ListKind, encode_token

_SAMPLE = 200_000
"""Requests that are drawn beforehand; a longer run goes through them again."""
DRAIN_SECONDS = 10.0

Heard = Callable[[int, float], None]
"""Status and seconds of an answer."""


class Connection(asyncio.Protocol):
    """One request at a time. `heard` is called with each answer's status; 0: the connection was lost."""

    def __init__(self, heard: Callable[["Connection", int], None]) -> None:
        self._heard = heard
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._wanted = 0
        self.due_at = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, due_at: float) -> None:
        """Sends a request; the answer is told to `heard`."""
        assert self._transport is not None
        self.due_at, self.busy = due_at, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._buffer = self._buffer + data if self._buffer else data
        if not self._wanted:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            length = head.find(b"content-length:")
            line_end = head.find(b"\r\n", length)
            self._wanted = end + 4 + int(head[length + 15 : line_end if line_end > 0 else end])
        if len(self._buffer) >= self._wanted:
            status = int(self._buffer[9:12])
            self._buffer, self._wanted, self.busy = b"", 0, False
            self._heard(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        if self.busy:
            self.busy = False
            self._heard(self, 0)

    def close(self) -> None:
        """Ends it."""
        if self._transport is not None:
            self._transport.close()


async def closed(
    host: str, port: int, requests: dict[str, Any], connections: int, seconds: float, seed: int = 1
) -> dict[str, Any]:
    """Load in a closed loop: the rate, times and statuses of what was answered within `seconds`."""
    drawn = _drawn(requests, host, seed)
    statuses: Counter[int] = Counter()
    times: list[float] = []
    clock = time.perf_counter
    ends_at = 0.0

    def heard(connection: Connection, status: int) -> None:
        now = clock()
        if now < ends_at:
            statuses[status] += 1
            times.append(now - connection.due_at)
            if status:
                connection.send(next(drawn), now)

    opened = await _connect(host, port, connections, heard)
    cpu, started = time.process_time(), clock()
    ends_at = started + seconds
    for connection in opened:
        connection.send(next(drawn), started)
    await asyncio.sleep(seconds)
    took = clock() - started
    for connection in opened:
        connection.close()
    return {
        "rate": sum(statuses.values()) / seconds,
        "statuses": {str(status): count for status, count in statuses.items()},
        "seconds": summary(times),
        "generator_core_share": (time.process_time() - cpu) / took,
    }


async def at_rate(
    host: str, port: int, requests: dict[str, Any], rate: float, connections: int, seconds: float, seed: int = 2
) -> dict[str, Any]:
    """Load in an open loop: times from when each request was due. `late`: how late the generator itself was."""
    drawn = _drawn(requests, host, seed)
    rng = random.Random(seed)
    statuses: Counter[int] = Counter()
    times: list[float] = []
    late: list[float] = []
    clock = time.perf_counter
    waiting: deque[float] = deque()
    free: list[Connection] = []
    drained = asyncio.Event()
    loop = asyncio.get_running_loop()

    def heard(connection: Connection, status: int) -> None:
        statuses[status] += 1
        times.append(clock() - connection.due_at)
        if not status:
            return
        if waiting:
            connection.send(next(drawn), waiting.popleft())
        else:
            free.append(connection)
        if over and len(free) == connections:
            drained.set()

    over = False
    free = list(await _connect(host, port, connections, heard))
    cpu, started = time.process_time(), clock()
    due_at = started
    while due_at < started + seconds:
        due_at += rng.expovariate(rate)
        now = clock()
        if due_at > now:
            await _at(loop, due_at - now)
        late.append(max(0.0, clock() - due_at))
        if free:
            # A timer may be a part of a millisecond early.
            free.pop().send(next(drawn), min(due_at, clock()))
        else:
            waiting.append(due_at)
    over = True
    share = (time.process_time() - cpu) / (clock() - started)
    if len(free) < connections:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await drained.wait()
        except TimeoutError:
            statuses[0] += connections - len(free) + len(waiting)
    return {
        "rate": len(times) / seconds,
        "statuses": {str(status): count for status, count in statuses.items()},
        "seconds": summary(times),
        "late": summary(late),
        "generator_core_share": share,
    }


async def one_by_one(host: str, port: int, requests: dict[str, Any], count: int, seed: int = 3) -> dict[str, Any]:
    """Requests one after the other over one connection: what each takes when nobody else asks."""
    drawn = _drawn(requests, host, seed)
    statuses: Counter[int] = Counter()
    times: list[float] = []
    answered = asyncio.Event()

    def heard(connection: Connection, status: int) -> None:
        statuses[status] += 1
        times.append(time.perf_counter() - connection.due_at)
        answered.set()

    (connection,) = await _connect(host, port, 1, heard)
    for _ in range(count):
        answered.clear()
        connection.send(next(drawn), time.perf_counter())
        await answered.wait()
    connection.close()
    return {"statuses": {str(status): found for status, found in statuses.items()}, "seconds": summary(times)}


async def _at(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Sleeps; short times by giving way, since a timer of the loop has a resolution of a millisecond."""
    if seconds > 0.002:
        await asyncio.sleep(seconds - 0.001)
    else:
        await asyncio.sleep(0)


async def _connect(host: str, port: int, count: int, heard: Callable[[Connection, int], None]) -> list[Connection]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: Connection(heard), host, port))[1] for _ in range(count)]


async def prepare(host: str, requests: dict[str, Any], seed: int = 1) -> None:
    """Makes requests for the next load of that kind, so that their making is no part of what is measured."""
    _made(json.dumps(requests, sort_keys=True), host, seed)


@lru_cache(maxsize=1)
def _made(requests: str, host: str, seed: int) -> list[bytes]:
    wanted = json.loads(requests)
    return list(_MAKERS[wanted["kind"]](random.Random(seed), host, **wanted.get("of", {})))


def _drawn(requests: dict[str, Any], host: str, seed: int) -> Iterator[bytes]:
    """Requests without end: `_SAMPLE` of them, made now or prepared, unless each is to be another."""
    made = _made(json.dumps(requests, sort_keys=True), host, seed)

    def endless() -> Iterator[bytes]:
        while True:
            yield from made

    return endless()


def _get(host: str, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def _same(rng: random.Random, host: str, path: str) -> Iterator[bytes]:
    """One path again and again."""
    yield _get(host, path)


def _zipf(rng: random.Random, host: str, names: int, exponent: float = 1.0) -> Iterator[bytes]:
    """The k-th most popular name as often as 1 / k^exponent says; which names are popular is drawn."""
    weights = list(accumulate(1 / rank**exponent for rank in range(1, names + 1)))
    places = list(range(names))
    rng.shuffle(places)
    made: dict[int, bytes] = {}
    for rank in rng.choices(range(names), cum_weights=weights, k=_SAMPLE):
        if rank not in made:
            made[rank] = _get(host, f"/v1/files/{quote(world.name(places[rank]))}")
        yield made[rank]


def _distinct(rng: random.Random, host: str, names: int, start: int = 0, count: int = 0) -> Iterator[bytes]:
    """Each name once: a part, from `start` on, of one order that is the same whoever asks."""
    places = list(range(names))
    random.Random(0).shuffle(places)
    for place in places[start : start + count] if count else places:
        yield _get(host, f"/v1/files/{quote(world.name(place))}")


def _placements(rng: random.Random, host: str, names: int, replicas: int = 3) -> Iterator[bytes]:
    """Half of them of new names, half of names that are there."""
    for number in range(20_000):
        wanted = f"new/{number}.bin" if number % 2 else world.name(rng.randrange(names))
        body = json.dumps({"name": wanted, "size_bytes": 1 << 30, "replicas": replicas}).encode()
        head = f"POST /v1/placements HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        yield head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _pages(rng: random.Random, host: str, names: int, query: str = "", size: int = 100) -> Iterator[bytes]:
    """Pages from anywhere in the catalogue. query: with `{}` in it for a random number below a thousand."""
    for _ in range(5_000):
        token = encode_token(ListKind.FILES, world.name(rng.randrange(names)))
        asked = f"&query={quote(query.replace('{}', f'{rng.randrange(1000):04}'))}" if query else ""
        yield _get(host, f"/v1/files?page_size={size}&page_token={token}{asked}")


_MAKERS: dict[str, Callable[..., Iterator[bytes]]] = {
    "same": _same,
    "zipf": _zipf,
    "distinct": _distinct,
    "placements": _placements,
    "pages": _pages,
}

if __name__ == "__main__":
    serve({"prepare": prepare, "closed": closed, "at_rate": at_rate, "one_by_one": one_by_one})
