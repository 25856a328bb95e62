"""The tree of watches follows the folders, whatever happens to them."""

import random
import shutil
from pathlib import Path

import pytest

from minga_peer.share.root import Root
from minga_peer.share.watch_tree import WatchTree, open_inotify, waiting_events


@pytest.mark.parametrize("seed", range(6))
def test_after_any_changes_exactly_the_folders_that_are_there_are_watched(tmp_path: Path, seed: int) -> None:
    """Folders are made, moved over each other, removed and made again; events are read now and then."""
    rng, root = random.Random(seed), tmp_path / "root"
    root.mkdir()
    inotify = open_inotify()
    tree = WatchTree(Root(root), inotify)
    tree.watch_all()
    for _ in range(120):
        _change_something(rng, root, tmp_path / "away")
        if rng.random() < 0.3:
            tree.changed(waiting_events(inotify))
    while events := waiting_events(inotify):
        tree.changed(events)
    there = [path for path in root.rglob("*") if path.is_dir()]
    assert len(tree) == len(there) + 1
    for path in there:
        (path / "file").write_bytes(b"x")
    assert tree.changed(waiting_events(inotify)) == {str(path.relative_to(root) / "file") for path in there}
    inotify.close()


def _change_something(rng: random.Random, root: Path, away: Path) -> None:
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    one, other = rng.choice(folders), rng.choice(folders)
    name = rng.choice("abc")
    match rng.randrange(6):
        case 0 | 1 | 2:
            (one / name / rng.choice("abc")).mkdir(parents=True, exist_ok=True)
        case 3 if one != root and one not in (other, *other.parents) and not (other / name).exists():
            one.rename(other / name)
        case 4 if one != root:
            shutil.rmtree(one)
        case 5 if one != root:
            shutil.rmtree(away, ignore_errors=True)
            one.rename(away)
            if rng.random() < 0.5:
                away.rename(one)
        case _:
            pass
