"""Traces through real processes: one command is one trace across all parts; and nothing where traces are off."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.collector import Collector, Trace, collecting, trace_with

from .conftest import Story, noise, running

pytestmark = pytest.mark.e2e

MIB = 1024 * 1024
GET = "minga.control.v1.ControlService/Download"
PUSH = "minga.registry.v1.RegistryService/PushTable"
OFF = """
import sys
from minga_cli.main import run
code = run(sys.argv[1:])
found = sorted(name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")))
print("IMPORTED", found)
sys.exit(code)
"""
INTERRUPTED = """
import os, pathlib, signal, sys, threading, time
from minga_cli.main import main

def interrupt():
    while not list(pathlib.Path().rglob(".minga-parts/*")):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
main(sys.argv[1:])
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float


async def command(story: Story, peer: int, *arguments: str, traces: str | None, program: str = "") -> Ended:
    """Runs `minga` on the machine of a peer, or a program in its place."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MINGA_", "OTEL_"))}
    environment |= {"MINGA_LOCATOR": story.net.locator_url, "MINGA_CONTROL": str(story.peers[peer].control)}
    environment |= {"MINGA_TRACES": traces} if traces is not None else {}
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        *(("-c", program) if program else ("-m", "minga_cli")),
        *arguments,
        env=environment,
        cwd=story.net.directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode(), time.monotonic() - started)


@asynccontextmanager
async def traced(tmp_path: Path, peer_count: int, collector: str) -> AsyncIterator[Story]:
    """A network whose every part sends traces there."""
    flags = (f"--traces={collector}",)
    async with running(tmp_path, peer_count, registry_flags=flags, locator_flags=flags, peer_flags=flags) as story:
        yield story


async def seen(collector: Collector, *names: str) -> Trace:
    """The trace with spans of all those names. All of it has come once the network has stopped."""
    return await asyncio.to_thread(trace_with, collector, set(names))


async def test_a_get_is_one_trace_from_the_command_to_the_peer_that_serves(tmp_path: Path) -> None:
    """Command, daemon, locator, registry, and the other peer, each span below that of its caller."""
    with collecting() as collector:
        async with traced(tmp_path, 2, collector.address) as story:
            data = noise(20 * MIB)
            await story.share(story.peers[0], "dir/a.bin", data)
            ended = await command(story, 1, "get", "dir/a.bin", traces=collector.address)
            assert (ended.code, ended.err) == (0, "")
        trace = await seen(collector, "minga get", "serve chunks", "download", "put in place")
        root, download = trace.one("minga get"), trace.one("download")
        assert (root.parent_id, root.service, root.attributes["process.exit.code"]) == ("", "minga-command", 0)
        daemon = ["minga-command/minga get", f"minga-command/{GET}", f"minga-peer/{GET}"]
        assert trace.path(download) == [*daemon, "minga-peer/download"]
        assert download.instance == story.peers[1].peer_id
        assert download.attributes["minga.download.outcome"] == "done"
        assert download.attributes["minga.download.bytes_by_kind.complete"] == len(data)
        look_up = trace.one("GET /v1/files/{name:any}")
        assert trace.path(look_up) == [*daemon, "minga-peer/GET /v1/files/{}", "minga-locator/GET /v1/files/{name:any}"]
        serving = trace.one("serve chunks")
        assert trace.path(serving) == [
            *daemon,
            "minga-peer/download",
            "minga-peer/fetch chunks",
            "minga-peer/serve chunks",
        ]
        assert (serving.kind, serving.instance) == ("server", story.peers[0].peer_id)
        assert serving.attributes["minga.serve.sent_bytes"] == len(data)
        # Eighty chunks, and not eighty spans.
        assert len(trace.spans) < 40
        assert all(path[0] != "?" for path in map(trace.path, trace.spans)), trace.outline()


async def test_a_put_is_one_trace_with_its_placement_its_copies_and_their_announcements(tmp_path: Path) -> None:
    """Upload to one peer, replication to the other, and the announcements of both to the registry."""
    with collecting() as collector:
        async with traced(tmp_path, 2, collector.address) as story:
            (tmp_path / "up.bin").write_bytes(noise(3 * MIB))
            arguments = ("put", str(tmp_path / "up.bin"), "--replicas", "2")
            ended = await command(story, 0, *arguments, traces=collector.address)
            assert (ended.code, ended.err) == (0, "")
        trace = await seen(collector, "minga put", "serve chunks", "download", "announce")
        upload = ["minga-command/minga put", "minga-command/upload"]
        paths = {" > ".join(trace.path(span)) for span in trace.spans}
        store = "minga.peer.v1.PeerService/StoreFile"
        copy = "minga.peer.v1.PeerService/ReplicateFile"
        copying = [*upload, f"minga-command/{copy}", f"minga-peer/{copy}", "minga-peer/download"]
        for expected in (
            [*upload, "minga-command/POST /v1/placements", "minga-locator/POST /v1/placements"],
            [*upload, f"minga-command/{store}", f"minga-peer/{store}", "minga-peer/announce", f"minga-peer/{PUSH}"],
            [*copying, "minga-peer/fetch chunks", "minga-peer/serve chunks"],
            [*upload, "minga-command/wait until found"],
        ):
            assert " > ".join(expected) in paths, trace.outline()
        assert {span.service for span in trace.all(PUSH)} == {"minga-peer", "minga-registry"}
        # The polls of the waiting command have no spans, here or at the locator.
        look_ups = collector.named("GET /v1/files/{name:any}")
        assert {span.trace_id for span in look_ups} == {trace.spans[0].trace_id}


async def test_a_command_without_a_daemon_is_a_whole_trace_too(tmp_path: Path) -> None:
    """It fetches by itself, and its last spans arrive although it ends at once."""
    with collecting() as collector:
        async with traced(tmp_path, 1, collector.address) as story:
            await story.share(story.peers[0], "a.bin", noise(3 * MIB))
            ended = await command(story, 0, "get", "a.bin", "-o", "here", "--standalone", traces=collector.address)
            assert (ended.code, ended.err) == (0, "")
            missing = await command(story, 0, "get", "nothing", traces=collector.address)
        trace = await seen(collector, "minga get", "serve chunks", "download")
        failed = (await seen(collector, "minga get", "minga.control.v1.ControlService/GetStatus")).one("minga get")
        assert trace.path(trace.one("serve chunks")) == [
            "minga-command/minga get",
            "minga-command/download",
            "minga-command/fetch chunks",
            "minga-peer/serve chunks",
        ]
        assert (failed.failed, failed.attributes["error.type"]) == (True, "file_not_found")
        assert failed.attributes["process.exit.code"] == missing.code


async def test_an_interrupted_command_sends_its_trace(tmp_path: Path) -> None:
    """Marked as cancelled, not as failed."""
    with collecting() as collector:
        async with traced(tmp_path, 1, collector.address) as story:
            await story.share(story.peers[0], "a.bin", noise(30 * MIB))
            fetch = ("get", "a.bin", "-o", "here", "--standalone", "--limit-down", "1MiB/s")
            ended = await command(story, 0, *fetch, traces=collector.address, program=INTERRUPTED)
            assert ended.code == 128 + signal.SIGINT
        trace = await seen(collector, "minga get", "download")
        root, download = trace.one("minga get"), trace.one("download")
        assert (root.failed, root.attributes["minga.cancelled"]) == (False, True)
        assert download.attributes["minga.download.outcome"] == "cancelled"


async def test_where_traces_are_off_nothing_of_them_is_there(tmp_path: Path) -> None:
    """Neither the SDK in a command that downloads, nor a request to a collector."""
    with collecting() as collector:
        async with running(tmp_path, 2) as story:
            await story.share(story.peers[0], "a.bin", noise(3 * MIB))
            for arguments in (("get", "a.bin"), ("get", "a.bin", "-o", "here", "--standalone")):
                ended = await command(story, 1, *arguments, traces=None, program=OFF)
                assert (ended.code, ended.err) == (0, "")
                assert ended.out.endswith("IMPORTED []\n")
        assert not collector.spans


async def test_a_collector_that_stalls_costs_one_line_and_a_second(tmp_path: Path) -> None:
    """Downloads are not delayed; a command ends within a second of its own time."""
    with collecting(stalled=True) as collector:
        address = collector.address
        async with traced(tmp_path, 2, address) as story:
            await story.share(story.peers[0], "a.bin", noise(3 * MIB))
            plain = await command(story, 1, "get", "a.bin", "-o", "one", traces=None)
            ended = await command(story, 1, "get", "a.bin", "-o", "two", traces=address)
            assert (plain.code, ended.code) == (0, 0)
            assert ended.err.startswith("minga: the trace of this command is not whole: ")
            assert len(ended.err.splitlines()) == 1
            # On a busy machine the SDK takes as long to load as all the rest.
            assert ended.seconds < 2 * plain.seconds + 2.5
        logs = [path.read_text() for path in (story.net.directory / "logs").glob("*.log")]
        assert all(text.count("traces_lost") <= 1 for text in logs)
        assert not any("Traceback" in text or "opentelemetry" in text.lower() for text in logs)
