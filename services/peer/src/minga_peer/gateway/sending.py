"""Sends a part of a content, while it arrives, to a client that may be slow or go away."""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TypeVar

from starlette.types import Receive, Send

from minga_engine.transfer.stream import Reader
from minga_peer.gateway.selecting import Selected

BLOCK_BYTES = 256 * 1024
"""Read and sent at a time; an answer has about three of them in memory."""
LARGE_BLOCK_BYTES = 1024 * 1024
PROMPT_SECONDS = 0.1
"""A client that takes no longer for a block gets a large one next: sending 512 MiB to curl takes 0.4 s of processor
time in place of 0.75. Those that are slow, of which there may be many, keep little memory."""
WAIT = timedelta(seconds=30)
"""How long a source is waited for, at the beginning and in the middle of an answer: clients and proxies in between wait
about a minute."""
_PREFERRED_WAIT = re.compile(r'(?:^|[,;])[ \t]*wait[ \t]*=[ \t]*"?(\d{1,9})"?[ \t]*(?:$|[,;])', re.IGNORECASE)

Headers = list[tuple[bytes, bytes]]
ContentReader = TypeVar("ContentReader", bound=Reader)


def wait_of(prefer: str) -> timedelta:
    """How long a client waits for a source, by its `Prefer: wait=SECONDS` (RFC 7240): at most WAIT."""
    found = _PREFERRED_WAIT.search(prefer)
    return min(WAIT, timedelta(seconds=int(found[1]))) if found else WAIT


def raw_headers(headers: Mapping[str, str]) -> Headers:
    """As ASGI has them."""
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]


async def send_content(
    opening: AbstractAsyncContextManager[ContentReader],
    selected: Selected,
    headers: Mapping[str, str],
    source: Callable[[ContentReader], str],
    receive: Receive,
    send: Send,
    sent: Callable[[str, int], None],
) -> None:
    """Send the bytes that are selected; nothing more once the client has gone.

    opening: gives the reader. source: where its bytes are from, as it is when they go out: `X-Minga-Source`, and what
    `sent` is called with beside the size of each message. The answer begins when the first bytes are here. Raises what
    `Reader.read` raises: before it has begun, or else the answer is short.
    """
    async with opening as reader:
        work = _send(reader, selected, headers, source, send, sent)
        sending = asyncio.create_task(work, name="gateway-send")
        gone = asyncio.create_task(disconnected(receive), name="gateway-disconnected")
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
        if not sending.cancelled():
            sending.result()


async def _send(
    reader: ContentReader,
    selected: Selected,
    headers: Mapping[str, str],
    source: Callable[[ContentReader], str],
    send: Send,
    sent: Callable[[str, int], None],
) -> None:
    start, stop = selected.start, selected.stop
    block = await reader.read(start, min(BLOCK_BYTES, stop - start)) if start < stop else b""
    begun = {**headers, "X-Minga-Source": source(reader)}
    await send({"type": "http.response.start", "status": selected.status, "headers": raw_headers(begun)})
    now = asyncio.get_running_loop().time
    while (start := start + len(block)) < stop:
        began = now()
        await send({"type": "http.response.body", "body": block, "more_body": True})
        sent(source(reader), len(block))
        block_bytes = LARGE_BLOCK_BYTES if now() - began < PROMPT_SECONDS else BLOCK_BYTES
        block = await reader.read(start, min(block_bytes, stop - start))
    await send({"type": "http.response.body", "body": block})
    sent(source(reader), len(block))


async def disconnected(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
