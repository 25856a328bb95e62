"""How much of an answer is in memory at a time."""

import asyncio
from contextlib import nullcontext
from typing import Any

import pytest

from minga_core.ids import ContentId, digest
from minga_peer.gateway import sending
from minga_peer.gateway.selecting import Selected

KIB = 1024


class Reader:
    """Implements Reader; notes how much is read at a time."""

    content_id, size_bytes, local = ContentId(digest(b"")), 4 * KIB * KIB, True

    def __init__(self) -> None:
        self.lengths: list[int] = []

    async def read(self, offset: int, length: int) -> bytes:
        self.lengths.append(length)
        return bytes(length)


@pytest.mark.parametrize(("prompt_seconds", "block_bytes"), [(20.0, 1024 * KIB), (0.0, 256 * KIB)])
async def test_clients_that_are_prompt_get_large_blocks(
    monkeypatch: pytest.MonkeyPatch, prompt_seconds: float, block_bytes: int
) -> None:
    """After a small one; those that are slow get small ones."""
    monkeypatch.setattr(sending, "PROMPT_SECONDS", prompt_seconds)
    reader, sent = Reader(), bytearray()

    async def send(message: Any) -> None:
        sent.extend(message.get("body", b""))
        await asyncio.sleep(0.001)

    async def receive() -> Any:
        await asyncio.Event().wait()

    selected = Selected(200, 0, reader.size_bytes)
    await sending.send_content(
        nullcontext(reader), selected, {}, lambda _: "local", receive, send, lambda _source, _count: None
    )
    assert len(sent) == reader.size_bytes
    assert reader.lengths[0] == 256 * KIB
    assert set(reader.lengths[1:-1]) == {block_bytes}
