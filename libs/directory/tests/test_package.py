"""What the package offers."""

from importlib.resources import files

import minga_directory
from minga_directory.scripts import NAMES


def test_public_names_are_pinned() -> None:
    """Taking one away is a breaking change."""
    assert sorted(minga_directory.__all__) == [
        "CatalogEntry",
        "CatalogPage",
        "DirectoryReader",
        "DirectoryStats",
        "DirectoryWriter",
        "HeartbeatOutcome",
        "Holder",
        "OUTCOMES",
        "PeerRecord",
        "Placement",
        "READER_OPERATIONS",
        "RedisDirectoryReader",
        "RedisDirectoryWriter",
        "StoreObserver",
        "TablePush",
        "Version",
        "WRITER_OPERATIONS",
        "connect_reader",
        "connect_writer",
        "observed_reader",
        "observed_writer",
    ]


def test_every_script_is_loaded_and_says_what_it_takes() -> None:
    """KEYS, ARGV and the return value stand above the text."""
    scripts = {entry.name.removesuffix(".lua"): entry for entry in files("minga_directory.scripts").iterdir()}
    scripts = {name: entry for name, entry in scripts.items() if entry.name.endswith(".lua")}
    assert set(scripts) == {*NAMES, "prelude", "index"}
    for name, entry in ((name, scripts[name]) for name in NAMES):
        head = entry.read_text().split("\nlocal ")[0].split("\nif ")[0].split("\nfor ")[0].split("\nredis.")[0]
        assert all(word in head for word in ("-- KEYS: ", "-- ARGV: ", "Returns ")), name
