"""The one HTTP client to what is outside: where it may go is checked at every step, and what comes is bounded."""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.errors import (
    ContentChangedError,
    FileNotFoundInDirectoryError,
    MingaError,
    PermissionDeniedError,
    UnavailableError,
)
from minga_peer.origins.allowed import Allowed, Url, parse_url

if TYPE_CHECKING:
    import httpx

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 8.0
"""Without a byte for so long an answer is given up."""
MAX_REDIRECTS = 5
MAX_CONNECTIONS = 64
MAX_TRANSFERS = 48
"""Connections over which whole files come. They may take minutes, and no question waits for one."""
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_STRONG_ETAG = re.compile(r'"[!#-~]{1,1000}"')
_DATE = re.compile(r"[A-Za-z0-9 ,:+-]{10,64}")
REDIRECTS = (301, 302, 303, 307, 308)
_FOR_ANYBODY = ("accept", "accept-encoding", "range", "if-range")
"""Headers that go along to another host; all others may be credentials."""
_S3_HOST = re.compile(r"(.+\.)?s3(?:[.-][a-z0-9-]+)?\.amazonaws\.com")
_REGION = re.compile(r"[a-z]{2}[a-z0-9-]{3,30}")
_NO_HEAD = (400, 403, 405, 501)
"""What servers answer to HEAD that would answer GET: signed URLs are good for one method."""

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host. Raises OSError."""


class OriginRefusedError(PermissionDeniedError):
    """The origin wants credentials, or other ones. No caller of this peer was refused. challenge: which ones, as
    `WWW-Authenticate` says."""

    refusal = None

    def __init__(self, message: str, *, challenge: str = "") -> None:
        super().__init__(message)
        self.challenge = challenge


@dataclass(frozen=True, slots=True)
class Answer:
    """The head of an origin's answer."""

    status: int
    url: str
    """After redirects."""
    headers: Mapping[str, str]
    start: int
    """Where in the file the body begins."""
    stop: int | None
    """Where it ends; None when the origin does not say."""
    size_bytes: int | None
    """Of the whole file; None when the origin does not say."""
    validator: str
    """A strong ETag, or else the date of the last modification; empty when there is neither."""


