"""What is in flight, and which chunks that claims. Never touches a socket."""

from dataclasses import dataclass

from minga_core.ids import PeerId


@dataclass(slots=True)
class Request:
    """One call for one chunk."""

    source: PeerId
    candidates: int
    """Bitmap of the chunks that the source may choose among; one bit once it has chosen."""
    size_bytes: int
    """Size of the largest candidate."""
    started: float
    deadline: float
    request_id: int = 0
    received_bytes: int = 0
    hedge: bool = False
    """A second request for a chunk that another source is to send."""
    open: bool = False
    """It claims nothing until its source has chosen."""

    @property
    def chosen(self) -> bool:
        """Whether it is known which chunk comes."""
        return self.candidates & (self.candidates - 1) == 0

    @property
    def claims(self) -> int:
        """Bitmap of the chunks that no other source should be asked for meanwhile."""
        return 0 if self.open else self.candidates

    def expected_end(self, now: float) -> float:
        """When it will be done if it goes on as so far; infinite while nothing came."""
        if self.received_bytes == 0:
            return float("inf")
        elapsed = max(now - self.started, 1e-6)
        return self.started + elapsed * self.size_bytes / self.received_bytes


class RequestTable:
    """Requests in flight, by id."""

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._next_id = 1
        self.claimed = 0
        """Bitmap of chunks that some request may bring."""
        self.outstanding_bytes = 0

    def add(self, request: Request) -> Request:
        """Add a request and set its id."""
        request.request_id = self._next_id
        self._next_id += 1
        self._requests[request.request_id] = request
        self.claimed |= request.claims
        self.outstanding_bytes += request.size_bytes
        return request

    def get(self, request_id: int) -> Request | None:
        """The request, unless it has ended."""
        return self._requests.get(request_id)

    def narrow(self, request: Request, index: int) -> None:
        """Note the source's choice: the other candidates are free again."""
        released = request.claims & ~(1 << index)
        request.candidates, request.open = 1 << index, False
        self.claimed |= request.candidates
        self._release(released)

    def end(self, request_id: int) -> Request | None:
        """Remove a request; its candidates are free again unless another request claims them."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            self.outstanding_bytes -= request.size_bytes
            self._release(request.claims)
        return request

    def _release(self, bits: int) -> None:
        for other in self._requests.values():
            bits &= ~other.claims
        self.claimed &= ~bits

    def of_chunk(self, index: int) -> list[Request]:
        """Requests that can bring nothing but that chunk."""
        bit = 1 << index
        return [request for request in self._requests.values() if request.candidates == bit]

    def all(self) -> list[Request]:
        """Every request in flight, oldest first."""
        return list(self._requests.values())

    def __len__(self) -> int:
        return len(self._requests)
