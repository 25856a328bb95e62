"""Any list of operations gives the answers of a model that fits on a page; failing lists are shrunk and kept."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minga_core.clock import ManualClock
from minga_core.errors import LeaseSupersededError, RegisterAgainError, TableRevisionMismatchError
from minga_core.names import Name
from minga_core.records import FileRow, HoldingState, RowKey
from tests.conformance.harness import Harness, content, lease, over, row
from tests.support.memory_directory import MemoryDirectory
from tests.support.redis_server import RedisServer

PEERS = ("a", "b", "c")
NAMES = ("x", "y", "z")
VERSIONS = ("v1", "v2")

file_rows = st.builds(
    lambda name, version, published, partial: row(name, version, published=published, partial=partial),
    st.sampled_from(NAMES),
    st.sampled_from(VERSIONS),
    st.integers(-3, 3),
    st.booleans(),
)
tables = st.lists(file_rows, max_size=5)
row_keys = st.lists(
    st.builds(lambda n, v: row(n, v).key, st.sampled_from(NAMES), st.sampled_from(VERSIONS)), max_size=3
)
peers = st.sampled_from(PEERS)
generations = st.sampled_from((1, 1, 1, 1, 1, 2))
operations = st.one_of(
    st.tuples(st.just("register"), peers, generations),
    st.tuples(st.just("leave"), peers, generations),
    st.tuples(st.just("push"), peers, generations, tables),
    st.tuples(st.just("change"), peers, generations, tables, row_keys),
    st.tuples(st.just("broken push"), peers, generations, tables),
    st.tuples(st.just("reap"), peers),
)


@dataclass(slots=True)
class Model:
    """Who lives, under which generation, with which table."""

    generations: dict[str, int] = field(default_factory=dict)
    tables: dict[str, dict[RowKey, FileRow]] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)

    def apply(self, kind: str, peer_id: str, *rest: object) -> None:
        """What an operation does when it is allowed, and nothing when it is not."""
        generation = rest[0] if rest else None
        if kind == "register" and isinstance(generation, int):
            if generation > self.generations.get(peer_id, 0):
                self.generations[peer_id] = generation
                self.tables[peer_id] = {}
                self.revisions.pop(peer_id, None)
            return
        if self.generations.get(peer_id) != generation or kind in ("reap", "broken push"):
            return
        if kind == "leave":
            for of_peer in (self.generations, self.tables, self.revisions):
                of_peer.pop(peer_id, None)
        elif kind == "push":
            self.tables[peer_id] = {one.key: one for one in rest[1]}  # type: ignore[attr-defined]
            self.revisions[peer_id] = 1
        elif peer_id in self.revisions:
            self.tables[peer_id].update((one.key, one) for one in rest[1])  # type: ignore[attr-defined]
            for key in rest[2]:  # type: ignore[attr-defined]
                self.tables[peer_id].pop(key, None)
            self.revisions[peer_id] += 1

    def answers(self) -> dict[str, list[tuple[str, int, list[str], int]]]:
        """For each name its versions: content, publishing time, holders, complete ones among them."""
        found = {}
        for name in NAMES:
            versions = []
            for version in VERSIONS:
                key = row(name, version).key
                rows = {peer_id: table[key] for peer_id, table in self.tables.items() if key in table}
                if rows:
                    published = max(one.published_ns for one in rows.values())
                    complete = sum(one.state is HoldingState.COMPLETE for one in rows.values())
                    versions.append((str(content(version)), published, sorted(rows), complete))
            found[name] = sorted(versions, key=lambda one: (one[3] == 0, -one[1], one[0]))
        return found


async def do(directory: Harness, model: Model, kind: str, peer_id: str, *rest: object) -> None:
    """The operation on the directory. Refusals are part of the model."""
    generation = rest[0] if rest else 0
    assert isinstance(generation, int)
    try:
        if kind == "register":
            await directory.register(peer_id, generation)
        elif kind == "leave":
            await directory.writer.leave(lease(peer_id, generation))
        elif kind == "push":
            await directory.push(peer_id, rest[1], generation)  # type: ignore[arg-type]
        elif kind == "change":
            base = model.revisions.get(peer_id, 7)
            await directory.change(peer_id, rest[1], rest[2], base=base, generation=generation)  # type: ignore[arg-type]
        elif kind == "broken push":
            begun = directory.writer.push_table(lease(peer_id, generation), whole=True, base_revision=0, revision=9)
            async with begun as push:
                await push.put(rest[1])  # type: ignore[arg-type]
        else:
            await directory.writer.reap()
    except (LeaseSupersededError, RegisterAgainError, TableRevisionMismatchError):
        return


async def check(directory: Harness, operations_done: list[tuple]) -> None:  # type: ignore[type-arg]
    """Answers equal the model's after every operation, the catalogue after reaping."""
    model = Model()
    begun = [("register", peer_id, 1) for peer_id in PEERS[:2]]
    for operation in [*begun, *operations_done]:
        await do(directory, model, *operation)
        model.apply(*operation)
        assert await answers(directory) == model.answers()
    await directory.until_names(sorted(name for name, versions in model.answers().items() if versions))
    living, _ = await directory.reader.list_peers()
    assert [record.info.peer_id for record in living] == sorted(model.generations)
    assert [record.file_count for record in living] == [len(model.tables[peer_id]) for peer_id in sorted(model.tables)]


async def answers(directory: Harness) -> dict[str, list[tuple[str, int, list[str], int]]]:
    """As `Model.answers`."""
    found = {}
    for name in NAMES:
        found[name] = [
            (
                str(version.content_id),
                version.published_ns,
                sorted(holder.peer_id for holder in version.holders),
                version.complete_count,
            )
            for version in await directory.reader.find(Name(name))
        ]
    return found


@settings(max_examples=150, deadline=None)
@given(st.lists(operations, min_size=3, max_size=25))
def test_any_operations_in_memory_answer_as_the_model(done: list[tuple]) -> None:  # type: ignore[type-arg]
    """MemoryDirectory is its own proof only as far as this."""

    async def run() -> None:
        memory = MemoryDirectory(ManualClock())
        await check(Harness(memory, memory), done)

    asyncio.run(run())


@pytest.mark.redis
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(operations, min_size=3, max_size=25))
def test_any_operations_on_redis_answer_as_the_model(redis_server: RedisServer, done: list[tuple]) -> None:  # type: ignore[type-arg]
    """The same on the real server."""

    async def run() -> None:
        redis_server.flush()
        async with over(redis_server.url) as directory:
            await check(directory, done)

    asyncio.run(run())
