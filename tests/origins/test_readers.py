"""Several programs that read one URL of an origin through one peer: curl, and Python's own, forked ones too."""

import asyncio
import hashlib
import os
import re
import sys
from pathlib import Path

import pytest

from minga_cli.localnet import LocalPeer
from tests.e2e.conftest import eventually
from tests.origins.networks import gateways
from tests.origins.programs import run
from tests.support.origin import origin

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
BODY = os.urandom(96 * MIB)


async def test_readers_do_not_wait_for_one_that_is_slow_or_dies(tmp_path: Path) -> None:
    """While it comes: all others have all of it, by one download; the peer keeps none of it in memory for them."""
    async with origin() as place:
        place.put("/a.bin", BODY)
        place.faults.bytes_per_second = 32 * MIB
        async with gateways(tmp_path / "net", 1, ("--fetch-allow", place.url)) as (net, (url,)):
            target, before = f"{url}/fetch/http/127.0.0.1:{place.port}/a.bin", memory_bytes(net.peers[0])
            curl = ("curl", "-sS", "-o", os.devnull, target)
            slow = await asyncio.create_subprocess_exec(*curl, "--limit-rate", "64k")
            dying = await asyncio.create_subprocess_exec(*curl)
            others = [asyncio.create_task(run("sh", "-c", f"curl -sS --fail {target} | sha256sum")) for _ in range(4)]

            async def under_way() -> bool:
                return place.sent_bytes >= 16 * MIB

            await eventually(under_way, "it comes")
            dying.kill()
            most = before
            while not all(each.done() for each in others):
                await asyncio.wait(others, timeout=0.05)
                most = max(most, memory_bytes(net.peers[0]))
            assert slow.returncode is None
            slow.kill()
            assert {(await each).split()[0] for each in others} == {hashlib.sha256(BODY).hexdigest()}
            # What was on its way on a connection that is one too many counts too.
            assert place.sent_bytes <= 1.2 * len(BODY)
            assert most - before < len(BODY) / 2
            await asyncio.gather(slow.wait(), dying.wait())


def memory_bytes(peer: LocalPeer) -> int:
    """What its process has in memory that is not a file's."""
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{peer.pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


FORKED = """
import os, sys, warnings
from pathlib import Path
import fsspec
import minga

warnings.simplefilter("ignore", DeprecationWarning)
url, locator, control = sys.argv[1:]
own = {"locator": locator, "control": control}
client = minga.Client(locator=locator, control=Path(control))


def in_child(work):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = work()
        except Exception as error:
            said = type(error).__name__
        os.write(writing, str(said).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    return os.read(reading, 1000).decode()


print("before", in_child(lambda: client.open(url).read(4)))
file, system = client.open(url), fsspec.filesystem("minga", **own)
by_fsspec = system.open(url)
print("parent", file.read(4), by_fsspec.read(4))
print("open", in_child(lambda: client.open(url)))
print("fsspec", in_child(lambda: system.open(url)))
print("file", in_child(lambda: file.read()))
print("content", in_child(lambda: client.open(client.get(url).content_id).read(4)))
found = client.get(url).content_id
print("by-id", in_child(lambda: client.open(found).read(4)))
print("by-fsspec", in_child(lambda: by_fsspec.read(4)))
print("parent", file.read(4), by_fsspec.read(4))
"""


async def test_a_forked_child_reads_what_its_parent_has_opened_of_an_origin(tmp_path: Path) -> None:
    """As data loaders do. 1. Before the parent has fetched anything a child opens URLs as any process. 2. After that it
    is an error at once, and no hang: gRPC does not survive a fork. 3. The content that the parent found, and its file
    of fsspec, are read on."""
    async with origin() as place:
        url = place.put("/a.bin", b"0123456789")
        async with gateways(tmp_path / "net", 1, ("--fetch-allow", place.url)) as (net, _):
            peer = net.peers[0]
            printed = await run(sys.executable, "-c", FORKED, url, net.locator_url, str(peer.control), seconds=60)
    assert printed.splitlines() == [
        "before b'0123'",
        "parent b'0123' b'0123'",
        "open RuntimeError",
        "fsspec RuntimeError",
        "file ValueError",
        "content RuntimeError",
        "by-id b'0123'",
        "by-fsspec b'4567'",
        "parent b'4567' b'4567'",
    ]
