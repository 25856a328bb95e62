"""`import minga`: what is public, what it drags in, and both clients against a locator and a daemon."""

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import minga
from minga import AsyncClient, ChangeKind, Client, DownloadPhase, FetchItem, load_settings, parse_name
from minga.errors import DaemonUnavailableError, FileNotFoundInDirectoryError, InvalidArgumentError, NameTakenError
from tests.support.fake_daemon import FakeDaemon
from tests.support.fake_locator import FakeLocator, content_id

ROOT = Path(__file__).parents[3]
OURS = {"minga": "libs/client"} | {f"minga-{part}": f"libs/{part}" for part in ("core", "engine", "runtime")}
OURS["minga-protos"] = "protos"
COMMAND_ONLY = {"typer", "rich", "questionary", "redis", "fastapi", "uvicorn"}
PUBLIC = """
    Address AsyncClient BadFile Change ChangeKind Client ClientSettings ContentId DaemonCondition DaemonStatus
    DaemonTransfer DirectoryFigures DownloadPhase Explanation FetchItem FileInfo FileSource FileStat FileVersion
    Folder HIDDEN_ROOT IGNORE_FILE IgnoreRules ListedFile ListedPeer Name Outcome PARTS_FOLDER PeerId Phase
    PreheatStep Preheated PreheatedPeer Progress PutItem PutPhase PutProgress PutResult ScrubStatus SlowReason
    SlowSource SourceShare VerifyProgress WaitCause errors load_settings parse_name parse_peer_id parse_prefix units
"""


def test_who_gives_a_url_in_place_of_settings_is_told_how() -> None:
    for made in (Client, AsyncClient):
        with pytest.raises(TypeError, match="locator='http://x:50052'"):
            made("http://x:50052")  # type: ignore[arg-type]


def test_what_is_public_is_pinned_and_there() -> None:
    """A name that is added or goes is a decision; each has its docstring."""
    assert sorted(minga.__all__) == PUBLIC.split()
    for name in minga.__all__:
        assert getattr(minga, name) is not None
    methods = [getattr(kind, name) for kind in (Client, AsyncClient) for name in dir(kind) if name[0] != "_"]
    assert [method for method in methods if not (getattr(method, "__doc__", None) or "").strip()] == []


def test_importing_loads_nothing_of_the_network() -> None:
    """`import minga` costs next to nothing: names are imported when they are first used."""
    code = "import sys, minga; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"grpc", "httpx", "pydantic", "asyncio", "minga_engine"}.isdisjoint(loaded)


def closure(name: str, seen: set[str]) -> set[str]:
    """What installing a distribution brings, itself included; of ours by their pyproject files."""
    name = canonicalize_name(name)
    if name in seen:
        return seen
    seen.add(name)
    if name in OURS:
        text = (ROOT / OURS[name] / "pyproject.toml").read_text()
        needed = tomllib.loads(text)["project"]["dependencies"]
    else:
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            needed = []
    for text in needed:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            closure(requirement.name, seen)
    return seen


def test_installing_the_library_brings_nothing_of_the_command_or_the_services() -> None:
    """No terminal libraries, no folder watcher, no Redis client, no other distribution of ours."""
    brought = closure("minga", set())
    assert brought.isdisjoint(COMMAND_ONLY)
    assert {name for name in brought if name.startswith("minga")} == set(OURS)


@pytest.fixture
def client(locator: FakeLocator, daemon: FakeDaemon) -> Iterator[Client]:
    """A client on a machine with a daemon."""
    daemon.locator = locator.url
    with Client(locator=locator.url, control=daemon.socket) as client:
        yield client


def test_look_ups_ask_the_locator(client: Client, locator: FakeLocator) -> None:
    """Every page of a listing; versions of a name, names of a content."""
    for number in range(5):
        locator.share(f"d/{number}", 100, number=number)
    assert [file.name for file in client.ls("d/")] == [f"d/{number}" for number in range(5)]
    assert next(client.ls()).size_bytes == 100
    assert [file.name for file in client.find("3")] == ["d/3"]
    assert client.info("d/4").versions[0].complete_count == 1
    assert client.info(content_id(4)).names == ("d/4",)
    assert list(client.peers()) == []
    with pytest.raises(FileNotFoundInDirectoryError):
        client.info("nothing")
    with pytest.raises(InvalidArgumentError):
        client.find("")


