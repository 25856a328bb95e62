"""`minga ls`, `find`, `info`."""

import json

import pytest

from minga_cli import output
from minga_cli.output import safe

from .conftest import FakeLocator, Minga, content_id


def test_ls_prints_a_plain_line_for_each_file_of_every_page(minga: Minga, locator: FakeLocator) -> None:
    """Piped output has no header, no box art, columns of fixed width and the name last."""
    locator.share("a b.txt", 3)
    locator.share("data/big.iso", 5 << 30, number=2)
    locator.share("data/big.iso", 6 << 30, number=3)
    locator.share("é.bin", 1536)
    ended = minga("ls")
    assert ended.out == (
        "2026-03-01 12:00         3 B  a b.txt\n"
        "2026-03-01 12:00       6 GiB  data/big.iso  (2 versions)\n"
        "2026-03-01 12:00     1.5 KiB  é.bin\n"
    )
    assert (ended.code, ended.err) == (0, "")


def test_ls_asks_for_a_prefix(minga: Minga, locator: FakeLocator) -> None:
    """A PREFIX narrows the list."""
    locator.share("a/x")
    locator.share("b/x")
    assert minga("ls", "b/").out.endswith("  b/x\n")


def test_ls_json_is_one_document_of_the_documented_shape(minga: Minga, locator: FakeLocator) -> None:
    """JSON has exact bytes and RFC 3339 times."""
    for name in ("a", "b", "c"):
        locator.share(name, 1024)
    files = json.loads(minga("ls", "--json").out)["files"]
    assert [file["name"] for file in files] == ["a", "b", "c"]
    assert files[0] == {
        "name": "a",
        "content_id": content_id(1),
        "size_bytes": 1024,
        "published_time": "2026-03-01T12:00:00.000000Z",
        "version_count": 1,
        "newer_incomplete": False,
    }


def test_a_newer_version_that_nobody_has_completely_is_shown(minga: Minga, locator: FakeLocator) -> None:
    """Fault B1: an upload that broke off was the newest version, and nothing said why the older one comes."""
    locator.share("app")
    locator.files["app"]["newer_incomplete"] = True
    assert minga("ls").out.endswith("  app  (a newer one is incomplete)\n")
    assert minga("info", "app").out.splitlines()[-1].startswith("a newer version is not complete anywhere: ")
    assert json.loads(minga("info", "app", "--json").out)["newer_incomplete"] is True
    assert json.loads(minga("ls", "--json").out)["files"][0]["newer_incomplete"] is True


def test_find_refuses_an_empty_pattern(minga: Minga) -> None:
    """An empty pattern would list everything: that is ls."""
    ended = minga("find", "")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "minga: an empty pattern finds nothing (`minga ls` lists everything)\n"


