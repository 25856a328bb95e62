"""The engine's HTTP API, without blocking: what a cluster of many pods needs of it.

`deploy.tests.support.engine` runs the `docker` command, which is enough for one container at a time; here dozens are
looked after at once. What is made carries the same label, so that its `close` removes it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

import httpx

API = "http://engine/v1.41"
"""The version of Debian 12's engine; newer ones speak it too."""
CALL_SECONDS = 60.0
_HEADER_BYTES = 8
_STDOUT, _STDERR = 1, 2


class EngineApiError(Exception):
    """The engine refused; `status` is the HTTP one."""

    def __init__(self, what: str, status: int, message: str) -> None:
        super().__init__(f"{what}: {status} {message}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command in a container ended."""

    code: int
    out: str
    err: str


class EngineApi:
    """A client of one engine."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(cls, docker_host: str) -> AsyncIterator[Self]:
        """docker_host: `unix:///path`; the bridge must be of this machine."""
        scheme, _, path = docker_host.partition("://")
        if scheme != "unix":
            raise ValueError(f"an engine of this machine is needed, not {docker_host}")
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=8)
        transport = httpx.AsyncHTTPTransport(uds=path, limits=limits)
        async with httpx.AsyncClient(transport=transport, base_url=API, timeout=CALL_SECONDS) as client:
            yield cls(client)

    async def create(self, config: Mapping[str, Any]) -> str:
        """A container that does not run yet; its id."""
        return str((await self._call("POST", "/containers/create", json=dict(config)))["Id"])

    async def start(self, container: str) -> None:
        """Starts it."""
        await self._call("POST", f"/containers/{container}/start")

    async def kill(self, container: str, signal: str) -> None:
        """Sends a signal to its first process; no error when it has ended. signal `""`: the image's STOPSIGNAL."""
        try:
            await self._call("POST", f"/containers/{container}/kill", params={"signal": signal})
        except EngineApiError as error:
            if error.status not in (404, 409):
                raise

    async def wait(self, container: str) -> int:
        """Its exit code, once it has ended, whenever that is."""
        ended = await self._call("POST", f"/containers/{container}/wait", timeout=None)
        return int(ended["StatusCode"])

    async def remove(self, container: str) -> None:
        """Removes it, running or not; no error when it is gone."""
        try:
            await self._call("DELETE", f"/containers/{container}", params={"force": "true", "v": "true"})
        except EngineApiError as error:
            if error.status not in (404, 409):
                raise

    async def inspect(self, container: str) -> dict[str, Any]:
        """What `docker inspect` knows."""
        found: dict[str, Any] = await self._call("GET", f"/containers/{container}/json")
        return found

    async def inspect_image(self, image: str) -> dict[str, Any]:
        """What `docker image inspect` knows."""
        found: dict[str, Any] = await self._call("GET", f"/images/{image}/json")
        return found

    async def logs(self, container: str, tail: int) -> str:
        """Its last lines, of both streams."""
        response = await self._client.get(
            f"/containers/{container}/logs", params={"stdout": "true", "stderr": "true", "tail": str(tail)}
        )
        return "".join(_frames(response.content).values()) if response.status_code == 200 else ""

    async def exec(
        self, container: str, command: Sequence[str], limit: float, environment: Mapping[str, str] | None = None
    ) -> Ended:
        """Runs a command in it as its user. Raises TimeoutError; the command is then left to end by itself."""
        made = await self._call(
            "POST",
            f"/containers/{container}/exec",
            json={
                "AttachStdout": True,
                "AttachStderr": True,
                "Cmd": list(command),
                "Env": [f"{name}={value}" for name, value in (environment or {}).items()],
            },
        )
        try:
            response = await self._client.post(
                f"/exec/{made['Id']}/start", json={"Detach": False, "Tty": False}, timeout=limit
            )
        except httpx.TimeoutException as error:
            raise TimeoutError(f"{' '.join(command)}: not within {limit:g} s") from error
        if response.status_code != 200:
            raise EngineApiError(f"exec {' '.join(command)}", response.status_code, response.text)
        streams = _frames(response.content)
        code = (await self._call("GET", f"/exec/{made['Id']}/json"))["ExitCode"]
        return Ended(int(code), streams.get(_STDOUT, ""), streams.get(_STDERR, ""))

    async def _call(self, method: str, path: str, **options: Any) -> Any:
        response = await self._client.request(method, path, **options)
        if response.is_error:
            raise EngineApiError(f"{method} {path}", response.status_code, response.text.strip())
        return response.json() if response.content and response.status_code != 204 else None


def _frames(raw: bytes) -> dict[int, str]:
    """Text by stream: each frame has a header of its stream's number, three zeros and a 32-bit length."""
    streams: dict[int, bytearray] = {}
    place = 0
    while place + _HEADER_BYTES <= len(raw):
        size = int.from_bytes(raw[place + 4 : place + _HEADER_BYTES])
        start = place + _HEADER_BYTES
        streams.setdefault(raw[place], bytearray()).extend(raw[start : start + size])
        place = start + size
    return {stream: bytes(data).decode(errors="replace") for stream, data in streams.items()}
