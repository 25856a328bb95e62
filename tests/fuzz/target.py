"""The network under attack, and what it is held to meanwhile."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil

from minga_cli.localnet import LocalNetwork, LocalNetworkConfig
from minga_core.chunks import MAX_CONTENT_BYTES
from minga_core.ids import ContentId, parse_address, parse_peer_id, parse_zone
from minga_core.manifest import Manifest
from minga_core.names import parse_name
from minga_directory import connect_reader
from minga_directory.directory import DirectoryReader
from minga_engine.wire.groups import LAST_GROUP, encode_group
from minga_peer.serve.http_server import MAX_CONNECTIONS_EACH as MAX_CONNECTIONS_EACH
from minga_protos.peer.v1 import peer_pb2
from minga_protos.registry.v1 import registry_pb2

ANSWER_SECONDS = 5.0
"""For a call of a well-behaved client, whatever others do, on a machine that is busy with the attack itself."""
SETTLE_SECONDS = 20.0
MORE_DESCRIPTORS = 64 + 40
"""A process may have so many more than before: it keeps its connections to the store, of which there are 64 at most,
and its clients keep some to it."""
MORE_BYTES = 96 * 1024 * 1024
SHARED = {"hello.txt": b"hello\n", "big.bin": bytes(range(256)) * 32768, "empty": b""}
"""What the peer shares."""
REGISTRY = "/minga.registry.v1.RegistryService/"
PEER = "/minga.peer.v1.PeerService/"
_BUG = re.compile("Traceback|rpc_failed|connection_failed|never retrieved|request_failed")


def eventually(holds: Callable[[], object], what: Callable[[], str], limit_seconds: float = SETTLE_SECONDS) -> None:
    """Returns once it holds; fails after the limit."""
    deadline = time.monotonic() + limit_seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.02)


@dataclass
class Target:
    """A running network. Its methods block."""

    registry: str
    peer: str
    chunks: str
    locator: str
    """host:port of each."""
    redis_url: str
    share: Path
    logs: Path
    pids: dict[str, int]
    contents: dict[str, Manifest] = field(default_factory=dict)
    _logged: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def watched(self) -> Iterator["Bystander"]:
        """Holds the network to its promises, during the block and after it."""
        before = {name: _vitals(pid) for name, pid in self.pids.items()}
        bystander = Bystander(self)
        bystander.start()
        try:
            yield bystander
        finally:
            bystander.stop()
        bystander.check()
        for name, pid in self.pids.items():
            self._check_process(name, pid, before[name])
        self.check_logs()
        self.check_folder()
        asyncio.run(self._check_directory())

    def _check_process(self, name: str, pid: int, before: tuple[int, int]) -> None:
        now = (0, 0)

        def well() -> bool:
            nonlocal now
            now = _vitals(pid)
            return now[0] <= before[0] + MORE_DESCRIPTORS and now[1] <= before[1] + MORE_BYTES

        eventually(well, lambda: f"{name} had {before} descriptors and bytes of memory, and has {now}")

    def check_logs(self) -> None:
        """Fails when a process has logged a bug since the last time."""
        for path in sorted(self.logs.glob("*.log")):
            text = path.read_bytes()
            new = text[self._logged.get(path.name, 0) :].decode(errors="replace")
            self._logged[path.name] = len(text)
            found = _BUG.search(new)
            assert found is None, (
                f"{path.name} logged a bug:\n{new[max(0, found.start() - 300) if found else 0 :][:6000]}"
            )

    def check_folder(self) -> None:
        """Fails when a file lies outside of the shared folder, or what is shared is not what was put there."""
        for name, data in SHARED.items():
            assert (self.share / name).read_bytes() == data, f"{name} is not what it was"
        outside = {path.name for path in self.share.parent.iterdir()}
        assert outside <= {"peer-1", "logs"}, f"{outside} lie beside the shared folder"

        def unfinished() -> list[Path]:
            parts = self.share / ".minga" / "parts"
            found = (
                [path for path in parts.iterdir() if time.time() - path.stat().st_mtime > 5] if parts.is_dir() else []
            )
            return [*self.share.rglob("*.tmp"), *(path for path in found if path.suffix == ".tmp")]

        eventually(lambda: not unfinished(), lambda: f"unfinished files are left over: {unfinished()}")

    async def _check_directory(self) -> None:
        reader = connect_reader(self.redis_url)
        try:
            peers, _ = await reader.list_peers(limit=1000)
            for peer in peers:
                info = peer.info
                parse_peer_id(info.peer_id)
                parse_address(info.address)
                parse_zone(info.zone)
                assert info.generation > 0
                assert min(info.capacity_bytes, info.free_bytes, peer.file_count) >= 0
            for name in await _names(reader):
                assert parse_name(name) == name
                for version in await reader.find(parse_name(name)):
                    assert 0 <= version.size_bytes <= MAX_CONTENT_BYTES
        finally:
            await reader.aclose()


async def _names(reader: DirectoryReader) -> list[str]:
    names: list[str] = []
    after = ""
    while True:
        page = await reader.list_names(after=after, limit=1000)
        names += [entry.name for entry in page.entries]
        if not (after := page.next_after):
            return names


def _vitals(pid: int) -> tuple[int, int]:
    """Descriptors, and bytes of memory."""
    process = psutil.Process(pid)
    return process.num_fds(), process.memory_info().rss


class Bystander:
    """A well-behaved client of every service during an attack."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bystander", daemon=True)
        self.failures: list[str] = []
        self.answered = 0

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._over.set()
        self._thread.join(2 * ANSWER_SECONDS)

    def check(self) -> None:
        """Fails unless it was served all the while."""
        assert not self.failures, f"a well-behaved client was not served: {self.failures[:3]}"
        assert self.answered, "a well-behaved client got no answer at all"

    def _run(self) -> None:
        with grpc.insecure_channel(self._target.registry) as registry, grpc.insecure_channel(self._target.peer) as peer:
            while not self._over.is_set():
                self._tried("registry", lambda: _lives(registry, time.time_ns()))
                self._tried("peer", lambda: self._asks_for_manifest(peer))
                self._tried("small files", self._fetches)
                self._tried("chunks", self._fetches_chunk)
                self._tried("locator", self._asks)
                self._over.wait(0.05)

    def _tried(self, what: str, step: Callable[[], None]) -> None:
        started = time.monotonic()
        try:
            step()
            self.answered += 1
        except (grpc.RpcError, OSError, httpx.HTTPError, AssertionError) as error:
            self.failures.append(f"{what}: {error!r} after {time.monotonic() - started:.2f} s")

    def _asks_for_manifest(self, channel: grpc.Channel) -> None:
        content = self._target.contents["hello.txt"]
        request = peer_pb2.GetManifestRequest(content_id=content.content_id.raw)
        (answer,) = _call(channel, f"{PEER}GetManifest", request, peer_pb2.GetManifestResponse)
        assert Manifest.decode(answer.part) == content

    def _fetches(self) -> None:
        content_id = self._target.contents["hello.txt"].content_id
        url = f"http://{self._target.chunks}/v1/files"
        deadline = time.monotonic() + ANSWER_SECONDS
        while (answer := httpx.post(url, content=content_id.raw, timeout=ANSWER_SECONDS)).status_code == 429:
            assert time.monotonic() < deadline, "busy all the time"
        assert answer.content == encode_group([(0, SHARED["hello.txt"])]) + LAST_GROUP, answer

    def _fetches_chunk(self) -> None:
        content_id = self._target.contents["hello.txt"].content_id
        url = f"http://{self._target.chunks}/v1/contents/{content_id}/chunks?wanted=0"
        deadline = time.monotonic() + ANSWER_SECONDS
        while (answer := httpx.get(url, timeout=ANSWER_SECONDS)).status_code == 429:
            assert time.monotonic() < deadline, "busy all the time"
        assert answer.content == SHARED["hello.txt"], answer

    def _asks(self) -> None:
        answer = httpx.get(f"http://{self._target.locator}/v1/files/hello.txt", timeout=ANSWER_SECONDS)
        assert answer.status_code == 200, answer.text


