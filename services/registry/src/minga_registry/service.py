"""The registry's gRPC service: the contract in, the directory's writer port out.

Everything that comes in is checked by `adapters` before it reaches the directory. Errors are MingaErrors; the server's
interceptor gives them their status.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

from minga_core.clock import Clock
from minga_core.errors import BusyError, MingaError
from minga_core.ids import PeerId
from minga_core.records import REFUSED, Publication, RowKey
from minga_directory.directory import DirectoryWriter, HeartbeatOutcome
from minga_protos.registry.v1 import registry_pb2 as pb
from minga_protos.registry.v1.registry_pb2_grpc import RegistryServiceServicer
from minga_registry import adapters
from minga_registry._metrics import CANCELLED, COMMITTED, RegistryMetrics
from minga_registry.heartbeats import HeartbeatBatcher
from minga_registry.leases import LeasePolicy
from minga_registry.limited_log import LimitedLog
from minga_registry.publishing import limited
from minga_registry.push import PushLimits, TableReceiver
from minga_registry.push_turns import WAITING, PushTurns
from minga_registry.streams import StandingStreams, of_one_peer, paced
from minga_runtime.logs import log_event
from minga_runtime.quotas import Quota
from minga_runtime.trust.audit import Audit
from minga_runtime.trust.authorization import Access, caller_at
from minga_runtime.trust.callers import Caller
from minga_runtime.trust.origin import Origin
from minga_runtime.trust.publication_keys import Keys, no_keys

log = logging.getLogger(__name__)

SERVICE = "minga.registry.v1.RegistryService"
METHODS = tuple(pb.DESCRIPTOR.services_by_name["RegistryService"].methods_by_name)
MAX_CALLS = 4_000
"""Registrations, publications and deregistrations under way: some seconds of the store's work when it is slow."""
MAX_STREAMS = 20_000
"""Heartbeat streams: twice the fleet that one replica is measured with, at about 30 KiB each."""
STREAM_LIFE = timedelta(minutes=5)
"""How long a peer stays with one replica: then it opens its stream anew, and a new replica gets its share."""


