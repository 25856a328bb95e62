"""Which servers speak TLS, for a process whose network goes from open to secure (docs/adr/0038)."""

import asyncio
import ssl
from contextlib import suppress

from minga_runtime.listening import split_listen

ANSWER_SECONDS = 5.0
"""An answer is believed for so long: servers move, and may move back."""
LIMIT_SECONDS = 2.0
MAX_ANSWERS = 1_000
_TLS_RECORDS = (b"\x15", b"\x16")
"""An alert, or a handshake."""


class TlsServers:
    """Remembers what each server speaks; for one event loop."""

    def __init__(self) -> None:
        self._asked: dict[str, tuple[float, asyncio.Task[bool | None]]] = {}

    async def speaks_tls(self, address: str, context: ssl.SSLContext) -> bool:
        """Whether what listens on host:port speaks TLS. True where it does not answer: the connection says why."""
        now = asyncio.get_running_loop().time()
        until, answer = self._asked.get(address, (0.0, None))
        if answer is None or now >= until or (answer.done() and answer.result() is None):
            if len(self._asked) >= MAX_ANSWERS:
                self._asked.clear()
            answer = asyncio.create_task(_tls_of(address, context), name="tls-server")
            self._asked[address] = now + ANSWER_SECONDS, answer
        return await asyncio.shield(answer) is not False


async def _tls_of(address: str, context: ssl.SSLContext) -> bool | None:
    """As `_answers_tls`; None where nothing answers."""
    try:
        return await _answers_tls(address, context)
    except OSError:
        return None


async def _answers_tls(address: str, context: ssl.SSLContext) -> bool:
    """Send the beginning of a handshake. Raises OSError (TimeoutError included) where nothing answers."""
    greeting = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), greeting).do_handshake()
    async with asyncio.timeout(LIMIT_SECONDS):
        reader, writer = await asyncio.open_connection(*split_listen(address))
        try:
            writer.write(greeting.read())
            return await reader.read(1) in _TLS_RECORDS
        except ConnectionError:
            return False
        finally:
            writer.transport.abort()
