"""A TCP proxy that makes a server slow, silent, or unreliable. Runs in the test's event loop."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

PIECE = 65536


@dataclass
class Faults:
    """What happens on the way; may be changed at any time."""

    delay_seconds: float = 0.0
    """Of each piece, in each direction."""
    silent: bool = False
    """Accepts, takes what comes, and never passes anything on."""
    trickle: bool = False
    """Passes answers on byte by byte, one each `delay_seconds`."""
    reset_probability: float = 0.0
    """That a connection is reset when a piece passes, in whatever direction."""
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    resets: int = 0


@contextlib.asynccontextmanager
async def proxied(target_port: int, faults: Faults) -> AsyncIterator[int]:
    """The port to connect to instead, for the block."""
    tasks: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        ends = [writer]
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", target_port)
            ends.append(upstream)
            both = (
                _pass_on(reader, upstream, faults, (writer, upstream)),
                _pass_on(upstream_reader, writer, faults, (writer, upstream), answers=True),
            )
            with contextlib.suppress(OSError):
                await asyncio.gather(*both)
        except asyncio.CancelledError:
            pass
        finally:
            for end in ends:
                end.transport.abort()
            for end in ends:
                with contextlib.suppress(OSError):
                    await end.wait_closed()
            tasks.discard(task)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    faults: Faults,
    both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    *,
    answers: bool = False,
) -> None:
    while piece := await source.read(PIECE):
        if faults.reset_probability and faults.rng.random() < faults.reset_probability:
            faults.resets += 1
            for writer in both:
                writer.transport.abort()
            return
        while faults.silent:  # noqa: ASYNC110 - the test's own switch
            await asyncio.sleep(0.02)
        pieces = [piece[at : at + 1] for at in range(len(piece))] if answers and faults.trickle else [piece]
        for part in pieces:
            if faults.delay_seconds:
                await asyncio.sleep(faults.delay_seconds)
            sink.write(part)
        await sink.drain()
    sink.close()
