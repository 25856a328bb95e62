"""A running server for tests."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry

from minga_authority._metrics import AuthorityMetrics
from minga_authority.authority import Authority
from minga_authority.folder import Network, init
from minga_authority.server import AuthorityServer
from minga_authority.terms import Terms
from minga_core.clock import SystemClock
from minga_runtime.sockets import listen_tcp
from minga_runtime.trust.credentials import Credentials, TlsFiles
from minga_runtime.trust.credentials_folder import CA, CERTIFICATE, KEY, REVOKED
from minga_runtime.trust.joining import JoinToken
from minga_runtime.trust.members import Role

HOUR = timedelta(hours=1)
PEERS = Terms(Role.PEER, read=("*",), publish=("data",), uses=0)
GRACE = timedelta(seconds=1)


class Running:
    """A server, and its authority."""

    def __init__(self, authority: Authority, port: int) -> None:
        self.authority = authority
        self._port = port
        self._registry = CollectorRegistry()
        self._metrics = AuthorityMetrics(self._registry, "")

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    def token(self, terms: Terms = PEERS) -> JoinToken:
        return JoinToken.parse(self.authority.create_token(terms, HOUR))

    def requests(self, path: str) -> float:
        """Good answers so far."""
        labels = {"path": path, "status": "200"}
        return self._registry.get_sample_value("minga_authority_requests_total", labels) or 0.0

    @asynccontextmanager
    async def again(self, listening: socket.socket | None = None) -> AsyncIterator[None]:
        """Serve, on the same port as before."""
        with listening or listen_tcp(f"127.0.0.1:{self._port}") as bound:
            server = AuthorityServer(self.authority, self._metrics)
            await server.start(bound)
            try:
                yield
            finally:
                await server.aclose(GRACE)


@asynccontextmanager
async def running(folder: Path, life: timedelta = HOUR) -> AsyncIterator[Running]:
    listening = listen_tcp("127.0.0.1:0")
    port = listening.getsockname()[1]
    made = init(folder, Network("test", f"https://127.0.0.1:{port}", "registry:50051"), SystemClock().wall())
    net = Running(Authority(made, life=life), port)
    async with net.again(listening):
        yield net


def credentials(folder: Path) -> Credentials:
    files = TlsFiles(folder / CERTIFICATE, folder / KEY, folder / CA, folder / REVOKED)
    return Credentials(files, frozenset(Role))