def _lives(channel: grpc.Channel, revision: int) -> None:
    """Registers anew, pushes a table of one row, and sends a heartbeat."""
    me = {"peer_id": "bystander", "generation": revision}
    register = registry_pb2.RegisterRequest(**me, address="127.0.0.1:1", capacity_bytes=1, free_bytes=1)
    _call(channel, f"{REGISTRY}Register", register, registry_pb2.RegisterResponse)
    row = registry_pb2.FileRow(name="bystander.txt", content_id=bytes(32), state=registry_pb2.HOLDING_STATE_COMPLETE)
    steps = [
        registry_pb2.PushTableRequest(begin=registry_pb2.TableBegin(**me, whole=True, revision=revision)),
        registry_pb2.PushTableRequest(rows=registry_pb2.TableRows(put=[row])),
        registry_pb2.PushTableRequest(end=registry_pb2.TableEnd(put_count=1)),
    ]
    pushed = channel.stream_unary(f"{REGISTRY}PushTable", _serialized, registry_pb2.PushTableResponse.FromString)(
        iter(steps), timeout=ANSWER_SECONDS
    )
    assert pushed.revision == revision
    heartbeat = registry_pb2.HeartbeatRequest(**me, table_revision=revision)
    (answer,) = _call(channel, f"{REGISTRY}KeepLease", heartbeat, registry_pb2.HeartbeatResponse)
    assert answer.action == registry_pb2.HEARTBEAT_ACTION_OK


