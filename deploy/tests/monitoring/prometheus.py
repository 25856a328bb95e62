"""A real Prometheus for a test: a free port, its data in a folder of the test, gone afterwards."""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

from deploy.tests.monitoring.waiting import eventually
from minga_cli.localprocess import LocalProcess

STOP_GRACE = timedelta(seconds=5)
CALL_SECONDS = 10.0
_LISTENS = re.compile(r'msg="Listening on" address=(\S+)')


class Prometheus:
    """A running server and its HTTP API."""

    def __init__(self, process: LocalProcess) -> None:
        self.process = process
        self.address = ""

    async def ready(self) -> None:
        """Returns when it answers. The port is one that it was given; it says which in its log."""

        async def listens() -> bool:
            self.process.check()
            found = _LISTENS.search(await asyncio.to_thread(self.process.log_path.read_text))
            self.address = found[1] if found else ""
            return bool(found)

        async def answers() -> bool:
            # It listens before it has opened its data, and turns callers away until then.
            return "is Ready" in await fetch(f"http://{self.address}/-/ready")

        await eventually(listens, "Prometheus listens")
        await eventually(answers, "Prometheus is ready")

    async def call(self, path: str, **query: str) -> Any:
        """The `data` of an answer of its API. Fails the test on an error, with its words."""
        url = f"http://{self.address}/api/v1/{path}?{urlencode(query)}"
        answer = json.loads(await fetch(url))
        assert answer["status"] == "success", f"{query}: {answer}"
        return answer["data"]

    async def value(self, expr: str) -> float | None:
        """Of an expression with one series or none, now."""
        found = (await self.call("query", query=expr))["result"]
        assert len(found) <= 1, f"{expr}: {found}"
        return float(found[0]["value"][1]) if found else None

    async def has_data(self, expr: str, start: float, end: float) -> bool:
        """Whether an expression had a number at some time in between (seconds since the epoch)."""
        data = await self.call("query_range", query=expr, start=f"{start}", end=f"{end}", step="1")
        return any(not math.isnan(float(value)) for series in data["result"] for _, value in series["values"])

    async def alerts(self, name: str = "") -> list[dict[str, Any]]:
        """Alerts that are pending or fire."""
        found: list[dict[str, Any]] = (await self.call("alerts"))["alerts"]
        return [alert for alert in found if name in ("", alert["labels"]["alertname"])]

    async def fires(self, name: str, severity: str) -> bool:
        """Whether an alert fires."""
        return any(
            alert["state"] == "firing" and alert["labels"]["severity"] == severity for alert in await self.alerts(name)
        )

    async def targets_up(self) -> int:
        """Targets whose last scrape succeeded."""
        targets = (await self.call("targets", state="active"))["activeTargets"]
        return sum(target["health"] == "up" for target in targets)


@asynccontextmanager
async def running_prometheus(binary: Path, config: Path, folder: Path) -> AsyncIterator[Prometheus]:
    """A server with that configuration."""
    flags = (f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=127.0.0.1:0")
    process = LocalProcess("prometheus", lambda: [str(binary), *flags], folder / "prometheus.log")
    server = Prometheus(process)
    await process.start()
    try:
        await server.ready()
        yield server
    finally:
        await process.stop(STOP_GRACE)


async def fetch(url: str) -> str:
    """What an address answers; also when it is an error, since the API says there what is wrong."""

    def get() -> str:
        try:
            with urlopen(url, timeout=CALL_SECONDS) as response:
                return str(response.read(), "utf-8")
        except HTTPError as error:
            with error:
                return str(error.read(), "utf-8")

    return await asyncio.to_thread(get)
