"""`minga hf fill`: the cache of the hub's clients, of what a hub says, which may be anything."""

import json
import os
from pathlib import Path

import pytest

from minga.errors import InvalidArgumentError, UnavailableError
from minga_cli.hub_cache import (
    RepositoryCache,
    TreeFile,
    copy_shared,
    default_cache,
    parse_entry,
    parse_repository,
)

from .conftest import Minga

COMMIT, GIT_ID, SHA256 = "c" * 40, "a" * 40, "b" * 64


def test_entries_of_a_list() -> None:
    """A large file has its sha256 besides what stands for it in git."""
    small = parse_entry({"path": "a/config.json", "size": 3, "oid": GIT_ID})
    large = parse_entry({"path": "w", "size": 9, "oid": GIT_ID, "lfs": {"oid": SHA256, "size": 9}})
    assert (small.etag, large.etag) == (GIT_ID, SHA256)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a//b", ".", "", "a\0b", "a\\b", "a\nb"])
def test_a_path_that_leaves_the_cache(path: str) -> None:
    """The hub's list is from outside."""
    with pytest.raises(UnavailableError):
        parse_entry({"path": path, "size": 1, "oid": GIT_ID})


@pytest.mark.parametrize(
    "entry", [{}, {"path": "a"}, {"path": "a", "size": "x", "oid": GIT_ID}, {"path": "a", "lfs": 1}]
)
def test_an_entry_that_is_none(entry: dict[str, object]) -> None:
    """Neither is a digest that would be a path."""
    with pytest.raises(UnavailableError):
        parse_entry(entry)
    with pytest.raises(UnavailableError):
        parse_entry({"path": "a", "size": 1, "oid": "../../x"})


def test_the_layout(tmp_path: Path) -> None:
    """As the clients write it; twice is as once, and another commit shares what has not changed."""
    cache, file = RepositoryCache(tmp_path, "org/name"), TreeFile("sub/w", 4, GIT_ID, SHA256)
    with cache.placing(file) as path:
        path.write_bytes(b"data")
    for commit in (COMMIT, "d" * 40, COMMIT):
        cache.link(commit, file)
        cache.finish("pr/1", commit, [file])
    folder = tmp_path / "models--org--name"
    for commit in (COMMIT, "d" * 40):
        assert os.readlink(folder / f"snapshots/{commit}/sub/w") == f"../../../blobs/{SHA256}"
        assert (folder / f"snapshots/{commit}/sub/w").read_bytes() == b"data"
    assert (folder / "refs/pr/1").read_text() == COMMIT
    assert json.loads((folder / f"trees/{COMMIT}.json").read_text()) == {
        "format_version": 1,
        "files": {"sub/w": {"size": 4, "blob_id": GIT_ID, "lfs_sha256": SHA256, "lfs_size": 4}},
    }
    assert cache.has(file)
    assert sorted(each.name for each in folder.rglob("*") if each.name.startswith(".")) == []


def test_what_failed_leaves_nothing(tmp_path: Path) -> None:
    """A blob is there whole, or not at all."""
    cache, file = RepositoryCache(tmp_path, "gpt2"), TreeFile("w", 4, GIT_ID)
    with pytest.raises(IsADirectoryError), cache.placing(file) as path:
        path.parent.write_bytes(b"")
    assert not cache.has(file)
    assert list((tmp_path / "models--gpt2/blobs").iterdir()) == []


def test_copies(tmp_path: Path) -> None:
    """Of what is there as expected."""
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(data := os.urandom(3_000_001))
    target.touch()
    assert copy_shared(source, target, len(data))
    assert target.read_bytes() == data
    assert not copy_shared(source, target, len(data) - 1)
    assert not copy_shared(tmp_path / "absent", target, 1)


def test_where_clients_look() -> None:
    """By their own variables, in their order."""
    assert default_cache({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}) == Path("/a")
    assert default_cache({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}) == Path("/b/hub")
    assert default_cache({"XDG_CACHE_HOME": "/c"}) == Path("/c/huggingface/hub")
    assert default_cache({}) == Path.home() / ".cache/huggingface/hub"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("gpt2", ("gpt2", "main")),
        ("hf://org/name@v1.0", ("org/name", "v1.0")),
        ("datasets/org/name@refs/pr/1", ("datasets/org/name", "refs/pr/1")),
    ],
)
def test_repositories(text: str, found: tuple[str, str]) -> None:
    """As people write them."""
    assert parse_repository(text) == found


@pytest.mark.parametrize("text", ["", "a/b/c", "../x", "org/name@../x", "org/na me", "org/name@x y", "/org/name"])
def test_what_is_no_repository(text: str) -> None:
    """It would be a path elsewhere, at the hub or here."""
    with pytest.raises(InvalidArgumentError):
        parse_repository(text)


def test_without_a_peer(minga: Minga) -> None:
    """Nothing else has the models."""
    ended = minga("hf", "fill", "org/name")
    assert ended.code != 0
    assert "minga peer" in ended.err