class Upstream:
    """Asks origins. `aclose` it. allowed: see Allowed. resolve: for tests.

    Every request goes to an address that was checked, under the host's own name: no second look-up comes between. Every
    method raises PermissionDeniedError for an address or URL that is not allowed, OriginRefusedError for 401 and 403,
    FileNotFoundInDirectoryError for 404 and 410, UnavailableError for anything else that is no answer; all are safe to
    retry.
    """

    def __init__(self, allowed: Allowed, resolve: Resolve | None = None) -> None:
        self.allowed = allowed
        self.transfers = asyncio.Semaphore(MAX_TRANSFERS)
        """For who reads a whole file to hold meanwhile: one that found no connection for some seconds would fail."""
        self._resolve = resolve or _resolved
        self._client: httpx.AsyncClient | None = None
        self._making = asyncio.Lock()
        self._answer_count = 0

    @property
    def is_busy(self) -> bool:
        """Whether half of the connections are in use: the others are for files that have none."""
        return self._answer_count >= MAX_CONNECTIONS // 2

    async def prepare(self) -> None:
        """Make the first request sooner: the client takes 0.2 s of a processor, and 20 MiB, which only peers that fetch
        something need."""
        await self._made_client()

    async def head(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """What the origin says of a file. One that is signed for GET is asked by that, for its first byte."""
        if parse_url(url).is_for_get:
            return await self._first_byte(url, headers or {})
        try:
            async with self._answer("HEAD", url, headers or {}) as response:
                return _head(response)
        except _AnsweredError as error:
            if error.status not in _NO_HEAD:
                raise error.error from None
        return await self._first_byte(url, headers or {})

    async def _first_byte(self, url: str, headers: Mapping[str, str]) -> Answer:
        """What the origin says with the first byte, or with all of them where it has no ranges."""
        try:
            async with self._answer("GET", url, {**headers, "Range": "bytes=0-0"}) as response:
                return _head(response, stop=1)
        except _AnsweredError as error:
            if error.status != 416:
                raise error.error from None
        # There is no first byte.
        async with self.stream(url, headers) as (answer, _):
            return answer

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        start: int = 0,
        validator: str = "",
        stop: int | None = None,
    ) -> AsyncGenerator[tuple[Answer, AsyncIterator[bytes]], None]:
        """A file from `start` on and up to `stop`: the head, and the bytes as they come. An origin without ranges sends
        all of it.

        validator: of the file whose part it is. Raises ContentChangedError when that has changed. The bytes raise
        UnavailableError when they end early.
        """
        wanted = dict(headers or {})
        if start or stop is not None:
            wanted["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
            wanted |= {"If-Range": validator} if validator else {}
        try:
            async with self._answer("GET", url, wanted) as response:
                answer = _head(response, stop=stop)
                if validator and answer.validator != validator:
                    raise ContentChangedError(f"{_shown(url)} has changed at its origin while it was fetched")
                if answer.start not in (0, start):
                    raise UnavailableError(f"{_shown(url)}: the origin sends bytes that were not asked for")
                yield answer, _body(response, answer, url)
        except _AnsweredError as error:
            raise error.error from None

    @asynccontextmanager
    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes = b""
    ) -> AsyncGenerator["httpx.Response", None]:
        """The answer to one request as it is, whatever its status; no redirect is followed."""
        target = parse_url(url)
        response = await self._sent(method, target, headers, body)
        try:
            with _http_errors(target):
                yield response
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        if self._client is not None:
            await self._client.aclose()

    @asynccontextmanager
    async def _answer(
        self, method: str, text: str, headers: Mapping[str, str]
    ) -> AsyncGenerator["httpx.Response", None]:
        """The answer with status 200 or 206 after redirects; closed at the end. Raises _AnsweredError."""
        url, headers = parse_url(text), dict(headers)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._sent(method, url, headers)
            try:
                if response.status_code in (200, 206):
                    with _http_errors(url), self._counted():
                        yield response
                    return
                target = _in_region(url, response)
                if target is None and response.status_code not in REDIRECTS:
                    raise _AnsweredError(response.status_code, str(url), response.headers.get("www-authenticate", ""))
                target = target or redirected(url, response.headers.get("location", ""))
            finally:
                await response.aclose()
            if target.place != url.place:
                headers = {name: value for name, value in headers.items() if name.lower() in _FOR_ANYBODY}
            url = target
        raise UnavailableError(f"{_shown(text)} redirects more than {MAX_REDIRECTS} times")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._answer_count += 1
        try:
            yield
        finally:
            self._answer_count -= 1

    async def _sent(self, method: str, url: Url, headers: Mapping[str, str], body: bytes = b"") -> "httpx.Response":
        """The answer to one request, with its body still to be read, from the first address that can be reached."""
        client, failure = await self._made_client(), ""
        import httpx

        for address in await self._addresses(url):
            host = f"[{address}]" if ":" in address else address
            request = client.build_request(
                method,
                httpx.URL(f"{url.scheme}://{host}:{url.port}{url.target}"),
                headers={"Host": url.authority, "Accept-Encoding": "identity", "User-Agent": "minga", **headers},
                content=body or None,
                # The certificate is that of the name, whatever address it is at.
                extensions={"sni_hostname": url.host},
            )
            try:
                with _http_errors(url):
                    return await client.send(request, stream=True)
            except _ConnectError as error:
                failure = str(error)
        raise UnavailableError(failure or f"{url.host} has no address")

    async def _addresses(self, url: Url) -> list[str]:
        """Addresses of the host, all of them checked."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                addresses = await self._resolve(url.host, url.port)
        except (OSError, UnicodeError) as error:
            raise UnavailableError(f"{url.host} is not found: {getattr(error, 'strerror', None) or error}") from error
        for address in addresses:
            self.allowed.check_address(url, address)
        return addresses

    async def _made_client(self) -> "httpx.AsyncClient":
        async with self._making:
            if self._client is None:
                # The library is imported, and the system's certificates are read: too long for the event loop.
                self._client = await asyncio.to_thread(_new_client)
        return self._client


def _new_client() -> "httpx.AsyncClient":
    import certifi
    import httpx

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return httpx.AsyncClient(
        verify=context,
        timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        # Connections are kept by address: one that was made to a name is not used for another name there.
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0),
        # Proxies of the environment would be asked for addresses that were not checked.
        trust_env=False,
    )


class _AnsweredError(Exception):
    """The origin answered with another status."""

    def __init__(self, status: int, url: str, challenge: str) -> None:
        super().__init__(status)
        self.status = status
        self.error = _error_of(status, url, challenge)


class OriginBusyError(UnavailableError):
    """It takes no more requests now; it may count one that has just ended."""


class _ConnectError(UnavailableError):
    """No connection: another address may be tried."""


@contextmanager
def _http_errors(url: Url) -> Iterator[None]:
    """Raise httpx's errors of the block as UnavailableError."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _ConnectError(f"{url.host} cannot be reached: {str(error) or 'no answer'}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error) or type(error).__name__
        raise UnavailableError(f"{_shown(str(url))} did not arrive: {why}") from error


