"""Fetching without a daemon while another process fetches the same."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path, PurePosixPath

import pytest

from minga.fetching import FetchItem, FetchOptions
from minga.settings import ClientSettings
from minga.standalone import OTHER_PROCESS, Engine, StandaloneFetcher
from minga_core.errors import AlreadyRunningError, MingaError, NameTakenError
from minga_core.names import parse_name
from minga_engine.progress import DownloadPhase, Progress
from minga_engine.transfer.download import Downloader, DownloadRequest, Finished, OnProgress
from minga_engine.wire.locator import LocatorClient
from minga_runtime.settings import load_settings

DONE = Progress(DownloadPhase.DONE, 1, 1)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("ENDING_POLL_SECONDS", "MAX_POLL_SECONDS"):
        monkeypatch.setattr(f"minga.fetching.{limit}", 0.001)
    monkeypatch.setattr("minga.standalone.ENDING_LIMIT_SECONDS", 0.0)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """An engine whose locator is never asked."""
    settings = load_settings(ClientSettings)
    async with LocatorClient("http://127.0.0.1:1") as locator:
        made = Engine(locator, settings)
        yield made
        await made.aclose()


def failing(
    monkeypatch: pytest.MonkeyPatch, errors: list[MingaError], meanwhile: Callable[[], object] = lambda: None
) -> None:
    """Downloads fail with these errors, one each, and then end well. meanwhile: done before each failure."""

    async def download(self: Downloader, request: DownloadRequest, on_progress: OnProgress) -> Finished:
        if errors:
            meanwhile()
            raise errors.pop(0)
        return Finished(DONE, None)

    monkeypatch.setattr(Downloader, "download", download)


async def fetch(engine: Engine, target: Path, wait_seconds: float) -> list[Progress]:
    """Fetches one file; the last progress, then those before."""
    seen: list[Progress] = []
    fetcher = StandaloneFetcher(engine, FetchOptions(wait=timedelta(seconds=wait_seconds)))
    item = FetchItem(parse_name("a"), 1, target.parent, PurePosixPath(target.name))
    return [await fetcher.fetch(item, seen.append), *seen]


async def test_of_two_gets_of_one_content_into_one_folder_the_second_waits(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it would for a source, and says so; then it has the file."""
    failing(monkeypatch, [AlreadyRunningError("being written") for _ in range(20)])
    last, *before = await fetch(engine, tmp_path / "a", 30)
    assert last == DONE
    assert {(step.phase, step.message) for step in before} == {(DownloadPhase.WAITING, OTHER_PROCESS)}
    failing(monkeypatch, [AlreadyRunningError("being written") for _ in range(10_000)])
    with pytest.raises(AlreadyRunningError):
        await fetch(engine, tmp_path / "a", 0.05)


async def test_a_file_that_another_get_has_just_put_in_place_is_looked_at(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be what is wanted. One that was there before is another content."""
    target = tmp_path / "a"
    failing(monkeypatch, [NameTakenError("is there")], target.touch)
    assert (await fetch(engine, target, 30))[0] == DONE
    failing(monkeypatch, [NameTakenError("is there")])
    with pytest.raises(NameTakenError):
        await fetch(engine, target, 30)
