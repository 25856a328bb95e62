"""Requests to the locator: one HTTP client, retries while it is away, and errors as ours."""

import asyncio
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.trace import INVALID_SPAN, Span

from minga_core.errors import (
    Code,
    InternalError,
    InvalidArgumentError,
    LocatorUnavailableError,
    MingaError,
    SettingsError,
    UnauthenticatedError,
    error_from_code,
)
from minga_engine.wire.json_fields import line, text
from minga_runtime import tracing
from minga_runtime.backoff import backoff

if TYPE_CHECKING:
    import httpx

    from minga_runtime.trust.credentials import Credentials
    from minga_runtime.trust.own_grant import OwnGrant

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 5.0
"""One request, from connecting to the answer's last byte. Above the locator's own limit of 3 s."""
RECOVERY_RETRY_BUDGET = timedelta(seconds=30)
"""Retry budget for a locator that answers, but reports that its store is unavailable or recovering: what a Redis takes
to start elsewhere, and a lease until the directory is complete again."""
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Above 1,000 files of the longest names in their longest spelling."""

# Statuses of a locator, or of a proxy before it, after which the same request may succeed later.
_AWAY_STATUSES = frozenset({429, 502, 503, 504})
# OpenSSL's word for an answer that is no TLS record.
_NO_TLS_THERE = "WRONG_VERSION_NUMBER"
# httpx' words for a server that ends the connection without an answer, as one does that wants TLS.
_HUNG_UP = "Server disconnected"
# What a look-up's path has after the collection is the name or the id.
_COLLECTION = re.compile("(/v1/[a-z]+)/.+")


class LocatorHttp:
    """Sends requests to one locator; see LocatorClient for its arguments."""

    def __init__(
        self,
        base_url: str,
        retry_budget: timedelta,
        transport: "httpx.AsyncBaseTransport | None",
        credentials: "Credentials | None",
        grant: "OwnGrant | None",
    ) -> None:
        self._base_url = _checked_url(base_url)
        self._retry_seconds = retry_budget.total_seconds()
        self._transport = transport
        self._credentials = credentials
        self._grant = grant
        parts = urlsplit(self._base_url)
        self._address = parts.netloc if parts.port else f"{parts.netloc}:443"
        self._plain_url = parts._replace(scheme="http", netloc=self._address).geturl()
        self._client: httpx.AsyncClient | None = None
        self.date = ""
        """The time of the last answer by the locator's clock, as HTTP has it; empty when it did not say."""

    async def aclose(self) -> None:
        """Closes its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def look_up(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """The JSON of a look-up, which is retried within the retry budget."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        for pause_seconds in backoff(FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS):
            try:
                return await self.send(method, path, query, body)
            except _LocatorAwayError as error:
                if loop.time() + pause_seconds >= started + self._retry_budget(error):
                    raise
            await asyncio.sleep(pause_seconds)
        raise AssertionError("backoff does not end")

    def _retry_budget(self, error: "_LocatorAwayError") -> float:
        """Seconds from the first attempt."""
        if not self._retry_seconds or not isinstance(error, _LocatorNotReadyError):
            return self._retry_seconds
        return max(self._retry_seconds, RECOVERY_RETRY_BUDGET.total_seconds())

    async def send(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """The JSON of a good answer; an error of ours for any other."""
        import httpx

        with tracing.use(self._span(method, path)) as span:
            url = await self._url()
            headers = self._headers(url, tracing.traceparent_of(span) if tracing.enabled() else "")
            try:
                async with (
                    asyncio.timeout(ANSWER_SECONDS),
                    self._http().stream(method, url + path, params=query, json=body, headers=headers) as response,
                ):
                    self.date = response.headers.get("Date", "")
                    status, content = response.status_code, await _content(response)
            except TimeoutError as error:
                raise self._away(f"no whole answer within {ANSWER_SECONDS:g} s") from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if (refused := _tls_error(error)) is not None:
                    message = f"no TLS with the locator at {self._base_url}: {refused}"
                    raise UnauthenticatedError(message, hint=self._tls_hint(refused)) from error
                raise self._away(str(error) or type(error).__name__) from error
            except AttributeError as error:
                # A connection that is reset at once, as a proxy without anything behind it does: uvloop has let go of
                # the socket already when anyio asks it for its name.
                if error.name != "getpeername":
                    raise
                raise self._away("the connection was reset") from error
            span.set_attribute("http.response.status_code", status)
            if 200 <= status < 300:
                with checked():
                    return json.loads(content)
            raise self._refusal(status, content)

    async def _url(self) -> str:
        """The base URL, with http:// for a locator without TLS where those are asked too."""
        if self._credentials is None or await self._credentials.towards(self._address) is not None:
            return self._base_url
        return self._plain_url

    def _headers(self, url: str, traceparent: str) -> dict[str, str]:
        """Of one request; both may change from one to the next."""
        headers = {tracing.TRACEPARENT: traceparent} if traceparent else {}
        if self._grant is None or not url.startswith("https:"):
            # Anybody between us and the locator could use what they read.
            return headers
        from minga_runtime.trust.own_grant import AUTHORIZATION

        return headers | {AUTHORIZATION: self._grant.header}

    def _span(self, method: str, path: str) -> Span:
        if not tracing.enabled():
            return INVALID_SPAN
        url = urlsplit(self._base_url + path)
        template = _COLLECTION.sub(r"\1/{}", url.path)
        about = {
            "http.request.method": method,
            "url.full": url.geturl(),
            "url.template": template,
            "server.address": url.hostname,
            "server.port": url.port,
        }
        return tracing.start_client_span(f"{method} {template}", about)

    def _http(self) -> "httpx.AsyncClient":
        import httpx

        if self._client is None:
            timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
            # Machines of one network are reached directly, whatever proxy variables say about the way out of it.
            # Loading the system's certificates takes longer than a look-up; without TLS there is nothing to verify.
            verify: bool | ssl.SSLContext = self._base_url.startswith("https:")
            if self._credentials is not None:
                verify = self._credentials.locator_context()
            self._client = httpx.AsyncClient(
                timeout=timeout,
                transport=self._transport,
                trust_env=False,
                verify=verify,
                headers={"Accept-Encoding": "identity"},
            )
        return self._client

    def _tls_hint(self, reason: str) -> str:
        if reason == _NO_TLS_THERE:
            return "write http:// for a locator that has no TLS"
        if self._credentials is None:
            return "in a secure network MINGA_CREDENTIALS is the folder that `minga join` wrote"
        return "is it a locator of your network? MINGA_TLS_CA has the CAs that are trusted"

    def _away(self, reason: str) -> "_LocatorAwayError":
        hint = "start one with `minga up`, or set MINGA_LOCATOR to the URL of one that runs"
        if reason.startswith(_HUNG_UP):
            hint = "one of a secure network has https://"
        if self._credentials is not None:
            # It closes connections with certificates of another CA, and its TLS does not say why.
            hint = "does it run, and trust the CA of MINGA_TLS_CERT?"
        return _LocatorAwayError(f"the locator at {self._base_url} does not answer: {reason}", hint=hint)

    def _refusal(self, status: int, content: bytes) -> MingaError:
        """The error of an answer that is not a good one."""
        try:
            problem = json.loads(content)
            code, detail = text(problem["code"]), line(problem["detail"])
        except (ValueError, KeyError, TypeError, RecursionError):
            if status in _AWAY_STATUSES:
                return self._away(f"HTTP {status}")
            return not_a_locator(f"HTTP {status} without a problem document")
        if code in (Code.STORE_UNAVAILABLE, Code.UNAVAILABLE, Code.BUSY):
            return _LocatorNotReadyError(f"the locator at {self._base_url} is not ready: {detail}")
        error = error_from_code(code, detail)
        return LocatorUnavailableError(f"the locator failed: {detail}") if isinstance(error, InternalError) else error


class _LocatorAwayError(LocatorUnavailableError):
    """No answer, or not yet: worth a retry."""


class _LocatorNotReadyError(_LocatorAwayError):
    """It answers, and reports that its store is unavailable or recovering."""


@contextmanager
def checked() -> Iterator[None]:
    """Turns anything that is wrong with an answer into LocatorUnavailableError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError, InvalidArgumentError) as error:
        raise not_a_locator(f"{type(error).__name__}: {str(error)[:200]}") from error


def not_a_locator(reason: str) -> LocatorUnavailableError:
    """The error for an answer that no locator gives."""
    return LocatorUnavailableError(
        f"what answers is not a Minga locator: {reason}", hint="check MINGA_LOCATOR; it is the URL of a locator"
    )


def _checked_url(text: str) -> str:
    """The URL without a slash at its end. Raises SettingsError."""
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in text
    except ValueError:
        good = False
    if not good or not text.isprintable() or parts.query or parts.fragment or " " in text:
        raise SettingsError(f"MINGA_LOCATOR: {text[:80]!r} is not the URL of a locator: http://host:port is wanted")
    return text.rstrip("/")


def _tls_error(error: BaseException | None) -> str | None:
    """Why the handshake failed, where that is what was behind an error."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        if isinstance(error, ssl.SSLError):
            return error.reason or str(error)
        error = error.__cause__ or error.__context__
    return None


async def _content(response: "httpx.Response") -> bytes:
    """The body. Raises LocatorUnavailableError when it is larger than any answer of ours, or compressed: 2 KiB can be
    GiB, and more with each further encoding, and the client library unpacks what it has read at once."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise not_a_locator("an answer is compressed, which was not asked for")
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise not_a_locator(f"an answer has more than {MAX_ANSWER_BYTES:,} bytes")
    return bytes(content)
