"""A running server for tests."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from prometheus_client import CollectorRegistry

from minga_authority._metrics import AuthorityMetrics
from minga_authority.authority import Authority
from minga_authority.certificates import pem
from minga_authority.folder import AuthorityFolder, Network, init
from minga_authority.server import AuthorityServer
from minga_authority.terms import Terms
from minga_core.clock import SystemClock
from minga_runtime.sockets import listen_tcp
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.credentials import Credentials
from minga_runtime.trust.credentials_folder import CA, CERTIFICATE, KEY, REVOKED
from minga_runtime.trust.joining import JoinToken
from minga_runtime.trust.members import Role
from minga_runtime.trust.private_files import write_private
from minga_runtime.trust.refusals import Refusals
from minga_runtime.trust.tls_files import TlsFiles

HOUR = timedelta(hours=1)
PEERS = Terms(Role.PEER, read=("*",), publish=("data",), uses=0)
GRACE = timedelta(seconds=1)


class Running:
    """A server, and its authority."""

    def __init__(self, made: AuthorityFolder, port: int, life: timedelta, audit: Path | None) -> None:
        self._port = port
        self._registry = CollectorRegistry()
        self._metrics = AuthorityMetrics(self._registry, "")
        self._audit = Audit(audit, "authority", self._registry)
        self._refusals = Refusals(self._registry, "authority", self._audit)
        self.authority = Authority(made, life=life, audit=self._audit)

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
        return self._value("minga_authority_requests_total", path=path, status="200")

    def refused(self, reason: str) -> float:
        """Refusals so far."""
        return self._value("minga_authority_refused_total", reason=reason)

    def _value(self, metric: str, **labels: str) -> float:
        return self._registry.get_sample_value(metric, labels) or 0.0

    @asynccontextmanager
    async def again(self, listening: socket.socket | None = None) -> AsyncIterator[None]:
        """Serve, on the same port as before."""
        with listening or listen_tcp(f"127.0.0.1:{self._port}") as bound:
            server = AuthorityServer(self.authority, self._metrics, self._refusals)
            await server.start(bound)
            try:
                yield
            finally:
                await server.aclose(GRACE)
                await self._audit.aclose()


@asynccontextmanager
async def running(folder: Path, life: timedelta = HOUR, audit: Path | None = None) -> AsyncIterator[Running]:
    listening = listen_tcp("127.0.0.1:0")
    port = listening.getsockname()[1]
    made = init(folder, Network("test", f"https://127.0.0.1:{port}", "registry:50051"), SystemClock().wall())
    net = Running(made, port, life, audit)
    async with net.again(listening):
        yield net


def reissue(authority: AuthorityFolder, folder: Path, life: timedelta, *, ago: timedelta = timedelta()) -> None:
    """A member has another certificate of the same key and names, as if it had been made so long ago."""
    now = datetime.now(UTC).replace(microsecond=0)
    key = load_pem_private_key((folder / KEY).read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    former = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    names = former.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = [str(each.value) for each in names if not isinstance(each, x509.UniformResourceIdentifier)]
    ca = authority.keys().signing_ca(now.timestamp())
    write_private(folder / CERTIFICATE, pem(ca.issue(key.public_key(), uri, hosts, now - ago, life, serves=True)))


def credentials(folder: Path) -> Credentials:
    files = TlsFiles(folder / CERTIFICATE, folder / KEY, folder / CA, folder / REVOKED)
    return Credentials(files, frozenset(Role))
