"""What is Minga's own is neither shared nor stored, wherever it is."""

from pathlib import Path

import pytest

from minga_core.clock import SystemClock
from minga_core.errors import InvalidNameError, StorageError
from minga_core.names import Name
from minga_engine.parts.placing import SmallContent, SmallFile
from minga_peer.share.conditions import Kind
from minga_peer.share.store import ContentStore, StoreSettings

from .conftest import Opener, eventually, manifest_of


@pytest.mark.parametrize(
    "name", [".minga-parts/a", "a/.minga-parts/b", "a/.minga/parts/b", ".mingaignore", "a/.mingaignore"]
)
async def test_a_name_that_the_next_scan_would_not_find_is_not_stored(opened: Opener, name: str) -> None:
    """It would be announced, and lost at the next restart."""
    shared = await opened()
    with pytest.raises(InvalidNameError, match="reserved for Minga itself"):
        await shared.part(name, b"x")
    content = SmallContent.of(b"x", manifest_of(b"x").content_id)
    assert await shared.store.small.store([SmallFile(Name(name), content, 5)]) == [None]
    assert shared.store.table.rows() == []
    assert not (shared.root / name).exists()


@pytest.mark.parametrize("linked", [False, True])
async def test_state_inside_the_share_is_not_shared(opened: Opener, tmp_path: Path, *, linked: bool) -> None:
    """Its own, also by way of a link, and that of another share inside of this one. Its changes cause no scan."""
    state = tmp_path / "link/state" if linked else opened.root / "deep/state"
    opened.root.mkdir()
    if linked:
        (opened.root / "deep").mkdir()
        (tmp_path / "link").symlink_to(opened.root / "deep")
    async with opened.running(opened.root / "nested") as nested:
        nested.drop("a", b"x")
        await nested.shares("a", b"x")
        shared = await opened(state_dir=state)
        shared.drop("deep/b", b"y")
        shared.drop("deep/state2/c", b"z")
        await shared.shares("nested/a", b"x")
        await shared.shares("deep/b", b"y")
        await shared.shares("deep/state2/c", b"z")
        assert {row.key.name for row in shared.store.table.rows()} == {"nested/a", "deep/b", "deep/state2/c"}
        with pytest.raises(InvalidNameError):
            await shared.part("deep/state/lock", b"x")


async def test_the_shared_folder_cannot_be_its_own_state_folder(tmp_path: Path) -> None:
    """Index and log would be among the files."""
    with pytest.raises(StorageError, match="cannot be the state folder too"):
        await ContentStore.open(StoreSettings(tmp_path, state_dir=tmp_path), SystemClock())


async def test_a_look_at_a_folder_forgets_no_file_that_may_not_be_there(opened: Opener) -> None:
    """A file that somebody has put under `origins/` stays a condition, however often its folder changes meanwhile; one
    that is removed is none any more."""
    shared = await opened()
    dropped = shared.drop("origins/sha256/a", b"dropped")
    conditions = shared.store.conditions
    await eventually(lambda: conditions.count(Kind.BAD_NAME) == 1, "it is refused")
    for number in range(4):
        # Each is seen by itself: what has changed together is looked at once.
        dropped.parent.chmod(0o700 + number)
        shared.drop(f"after{number}", b"x")
        await shared.shares(f"after{number}", b"x")
    assert list(conditions.lines(Kind.BAD_NAME)) == ["origins/sha256/a"]
    dropped.unlink()
    dropped.parent.chmod(0o700)
    shared.store.sync.rescan()
    await eventually(lambda: conditions.count(Kind.BAD_NAME) == 0, "it is gone")
