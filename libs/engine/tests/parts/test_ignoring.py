"""The rules of what a folder leaves out: defaults, the folder's own, and bounds of both."""

import os
import time
from pathlib import Path

import pytest

from minga_engine.parts.files import IGNORE_FILE
from minga_engine.parts.ignoring import MAX_FILE_BYTES, MAX_RULES, IgnoreRules


@pytest.mark.parametrize(
    "path",
    [
        *(".git/config", "src/.git/objects/ab", ".hg/store", "notes.txt~", "a/.#lock", "#auto#", ".file.swp"),
        *(".~lock.table.odt#", "~$report.docx", "photos/.DS_Store", ".nfs0000001", ".Trash-1000/files/a"),
        *(".env", "deep/.env", ".env.production", ".ssh/id_ed25519", "home/.aws/credentials", "film.mkv.crdownload"),
    ],
)
def test_defaults_leave_out_secrets_repositories_and_temporary_files(path: str) -> None:
    """Wherever they are."""
    assert IgnoreRules().ignores_file(path)


@pytest.mark.parametrize(
    "path",
    [
        *("data.bin", ".hidden", "env", "environment/.envrc", ".env.example", "git", "a.part", "4913", "model.tmp"),
        *(".gitignore", ".github/workflows/ci.yml", "weights/~a", "#a", "a.swp", "ssh/config", "Trash-1/a"),
    ],
)
def test_defaults_leave_nothing_out_that_could_be_data(path: str) -> None:
    """Hidden files are shared, and so is what only resembles a temporary file."""
    assert not IgnoreRules().ignores_file(path)


def test_rules_are_those_of_gitignore_and_the_last_that_matches_decides() -> None:
    """Anchors, folders, wildcards, comments, and `!` for defaults too; nothing comes back below a folder left out."""
    rules = IgnoreRules(b"# mine\n*.o\n!keep.o\n/top\nbuild/\n!build/kept\ndata/**/raw\n!.git\n\\#real\nsp ace \n")
    assert rules.problems == []
    left_out = ["a.o", "x/a.o", "top", "top/a", "build/a", "build/kept", "x/build/a", "data/1/2/raw", "#real", "sp ace"]
    kept = ["keep.o", "x/keep.o", "x/top", "build", "raw", ".git/config", "x/.git/a", "# mine"]
    assert [path for path in left_out if not rules.ignores_file(path)] == []
    assert [path for path in kept if rules.ignores_file(path)] == []
    assert not rules.ignores("keep.o", folder=True)
    assert rules.ignores("build", folder=True)


def test_names_that_are_not_utf8_can_be_left_out() -> None:
    """A rule has bytes, as a name has."""
    assert IgnoreRules(b"\xff*\n").ignores_file(os.fsdecode(b"\xff\xfe"))


@pytest.mark.parametrize("line", ["!", "a\\", "[z-a]", "a[", "[[:alpha:]]x", "*a*b*c*", "**/a/**/b/**/c", "x" * 2000])
def test_a_line_that_is_no_rule_has_no_effect_and_is_named(line: str) -> None:
    """The others have theirs."""
    rules = IgnoreRules(f"a.log\n{line}\nb.log\n".encode())
    (problem,) = rules.problems
    assert problem.startswith("line 2: ")
    assert rules.ignores_file("a.log")
    assert rules.ignores_file("b.log")
    assert not rules.ignores_file("x")


def test_no_rule_makes_a_match_take_long() -> None:
    """An attack: a rule with many wildcards, and a name that almost matches, stop a process for hours."""
    rules = IgnoreRules(b"*a*a*b\n**/a/**/a/b\n" + b"a*a*b*\n" * 3000)
    assert len(rules.problems) == 1
    assert f"more than {MAX_RULES:,} rules" in rules.problems[0]
    few = IgnoreRules(b"*a*a*b\n**/a/**/a/b\n**/*a*a*b\n")
    assert few.problems == []
    began = time.process_time()
    for path in ("a" * 255, "/".join(["a"] * 512), "/".join(["a" * 200] * 5)):
        assert not few.ignores_file(path)
    assert time.process_time() - began < 20


def test_an_ignore_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """It is not taken for none: it may name secrets. None at all means the defaults."""
    assert IgnoreRules.of_folder(tmp_path).data == b""
    path = tmp_path / IGNORE_FILE
    path.mkdir()
    with pytest.raises(OSError, match="not a regular file"):
        IgnoreRules.of_folder(tmp_path)
    path.rmdir()
    path.symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic"):
        IgnoreRules.of_folder(tmp_path)
    path.unlink()
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(OSError, match="more than 64 KiB"):
        IgnoreRules.of_folder(tmp_path)
