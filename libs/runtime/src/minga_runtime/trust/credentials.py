"""A member's certificate, its key and the network's CA, from files that are read again when they change.

A changed file counts from the next connection on; one that is no good leaves what was read before in place, and is
logged once. Contexts made here ask for the present credentials at each handshake, so their users need not follow.
"""

import logging
import ssl
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from minga_core.errors import MingaError, SettingsError, UnauthenticatedError
from minga_runtime.logs import log_event
from minga_runtime.trust.members import SERVERS, Member, Role, check_server, expires_at, member_at, names_at
from minga_runtime.trust.revocation import Revoked
from minga_runtime.trust.tls_files import Fingerprint, TlsFiles
from minga_runtime.trust.tls_servers import TlsServers

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""The files are looked at once in so long at most, when there is a connection to make."""
HANDSHAKE_ROUNDS = 4
"""Above those of TLS 1.2."""
READ_ATTEMPTS = 3
"""Files that change while they are read are read again; after that at the next look."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """What the files held at one time. Two are the same only when nothing has changed."""

    certificate: bytes
    key: bytes
    ca: bytes
    member: Member
    hosts: tuple[str, ...]
    """The DNS names of the certificate."""
    expires: float
    """When the certificate ends: Unix time."""
    revoked: Revoked
    """Who is no member any more."""
    peers: ssl.SSLContext
    """For connections to peers, whose hosts have any name: the caller checks who it is."""
    locator: ssl.SSLContext
    """For connections to the locator, by the name of its host."""
    server: ssl.SSLContext
    """Demands a certificate."""
    web: ssl.SSLContext
    """Asks for a certificate, and lets a client without one get as far as the application."""


class Credentials:
    """The credentials of this process; for any thread. Raises SettingsError when they are no good at the start.

    roles: what this process may be. name: what the certificate must name, where that is known. both: servers without
    TLS are called too.
    """

    def __init__(self, files: TlsFiles, roles: frozenset[Role], name: str = "", *, both: bool = False) -> None:
        self._files = files
        self._servers = TlsServers() if both else None
        self._lock = threading.Lock()
        self.revoked = Revoked(files.revoked)
        self._seen, self._loaded = _load(files, self.revoked)
        self._looked_at = time.monotonic()
        self.member = self._loaded.member
        if self.member.role not in roles or (name and self.member.name != name):
            wanted = " or ".join(sorted(roles)) + (f" {name}" if name else "")
            raise SettingsError(
                f"MINGA_TLS_CERT: {files.certificate} is a certificate of {self.member}, not of {wanted}"
            )
        warn_of_mode(files.key)

    def current(self) -> Loaded:
        """The newest good content of the files. Never raises."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked_at >= LOOK_SECONDS:
                self._looked_at = now
                self._look()
            return self._loaded

    async def towards(self, address: str) -> Loaded | None:
        """What to connect to host:port with; None for a server without TLS, where those are called too. Never raises.
        Whether the server's certificate is good is not looked at: one that is not is no reason to go without."""
        loaded = self.current()
        plain = self._servers is not None and not await self._servers.speaks_tls(address, loaded.peers)
        return None if plain else loaded

    def expires(self) -> float:
        """When the certificate ends: Unix time."""
        return self.current().expires

    def locator_context(self) -> ssl.SSLContext:
        """A context for connections to the locator, each with the credentials of its time."""
        return PresentContext.of(ssl.PROTOCOL_TLS_CLIENT, lambda: self.current().locator)

    def web_context(self, on_refused: Callable[[ssl.SSLError], None] | None = None) -> ssl.SSLContext:
        """A context for a web server, each connection with the credentials of its time. on_refused: called with what
        ends a handshake, which nobody else sees."""
        context = PresentContext.of(ssl.PROTOCOL_TLS_SERVER, lambda: self.current().web)
        context.on_refused = on_refused
        return context

    def _look(self) -> None:
        try:
            seen = self._files.fingerprint()
        except OSError as error:
            if self._seen:
                log_event(log, logging.WARNING, "credentials_not_read", error=error)
            self._seen = ()
            return
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._seen, loaded = _load(self._files, self.revoked)
            if loaded.member != self.member:
                raise SettingsError(f"they are of {loaded.member}, and this is {self.member}")
        except MingaError as error:
            log_event(log, logging.WARNING, "credentials_not_read", error=error)
            return
        self._loaded = loaded
        log_event(log, logging.INFO, "credentials_renewed", member=str(self.member))


