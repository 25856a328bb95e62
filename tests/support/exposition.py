"""The metrics of a part, read as Prometheus would, and those that docs/metrics.md documents."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

LIMIT_SECONDS = 20.0
_DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
_CERTIFIED = ("_certificate_expiry_seconds", "_open_connections_total")
"""Ends of names of metrics that only parts with certificates have."""
_ROW = re.compile(r"^\| `(minga_[a-z_]+)`", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Exposition:
    """One scrape."""

    types: dict[str, str]
    """The type of each metric, by its name as documented."""
    samples: list[Sample]

    @classmethod
    def of(cls, text: str) -> "Exposition":
        """The samples of that text."""
        families = list(text_string_to_metric_families(text))
        types = {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}
        return cls(types, [sample for family in families for sample in family.samples])

    @property
    def names(self) -> set[str]:
        """Our metrics, as documented."""
        return {name for name in self.types if name.startswith("minga_")}

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's series with those labels; of a histogram, how often something was observed."""
        spelt = f"{name}_count" if self.types.get(name) == "histogram" else name
        wanted = labels.items()
        return sum(each.value for each in self.samples if each.name == spelt and wanted <= each.labels.items())


Scrape = Callable[[], Awaitable[Exposition]]


async def scraped(address: str) -> Exposition:
    """What is served at host:port."""

    def read() -> str:
        with urlopen(f"http://{address}/metrics", timeout=LIMIT_SECONDS) as answer:
            text: str = answer.read().decode()
            return text

    return Exposition.of(await asyncio.to_thread(read))


def shown(registry: CollectorRegistry) -> Exposition:
    """What a registry would serve."""
    return Exposition.of(generate_latest(registry).decode())


async def until_shown(scrape: Scrape, holds: Callable[[Exposition], object]) -> Exposition:
    """The first scrape of which it holds. Raises TimeoutError at the deadline."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not holds(now := await scrape()):  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
        return now


def documented(part: str) -> set[str]:
    """The metrics in docs/metrics.md that a part without certificates has."""
    found = _ROW.findall(_DOCUMENT.read_text())
    return {name for name in found if name.startswith(f"minga_{part}_") and not name.endswith(_CERTIFIED)}
