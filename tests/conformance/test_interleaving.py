"""Several writers at once, over a real store; they crash, leases end, and all is lost: the model's answers always.

Operations of two registries are cut into their steps and dealt in any order: pushes and changes that stand open while
peers register, leave, expire and are reaped, and while the store is emptied. Any operation may be done by a registry
that dies after so many commands: then either it has happened or it has not, never a part of it, and whatever it left is
reaped in the end. Says the sentence of the issue: "the real store against a model under any interleaving of
registrations, pushes, deltas, expiries, reaping and crashes between any two writes".
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minga_core.errors import (
    LeaseSupersededError,
    RegisterAgainError,
    StoreUnavailableError,
    TableRevisionMismatchError,
)
from minga_core.records import RowKey
from minga_directory import RedisDirectoryWriter
from minga_directory.connect import connect
from minga_directory.directory import TablePush
from minga_directory.store import Store
from tests.conformance.crashing import crashing
from tests.conformance.harness import Harness, eventually, lease, over, raw
from tests.conformance.test_crashes import die
from tests.conformance.test_properties import PEERS, Model, answers, file_rows, row_keys
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis

REFUSALS = (LeaseSupersededError, RegisterAgainError, TableRevisionMismatchError)
MAX_OPEN = 3

peers = st.sampled_from(PEERS)
generations = st.sampled_from((1, 1, 1, 2, 3))
lives = st.sampled_from([None] * 20 + list(range(12)))
"""After how many commands the registry that does it dies; None: it lives."""
tables = st.lists(file_rows, max_size=4)
_WEIGHTS = {"register": 8, "begin": 12, "put": 12, "commit": 12, "reap": 5, "beat": 2, "expire": 2}
_KINDS = {
    "register": st.tuples(st.just("register"), lives, peers, generations),
    "leave": st.tuples(st.just("leave"), lives, peers, generations),
    "expire": st.tuples(st.just("expire"), st.none(), peers),
    "beat": st.tuples(st.just("beat"), st.none(), peers),
    "begin": st.tuples(st.just("begin"), lives, peers, st.sampled_from((True, False, False))),
    "put": st.tuples(st.just("put"), st.integers(0, MAX_OPEN - 1), tables, row_keys),
    "commit": st.tuples(st.just("commit"), st.integers(0, MAX_OPEN - 1)),
    "abandon": st.tuples(st.just("abandon"), st.integers(0, MAX_OPEN - 1)),
    "reap": st.tuples(st.just("reap"), lives),
    "lose all": st.tuples(st.just("lose all"), st.none()),
}
operations = st.sampled_from([kind for kind in _KINDS for _ in range(_WEIGHTS.get(kind, 1))]).flatmap(
    _KINDS.__getitem__
)


@dataclass(slots=True)
class OpenPush:
    """A push that is under way, and what it will have said."""

    push: TablePush
    peer_id: str
    generation: int
    base: int | None
    """None: a whole table."""
    revision: int
    changes_before: int
    """What the peer's count of changes was; as long as it is the same, nothing can hinder the push."""
    losses_before: int
    dies: bool
    table: dict[RowKey, Any] = field(default_factory=dict)
    removed: set[RowKey] = field(default_factory=set)


