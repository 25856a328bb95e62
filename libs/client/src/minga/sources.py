"""Where the bytes of an open file come from: the gateway of this machine's daemon, or this process."""

import json
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from minga.references import Reference
from minga_core.errors import DaemonUnavailableError, MingaError, error_from_code
from minga_core.ids import ContentId
from minga_engine.settings import check_control_folder

if TYPE_CHECKING:
    import httpx

    from minga_engine.transfer.locating import Located
    from minga_engine.transfer.stream import Reader, Streams

CONNECT_SECONDS = 5.0
ANSWER_MARGIN_SECONDS = 30.0
"""The daemon waits for sources itself, and says so: silence that is longer by this is a daemon that hangs."""
MAX_PROBLEM_BYTES = 64 * 1024


class Gateway:
    """The HTTP door of this machine's daemon, for this user. `aclose` it. Uses no gRPC: it works after a fork."""

    def __init__(self, socket: Path, wait: timedelta | None) -> None:
        import httpx

        check_control_folder(socket)
        read = None if wait is None else wait.total_seconds() + ANSWER_MARGIN_SECONDS
        self._http = httpx.AsyncClient(
            base_url="http://localhost",
            # Loading the system's certificates takes longer than a read; without TLS there is nothing to verify.
            transport=httpx.AsyncHTTPTransport(
                uds=str(socket), limits=httpx.Limits(max_connections=None), verify=False
            ),
            timeout=httpx.Timeout(read, connect=CONNECT_SECONDS),
            headers={"Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def open(self, wanted: Reference) -> "GatewaySource":
        """Raises FileNotFoundInDirectoryError, DaemonUnavailableError."""
        path = f"/contents/{wanted}" if wanted.name is None else f"/files/{quote(str(wanted), safe='/')}"
        response = await self.request("HEAD", path, {})
        await response.aclose()
        if response.status_code != 200:
            # Only an answer with a body says why.
            response = await self.request("GET", path, {"Range": "bytes=0-0"})
            raise await error_of(response)
        try:
            content_id = ContentId.parse(response.headers["ETag"].strip('"'))
            size_bytes = int(response.headers["Content-Length"])
        except (KeyError, ValueError, MingaError) as error:
            raise DaemonUnavailableError(f"what answers is not the gateway of a Minga daemon: {error}") from error
        return GatewaySource(self, content_id, size_bytes)

    async def request(self, method: str, path: str, headers: dict[str, str]) -> "httpx.Response":
        """An answer whose body is still to be read; close it. Raises DaemonUnavailableError."""
        import httpx

        try:
            request = self._http.build_request(method, path, headers=headers)
            return await self._http.send(request, stream=True)
        except httpx.HTTPError as error:
            raise DaemonUnavailableError(
                f"the daemon's gateway does not answer: {str(error) or type(error).__name__}"
            ) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


class GatewaySource:
    """Reads one content by ranges: one answer as long as reads follow one another. Implements Source."""

    def __init__(self, gateway: Gateway, content_id: ContentId, size_bytes: int) -> None:
        self._gateway = gateway
        self.content_id = content_id
        self.size_bytes = size_bytes
        self._following: int | None = None
        self._body: _Body | None = None

    async def read(self, offset: int, length: int) -> bytes:
        """See Source. A second read that follows the first begins an answer that goes on to the end."""
        if offset >= self.size_bytes:
            return b""
        body, self._body = self._body, None
        if body is not None and body.offset != offset:
            await body.aclose()
            body = None
        data = await self._some(body, length) if body is not None else b""
        if not data:
            sequential = offset == self._following
            body = await self._begin(offset, self.size_bytes if sequential else min(offset + length, self.size_bytes))
            data = await self._some(body, length)
        if not data:
            raise DaemonUnavailableError("the daemon's gateway ended its answer before the end")
        self._following = offset + len(data)
        return data

    async def _some(self, body: "_Body", length: int) -> bytes:
        """What comes first of an answer, which is kept for the next read unless it is over or broken off."""
        try:
            data = await body.read(length)
        except BaseException:
            await body.aclose()
            raise
        if not data or body.offset >= body.end or self._body is not None:
            await body.aclose()
        else:
            self._body = body
        return data

    async def _begin(self, offset: int, end: int) -> "_Body":
        headers = {"Range": f"bytes={offset}-{end - 1}"}
        response = await self._gateway.request("GET", f"/contents/{self.content_id}", headers)
        if response.status_code != 206:
            raise await error_of(response)
        return _Body(response, offset, end)

    async def aclose(self) -> None:
        """See Source."""
        if self._body is not None:
            await self._body.aclose()


class _Body:
    """An answer's body from a position on."""

    def __init__(self, response: "httpx.Response", offset: int, end: int) -> None:
        self._response = response
        self._pieces = response.aiter_raw()
        self._rest = b""
        self.offset = offset
        self.end = end

    async def read(self, length: int) -> bytes:
        """At most so many bytes; empty at its end, and where it was broken off."""
        import httpx

        if not self._rest:
            try:
                self._rest = await anext(self._pieces, b"")
            except httpx.HTTPError:
                return b""
        data, self._rest = self._rest[:length], self._rest[length:]
        self.offset += len(data)
        return data

    async def aclose(self) -> None:
        """Let the daemon stop fetching for it."""
        await self._response.aclose()


async def error_of(response: "httpx.Response") -> MingaError:
    """The error that an answer reports; closes it."""
    import httpx

    try:
        content = b""
        async for piece in response.aiter_raw():
            content += piece
            if len(content) > MAX_PROBLEM_BYTES:
                break
        problem = json.loads(content)
        return error_from_code(str(problem["code"]), str(problem["detail"]))
    except (httpx.HTTPError, ValueError, KeyError, TypeError, RecursionError):
        return DaemonUnavailableError(f"the daemon's gateway answers HTTP {response.status_code}")
    finally:
        await response.aclose()


class OwnSource:
    """Reads a content that this process fetches. Implements Source."""

    def __init__(self, reader: "Reader", stack: AsyncExitStack) -> None:
        self._reader = reader
        self._stack = stack
        self.content_id = reader.content_id
        self.size_bytes = reader.size_bytes

    @classmethod
    async def open(cls, streams: "Streams", file: "Located") -> "OwnSource":
        """Fetches nothing before the first read."""
        stack = AsyncExitStack()
        return cls(await stack.enter_async_context(streams.open(file)), stack)

    async def read(self, offset: int, length: int) -> bytes:
        """See Source."""
        return await self._reader.read(offset, length)

    async def aclose(self) -> None:
        """See Source."""
        await self._stack.aclose()
