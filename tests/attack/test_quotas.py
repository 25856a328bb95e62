"""What one member may have of a secure network: rows, bytes uploaded in a day, jobs and slots. All members are on one
host here: what one has used up is there for the next."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from minga_engine.wire.http_format import ChunkRequest
from minga_protos.peer.v1 import peer_pb2
from minga_protos.peer.v1.peer_pb2_grpc import PeerServiceStub
from tests.e2e.conftest import eventually, noise

from .attacker import Attacker
from .calls import upload
from .command import minga
from .network import CONTENTS, Network, network

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.e2e]

KIB = 1024
ROWS = "--max-table-rows=10"
PEER = ("--upload-quota=1MiB", "--max-uploads=2", "--serving-slots=2", "--limit-up=64KiB/s")
"""One upload and one slot for each member. What is served lasts for seconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def limited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Network]:
    """A secure network of one peer, with small quotas."""
    folder = tmp_path_factory.mktemp("quotas")
    async with network(folder, secure=True, rights=True, peer_count=1, registry_flags=(ROWS,), peer_flags=PEER) as made:
        made.authority.issue(made.credentials / "other", "client", "other")
        yield made


async def command(net: Network, folder: Path, *arguments: str, who: str = "command") -> tuple[int, str]:
    """`minga` of a member: its exit code and what it says."""
    own = net.credentials / who
    files = {"CERT": own / "tls.crt", "KEY": own / "tls.key", "CA": own / "ca.crt"}
    variables = {f"MINGA_TLS_{name}": str(path) for name, path in files.items()}
    variables["MINGA_LOCATOR"] = net.story.net.locator_url
    ended = await asyncio.to_thread(minga, *arguments, folder=folder, **variables)
    return ended.returncode, ended.stdout + ended.stderr


async def put(net: Network, folder: Path, name: str, size_bytes: int, who: str = "command") -> tuple[int, str]:
    (folder / "source").write_bytes(noise(size_bytes))
    return await command(net, folder, "put", str(folder / "source"), "--as", name, who=who)


async def test_bytes_uploaded_in_a_day(limited: Network, tmp_path: Path) -> None:
    """The command says how much there was, who has used it and which setting it is; another member has its own."""
    assert (await put(limited, tmp_path, "data/first", 700 * KIB))[0] == 0
    code, said = await put(limited, tmp_path, "data/second", 700 * KIB)
    assert code != 0
    for words in ("700 KiB", "client someone has 700 KiB", "1 MiB", "MINGA_UPLOAD_QUOTA"):
        assert words in said
    assert (await put(limited, tmp_path, "data/third", 200 * KIB))[0] == 0
    assert (await put(limited, tmp_path, "data/second", 700 * KIB, who="other"))[0] == 0


@asynccontextmanager
async def uploading(net: Network, who: Attacker) -> AsyncIterator[None]:
    """An upload of a member is under way."""
    async with who.channel(net.peer.address, "peer-1.peer.minga") as channel:
        stub: Any = PeerServiceStub(channel)
        call = stub.StoreFile()
        for message in upload("data/held", os.urandom(100))[:2]:
            await call.write(message)
        answer: peer_pb2.StoreFileResponse = await call.read()
        assert answer.HasField("lacking")
        yield
        call.cancel()


async def test_jobs_at_once(limited: Network, tmp_path: Path) -> None:
    """While an upload of a member is under way, its next one is refused and another member's is not."""
    async with uploading(limited, limited.member("command")):
        # gRPC may lose the reason of a call that ends while it is written to (`grpc_errors.rpc_errors`).
        for _ in range(5):
            code, said = await put(limited, tmp_path, "data/job", 100)
            assert code != 0
            if "ended the call" not in said:
                break
        assert "1 uploads of yours are under way already, and one caller may have 1" in said
        assert (await put(limited, tmp_path, "data/job", 100, who="other"))[0] == 0
    assert (await put(limited, tmp_path, "data/later", 100))[0] == 0


@asynccontextmanager
async def fetching(net: Network, who: Attacker) -> AsyncIterator[str]:
    """The head of the answer to a request for a chunk, which is being sent inside the block."""
    host, _, port = net.chunks.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=who.context(), server_hostname=host)
    try:
        writer.write(ChunkRequest(net.contents["secret.bin"], ((0, 1),)).encode(net.peer.address))
        async with asyncio.timeout(30):
            yield (await reader.readuntil(b"\r\n\r\n")).decode()
    finally:
        writer.transport.abort()


async def test_serving_slots(limited: Network) -> None:
    """While a chunk is sent to a member, its next request is refused and another member's is not."""
    someone, other = limited.member("command"), limited.member("other")
    async with fetching(limited, someone) as first:
        assert first.startswith("HTTP/1.1 200")
        async with fetching(limited, someone) as second:
            assert second.startswith("HTTP/1.1 429")
            assert "Minga-Retry-After-Millis" in second
        async with fetching(limited, other) as third:
            assert third.startswith("HTTP/1.1 200")


async def test_rows_of_one_table(limited: Network, tmp_path: Path) -> None:
    """The peer's status says what is too much, and which setting it is; what was found before is found still."""
    for number in range(10):
        (limited.peer.share_dir / "data" / f"row-{number}").write_bytes(bytes([number]))

    async def says_so() -> bool:
        _, said = await command(limited, tmp_path, "--control", str(limited.peer.control), "status")
        return "at most 10 rows of one peer (its setting MINGA_MAX_TABLE_ROWS)" in " ".join(said.split())

    await eventually(says_so, "the status says so")
    for name in CONTENTS:
        assert (await command(limited, tmp_path, "--locator", limited.story.net.locator_url, "info", name))[0] == 0