class Play:
    """One list of operations being done."""

    def __init__(self, directory: Harness, store: Store, client: Any, server: RedisServer) -> None:
        self._directory = directory
        self._client = client
        self._store = store
        self._server = server
        self._others = [directory.writer, RedisDirectoryWriter(store)]
        self._turn = 0
        self.model = Model()
        self.open: list[OpenPush] = []
        self.did: dict[str, int] = {}
        """How often each thing came about, so that a test of nothing is seen."""
        self._changes = dict.fromkeys(PEERS, 0)
        self._unsure: set[str] = set()
        """Peers whose stored revision is not known since a crash: those say their whole table next."""
        self._losses = 0
        self._revision = 0

    async def do(self, kind: str, *rest: Any) -> None:
        """One operation; then the answers are the model's."""
        self._count(kind)
        await getattr(self, f"_{kind.replace(' ', '_')}")(*rest)
        await self._check(kind)

    def _count(self, what: str) -> None:
        self.did[what] = self.did.get(what, 0) + 1

    async def _check(self, after: str) -> None:
        assert await answers(self._directory) == self.model.answers(), after
        assert await self._living() == self.model.generations, after

    async def _living(self) -> dict[str, int]:
        living, _ = await self._directory.reader.list_peers()
        return {str(record.info.peer_id): int(record.info.generation) for record in living}

    def _writer(self, life: int | None) -> Any:
        """One of the two registries in turn, or one that dies."""
        if life is not None:
            return RedisDirectoryWriter(crashing(self._store, life))
        self._turn += 1
        return self._others[self._turn % 2]

    async def _tried(self, work: Awaitable[Any], possible: list[Model]) -> str:
        """How the work ended: done, refused, or died. Possible: the models that may be true if it died."""
        try:
            await work
        except REFUSALS:
            return "refused"
        except StoreUnavailableError:
            self._count("died")
            await self._adopt(possible)
            return "died"
        return "done"

    async def _adopt(self, possible: list[Model]) -> None:
        """Takes on the possible model that the answers are of."""
        seen, living = await answers(self._directory), await self._living()
        fitting = [model for model in possible if model.answers() == seen and model.generations == living]
        assert fitting, f"a part of it: {living} and {seen} are none of {possible}"
        self.model = fitting[0]

    def _touch(self, peer_id: str) -> None:
        self._changes[peer_id] += 1

    async def _register(self, life: int | None, peer_id: str, generation: int) -> None:
        after = deepcopy(self.model)
        after.apply("register", peer_id, generation)
        harness = Harness(self._writer(life), self._directory.reader)
        ended = await self._tried(
            harness.register(peer_id, generation), [self.model, after, _without(self.model, peer_id)]
        )
        self._touch(peer_id)
        superseded = generation < self.model.generations.get(peer_id, 0)
        if ended != "died":
            assert (ended == "refused") == superseded
            self.model = after

    async def _leave(self, life: int | None, peer_id: str, generation: int) -> None:
        after = deepcopy(self.model)
        after.apply("leave", peer_id, generation)
        work = self._writer(life).leave(lease(peer_id, generation))
        if await self._tried(work, [self.model, after]) == "done":
            self.model = after
        self._touch(peer_id)

    async def _expire(self, life: None, peer_id: str) -> None:
        """The lease ends, as if its time had passed."""
        await die(self._client, peer_id)
        self.model = _without(self.model, peer_id)
        self._touch(peer_id)

    async def _beat(self, life: None, peer_id: str) -> None:
        """Heartbeat, and do what its answer says."""
        generation = self.model.generations.get(peer_id)
        revision = self.model.revisions.get(peer_id)
        outcome = await self._directory.beat(peer_id, generation or 1, revision=revision or 0)
        if generation is None:
            assert outcome == "register_again"
        elif peer_id not in self._unsure:
            assert outcome == ("ok" if revision is not None else "push_table")

    async def _begin(self, life: int | None, peer_id: str, whole: bool) -> None:
        generation = self.model.generations.get(peer_id, 1)
        base = None if whole or peer_id in self._unsure else self.model.revisions.get(peer_id)
        if len(self.open) >= MAX_OPEN:
            return
        self._revision += 1
        push = self._writer(life).push_table(
            lease(peer_id, generation),
            whole=base is None,
            base_revision=base or 0,
            revision=self._revision,
        )
        begun = OpenPush(
            push, peer_id, generation, base, self._revision, self._changes[peer_id], self._losses, life is not None
        )
        self.open.append(begun)
        await self._step(begun, push.__aenter__())

    async def _put(self, which: int, rows: list[Any], keys: list[RowKey]) -> None:
        if not self.open:
            return
        begun = self.open[which % len(self.open)]
        # No row of a push is both put and removed: the contract does not say which of the two it would be.
        rows = [one for one in rows if one.key not in begun.removed]
        if rows:
            begun.table |= {one.key: one for one in rows}
            if not await self._step(begun, begun.push.put(rows)):
                return
        if keys and begun.base is not None:
            apart = [key for key in keys if key not in begun.table]
            begun.removed |= set(apart)
            if apart:
                await self._step(begun, begun.push.remove(apart))

    async def _step(self, begun: OpenPush, work: Awaitable[Any]) -> bool:
        """A step that shows nothing; whether the push goes on."""
        ended = await self._tried(work, [self.model])
        if ended == "done":
            return True
        self._check_hindered(begun, ended)
        await self._end(begun)
        return False

    def _check_hindered(self, begun: OpenPush, ended: str) -> None:
        """Only what has changed meanwhile, or the registry's death, is a reason."""
        alive = self.model.generations.get(begun.peer_id) == begun.generation
        unhindered = alive and not begun.dies and begun.changes_before == self._changes[begun.peer_id]
        assert not unhindered or begun.peer_id in self._unsure, f"{ended}, and nothing stood in its way"

    async def _commit(self, which: int) -> None:
        if not self.open:
            return
        begun = self.open[which % len(self.open)]
        lives = self.model.generations.get(begun.peer_id) == begun.generation
        after = deepcopy(self.model)
        if lives:
            kept = {} if begun.base is None else {**self.model.tables[begun.peer_id]}
            table = {key: one for key, one in (kept | begun.table).items() if key not in begun.removed}
            after.tables[begun.peer_id] = table
            after.revisions[begun.peer_id] = begun.revision
        ended = await self._tried(begun.push.commit(), [self.model, after])
        if ended == "done":
            assert lives, "a push without a lease became visible"
            assert begun.losses_before == self._losses, "a part of it was lost, and it became visible"
            assert begun.base is None or begun.base == self.model.revisions.get(begun.peer_id), "on another table"
            self._count("changed" if begun.base is not None else "replaced")
            self.model = after
            self._unsure.discard(begun.peer_id)
        else:
            self._count(f"commit {ended}")
            self._check_hindered(begun, ended)
        if ended == "died":
            self._unsure.add(begun.peer_id)
        self._touch(begun.peer_id)
        await self._end(begun)

    async def _abandon(self, which: int) -> None:
        if self.open:
            await self._end(self.open[which % len(self.open)])

    async def _end(self, begun: OpenPush) -> None:
        self.open.remove(begun)
        await self._tried(begun.push.__aexit__(None, None, None), [self.model])

    async def _reap(self, life: int | None) -> None:
        """Also of what is under way: for all that the reaper knows its time may be over."""
        await self._directory.let_time_pass()
        await self._tried(self._writer(life).reap(), [self.model])

    async def _lose_all(self, life: None) -> None:
        self._server.flush()
        self._losses += 1
        self.model = Model()
        self._unsure.clear()
        for peer_id in PEERS:
            self._touch(peer_id)

    async def end(self) -> None:
        """Whatever was cut short is cleaned up: the catalogue is what living peers share, and in the end nothing."""
        for begun in list(self.open):
            await self._end(begun)
        # A registration cut short has announced a lease; whatever its peer had is listed until that would be over.
        for peer_id in set(PEERS) - set(self.model.generations):
            await die(self._client, peer_id)
        # A push of a living peer that a registry died over is cleaned up after the peer's next one.
        for peer_id, generation in self.model.generations.items():
            self._revision += 1
            rows = list(self.model.tables[peer_id].values())
            await self._directory.push(peer_id, rows, generation, revision=self._revision)
        await self._directory.until_names(sorted(name for name, versions in self.model.answers().items() if versions))
        await self._check("the end")
        for peer_id, generation in list(self.model.generations.items()):
            await self._leave(None, peer_id, generation)
        await self._directory.until_names([])
        await eventually(self._nothing_left)

    async def _nothing_left(self) -> bool:
        await self._directory.clean_up()
        stats = await self._directory.reader.stats()
        return stats.names == stats.live_peers == 0 and (await self._directory.writer.lease_counts())[1] == 0


