"""A hub that is away: what it said of repositories that were fetched ahead of time is answered, and nothing else."""

import os
from pathlib import Path
from typing import Any

import pytest

from minga_peer.models import kept
from minga_peer.models.kept import KeptRevision, KeptRevisions
from minga_peer.models.requests import HubFile
from minga_peer.models.walking import ModelWalk
from services.peer.tests.models.conftest import SMALL, WEIGHTS, Mirrored
from tests.support.hub import Repository
from tests.support.memory_origins import Clock

FILES = {"config.json": SMALL, "a b/w.safetensors": WEIGHTS, "a b/c.txt": b"c", "empty": b""}


async def fetched_ahead(mirrored: Mirrored, revision: str = "main") -> str:
    """Have `org/model` on this peer, as by `minga preheat`; its commit."""
    mirrored.hub.repositories["org/model"] = Repository(FILES)
    walk = ModelWalk(mirrored.asked.hub, mirrored.asked.kept, mirrored.origins)
    plan = await walk.plan(f"hf://org/model@{revision}", "")
    for file in plan.files:
        async with mirrored.origins.open(await file.open()):
            pass
    return plan.resolved


@pytest.mark.parametrize("refuses", [False, True])
async def test_what_was_fetched_ahead_needs_no_hub(mirrored: Mirrored, refuses: bool) -> None:
    """It fails, or nothing answers: every file is there with what clients need, at its branch and at its commit, and
    what is not in the repository is known not to be there."""
    commit = await fetched_ahead(mirrored)
    asked = len(mirrored.hub.asked)
    if refuses:
        await mirrored.stop_hub()
    mirrored.hub.status = 500
    for revision in ("main", commit):
        for path, data in FILES.items():
            head = await mirrored.ask(f"/org/model/resolve/{revision}/{path}", "HEAD")
            assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
            assert (head.headers["x-repo-commit"], head.headers["x-minga-source"]) == (commit, "local")
            found = await mirrored.ask(f"/org/model/resolve/{revision}/{path}", token="of-somebody")
            assert (found.content, found.headers["etag"]) == (data, head.headers["etag"])
        absent = await mirrored.ask(f"/org/model/resolve/{revision}/nothing.json", "HEAD")
        assert (absent.status_code, absent.headers["x-error-code"]) == (404, "EntryNotFound")
        assert absent.headers["x-repo-commit"] == commit
        assert (await mirrored.ask(f"/api/models/org/model/revision/{revision}")).json()["sha"] == commit
        listed = (await mirrored.ask(f"/api/models/org/model/tree/{revision}?recursive=true")).json()
        assert {entry["path"] for entry in listed if entry["type"] == "file"} == set(FILES)
        assert not any("xetHash" in entry for entry in listed)
        folder = (await mirrored.ask(f"/api/models/org/model/tree/{revision}/a%20b?recursive=false")).json()
        assert [entry["path"] for entry in folder] == ["a b/w.safetensors", "a b/c.txt"]
        assert (await mirrored.ask(f"/api/models/org/model/tree/{revision}/none")).status_code == 404
    assert (await mirrored.ask("/api/models/org/model")).json()["sha"] == commit
    # It is not asked for each of them: to find out that it does not answer may take seconds.
    assert refuses or len(mirrored.hub.asked) > asked
    for other in ("/org/model/resolve/dev/config.json", "/org/other/resolve/main/config.json", "/api/models/org/other"):
        assert (await mirrored.ask(other)).status_code in (500, 503)


async def test_a_hub_that_answers_is_believed(mirrored: Mirrored) -> None:
    """A branch that has moved, and what it no longer gives."""
    commit = await fetched_ahead(mirrored)
    moved = mirrored.hub.repositories["org/model"] = Repository(FILES | {"config.json": b"{}"})
    assert moved.commit != commit
    assert (await mirrored.ask("/org/model/resolve/main/config.json")).content == b"{}"
    mirrored.hub.repositories["org/model"] = Repository(FILES, token="good")
    assert (await mirrored.ask("/org/model/resolve/main/config.json", "HEAD")).status_code == 401


async def test_a_small_file_that_is_here_is_not_fetched_again(mirrored: Mirrored) -> None:
    """The hub is asked what it is now, and nothing more."""
    await fetched_ahead(mirrored)
    before = mirrored.hub.count("GET", "resolve")
    found = await mirrored.ask("/org/model/resolve/main/config.json")
    assert (found.content, mirrored.hub.count("GET", "resolve")) == (SMALL, before)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"type": "file"},
        {"type": "file", "path": 1, "size": 1, "oid": "0" * 40},
        {"type": "file", "path": "a", "size": "1", "oid": "0" * 40},
        {"type": "file", "path": "a", "size": 1, "oid": "0\r\nX: y"},
        {"type": "file", "path": "a", "size": 1, "lfs": {}},
    ],
)
async def test_what_a_hub_lists_that_is_no_file_is_not_kept(tmp_path: Path, entry: Any) -> None:
    """It would be in headers later."""
    keeping, commit = KeptRevisions(tmp_path, Clock().monotonic), "c" * 40
    await keeping.keep("org/x", "main", KeptRevision(commit, {"sha": commit}, [entry]))
    for reading in (keeping, KeptRevisions(tmp_path, Clock().monotonic)):
        found = await reading.describe(HubFile("org/x", "main", "a"))
        assert found is not None
        assert found.status == 404


async def test_what_is_kept_outlasts_the_process_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest go; a file that makes no sense is none."""
    monkeypatch.setattr(kept, "MAX_KEPT", 4)
    commit, entry = "c" * 40, {"type": "file", "path": "a", "size": 1, "oid": "0" * 40}
    for number in range(3):
        keeping = KeptRevisions(tmp_path, Clock().monotonic)
        await keeping.keep(f"org/{number}", "main", KeptRevision(commit, {"sha": commit}, [entry]))
    later = KeptRevisions(tmp_path, Clock().monotonic)
    found = [await later.describe(HubFile(f"org/{number}", "main", "a")) for number in range(3)]
    assert [each is not None for each in found] == [False, True, True]
    for name in os.listdir(tmp_path):
        (tmp_path / name).write_text('{"commit": "c", "about": [], "entries": 1}')
    assert await KeptRevisions(tmp_path, Clock().monotonic).describe(HubFile("org/2", "main", "a")) is None
