"""The downloads of this peer as they go, for the page that shows them."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from minga_core.ids import ContentId
from minga_core.names import Name
from minga_peer.gateway.rights import readable
from minga_runtime.trust.callers import Caller


@dataclass(frozen=True, slots=True)
class Transfer:
    """A download under way. rate_bytes_per_second: over the last few seconds."""

    name: Name
    content_id: ContentId | None
    size_bytes: int
    held_bytes: int
    rate_bytes_per_second: float
    active_source_count: int


@dataclass(frozen=True, slots=True)
class Transfers:
    """Answers `GET /transfers`. under_way: the downloads whose size is known."""

    under_way: Callable[[], Iterable[Transfer]]

    async def list(self, rest: str, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """Those whose names the caller may read. Raises UnauthenticatedError."""
        read = readable(caller)
        found = [_fields(each) for each in self.under_way() if each.name in read]
        await JSONResponse({"transfers": found}, headers={"Cache-Control": "no-store"})(scope, receive, send)


def _fields(transfer: Transfer) -> dict[str, object]:
    content_id = transfer.content_id
    return asdict(transfer) | {"content_id": None if content_id is None else str(content_id)}
