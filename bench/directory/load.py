"""HTTP load from wrk: requests are written to a file beforehand, and `requests.lua` sends them."""

import asyncio
import json
import random
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from urllib.parse import quote

from bench.directory import fixture
from bench.netns import LabError
from minga_locator.page_tokens import ListKind, encode_token

SCRIPT = Path(__file__).with_name("requests.lua")
ZIPF_REQUESTS = 100_000
PLACEMENTS = 20_000
PAGES = 5_000
ANSWER_MILLIS = 2
"""What an answer takes: at a fixed rate, connections pause that much less between two requests."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one load was like. Times are in seconds."""

    rate: float
    """Requests answered in a second."""
    failed: int
    """Requests without an answer, or with a status of 400 and more."""
    p50: float
    p99: float
    worst: float
    cpu_seconds: float
    """Of wrk itself."""

    def latency(self) -> str:
        """For people."""
        return f"{millis(self.p99)} (p50 {millis(self.p50)}, worst {millis(self.worst)})"


class Requests:
    """A file of requests for loads that follow. grant: with it they go over HTTPS, and bear it."""

    def __init__(self, folder: Path, lines: Iterable[str], grant: str = "") -> None:
        self._grant = grant
        self._path = folder / "requests"
        self._path.write_text("".join(f"{line}\n" for line in lines))

    async def load(self, address: str, seconds: float, connections: int, rate: float = 0.0) -> Load:
        """Sends them to host:port from one thread. rate: requests a second at random instants; 0: as fast as answers
        come. Raises LabError."""
        pause = max(1.0, connections / rate * 1000 - ANSWER_MILLIS) if rate else 0.0
        words = ["wrk", "-t", "1", "-c", f"{connections}", "-d", f"{seconds:g}s", "--latency", "--timeout", "10s"]
        url = f"https://{address}" if self._grant else f"http://{address}"
        words += ["-s", str(SCRIPT), url, "--", str(self._path), f"{pause:.1f}", self._grant]
        before = _children_seconds()
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        output = (await process.communicate())[0].decode()
        _, found, result = output.partition("RESULT ")
        if not found:
            raise LabError(f"wrk failed: {output.strip()[-300:]}")
        seen = json.loads(result)
        times = [seen[name] / 1e6 for name in ("p50", "p99", "worst")]
        rate = seen["requests"] / (seen["micros"] / 1e6)
        return Load(rate, seen["failed"], *times, _children_seconds() - before)


def zipf(names: int) -> Iterator[str]:
    """Look-ups: the k-th most popular name is requested in proportion to 1 / k; which names are popular is random."""
    rng = random.Random(1)
    weights = list(accumulate(1 / rank for rank in range(1, names + 1)))
    numbers = list(range(names))
    rng.shuffle(numbers)
    return (_lookup(numbers[rank]) for rank in rng.choices(range(names), cum_weights=weights, k=ZIPF_REQUESTS))


def distinct(names: int, part: int = 0, parts: int = 1) -> Iterator[str]:
    """Look-ups of different names: one of so many parts of all names, in random order."""
    numbers = list(range(names))
    random.Random(0).shuffle(numbers)
    return map(_lookup, numbers[part::parts])


def placements(names: int) -> Iterator[str]:
    """Three replicas; half of the names are new."""
    rng = random.Random(1)
    for number in range(PLACEMENTS):
        name = f"new/{number}.bin" if number % 2 else fixture.name(rng.randrange(names))
        yield f"POST /v1/placements {json.dumps({'name': name, 'size_bytes': 1 << 30, 'replicas': 3})}"


def pages(names: int, query: str = "", size: int = 100) -> Iterator[str]:
    """Pages that begin anywhere in the catalogue. query: `{}` in it is a random number below a thousand."""
    rng = random.Random(3)
    for _ in range(PAGES):
        token = encode_token(ListKind.FILES, fixture.name(rng.randrange(names)))
        asked = f"&query={quote(query.replace('{}', f'{rng.randrange(1000):04}'))}" if query else ""
        yield f"GET /v1/files?page_size={size}&page_token={token}{asked}"


def millis(seconds: float) -> str:
    """As `12.3 ms`."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds * 1000:,.0f} ms"


def _lookup(number: int) -> str:
    return f"GET /v1/files/{quote(fixture.name(number))}"


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
