"""Calls with any bytes for messages, and how each has to end."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from tests.fuzz.target import ANSWER_SECONDS

BAD_INPUT = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""How a call may end, whatever was sent. PERMISSION_DENIED is for what a peer does not fetch for others. UNAVAILABLE is
for a store that is away, which this one is not."""
MAX_ANSWERS = 200
ENDLESS_SECONDS = 0.1


@dataclass
class Caller:
    """Makes calls over one channel. Not for several threads."""

    channel: grpc.Channel
    service: ServiceDescriptor
    endless: frozenset[str] = frozenset()
    """Methods whose answers may go on until the caller goes away."""
    seen: dict[str, set[str]] = field(default_factory=dict)
    """For each method the statuses with which it ended."""

    @property
    def methods(self) -> list[MethodDescriptor]:
        """Of the service."""
        return list(self.service.methods)

    def call(
        self,
        method: MethodDescriptor,
        requests: Sequence[bytes | Message],
        cut_after: float | None = None,
        *,
        ends: bool = False,
    ) -> str:
        """The status's name. Fails when it is none that is allowed. cut_after: cancel the call so many seconds later.
        ends: the call has to end by itself, although calls of that method may be endless."""
        sent = [item if isinstance(item, bytes) else item.SerializeToString() for item in requests]
        started = time.monotonic()
        endless = method.name in self.endless and not ends
        limit = cut_after if cut_after is not None else ENDLESS_SECONDS if endless else ANSWER_SECONDS
        code, details = self._ended(method, sent, limit)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and cut_after is not None:
            code = grpc.StatusCode.CANCELLED
        seconds = time.monotonic() - started
        self.seen.setdefault(method.name, set()).add(code.name)
        report = (
            f"{method.name} {[item[:300] for item in sent[:5]]} ended with {code.name} {details!r} in {seconds:.1f} s"
        )
        if code is grpc.StatusCode.CANCELLED and cut_after is not None:
            return code.name
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and endless:
            return code.name
        assert code in BAD_INPUT, report
        return code.name

    def _ended(self, method: MethodDescriptor, sent: list[bytes], limit: float) -> tuple[grpc.StatusCode, str]:
        path = f"/{self.service.full_name}/{method.name}"
        # To a client all calls look alike: one answer is a stream of one.
        if method.client_streaming:
            call = self.channel.stream_stream(path)(iter(sent), timeout=limit)
        else:
            call = self.channel.unary_stream(path)(sent[0] if sent else b"", timeout=limit)
        try:
            for count, _ in enumerate(call):
                if count >= MAX_ANSWERS:
                    call.cancel()
        except grpc.RpcError as error:
            return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


def scrambled(steps: Sequence[bytes], rng: random.Random) -> Iterator[bytes]:
    """The steps of a stream, some left out, some twice, some in another order, and cut off somewhere."""
    chosen = list(steps)
    for _ in range(rng.randint(0, 3)):
        kind, at = rng.randrange(4), rng.randrange(len(chosen) + 1)
        if kind == 0 and chosen:
            del chosen[min(at, len(chosen) - 1)]
        elif kind == 1 and chosen:
            chosen.insert(at, rng.choice(chosen))
        elif kind == 2:
            rng.shuffle(chosen)
        else:
            del chosen[at:]
    return iter(chosen)