def test_get_goes_through_the_daemon_and_copies(client: Client, daemon: FakeDaemon, tmp_path: Path) -> None:
    """Into the shared folder, and to a path with its folders; another content there is kept."""
    daemon.contents = {"a": b"abc", "b": b"b"}
    seen: list[DownloadPhase] = []
    done = client.get("a", on_progress=lambda progress: seen.append(progress.phase))
    assert (done.path, seen[-1]) == (daemon.share_dir / "a", DownloadPhase.DONE)
    assert client.get("a", tmp_path / "new/copy").size_bytes == 3
    assert (tmp_path / "new/copy").read_bytes() == b"abc"
    (tmp_path / "other").write_text("mine")
    with pytest.raises(NameTakenError):
        client.get("a", tmp_path / "other")
    target = PurePosixPath("c")
    outcomes = client.get_many([FetchItem(parse_name("b"), 1, tmp_path, target), FetchItem(parse_name("a"), 3)])
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert (tmp_path / "c").read_bytes() == b"b"


def test_the_daemon_is_asked_for_its_status_and_removes(client: Client, daemon: FakeDaemon) -> None:
    """What `minga status` and `minga rm` do."""
    (daemon.share_dir / "a").write_text("")
    assert client.available()
    assert client.status().peer_id == "lab-7"
    client.rm("a")
    assert not (daemon.share_dir / "a").exists()


async def test_without_a_daemon_it_says_so(locator: FakeLocator, short_dir: Path) -> None:
    """And the choice is made once; a standalone client never asks."""
    async with AsyncClient(locator=locator.url, control=short_dir / "none.sock") as client:
        assert not await client.uses_daemon()
        with pytest.raises(DaemonUnavailableError):
            await client.status()


async def test_a_standalone_client_leaves_the_daemon_alone(locator: FakeLocator, daemon: FakeDaemon) -> None:
    """Whether one runs or not; what nobody shares is an error, and replicas have bounds."""
    async with AsyncClient(locator=locator.url, control=daemon.socket, standalone=True) as client:
        with pytest.raises(FileNotFoundInDirectoryError):
            await client.get("nothing", daemon.share_dir / "x")
        with pytest.raises(InvalidArgumentError, match="invalid number of replicas 21"):
            await client.put(daemon.share_dir, "x", replicas=21)
    assert daemon.asked == []


def test_a_client_starts_when_it_is_first_used_and_ends_when_it_is_closed(locator: FakeLocator) -> None:
    """With and without a block; once closed it says so."""
    locator.share("a")
    client = Client(locator=locator.url)
    assert [file.name for file in client.ls()] == ["a"]
    client.close()
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.stat("a")
    assert [thread for thread in threading.enumerate() if thread.name == "minga-client"] == []


def test_a_client_can_be_pickled_with_its_settings(locator: FakeLocator) -> None:
    """What it is connected to stays behind."""
    locator.share("a")
    with Client(locator=locator.url, standalone=True) as client:
        assert client.stat("a").name == "a"
        with pickle.loads(pickle.dumps(client)) as other:
            assert other.settings == client.settings
            assert other.stat("a").name == "a"
            assert not other.uses_daemon()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_client_works_in_a_child_that_was_forked_and_goes_on_in_the_parent(locator: FakeLocator) -> None:
    """As DataLoader's workers are. gRPC, which does not survive it, is refused there and not waited for."""
    locator.share("a")
    forking = multiprocessing.get_context("fork")
    with Client(locator=locator.url) as client:
        assert client.stat("a").size_bytes == 1024
        assert not client.uses_daemon()
        results = forking.SimpleQueue()
        child = forking.Process(target=_use_in_child, args=(client, results))
        child.start()
        child.join(20)
        assert child.exitcode == 0
        assert results.get() == (1024, "RuntimeError")
        assert client.stat("a").size_bytes == 1024
        assert [file.name for file in client.ls()] == ["a"]


