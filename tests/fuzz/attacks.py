"""The attacks, by name. Each takes a target and a seed, and fails by AssertionError."""

import random
from collections.abc import Callable, Sequence

import grpc
import hypothesis
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck
from hypothesis import strategies as st

from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2
from tests.fuzz import openapi, raw
from tests.fuzz.calls import Caller, scrambled
from tests.fuzz.messages import damaged, hostile
from tests.fuzz.steps import Steps, of_peer, of_registry
from tests.fuzz.target import Target

Attack = Callable[[Target, int, int], None]
"""Target, seed, and how much of it: 1 is the short form."""
OPTIONS: list[tuple[str, int]] = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]
OVERSIZE = 5 * 1024 * 1024
"""Above the largest message that is accepted."""


def registry_caller(target: Target) -> Caller:
    """Calls of the registry, on a connection of its own."""
    channel = grpc.insecure_channel(target.registry, options=OPTIONS)
    return Caller(channel, registry_pb2.DESCRIPTOR.services_by_name["RegistryService"])


def peer_caller(target: Target) -> Caller:
    """Calls of the peer, on a connection of its own."""
    channel = grpc.insecure_channel(target.peer, options=OPTIONS)
    service = peer_pb2.DESCRIPTOR.services_by_name["PeerService"]
    # A download waits for its sources as long as its caller does.
    return Caller(channel, service, frozenset({"ReplicateFile"}))


def raw_bytes(service: str) -> Attack:
    """Garbage at a port."""

    def attack(target: Target, seed: int, amount: int) -> None:
        raw.attack(getattr(target, service), random.Random(seed), 80 * amount)

    return attack


def bad_http(service: str) -> Attack:
    """HTTP that is none, or too much of it."""

    def attack(target: Target, seed: int, amount: int) -> None:
        raw.attack_http(getattr(target, service), random.Random(seed), 80 * amount)

    return attack


def declared_requests(target: Target, seed: int, amount: int) -> None:
    """What the locator's OpenAPI document says may be asked, and what it says may not."""
    openapi.attack(target.locator, seed, 6 * amount)


def bytes_as_messages(made: Callable[[Target], Caller], good: Callable[[Target], Steps]) -> Attack:
    """Random bytes, damaged good messages, and messages that are too large, for every method."""

    def attack(target: Target, seed: int, amount: int) -> None:
        rng, steps, caller = random.Random(seed), good(target), made(target)
        with caller.channel:
            for method in caller.methods:
                ended = caller.call(method, [bytes(OVERSIZE)], ends=True)
                assert ended == "RESOURCE_EXHAUSTED", f"{method.name} of {OVERSIZE:,} bytes ended with {ended}"
                for _ in range(30 * amount):
                    whole = [item.SerializeToString() for item in steps(method)]
                    if rng.random() < 0.3:
                        whole = [rng.randbytes(rng.randint(0, 300)) for _ in whole]
                    else:
                        at = rng.randrange(len(whole))
                        whole[at] = damaged(whole[at], rng)
                    caller.call(method, whole if method.client_streaming else whole[:1])
            assert all("INVALID_ARGUMENT" in codes for codes in caller.seen.values()), caller.seen

    return attack


def hostile_messages(made: Callable[[Target], Caller], good: Callable[[Target], Steps]) -> Attack:
    """Messages of the right type with hostile values, for every method; failing ones are made small by hypothesis."""

    def attack(target: Target, seed: int, amount: int) -> None:
        steps, caller = good(target), made(target)
        with caller.channel:
            for method in caller.methods:
                _attacked(caller, method, steps, seed, 30 * amount)

    return attack


def _attacked(caller: Caller, method: MethodDescriptor, steps: Steps, seed: int, count: int) -> None:
    one = hostile(method.input_type, lambda: random.Random(seed).choice(steps(method)))
    if method.client_streaming:
        # Good steps with a hostile one among them get further than hostile ones alone.
        known = st.sampled_from(range(len(steps(method)))).map(lambda at: steps(method)[at])
        messages = st.one_of(
            st.lists(st.one_of(one, known), max_size=6),
            st.tuples(st.integers(0, 8), one).map(lambda put: _put(steps(method), *put)),
        )
    else:
        messages = one.map(lambda message: [message])

    @hypothesis.seed(seed)
    @hypothesis.settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @hypothesis.given(messages)
    def tried(sent: list[Message]) -> None:
        caller.call(method, sent)

    tried()


def _put(steps: Sequence[Message], at: int, message: Message) -> list[Message]:
    at = min(at, len(steps))
    return [*steps[:at], message, *steps[at + 1 :]]


def streams_out_of_order(made: Callable[[Target], Caller], good: Callable[[Target], Steps]) -> Attack:
    """Good steps in any order, left out, repeated, and cut off."""

    def attack(target: Target, seed: int, amount: int) -> None:
        rng, steps, caller = random.Random(seed), good(target), made(target)
        with caller.channel:
            for method in caller.methods:
                for _ in range(25 * amount if method.client_streaming else 0):
                    sent = list(scrambled([item.SerializeToString() for item in steps(method)], rng))
                    caller.call(method, sent, cut_after=rng.choice((None, None, None, 0.001, 0.01)))

    return attack


ATTACKS: dict[str, Attack] = {
    **{f"{service}-raw": raw_bytes(service) for service in ("registry", "peer", "chunks", "locator")},
    "locator-http": bad_http("locator"),
    "locator-openapi": declared_requests,
    "chunks-http": bad_http("chunks"),
    "registry-bytes": bytes_as_messages(registry_caller, of_registry),
    "registry-hostile": hostile_messages(registry_caller, of_registry),
    "registry-order": streams_out_of_order(registry_caller, of_registry),
    "peer-bytes": bytes_as_messages(peer_caller, of_peer),
    "peer-hostile": hostile_messages(peer_caller, of_peer),
    "peer-order": streams_out_of_order(peer_caller, of_peer),
}


def run(name: str, target: Target, seed: int, amount: int = 1) -> None:
    """One attack, while the target is watched."""
    with target.watched():
        ATTACKS[name](target, seed, amount)


def names(only: Sequence[str] = ()) -> list[str]:
    """Those whose name has one of the words; all without words."""
    return [name for name in ATTACKS if not only or any(word in name for word in only)]
