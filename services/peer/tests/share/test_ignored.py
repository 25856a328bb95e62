"""The ignore file of a shared folder: what it leaves out is not shared, watched, or stored."""

import os

import pytest

from minga_core.errors import InvalidNameError
from minga_core.names import Name
from minga_engine.parts.placing import SmallContent, SmallFile
from minga_peer.share.conditions import Kind

from .conftest import Opener, Shared, eventually, manifest_of
from .test_watching import watched_count


@pytest.fixture
async def shared(opened: Opener) -> Shared:
    """A store whose watch is set."""
    shared = await opened()
    await eventually(watched_count, "the watch is set")
    return shared


def names(shared: Shared) -> set[str]:
    """What is announced."""
    return {row.key.name for row in shared.store.table.rows()}


async def test_secrets_and_repositories_are_not_shared_by_default(shared: Shared) -> None:
    """An attack: a peer read every regular file below its folder, `.env`, `.git` and `.ssh` included."""
    for name in (".env", "app/.env.local", "app/.git/config", ".ssh/id_rsa", "a.txt~", ".a.txt.swp"):
        shared.drop(name, b"secret")
    shared.drop("app/.env.example", b"x")
    await shared.shares("app/.env.example", b"x")
    shared.store.sync.rescan()
    await eventually(lambda: shared.store.status().ignored_count == 6, "they are counted")
    assert names(shared) == {"app/.env.example"}


async def test_a_change_of_the_ignore_file_applies_at_once(shared: Shared) -> None:
    """What is ignored leaves the table, what is not any more comes, a default too; the digests are kept."""
    for name in ("keep", "logs/a", "logs/deep/b", ".git/config"):
        shared.drop(name, b"x")
    await shared.shares("keep", b"x")
    await shared.shares("logs/a", b"x")
    await shared.shares("logs/deep/b", b"x")
    shared.drop(".mingaignore", b"logs/\n!.git\n")
    await shared.shares(".git/config", b"x")
    await eventually(lambda: names(shared) == {"keep", ".git/config"}, "the folder is ignored")
    hashed = shared.metrics.misses
    (shared.root / ".mingaignore").unlink()
    await eventually(lambda: names(shared) == {"keep", "logs/a", "logs/deep/b"}, "all is as before")
    assert shared.metrics.misses == hashed


async def test_ignored_folders_are_not_watched(shared: Shared) -> None:
    """They cost no inotify watches, and files in them no processor."""
    for number in range(20):
        shared.drop(f"node_modules/{number}/x", b"x")
        shared.drop(f".git/objects/{number}/x", b"x")
    await eventually(lambda: watched_count() == 22, "root and the 21 folders that are not ignored")
    shared.drop(".mingaignore", b"node_modules\n")
    await eventually(lambda: watched_count() == 1, "only the root")
    shared.drop("seen", b"x")
    await shared.shares("seen", b"x")
    (shared.root / ".mingaignore").unlink()
    await eventually(lambda: watched_count() == 22, "they are watched again")


@pytest.mark.parametrize("name", [".env", "a/.git/config", "logs/a", "deep/x.log"])
async def test_a_name_that_is_ignored_is_not_stored(opened: Opener, name: str) -> None:
    """The next scan would not find it. So nobody can leave an `.env` for the commands of this machine, either."""
    opened.root.mkdir()
    (opened.root / ".mingaignore").write_bytes(b"logs/\n*.log\n")
    shared = await opened()
    with pytest.raises(InvalidNameError, match="this peer ignores such names"):
        await shared.part(name, b"x")
    content = SmallContent.of(b"x", manifest_of(b"x").content_id)
    assert await shared.store.small.store([SmallFile(Name(name), content, 5)]) == [None]
    assert not (shared.root / name).exists()


async def test_an_ignore_file_that_cannot_be_read_changes_nothing_and_is_a_condition(shared: Shared) -> None:
    """It may name secrets: the rules stay as they were. The condition is over once it can be read."""
    rules = shared.drop(".mingaignore", b"secret\n!\n")
    shared.drop("secret", b"x")
    await eventually(lambda: shared.problem(".mingaignore, line 2: "), "the bad line is named")
    rules.unlink()
    rules.mkdir()
    await eventually(lambda: shared.problem(".mingaignore cannot be read"), "the folder is no ignore file")
    shared.drop("seen", b"x")
    await shared.shares("seen", b"x")
    assert names(shared) == {"seen"}
    rules.rmdir()
    rules.write_bytes(b"seen\n")
    await shared.shares("secret", b"x")
    await eventually(lambda: names(shared) == {"secret"}, "the new rules hold")
    assert shared.store.conditions.count(Kind.IGNORE_FILE) == 0


async def test_what_is_ignored_is_no_problem(shared: Shared) -> None:
    """Links and bad names in ignored folders are not looked at; those that become ignored are no condition any more."""
    shared.drop("tools/file", b"x")
    (shared.root / "tools/link").symlink_to("file")
    (shared.root / "tools" / os.fsdecode(b"\xff")).write_bytes(b"x")
    await eventually(lambda: shared.store.conditions.count(Kind.BAD_NAME) == 1, "a bad name")
    await eventually(lambda: shared.store.conditions.count(Kind.NOT_A_FILE) == 1, "a link")
    shared.drop(".mingaignore", b"tools\n")
    await eventually(lambda: not shared.store.conditions.all(), "both are ignored")