def _error_of(status: int, url: str, challenge: str) -> MingaError:
    if status in (401, 403, 407):
        return OriginRefusedError(f"the origin refuses {_shown(url)} (HTTP {status})", challenge=challenge)
    if status in (404, 410):
        return FileNotFoundInDirectoryError(f"the origin has no {_shown(url)} (HTTP {status})")
    if status == 416:
        return ContentChangedError(f"{_shown(url)} has become shorter at its origin")
    kind = OriginBusyError if status in (429, 503) else UnavailableError
    return kind(f"the origin answers HTTP {status} for {_shown(url)}")


def _shown(url: str) -> str:
    """Without its query, which may have a signature."""
    return url.partition("?")[0][:200]


def redirected(url: Url, location: str) -> Url:
    """Where a redirect leads. Raises UnavailableError for nowhere, and from TLS to none."""
    import httpx

    try:
        target = parse_url(str(httpx.URL(str(url)).join(location)).partition("#")[0])
    except (MingaError, httpx.InvalidURL) as error:
        raise UnavailableError(f"{_shown(str(url))} redirects to what is no URL") from error
    if url.scheme == "https" and target.scheme != "https":
        raise UnavailableError(f"{_shown(str(url))} redirects from https to http")
    return target


def _in_region(url: Url, response: "httpx.Response") -> Url | None:
    """The same in a bucket's own region, which S3 names where it has no redirect for who asks in another one."""
    found, region = _S3_HOST.fullmatch(url.host), response.headers.get("x-amz-bucket-region", "")
    if found is None or response.status_code not in (301, 307, 400) or "location" in response.headers:
        return None
    host = f"{found[1] or ''}s3.{region}.amazonaws.com"
    return replace(url, host=host) if _REGION.fullmatch(region) and host != url.host else None


def _head(response: "httpx.Response", *, stop: int | None = None) -> Answer:
    """stop: where a part must end; None: at the end of the file. Raises UnavailableError for an answer that is neither
    the file nor a known part of it."""
    headers, shown = response.headers, _shown(str(response.url))
    as_it_is = response.request.headers["accept-encoding"] != "identity"
    if not as_it_is and headers.get("content-encoding", "identity").lower() != "identity":
        raise UnavailableError(f"{shown}: the origin encodes what was asked for as it is")
    start, size = 0, _number(headers.get("content-length"))
    end = size
    if response.status_code == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if found is None:
            raise UnavailableError(f"{shown}: the origin sends a part and does not say which")
        start, end, size = int(found[1]), int(found[2]) + 1, _number(found[3])
        wanted = size if stop is None else stop
        if wanted is not None and end != wanted:
            raise UnavailableError(f"{shown}: the origin sends less than was asked for")
    if size is not None and size > MAX_CONTENT_BYTES:
        raise UnavailableError(f"{shown} is too large")
    return Answer(response.status_code, str(response.url), headers, start, end, size, _validator(headers))


def _validator(headers: Mapping[str, str]) -> str:
    """What differs between two versions of a file; empty for nothing that could be sent back."""
    etag, modified = headers.get("etag", ""), headers.get("last-modified", "")
    if _STRONG_ETAG.fullmatch(etag):
        return etag
    return modified if _DATE.fullmatch(modified) else ""


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None


async def _body(response: "httpx.Response", answer: Answer, url: str) -> AsyncIterator[bytes]:
    received = answer.start
    with _http_errors(parse_url(url)):
        async for piece in response.aiter_raw():
            received += len(piece)
            if answer.stop is not None and received > answer.stop:
                break
            yield piece
    if answer.stop is not None and received != answer.stop:
        raise UnavailableError(f"{_shown(url)} ended after {received:,} of {answer.stop:,} bytes")


async def _resolved(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))
