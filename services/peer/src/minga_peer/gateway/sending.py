"""Sends a part of a content, while it arrives, to a client that may be slow or go away."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from starlette.types import Receive, Send

from minga_engine.transfer.locating import Located
from minga_engine.transfer.stream import Reader, Streams

BLOCK_BYTES = 256 * 1024
"""Read and sent at a time; an answer has about three of them in memory."""
WAIT = timedelta(seconds=30)
"""How long a source is waited for, at the beginning and in the middle of an answer: clients and proxies in between wait
about a minute."""

Headers = list[tuple[bytes, bytes]]


async def send_content(
    streams: Streams,
    file: Located,
    start: int,
    stop: int,
    begin: Callable[[Reader], tuple[int, Headers]],
    receive: Receive,
    send: Send,
    sent: Callable[[Reader, int], None],
) -> None:
    """Send the bytes start to stop - 1; nothing more once the client has gone.

    begin: the status and headers, called when the first bytes are here. sent: called with the bytes that each message
    had. Raises what `Reader.read` raises: before `begin` was called, or else the answer is short.
    """
    async with streams.open(file, wait=WAIT) as reader:
        sending = asyncio.create_task(_send(reader, start, stop, begin, send, sent), name="gateway-send")
        gone = asyncio.create_task(_disconnected(receive), name="gateway-disconnected")
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        if not sending.cancelled():
            sending.result()


async def _send(
    reader: Reader,
    start: int,
    stop: int,
    begin: Callable[[Reader], tuple[int, Headers]],
    send: Send,
    sent: Callable[[Reader, int], None],
) -> None:
    block = await reader.read(start, min(BLOCK_BYTES, stop - start)) if start < stop else b""
    status, headers = begin(reader)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    while (start := start + len(block)) < stop:
        await send({"type": "http.response.body", "body": block, "more_body": True})
        sent(reader, len(block))
        block = await reader.read(start, min(BLOCK_BYTES, stop - start))
    await send({"type": "http.response.body", "body": block})
    sent(reader, len(block))


async def _disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