def _use_in_child(client: Client, results: "multiprocessing.SimpleQueue[tuple[int, str]]") -> None:
    try:
        client.available()
    except RuntimeError as error:
        results.put((client.stat("a").size_bytes, type(error).__name__))


def test_the_catalogue_is_a_tree(client: Client, locator: FakeLocator) -> None:
    """Top down, and without the folders that are taken out; a name that has what begins alike beside it."""
    for number, name in enumerate(("a", "d/1", "d/e/2", "d/f/g/3", "d2/4")):
        locator.share(name, number=number)
    tree = [(found.path, found.folders, [file.name for file in found.files]) for found in client.walk()]
    assert tree == [
        ("", ["d", "d2"], ["a"]),
        ("d", ["e", "f"], ["d/1"]),
        ("d/e", [], ["d/e/2"]),
        ("d/f", ["g"], []),
        ("d/f/g", [], ["d/f/g/3"]),
        ("d2", [], ["d2/4"]),
    ]
    seen = []
    for folder in client.walk("d/"):
        folder.folders[:] = [name for name in folder.folders if name != "f"]
        seen.append(folder.path)
    assert seen == ["d", "d/e"]
    assert list(client.walk("none")) == []


def test_one_version_is_looked_up_by_name_by_version_and_by_content(client: Client, locator: FakeLocator) -> None:
    """And nothing that is no reference."""
    locator.share("a", 7, number=3)
    for text in ("a", f"a@{content_id(3)}", content_id(3)):
        found = client.stat(text)
        assert (found.name, str(found.content_id), found.size_bytes, found.complete_count) == ("a", content_id(3), 7, 1)
        assert client.info(text).versions[0].size_bytes == 7
    for text in ("b3:1", f"@{content_id(3)}", "", "/a"):
        with pytest.raises(InvalidArgumentError):
            client.stat(text)
    for text in ("b", "a@b3:1"):
        with pytest.raises(FileNotFoundInDirectoryError):
            client.stat(text)


def test_a_listed_name_that_looks_like_a_version_can_be_looked_up(client: Client, locator: FakeLocator) -> None:
    """Only a whole content id behind an `@` is one."""
    for number, name in enumerate(("a@b3:1", f"a@{content_id(1).upper()}", "a@b"), start=1):
        locator.share(name, 7, number=number)
        assert (client.stat(name).name, client.stat(f"{name}@{content_id(number)}").name) == (name, name)


async def test_a_watch_yields_what_changes_under_a_prefix(
    locator: FakeLocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Added, another content, removed; not what was there, unless that is wanted, and on while the locator is away."""
    monkeypatch.setattr("minga.catalogue.MIN_WATCH_INTERVAL", timedelta(0))
    locator.share("d/old")
    locator.share("e")
    async with AsyncClient(locator=locator.url, standalone=True, retry_budget=timedelta(0)) as client:
        changes = client.watch("d/", interval=timedelta(milliseconds=5), existing=True)
        assert (change := await anext(changes)).kind is ChangeKind.ADDED
        assert change.file.name == "d/old"
        waiting = asyncio.create_task(anext(changes))
        locator.down = True
        await asyncio.sleep(0.03)
        locator.share("f")
        locator.share("d/new")
        locator.down = False
        assert (await waiting).file.name == "d/new"
        locator.share("d/old", number=9)
        assert (change := await anext(changes)).kind is ChangeKind.CHANGED
        assert str(change.file.content_id) == content_id(9)
        del locator.files["d/old"]
        assert (change := await anext(changes)).kind is ChangeKind.REMOVED
        await changes.aclose()
        with pytest.raises(InvalidArgumentError, match="interval"):
            client.watch(interval=timedelta(seconds=-1))


def test_credentials_need_a_locator_by_https(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a certificate nothing is asked in the open by mistake."""
    for name in ("CERT", "KEY", "CA"):
        monkeypatch.setenv(f"MINGA_TLS_{name}", f"/etc/minga/{name}")
    with pytest.raises(InvalidArgumentError, match="MINGA_LOCATOR: with MINGA_TLS_CERT a URL with https:// is needed"):
        load_settings(locator="http://locator:50052")
    assert load_settings(locator="https://locator:50052").tls is not None
