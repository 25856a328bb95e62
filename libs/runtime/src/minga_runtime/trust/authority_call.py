"""Calls to a network's authority: one small HTTPS request, one JSON answer."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any

from minga_core.errors import MingaError, UnavailableError, error_from_code
from minga_runtime.listening import split_listen

AUTHORITY_HOST = "authority.minga"
"""The DNS name in the authority's certificate, whatever its host is called. The CA gives it to nobody else."""
CALL_SECONDS = 10.0
MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Some 40,000 revoked members."""


async def call_authority(
    url: str, context: ssl.SSLContext, method: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The answer to a request. url: https://host:port.

    context: verifies that it is the authority; one that demands no certificate learns only what anybody may say.
    Raises UnavailableError, also for what is no authority, and the authority's own refusals.
    """
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.0\r\nHost: {AUTHORITY_HOST}\r\nContent-Type: application/json\r\n"
    try:
        host, port = split_listen(url.removeprefix("https://").rstrip("/"))
        async with asyncio.timeout(CALL_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=AUTHORITY_HOST)
            try:
                writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                answer = await _read_all(reader)
            finally:
                writer.transport.abort()
    except (OSError, MingaError) as error:  # those of TLS and of time too
        reason = str(error) or "it does not answer"
        raise UnavailableError(f"no answer from the authority at {url}: {reason}") from error
    return _checked(url, answer)


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while data := await reader.read(64 * 1024):
        answer += data
        if len(answer) > MAX_ANSWER_BYTES:
            raise OSError(f"the answer has more than {MAX_ANSWER_BYTES:,} bytes")
    return bytes(answer)


def _checked(url: str, answer: bytes) -> dict[str, Any]:
    """The JSON object in a successful answer. Raises MingaError."""
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        status, found = int(head.split(b" ", 2)[1]), json.loads(body)
    except (ValueError, IndexError):
        found = None
    if not isinstance(found, dict):
        raise UnavailableError(f"what answers at {url} is no authority")
    if status != 200:
        raise error_from_code(str(found.get("code")), str(found.get("detail"))[:1000])
    return found