def _serialized(message: Any) -> bytes:
    made: bytes = message.SerializeToString()
    return made


def _call(channel: grpc.Channel, path: str, request: Any, answer: Any) -> list[Any]:
    """All answers to one request."""
    return list(channel.unary_stream(path, _serialized, answer.FromString)(request, timeout=ANSWER_SECONDS))


@contextmanager
def running(folder: Path) -> Iterator[Target]:
    """A network with one peer that shares `SHARED`, in an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="network")
    thread.start()
    config = LocalNetworkConfig(peer_count=1, directory=folder, peer_flags=("--settle", "0.05"))

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    async def made() -> LocalNetwork:
        return LocalNetwork(config)

    network = run(made())
    try:
        run(network.__aenter__())
        try:
            run(network.wait_ready())
            yield _target(network)
        finally:
            run(network.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _target(network: LocalNetwork) -> Target:
    peer = network.peers[0]
    for name, data in SHARED.items():
        (peer.share_dir / name).write_bytes(data)
    pids = {"registry": network.registry.pid, "locator": network.locator.pid, "peer": peer.pid}
    target = Target(
        network.registry.address,
        peer.address,
        "",
        network.locator.address,
        network.redis.url,
        peer.share_dir,
        network.directory / "logs",
        pids,
    )
    for name in SHARED:
        target.contents[name], http_port = _shared(target, name)
    target.chunks = f"127.0.0.1:{http_port}"
    return target


def _shared(target: Target, name: str) -> tuple[Manifest, int]:
    """The manifest of a file, once it can be found and fetched; and the peer's HTTP port."""
    found: list[str] = []

    def listed() -> bool:
        answer = httpx.get(f"http://{target.locator}/v1/files/{name}", timeout=ANSWER_SECONDS)
        if answer.status_code == 200:
            found.append(answer.json()["versions"][0]["content_id"])
        return bool(found)

    eventually(listed, lambda: f"{name} is not listed")
    content_id = ContentId.parse(found[0])
    with grpc.insecure_channel(target.peer) as channel:
        request = peer_pb2.GetManifestRequest(content_id=content_id.raw)
        parts = _call(channel, f"{PEER}GetManifest", request, peer_pb2.GetManifestResponse)
    return Manifest.decode(b"".join(part.part for part in parts), expected=content_id), parts[0].http_port
