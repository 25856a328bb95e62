"""TLS to one peer: the credentials of the time, and the peer that must answer."""

import ssl
from dataclasses import dataclass

from minga_core.errors import PeerUnavailableError, PermissionDeniedError
from minga_core.ids import PeerId
from minga_runtime.trust.credentials import Loaded
from minga_runtime.trust.members import PEER_DOMAIN, Member, Role, check_server, member_at


@dataclass(frozen=True, slots=True)
class PeerTls:
    """What connections to a peer are made with."""

    loaded: Loaded
    peer_id: PeerId

    @property
    def server_name(self) -> str:
        """The DNS name in the peer's certificate, which gRPC demands."""
        return f"{self.peer_id}{PEER_DOMAIN}"

    def check_not_revoked(self) -> None:
        """Raises PeerUnavailableError for a peer that is no member any more."""
        if self.loaded.revoked.anybody:
            try:
                self.loaded.revoked.check(Member(self.loaded.member.network, Role.PEER, self.peer_id).uri)
            except PermissionDeniedError as error:
                raise PeerUnavailableError(str(error)) from error

    def check(self, connection: ssl.SSLObject) -> None:
        """Check who has answered. Raises UnauthenticatedError."""
        check_server(member_at(connection), self.loaded.member, Role.PEER, self.peer_id)
