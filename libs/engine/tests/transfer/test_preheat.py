"""What is fetched ahead of time, where, and what becomes of peers that fail."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any, cast

import pytest

from minga_core.clock import SystemClock
from minga_core.errors import BusyError, InvalidArgumentError, MingaError, PeerUnavailableError, PermissionDeniedError
from minga_core.ids import Address, PeerId
from minga_engine.transfer import preheat as module
from minga_engine.transfer.preheat import Preheater, PreheatRequest
from minga_engine.transfer.preheat_items import Choice, Item, parse_choice, parse_item
from minga_engine.transfer.preheated import Preheated
from minga_engine.wire.locator_answers import ListedPeer
from minga_engine.wire.messages import SourceAddress
from minga_engine.wire.preheating import PreheatOrder, PreheatStep


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("https://h.example/a", "https://h.example/a"),
        ("hf://org/model@v1", "hf://org/model@v1"),
        ("oci://docker.io/alpine", "oci://docker.io/alpine"),
        ("docker.io/library/alpine:3.20", "oci://docker.io/library/alpine:3.20"),
        ("ghcr.io/a/b@sha256:" + 64 * "0", "oci://ghcr.io/a/b@sha256:" + 64 * "0"),
        ("127.0.0.1:5000/x:1", "oci://127.0.0.1:5000/x:1"),
        ("localhost/x:1", "oci://localhost/x:1"),
        ("registry:5000/team/x:1", "oci://registry:5000/team/x:1"),
    ],
)
def test_what_lies_elsewhere_has_a_scheme_in_the_end(text: str, asked: str) -> None:
    assert parse_item(text) == Item(asked)


@pytest.mark.parametrize(
    "text", ["models/model.bin", "docker.io/library/alpine", "v1.2/notes", "a:b", "data/x:1", "v1.2:3", "x@sha256:1"]
)
def test_what_is_no_image_is_a_name(text: str) -> None:
    assert parse_item(text).name == text
    assert parse_item(f"minga://{text}") == parse_item(text)
    assert parse_item("minga://docker.io/library/alpine:3.20").name == "docker.io/library/alpine:3.20"


@pytest.mark.parametrize("text", ["", "/a", "a/../b", "origins/sha256/" + 64 * "0", "a" * 9000, "\udc80"])
def test_what_is_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_item(text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "everything", "zone", "zone=", "zone=a b", "9" * 7, "²"])
def test_peers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_choice(text)


def listed(number: int, zone: str = "", free_bytes: int = 1000) -> ListedPeer:
    address = Address(f"10.0.0.{number}:1")
    return ListedPeer(PeerId(f"p{number}"), address, zone, 1000, free_bytes, 0, 0, "1", timedelta(), "")


def test_some_peers_are_the_same_ones_each_time_and_of_all_zones() -> None:
    """Holders first; those without room are left out; other items, other peers."""
    peers = [listed(number, f"z{number % 3}") for number in range(30)]
    choice, item = parse_choice("6"), Item("https://h/a")
    chosen = choice.order(peers, item, 0, ())
    assert choice.order(list(reversed(peers)), item, 0, ()) == chosen
    assert {peer.zone for peer in chosen[:3]} == {peer.zone for peer in chosen[3:6]} == {"z0", "z1", "z2"}
    assert choice.order(peers, Item("https://h/b"), 0, ()) != chosen
    assert choice.order(peers, item, 0, {chosen[-1].peer_id})[0] == chosen[-1]
    small = listed(31, "z3", free_bytes=10)
    assert small not in choice.order([*peers, small], item, 11, ())
    assert small in choice.order([*peers, small], item, 11, {small.peer_id})
    assert parse_choice("zone=z1").order(peers, item, 0, ()) == [peer for peer in peers if peer.zone == "z1"]
    assert Choice().order(peers, item, 0, ()) == peers


class Peers:
    """Peers that answer as the test says; stands for the locator, too. errors: raised one after the other."""

    def __init__(self, count: int) -> None:
        self.listed = [listed(number) for number in range(count)]
        self.errors: dict[str, list[MingaError]] = {}
        self.stuck: set[str] = set()
        self.asked: list[str] = []

    async def iter_peers(self) -> AsyncGenerator[ListedPeer, None]:
        for peer in self.listed:
            yield peer

    async def answer(
        self, connections: object, target: SourceAddress, order: PreheatOrder
    ) -> AsyncGenerator[PreheatStep, None]:
        self.asked.append(target.peer_id)
        yield PreheatStep(0, 10, 1)
        await asyncio.sleep(0)
        if target.peer_id in self.stuck:
            await asyncio.Event().wait()
        if errors := self.errors.get(target.peer_id):
            raise errors.pop(0)
        yield PreheatStep(10, 10, 1, "sha256:1", upstream_bytes=10)


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Peers:
    found = Peers(4)
    monkeypatch.setattr(module, "preheat_peer", found.answer)
    monkeypatch.setattr(module, "backoff", lambda first, most: iter([0.0] * 100))
    return found


async def run(peers: Peers, on: str = "all", **options: Any) -> Preheated:
    preheater = Preheater(cast(Any, peers), cast(Any, None), SystemClock())
    return await preheater.preheat(PreheatRequest(Item("https://h/a"), parse_choice(on), **options))


async def test_all_peers_have_an_outcome(peers: Peers) -> None:
    """What may pass is tried again, what may not is not; a busy one is asked as long as it takes."""
    peers.errors = {
        "p0": [PeerUnavailableError("away")] * 2,
        "p1": [PeerUnavailableError("away")] * 9,
        "p2": [PermissionDeniedError("not for you")],
        "p3": [BusyError("full", retry_after=timedelta(0))] * 9,
    }
    found = await run(peers)
    assert [peer.peer_id for peer in found.done] == ["p0", "p3"]
    assert {peer.peer_id: str(peer.error) for peer in found.failed} == {"p1": "away", "p2": "not for you"}
    assert (found.missing, found.resolved, found.size_bytes) == (2, ("sha256:1",), 10)
    assert [peers.asked.count(f"p{number}") for number in range(4)] == [3, 3, 1, 10]
    assert found.document()["peers"][2]["error"] == {"code": "permission_denied", "message": "not for you"}


async def test_of_some_one_that_fails_is_replaced(peers: Peers) -> None:
    """And no more are asked than are needed."""
    order = [peer.peer_id for peer in parse_choice("2").order(peers.listed, Item("https://h/a"), 0, ())]
    peers.errors = {order[0]: [PermissionDeniedError("no")]}
    found = await run(peers, "2")
    assert (found.missing, {peer.peer_id for peer in found.done}) == (0, {order[1], order[2]})
    assert sorted(peers.asked) == sorted(order[:3])
    peers.errors = {peer_id: [PermissionDeniedError("no")] for peer_id in order[1:]}
    found = await run(peers, "2")
    assert (found.missing, len(found.failed), len(found.done)) == (1, 3, 1)
    assert (await run(peers, "9")).missing == 5


async def test_the_time_of_all_is_limited(peers: Peers) -> None:
    """Those that are done are."""
    peers.stuck = {"p1", "p2"}
    found = await run(peers, limit=timedelta(seconds=0.2))
    assert [peer.peer_id for peer in found.done] == ["p0", "p3"]
    assert {str(peer.error) for peer in found.failed} == {"it was not done after 0.2 s: 0 B of 10 B"}


async def test_so_many_peers_are_asked_at_a_time(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all of them in the end; when the time is over, those whose turn did not come are failures like others."""
    monkeypatch.setattr(module, "AT_ONCE", 3)
    peers.listed = [listed(number) for number in range(20)]
    most = 0

    def note(found: Preheated) -> None:
        nonlocal most
        most = max(most, sum(not (peer.done or peer.error) for peer in found.peers))

    preheater = Preheater(cast(Any, peers), cast(Any, None), SystemClock())
    request = PreheatRequest(Item("https://h/a"), Choice())
    assert (await preheater.preheat(request, note)).missing == 0
    assert (most, len(peers.asked)) == (3, 20)
    peers.stuck = {peer.peer_id for peer in peers.listed}
    found = await run(peers, limit=timedelta(seconds=0.1))
    assert (found.missing, len(found.failed)) == (20, 20)


async def test_a_silent_peer_is_given_up(peers: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    peers.stuck = {"p1"}
    found = await run(peers)
    assert [str(peer.error) for peer in found.failed] == ["it has said nothing for 0.05 s"]


async def test_without_such_a_peer_there_is_an_error(peers: Peers) -> None:
    with pytest.raises(PeerUnavailableError, match="no such peer"):
        await run(peers, "zone=elsewhere")