def test_info_shows_versions_and_holders(minga: Minga, locator: FakeLocator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest version first; partial holders come last and are marked. Nothing is folded, so ids can be copied."""
    monkeypatch.setenv("COLUMNS", "80")
    locator.share("iso", 1024, holders=("peer-2", "peer-1"))
    locator.files["iso"]["versions"][0]["sources"][0]["state"] = "partial"
    locator.files["iso"]["versions"][0]["complete_count"] = 30
    locator.files["iso"]["versions"][0]["partial_count"] = 1
    locator.files["iso"]["versions"][0] |= {"modified_time": "2025-12-31T23:59:00.000000Z", "executable": True}
    assert minga("info", "iso").out.splitlines() == [
        "iso",
        "CONTENT ID" + " " * 60 + "SIZE  PUBLISHED         MODIFIED          EXECUTABLE  HOLDERS",
        f"{content_id(1)}  1 KiB  2026-03-01 12:00  2025-12-31 23:59  yes         peer-1, peer-2 (part), and 29 more",
    ]
    (version,) = json.loads(minga("info", "iso", "--json").out)["versions"]
    assert (version["modified_time"], version["executable"]) == ("2025-12-31T23:59:00.000000Z", True)


def test_info_takes_a_content_id(minga: Minga, locator: FakeLocator) -> None:
    """A content can be looked up whatever it is called."""
    locator.share("one", number=9)
    locator.share("two", number=9)
    document = json.loads(minga("info", content_id(9), "--json").out)
    assert document["names"] == ["one", "two"]
    assert document["versions"][0]["sources"] == [
        {"peer_id": "peer-1", "address": "10.0.0.1:50053", "zone": "", "state": "complete"}
    ]


def test_info_of_a_folder_says_so(minga: Minga, locator: FakeLocator) -> None:
    """A folder taken for a file is the likeliest mistake."""
    locator.share("data/x")
    ended = minga("info", "data")
    assert ended.code == 3
    assert ended.err.startswith("minga: data is a folder, not a file (")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("command", [["ls"], ["find", "x"], ["info", "x"], ["peers"]])
def test_a_locator_that_is_not_ready_is_one_line_and_5(minga: Minga, locator: FakeLocator, command: list[str]) -> None:
    """Nothing hangs, nothing is a traceback."""
    locator.down = True
    ended = minga(*command)
    assert (ended.code, ended.out) == (5, "")
    assert ended.err == f"minga: the locator at {locator.url} is not ready: Redis is away\n"


def test_no_locator_is_one_line_with_what_to_do(minga: Minga) -> None:
    """The hint says how to get one."""
    ended = minga("--locator", "http://127.0.0.1:1", "ls")
    assert ended.code == 5
    assert ended.err.count("\n") == 1
    assert "`minga up`" in ended.err


def test_a_terminal_gets_a_header_and_a_summary(
    minga: Minga, locator: FakeLocator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People get titles and a sum; NO_COLOR keeps them plain."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    locator.share("a", 1024)
    lines = minga("ls").out.splitlines()
    assert lines[0].split() == ["PUBLISHED", "SIZE", "NAME"]
    assert lines[-1] == "1 file, 1 KiB"


def test_what_a_remote_says_cannot_drive_the_terminal() -> None:
    """Escapes are made visible."""
    assert output.safe("a\x1b[2Jb\nc") == "a\ufffd[2Jb\ufffdc"


def test_names_cannot_turn_other_text(minga: Minga, locator: FakeLocator) -> None:
    """Fault of the field: bidi overrides passed in `ls`, while U+202F, ZWJ and NBSP were replaced in paths."""
    locator.share("a\u202egpj.exe")
    locator.share("b\u202f\u00a0\u200dc")
    shown = minga("ls").out
    assert "\u202e" not in shown + minga("info", "a\u202egpj.exe").out
    assert "a\ufffdgpj.exe\n" in shown
    assert "b\u202f\u00a0\u200dc\n" in shown
    assert safe("b\u202f\u00a0\u200dc") == "b\u202f\u00a0\u200dc"


def test_json_has_no_broken_beginning(minga: Minga, locator: FakeLocator) -> None:
    """Fault of the field: `ls --json` printed `{"files": [` when the locator was away."""
    assert json.loads(minga("ls", "--json").out) == {"files": []}
    locator.down = True
    assert minga("ls", "--json").out == ""


@pytest.fixture
def three(locator: FakeLocator) -> FakeLocator:
    """Files whose sizes are not in the order of their names; published one after the other."""
    for number, (name, size_bytes) in enumerate([("a", 10), ("b", 3000), ("c", 200)], 1):
        locator.share(name, size_bytes, number)
        locator.files[name]["versions"][0]["published_time"] = f"2026-01-0{number}T00:00:00.000000Z"
    return locator


@pytest.mark.parametrize("command", [["ls"], ["find", ""]])
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], "abc"),
        (["--sort", "size"], "bca"),
        (["-s", "time"], "cba"),
        (["--limit", "2"], "ab"),
        (["--limit", "1", "--sort", "size"], "b"),
        (["--limit", "9", "--sort", "time"], "cba"),
    ],
)
def test_listings_are_sorted_and_limited(
    minga: Minga,
    three: FakeLocator,
    command: list[str],
    options: list[str],
    names: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same for people and as JSON; also when not all files are kept at once."""
    monkeypatch.setattr("minga_cli.listing.SORT_STEP", 0)
    if command == ["find", ""]:
        for name in "abc":
            three.files[f"{name}x"] = three.files.pop(name) | {"name": f"{name}x"}
        command = ["find", "x"]
    lines = minga(*command, *options).out.splitlines()
    assert [line.split()[-1][0] for line in lines] == list(names)
    found = json.loads(minga(*command, *options, "--json").out)["files"]
    assert [file["name"][0] for file in found] == list(names)


def test_a_long_listing_is_exact(minga: Minga, three: FakeLocator) -> None:
    """With the content's id, which `get --content-id` takes."""
    assert minga("ls", "--long").out.splitlines()[1].split() == [
        *("2026-01-02T00:00:00.000000Z", "3000", content_id(2), "b")
    ]


@pytest.mark.parametrize("options", [["--limit", "0"], ["--limit", "-1"], ["--sort", "colour"]])
def test_a_wrong_order_or_limit_is_2(minga: Minga, options: list[str]) -> None:
    """Before anything is asked."""
    assert minga("ls", *options).code == 2


def test_too_many_files_to_sort_are_refused(minga: Minga, three: FakeLocator, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit they are not too many."""
    monkeypatch.setattr("minga_cli.listing.MAX_SORTED", 2)
    monkeypatch.setattr("minga_cli.listing.SORT_STEP", 0)
    assert minga("ls", "--sort", "size").code == 5
    assert minga("ls", "--sort", "size", "--limit", "1").code == 0
