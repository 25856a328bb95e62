"""How long the store takes to answer a PING, all the time: commands that hold it up are seen here."""

import asyncio
import socket
import threading
import time
from typing import Any

from bench.directory.stats import summary
from bench.directory.worker import serve

INTERVAL_SECONDS = 0.005
ANSWER_SECONDS = 30.0


class _Pinger(threading.Thread):
    def __init__(self, host: str, port: int) -> None:
        super().__init__(daemon=True)
        self._address = (host, port)
        self._ended = threading.Event()
        self.seconds: list[float] = []

    def run(self) -> None:
        with socket.create_connection(self._address, timeout=ANSWER_SECONDS) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while not self._ended.is_set():
                asked_at = time.perf_counter()
                connection.sendall(b"PING\r\n")
                connection.recv(64)
                self.seconds.append(time.perf_counter() - asked_at)
                time.sleep(INTERVAL_SECONDS)

    def end(self) -> None:
        self._ended.set()
        self.join(ANSWER_SECONDS)


_RUNNING: list[_Pinger] = []


async def start(host: str, port: int) -> None:
    """Pings from now on."""
    pinger = _Pinger(host, port)
    _RUNNING.append(pinger)
    pinger.start()


async def stop() -> dict[str, Any]:
    """Ends it; the times."""
    pinger = _RUNNING.pop()
    await asyncio.to_thread(pinger.end)
    return summary(pinger.seconds)


if __name__ == "__main__":
    serve({"start": start, "stop": stop})