class RegistryService(RegistryServiceServicer):
    """Implements `minga.registry.v1.RegistryService` over a DirectoryWriter. Holds no state that may not be lost.

    access: says what callers may publish; everything without it. believes: times of publication without a tag count all
    the same, since not all peers have moved to a secure network yet.
    """

    def __init__(
        self,
        directory: DirectoryWriter,
        heartbeats: HeartbeatBatcher,
        leases: LeasePolicy,
        limits: PushLimits,
        metrics: RegistryMetrics,
        clock: Clock,
        audit: Audit,
        *,
        keys: Keys = no_keys,
        stream_life: timedelta = STREAM_LIFE,
        access: Access | None = None,
        believes: bool = False,
    ) -> None:
        self._directory = directory
        self._heartbeats = heartbeats
        self._leases = leases
        self._limits = limits
        self._metrics = metrics
        self._clock = clock
        self._audit = audit
        self._access = access
        self._keys = keys
        self._believes = believes
        # For each caller at most half of them, so that one that floods the registry leaves room for the others.
        self._call_slots = Quota("calls", MAX_CALLS)
        self._push_slots = Quota("table pushes", WAITING * limits.max_pushes)
        self._push_turns = PushTurns(limits.max_pushes)
        self._stream_slots = Quota("heartbeat streams", MAX_STREAMS)
        self._streams = StandingStreams(stream_life)
        self._log = LimitedLog(log, clock)

    def end_streams(self) -> None:
        """Ends the standing streams, which would otherwise keep a server that stops waiting for its whole grace."""
        self._streams.end()

    async def Register(self, request: pb.RegisterRequest, context: Any) -> pb.RegisterResponse:  # noqa: N802 - contract
        """See the contract."""
        info, token = adapters.peer_info(request), adapters.lease_token(request.lease_token)
        granted, origin = self._leases.grant(adapters.asked_ttl(request)), Origin.of_rpc(context)
        caller = origin.caller
        with self._call_slots.held(caller):
            await self._directory.register(info, granted, token)
        self._audit.record("registered", origin, peer=info.peer_id, address=info.address, generation=info.generation)
        self._log.event(
            logging.INFO,
            "peer_registered",
            caller,
            peer_id=info.peer_id,
            generation=info.generation,
            address=info.address,
            ttl_seconds=granted.total_seconds(),
        )
        return adapters.registered(granted, self._leases.interval(granted), self._limits.total, self._key_id)

    async def Publish(self, request: pb.PublishRequest, context: Any) -> pb.PublishResponse:  # noqa: N802 - contract
        """See the contract."""
        lease, wanted = adapters.lease(request), adapters.publications(request)
        caller, origin = await caller_at(self._access, context), Origin.of_rpc(context)
        publications = limited(caller, wanted, self.ticket_is_good)
        with self._call_slots.held(origin.caller):
            times = self._believed(publications, await self._directory.publish(lease, publications))
        self._audit_publications(origin, caller, lease.peer_id, publications, times)
        self._metrics.published(publications, times)
        log_event(log, logging.DEBUG, "published", peer_id=lease.peer_id, count=len(times))
        return adapters.published(times, self._tags(publications, times))

    async def ClaimFetch(  # noqa: N802 - contract
        self, request: pb.ClaimFetchRequest, context: Any
    ) -> pb.ClaimFetchResponse:
        """See the contract."""
        lease, claim = adapters.lease(request), adapters.fetch_claim(request)
        caller, origin = await caller_at(self._access, context), Origin.of_rpc(context)
        caller.rights.check_publish(claim.name)
        with self._call_slots.held(origin.caller):
            return adapters.fetcher(await self._directory.claim_fetch(lease, claim))

    def ticket_is_good(self, publication: Publication) -> bool:
        """Whether the locator has permitted this publication when it was uploaded."""
        keys = self._keys()
        return keys is not None and keys.allows(publication.ticket, publication.key, self._clock.wall())

    def _believed(self, publications: Sequence[Publication], times_ns: Sequence[int]) -> Sequence[int]:
        """The times, and where times without proof count, those that peers say are later: as where rows are pushed."""
        if not self._believes:
            return times_ns
        now_ns = int(self._clock.wall() * 1e9)
        pairs = zip(publications, times_ns, strict=True)
        return [max(ns, min(now_ns, each.found_modified_ns or 0)) if each.was_published else ns for each, ns in pairs]

    def _tags(self, publications: Sequence[Publication], times_ns: Sequence[int]) -> list[bytes]:
        """The proof of each publication; none where there are no keys."""
        if (keys := self._keys()) is None:
            return []
        return [keys.tag(each.key, time_ns) for each, time_ns in zip(publications, times_ns, strict=True)]

    @property
    def _key_id(self) -> bytes:
        """The id of the key that signs tags; empty where there is none."""
        keys = self._keys()
        return keys.key_id if keys is not None else b""

    async def KeepLease(  # noqa: N802 - contract
        self, request_iterator: AsyncIterator[pb.HeartbeatRequest], context: Any
    ) -> AsyncIterator[pb.HeartbeatResponse]:
        """See the contract."""
        caller = Origin.of_rpc(context).caller
        with self._stream_slots.held(caller):
            async with self._streams.standing():
                async for request in of_one_peer(paced(request_iterator)):
                    yield await self._renew(request, caller)

    async def _renew(self, request: pb.HeartbeatRequest, caller: str) -> pb.HeartbeatResponse:
        renewal = adapters.renewal(request)
        outcome = await self._heartbeats.renew(renewal)
        self._metrics.heartbeat(outcome)
        if outcome is not HeartbeatOutcome.OK:
            peer_id = renewal.lease.peer_id
            self._log.event(logging.INFO, "peer_asked_again", caller, peer_id=peer_id, action=outcome.value)
        return adapters.heartbeat_answer(outcome, self._key_id)

    async def PushTable(  # noqa: N802 - contract
        self, request_iterator: AsyncIterator[pb.PushTableRequest], context: Any
    ) -> pb.PushTableResponse:
        """See the contract."""
        origin = Origin.of_rpc(context)
        caller = origin.caller
        proofs = no_keys if self._believes else self._keys
        with self._push_counted(caller):
            turn = self._push_turns.turn(caller)
            result = await TableReceiver(self._directory, self._limits, turn, proofs).receive(request_iterator)
        self._metrics.rows_pushed(result.put_count, result.remove_count, result.unproven_count)
        if result.remove_count:
            peer_id = result.header.lease.peer_id
            self._audit.record("removed", origin, files=result.removed, peer=peer_id, count=result.remove_count)
        self._log.event(
            logging.INFO if result.header.whole else logging.DEBUG,
            "table_pushed",
            caller,
            peer_id=result.header.lease.peer_id,
            whole=result.header.whole,
            put=result.put_count,
            removed=result.remove_count,
            unproven=result.unproven_count,
            revision=result.revision,
        )
        return pb.PushTableResponse(revision=result.revision)

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveResponse:  # noqa: N802 - contract
        """See the contract."""
        lease, origin = adapters.lease(request), Origin.of_rpc(context)
        caller = origin.caller
        with self._call_slots.held(caller):
            left = await self._directory.leave(lease)
        if left:
            self._audit.record("left", origin, peer=lease.peer_id)
            self._log.event(logging.INFO, "peer_left", caller, peer_id=lease.peer_id, generation=lease.generation)
        return pb.LeaveResponse()

    def _audit_publications(
        self,
        origin: Origin,
        caller: Caller,
        peer_id: PeerId,
        publications: Sequence[Publication],
        times_ns: Sequence[int],
    ) -> None:
        if not self._audit.enabled:
            return
        by_event: dict[str, list[RowKey]] = {}
        for each, time_ns in zip(publications, times_ns, strict=True):
            known = each.join_only or each.found_modified_ns is not None
            event = "not_published" if time_ns == REFUSED else "publication_found" if known else "published"
            by_event.setdefault(event, []).append(each.key)
        for event, keys in by_event.items():
            self._audit.record(event, origin, files=keys, grant=caller.grant, peer=peer_id)

    @contextmanager
    def _push_counted(self, caller: str) -> Iterator[None]:
        """Takes a slot for one push, and counts its outcome. Raises BusyError when there is no slot."""
        with ExitStack() as slot:
            try:
                slot.enter_context(self._push_slots.held(caller))
            except BusyError as error:
                self._metrics.push_refused(error.code.value)
                raise
            with self._push_measured():
                yield

    @contextmanager
    def _push_measured(self) -> Iterator[None]:
        self._metrics.push_began()
        outcome, started = "internal", self._clock.monotonic()
        try:
            yield
            outcome = COMMITTED
        except MingaError as error:
            outcome = error.code.value
            raise
        except asyncio.CancelledError:
            outcome = CANCELLED
            raise
        finally:
            self._metrics.push_ended(outcome, self._clock.monotonic() - started)