class PresentContext(ssl.SSLContext):
    """A context whose connections are those of the present one. asyncio, uvloop and anyio all begin with `wrap_bio`."""

    _present: Callable[[], ssl.SSLContext]
    on_refused: Callable[[ssl.SSLError], None] | None = None

    @classmethod
    def of(cls, protocol: int, present: Callable[[], ssl.SSLContext]) -> Self:
        context = cls(protocol)
        context._present = present
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        made = self._present().wrap_bio(*arguments, **options)
        if isinstance(made, ReportingConnection):
            made.on_refused = self.on_refused
        return made


def _load(files: TlsFiles, revoked: Revoked) -> tuple[Fingerprint, Loaded]:
    """What the files hold, and their fingerprint. Raises SettingsError."""
    try:
        for _ in range(READ_ATTEMPTS):
            before = files.fingerprint()
            loaded = _read(files, revoked)
            if files.fingerprint() == before:
                return before, loaded
    except OSError as error:  # those of ssl too
        names = "MINGA_TLS_CERT, MINGA_TLS_KEY, MINGA_TLS_CA"
        advice = "the files of one `minga join`, or of one certificate, belong together"
        raise SettingsError(f"{names}: {_reason(error)}", hint=advice) from error
    except UnauthenticatedError as error:
        raise SettingsError(f"MINGA_TLS_CERT: {error}") from error
    raise SettingsError(f"{files.certificate} and the files beside it change all the time")


def _read(files: TlsFiles, revoked: Revoked) -> Loaded:
    """Raises OSError, and MingaError for a certificate that names no member."""

    def context(protocol: int) -> ssl.SSLContext:
        made = ssl.SSLContext(protocol)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_cert_chain(files.certificate, files.key)
        made.load_verify_locations(files.ca)
        # A session that is resumed is of a certificate that nobody looks at again.
        made.options |= ssl.OP_NO_TICKET
        if protocol == ssl.PROTOCOL_TLS_SERVER:
            made.num_tickets = 0
        return made

    peers, locator = context(ssl.PROTOCOL_TLS_CLIENT), context(ssl.PROTOCOL_TLS_CLIENT)
    server, web = context(ssl.PROTOCOL_TLS_SERVER), context(ssl.PROTOCOL_TLS_SERVER)
    peers.check_hostname = False
    web.verify_mode = ssl.CERT_OPTIONAL
    member, hosts, expires = _own_names(peers, server)
    web.sslobject_class = ReportingConnection
    locator.sslobject_class = type("ToLocator", (_ToLocator,), {"own": member, "revoked": revoked})
    return Loaded(
        certificate=files.certificate.read_bytes(),
        key=files.key.read_bytes(),
        ca=files.ca.read_bytes(),
        member=member,
        hosts=hosts,
        expires=expires,
        revoked=revoked,
        peers=peers,
        locator=locator,
        server=server,
        web=web,
    )


class _ToLocator(ssl.SSLObject):
    """A connection to the locator, whose handshake ends with a look at who answers."""

    own: Member
    revoked: Revoked

    def do_handshake(self) -> None:
        super().do_handshake()
        found = member_at(self)
        check_server(found, self.own, Role.LOCATOR)
        self.revoked.check(found.uri)


class ReportingConnection(ssl.SSLObject):
    """A connection of a client to a server, which reports a handshake that fails."""

    on_refused: Callable[[ssl.SSLError], None] | None = None

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if self.on_refused is not None:
                self.on_refused(error)
            raise


def _own_names(client: ssl.SSLContext, server: ssl.SSLContext) -> tuple[Member, tuple[str, ...], float]:
    """Who we are to others, the DNS names in our certificate, and when that ends. Raises ssl.SSLError,
    UnauthenticatedError.

    Found by a handshake with ourselves: what is wrong with the certificate shows here, and not at the first connection.
    """
    client.verify_mode = ssl.CERT_NONE
    seen = _handshake(client, server)
    member, hosts = member_at(seen), names_at(seen, "DNS")
    client.verify_mode = ssl.CERT_REQUIRED
    if member.role in SERVERS:
        _handshake(client, server)
    return member, tuple(hosts), expires_at(seen)


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> ssl.SSLObject:
    """The server's end of a connection in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(HANDSHAKE_ROUNDS):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[1]


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid here: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no certificate with its key, or no CA: {error.reason or 'one of them is no PEM'}"
    return f"{error.filename}: {error.strerror}"


def warn_of_mode(key: Path) -> None:
    """Log that everybody may read a secret. Kubernetes gives them the mode 0644, in containers with one user: no reason
    not to start."""
    if key.stat().st_mode & stat.S_IROTH:
        log_event(log, logging.WARNING, "private_key_readable_by_all", path=key)