def _without(model: Model, peer_id: str) -> Model:
    """The same, and the peer is gone."""
    without = deepcopy(model)
    for of_peer in (without.generations, without.tables, without.revisions):
        of_peer.pop(peer_id, None)
    return without


@asynccontextmanager
async def playing(server: RedisServer) -> AsyncIterator[Play]:
    """An empty directory to play in."""
    server.flush()
    client, store = raw(server.url), connect(server.url)
    try:
        async with over(server.url) as directory:
            yield Play(directory, store, client, server)
    finally:
        await client.aclose()
        await store.aclose()


Operation = tuple[Any, ...]


async def played(server: RedisServer, operations: list[Operation]) -> dict[str, int]:
    """Does the operations, and cleans up; how often each thing came about."""
    async with playing(server) as play:
        for operation in [("register", None, peer_id, 1) for peer_id in PEERS] + operations:
            await play.do(*operation)
        await play.end()
        return play.did


@pytest.mark.parametrize("seed", [1, 2])
def test_any_interleaving_of_registries_that_crash_answers_as_the_model(redis_server: RedisServer, seed: int) -> None:
    """Also when the store is emptied in between; in the end nothing is left."""
    seen: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(operations, min_size=40, max_size=80))
    def tried(done: list[Operation]) -> None:
        seen.update(asyncio.run(played(redis_server, done)))

    tried()
    assert min(seen[kind] for kind in ("died", "changed", "replaced", "commit refused", "expire", "lose all")) >= 2, (
        seen
    )
